//! A worker at full rate on a thread of its own, under the control side of an appliance with its
//! store on a disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::api::types::{Receipt, State};
use control::commit::Committer;
use control::compile::shard_config;
use control::config::Config;
use control::document::{Limits, parse_policy};
use control::live::{Author, Change, Live, Parts, Target, WorkerHandle};
use control::store::Store;
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use engine::Side;
use engine::burst::{Firewall, FirewallConfig};
use engine::conntrack::Secret;
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::worker::{Wire, Worker, mesh};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};

use super::port::{Fate, LoadPort, Order, Probe, Tally};
use crate::memory::PoolFrame;

/// Nothing that is waited for takes so long, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a rig runs.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Connections that fit.
    pub capacity: u32,
    /// The worker has the quieter core and all else another; otherwise they share what there is,
    /// and the worker gives way.
    pub pinned: bool,
}

/// What the worker did in a stretch of time.
pub struct Lap {
    /// Nanoseconds from one poll to the next, where both sides brought a whole burst.
    pub bursts: Histogram<u64>,
    /// Frames judged.
    pub frames: u64,
    /// How long it was.
    pub wall: Duration,
    /// How much of it the worker had its core.
    pub cpu: Duration,
}

impl Lap {
    /// Millions of frames a second.
    pub fn mpps(&self) -> f64 {
        self.frames as f64 / self.wall.as_secs_f64() / 1e6
    }

    /// The share of the core that the worker had.
    pub fn core_share(&self) -> f64 {
        self.cpu.as_secs_f64() / self.wall.as_secs_f64()
    }
}

#[derive(Default)]
struct Orders {
    ends: AtomicBool,
    /// A lap ends whenever it changes.
    lap: AtomicU64,
}

/// Worker and control side.
pub struct Rig {
    /// The control side.
    pub live: Live,
    runtime: Runtime,
    /// To the ports, by side.
    ports: [Sender<Order>; 2],
    /// Of the ports, by side.
    tallies: [Arc<Tally>; 2],
    orders: Arc<Orders>,
    laps: Receiver<Lap>,
    worker: Option<JoinHandle<()>>,
}

impl Rig {
    /// A worker under the empty policy; the store is made in `directory`.
    pub fn new(setup: Setup, directory: &Path) -> Rig {
        let mut config = Config::default();
        config.conntrack.capacity = setup.capacity;
        let cores = setup.pinned.then(|| crate::cores::cores().unwrap_or_else(|error| panic!("{error}")));
        let store = Store::open(&directory.join("store.redb")).unwrap_or_else(|error| panic!("{error}"));
        let committer = Committer::new(config.clone());
        let (publisher, mut readers) = rcu::domain(Box::new(committer.initial()), 1);
        let (connection_counts, counters) =
            (Arc::new(ConnectionCounts::new()), Arc::new(EngineCounters::new()));
        let (to_inside, inside) = unbounded();
        let (to_outside, outside) = unbounded();
        let tallies: [Arc<Tally>; 2] = Default::default();
        let (asked, questions) = bounded(4);
        let handle = WorkerHandle {
            core: cores.map_or(0, |(_, worker)| worker),
            counters: counters.clone(),
            questions: asked,
            waker: None,
            capacity: setup.capacity,
            polls: Box::new(Default::default),
        };
        let start = Instant::now();
        let parts = Parts {
            committer,
            publisher,
            workers: vec![handle],
            connection_counts: connection_counts.clone(),
            ports: Box::new(Vec::new),
            start,
            board: Default::default(),
            governing_file: None,
            store: Some(store),
        };
        let firewall = FirewallConfig {
            shard: shard_config(&config, 0, 1),
            secret: Secret::new([0x1234_5678_9ABC_DEF1, 77]),
            grace_end_ns: 0,
        };
        let wire = Wire {
            inside: LoadPort::new(inside, tallies[0].clone()),
            outside: LoadPort::new(outside, tallies[1].clone()),
        };
        let (orders, (lap, laps)) = (Arc::new(Orders::default()), unbounded());
        let (reader, obeyed) = (readers.remove(0), orders.clone());
        let worker = std::thread::spawn(move || {
            if let Some((_, core)) = cores {
                pin(core);
            }
            let firewall = Firewall::new(&firewall, counters, connection_counts);
            let worker = Worker::new(0, firewall, reader, vec![wire], mesh(1, 8).remove(0), questions);
            run(worker, start, &obeyed, &lap, cores.is_none());
        });
        if let Some((core, _)) = cores {
            pin(core);
        }
        let runtime =
            Builder::new_current_thread().enable_all().build().unwrap_or_else(|error| panic!("{error}"));
        let live = Live::new(parts);
        Rig { live, runtime, ports: [to_inside, to_outside], tallies, orders, laps, worker: Some(worker) }
    }

    /// Makes a change; its receipt, and how long it took to come.
    pub fn change(&self, change: Change) -> (Receipt, Duration) {
        let begin = Instant::now();
        let receipt =
            self.runtime.block_on(self.live.apply(change)).unwrap_or_else(|error| panic!("{error}"));
        let took = begin.elapsed();
        assert!(
            matches!(receipt.state, State::Acknowledged | State::DryRun),
            "the change came back {:?}",
            receipt.state
        );
        (receipt, took)
    }

