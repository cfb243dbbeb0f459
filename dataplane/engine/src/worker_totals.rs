//! What a worker counts of itself, and of each rule: one writer, plain stores, read by anybody, as
//! [`crate::counters`].
//!
//! None of it is written per packet of an established connection: connections that open, end or
//! change their state, packets that a rule denies, and each burst.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::flow_key::{STATES, State};
use crate::reason::{REASONS, Reason};
use crate::verdict::StagedVerdict;
use crate::{Direction, RuleId};

/// Why an entry has left the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EndCause {
    /// Both ends had said FIN, and the time for stragglers ran out; or a new connection of the same
    /// ends took its place.
    Closed,
    /// A reset, or the refusal of a SYN.
    Reset,
    /// Its time ran out.
    Expired,
    /// A change of the policy, or an operator, ended it; its tombstone, if it left one, has ended,
    /// too.
    Flushed,
    /// It gave way to another at a full table or share.
    Evicted,
}

impl EndCause {
    /// All of them.
    pub const ALL: [EndCause; 5] =
        [EndCause::Closed, EndCause::Reset, EndCause::Expired, EndCause::Flushed, EndCause::Evicted];

    /// As metrics and records call it.
    pub fn name(self) -> &'static str {
        match self {
            EndCause::Closed => "closed",
            EndCause::Reset => "reset",
            EndCause::Expired => "expired",
            EndCause::Flushed => "flushed",
            EndCause::Evicted => "evicted",
        }
    }
}

/// What an entry counts as: its state, or what a change has made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryGauge {
    /// Live, in this state.
    Live(State),
    /// Disconnected.
    Tombstone,
    /// Its NIC or address is gone: it is counted nowhere.
    Ended,
}

/// Sizes of bursts that are told apart: 1, 2, 3–4, 5–8, …, 33–64 frames.
pub const BURST_SIZES: usize = 7;

/// States, and behind them tombstones.
const KINDS: usize = STATES.len() + 1;

/// Of one worker.
#[derive(Default)]
pub struct WorkerTotals {
    opened: AtomicU64,
    ended: [AtomicU64; EndCause::ALL.len()],
    gauges: [AtomicU64; KINDS],
    bursts: [AtomicU64; BURST_SIZES],
    frames: AtomicU64,
    observed: [[AtomicU64; REASONS]; 2],
}

fn add(word: &AtomicU64, n: u64) {
    word.store(word.load(Relaxed).wrapping_add(n), Relaxed);
}

impl WorkerTotals {
    /// A connection has opened.
    #[inline]
    pub fn count_opened(&self) {
        add(&self.opened, 1);
    }

    /// Connections that have opened.
    pub fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// A connection has ended.
    #[inline]
    pub fn count_ended(&self, how: EndCause) {
        add(&self.ended[how as usize], 1);
    }

    /// Connections that have ended so.
    pub fn ended(&self, how: EndCause) -> u64 {
        self.ended[how as usize].load(Relaxed)
    }

    /// There is one more (`1`) or less (`-1`) that counts as this.
    #[inline]
    pub fn count(&self, what: EntryGauge, by: i64) {
        let kind = match what {
            EntryGauge::Live(state) => state as usize,
            EntryGauge::Tombstone => KINDS - 1,
            EntryGauge::Ended => return,
        };
        add(&self.gauges[kind], by as u64);
    }

    /// Entries that are live and in this state. Those that have expired count until that is found,
    /// those that a change has disconnected until the sweep has come by.
    pub fn live(&self, state: State) -> u64 {
        self.gauges[state as usize].load(Relaxed)
    }

    /// Entries that are tombstones.
    pub fn tombstones(&self) -> u64 {
        self.gauges[KINDS - 1].load(Relaxed)
    }

    /// A packet went on although this is a reason to drop it; `-1` takes one back.
    #[inline]
    pub fn observe(&self, direction: Direction, reason: Reason, by: i64) {
        add(&self.observed[direction as usize][reason as usize], by as u64);
    }

    /// Packets that went on although this is a reason to drop them.
    pub fn observed(&self, direction: Direction, reason: Reason) -> u64 {
        self.observed[direction as usize][reason as usize].load(Relaxed)
    }

