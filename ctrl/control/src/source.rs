//! Text with positions: how documents and configurations are read, and how what is wrong in them is told.
//!
//! YAML and TOML both become a tree of `Node`s that know where they stood; what reads the tree turns whatever is
//! wrong into a `Fault` at a node, and only then is the node's path (`nics[3].vpc`) looked up. A tree in between, and
//! not serde's derived structs, because every refusal has to say where, what was found and what is allowed, in the same
//! words for wrong types as for wrong values.

mod faults;
mod number;
mod read;
mod toml;
mod yaml;

pub(crate) use self::toml::parse as parse_toml;
pub(crate) use faults::Faults;
pub(crate) use number::decimal_nanos;
pub(crate) use read::Fields;
pub(crate) use yaml::parse as parse_yaml;

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is wrong in a file, and where: `file:line:column: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file at fault, as the caller named it.
    pub file: String,
    /// The line, from 1; 0 if it is about the file as a whole.
    pub line: u32,
    /// The column in characters, from 1; 0 if it is about the file as a whole.
    pub column: u32,
    /// What was found and what is allowed; one line.
    pub message: String,
}

impl Diagnostic {
    /// Something wrong with the file as a whole, such as that it cannot be read.
    pub fn whole_file(file: impl Into<String>, message: impl Into<String>) -> Diagnostic {
        Diagnostic { file: file.into(), line: 0, column: 0, message: message.into() }
    }
}

/// A document that is valid, in JSON.
pub(crate) fn as_json(yaml: &str) -> String {
    parse_yaml(yaml).map_or_else(|_| "null".to_owned(), |root| root.value.json().to_string())
}

/// How diagnostics name an input: standard input is `-` on the command line.
pub fn input_name(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

/// The text of a file that somebody names on a command line, where `-` is standard input. That is read once: a second time it is
/// refused rather than empty.
pub fn read_input(path: &Path) -> Result<String, Diagnostic> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if path != Path::new("-") {
        return read_file(path);
    }
    let name = input_name(path);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(Diagnostic::whole_file(name, "is named twice; allowed: `-` for one file"));
    }
    let mut bytes = Vec::new();
    match std::io::stdin().lock().read_to_end(&mut bytes) {
        Ok(_) => text(name, bytes),
        Err(error) => Err(Diagnostic::whole_file(name, error.to_string())),
    }
}

/// Bytes of a document at most.
pub const MAX_DOCUMENT: usize = 128 << 20;

/// The text of a file. What cannot be read is told as [`Diagnostic::whole_file`], what is no UTF-8 with its place.
pub fn read_file(path: &Path) -> Result<String, Diagnostic> {
    let file = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => text(file, bytes),
        Err(error) => Err(Diagnostic::whole_file(file, error.to_string())),
    }
}

/// What was read of a file, as text.
pub fn text(file: String, bytes: Vec<u8>) -> Result<String, Diagnostic> {
    String::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let last_line = good.rsplit('\n').next().unwrap_or_default();
        Diagnostic {
            file,
            line: narrow(good.matches('\n').count() + 1),
            column: narrow(last_line.chars().count() + 1),
            message: "the bytes from here on are no UTF-8; allowed: text in UTF-8".to_owned(),
        }
    })
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "{}: {}", self.file, self.message);
        }
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// Where in its text something stands. Ordered as the text is. Two values never share a position in YAML: values that
/// come from one alias differ in the bytes that define them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pos {
    pub line: u32,
    pub column: u32,
    /// The bytes that a scalar takes in the text, where the parser knows them: numbers are read from there, digit by
    /// digit, and not from a float.
    start: u32,
    end: u32,
}

impl Pos {
    /// The beginning of a text.
    pub const START: Pos = Pos { line: 1, column: 1, start: 0, end: 0 };

    /// What stands there in `text`; empty if unknown.
    pub fn slice<'t>(&self, text: &'t str) -> &'t str {
        text.get(self.start as usize..self.end as usize).unwrap_or("")
    }
}

/// A [`Diagnostic`] that does not know its file yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub at: Pos,
    pub message: String,
}

impl Fault {
    /// The fault as a diagnostic about `file`.
    pub fn in_file(self, file: &str) -> Diagnostic {
        let Fault { at, message } = self;
        Diagnostic { file: file.to_owned(), line: at.line, column: at.column, message }
    }

    /// The fault as a diagnostic about `file`, with the path of the value at fault in the tree of the file.
    pub fn in_tree(mut self, root: &Node, file: &str) -> Diagnostic {
        if let Some(path) = root.path_to(self.at).filter(|path| !path.is_empty()) {
            self.message = format!("{path}: {}", self.message);
        }
        self.in_file(file)
    }
}

/// One value of a text.
#[derive(Debug)]
pub(crate) struct Node {
    pub at: Pos,
    pub value: Value,
}

/// What a value is. Of one kind for YAML, JSON and TOML.
#[derive(Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Of a kind that no key takes (a date of TOML), as it was spelled.
    Other(String),
}

/// One key of a mapping with its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub at: Pos,
    pub key: String,
    pub node: Node,
}

impl Node {
    /// The value at a path such as `wire[0].inside`, of keys and places in lists.
    pub fn find(&self, path: &str) -> Option<&Node> {
        let (step, rest) = path.find(['.', '[']).map_or((path, ""), |at| path.split_at(at));
        let rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(place) = rest.strip_prefix('[').filter(|_| step.is_empty()) {
            let (place, rest) = place.split_once(']')?;
            let Value::List(items) = &self.value else { return None };
            return items.get(place.parse::<usize>().ok()?)?.find(rest.strip_prefix('.').unwrap_or(rest));
        }
        if step.is_empty() {
            return rest.is_empty().then_some(self);
        }
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == step)?.node.find(rest)
    }

    /// The path of what stands at `at`, that of its mapping for a key. Where several values stand there (TOML's
    /// `[[table]]` is the list and its first item), of the innermost.
    fn path_to(&self, at: Pos) -> Option<String> {
        let inner = match &self.value {
            Value::List(items) => items
                .iter()
                .enumerate()
                .find_map(|(index, item)| Some((format!("[{index}]"), item.path_to(at)?))),
            Value::Map(entries) => entries.iter().find_map(|e| Some((e.key.clone(), e.node.path_to(at)?))),
            _ => None,
        };
        if let Some((step, rest)) = inner {
            let dot = if rest.is_empty() || rest.starts_with('[') { "" } else { "." };
            return Some(format!("{step}{dot}{rest}"));
        }
        let here = self.at == at || matches!(&self.value, Value::Map(m) if m.iter().any(|e| e.at == at));
        here.then(String::new)
    }
}

/// A text as a message quotes it: escaped, so that one message stays one line, and cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
    }
}

impl Value {
    /// The same for JSON.
    fn json(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(on) => (*on).into(),
            Value::Int(number) => i64::try_from(*number).unwrap_or(i64::MAX).into(),
            Value::Float(number) => (*number).into(),
            Value::Text(text) | Value::Other(text) => text.clone().into(),
            Value::List(items) => items.iter().map(|item| item.value.json()).collect(),
            Value::Map(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), entry.node.value.json())).collect()
            }
        }
    }

    /// How a message calls what was found.
    pub fn describe(&self) -> String {
        match self {
            Value::Null => "null".to_owned(),
            Value::Bool(b) => b.to_string(),
            Value::Int(i) => i.to_string(),
            // Debug keeps the point: 22.0 is shown as it is, no integer.
            Value::Float(x) => format!("{x:?}"),
            Value::Text(t) => quoted(t),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
            Value::Other(text) => quoted(text),
        }
    }
}
