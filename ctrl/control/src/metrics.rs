//! What the control side counts of itself: changes, requests, records that leave the appliance. Shared by those who count and by
//! [`crate::live::Live::figures`], which shows it beside what workers count.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stats::{Family, Histogram, Kind};

use crate::api::types::State;

/// Records that leave the appliance by one way, or are lost on it.
#[derive(Debug, Default)]
pub struct RecordCounters {
    sent: AtomicU64,
    lost: AtomicU64,
}

impl RecordCounters {
    /// So many more have left.
    pub fn count_sent(&self, records: u64) {
        self.sent.fetch_add(records, Relaxed);
    }

    /// So many more are lost.
    pub fn count_lost(&self, records: u64) {
        self.lost.fetch_add(records, Relaxed);
    }

    /// Those that have left and those that are lost, since the start.
    pub fn counts(&self) -> [(&'static str, u64); 2] {
        [("sent", self.sent.load(Relaxed)), ("lost", self.lost.load(Relaxed))]
    }
}

/// Durations by size, each size up to a bound.
struct Durations {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    nanos: AtomicU64,
}

impl Durations {
    fn new(bounds: &'static [f64]) -> Durations {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Durations { bounds, counts, nanos: AtomicU64::new(0) }
    }

    fn observe(&self, duration: Duration) {
        let size = self.bounds.partition_point(|bound| *bound < duration.as_secs_f64());
        self.counts[size].fetch_add(1, Relaxed);
        self.nanos.fetch_add(duration.as_nanos() as u64, Relaxed);
    }

