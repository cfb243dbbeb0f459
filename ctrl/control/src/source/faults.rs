//! All that is wrong in a text, so that its writer mends it in one go.

use super::{Diagnostic, Fault, Node};
use std::fmt;

/// Faults that are told of one text: to place one in it takes a walk through the text.
const TOLD: usize = 1000;

/// The faults that were found so far.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    found: Vec<Fault>,
}

impl Faults {
    /// Notes one at a value.
    pub fn add(&mut self, node: &Node, message: impl fmt::Display) {
        self.found.push(node.fault(message));
    }

    /// Notes one.
    pub fn note(&mut self, fault: Fault) {
        self.found.push(fault);
    }

    /// What was read; a fault instead is noted.
    pub fn take<T>(&mut self, read: Result<T, Fault>) -> Option<T> {
        read.map_err(|fault| self.found.push(fault)).ok()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Each once, in the order of the text.
    pub fn in_order(mut self) -> Vec<Fault> {
        self.found.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.message.cmp(&b.message)));
        self.found.dedup();
        self.found
    }

    /// The first in the order of the text, if there is one.
    pub fn first(self) -> Result<(), Fault> {
        self.in_order().into_iter().next().map_or(Ok(()), Err)
    }

    /// Each once, in the order of the text, with its path in it.
    pub fn told(self, root: &Node, file: &str) -> Vec<Diagnostic> {
        let all = self.in_order();
        let more = all.len().saturating_sub(TOLD);
        let mut told: Vec<_> = all.into_iter().take(TOLD).map(|fault| fault.in_tree(root, file)).collect();
        if more > 0 {
            told.push(Diagnostic::whole_file(file, format!("and {more} more")));
        }
        told
    }
}
