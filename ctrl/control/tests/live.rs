//! Changes on their way to workers that are only pretended: what the receipts say of them.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use control::api::types::{LineChange, Receipt, State, Would};
use control::commit::Committer;
use control::config::Config;
use control::document::{Limits, Parsed, parse_policy};
use control::live::{Author, Change, ChangeRefused, Live, Parts, WorkerHandle};
use crossbeam::channel::{Receiver, bounded};
use engine::conntrack::Connection;
use engine::conntrack::{Entry, key_meta};
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::snapshot::Snapshot;
use engine::time::Now;
use engine::verdict::StagedVerdict;
use engine::worker::{WorkerReply, WorkerRequest};
use engine::{AddrId, Direction, FlowIndex, Generation, NicSlot, Reason, RuleId};

const POLICY: &str = "
vpcs: [{ name: prod, segment: { untagged: true } }]
security_groups: [{ name: a, rules: [{ direction: inbound, protocol: tcp, ports: 22 }] }]
nics: [{ name: one, vpc: prod, addresses: [10.0.0.1], security_groups: [a] }]
";

fn document(text: &str) -> Parsed {
    parse_policy(text, "test", &Limits::default()).unwrap()
}

fn with_port(port: u16) -> Parsed {
    document(&POLICY.replace("22", &port.to_string()))
}

/// A policy in force and two workers that do what the test does for them.
struct Rig {
    live: Live,
    readers: Vec<rcu::Reader<Snapshot>>,
    counters: Vec<Arc<EngineCounters>>,
    tables: Vec<Table>,
}

/// What a worker answers with when it is asked for its connections.
type Table = Arc<Mutex<Vec<Connection>>>;

/// Answers as a worker does, until nobody can ask any more.
fn answer(questions: &Receiver<WorkerRequest>, table: &Table) {
    while let Ok(WorkerRequest { mut connections, reply: answer, .. }) = questions.recv() {
        connections.extend_from_slice(&table.lock().unwrap());
        let (now, len) = (Now { tick: 0, ceil: 0 }, connections.len() as u32);
        answer.send(WorkerReply { connections, watch_set: None, next: None, now, len, ended: 0 }).unwrap();
    }
}

/// An inbound connection of the first NIC's first address.
fn connection(epoch: u32) -> Connection {
    let mut entry = Entry::new(AddrId::new(0, 0), 1, 0, key_meta(6, false), true);
    entry.stamp = Generation(epoch);
    Connection { flow: FlowIndex(0), entry, remote: 1, last_syn: Default::default(), totals: None }
}

impl Rig {
    fn new() -> Rig {
        Rig::with(Config::default())
    }

    fn with(config: Config) -> Rig {
        let mut committer = Committer::new(config);
        let snapshot = committer.commit(document(POLICY).policy, 0).unwrap().unwrap().snapshot;
        let (publisher, readers) = rcu::domain(snapshot, 2);
        let (mut workers, mut counters, mut tables) = (Vec::new(), Vec::new(), Vec::new());
        for core in 0..2 {
            let (asked, heard) = bounded(1);
            counters.push(Arc::new(EngineCounters::new()));
            let table = Table::default();
            tables.push(table.clone());
            std::thread::spawn(move || answer(&heard, &table));
            workers.push(WorkerHandle {
                core,
                counters: counters[core].clone(),
                questions: asked,
                waker: None,
                capacity: 1,
                polls: Box::new(Default::default),
            });
        }
        let live = Live::new(Parts {
            committer,
            publisher,
            workers,
            connection_counts: Arc::new(ConnectionCounts::new()),
            ports: Box::new(Vec::new),
            start: Instant::now(),
            board: Default::default(),
            governing_file: None,
            store: None,
        });
        Rig { live, readers, counters, tables }
    }

    fn apply(&self, change: Change) -> Result<Receipt, ChangeRefused> {
        run(self.live.apply(change))
    }

