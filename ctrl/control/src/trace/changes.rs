//! Which change disconnected a connection: an entry knows when it was last live, the changes since know whom they flushed.

use std::collections::VecDeque;
use std::sync::Arc;

use engine::conntrack::TombstoneInfo;
use engine::{Generation, NicSlot};

use super::DisconnectCause;

/// Places of NICs that are remembered, of all changes together: 4 MiB.
const REMEMBERED: usize = 1 << 20;

/// A published change.
#[derive(Clone, Debug)]
pub struct Change {
    /// The generation that it made.
    pub generation: Generation,
    /// Who made it, and by which way.
    pub by: Arc<str>,
    /// Of a rollback, where it went back to.
    pub back_to: Option<Generation>,
    /// NICs whose inbound connections it ended, in ascending order.
    pub flushed: Box<[NicSlot]>,
}

impl Change {
    fn weight(&self) -> usize {
        // Those that flush nobody weigh, too.
        self.flushed.len() + 16
    }
}

/// The last changes, the newest last.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    all: VecDeque<Change>,
    weight: usize,
}

impl Changes {
    /// Notes one more.
    pub fn push(&mut self, change: Change) {
        self.weight += change.weight();
        self.all.push_back(change);
        while self.weight > REMEMBERED
            && self.all.len() > 1
            && let Some(oldest) = self.all.pop_front()
        {
            self.weight -= oldest.weight();
        }
    }

    /// What made this connection of the NIC a tombstone that a packet met under generation `at`.
    pub fn ending(&self, nic: NicSlot, of: &TombstoneInfo, at: Generation) -> DisconnectCause {
        if of.is_marked && of.stamp == Generation(0) {
            return DisconnectCause { generation: None, by: "an operator, with `connections flush`".into() };
        }
        let generation = if of.is_marked { of.stamp } else { self.flush_of(nic, of, at) };
        let change = self.all.iter().find(|change| change.generation == generation);
        DisconnectCause {
            generation: Some(generation.0),
            by: change.map_or_else(|| "unknown".into(), |c| c.by.clone()),
        }
    }

    /// The first flush since it was last live that no rollback has taken back.
    fn flush_of(&self, nic: NicSlot, of: &TombstoneInfo, at: Generation) -> Generation {
        let is_undone = |flush: Generation| {
            self.all.iter().any(|change| {
                change.generation <= at
                    && change.back_to.is_some_and(|to| to < flush && flush < change.generation)
            })
        };
        let flushes = self.all.iter().filter(|change| {
            of.stamp < change.generation
                && change.generation <= of.flush
                && change.flushed.binary_search(&nic).is_ok()
        });
        flushes.map(|change| change.generation).find(|flush| !is_undone(*flush)).unwrap_or(of.flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(of: &[(u32, Option<u32>, &[u32])]) -> Changes {
        let mut changes = Changes::default();
        for (generation, back_to, flushed) in of {
            changes.push(Change {
                generation: Generation(*generation),
                by: format!("who{generation}").into(),
                back_to: back_to.map(Generation),
                flushed: flushed.iter().map(|slot| NicSlot(*slot)).collect(),
            });
        }
        changes
    }

    fn tombstone(stamp: u32, flush: u32) -> TombstoneInfo {
        let (stamp, flush) = (Generation(stamp), Generation(flush));
        TombstoneInfo { stamp, is_marked: false, flush, expires_in: 8 }
    }

    #[test]
    fn the_first_flush_of_its_nic_since_it_was_live_ended_it() {
        let changes = changes(&[(4, None, &[1, 2]), (5, None, &[2]), (6, None, &[1, 2]), (7, None, &[1])]);
        let ending = |stamp, nic| changes.ending(NicSlot(nic), &tombstone(stamp, 7), Generation(7));
        assert_eq!((ending(3, 2).generation, &*ending(3, 2).by), (Some(4), "who4"));
        assert_eq!(ending(4, 2).generation, Some(5));
        assert_eq!(ending(4, 1).generation, Some(6));
        assert_eq!(ending(6, 1).generation, Some(7));
    }

    #[test]
    fn what_a_rollback_took_back_ended_nothing() {
        let changes = changes(&[(4, None, &[1]), (5, Some(3), &[]), (6, None, &[1])]);
        let ending = changes.ending(NicSlot(1), &tombstone(3, 6), Generation(6));
        assert_eq!(ending.generation, Some(6));
        // Before the rollback it was the one.
        let ending = changes.ending(NicSlot(1), &tombstone(3, 4), Generation(4));
        assert_eq!(ending.generation, Some(4));
    }

    #[test]
    fn what_was_judged_again_or_ended_by_hand_says_so() {
        let changes = changes(&[(4, None, &[])]);
        let marked = |stamp| TombstoneInfo { is_marked: true, ..tombstone(stamp, 0) };
        let ending = changes.ending(NicSlot(1), &marked(4), Generation(9));
        assert_eq!((ending.generation, &*ending.by), (Some(4), "who4"));
        let ending = changes.ending(NicSlot(1), &marked(0), Generation(9));
        assert_eq!(ending.generation, None);
        assert!(ending.by.contains("operator"));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_rest_is_not_guessed() {
        let mut changes = Changes::default();
        for generation in 1..=40 {
            let flushed = (0..100_000).map(NicSlot).collect();
            changes.push(Change {
                generation: Generation(generation),
                by: "x".into(),
                back_to: None,
                flushed,
            });
        }
        assert!(changes.weight <= REMEMBERED);
        let ending = changes.ending(NicSlot(200_000), &tombstone(0, 3), Generation(40));
        assert_eq!((ending.generation, &*ending.by), (Some(3), "unknown"));
    }
}
