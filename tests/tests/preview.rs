//! What a dry run names is what the change disconnects: workers that poll, frozen traffic, random changes of every kind.
//!
//! `PREVIEW_CHANGES=1000` makes more changes than CI does, `PREVIEW_SEED` others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use control::api::types::{Connection, Receipt, State};
use control::commit::Committer;
use control::compile::shard_config;
use control::config::{Config, parse_config};
use control::document::{Limits, Parsed, parse_policy};
use control::live::{Author, Change, Filter, Live, Parts, WorkerHandle};
use crossbeam::channel::bounded;
use engine::Side;
use engine::burst::{Firewall, FirewallConfig};
use engine::conntrack::Secret;
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::worker::{Wire, Worker, mesh};
use testkit::rng::Rng;
use testkit::sim::{SimFrame, SimQueue};
use testkit::traffic::{Event, Traffic};
use tokio::runtime::{Builder, Runtime};

const WORKERS: u32 = 2;
/// Frames between two changes, at least.
const FRAMES: usize = 600;

/// The time of the workers, and how often all of them have been polled.
#[derive(Default)]
struct Clock {
    ns: AtomicU64,
    polls: AtomicU64,
    ends: AtomicBool,
}

struct Rig {
    live: Live,
    runtime: Runtime,
    clock: Arc<Clock>,
    queues: Vec<[SimQueue; 2]>,
    poller: Option<JoinHandle<()>>,
    alive: Arc<std::sync::atomic::AtomicUsize>,
    sent: usize,
    limits: Limits,
}

impl Rig {
    fn new(config: &Config) -> Rig {
        let committer = Committer::new(config.clone());
        let (publisher, readers) = rcu::domain(Box::new(committer.initial()), WORKERS as usize);
        let connection_counts = Arc::new(ConnectionCounts::new());
        let (mut handles, mut workers, mut queues) = (Vec::new(), Vec::new(), Vec::new());
        for ((id, reader), rings) in (0..WORKERS).zip(readers).zip(mesh(WORKERS as usize, 256)) {
            let shard = shard_config(config, id, WORKERS);
            let counters = Arc::new(EngineCounters::new());
            let firewall = FirewallConfig { shard, secret: Secret::new([5, 9]), grace_end_ns: 0 };
            let firewall = Firewall::new(&firewall, counters.clone(), connection_counts.clone());
            let (inside, outside) = (SimQueue::default(), SimQueue::default());
            let wire = Wire { inside: inside.clone(), outside: outside.clone() };
            let (asked, questions) = bounded(4);
            workers.push(Worker::new(id, firewall, reader, vec![wire], rings, questions));
            queues.push([inside, outside]);
            handles.push(WorkerHandle {
                core: id as usize,
                counters,
                questions: asked,
                waker: None,
                capacity: shard.capacity,
                polls: Box::new(Default::default),
            });
        }
        let clock = Arc::new(Clock { ns: AtomicU64::new(1_000_000_000), ..Clock::default() });
        let limits = config.policy.limits;
        let live = Live::new(Parts {
            committer,
            publisher,
            workers: handles,
            connection_counts,
            ports: Box::new(Vec::new),
            start: Instant::now(),
            board: Default::default(),
            governing_file: None,
            store: None,
        });
        let (polled, runtime) = (clock.clone(), Builder::new_current_thread().enable_all().build().unwrap());
        let poller = std::thread::spawn(move || {
            while !polled.ends.load(Ordering::Relaxed) {
                for worker in &mut workers {
                    worker.poll(polled.ns.load(Ordering::Acquire), &mut ());
                }
                polled.polls.fetch_add(1, Ordering::Release);
            }
        });
        Rig { live, runtime, clock, queues, poller: Some(poller), alive: Arc::default(), sent: 0, limits }
    }

    /// Lets a frame arrive at some worker's queue.
    fn arrive(&mut self, side: Side, bytes: Vec<u8>) {
        let frame = SimFrame::new(self.sent, bytes, &self.alive);
        self.queues[self.sent % WORKERS as usize][side as usize].arrive(frame);
        self.sent += 1;
    }

    /// Waits until all that arrived is judged: after that, nothing moves.
    fn come_to_rest(&self) {
        while self.queues.iter().flatten().any(|queue| queue.waiting() > 0) {
            std::thread::yield_now();
        }
        let polls = self.clock.polls.load(Ordering::Acquire);
        while self.clock.polls.load(Ordering::Acquire) < polls + 20 {
            std::thread::yield_now();
        }
        self.queues.iter().flatten().for_each(|queue| drop(queue.left()));
    }

    fn apply(&self, document: Parsed, dry_run: bool) -> Receipt {
        let change = Change::to(document, Author::client("test"));
        let change = Change { dry_run, allow_empty: true, ..change };
        self.runtime.block_on(self.live.apply(change)).unwrap()
    }

