//! The floor under every figure of conntrack: a lookup in the real table and nothing else. Hash,
//! index, entry, the key compared, a deadline written; bursts of 64 with the same looking ahead as
//! the worker's.

use std::sync::Arc;

use engine::conntrack::{
    Entry, EntryKey, FlowHash, Key, NO_HINT, Secret, Shard, State, key_meta, required_state_bits,
    without_required_state,
};
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::cpu::{Isa, Work, simd};
use engine::io::BURST;
use engine::snapshot::Snapshot;
use engine::time::{Clock, Now};
use engine::{AddrId, FlowIndex, proto};

use crate::rig::{SECRET, cycles, shard_config};
use crate::world::World;

/// A table, and the keys of its connections in the order in which they are looked up.
pub struct Bare {
    shard: Shard,
    keys: Vec<EntryKey>,
    now: Now,
}

impl Bare {
    /// The same flows as a rig of this world holds, in a table of the same capacity; `order` is
    /// that of the lookups.
    pub fn new(world: &World, snapshot: &Snapshot, flows: u32, capacity: u32, order: &[u32]) -> Bare {
        let config = shard_config(capacity);
        let now = Clock::new(config.timeouts.longest()).at(1_000_000_000);
        let (counters, connection_counts) =
            (Arc::new(EngineCounters::new()), Arc::new(ConnectionCounts::new()));
        let mut shard = Shard::new(config, Secret::new(SECRET), now.tick, counters, connection_counts);
        let addresses: Vec<AddrId> = (0..=world.nics).map(|nic| address_of(snapshot, nic)).collect();
        let key = |flow: u32| {
            let (remote, port) = World::client(flow);
            let meta = key_meta(proto::TCP, false) | required_state_bits(Some(State::Established));
            EntryKey::new(addresses[world.nic_of(flow) as usize], remote, 22 << 16 | u32::from(port), meta)
        };
        for flow in 0..flows {
            let (addr, remote, ports) = (key(flow).addr(), key(flow).remote(), key(flow).ports());
            let key = shard.key(addr, u128::from(remote), ports, proto::TCP, false);
            let mut entry = Entry::new(addr, remote, ports, key_meta(proto::TCP, false), true);
            entry.set_state(State::Established);
            assert!(shard.admit(&key, entry, snapshot, now).is_some());
        }
        Bare { shard, keys: order.iter().map(|flow| key(*flow)).collect(), now }
    }

    /// Cycles a lookup over so many of them.
    pub fn run(&mut self, lookups: usize) -> f64 {
        simd().run(Lookups { bare: self, lookups })
    }

    #[inline(always)]
    fn run_as(&mut self, isa: impl Isa, lookups: usize) -> f64 {
        let mut done = 0;
        let timeout = self.shard.timeouts().of(State::Established);
        let start = cycles();
        while done < lookups {
            for burst in self.keys.chunks(BURST) {
                let mut hashes = [FlowHash::default(); BURST];
                let homes = self.shard.index_lookup();
                for (hash, key) in hashes.iter_mut().zip(burst) {
                    *hash = homes.hash_v4(key);
                    homes.prefetch(*hash);
                }
                let mut hints = [NO_HINT; BURST];
                for (hint, hash) in hints.iter_mut().zip(&hashes).take(burst.len()) {
                    *hint = homes.hint(isa, *hash);
                    self.shard.prefetch_entry(*hint, false);
                }
                for ((hint, hash), key) in hints.iter().zip(&hashes).zip(burst) {
                    let mut table = self.shard.entry_table();
                    if let Some(entry) = table.fast_path_entry(isa, *hint, key, || 0) {
                        entry.deadline = self.now.ceil.wrapping_add(timeout);
                        done += 1;
                    } else if let Some(flow) = self.find_anew(key, *hash) {
                        self.shard.refresh(flow, self.now);
                        done += 1;
                    }
                }
                if done >= lookups {
                    break;
                }
            }
        }
        (cycles() - start) as f64 / done as f64
    }

    /// One that does not lie where nearly all do.
    #[cold]
    fn find_anew(&self, key: &EntryKey, hash: FlowHash) -> Option<FlowIndex> {
        let (addr, remote, ports) = (key.addr(), u128::from(key.remote()), key.ports());
        self.shard.find(&Key { addr, remote, ports, meta: without_required_state(key.meta()), hash })
    }
}

fn address_of(snapshot: &Snapshot, nic: u32) -> AddrId {
    let held = snapshot.bindings().iter().find(|binding| binding.addr == u128::from(0x0A00_0000 | nic));
    held.map_or(engine::conntrack::FREE, |binding| binding.id)
}

/// [`Bare::run`], for each instruction set that a worker's passes are compiled for.
struct Lookups<'b> {
    bare: &'b mut Bare,
    lookups: usize,
}

impl Work for Lookups<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self, isa: impl Isa) -> f64 {
        self.bare.run_as(isa, self.lookups)
    }
}

/// How disturbed the machine is: cycles a step of a dependent walk through 8 MiB, which a
/// second-level cache does not hold. On a quiet machine it is always the same.
pub struct Calibration {
    next: Vec<u32>,
    at: u32,
}

impl Default for Calibration {
    fn default() -> Self {
        Self::new()
    }
}

impl Calibration {
    /// Lays out the walk.
    pub fn new() -> Calibration {
        const STEPS: u32 = (8 << 20) / 64;
        // A line a step; one cycle through all of them.
        let order = crate::memory::shuffled(0..STEPS, 3);
        let mut next = vec![0; STEPS as usize * 16];
        for (at, place) in order.iter().enumerate() {
            next[*place as usize * 16] = order[(at + 1) % order.len()] * 16;
        }
        Calibration { next, at: 0 }
    }

    /// Cycles a step.
    pub fn run(&mut self) -> f64 {
        const STEPS: u32 = 100_000;
        let start = cycles();
        for _ in 0..STEPS {
            self.at = self.next[self.at as usize];
        }
        std::hint::black_box(self.at);
        (cycles() - start) as f64 / f64::from(STEPS)
    }
}
