//! What workers count, by worker.

use std::sync::Arc;

use engine::conntrack::STATES;
use engine::worker_totals::{BURST_SIZES, EndCause};
use engine::{Direction, Reason};
use stats::{Family, Histogram, Kind};

use super::{Sample, WorkerSample};

/// In the order of their numbers.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Inbound, Direction::Outbound];
const REASONS: usize = Reason::ALL.len();
/// The largest burst of each size but the last, which has no bound: there is none beyond 64 frames.
const BURSTS: [f64; BURST_SIZES] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// As the label `direction` tells it.
pub(super) fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

/// What was shown last of one worker. What a port refuses at the end of a burst was counted as passed at its beginning: who reads in
/// between reads too much. No counter that was shown runs back for that; it stands until the count has caught up, a burst later.
#[derive(Clone, Copy, Default)]
struct LastShownWorker {
    /// By direction and reason: passed, dropped.
    packets: [[[u64; 2]; REASONS]; 2],
    /// By direction: passed, dropped.
    bytes: [[u64; 2]; 2],
}

/// The same of all workers.
#[derive(Default)]
pub(super) struct LastShown(Vec<LastShownWorker>);

/// What is shown of a number that was shown before.
pub(super) fn no_less(shown: &mut u64, now: u64) -> u64 {
    *shown = now.max(*shown);
    *shown
}

/// Sums over workers of what is counted by NIC and direction, by places.
#[derive(Default)]
pub(super) struct Columns {
    pub passed: [Vec<u64>; 2],
    pub dropped: [Vec<u64>; 2],
    /// Of those with a reason to drop, those that went on.
    pub observed: [Vec<u64>; 2],
    /// Passed, dropped.
    pub bytes: [[Vec<u64>; 2]; 2],
}

/// Adds what one worker counts of each NIC; their sum.
fn add(column: &mut Vec<u64>, counts: impl Iterator<Item = u64>) -> u64 {
    let mut at = 0;
    counts.fold(0u64, |sum, count| {
        match column.get_mut(at) {
            Some(word) => *word = word.wrapping_add(count),
            None => column.push(count),
        }
        at += 1;
        sum.wrapping_add(count)
    })
}

