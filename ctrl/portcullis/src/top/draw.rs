//! The screen. Colours only underline what words and signs say: blue and yellow, which nearly everybody tells apart.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::app::{App, Sheet};
use super::figures::{Figures, worker};
use super::source::is_stale;
use super::views::View;
use super::words::{clock, cut, lasting, megabits, rate, width};

/// The smallest terminal that has room for it.
pub const LEAST: (u16, u16) = (80, 24);
/// From so many columns on, the overview has two of them.
const TWO_COLUMNS: u16 = 160;

/// What keys do: the key, and what it does.
pub const KEYS: [(&str, &str); 12] = [
    ("1 to 9", "look at that view"),
    ("left, right, Tab", "the view before, the next one"),
    ("up, down, j, k", "scroll by a row"),
    ("PgUp, PgDn", "scroll by a screen"),
    ("Home, End, g, G", "the first row, the last one"),
    ("s, S", "sort by the next column, by the one before"),
    ("r", "sort the other way round"),
    ("/", "filter: rows that have the text in a name; Enter keeps it"),
    ("Esc", "no filter"),
    ("p, Space", "pause, and go on"),
    ("?, h", "this page"),
    ("q, Ctrl-C", "quit"),
];
const HELP: &str = "q quit  1-9 view  ↑↓ scroll  s sort  r reverse  / filter  p pause  ? help";

/// How things are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// NO_COLOR is not set.
    pub colours: bool,
}

impl Look {
    fn style(self, colour: Color, modifier: Modifier) -> Style {
        let style = Style::default().add_modifier(modifier);
        if self.colours { style.fg(colour) } else { style }
    }

    fn head(self) -> Style {
        self.style(Color::Cyan, Modifier::BOLD)
    }

    fn warning(self) -> Style {
        self.style(Color::Yellow, Modifier::BOLD)
    }

    fn quiet(self) -> Style {
        Style::default().add_modifier(Modifier::DIM)
    }
}

/// A part of the screen that is written line by line.
struct Pen<'b> {
    buffer: &'b mut Buffer,
    area: Rect,
    line: u16,
}

impl Pen<'_> {
    fn line(&mut self, text: &str, style: Style) {
        if self.line < self.area.height {
            let (columns, y) = (usize::from(self.area.width), self.area.y + self.line);
            self.buffer.set_stringn(self.area.x, y, cut(text, columns), columns, style);
        }
        self.line += 1;
    }

    fn left(&self) -> usize {
        usize::from(self.area.height.saturating_sub(self.line))
    }
}

/// Draws all of it; `now` is in nanoseconds since 1970.
pub fn draw(app: &mut App, buffer: &mut Buffer, look: Look, now: u64) {
    let area = buffer.area;
    let mut pen = Pen { buffer, area, line: 0 };
    if area.width < LEAST.0 || area.height < LEAST.1 {
        pen.line(&format!("this terminal has {} × {};", area.width, area.height), Style::default());
        pen.line(&format!("portcullis top needs {} × {} (q quits)", LEAST.0, LEAST.1), Style::default());
        return;
    }
    top(app, &mut pen, look, now);
    let body = Rect { y: pen.line, height: area.height - pen.line - 1, ..area };
    let foot = Rect { y: area.height - 1, height: 1, ..area };
    Pen { buffer, area: foot, line: 0 }.line(&foot_line(app), look.quiet());
    let pen = Pen { buffer, area: body, line: 0 };
    match (app.is_helping, app.view) {
        (true, _) => help(pen, look),
        (false, View::Overview) => overview(app, pen, look),
        (false, view) => sheet(app, view, pen, look),
    }
}

fn foot_line(app: &App) -> String {
    match (app.is_typing, app.filter.is_empty()) {
        (true, _) => format!("filter: {}_  (Enter keeps it, Esc drops it)", app.filter),
        (false, false) => format!("filter: {} (Esc drops it)  {HELP}", app.filter),
        (false, true) => HELP.to_owned(),
    }
}

/// The first lines, which every view has.
fn top(app: &App, pen: &mut Pen, look: Look, now: u64) {
    let figures = &app.figures;
    let lasts = figures.problems.iter().filter(|problem| problem.ended.is_none()).count();
    let health = match lasts {
        0 => "health ok".to_owned(),
        1 => "1 problem".to_owned(),
        more => format!("{more} problems"),
    };
    let up = lasting(figures.written.saturating_sub(figures.started));
    let first =
        format!("portcullis {}, generation {}, up {up}, {health}", figures.version, figures.generation);
    let (when, is_wrong) = moment(app, now);
    let room = usize::from(pen.area.width).saturating_sub(width(&when) + 1);
    let row = pen.area.y + pen.line;
    pen.line(&cut(&first, room), Style::default().add_modifier(Modifier::BOLD));
    let style = if is_wrong { look.warning() } else { Style::default() };
    pen.buffer.set_string(pen.area.width - width(&when) as u16, row, &when, style);
    tabs(app, pen, look);
    let [long, short] = summary(figures);
    let fits = width(&long) <= usize::from(pen.area.width);
    pen.line(if fits { &long } else { &short }, Style::default());
    if let Some(failure) = &app.failure {
        pen.line(&format!("! {failure}"), look.warning());
    }
    if !figures.settings.is_empty() {
        pen.line(&format!("! not strict: {}", figures.settings.join("; ")), look.warning());
    }
    pen.line += 1;
}

