//! What runs have exercised, counted: a check that is never reached holds nothing.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by name, summed over runs.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    /// Counts something once.
    pub fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// Counts something `n` times.
    pub fn add(&mut self, what: &'static str, n: u64) {
        if n > 0 {
            *self.0.entry(what).or_default() += n;
        }
    }

    /// The most of something seen at once.
    pub fn most(&mut self, what: &'static str, n: u64) {
        let most = self.0.entry(what).or_default();
        *most = n.max(*most);
    }

    /// How often it was counted.
    pub fn get(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    /// Adds another run's.
    pub fn join(&mut self, other: &Coverage) {
        for (what, n) in &other.0 {
            if what.starts_with("most ") { self.most(what, *n) } else { self.add(what, *n) }
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, n)| writeln!(f, "{n:>12} {what}"))
    }
}