    fn histogram(&self) -> Histogram {
        let counts = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        Histogram { bounds: self.bounds, counts, sum: self.nanos.load(Relaxed) as f64 / 1e9 }
    }
}

/// From ten microseconds, a rule more, to ten seconds, which a change of all of the most NICs may take.
const COMMIT: [f64; 19] = [
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// From a microsecond, a turn of an idle worker, to two seconds, after which nobody waits for workers any more.
const ACKNOWLEDGE: [f64; 20] = [
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1,
    0.25, 0.5, 1.0, 2.0,
];

/// What became of changes, as the label `outcome` tells it: every one is there from the start.
const OUTCOMES: [&str; 5] = ["acknowledged", "pending", "unconfirmed", "unchanged", "refused"];

/// Methods that are told apart; the others are one.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// The label of what is none of those that are told apart.
const OTHER: &str = "other";

/// The parts of a request that are counted, of which there are few: the path is that of a route.
type Request = (&'static str, Arc<str>, u16);

/// All of it.
pub struct Metrics {
    outcomes: [AtomicU64; OUTCOMES.len()],
    commit: Durations,
    acknowledge: Durations,
    disconnected: AtomicU64,
    requests: Mutex<BTreeMap<Request, u64>>,
    flows: Mutex<BTreeMap<Arc<str>, Arc<RecordCounters>>>,
    trace: Arc<RecordCounters>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            outcomes: Default::default(),
            commit: Durations::new(&COMMIT),
            acknowledge: Durations::new(&ACKNOWLEDGE),
            disconnected: AtomicU64::new(0),
            requests: Mutex::default(),
            flows: Mutex::default(),
            trace: Arc::default(),
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    /// The records of one sink of flow logs: its label, which must be neither an address nor a path, and there are as many as the
    /// configuration has sinks. Asked twice, the same.
    pub fn flow_sink(&self, sink: &str) -> Arc<RecordCounters> {
        held(&self.flows).entry(sink.into()).or_default().clone()
    }

    /// The records of traces, all clients together.
    pub fn trace(&self) -> &Arc<RecordCounters> {
        &self.trace
    }

    /// A change was asked for, and this became of it; `None`: it was refused. What was only tried counts nowhere.
    pub(crate) fn count_change(&self, state: Option<State>) {
        let outcome = match state {
            Some(State::Acknowledged) => 0,
            Some(State::Pending) => 1,
            Some(State::Unconfirmed) => 2,
            Some(State::Unchanged) => 3,
            None => 4,
            Some(State::DryRun) => return,
        };
        self.outcomes[outcome].fetch_add(1, Relaxed);
    }

    /// A change was published so long after it was validated.
    pub(crate) fn observe_commit(&self, duration: Duration) {
        self.commit.observe(duration);
    }

    /// Every worker judged by a change so long after its publication.
    pub(crate) fn observe_acknowledgement(&self, duration: Duration) {
        self.acknowledge.observe(duration);
    }

    /// Live connections were disconnected.
    pub(crate) fn count_disconnected(&self, connections: u64) {
        self.disconnected.fetch_add(connections, Relaxed);
    }

    /// A request was answered. `path` is its route's, and `None` where it has none.
    pub(crate) fn count_request(&self, method: &str, path: Option<&str>, status: u16) {
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or(OTHER);
        *held(&self.requests).entry((method, path.unwrap_or(OTHER).into(), status)).or_default() += 1;
    }

    /// As families, in the order of the interfaces page; `killed` counts what re-judging has disconnected.
    pub(crate) fn families(&self, killed: u64) -> [Family; 7] {
        let mut commits = Family::new(
            "commits",
            Kind::Counter,
            &["outcome"],
            "Changes of the policy that were asked for, by what became of them.",
        );
        for (name, count) in OUTCOMES.into_iter().zip(&self.outcomes) {
            commits.push([name.into()], count.load(Relaxed));
        }
        let commit = Family::new(
            "commit_seconds",
            Kind::Histogram,
            &[],
            "Time from a validated change to its publication.",
        );
        let acknowledge = Family::new(
            "acknowledge_seconds",
            Kind::Histogram,
            &[],
            "Time from the publication of a change until every worker judged by it.",
        );
        let disconnected = Family::new(
            "disconnected",
            Kind::Counter,
            &[],
            "Live connections that changes of the policy, or an operator, have disconnected.",
        );
        let mut flows = Family::new(
            "flow_records",
            Kind::Counter,
            &["sink", "outcome"],
            "Records of flow logs that were sent, or lost because their sink did not keep up.",
        );
        for (sink, records) in held(&self.flows).iter() {
            records
                .counts()
                .into_iter()
                .for_each(|(outcome, n)| flows.push([sink.clone(), outcome.into()], n));
        }
        let mut trace = Family::new(
            "trace_records",
            Kind::Counter,
            &["outcome"],
            "Records of traces and captures that were sent, or lost because their reader did not keep up.",
        );
        self.trace.counts().into_iter().for_each(|(outcome, n)| trace.push([outcome.into()], n));
        let mut requests = Family::new(
            "api_requests",
            Kind::Counter,
            &["method", "path", "status"],
            "Requests to the API by method, route and status.",
        );
        for ((method, path, status), count) in held(&self.requests).iter() {
            requests.push([(*method).into(), path.clone(), status.to_string().into()], *count);
        }
        [
            commits,
            commit.of(self.commit.histogram()),
            acknowledge.of(self.acknowledge.histogram()),
            disconnected.with([], self.disconnected.load(Relaxed) + killed),
            flows,
            trace,
            requests,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_where_its_bound_is_the_first_that_holds_it() {
        let durations = Durations::new(&[0.001, 0.01]);
        for micros in [1, 1000, 1001, 10_000, 10_001, 5_000_000] {
            durations.observe(Duration::from_micros(micros));
        }
        let Histogram { counts, sum, .. } = durations.histogram();
        assert_eq!(counts, [2, 2, 2]);
        assert!((sum - 5.022_003).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn requests_of_strangers_words_are_one_series() {
        let metrics = Metrics::default();
        for n in 0..100 {
            metrics.count_request(&format!("METHOD{n}"), None, 404);
        }
        metrics.count_request("GET", Some("/v1/nics"), 200);
        let [.., requests] = metrics.families(0);
        assert_eq!(requests.series.len(), 2);
    }
}