/// Of when the figures are, and whether that is long ago.
fn moment(app: &App, now: u64) -> (String, bool) {
    let figures = &app.figures;
    let ago = lasting(now.saturating_sub(figures.written));
    let at = clock(figures.written);
    if let Some(ended) = figures.ended {
        return (format!("ENDED at {}, {} ago", clock(ended), lasting(now.saturating_sub(ended))), true);
    }
    match (app.is_paused, is_stale(figures, now)) {
        (true, _) => (format!("PAUSED at {at}"), true),
        (false, true) => (format!("STALE since {at}, {ago}"), true),
        (false, false) => (at, false),
    }
}

fn tabs(app: &App, pen: &mut Pen, look: Look) {
    let (mut text, mut chosen) = (String::from(" "), None);
    for (n, view) in View::ALL.iter().enumerate() {
        let name = format!("{} {}", n + 1, view.name());
        if *view == app.view {
            text.pop();
            chosen = Some((width(&text), width(&name) + 2));
            text += &format!("[{name}]");
        } else {
            text += &format!("{name} ");
        }
    }
    let row = pen.area.y + pen.line;
    pen.line(&text, Style::default());
    if let Some((at, columns)) = chosen {
        let area = Rect { x: at as u16, y: row, width: columns as u16, height: 1 };
        pen.buffer.set_style(area, look.head());
    }
}

/// All workers together; and the same in fewer words.
pub fn summary(figures: &Figures) -> [String; 2] {
    let all = figures.all_workers();
    let of = |which: &[usize]| rate(all.rate_of(which));
    let (held, fit) = figures
        .workers
        .iter()
        .fold((0, 0), |(held, fit), w| (held + w.connections + w.tombstones, fit + w.capacity));
    let (pass, drop) = (of(&[worker::PASS]), of(&[worker::DROP]));
    let [all, bits] = [of(&[worker::PASS, worker::DROP]), megabits(all.rate_of(&[worker::BYTES]))];
    [
        format!("in {all}/s, pass {pass}/s ({bits} Mbit/s), drop {drop}/s, {held} of {fit} connections"),
        format!("pass {pass}/s ({bits} Mbit/s), drop {drop}/s, {held} of {fit} conns"),
    ]
}

/// Which rows of a table are drawn.
enum Rows {
    From(usize),
    /// As many as have room, what is marked first.
    Some,
}

/// Rows of a view's table; how many there are.
fn rows(app: &mut App, view: View, which: Rows, pen: &mut Pen, look: Look) -> usize {
    let (room, columns) = (pen.left().saturating_sub(1), usize::from(pen.area.width));
    let Sheet { table, look: order, sort } = app.sheet(view);
    let all = order.shown.len();
    let lines = match which {
        Rows::From(first) => {
            let first = first.min(all.saturating_sub(room));
            table.lines(order, Some(*sort), columns, first..first + room)
        }
        Rows::Some => table.lines(&table.marked_first(order), Some(*sort), columns, 0..room),
    };
    for (n, (line, is_marked)) in lines.iter().enumerate() {
        let style = match (n, is_marked) {
            (0, _) => look.head(),
            (_, true) => look.warning(),
            (_, false) => Style::default(),
        };
        pen.line(line, style);
    }
    all
}

/// One view.
fn sheet(app: &mut App, view: View, mut pen: Pen, look: Look) {
    for line in notes(&app.figures, view) {
        pen.line(&line, Style::default());
    }
    let area = Rect { y: pen.area.y + pen.line, height: pen.left().saturating_sub(1) as u16, ..pen.area };
    let foot = Rect { y: area.y + area.height, height: 1, ..area };
    let first = app.first;
    let mut table = Pen { buffer: &mut *pen.buffer, area, line: 0 };
    let all = rows(app, view, Rows::From(first), &mut table, look);
    app.room = usize::from(area.height).saturating_sub(1);
    app.rows = all;
    app.first = first.min(all.saturating_sub(app.room));
    let (from, to) = (app.first + 1, (app.first + app.room).min(all));
    let text = match all {
        0 if app.filter.is_empty() => "none".to_owned(),
        0 => format!("none that has {:?} in a name", app.filter),
        _ => format!("{from} to {to} of {all}"),
    };
    Pen { buffer: pen.buffer, area: foot, line: 0 }.line(&text, look.quiet());
}

