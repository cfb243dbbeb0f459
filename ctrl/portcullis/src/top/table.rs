//! A table that can be sorted, filtered and laid out for any width.

use std::cmp::Ordering;

use control::name::natural;

use super::words::{UNKNOWN, cut_name, hundredths, megabits, padded, percent, rate, width};

/// What stands in one place.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Text(String),
    Count(u64),
    /// What not every row counts.
    Optional(Option<u64>),
    /// Of these, by the second.
    Rate(Option<f64>),
    /// Bytes by the second, shown in Mbit/s.
    Megabits(Option<f64>),
    /// A share of 1.
    Percent(Option<f64>),
    /// To the hundredth.
    Hundredths(Option<f64>),
}

impl Cell {
    pub fn text(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Count(count) | Cell::Optional(Some(count)) => count.to_string(),
            Cell::Optional(None) => UNKNOWN.to_owned(),
            Cell::Rate(number) => rate(*number),
            Cell::Megabits(bytes) => megabits(*bytes),
            Cell::Percent(share) => percent(*share),
            Cell::Hundredths(number) => hundredths(*number),
        }
    }

    fn width(&self) -> usize {
        match self {
            Cell::Text(text) => width(text),
            Cell::Count(count) => count.checked_ilog10().unwrap_or_default() as usize + 1,
            _ => self.text().len(),
        }
    }

    fn is_number(&self) -> bool {
        !matches!(self, Cell::Text(_))
    }

    /// What is not known comes below every number.
    fn order(&self, other: &Cell) -> Ordering {
        match (self, other) {
            (Cell::Text(one), Cell::Text(other)) => natural(one, other),
            (Cell::Count(one), Cell::Count(other)) => one.cmp(other),
            (Cell::Optional(one), Cell::Optional(other)) => one.cmp(other),
            (
                Cell::Rate(one) | Cell::Megabits(one) | Cell::Percent(one) | Cell::Hundredths(one),
                Cell::Rate(other) | Cell::Megabits(other) | Cell::Percent(other) | Cell::Hundredths(other),
            ) => one.unwrap_or(-1.0).total_cmp(&other.unwrap_or(-1.0)),
            // A column is of one kind.
            _ => Ordering::Equal,
        }
    }
}

/// A column's head.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    /// Where there is no room for all, those with the highest go first; 0 stays.
    pub rank: u8,
}

/// The least columns of a text that is cut.
const LEAST: usize = 12;
/// Those of a name in the first column, for which others are left out; where even that does not do, it gets less.
const LEAST_OF_NAME: usize = 20;
const LEAST_OF_ALL: usize = 6;
/// Between two columns.
const GAP: usize = 2;
/// Before the first: room for a mark.
const MARGIN: usize = 2;

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub cells: Vec<Cell>,
    /// Something of it wants to be looked at.
    pub is_marked: bool,
}

/// By which column, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    pub column: usize,
    pub descending: bool,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
    /// Of each column: the widest cell's, the head's included.
    widths: Vec<usize>,
    /// The least columns of a text that is cut.
    least: usize,
}

/// A table as it is looked at.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The rows that fit the filter, in order.
    pub shown: Vec<usize>,
}

impl Table {
    pub fn new(columns: &[(&'static str, u8)], rows: Vec<Row>) -> Table {
        let columns: Vec<_> = columns.iter().map(|(name, rank)| Column { name, rank: *rank }).collect();
        let mut widths: Vec<usize> = columns.iter().map(|column| width(column.name)).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                *width = (*width).max(cell.width());
            }
        }
        Table { columns, rows, widths, least: LEAST }
    }

    /// The same with texts that say little in a few columns: others are left out for them.
    pub fn wordy(self, least: usize) -> Table {
        Table { least, ..self }
    }

    /// Numbers are looked at from the largest on, texts from the first on.
    pub fn natural_way(&self, column: usize) -> Sort {
        let is_number = self.rows.first().and_then(|row| row.cells.get(column)).is_some_and(Cell::is_number);
        Sort { column, descending: is_number }
    }