    /// Applies a policy while the workers go on.
    fn acknowledged(&mut self, policy: Parsed) -> Receipt {
        self.readers.iter_mut().for_each(rcu::Reader::offline);
        let receipt = self.apply(Change::to(policy, Author::client("test"))).unwrap();
        self.readers.iter_mut().for_each(rcu::Reader::online);
        receipt
    }

    /// `n` inbound connections of the NIC, opened under the epoch.
    fn open(&self, worker: usize, epoch: u32, n: i64) {
        self.counters[worker].live_inbound(NicSlot(1), Generation(epoch), n);
        let mut table = self.tables[worker].lock().unwrap();
        let len = (table.len() as i64 + n) as usize;
        table.resize_with(len, || connection(epoch));
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_worker_that_does_not_answer_is_named_and_success_is_not_claimed() {
    let mut rig = Rig::new();
    rig.readers[0].offline();
    let receipt = rig.apply(Change::to(with_port(23), Author::client("test"))).unwrap();
    assert_eq!((receipt.state, receipt.generation, receipt.acknowledged_us), (State::Pending, 2, None));
    assert_eq!(receipt.pending, [1]);
    assert!(receipt.workers[0].acknowledged_us.is_some() && receipt.workers[1].acknowledged_us.is_none());
    let snapshot = rig.live.snapshot();
    assert_eq!((snapshot.acknowledged, snapshot.in_limbo), (false, 1));
    // It answers later: the old snapshot can go.
    rig.readers[1].quiescent();
    rig.live.reclaim();
    let snapshot = rig.live.snapshot();
    assert_eq!((snapshot.acknowledged, snapshot.in_limbo, snapshot.generation), (true, 0, 2));
}

#[test]
fn receipts_count_what_was_live_over_all_workers_and_only_once() {
    let mut rig = Rig::new();
    rig.open(0, 1, 5);
    rig.open(1, 1, 7);
    rig.open(1, 1, -1);
    assert_eq!(rig.acknowledged(with_port(23)).disconnected, 11);
    // Those are tombstones, though no worker has met the NIC since.
    assert_eq!(rig.acknowledged(with_port(24)).disconnected, 0);
    rig.open(0, 3, 2);
    assert_eq!(rig.live.nics()[0].live_inbound, 2);
    // A description flushes nobody.
    let described = document(&POLICY.replace("22", "24").replace("name: one,", "name: one, description: x,"));
    let receipt = rig.acknowledged(described);
    assert_eq!(
        (receipt.disconnected, receipt.flushed.len(), &*receipt.changed),
        (0, 0, &["one".to_owned()][..])
    );
    // A deletion ends them.
    let none = Parsed { empty: true, ..control::model::Policy::default().into() };
    let receipt = rig
        .apply(Change { allow_empty: true, dry_run: true, ..Change::to(none, Author::client("test")) })
        .unwrap();
    assert_eq!(
        (receipt.state, receipt.disconnected, &*receipt.ended),
        (State::DryRun, 2, &["one".to_owned()][..])
    );
}

#[test]
fn guards_refuse_with_a_preview_and_nothing_has_happened() {
    let mut rig = Rig::new();
    rig.readers.iter_mut().for_each(rcu::Reader::offline);
    rig.open(0, 1, 3);
    let change =
        |most| Change { max_disconnect: Some(most), ..Change::to(with_port(23), Author::client("test")) };
    let Err(ChangeRefused::DisconnectsTooMany { most: 2, preview }) = rig.apply(change(2)) else {
        panic!("not refused")
    };
    assert_eq!(
        (preview.disconnected, preview.state, &*preview.flushed),
        (3, State::DryRun, &["one".to_owned()][..])
    );
    let affected = preview.affected.unwrap();
    assert_eq!((affected.by_nic["one"], affected.connections.len()), (3, 3));
    assert_eq!(rig.live.generation(), 1);
    assert!(matches!(
        rig.apply(Change::to(document("# x\n"), Author::file("policy.yaml"))),
        Err(ChangeRefused::Empty)
    ));
    let no_nics = document("vpcs: [{ name: prod, segment: { untagged: true } }]\n");
    assert!(matches!(
        rig.apply(Change::to(no_nics, Author::file("policy.yaml"))),
        Err(ChangeRefused::NoNics(1))
    ));
    assert_eq!(rig.apply(change(3)).unwrap().state, State::Acknowledged);
    assert_eq!(rig.apply(Change::to(with_port(23), Author::client("test"))).unwrap().state, State::Unchanged);
    assert_eq!(rig.live.generation(), 2);
}

#[test]
fn changes_take_turns() {
    let mut rig = Rig::new();
    rig.readers.iter_mut().for_each(rcu::Reader::offline);
    let live = rig.live.clone();
    let generations = run(async move {
        let apply = |port| {
            let live = live.clone();
            tokio::spawn(async move {
                live.apply(Change::to(with_port(port), Author::client("test"))).await.unwrap().generation
            })
        };
        let tasks: Vec<_> = (100..120).map(apply).collect();
        let mut generations = Vec::new();
        for task in tasks {
            generations.push(task.await.unwrap());
        }
        generations
    });
    assert_eq!(generations, (2..22).collect::<Vec<_>>());
    assert!(rig.live.policy().security_groups.values().any(|g| g.rules[0].ports == Some((119, 119))));
}

#[test]
fn the_counters_of_a_nic_begin_at_0_though_its_place_was_anothers() {
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
    let mut rig = Rig::with(config);
    let slot = NicSlot(1);
    let count = |rig: &Rig, n| {
        rig.counters[0].add(slot, Direction::Inbound, Reason::New, n);
        rig.counters[1].add(slot, Direction::Outbound, Reason::NoRule, n);
        rig.counters[1].observe(slot, Direction::Outbound, Reason::NoRule, n as i64);
        (0..n).for_each(|_| rig.counters[0].count_displaced(slot));
    };
    count(&rig, 7);
    let before = rig.live.counters();
    assert_eq!((before.nics[0].nic.as_deref(), before.nics[0].inbound.packets.received), (Some("one"), 7));
    assert_eq!(rig.live.nics()[0].displaced, 7);
    // It goes, and comes back within the time that a rollback has: it is another NIC in another place.
    let without = || document(&POLICY[..POLICY.find("nics:").unwrap()]);
    let mut no_nics = Change::to(without(), Author::client("test"));
    no_nics.allow_empty = true;
    rig.readers.iter_mut().for_each(rcu::Reader::offline);
    rig.apply(no_nics).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    rig.acknowledged(document(&POLICY.replace("one", "other")));
    let counters = rig.live.counters();
    assert_eq!(counters.nics, [], "nothing was seen of the new one");
    assert_eq!(rig.live.nics()[0].displaced, 0);
    assert_eq!(counters.packets.received, 14, "the appliance's own go on");
    count(&rig, 2);
    let counters = rig.live.counters();
    let [nic] = counters.nics.as_slice() else { panic!("{:?}", counters.nics) };
    assert_eq!(nic.nic.as_deref(), Some("other"));
    assert_eq!((nic.inbound.packets.received, nic.outbound.packets.observed), (2, 2));
    assert_eq!(rig.live.nics()[0].displaced, 2);
}

#[test]
fn listings_come_in_pages_behind_a_name_that_need_not_be_there() {
    let mut rig = Rig::new();
    let nics: Vec<_> =
        (1..=5).map(|n| format!("{{ name: n{n}, vpc: prod, security_groups: [a] }}")).collect();
    let text = POLICY
        .replace("{ name: one, vpc: prod, addresses: [10.0.0.1], security_groups: [a] }", &nics.join(", "));
    rig.acknowledged(document(&text));
    let key = |name: &str| control::model::Key::in_default(name);
    let nics = |after: Option<&str>, limit| {
        let after = after.map(key);
        let page = rig.live.nics_after(after.as_ref(), limit);
        page.into_iter().map(|nic| nic.nic).collect::<Vec<_>>()
    };
    assert_eq!(nics(None, 2), ["n1", "n2"]);
    assert_eq!(nics(Some("n2"), 2), ["n3", "n4"]);
    assert_eq!(nics(Some("n2x"), usize::MAX), ["n3", "n4", "n5"]);
    assert_eq!(nics(Some("n5"), 2), [""; 0]);
    let groups = rig.live.groups_after(None, 1);
    assert_eq!((groups.len(), &*groups[0].group, groups[0].nics.len()), (1, "a", 5));
    let behind = rig.live.groups_after(Some(&key("a")), usize::MAX);
    assert_eq!(behind.iter().map(|group| &*group.group).collect::<Vec<_>>(), ["default"]);
    let history = |before, limit| {
        rig.live.history_page(before, limit).iter().map(|record| record.generation).collect::<Vec<_>>()
    };
    assert_eq!((history(None, 1), history(Some(2), 5), history(Some(1), 5)), (vec![2], vec![1], vec![]));
}

/// The guard of files that are watched. A few NICs may go whatever their share; more only up to it.
#[test]
fn a_document_that_takes_away_more_than_its_share_is_refused() {
    let with = |nics: u32| {
        let one = |n| format!("{{ name: n{n}, vpc: prod, addresses: [10.0.0.{n}], security_groups: [a] }}");
        let nics: Vec<_> = (1..=nics).map(one).collect();
        let of_one = "{ name: one, vpc: prod, addresses: [10.0.0.1], security_groups: [a] }";
        document(&POLICY.replace(of_one, &nics.join(", ")))
    };
    for (before, after, is_refused) in [
        (11, 6, false),
        (11, 5, true),
        (11, 4, true),
        (10, 5, false),
        (9, 4, true),
        (7, 3, false),
        (5, 1, false),
    ] {
        let mut rig = Rig::new();
        rig.acknowledged(with(before));
        let file = Change {
            max_removed_share: Some(0.5),
            dry_run: true,
            ..Change::to(with(after), Author::client("test"))
        };
        let done = rig.apply(file);
        assert_eq!(
            matches!(done, Err(ChangeRefused::RemovesTooMuch { .. })),
            is_refused,
            "{before} to {after}"
        );
    }
}

#[test]
fn a_staged_rule_disconnects_nobody_until_it_is_promoted_and_is_listed_with_what_it_would_have_done() {
    let mut rig = Rig::new();
    let with =
        |rule: &str| document(&POLICY.replace("22 }]", &format!("22 }}, {{ direction: inbound{rule} }}]")));
    let staged = rig.acknowledged(with(", action: deny, priority: 1, staged: true"));
    assert_eq!((staged.disconnected, staged.flushed.len(), staged.generation), (0, 0, 2));
    assert_eq!(staged.changes[1].text, "staged: deny inbound any from everyone");
    let rule = RuleId(1);
    rig.counters[0].rules.count_opened(RuleId(0));
    rig.counters[1].rules.count_would_be(&StagedVerdict { rule, allows: false, differs: true });
    rig.counters[0].rules.count_would_be(&StagedVerdict { rule, allows: false, differs: false });
    let rules = rig.live.rules_after(None, usize::MAX);
    let would = Would { pass: 0, pass_dropped: 0, drop: 2, drop_passed: 1 };
    assert_eq!([rules[0].would, rules[1].would], [None, Some(would)]);
    assert_eq!([rules[0].connections, rules[1].connections, rules[1].denied], [1, 0, 0]);
    assert!(!rules[0].staged && rules[1].staged && rules[..2].iter().all(|rule| rule.since.is_some()));
    let text = rig.live.figures().iter().map(|family| format!("{family:?}")).collect::<String>();
    assert!(text.contains("rule_staged_packets"), "{text}");
    let promoted = rig.acknowledged(with(", action: deny, priority: 1"));
    assert_eq!(promoted.flushed, ["one"]);
    let lines: Vec<_> = promoted.changes[1..].iter().map(|line| (line.change, line.text.as_str())).collect();
    let expected = [
        (LineChange::Removed, "staged: deny inbound any from everyone"),
        (LineChange::Added, "deny inbound any from everyone"),
    ];
    assert_eq!(lines, expected);
    assert_eq!(rig.live.rules_after(None, usize::MAX)[1].denied, 0, "it counts from 0");
}
