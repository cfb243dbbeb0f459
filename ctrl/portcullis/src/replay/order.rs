//! Verdicts in merged order, though one may come later than those behind it: that of a fragment held until its first comes.

use std::collections::VecDeque;
use std::sync::Arc;

use control::api::types::Staged;
use control::compile::NamedRule;
use engine::verdict::Verdict;

use super::merge::Merged;

/// A verdict with the names that it bears.
pub struct Told {
    /// The verdict.
    pub verdict: Verdict,
    /// The NIC's name.
    pub nic: Option<Arc<str>>,
    /// How the rule is called.
    pub rule: Option<NamedRule>,
    /// What a staged rule would decide.
    pub staged: Option<Staged>,
}

struct Line<'a> {
    merged: Merged<'a>,
    told: Option<Told>,
}

/// Packets from the first on whose verdict is not known yet: of at most as long a time as fragments are held.
#[derive(Default)]
pub struct InOrder<'a> {
    lines: VecDeque<Line<'a>>,
    /// The number of the first of them.
    first: u64,
}

impl<'a> InOrder<'a> {
    /// True if nothing waits, so that a verdict may be written at once.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Appends a packet, with its verdict where that is known. Its number.
    pub fn push(&mut self, merged: Merged<'a>, told: Option<Told>) -> u64 {
        self.lines.push_back(Line { merged, told });
        self.first + self.lines.len() as u64 - 1
    }

    /// The verdict on the packet of this number; its side may have been told by now.
    pub fn settle(&mut self, number: u64, merged: Merged<'a>, told: Told) {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(line) = at.and_then(|at| self.lines.get_mut(at)) {
            *line = Line { merged, told: Some(told) };
        }
    }

    /// The next packet in order, if its verdict is known.
    pub fn next(&mut self) -> Option<(Merged<'a>, Told)> {
        self.lines.front()?.told.as_ref()?;
        let Line { merged, told } = self.lines.pop_front()?;
        self.first += 1;
        Some((merged, told?))
    }
}