fn of_worker(name: &'static str, kind: Kind, labels: &'static [&'static str], help: &'static str) -> Family {
    Family::new(name, kind, labels, help)
}

impl LastShown {
    /// The families of workers, those of packets and bytes first; and what of it is by NIC.
    pub fn families(&mut self, taken: &Sample) -> (Vec<Family>, Columns) {
        self.0.resize(taken.workers.len(), LastShownWorker::default());
        let ids: Vec<Arc<str>> = (0..taken.workers.len()).map(|id| id.to_string().into()).collect();
        let workers = || ids.iter().zip(&taken.workers);
        let mut columns = Columns::default();
        let mut packets = of_worker(
            "packets",
            Kind::Counter,
            &["worker", "direction", "verdict", "reason"],
            "Packets judged, by verdict and reason.",
        );
        let mut bytes = of_worker(
            "bytes",
            Kind::Counter,
            &["worker", "direction", "verdict"],
            "Bytes of frames judged, without the check sequence (FCS).",
        );
        for ((id, met), of) in workers().zip(&mut self.0) {
            of.packets(taken.places, id, met, &mut columns, &mut packets);
            of.bytes(taken.places, id, met, &mut columns, &mut bytes);
        }
        let mut all = vec![packets, bytes, connections(workers())];
        let mut capacity = of_worker(
            "connections_capacity",
            Kind::Gauge,
            &["worker"],
            "Connections and tombstones that a worker's table holds.",
        );
        let mut opened =
            of_worker("connections_opened", Kind::Counter, &["worker"], "Connections that have opened.");
        let mut ended = of_worker(
            "connections_ended",
            Kind::Counter,
            &["worker", "how"],
            "Connections that have ended, by what ended them.",
        );
        let mut cycles = of_worker(
            "worker_cycles",
            Kind::Counter,
            &["worker", "state"],
            "Cycles of the time-stamp counter that a worker spent on turns with frames (busy) and without (idle).",
        );
        let mut generation = of_worker(
            "worker_generation",
            Kind::Gauge,
            &["worker"],
            "The generation of the policy that a worker judges by.",
        );
        for (id, met) in workers() {
            capacity.push([id.clone()], u64::from(met.capacity));
            opened.push([id.clone()], met.counters.worker.opened());
            for how in EndCause::ALL {
                ended.push([id.clone(), how.name().into()], met.counters.worker.ended(how));
            }
            for (state, count) in [("busy", met.polls.busy_cycles), ("idle", met.polls.idle_cycles)] {
                cycles.push([id.clone(), state.into()], count);
            }
            generation.push([id.clone()], u64::from(met.generation));
        }
        all.extend([capacity, opened, ended, cycles, bursts(&taken.workers), generation]);
        (all, columns)
    }
}

impl LastShownWorker {
    fn packets(
        &mut self,
        places: u32,
        id: &Arc<str>,
        met: &WorkerSample,
        columns: &mut Columns,
        family: &mut Family,
    ) {
        for direction in DIRECTIONS {
            let at = direction as usize;
            let counted = Reason::ALL.map(|reason| {
                let counts = met.counters.packets(places, direction, reason);
                add(if reason.passes() { &mut columns.passed[at] } else { &mut columns.dropped[at] }, counts)
            });
            // Read after the drops that they are of: what went on never counts as dropped.
            add(&mut columns.observed[at], met.counters.all_observed(places, direction));
            for (reason, counted) in Reason::ALL.into_iter().zip(counted) {
                let shown = &mut self.packets[at][reason as usize];
                let mut push = |verdict: &str, count| {
                    let labels =
                        [id.clone(), direction_name(direction).into(), verdict.into(), reason.name().into()];
                    family.push(labels, count);
                };
                if reason.passes() {
                    push("pass", no_less(&mut shown[0], counted));
                    continue;
                }
                let observed = met.counters.worker.observed(direction, reason).min(counted);
                let passed = no_less(&mut shown[0], observed);
                if passed > 0 {
                    push("pass", passed);
                }
                push("drop", no_less(&mut shown[1], counted - observed));
            }
        }
    }

    fn bytes(
        &mut self,
        places: u32,
        id: &Arc<str>,
        met: &WorkerSample,
        columns: &mut Columns,
        family: &mut Family,
    ) {
        for direction in DIRECTIONS {
            let at = direction as usize;
            for (verdict, (name, passed)) in [("pass", true), ("drop", false)].into_iter().enumerate() {
                let counts = met.counters.all_bytes(places, direction, passed);
                let counted = add(&mut columns.bytes[at][verdict], counts);
                let labels = [id.clone(), direction_name(direction).into(), name.into()];
                family.push(labels, no_less(&mut self.bytes[at][verdict], counted));
            }
        }
    }
}

fn connections<'m>(workers: impl Iterator<Item = (&'m Arc<str>, &'m WorkerSample)>) -> Family {
    let mut family = of_worker(
        "connections",
        Kind::Gauge,
        &["worker", "state"],
        "Connections by state, and tombstones of those that were disconnected.",
    );
    for (id, met) in workers {
        // Two states of ICMP have one name.
        let mut by_name: Vec<(&str, u64)> = Vec::new();
        for state in STATES {
            let count = met.counters.worker.live(state);
            match by_name.iter_mut().find(|(name, _)| *name == state.name()) {
                Some((_, sum)) => *sum = sum.wrapping_add(count),
                None => by_name.push((state.name(), count)),
            }
        }
        by_name.push(("tombstone", met.counters.worker.tombstones()));
        // A count is taken from one word and put to another: who reads in between may find one below zero.
        by_name
            .into_iter()
            .for_each(|(state, n)| family.push([id.clone(), state.into()], (n as i64).max(0) as u64));
    }
    family
}

fn bursts(workers: &[WorkerSample]) -> Family {
    let mut all = Histogram { bounds: &BURSTS, counts: vec![0; BURSTS.len() + 1], sum: 0.0 };
    for met in workers {
        let (counts, frames) = met.counters.worker.bursts();
        all.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        all.sum += frames as f64;
    }
    let family = of_worker(
        "worker_burst_packets",
        Kind::Histogram,
        &[],
        "Frames that workers took from a port at once, of turns that found some.",
    );
    family.of(all)
}
