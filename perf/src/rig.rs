//! One worker on a wire in memory, and the cycles it takes.

use std::sync::Arc;

use control::commit::Committer;
use control::config::Config;
use control::document::{Limits, parse_policy};
use engine::burst::{Firewall, FirewallConfig};
use engine::cells::{Cells, Population};
use engine::conntrack::{Secret, ShardConfig, Timeouts};
use engine::snapshot::Snapshot;
use engine::worker::{Wire, Worker, mesh};
use engine::{Reason, Side};

use crate::memory::{MemoryPort, PoolFrame};

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

/// The worker and what it needs.
pub struct Rig {
    worker: Worker<MemoryPort>,
    cells: Arc<Cells>,
    _publisher: rcu::Publisher<Snapshot>,
    now_ns: u64,
    nics: u32,
}

impl Rig {
    /// Under a policy, with room for `capacity` connections.
    pub fn new(policy: &str, capacity: u32) -> Rig {
        let mut committer = Committer::new(Config::default());
        let parsed = parse_policy(policy, "policy", &Limits::default()).unwrap_or_else(|e| panic!("{e}"));
        let commit = committer.commit(parsed.policy, 0).unwrap_or_else(|e| panic!("{e}"));
        let snapshot = commit.map_or_else(|| Box::new(committer.initial()), |commit| commit.snapshot);
        let nics = snapshot.nic_count();
        let (publisher, mut readers) = rcu::domain(snapshot, 1);
        let shard = ShardConfig { capacity, unconfirmed: capacity, timeouts: Timeouts::default() };
        let config =
            FirewallConfig { shard, secret: Secret::new([0x1234_5678_9ABC_DEF1, 77]), grace_end_ns: 0 };
        let cells = Arc::new(Cells::new());
        let firewall = Firewall::new(&config, cells.clone(), Arc::new(Population::new()));
        let (_, questions) = crossbeam::channel::bounded(1);
        let wire = Wire { inside: MemoryPort::default(), outside: MemoryPort::default() };
        let rings = mesh(1, 8).remove(0);
        let worker = Worker::new(0, firewall, readers.remove(0), vec![wire], rings, questions);
        Rig { worker, cells, _publisher: publisher, now_ns: 1_000_000_000, nics }
    }

    /// Plays `count` frames of each side's list; cycles a frame.
    pub fn play(&mut self, inside: Vec<PoolFrame>, outside: Vec<PoolFrame>, count: usize) -> f64 {
        let sides = usize::from(!inside.is_empty()) + usize::from(!outside.is_empty());
        let wire = &mut self.worker.wires()[0];
        wire.inside.load(inside, count);
        wire.outside.load(outside, count);
        let mut frames = 0;
        let start = cycles();
        while frames < sides * count {
            self.now_ns += 4_000;
            frames += self.worker.poll(self.now_ns, &mut ()).frames;
        }
        (cycles() - start) as f64 / frames as f64
    }

    /// Packets counted by reason.
    pub fn count(&self, reason: Reason) -> u64 {
        self.cells.total(self.nics, reason)
    }

    /// Frames that left by a side.
    pub fn sent(&mut self, side: Side) -> usize {
        let wire = &mut self.worker.wires()[0];
        if side == Side::Inside { wire.inside.sent } else { wire.outside.sent }
    }
}
