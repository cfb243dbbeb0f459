//! One worker on a wire in memory, and the cycles it takes, pass by pass.

use std::sync::Arc;

use control::commit::Committer;
use control::config::Config;
use control::document::{Limits, parse_policy};
use engine::Reason;
use engine::burst::{Firewall, FirewallConfig, Pass};
use engine::conntrack::flow_accounting::FlowEvent;
use engine::conntrack::persist::PersistentMemory;
use engine::conntrack::{Secret, Shard, ShardConfig, Timeouts};
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::ring::Producer;
use engine::snapshot::Snapshot;
use engine::trace::Recorder;
use engine::worker::{Tap, Wire, Worker, mesh};

use crate::memory::{Load, MemoryPort, PoolFrame};

/// Simulated time from poll to poll: that of two bursts at 32 million packets a second.
const POLL_NS: u64 = 4_000;

/// Time stamp counter.
#[inline]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the counter, and user code may read it.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// A quota that lets a NIC have as many rules as a case asks for.
pub const LIMITS: Limits = Limits { rules_per_group: 50, groups_per_nic: 32 };

/// A policy document, compiled.
pub fn compile(policy: &str) -> Box<Snapshot> {
    let mut committer = Committer::new(Config::default());
    let parsed = parse_policy(policy, "policy", &LIMITS).unwrap_or_else(|e| panic!("{e}"));
    let commit = committer.commit(parsed.policy, 0).unwrap_or_else(|e| panic!("{e}"));
    commit.map_or_else(|| Box::new(committer.initial()), |commit| commit.snapshot)
}

/// The secret of every rig: a run is repeatable.
pub const SECRET: [u64; 2] = [0x1234_5678_9ABC_DEF1, 77];

/// A shard's measure.
pub fn shard_config(capacity: u32) -> ShardConfig {
    ShardConfig {
        capacity,
        unconfirmed: capacity,
        all_workers: capacity,
        timeouts: Timeouts::default(),
        count: false,
    }
}

/// The worker and what it needs.
pub struct Rig {
    worker: Worker<MemoryPort>,
    counters: Arc<EngineCounters>,
    publisher: rcu::Publisher<Snapshot>,
    now_ns: u64,
    nics: u32,
}

/// Cycles, by pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cycles {
    /// Frames they were spent on.
    pub frames: u64,
    /// All of them.
    pub total: u64,
    /// In the order of [`Pass`].
    pub passes: [u64; 6],
}

impl Cycles {
    /// A frame's, in everything between receiving and sending, upkeep included.
    pub fn engine(&self) -> f64 {
        let wire = self.passes[Pass::Rx as usize] + self.passes[Pass::Tx as usize];
        (self.total - wire) as f64 / self.frames as f64
    }

    /// A frame's, in one pass.
    pub fn pass(&self, pass: Pass) -> f64 {
        self.passes[pass as usize] as f64 / self.frames as f64
    }

    /// A frame's, in what lies between bursts: timers, sweeps, questions, quiescent states.
    pub fn upkeep(&self) -> f64 {
        (self.total - self.passes.iter().sum::<u64>()) as f64 / self.frames as f64
    }
}

/// Reads the counter at the ends of passes: of all with `SPLIT`, else only where receiving ends and
/// sending begins and ends.
struct Watch<const SPLIT: bool> {
    last: u64,
    cycles: Cycles,
}

impl<const SPLIT: bool> Tap<PoolFrame> for Watch<SPLIT> {
    #[inline]
    fn passed(&mut self, pass: Pass) {
        if SPLIT || matches!(pass, Pass::Rx | Pass::Judge | Pass::Tx) {
            let now = cycles();
            self.cycles.passes[pass as usize] += now - self.last;
            self.last = now;
        }
    }
}

impl Rig {
    /// Under a policy, with room for `capacity` connections.
    pub fn new(policy: &str, capacity: u32) -> Rig {
        Rig::with(compile(policy), shard_config(capacity))
    }

    /// Under a compiled policy.
    pub fn with(snapshot: Box<Snapshot>, shard: ShardConfig) -> Rig {
        Rig::within(None, snapshot, shard, None)
    }