    /// What fits the filter, in the order of `sort`, and among equals in that of the first column.
    pub fn look(&self, sort: Sort, filter: &str) -> Look {
        let filter = filter.to_lowercase();
        let fits = |row: &Row| {
            filter.is_empty()
                || row
                    .cells
                    .iter()
                    .any(|cell| matches!(cell, Cell::Text(text) if text.to_lowercase().contains(&filter)))
        };
        let mut shown: Vec<usize> =
            self.rows.iter().enumerate().filter(|(_, row)| fits(row)).map(|(at, _)| at).collect();
        shown.sort_by(|one, other| {
            let (one, other) = (&self.rows[*one].cells, &self.rows[*other].cells);
            let order = one[sort.column].order(&other[sort.column]);
            let order = if sort.descending { order.reverse() } else { order };
            order.then_with(|| one[0].order(&other[0]))
        });
        Look { shown }
    }

    /// The same, what is marked first.
    pub fn marked_first(&self, look: &Look) -> Look {
        let mut shown = look.shown.clone();
        shown.sort_by_key(|at| !self.rows[*at].is_marked);
        Look { shown }
    }

    /// Which columns have room, each with its width.
    fn fitted(&self, room: usize) -> Vec<(usize, usize)> {
        let is_text = |at: usize| !self.rows.first().is_some_and(|row| row.cells[at].is_number());
        let least = |at: usize| match (is_text(at), at) {
            (true, 0) => self.widths[at].min(LEAST_OF_NAME),
            (true, _) => self.widths[at].min(self.least),
            (false, _) => self.widths[at],
        };
        let mut kept: Vec<usize> = (0..self.columns.len()).collect();
        let need = |kept: &[usize]| MARGIN + kept.iter().map(|at| least(*at) + GAP).sum::<usize>() - GAP;
        while need(&kept) > room {
            let last = kept.iter().copied().max_by_key(|at| (self.columns[*at].rank, *at));
            let Some(last) = last.filter(|at| self.columns[*at].rank > 0) else { break };
            kept.retain(|at| *at != last);
        }
        let mut spare = room.saturating_sub(need(&kept));
        let mut over = need(&kept).saturating_sub(room);
        kept.into_iter()
            .map(|at| {
                let more = (self.widths[at] - least(at)).min(spare);
                let less = if is_text(at) { least(at).saturating_sub(LEAST_OF_ALL).min(over) } else { 0 };
                (spare, over) = (spare - more, over - less);
                (at, least(at) + more - less)
            })
            .collect()
    }

    fn line(fitted: &[(usize, usize)], mark: &str, cells: impl Fn(usize) -> (String, bool)) -> String {
        let mut line = padded(mark, MARGIN, false);
        for (n, (at, columns)) in fitted.iter().enumerate() {
            let (text, is_number) = cells(*at);
            if n > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let text = if *at == 0 { cut_name(&text, *columns) } else { text };
            line.push_str(&padded(&text, *columns, is_number));
        }
        line.truncate(line.trim_end().len());
        line
    }

    /// The head, with a sign at the column by which it is sorted; then some of the rows looked at, each with whether it is marked.
    pub fn lines(
        &self,
        look: &Look,
        sort: Option<Sort>,
        room: usize,
        rows: std::ops::Range<usize>,
    ) -> Vec<(String, bool)> {
        let fitted = self.fitted(room);
        let is_number = |at: usize| self.rows.first().is_some_and(|row| row.cells[at].is_number());
        let mut head = Table::line(&fitted, "", |at| (self.columns[at].name.to_owned(), is_number(at)));
        if let Some(sort) = sort {
            head = self.signed(&fitted, head, sort);
        }
        let shown = look.shown.get(rows.start.min(look.shown.len())..rows.end.min(look.shown.len()));
        let line = |at: &usize| {
            let row = &self.rows[*at];
            let mark = if row.is_marked { "!" } else { "" };
            let text = Table::line(&fitted, mark, |column| {
                (row.cells[column].text(), row.cells[column].is_number())
            });
            (text, row.is_marked)
        };
        std::iter::once((head, false)).chain(shown.unwrap_or_default().iter().map(line)).collect()
    }

