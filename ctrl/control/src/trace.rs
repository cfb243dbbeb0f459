//! Why: what became of single packets, as the workers tell it ([`engine::trace`]), with the names of then.
//!
//! ```text
//! worker ─ ring of decisions ────────┐          ┌─ history ─ `why`
//! worker ─ ring of what is watched ──┴─ drain ──┴─ readers: `trace`, `capture`
//! ```
//!
//! [`Trace::drain`] empties the rings some hundred times a second. Nothing in here holds a worker up: a full ring loses what comes, and so
//! does a reader's queue that is full; both are counted, and the reader is told. Memory: the history's records (a key of the
//! configuration), and for each reader a ring a worker and a queue, [`engine::trace::MAX_WATCHES`] readers at most.

mod changes;
mod decision;
mod filter;
mod history;
mod names;
pub mod pcapng;
mod readers;
mod text;
mod tuple;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use engine::Generation;
use engine::trace::{DecisionReader, Record};

use crate::metrics::RecordCounters;
pub use changes::{Change, Changes};
pub use decision::{Decision, DisconnectCause};
pub use filter::{FilterQuery, WatchRequest};
pub use history::{History, HistoryExtent, HistoryMatches};
pub use names::NameTable;
use readers::Watchers;
pub use readers::{Event, Watcher};
pub use text::{DecisionText, whys};
pub use tuple::TupleFilter;

/// Decisions that a worker's ring holds: 2 MiB.
pub const RING: usize = 1 << 14;
/// Decisions that a worker tells in a second at most, unless more are asked for.
pub const PER_SECOND: u32 = 10_000;
/// Generations whose names are at hand for what workers still tell under them.
const GENERATIONS: usize = 8;
/// Records that are taken from one ring at once.
const TURN: usize = RING;

/// What workers tell, and who listens.
pub struct Trace {
    inner: Mutex<Inner>,
    history: Mutex<History>,
    /// Those who watch, and what of it the workers know.
    pub(crate) readers: Watchers,
    /// Records that reached a reader, and those that did not.
    records: Arc<RecordCounters>,
}

struct Inner {
    /// By worker.
    decisions: Vec<(DecisionReader, u64)>,
    names: VecDeque<NameTable>,
    changes: Changes,
    start: Instant,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Trace {
    /// Of workers whose clock began at `start`, none of which tells anything yet.
    pub fn new(names: NameTable, start: Instant, records: Arc<RecordCounters>) -> Trace {
        let inner =
            Inner { decisions: Vec::new(), names: [names].into(), changes: Changes::default(), start };
        Trace {
            inner: Mutex::new(inner),
            history: Mutex::new(History::new(0, wall_ns())),
            readers: Watchers::default(),
            records,
        }
    }

    /// Takes the workers' rings, in their order, and keeps the last `history` decisions from now on.
    pub fn attach(&self, decisions: Vec<DecisionReader>, history: usize) {
        locked(&self.inner).decisions = decisions.into_iter().map(|read| (read, 0)).collect();
        *locked(&self.history) = History::new(history, wall_ns());
    }

    /// True if decisions are kept.
    pub fn has_history(&self) -> bool {
        locked(&self.history).is_kept()
    }

    /// A generation is about to be published.
    pub(crate) fn begin(&self, names: NameTable, change: Change) {
        let mut inner = locked(&self.inner);
        inner.changes.push(change);
        if inner.names.len() == GENERATIONS {
            inner.names.pop_front();
        }
        inner.names.push_back(names);
    }

    /// The names of now.
    pub fn names(&self) -> NameTable {
        let inner = locked(&self.inner);
        inner.names_of(Generation(u32::MAX)).clone()
    }

    /// Takes what the rings hold, names it, and hands it on. Never waits for anybody but another drain.
    pub fn drain(&self) {
        let mut inner = locked(&self.inner);
        let (now_ns, wall_ns) = (inner.start.elapsed().as_nanos() as u64, wall_ns());
        let to_wall = |at: u64| wall_ns.saturating_sub(now_ns.saturating_sub(at));
        let mut told = Vec::new();
        let mut lost = 0;
        let Inner { decisions, .. } = &mut *inner;
        for (worker, (read, known)) in decisions.iter_mut().enumerate() {
            read.records.take(TURN, |record| told.push((worker, record)));
            let now = read.counts.lost();
            lost += now - std::mem::replace(known, now);
        }
        if !told.is_empty() {
            // Of several workers, as it happened.
            told.sort_by_key(|(_, record)| record.at_ns);
            let mut history = locked(&self.history);
            for (worker, record) in told {
                let decision = inner.decision(Record { at_ns: to_wall(record.at_ns), ..record }, worker);
                history.push(decision);
            }
        }
        if lost != 0 {
            locked(&self.history).lose(lost, wall_ns);
        }
        let (sent, lost) = self.readers.drain(|record, worker| {
            inner.decision(Record { at_ns: to_wall(record.at_ns), ..*record }, worker)
        });
        self.records.count_sent(sent);
        self.records.count_lost(lost);
    }

    /// Looks at every decision of the history, the oldest first. How far back it goes.
    pub fn each_decision(&self, each: impl FnMut(&Decision)) -> HistoryExtent {
        let history = locked(&self.history);
        history.each(each);
        history.reach()
    }

    /// What was decided about a packet, from the history.
    pub fn recall(&self, tuple: &TupleFilter, at_ns: Option<u64>, most: usize) -> HistoryMatches {
        locked(&self.history).recall(tuple, at_ns, most)
    }
}

/// Nanoseconds since 1970.
fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

impl Inner {
    /// The names of a generation, or of the nearest one that is at hand.
    fn names_of(&self, generation: Generation) -> &NameTable {
        let of = self.names.iter().rev().find(|names| names.generation <= generation);
        // There is always one.
        of.unwrap_or(&self.names[0])
    }

    fn decision(&self, record: Record, worker: usize) -> Decision {
        Decision::new(record, worker, self.names_of(record.generation), &self.changes)
    }
}

impl Decision {
    /// A record with the names of its generation.
    pub fn new(record: Record, worker: usize, names: &NameTable, changes: &Changes) -> Decision {
        let ending = record
            .disconnected
            .map(|disconnected| Arc::new(changes.ending(record.nic, &disconnected, record.generation)));
        Decision {
            nic: names.nic(record.nic),
            rule: record.rule.get().and_then(|rule| names.rule(rule)).cloned(),
            staged: record.staged.and_then(|told| names.rule(told.rule)).cloned(),
            record,
            worker,
            ending,
        }
    }
}