    /// A burst of so many frames, at least one, was received.
    #[inline]
    pub fn count_burst(&self, frames: usize) {
        let size = (usize::BITS - (frames.max(1) - 1).leading_zeros()) as usize;
        add(&self.bursts[size.min(BURST_SIZES - 1)], 1);
        add(&self.frames, frames as u64);
    }

    /// Bursts of up to 1, 2, 4, … frames, each without those before it; and their frames together.
    pub fn bursts(&self) -> ([u64; BURST_SIZES], u64) {
        (std::array::from_fn(|size| self.bursts[size].load(Relaxed)), self.frames.load(Relaxed))
    }
}

/// Rules that are counted; of those with higher numbers nothing is.
pub const MAX_RULES: usize = 1 << 20;

/// What each rule did, on one worker. Reserved for the most rules there may be, and unbacked until
/// touched, as counters are.
///
/// A staged rule counts here what it would let open and what it would deny; and apart, of both,
/// what is decided otherwise.
pub struct RuleCounters {
    words: Box<[AtomicU64]>,
    differing: Box<[AtomicU64]>,
}

impl Default for RuleCounters {
    fn default() -> RuleCounters {
        let words = || crate::pages::zeroed(2 * MAX_RULES);
        RuleCounters { words: words(), differing: words() }
    }
}

impl RuleCounters {
    /// Has the memory of the first so many rules backed. Others may count meanwhile.
    pub fn touch(&self, rules: u32) {
        let touched = 2 * (rules as usize).min(MAX_RULES);
        crate::pages::touch_shared(&self.words[..touched]);
        crate::pages::touch_shared(&self.differing[..touched]);
    }

    #[inline]
    fn word(&self, rule: RuleId, which: usize) -> Option<&AtomicU64> {
        let at = rule.0 as usize;
        if at < MAX_RULES { self.words.get(2 * at + which) } else { None }
    }

    /// The rule has let a connection open.
    #[inline]
    pub fn count_opened(&self, rule: RuleId) {
        self.word(rule, 0).into_iter().for_each(|word| add(word, 1));
    }

    /// Connections that it has let open.
    pub fn opened(&self, rule: RuleId) -> u64 {
        self.word(rule, 0).map_or(0, |word| word.load(Relaxed))
    }

    /// The rule has denied a packet, or would have.
    #[inline]
    pub fn count_denied(&self, rule: RuleId) {
        self.word(rule, 1).into_iter().for_each(|word| add(word, 1));
    }

    /// Packets that it has denied.
    pub fn denied(&self, rule: RuleId) -> u64 {
        self.word(rule, 1).map_or(0, |word| word.load(Relaxed))
    }

    /// A staged rule would decide a packet.
    #[cold]
    pub fn count_would_be(&self, staged_verdict: &StagedVerdict) {
        let StagedVerdict { rule, allows, differs } = *staged_verdict;
        if allows {
            self.count_opened(rule)
        } else {
            self.count_denied(rule)
        }
        if differs {
            let at = 2 * rule.0 as usize + usize::from(!allows);
            self.differing.get(at).into_iter().for_each(|word| add(word, 1));
        }
    }

    /// Packets that a staged rule would let open a connection and that dropped, and those that it
    /// would deny and that opened one.
    pub fn differing(&self, rule: RuleId) -> [u64; 2] {
        let at = 2 * rule.0 as usize;
        [at, at + 1].map(|at| self.differing.get(at).map_or(0, |word| word.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_fall_into_powers_of_two() {
        let tally = WorkerTotals::default();
        for frames in [1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64] {
            tally.count_burst(frames);
        }
        assert_eq!(tally.bursts(), ([1, 1, 2, 2, 2, 2, 2], 194));
    }

    #[test]
    fn rules_beyond_the_last_counted_one_disturb_no_other() {
        let counts = RuleCounters::default();
        counts.count_opened(RuleId(7));
        counts.count_denied(RuleId(7));
        counts.count_denied(RuleId(7));
        counts.count_opened(RuleId::NONE);
        assert_eq!((counts.opened(RuleId(7)), counts.denied(RuleId(7))), (1, 2));
        assert_eq!((counts.opened(RuleId::NONE), counts.denied(RuleId(6))), (0, 0));
        counts.count_would_be(&StagedVerdict { rule: RuleId::NONE, allows: false, differs: true });
        assert_eq!(counts.differing(RuleId::NONE), [0, 0]);
    }
}