    /// The same, for a target.
    pub fn apply(&self, target: Target) -> (Receipt, Duration) {
        self.change(Change::new(target, Author::client("perf")))
    }

    /// Applies a whole document; the receipt, and how long reading and applying it took.
    pub fn load(&self, document: &str) -> (Receipt, Duration, Duration) {
        let begin = Instant::now();
        let parsed = parse_policy(document, "policy", &Limits::default()).unwrap_or_else(|e| panic!("{e}"));
        let read = begin.elapsed();
        let (receipt, applied) = self.apply(Target::Document(parsed));
        (receipt, read, applied)
    }

    /// Ends the present lap, and begins another.
    pub fn lap(&self) -> Lap {
        self.orders.lap.fetch_add(1, Relaxed);
        self.laps.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("the worker stands still"))
    }

    /// Flows' frames brought, sent and dropped, over both ports.
    pub fn flows(&self) -> [u64; 3] {
        let of = |get: fn(&Tally) -> u64| self.tallies.iter().map(|tally| get(tally)).sum();
        [of(Tally::brought), of(Tally::sent), of(Tally::dropped)]
    }

    /// Lets a side bring flows' frames, round and round, until told otherwise.
    pub fn play(&self, side: Side, frames: Vec<PoolFrame>) {
        self.order(side, Order::Play(frames, u64::MAX));
    }

    /// No flows any more; waits until all that were brought have been judged.
    pub fn rest(&self) {
        for side in [Side::Inside, Side::Outside] {
            self.order(side, Order::Play(Vec::new(), 0));
        }
        self.judge(Side::Inside, [Probe::new(vec![0; 14])].into_iter());
        self.judge(Side::Outside, [Probe::new(vec![0; 14])].into_iter());
    }

    /// Plays frames once, while nothing else is played; how many were sent.
    pub fn play_once(&self, side: Side, frames: Vec<PoolFrame>) -> u64 {
        let (count, before) = (frames.len() as u64, self.flows());
        self.order(side, Order::Play(frames, count));
        self.wait(|| {
            let [_, sent, dropped] = self.flows();
            sent + dropped >= before[1] + before[2] + count
        });
        self.flows()[1] - before[1]
    }

    /// Lets probes arrive in this order, and waits until all of them have been judged.
    pub fn judge(&self, side: Side, probes: impl Iterator<Item = Arc<Probe>>) {
        let probes: Vec<_> = probes.inspect(|probe| self.order(side, Order::Probe(probe.clone()))).collect();
        self.wait(|| probes.iter().all(|probe| probe.fate() != Fate::Waiting));
    }

    /// One of these is in every burst of a side from now on.
    pub fn watch(&self, side: Side, probes: Vec<Arc<Probe>>) {
        self.order(side, Order::Watch(probes));
    }

    /// Waits until each probe of a side's watch has been brought and judged once more.
    pub fn wait_for_a_round(&self, side: Side) {
        // The round that is on, a whole one, and the burst that its last probe came in.
        let tally = &self.tallies[side as usize];
        let before = tally.rounds();
        self.wait(|| tally.rounds() >= before + 2);
        self.judge(side, [Probe::new(vec![0; 14])].into_iter());
    }

    fn order(&self, side: Side, order: Order) {
        let taken = self.ports[side as usize].send(order);
        assert!(taken.is_ok(), "the worker is gone");
    }

    fn wait(&self, done: impl Fn() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(begin.elapsed() < PATIENCE, "the worker does not judge what arrived");
            std::thread::yield_now();
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.orders.ends.store(true, Relaxed);
        self.worker.take().map(JoinHandle::join);
    }
}

fn pin(core: usize) {
    let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: core });
    assert!(pinned, "the system does not let a thread have core {core}");
}

/// Nanoseconds, of up to a minute, to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap_or_else(|error| panic!("{error}"))
}

/// Processor time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The worker's loop.
fn run(mut worker: Worker<LoadPort>, start: Instant, orders: &Orders, laps: &Sender<Lap>, gives_way: bool) {
    let mut number = 0;
    let (mut bursts, mut frames) = (histogram(), 0);
    let (mut began, mut cpu) = (start.elapsed(), cpu_time());
    let mut now = start.elapsed();
    while !orders.ends.load(Relaxed) {
        let polled = worker.poll(now.as_nanos() as u64, &mut ()).frames;
        let after = start.elapsed();
        if polled == 2 * engine::io::BURST {
            bursts.saturating_record((after - now).as_nanos() as u64);
        }
        frames += polled as u64;
        now = after;
        if orders.lap.load(Relaxed) != number {
            number += 1;
            let used = cpu_time();
            let lap = Lap {
                bursts: std::mem::replace(&mut bursts, histogram()),
                frames: std::mem::take(&mut frames),
                wall: now - began,
                cpu: used - cpu,
            };
            // Nobody waiting any more is no failure of the worker's.
            let _ = laps.send(lap);
            (began, cpu, now) = (start.elapsed(), used, start.elapsed());
        }
        if gives_way {
            std::thread::yield_now();
        }
    }
}
