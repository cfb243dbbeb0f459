//! What workers count by reason, of one NIC and direction.

use std::collections::BTreeMap;

use engine::counters::EngineCounters;
use engine::{Direction, NicSlot, Reason};

use crate::api::types::{Bytes, Packets, Tallied};

/// What one worker counted of one NIC and direction, or a sum of such.
#[derive(Clone, Copy, Default)]
pub(super) struct ReasonCounts {
    reasons: [u64; Reason::ALL.len()],
    pub observed: u64,
    /// Passed, dropped.
    pub bytes: [u64; 2],
}

impl ReasonCounts {
    /// What a worker has counted by now. It goes on meanwhile: what it observed is read last, so that no packet which
    /// passed seems dropped, and taken for no more than the drops that were read before.
    pub fn read(counters: &EngineCounters, nic: NicSlot, direction: Direction) -> ReasonCounts {
        let reasons = Reason::ALL.map(|reason| counters.get(nic, direction, reason));
        let bytes = [true, false].map(|passed| counters.bytes(nic, direction, passed));
        let mut tally = ReasonCounts { reasons, observed: 0, bytes };
        let observable = |reason: Reason| {
            !reason.passes() && !matches!(reason, Reason::HandoffFull | Reason::TxFull | Reason::TxDown)
        };
        tally.observed = counters.observed(nic, direction).min(tally.sum(observable));
        tally
    }

    pub fn add(&mut self, other: &ReasonCounts) {
        for (sum, n) in self.reasons.iter_mut().zip(&other.reasons) {
            *sum = sum.wrapping_add(*n);
        }
        self.observed = self.observed.wrapping_add(other.observed);
        self.bytes.iter_mut().zip(other.bytes).for_each(|(sum, n)| *sum = sum.wrapping_add(n));
    }

    /// Less what was counted before.
    pub fn since(&self, before: &ReasonCounts) -> ReasonCounts {
        let mut rest = *self;
        for (n, before) in rest.reasons.iter_mut().zip(&before.reasons) {
            *n = n.wrapping_sub(*before);
        }
        rest.observed = rest.observed.saturating_sub(before.observed);
        rest.bytes.iter_mut().zip(before.bytes).for_each(|(n, before)| *n = n.saturating_sub(before));
        rest
    }

    /// Those of some reasons together.
    pub fn sum(&self, which: impl Fn(Reason) -> bool) -> u64 {
        Reason::ALL.iter().zip(&self.reasons).filter(|(reason, _)| which(**reason)).map(|(_, n)| n).sum()
    }

    pub fn packets(&self) -> Packets {
        let (pass, drop) = (self.sum(Reason::passes), self.sum(|reason| !reason.passes()));
        let observed = self.observed;
        Packets { received: pass + drop, pass: pass + observed, drop: drop - observed, observed }
    }

    pub fn in_bytes(&self) -> Bytes {
        let [pass, drop] = self.bytes;
        Bytes { received: pass + drop, pass, drop }
    }

    pub fn reasons(&self) -> BTreeMap<String, u64> {
        let all = Reason::ALL.iter().zip(self.reasons);
        all.filter(|(_, n)| *n > 0).map(|(reason, n)| (reason.name().to_owned(), n)).collect()
    }

    pub fn tallied(&self) -> Tallied {
        Tallied { packets: self.packets(), reasons: self.reasons(), bytes: self.in_bytes() }
    }
}
