//! The last decisions: a ring in memory, which says how far back it goes.

use std::collections::VecDeque;

use super::{Decision, TupleFilter};

/// The last decisions, the newest last.
pub struct History {
    kept: VecDeque<Decision>,
    most: usize,
    /// From when on it holds every decision that was told, in nanoseconds since 1970.
    since_ns: u64,
    lost: u64,
    lost_ns: u64,
}

/// What was found.
pub struct HistoryMatches {
    /// In the order of their times.
    pub decisions: Vec<Decision>,
    /// How many more there were, all older.
    pub left_out: usize,
    /// Decisions that are kept, of whatever packets.
    pub kept: usize,
    /// How many there may be.
    pub most: usize,
    /// How far back it goes: since then, but for what was lost, no decision is missing.
    pub since_ns: u64,
    /// Decisions that were lost on their way here.
    pub lost: u64,
    /// When that was last.
    pub lost_ns: u64,
}

/// How far back a history goes.
#[derive(Clone, Copy, Debug)]
pub struct HistoryExtent {
    /// Decisions that are kept.
    pub kept: usize,
    /// How many there may be.
    pub most: usize,
    /// Since then, but for what was lost, no decision is missing.
    pub since_ns: u64,
    /// Decisions that were lost on their way here.
    pub lost: u64,
    /// When that was last.
    pub lost_ns: u64,
}

impl History {
    /// How far back it goes.
    pub fn reach(&self) -> HistoryExtent {
        let History { kept, most, since_ns, lost, lost_ns } = self;
        HistoryExtent { kept: kept.len(), most: *most, since_ns: *since_ns, lost: *lost, lost_ns: *lost_ns }
    }

    /// Shows all decisions, the oldest first.
    pub fn each(&self, each: impl FnMut(&Decision)) {
        self.kept.iter().for_each(each);
    }

    /// Of at most so many decisions, from this moment on.
    pub fn new(most: usize, since_ns: u64) -> History {
        History { kept: VecDeque::new(), most, since_ns, lost: 0, lost_ns: 0 }
    }

    /// True if it keeps any.
    pub fn is_kept(&self) -> bool {
        self.most != 0
    }

    /// Keeps one more; the oldest goes, where there is no room.
    pub fn push(&mut self, decision: Decision) {
        if self.most == 0 {
            return;
        }
        if self.kept.len() == self.most {
            self.kept.pop_front();
            self.since_ns = self.kept.front().map_or(self.since_ns, |oldest| oldest.record.at_ns);
        }
        self.kept.push_back(decision);
    }

    /// So many were lost, the last of them about then.
    pub fn lose(&mut self, count: u64, at_ns: u64) {
        self.lost += count;
        self.lost_ns = at_ns;
    }

    /// The last `most` decisions about packets of this tuple, up to this moment.
    pub fn recall(&self, tuple: &TupleFilter, at_ns: Option<u64>, most: usize) -> HistoryMatches {
        let is_meant = |decision: &&Decision| {
            at_ns.is_none_or(|at| decision.record.at_ns <= at) && tuple.fits(&decision.record)
        };
        let mut found = self.kept.iter().rev().filter(is_meant);
        let mut decisions: Vec<Decision> = found.by_ref().take(most).cloned().collect();
        decisions.reverse();
        HistoryMatches {
            decisions,
            left_out: found.count(),
            kept: self.kept.len(),
            most: self.most,
            since_ns: self.since_ns,
            lost: self.lost,
            lost_ns: self.lost_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::packet::{PacketKind, PacketMeta};
    use engine::trace::Record;
    use engine::verdict::Verdict;
    use engine::{Generation, Reason};

    fn decision(at_ns: u64, sport: u16) -> Decision {
        let (src, dst) = (1, 2);
        let pkt = PacketMeta {
            src,
            dst,
            sport,
            dport: 22,
            kind: PacketKind::Tcp,
            proto: 6,
            ..PacketMeta::default()
        };
        let record = Record::new(&pkt, &Verdict::nobody(Reason::NoRule), Generation(1));
        Decision {
            record: Record { at_ns, ..record },
            worker: 0,
            nic: None,
            rule: None,
            staged: None,
            ending: None,
        }
    }

    #[test]
    fn the_oldest_goes_and_the_history_says_how_far_back_it_goes() {
        let mut history = History::new(4, 5);
        let tuple = TupleFilter::read("tcp 0.0.0.1:7 > 0.0.0.2:22").unwrap();
        let times = |recalled: &HistoryMatches| {
            recalled.decisions.iter().map(|decision| decision.record.at_ns).collect::<Vec<_>>()
        };
        history.push(decision(10, 7));
        history.push(decision(20, 8));
        let recalled = history.recall(&tuple, None, 9);
        assert_eq!((times(&recalled), recalled.since_ns, recalled.kept), (vec![10], 5, 2));
        for at in 3..6 {
            history.push(decision(at * 10, 7));
        }
        let recalled = history.recall(&tuple, None, 2);
        assert_eq!((times(&recalled), recalled.since_ns, recalled.left_out), (vec![40, 50], 20, 1));
        assert_eq!(times(&history.recall(&tuple, Some(40), 9)), [30, 40]);
        assert!(times(&history.recall(&tuple, Some(29), 9)).is_empty());
        history.lose(3, 60);
        let recalled = history.recall(&tuple, None, 9);
        assert_eq!((recalled.lost, recalled.lost_ns), (3, 60));
    }

    #[test]
    fn a_history_of_none_keeps_none() {
        let mut history = History::new(0, 5);
        history.push(decision(10, 7));
        assert_eq!(history.kept.len(), 0);
    }
}
