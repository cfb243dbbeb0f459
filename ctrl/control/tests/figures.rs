//! What `/metrics` and the stats page show, of workers that are only pretended.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::commit::Committer;
use control::config::Config;
use control::document::{Limits, Parsed, parse_policy};
use control::health::Severity;
use control::live::{Author, Change, Live, Parts, WorkerHandle};
use crossbeam::channel::bounded;
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::snapshot::Snapshot;
use engine::worker_totals::{EndCause, EntryGauge};
use engine::{Direction, NicSlot, Reason, RuleId};
use stats::{Family, Histogram, Value};

const POLICY: &str = "
vpcs: [{ name: prod, segment: { untagged: true } }]
security_groups:
  - name: a
    rules:
      - { direction: inbound, protocol: tcp, ports: 22, description: \"a \\\"b\\\"\" }
      - { direction: inbound, protocol: tcp, ports: 23, action: deny, priority: 5 }
  - { name: unused, project: p, rules: [{ direction: outbound }] }
nics:
  - { name: one, vpc: prod, addresses: [10.0.0.1], security_groups: [a] }
  - { name: two, project: p, vpc: prod, addresses: [10.0.0.2], security_groups: [] }
";
const ONE: NicSlot = NicSlot(1);
const TWO: NicSlot = NicSlot(2);

fn document(text: &str) -> Parsed {
    parse_policy(text, "test", &Limits::default()).unwrap()
}

struct Rig {
    live: Live,
    readers: Vec<rcu::Reader<Snapshot>>,
    counters: Vec<Arc<EngineCounters>>,
}

impl Rig {
    fn with(config: Config) -> Rig {
        let mut committer = Committer::new(config);
        let snapshot = committer.commit(document(POLICY).policy, 0).unwrap().unwrap().snapshot;
        let (publisher, readers) = rcu::domain(snapshot, 2);
        let counters: Vec<_> = (0..2).map(|_| Arc::new(EngineCounters::new())).collect();
        let worker = |core: usize| WorkerHandle {
            core,
            counters: counters[core].clone(),
            questions: bounded(1).0,
            waker: None,
            capacity: 7,
            polls: Box::new(Default::default),
        };
        let live = Live::new(Parts {
            committer,
            publisher,
            workers: (0..2).map(worker).collect(),
            connection_counts: Arc::new(ConnectionCounts::new()),
            ports: Box::new(Vec::new),
            start: Instant::now(),
            board: Default::default(),
            governing_file: None,
            store: None,
        });
        Rig { live, readers, counters }
    }

    fn new() -> Rig {
        Rig::with(Config::default())
    }

    /// The workers go on meanwhile.
    fn apply(&mut self, text: &str) {
        self.readers.iter_mut().for_each(rcu::Reader::offline);
        let change = Change { allow_empty: true, ..Change::to(document(text), Author::client("test")) };
        run(self.live.apply(change)).unwrap();
        self.readers.iter_mut().for_each(rcu::Reader::online);
    }

    fn family(&self, name: &str) -> Family {
        self.live.figures().into_iter().find(|family| family.name == name).unwrap_or_else(|| panic!("{name}"))
    }

    /// The series of these labels; `None` if there is none.
    fn value(&self, name: &str, labels: &[&str]) -> Option<u64> {
        let family = self.family(name);
        let mut fitting = family
            .series
            .iter()
            .filter(|series| series.labels.iter().map(|label| &**label).eq(labels.iter().copied()));
        let value = fitting.next().map(|series| match &series.value {
            Value::Number(number) => *number,
            Value::Histogram(histogram) => histogram.counts.iter().sum(),
        });
        assert!(fitting.next().is_none(), "{name}{labels:?} twice");
        value
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn every_family_of_the_interfaces_page_is_there_with_its_labels() {
    let rig = Rig::new();
    let found: Vec<String> =
        rig.live.figures().iter().map(|f| format!("{} {}", f.sample_name(), f.labels.join(","))).collect();
    let expected = [
        "build_info version",
        "generation ",
        "packets_total worker,direction,verdict,reason",
        "bytes_total worker,direction,verdict",
        "port_packets_total port,way",
        "port_up port",
        "connections worker,state",
        "connections_capacity worker",
        "connections_opened_total worker",
        "connections_ended_total worker,how",
        "worker_cycles_total worker,state",
        "worker_burst_packets ",
        "worker_generation worker",
        "commits_total outcome",
        "commit_seconds ",
        "acknowledge_seconds ",
        "disconnected_total ",
        "rule_connections_total project,group,rule_id",
        "rule_denied_packets_total project,group,rule_id",
        "rule_staged_packets_total project,group,rule_id,would,verdict",
        "rule_info project,group,rule_id,position,description",
        "flow_records_total sink,outcome",
        "trace_records_total outcome",
        "health what",
        "restart_connections outcome",
        "api_requests_total method,path,status",
        "nic_packets_total project,nic,direction,verdict",
        "nic_bytes_total project,nic,direction,verdict",
        "nic_connections project,nic",
    ];
    assert_eq!(found, expected.map(|line| format!("portcullis_{line}")));
}

#[test]
fn what_workers_count_is_shown_by_worker_and_by_nic() {
    let rig = Rig::new();
    let [first, second] = [0, 1].map(|id| &rig.counters[id]);
    first.add(ONE, Direction::Inbound, Reason::Established, 5);
    first.count_bytes(ONE, Direction::Inbound, true, 500);
    second.add(ONE, Direction::Inbound, Reason::Denied, 2);
    second.count_bytes(ONE, Direction::Inbound, false, 70);
    second.add(TWO, Direction::Outbound, Reason::New, 3);
    second.add(NicSlot::NONE, Direction::Outbound, Reason::UnknownSource, 9);
    assert_eq!(rig.value("packets", &["0", "inbound", "pass", "established"]), Some(5));
    assert_eq!(rig.value("packets", &["1", "inbound", "drop", "denied"]), Some(2));
    assert_eq!(rig.value("packets", &["1", "outbound", "drop", "unknown-source"]), Some(9));
    assert_eq!(rig.value("packets", &["0", "outbound", "drop", "unknown-source"]), Some(0));
    assert_eq!(rig.value("packets", &["0", "inbound", "pass", "denied"]), None, "nothing was observed");
    assert_eq!(rig.value("bytes", &["0", "inbound", "pass"]), Some(500));
    assert_eq!(rig.value("bytes", &["1", "inbound", "drop"]), Some(70));
    assert_eq!(rig.value("nic_packets", &["default", "one", "inbound", "pass"]), Some(5));
    assert_eq!(rig.value("nic_packets", &["default", "one", "inbound", "drop"]), Some(2));
    assert_eq!(rig.value("nic_packets", &["p", "two", "outbound", "pass"]), Some(3));
    assert_eq!(rig.value("nic_bytes", &["default", "one", "inbound", "pass"]), Some(500));
    assert_eq!(rig.value("nic_bytes", &["default", "one", "inbound", "drop"]), Some(70));
    first.worker.count_opened();
    first.worker.count_ended(EndCause::Reset);
    first.worker.count(EntryGauge::Tombstone, 1);
    for state in [engine::conntrack::State::Icmp, engine::conntrack::State::IcmpAnswered] {
        first.worker.count(EntryGauge::Live(state), 1);
    }
    [3, 64, 1].into_iter().for_each(|frames| second.worker.count_burst(frames));
    assert_eq!(rig.value("connections_opened", &["0"]), Some(1));
    assert_eq!(rig.value("connections_ended", &["0", "reset"]), Some(1));
    assert_eq!(rig.value("connections", &["0", "tombstone"]), Some(1));
    assert_eq!(rig.value("connections", &["0", "icmp"]), Some(2));
    assert_eq!(rig.value("connections", &["0", "established"]), Some(0));
    assert_eq!(rig.value("connections_capacity", &["1"]), Some(7));
    let Value::Histogram(Histogram { bounds, counts, sum }) =
        &rig.family("worker_burst_packets").series[0].value
    else {
        panic!("no histogram");
    };
    assert_eq!((bounds[6], &counts[..], *sum), (64.0, &[1, 0, 1, 0, 0, 0, 1, 0][..], 68.0));
}

#[test]
fn what_observe_mode_lets_pass_is_passed_with_its_reason_to_drop() {
    let rig = Rig::new();
    for (reason, dropped, observed) in [(Reason::NoRule, 10, 4), (Reason::Denied, 3, 3)] {
        rig.counters[0].add(ONE, Direction::Inbound, reason, dropped);
        rig.counters[0].observe(ONE, Direction::Inbound, reason, observed);
    }
    assert_eq!(rig.value("packets", &["0", "inbound", "pass", "no-rule"]), Some(4));
    assert_eq!(rig.value("packets", &["0", "inbound", "drop", "no-rule"]), Some(6));
    assert_eq!(rig.value("packets", &["0", "inbound", "pass", "denied"]), Some(3));
    assert_eq!(rig.value("packets", &["0", "inbound", "drop", "denied"]), Some(0));
    assert_eq!(rig.value("nic_packets", &["default", "one", "inbound", "pass"]), Some(7));
    assert_eq!(rig.value("nic_packets", &["default", "one", "inbound", "drop"]), Some(6));
}

/// A port refuses at the end of a burst what was counted as passed at its beginning.
#[test]
fn no_counter_runs_back_when_a_port_refuses_what_was_counted_as_passed() {
    let rig = Rig::new();
    let established = ["0", "inbound", "pass", "established"];
    rig.counters[0].add(ONE, Direction::Inbound, Reason::Established, 64);
    rig.counters[0].count_bytes(ONE, Direction::Inbound, true, 6400);
    assert_eq!(rig.value("packets", &established), Some(64));
    rig.counters[0].add(ONE, Direction::Inbound, Reason::Established, 4u64.wrapping_neg());
    rig.counters[0].add(ONE, Direction::Inbound, Reason::TxFull, 4);
    rig.counters[0].drop_bytes(ONE, Direction::Inbound, 400);
    assert_eq!(rig.value("packets", &established), Some(64));
    assert_eq!(rig.value("packets", &["0", "inbound", "drop", "tx-full"]), Some(4));
    assert_eq!(rig.value("nic_packets", &["default", "one", "inbound", "pass"]), Some(64));
    assert_eq!(rig.value("nic_bytes", &["default", "one", "inbound", "pass"]), Some(6400));
    assert_eq!(rig.value("nic_bytes", &["default", "one", "inbound", "drop"]), Some(400));
    rig.counters[0].add(ONE, Direction::Inbound, Reason::Established, 10);
    assert_eq!(rig.value("packets", &established), Some(70));
}

#[test]
fn rules_are_shown_where_they_stand_and_keep_their_counts_when_they_move() {
    let mut rig = Rig::new();
    let family = rig.family("rule");
    let infos: Vec<Vec<&str>> =
        family.series.iter().map(|series| series.labels.iter().map(|label| &**label).collect()).collect();
    let of = |group: &str, position: &str| {
        infos.iter().find(|info| info[1] == group && info[3] == position).unwrap().clone()
    };
    let (ssh, deny, unused) = (of("a", "0"), of("a", "1"), of("unused", "0"));
    assert_eq!((ssh[0], ssh[4], unused[0]), ("default", "a \"b\"", "p"));
    // One rule more and one less, between the two.
    (0..3).for_each(|_| rig.counters[0].rules.count_opened(RuleId(0)));
    (0..2).for_each(|_| rig.counters[1].rules.count_opened(RuleId(0)));
    rig.counters[1].rules.count_denied(RuleId(1));
    assert_eq!(rig.value("rule_connections", &ssh[..3]), Some(5));
    assert_eq!(rig.value("rule_denied_packets", &deny[..3]), Some(1));
    assert_eq!(rig.value("rule_connections", &deny[..3]), Some(0));
    assert_eq!(rig.value("rule_connections", &unused[..3]), Some(0));
    let moved = POLICY.replace(
        "    rules:\n      - { direction: inbound, protocol: tcp, ports: 22",
        "    rules:\n      - { direction: inbound, protocol: udp }\n      - { direction: inbound, protocol: tcp, ports: 22",
    );
    rig.apply(&moved);
    assert_eq!(rig.value("rule_connections", &ssh[..3]), Some(5));
    let at_one: Vec<&str> = [&ssh[..3], &["1"], &ssh[4..]].concat();
    assert_eq!(rig.value("rule", &at_one), Some(1));
    // One that is gone has no series.
    rig.apply(&moved.replace("ports: 22", "ports: 24"));
    assert_eq!(rig.value("rule_connections", &ssh[..3]), None);
}

/// All timeouts short, so that places are given out again soon.
fn short_lived() -> Config {
    let mut config = Config::default();
    let t = &mut config.timeouts;
    for timeout in [
        &mut t.tcp_syn,
        &mut t.tcp_established,
        &mut t.tcp_fin,
        &mut t.tcp_half_closed,
        &mut t.tcp_reset,
        &mut t.icmp,
        &mut t.one_way,
        &mut t.two_way,
        &mut t.fragment,
    ] {
        *timeout = Duration::from_millis(5);
    }
    config
}

#[test]
fn a_new_nic_begins_at_0_in_the_place_of_one_that_is_gone() {
    let mut rig = Rig::with(short_lived());
    let count = |rig: &Rig, n: u32| {
        for slot in [ONE, TWO] {
            rig.counters[0].add(slot, Direction::Inbound, Reason::Established, n.into());
            rig.counters[0].count_bytes(slot, Direction::Inbound, true, n * 100);
            rig.counters[0].count_bytes(slot, Direction::Inbound, false, n);
        }
    };
    count(&rig, 7);
    assert_eq!(rig.value("nic_bytes", &["default", "one", "inbound", "pass"]), Some(700));
    rig.apply(&POLICY[..POLICY.find("nics:").unwrap()]);
    assert_eq!(rig.family("nic_packets").series, [], "its series are gone");
    std::thread::sleep(Duration::from_millis(50));
    rig.apply(&POLICY.replace("one", "other"));
    let of = |rig: &Rig, name, verdict| rig.value(name, &["default", "other", "inbound", verdict]);
    let all = |rig: &Rig| {
        ["pass", "drop"].map(|verdict| (of(rig, "nic_packets", verdict), of(rig, "nic_bytes", verdict)))
    };
    assert_eq!(all(&rig), [(Some(0), Some(0)); 2]);
    count(&rig, 2);
    assert_eq!(all(&rig), [(Some(2), Some(200)), (Some(0), Some(2))]);
    assert_eq!(
        rig.value("packets", &["0", "inbound", "pass", "established"]),
        Some(18),
        "workers' own go on"
    );
}

#[test]
fn nics_beyond_the_bound_are_those_with_the_least_traffic() {
    let mut config = Config::default();
    config.metrics.nics = 1;
    let rig = Rig::with(config);
    let shown = |rig: &Rig| {
        let family = rig.family("nic_connections");
        family.series.iter().map(|series| series.labels[1].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&rig), ["one"], "by name where none has more");
    rig.counters[0].add(TWO, Direction::Inbound, Reason::NoRule, 1);
    assert_eq!(shown(&rig), ["two"]);
    rig.counters[0].add(ONE, Direction::Outbound, Reason::New, 2);
    assert_eq!(shown(&rig), ["one"]);
}

#[test]
fn changes_workers_and_problems_are_told() {
    let mut rig = Rig::new();
    assert_eq!(rig.value("commits", &["acknowledged"]), Some(0));
    rig.counters[0].live_inbound(ONE, engine::Generation(1), 4);
    rig.apply(&POLICY.replace("22", "25"));
    assert_eq!(rig.value("disconnected", &[]), Some(4));
    rig.counters[1].count_killed();
    assert_eq!(rig.value("disconnected", &[]), Some(5));
    rig.apply(&POLICY.replace("22", "25"));
    // One worker stands still.
    rig.readers[0].offline();
    let change = Change::to(document(POLICY), Author::client("test"));
    run(rig.live.apply(change)).unwrap();
    let stale = Change { if_generation: Some(1), ..Change::to(document(POLICY), Author::client("test")) };
    run(rig.live.apply(stale)).unwrap_err();
    let tried = Change { dry_run: true, ..Change::to(document(POLICY), Author::client("test")) };
    run(rig.live.apply(tried)).unwrap();
    for (outcome, count) in
        [("acknowledged", 1), ("pending", 1), ("unchanged", 1), ("refused", 1), ("unconfirmed", 0)]
    {
        assert_eq!(rig.value("commits", &[outcome]), Some(count), "{outcome}");
    }
    assert_eq!((rig.value("commit_seconds", &[]), rig.value("acknowledge_seconds", &[])), (Some(2), Some(1)));
    assert_eq!(rig.value("generation", &[]), Some(3));
    assert_eq!(rig.value("worker_generation", &["0"]), Some(3), "it takes the newest before it judges");
    assert_eq!(rig.value("worker_generation", &["1"]), Some(2));
    rig.readers[1].quiescent();
    assert_eq!(rig.value("worker_generation", &["1"]), Some(3));

    let board = rig.live.board();
    board.raise(("port eth0", "down"), Severity::Degraded, "its link is down", "look at the cable");
    board.raise(("port eth0", "losing"), Severity::Degraded, "it loses frames", "make it larger");
    assert_eq!(rig.value("health", &["port eth0"]), Some(1));
    board.clear(("port eth0", "down"));
    assert_eq!(rig.value("health", &["port eth0"]), Some(1));
    board.clear(("port eth0", "losing"));
    assert_eq!(rig.value("health", &["port eth0"]), Some(0));

    rig.live.metrics().flow_sink("aws").count_sent(3);
    rig.live.metrics().flow_sink("aws").count_lost(1);
    rig.live.metrics().trace().count_sent(2);
    assert_eq!(rig.value("flow_records", &["aws", "sent"]), Some(3));
    assert_eq!(rig.value("flow_records", &["aws", "lost"]), Some(1));
    assert_eq!(rig.value("trace_records", &["sent"]), Some(2));
}