    /// The same, with its connections in this memory, and a worker that tells of them by this ring.
    pub fn within(
        memory: Option<PersistentMemory>,
        snapshot: Box<Snapshot>,
        shard: ShardConfig,
        tells: Option<Producer<FlowEvent>>,
    ) -> Rig {
        let nics = snapshot.nic_count();
        let (publisher, mut readers) = rcu::domain(snapshot, 1);
        let config = FirewallConfig { shard, secret: Secret::new(SECRET), grace_end_ns: 0 };
        let counters = Arc::new(EngineCounters::new());
        let connection_counts = Arc::new(ConnectionCounts::of_one_worker());
        let mut firewall = Firewall::with_memory(memory, &config, counters.clone(), connection_counts);
        if let Some(ring) = tells {
            firewall.export_flows_to(ring, Arc::default());
        }
        let (_, questions) = crossbeam::channel::bounded(1);
        let wire = Wire { inside: MemoryPort::default(), outside: MemoryPort::default() };
        let rings = mesh(1, 8).remove(0);
        let worker = Worker::new(0, firewall, readers.remove(0), vec![wire], rings, questions);
        Rig { worker, counters, publisher, now_ns: 1_000_000_000, nics }
    }

    /// Has all memory backed, as the appliance does before it is ready.
    pub fn touch(&mut self) {
        self.worker.touch(self.nics);
    }

    /// Plays `count` frames of each side.
    pub fn play(&mut self, inside: Option<Load<'_>>, outside: Option<Load<'_>>, count: usize) -> Cycles {
        self.watched::<false>(inside, outside, count)
    }

    /// The same with every pass told apart, which costs a few cycles more.
    pub fn split(&mut self, inside: Option<Load<'_>>, outside: Option<Load<'_>>, count: usize) -> Cycles {
        self.watched::<true>(inside, outside, count)
    }

    fn watched<const SPLIT: bool>(
        &mut self,
        inside: Option<Load<'_>>,
        outside: Option<Load<'_>>,
        count: usize,
    ) -> Cycles {
        let wire = &mut self.worker.wires()[0];
        // SAFETY: both are unloaded below, and this worker has sent or freed every frame by the
        // time `poll` returns.
        unsafe {
            wire.inside.load(inside, count);
            wire.outside.load(outside, count);
        }
        let start = cycles();
        let mut watch = Watch::<SPLIT> { last: start, cycles: Cycles::default() };
        loop {
            self.now_ns += POLL_NS;
            watch.last = cycles();
            watch.cycles.frames += self.worker.poll(self.now_ns, &mut watch).frames as u64;
            let wire = &self.worker.wires()[0];
            if wire.inside.is_done() && wire.outside.is_done() && self.worker.frames_in_hand() == 0 {
                break;
            }
        }
        watch.cycles.total = cycles() - start;
        let wire = &mut self.worker.wires()[0];
        wire.inside.unload();
        wire.outside.unload();
        watch.cycles
    }

    /// Has the worker record this from now on.
    pub fn record_by(&mut self, recorder: Recorder) {
        self.worker.set_recorder(recorder);
    }

    /// Lets time pass.
    pub fn wait(&mut self, ns: u64) {
        self.now_ns += ns;
    }

    /// Publishes another policy, and has the worker take it up in a turn without frames.
    pub fn publish(&mut self, snapshot: Box<Snapshot>) {
        self.publisher.publish(snapshot);
        self.now_ns += POLL_NS;
        self.worker.poll(self.now_ns, &mut Watch::<false> { last: cycles(), cycles: Cycles::default() });
    }

    /// Packets counted by reason.
    pub fn count(&self, reason: Reason) -> u64 {
        self.counters.total(self.nics, reason)
    }

    /// Frames that left by either side.
    pub fn sent(&mut self) -> u64 {
        let wire = &self.worker.wires()[0];
        (wire.inside.sent + wire.outside.sent) as u64
    }

    /// Its connections.
    pub fn shard(&self) -> &Shard {
        self.worker.firewall().shard()
    }
}

/// [`Rig::play`] under a name that a counter of instructions can be told to count alone.
#[inline(never)]
pub fn counted(rig: &mut Rig, inside: Option<Load<'_>>, outside: Option<Load<'_>>, count: usize) -> Cycles {
    rig.play(inside, outside, count)
}
