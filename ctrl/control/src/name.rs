//! Names of objects and the keys made of them.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The project of everything that names none.
pub const DEFAULT_PROJECT: &str = "default";

/// The group that every project has (semantics 3.7).
pub const DEFAULT_GROUP: &str = "default";

/// The longest name, in characters (not bytes: names are shown to people).
pub const MAX_NAME: usize = 255;

/// What identifies a group or NIC over generations: its project and its name in it.
///
/// Ordered by project first, so that a listing keeps a project's objects together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Key {
    /// The project, [`DEFAULT_PROJECT`] where the document names none.
    pub project: Arc<str>,
    /// The name, unique among its kind in the project.
    pub name: Arc<str>,
}

impl Key {
    /// A key of the given project and name; the caller vouches that both passed [`check`].
    pub fn new(project: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Key {
        Key { project: project.into(), name: name.into() }
    }

    /// The key of `name` in project `default`.
    pub fn in_default(name: impl Into<Arc<str>>) -> Key {
        Key::new(DEFAULT_PROJECT, name)
    }

    /// The key of this project's group `default`.
    pub fn default_group_of(project: &Arc<str>) -> Key {
        Key { project: project.clone(), name: DEFAULT_GROUP.into() }
    }

    /// Reads the form that [`fmt::Display`] writes: `name`, or `project/name`. No name holds a `/`, so the two never
    /// meet. `None` where either part is no name.
    pub fn parse(text: &str) -> Option<Key> {
        let (project, name) = text.split_once('/').unwrap_or((DEFAULT_PROJECT, text));
        (check(project).is_ok() && check(name).is_ok()).then(|| Key::new(project, name))
    }
}

impl Ord for Key {
    /// Keys of one policy and the next are mostly the very same: that is told without reading them.
    fn cmp(&self, other: &Key) -> Ordering {
        let parts = [(&self.project, &other.project), (&self.name, &other.name)];
        let differing = parts.into_iter().filter(|(mine, others)| !Arc::ptr_eq(mine, others));
        differing
            .map(|(mine, others)| mine.cmp(others))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.project.hash(state);
        self.name.hash(state);
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if &*self.project != DEFAULT_PROJECT {
            write!(f, "{}/", self.project)?;
        }
        f.write_str(&self.name)
    }
}

/// The order of names in which people look for them: numbers in them by their values, so that `server-2` comes before
/// `server-10`.
pub fn natural(one: &str, other: &str) -> Ordering {
    /// Takes the digits at the head, and gives those that count.
    fn number<'t>(text: &mut &'t [u8]) -> &'t [u8] {
        let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = text.split_at(digits);
        *text = rest;
        &number[number.iter().take_while(|digit| **digit == b'0').count()..]
    }
    let (mut a, mut b) = (one.as_bytes(), other.as_bytes());
    while let (Some(x), Some(y)) = (a.first(), b.first()) {
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (m, n) = (number(&mut a), number(&mut b));
            m.len().cmp(&n.len()).then_with(|| m.cmp(n))
        } else {
            (a, b) = (&a[1..], &b[1..]);
            x.cmp(y)
        };
        if order.is_ne() {
            return order;
        }
    }
    // One of them is at its end; of `7` and `07`, alike so far, any order will do that is always the same.
    a.len().cmp(&b.len()).then_with(|| one.cmp(other))
}

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidName {
    /// Nothing at all.
    Empty,
    /// More than [`MAX_NAME`] characters.
    TooLong,
    /// A character that no name may hold: `/` separates project and name, `#` group and rule, and control characters
    /// would forge lines in logs.
    Character(char),
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidName::Empty => f.write_str("is empty"),
            InvalidName::TooLong => write!(f, "is longer than {MAX_NAME} characters"),
            InvalidName::Character(c) => write!(f, "holds {c:?}"),
        }
    }
}

/// Whether `text` may be the name of an object or project.
pub fn check(text: &str) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty);
    }
    if let Some(c) = text.chars().find(|&c| c.is_control() || matches!(c, '/' | '#')) {
        return Err(InvalidName::Character(c));
    }
    if text.chars().count() > MAX_NAME { Err(InvalidName::TooLong) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_ordered_by_their_values() {
        let sorted = [
            "",
            "10.0.0.2",
            "10.0.0.10",
            "db",
            "db-1",
            "p-9",
            "p/a-2",
            "p/a-10",
            "server-2",
            "server-02",
            "server-2a",
            "server-3-1",
            "server-10",
            "server-18446744073709551616",
            "serverless",
            "ü-1",
        ];
        for (at, one) in sorted.iter().enumerate() {
            for (behind, other) in sorted.iter().enumerate() {
                // These two differ in no value: the order of their bytes decides.
                let expected = match (*one, *other) {
                    ("server-2", "server-02") => Ordering::Greater,
                    ("server-02", "server-2") => Ordering::Less,
                    _ => at.cmp(&behind),
                };
                assert_eq!(natural(one, other), expected, "{one} and {other}");
            }
        }
    }
}