    fn roll_back(&self, to: u32, dry_run: bool) -> Receipt {
        let change = Change { dry_run, ..Change::back_to(to, Author::client("test")) };
        self.runtime.block_on(self.live.apply(change)).unwrap()
    }

    /// The live connections, each as a line that does not change with its state.
    fn live(&self) -> BTreeSet<String> {
        let mut live = BTreeSet::new();
        let all = Filter::default();
        let listed = self.live.connections(&all, |connection| {
            if !connection.tombstone {
                assert!(live.insert(line(&connection)), "a connection is listed twice: {connection:?}");
            }
        });
        self.runtime.block_on(listed).unwrap();
        live
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.clock.ends.store(true, Ordering::Relaxed);
        self.poller.take().map(JoinHandle::join);
    }
}

fn line(c: &Connection) -> String {
    let icmp = c.icmp.map(|icmp| (icmp.identifier, icmp.kind));
    format!(
        "{} {} {} {}:{:?} {}:{:?} {icmp:?} {}",
        c.nic, c.opened, c.protocol, c.local, c.local_port, c.remote, c.remote_port, c.worker
    )
}

/// What was said of a change before it, and what became of the live connections by it.
fn compare(
    seed: u64,
    what: &str,
    foreseen: &Receipt,
    before: &BTreeSet<String>,
    after: &BTreeSet<String>,
) -> usize {
    let affected = foreseen.affected.as_ref().unwrap();
    let named: BTreeSet<String> = affected.connections.iter().map(line).collect();
    // A NIC that ends may be another's of the same name, whom a rollback brings back with connections that look the same.
    let ends = |line: &str| foreseen.ended.iter().any(|nic| line.split(' ').next() == Some(nic));
    let gone: BTreeSet<String> =
        before.iter().filter(|line| !after.contains(*line) || ends(line)).cloned().collect();
    assert_eq!(named, gone, "seed {seed}, {what}");
    assert_eq!(foreseen.disconnected as usize, gone.len(), "seed {seed}, {what}");
    assert_eq!(affected.by_nic.values().sum::<u64>() as usize, gone.len(), "seed {seed}, {what}");
    let back = after.iter().filter(|line| !before.contains(*line) || ends(line)).count();
    assert_eq!(affected.revived as usize, back, "seed {seed}, {what}");
    gone.len() + back
}

#[test]
fn what_a_dry_run_names_is_what_the_change_disconnects() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |n| n.parse().unwrap());
    let (wanted, mut seed) = (number("PREVIEW_CHANGES", 20), number("PREVIEW_SEED", 1));
    let (mut changes, mut rollbacks, mut moved) = (0, 0, 0);
    while changes < wanted {
        let mut traffic = Traffic::new(seed);
        let choices = &mut Rng::new(!seed);
        let config = parse_config(&traffic.config(), "config").unwrap();
        let mut rig = Rig::new(&config);
        let Ok(first) = parse_policy(&traffic.policy(), "policy", &rig.limits) else {
            seed += 1;
            continue;
        };
        rig.apply(first, false);
        let (mut of_this_seed, mut frames) = (0, 0);
        while of_this_seed < 10 && changes < wanted {
            match traffic.event() {
                Event::Frame(arrival) => {
                    // Long waits are for others to test: here connections are to be there.
                    rig.clock.ns.fetch_add(arrival.wait_ns.min(5_000_000), Ordering::Release);
                    rig.arrive(arrival.side, arrival.frame);
                    frames += 1;
                }
                Event::Policy(..) if frames < FRAMES => traffic.refuse(),
                Event::Policy(text, what) => {
                    frames = 0;
                    rig.come_to_rest();
                    let before = rig.live();
                    let generation = rig.live.generation();
                    let (foreseen, done) = if generation > 2 && choices.one_in(4) {
                        traffic.refuse();
                        let to = generation - 1 - choices.below(2) as u32;
                        rollbacks += 1;
                        (rig.roll_back(to, true), rig.roll_back(to, false))
                    } else {
                        let parse = || parse_policy(&text, "policy", &rig.limits);
                        let (Ok(document), Ok(again)) = (parse(), parse()) else {
                            traffic.refuse();
                            continue;
                        };
                        (rig.apply(document, true), rig.apply(again, false))
                    };
                    if foreseen.state != State::DryRun {
                        continue;
                    }
                    assert_eq!(done.state, State::Acknowledged);
                    moved += compare(seed, what, &foreseen, &before, &rig.live());
                    (changes, of_this_seed) = (changes + 1, of_this_seed + 1);
                }
            }
        }
        seed += 1;
    }
    println!("{changes} changes, {rollbacks} of them rollbacks, moved {moved} connections");
    assert!(moved as u64 > wanted, "changes touched {moved} connections only");
}