    /// Puts the sign into the gap before the sorted column, which every column has.
    fn signed(&self, fitted: &[(usize, usize)], head: String, sort: Sort) -> String {
        let Some(place) = fitted.iter().position(|(at, _)| *at == sort.column) else { return head };
        let before: usize = fitted[..place].iter().map(|(_, columns)| columns + GAP).sum();
        let is_number = self.rows.first().is_some_and(|row| row.cells[sort.column].is_number());
        let (at, columns) = fitted[place];
        let blank = if is_number { columns - width(self.columns[at].name) } else { 0 };
        let sign = if sort.descending { '▼' } else { '▲' };
        let at = MARGIN + before + blank - 1;
        head.chars().enumerate().map(|(n, c)| if n == at { sign } else { c }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[(&str, u64)]) -> Table {
        let row = |(name, count): &(&str, u64)| Row {
            cells: vec![Cell::Text((*name).to_owned()), Cell::Count(*count), Cell::Text("x".repeat(40))],
            is_marked: *count == 7,
        };
        Table::new(&[("name", 0), ("packets", 0), ("description", 1)], names.iter().map(row).collect())
    }

    fn text(table: &Table, sort: Sort, filter: &str, room: usize) -> Vec<String> {
        let look = table.look(sort, filter);
        table.lines(&look, Some(sort), room, 0..10).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn names_are_sorted_by_their_numbers_and_counts_by_size() {
        let table = table(&[("server-10", 5), ("server-2", 7), ("web", 5)]);
        let by_name = Sort { column: 0, descending: false };
        assert_eq!(
            text(&table, by_name, "", 24),
            [" ▲name       packets", "! server-2         7", "  server-10        5", "  web              5"]
        );
        let by_count = table.natural_way(1);
        assert!(by_count.descending);
        assert_eq!(text(&table, by_count, "", 24)[0], "  name      ▼packets");
        assert_eq!(
            text(&table, by_count, "", 24)[1..],
            ["! server-2         7", "  server-10        5", "  web              5"]
        );
        assert_eq!(text(&table, by_name, "SERVER", 24).len(), 3);
        assert_eq!(text(&table, by_name, "nobody", 24).len(), 1);
    }

    #[test]
    fn what_has_no_room_is_left_out_and_what_is_too_long_is_cut() {
        let table = table(&[("a-name-of-more-than-twelve", 1)]);
        let sort = Sort { column: 1, descending: true };
        assert_eq!(text(&table, sort, "", 24)[1], "  a-name…twelve        1");
        assert_eq!(text(&table, sort, "", 60)[1].chars().count(), 60);
        assert!(text(&table, sort, "", 60)[1].ends_with('…'));
        assert_eq!(text(&table, sort, "", 200)[1].chars().count(), 2 + 26 + 2 + 7 + 2 + 40);
        for room in 24..120 {
            let lines = text(&table, sort, "", room);
            assert!(lines.iter().all(|line| width(line) <= room), "{room}: {lines:?}");
        }
    }

    /// At most some milliseconds for as many NICs as an appliance is made for: nobody waits for a key.
    #[test]
    fn ten_thousand_rows_are_sorted_at_once() {
        let names: Vec<String> = (0..10_000).map(|n| format!("server-{}", n * 7919 % 10_000)).collect();
        let table = table(&names.iter().map(|name| (name.as_str(), 3)).collect::<Vec<_>>());
        let begin = std::time::Instant::now();
        let look = table.look(Sort { column: 0, descending: false }, "server");
        assert!(begin.elapsed() < std::time::Duration::from_millis(250), "{:?}", begin.elapsed());
        assert_eq!(table.rows[look.shown[9_999]].cells[0], Cell::Text("server-9999".to_owned()));
        assert_eq!(table.rows[look.shown[10]].cells[0], Cell::Text("server-10".to_owned()));
    }
}
