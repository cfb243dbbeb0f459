//! TOML into a tree of values.

use super::{Entry, Fault, Node, Pos, Value};
use std::borrow::Cow;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Parses one file. How deep it nests is bounded by the parser.
pub(crate) fn parse(text: &str) -> Result<Node, Fault> {
    let lines = Lines::new(text);
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(Pos::START, |span| lines.pos(span));
        let message = match error.message().trim() {
            "duplicate key" => "the key stands twice; allowed: once".to_owned(),
            other => format!("no TOML: {}", other.replace('\n', "; ")),
        };
        Fault { at, message }
    })?;
    let value = lines.table(table.get_ref());
    Ok(Node { at: Pos::START, value })
}

/// Line starts, to turn the parser's byte offsets into lines and columns.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Lines<'t> {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Lines { text, starts }
    }

    fn pos(&self, span: Range<usize>) -> Pos {
        let line = self.starts.partition_point(|&start| start <= span.start);
        let start = line.checked_sub(1).and_then(|l| self.starts.get(l)).copied().unwrap_or(0);
        let column = self.text.get(start..span.start).map_or(0, |before| before.chars().count()) + 1;
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Pos { line: narrow(line), column: narrow(column), start: narrow(span.start), end: narrow(span.end) }
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Node {
        let at = self.pos(value.span());
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.clone().into_owned()),
            DeValue::Integer(i) => i128::from_str_radix(i.as_str(), i.radix())
                .map_or_else(|_| Value::Other(i.as_str().to_owned()), Value::Int),
            DeValue::Float(x) => {
                x.as_str().parse().map_or_else(|_| Value::Other(x.as_str().to_owned()), Value::Float)
            }
            DeValue::Boolean(b) => Value::Bool(*b),
            DeValue::Datetime(date) => Value::Other(date.to_string()),
            DeValue::Array(items) => Value::List(items.iter().map(|item| self.node(item)).collect()),
            DeValue::Table(table) => self.table(table),
        };
        Node { at, value }
    }

    fn table(&self, table: &DeTable<'_>) -> Value {
        let entry = |(key, value): (&Spanned<Cow<'_, str>>, _)| Entry {
            at: self.pos(key.span()),
            key: key.get_ref().clone().into_owned(),
            node: self.node(value),
        };
        let mut entries: Vec<Entry> = table.iter().map(entry).collect();
        // The parser's table is sorted by key; errors are told in the order of the file.
        entries.sort_by_key(|e| e.at);
        Value::Map(entries)
    }
}