/// What a view says above its table.
pub fn notes(figures: &Figures, view: View) -> Vec<String> {
    let left_out = || match figures.nics_left_out() {
        0 => None,
        n => {
            let least = figures.nics.len();
            let they = if n == 1 { "NIC with less traffic is" } else { "NICs with less traffic are" };
            Some(format!("{n} {they} left out ([metrics] nics = {least})"))
        }
    };
    let mut notes = Vec::new();
    match view {
        View::Nics => notes.extend(left_out()),
        View::Connections => {
            let nonzero = figures.states.iter().filter(|(_, n)| **n > 0);
            let states: Vec<_> = nonzero.map(|(state, n)| format!("{state} {n}")).collect();
            notes.push(format!(
                "by state: {}",
                if states.is_empty() { "none".to_owned() } else { states.join(", ") }
            ));
            let opened = rate(figures.all_workers().rate_of(&[worker::OPENED]));
            let ends: Vec<_> =
                figures.ends.iter().map(|(how, n)| format!("{how} {}", rate(n.rate_of(&[0])))).collect();
            notes.push(format!("by the second: opened {opened}; ended: {}", ends.join(", ")));
            notes.push("single ones are not in the page: portcullis connections list".to_owned());
            notes.extend(left_out());
        }
        View::Commits => {
            let all: Vec<_> = figures.outcomes.iter().map(|(what, n)| format!("{what} {n}")).collect();
            notes.push(format!("since the start: {}; disconnected {}", all.join(", "), figures.disconnected));
        }
        // The head has them in one line.
        View::Health => {
            notes.extend(figures.settings.iter().map(|setting| format!("! not strict: {setting}")))
        }
        _ => {}
    }
    if !notes.is_empty() {
        notes.push(String::new());
    }
    notes
}

/// A little of everything.
fn overview(app: &mut App, pen: Pen, look: Look) {
    const LEFT: [View; 4] = [View::Ports, View::Workers, View::Drops, View::Health];
    const RIGHT: [View; 3] = [View::Nics, View::Rules, View::Commits];
    let Pen { buffer, area, .. } = pen;
    if area.width >= TWO_COLUMNS {
        let half = area.width / 2;
        let left = Rect { width: half - 2, ..area };
        let right = Rect { x: half, width: area.width - half, ..area };
        stack(app, &LEFT, Pen { buffer: &mut *buffer, area: left, line: 0 }, look);
        stack(app, &RIGHT, Pen { buffer, area: right, line: 0 }, look);
    } else {
        let all = [View::Ports, View::Workers, View::Nics, View::Drops, View::Rules, View::Commits];
        stack(app, &all, Pen { buffer, area, line: 0 }, look);
    }
}

/// Tables below each other, each with a share of the room.
fn stack(app: &mut App, views: &[View], pen: Pen, look: Look) {
    let there: Vec<(View, usize)> =
        views.iter().map(|view| (*view, app.sheet(*view).look.shown.len())).filter(|(_, n)| *n > 0).collect();
    let Pen { buffer, area, .. } = pen;
    let shares = shares(&there.iter().map(|(_, rows)| *rows).collect::<Vec<_>>(), area.height.into());
    let mut y = area.y;
    for ((view, _), rows_shown) in there.iter().zip(shares).filter(|(_, rows)| *rows > 0) {
        let height = rows_shown as u16 + 1;
        let mut part = Pen { buffer: &mut *buffer, area: Rect { y, height, ..area }, line: 0 };
        rows(app, *view, Rows::Some, &mut part, look);
        y += height + 1;
    }
}

/// How many rows each of some tables gets: in turn one each, as long as there is room for them, a head each and a gap between two. The
/// last ones go without, where not even a row of each has room.
fn shares(wanted: &[usize], room: usize) -> Vec<usize> {
    let mut tables = wanted.len();
    while tables > 0 && 3 * tables - 1 > room {
        tables -= 1;
    }
    let mut left = room - (2 * tables).saturating_sub(1).min(room);
    let mut shares = vec![0; wanted.len()];
    while left > 0 && shares.iter().zip(wanted).take(tables).any(|(share, wanted)| share < wanted) {
        for (share, wanted) in shares.iter_mut().zip(wanted).take(tables) {
            if *share < *wanted && left > 0 {
                *share += 1;
                left -= 1;
            }
        }
    }
    shares
}

fn help(mut pen: Pen, look: Look) {
    pen.line("Keys", look.head());
    for (keys, what) in KEYS {
        pen.line(&format!("  {keys:<18}{what}"), Style::default());
    }
    pen.line("", Style::default());
    pen.line(
        "! marks what wants a look: a link that is down, losses, a worker that is full or behind.",
        Style::default(),
    );
    pen.line(
        "Rates are by the second, between the last two moments that the page was written.",
        Style::default(),
    );
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn room_is_shared_in_turn() {
        assert_eq!(shares(&[2, 2, 100], 20), [2, 2, 11]);
        assert_eq!(shares(&[2, 2, 1], 20), [2, 2, 1]);
        assert_eq!(shares(&[9, 9], 9), [3, 3]);
        // No room for a third head.
        assert_eq!(shares(&[9, 9, 9], 7), [2, 2, 0]);
        assert_eq!(shares(&[], 7), [0; 0]);
        assert_eq!(shares(&[5], 0), [0]);
    }
}
