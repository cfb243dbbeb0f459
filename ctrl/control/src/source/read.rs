//! Reading values out of a tree: types, ranges, keys, and the faults where they are wrong.

use super::{Entry, Fault, Faults, Node, Value, quoted};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

impl Node {
    /// A fault at this value.
    pub fn fault(&self, message: impl fmt::Display) -> Fault {
        Fault { at: self.at, message: message.to_string() }
    }

    /// The fault that the value is no `what`: `FOUND is no WHAT; allowed: ALLOWED`.
    pub fn no(&self, what: &str, allowed: impl fmt::Display) -> Fault {
        self.fault(format_args!("{} is no {what}; allowed: {allowed}", self.value.describe()))
    }

    /// The value as text. A number or `true` is none: a name that looks like one is quoted in the document.
    pub fn text(&self, what: &str, allowed: impl fmt::Display) -> Result<&str, Fault> {
        match &self.value {
            Value::Text(text) => Ok(text),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                Err(self.no(what, format_args!("{allowed} (text that looks like a number goes in quotes)")))
            }
            _ => Err(self.no(what, allowed)),
        }
    }

    /// The value as text that parses.
    pub fn parsed<T: FromStr>(&self, what: &str, allowed: &str) -> Result<T, Fault> {
        self.text(what, allowed)?.parse().map_err(|_| self.no(what, allowed))
    }

    /// The same of an address or a prefix, which an IPv4-mapped one is none of.
    pub fn parsed_address<T: FromStr>(&self, what: &str, allowed: &str) -> Result<T, Fault> {
        let found = self.parsed(what, allowed)?;
        match crate::model::ipv4_form(self.text(what, allowed)?) {
            Some(v4) => {
                Err(self.fault(format_args!("{} is IPv4-mapped; allowed: {v4}", self.value.describe())))
            }
            None => Ok(found),
        }
    }

    /// The value as one of a few words.
    pub fn one_of<T: Copy>(&self, what: &str, words: &[(&str, T)]) -> Result<T, Fault> {
        let found = match &self.value {
            Value::Text(text) => words.iter().find(|(word, _)| word == text),
            _ => None,
        };
        let allowed = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        found.map(|&(_, value)| value).ok_or_else(|| self.no(what, allowed()))
    }

    /// The value as an integer of `range`.
    pub fn int<T>(&self, what: &str, range: RangeInclusive<T>) -> Result<T, Fault>
    where
        T: Copy + fmt::Display + TryFrom<i128> + PartialOrd,
    {
        let found = match self.value {
            Value::Int(i) => T::try_from(i).ok().filter(|i| range.contains(i)),
            _ => None,
        };
        found.ok_or_else(|| self.no(what, format_args!("{}-{}", range.start(), range.end())))
    }

    /// The value as true or false.
    pub fn bool(&self) -> Result<bool, Fault> {
        match self.value {
            Value::Bool(b) => Ok(b),
            _ => Err(self.no("switch", "true, false")),
        }
    }

    /// The items of the value, which must be a list.
    pub fn list(&self, what: &str) -> Result<&[Node], Fault> {
        match &self.value {
            Value::List(items) => Ok(items),
            _ => Err(self.no("list", format_args!("a list of {what}, [] for none"))),
        }
    }

    /// The entries of the value, which must be a mapping whose keys are all in `known`.
    pub fn fields(&self, known: &[&str]) -> Result<Fields<'_>, Fault> {
        let Value::Map(entries) = &self.value else {
            return Err(self.no("mapping", format_args!("a mapping with the keys {}", known.join(", "))));
        };
        match entries.iter().find(|e| !known.contains(&e.key.as_str())) {
            None => Ok(Fields { owner: self, entries, is_known: true }),
            Some(entry) => Err(entry.unknown(known)),
        }
    }

    /// The same, where every unknown key is noted and the others are read nevertheless.
    pub fn keys(&self, known: &[&str], faults: &mut Faults) -> Option<Fields<'_>> {
        let Value::Map(entries) = &self.value else {
            return faults.take(self.fields(known));
        };
        let mut is_known = true;
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            faults.note(entry.unknown(known));
            is_known = false;
        }
        Some(Fields { owner: self, entries, is_known })
    }
}

impl Entry {
    fn unknown(&self, known: &[&str]) -> Fault {
        let message = format!("{} is no key here; allowed: {}", quoted(&self.key), known.join(", "));
        Fault { at: self.at, message }
    }
}

/// The entries of a mapping.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'t> {
    owner: &'t Node,
    entries: &'t [Entry],
    /// Whether none is unknown.
    is_known: bool,
}

impl<'t> Fields<'t> {
    /// The value of `key`, where it is given.
    pub fn get(&self, key: &str) -> Option<&'t Node> {
        self.entries.iter().find(|e| e.key == key).map(|e| &e.node)
    }

    /// The value of `key`, which must be given.
    pub fn required(&self, key: &str) -> Result<&'t Node, Fault> {
        self.get(key)
            .ok_or_else(|| self.owner.fault(format_args!("the key {key} is missing; it is required")))
    }

    /// The value of `key`, noted as a fault where it is not given. Beside an unknown key nothing is said to be missing: it is that key,
    /// misspelled.
    pub fn needed(&self, key: &str, faults: &mut Faults) -> Option<&'t Node> {
        match self.required(key) {
            Err(_) if !self.is_known => None,
            found => faults.take(found),
        }
    }

    /// The value of `key` as `read` reads it, where it is given and can be read.
    pub fn optional<T>(
        &self,
        key: &str,
        faults: &mut Faults,
        read: impl FnOnce(&'t Node) -> Result<T, Fault>,
    ) -> Option<T> {
        self.get(key).and_then(|node| faults.take(read(node)))
    }

    /// The items of the list `key`; none if it is left out.
    pub fn items(&self, key: &str, what: &str) -> Result<&'t [Node], Fault> {
        self.get(key).map_or(Ok(&[]), |node| node.list(what))
    }

    /// All keys with their values, in the order of the text.
    pub fn in_order(&self) -> impl Iterator<Item = (&'t str, &'t Node)> {
        self.entries.iter().map(|e| (e.key.as_str(), &e.node))
    }
}
