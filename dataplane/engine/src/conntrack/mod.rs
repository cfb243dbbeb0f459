//! One worker's share of the connections: a slab of 64-byte entries, an index, timers. Never
//! shared.

mod change;
pub mod entry;
mod evict;
pub mod flow_accounting;
pub mod hash;
pub mod index;
mod listing;
pub mod nic_lists;
pub mod persist;
mod recount;
pub mod refusals;
pub mod restore;
mod slab;
mod timeouts;

use std::sync::Arc;

use crate::counters::{ConnectionCounts, EngineCounters};
use crate::cpu::{Isa, prefetch};
pub use crate::flow_key::{EntryKey, STATES, State, key_meta, required_state_bits, without_required_state};
use crate::snapshot::Snapshot;
use crate::time::{Now, reached};
use crate::timer_wheel::{EvictionClass, TimerWheels};
use crate::worker_totals::{EndCause, EntryGauge};
use crate::{AddrId, FlowIndex, NicSlot};
pub use change::{Liveness, liveness, query_of_entry};
pub use entry::{Entry, LAST_SYN, LastSyn, OPENER, Peer, RESPONDER};
pub use evict::fair_share;
use flow_accounting::{FlowAccounting, FlowCounters};
pub use hash::{FlowHash, RawHash, Secret, purpose};
use index::{Index, IndexView};
pub use listing::{Connection, TombstoneInfo};
use nic_lists::NicLists;
use persist::{PersistentMemory, UndoJournal};
use slab::Slab;
pub use timeouts::Timeouts;

/// The configuration of a shard.
#[derive(Clone, Copy, Debug)]
pub struct ShardConfig {
    /// Connections at most.
    pub capacity: u32,
    /// Of them, unconfirmed ones at most.
    pub unconfirmed: u32,
    /// Connections of all workers at most, which NICs share.
    pub all_workers: u32,
    /// Idle timeouts.
    pub timeouts: Timeouts,
    /// Packets and bytes of each connection are counted: see [`flow_accounting`].
    pub count: bool,
}

/// A connection's key with its hash.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// NIC and local address.
    pub addr: AddrId,
    /// Remote address.
    pub remote: u128,
    /// See [`Entry::ports`].
    pub ports: u32,
    /// See [`key_meta`].
    pub meta: u32,
    /// Of all these.
    pub hash: FlowHash,
}

/// One worker's connection table.
pub struct Shard {
    entries: Slab<Entry>,
    /// Remote IPv6 addresses: memory that only IPv6 connections touch.
    remote6: Slab<u128>,
    /// SYNs that passed within connections: memory that only those touch.
    last_syns: Slab<LastSyn>,
    /// If the three above outlive the process.
    journal: Option<UndoJournal>,
    index: Index,
    timers: TimerWheels,
    nic_lists: NicLists,
    /// The NIC that was last found furthest above its share.
    largest_nic: NicSlot,
    random: u64,
    secret: Secret,
    config: ShardConfig,
    /// The timeouts by state.
    timeouts: [u32; STATES.len()],
    len: u32,
    unconfirmed: u32,
    sweep: change::Sweep,
    /// Empty, unless flows are counted.
    flows: FlowAccounting,
    counters: Arc<EngineCounters>,
    connection_counts: Arc<ConnectionCounts>,
}

impl Shard {
    /// An empty table, at tick `now`.
    pub fn new(
        config: ShardConfig,
        secret: Secret,
        now: u32,
        counters: Arc<EngineCounters>,
        connection_counts: Arc<ConnectionCounts>,
    ) -> Shard {
        Shard::with_memory(None, config, secret, now, counters, connection_counts)
    }

    /// The same in memory that outlives the process, if some is given: for exactly that capacity.
    pub fn with_memory(
        memory: Option<PersistentMemory>,
        config: ShardConfig,
        secret: Secret,
        now: u32,
        counters: Arc<EngineCounters>,
        connection_counts: Arc<ConnectionCounts>,
    ) -> Shard {
        let capacity = config.capacity;
        let (entries, remote6, noted_syns, keep) = persist::parts(memory, capacity);
        Shard {
            entries,
            remote6,
            last_syns: noted_syns,
            journal: keep,
            index: Index::new(capacity),
            timers: TimerWheels::new(capacity, now),
            nic_lists: NicLists::new(capacity),
            largest_nic: NicSlot::NONE,
            random: secret.derive(purpose::SAMPLES)[0] | 1,
            secret,
            config,
            timeouts: STATES.map(|state| config.timeouts.of(state)),
            len: 0,
            unconfirmed: 0,
            sweep: change::Sweep::DONE,
            flows: if config.count { FlowAccounting::new(capacity) } else { FlowAccounting::default() },
            counters,
            connection_counts,
        }
    }

    /// Has the kernel back all of its memory before packets come: otherwise each page delays the
    /// first packet that needs it.
    pub fn touch(&mut self) {
        self.entries.touch();
        self.remote6.touch();
        self.last_syns.touch();
        self.journal.iter_mut().for_each(UndoJournal::touch);
        self.index.touch();
        self.timers.touch();
        self.nic_lists.touch();
        self.flows.touch();
    }

    /// The secret of its hashes.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The hash of a connection's key.
    #[inline]
    pub fn hash(&self, addr: AddrId, remote: u128, ports: u32, protocol: u8, v6: bool) -> FlowHash {
        self.index.hash(if v6 {
            self.secret.v6(addr.0, remote, ports, protocol)
        } else {
            let remote = remote as u32;
            self.secret.v4(&EntryKey::new(addr, remote, ports, key_meta(protocol, false)))
        })
    }

    /// The same of an IPv4 connection.
    #[inline(always)]
    pub fn hash_v4(&self, key: &EntryKey) -> FlowHash {
        self.index.hash(self.secret.v4(key))
    }

    /// A hash with the same secret, for other tables than the index.
    #[inline]
    pub fn hash_of_other(&self, addr: AddrId, remote: u128, id: u32, protocol: u8) -> u32 {
        self.secret.v6(addr.0, remote, id, protocol).upper()
    }

    /// The key of a connection of `addr`.
    #[inline]
    pub fn key(&self, addr: AddrId, remote: u128, ports: u32, protocol: u8, v6: bool) -> Key {
        Key {
            addr,
            remote,
            ports,
            meta: key_meta(protocol, v6),
            hash: self.hash(addr, remote, ports, protocol, v6),
        }
    }

    /// Prefetches the cache line that [`IndexLookup::hint`] reads.
    #[inline]
    pub fn prefetch_index(&self, hash: FlowHash) {
        self.index.prefetch(hash);
    }

    /// Prefetches the entry at a hint; if some packets are IPv6, its remote address, too.
    #[inline(always)]
    pub fn prefetch_entry(&self, hint: u32, is_any_v6: bool) {
        prefetch_entry(&self.entries, &self.remote6, hint, is_any_v6);
    }

    /// True if there is certainly no entry with a key of this hash.
    #[inline]
    pub fn is_absent(&self, hash: FlowHash) -> bool {
        self.index.is_absent(hash)
    }

    /// The entry with this key, expired or not.
    #[inline(always)]
    pub fn find(&self, key: &Key) -> Option<FlowIndex> {
        let Key { addr, remote, ports, meta, hash } = *key;
        let short = EntryKey::new(addr, remote_digest(remote, meta), ports, meta);
        let found = self.index.find(hash, |place| {
            self.entries[place as usize].has_key(&short)
                && (!short.is_v6() || self.remote6[place as usize] == remote)
        });
        found.map(FlowIndex)
    }

    /// The look-up of index buckets and hints.
    #[inline(always)]
    pub fn index_lookup(&self) -> IndexLookup<'_> {
        IndexLookup { secret: self.secret, index: self.index.view() }
    }

    /// The entries, to be changed in place.
    #[inline(always)]
    pub fn entry_table(&mut self) -> EntryTable<'_> {
        EntryTable {
            entries: &mut self.entries,
            remote6: &self.remote6,
            timeouts: self.timeouts,
            flow_counters: &mut self.flows.counters,
        }
    }

    /// An entry.
    #[inline]
    pub fn entry(&self, flow: FlowIndex) -> &Entry {
        &self.entries[flow.0 as usize]
    }

    /// An entry, to be changed in place. Key, class and state must not be changed through it: see
    /// [`Shard::update_after_packet`], [`Shard::kill`] and [`Shard::revive`].
    #[inline]
    pub fn entry_mut(&mut self, flow: FlowIndex) -> &mut Entry {
        &mut self.entries[flow.0 as usize]
    }

    /// The remote address of an entry.
    pub fn remote(&self, flow: FlowIndex) -> u128 {
        let entry = self.entry(flow);
        if entry.is_v6() { self.remote6[flow.0 as usize] } else { u128::from(entry.remote) }
    }

    /// An entry and its last SYN, both to be changed in place: as [`Shard::entry_mut`].
    #[inline]
    pub fn entry_and_last_syn(&mut self, flow: FlowIndex) -> (&mut Entry, &mut LastSyn) {
        (&mut self.entries[flow.0 as usize], &mut self.last_syns[flow.0 as usize])
    }

    /// The last SYN of an entry that has one.
    pub fn last_syn(&self, flow: FlowIndex) -> &LastSyn {
        &self.last_syns[flow.0 as usize]
    }

    /// Entries, including expired ones that were not found yet.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many of them are unconfirmed.
    pub fn unconfirmed(&self) -> u32 {
        self.unconfirmed
    }

    /// Its timeouts.
    pub fn timeouts(&self) -> &Timeouts {
        &self.config.timeouts
    }

    /// True if the entry has expired.
    #[inline]
    pub fn is_expired(&self, flow: FlowIndex, now: Now) -> bool {
        reached(now.tick, self.entry(flow).deadline)
    }

    /// Gives the entry its state's full timeout, from now.
    #[inline]
    pub fn refresh(&mut self, flow: FlowIndex, now: Now) {
        let entry = &mut self.entries[flow.0 as usize];
        entry.deadline = now.ceil.wrapping_add(self.timeouts[entry.state() as usize]);
    }

    /// After a packet: a new deadline, and a new slot in the timers if the entry was in state
    /// `before`, whose timeout may differ.
    #[inline]
    pub fn update_after_packet(&mut self, flow: FlowIndex, before: State, nic: NicSlot, now: Now) {
        self.refresh(flow, now);
        let (state, class) = (self.entry(flow).state(), self.entry(flow).class());
        // Another state may have a shorter time than the one it is filed under.
        if state != before {
            self.counters.worker.count(gauge_of(class, before), -1);
            self.counters.worker.count(gauge_of(class, state), 1);
            self.refile(flow, state.class(), nic);
        }
    }

    /// Leaves the entry at most `tcp_reset` from now.
    pub fn shorten_to_reset(&mut self, flow: FlowIndex, now: Now) {
        let at_most = now.ceil.wrapping_add(self.config.timeouts.tcp_reset);
        let entry = &mut self.entries[flow.0 as usize];
        if !reached(at_most, entry.deadline) {
            entry.deadline = at_most;
            // Its class stays, so its NIC does not matter.
            let class = entry.class();
            self.refile(flow, class, NicSlot::NONE);
        }
    }

    /// Files an entry of this NIC again, by its class and its deadline.
    fn refile(&mut self, flow: FlowIndex, class: EvictionClass, nic: NicSlot) {
        let entry = &mut self.entries[flow.0 as usize];
        let (old, deadline) = (entry.class(), entry.deadline);
        if old != class {
            entry.set_class(class);
            self.unconfirmed -= u32::from(old == EvictionClass::Unconfirmed);
            self.unconfirmed += u32::from(class == EvictionClass::Unconfirmed);
            self.nic_lists.move_on(nic, [old, class], flow.0);
            let state = self.entry(flow).state();
            self.counters.worker.count(gauge_of(old, state), -1);
            self.counters.worker.count(gauge_of(class, state), 1);
        }
        self.timers.unlink(flow.0);
        self.timers.insert(flow.0, class, deadline);
    }

    /// A slot for a new connection, whose key is not in the table, in the place of the entry that
    /// is worth least if need be; `None` if none may be evicted. The caller has set its state, and
    /// counted it for the NIC's limit.
    pub fn admit(&mut self, key: &Key, mut entry: Entry, snapshot: &Snapshot, now: Now) -> Option<FlowIndex> {
        let class = entry.state().class();
        let binding = snapshot.binding(key.addr);
        if class == EvictionClass::Unconfirmed && self.unconfirmed >= self.config.unconfirmed {
            self.enforce_unconfirmed_share(binding.nic, snapshot, now)?;
        }
        if self.len >= self.config.capacity {
            self.make_room(binding.nic, snapshot, now)?;
        }
        let place = self.timers.alloc_slot()?;
        entry.deadline = now.ceil.wrapping_add(self.timeouts[entry.state() as usize]);
        entry.set_class(class);
        self.put(place, &entry, key.remote);
        self.begin_flow(place, now);
        self.index.insert(key.hash, place);
        self.timers.insert(place, class, entry.deadline);
        self.nic_lists.add(binding.nic, class, place);
        self.len += 1;
        self.unconfirmed += u32::from(class == EvictionClass::Unconfirmed);
        self.counters.worker.count_opened();
        self.counters.worker.count(gauge_of(class, entry.state()), 1);
        if entry.is_inbound() {
            self.counters.live_inbound(binding.nic, snapshot.live_epoch(binding), 1);
        }
        Some(FlowIndex(place))
    }

    /// Replaces an entry by one of the same key (semantics 4.3, closing), which counts as new among
    /// the unconfirmed.
    pub fn replace(&mut self, flow: FlowIndex, entry: Entry, snapshot: &Snapshot, now: Now) {
        let joins = [entry.state().class(), self.entry(flow).class()]
            == [EvictionClass::Unconfirmed, EvictionClass::Confirmed];
        let nic = self.nic_of(self.entry(flow), snapshot);
        if joins && self.unconfirmed >= self.config.unconfirmed {
            self.enforce_unconfirmed_share(nic, snapshot, now);
        }
        self.count_live(flow, snapshot, -1);
        self.tell_end(flow, EndCause::Expired, snapshot);
        self.begin_change(flow);
        let place = &mut self.entries[flow.0 as usize];
        let (old_class, old_state) = (place.class(), place.state());
        *place = entry;
        place.set_class(old_class);
        place.deadline = now.ceil.wrapping_add(self.timeouts[entry.state() as usize]);
        self.end_change(flow);
        self.begin_flow(flow.0, now);
        self.counters.worker.count_ended(if old_state == State::Closing {
            EndCause::Closed
        } else {
            EndCause::Expired
        });
        self.counters.worker.count_opened();
        self.counters.worker.count(gauge_of(old_class, old_state), -1);
        self.counters.worker.count(gauge_of(old_class, entry.state()), 1);
        self.refile(flow, entry.state().class(), nic);
        self.count_live(flow, snapshot, 1);
    }

    /// Ends an entry and frees its slot. `how` is the cause by its packets; a change that has ended
    /// it before has precedence.
    pub fn end(&mut self, flow: FlowIndex, how: EndCause, snapshot: &Snapshot) {
        self.count_live(flow, snapshot, -1);
        self.tell_end(flow, how, snapshot);
        let entry = *self.entry(flow);
        let how = match (entry.class(), how) {
            (EvictionClass::Tombstone | EvictionClass::Ended, _) => EndCause::Flushed,
            (_, EndCause::Expired) if entry.state() == State::Closing => EndCause::Closed,
            _ => how,
        };
        self.counters.worker.count_ended(how);
        self.counters.worker.count(gauge_of(entry.class(), entry.state()), -1);
        let nic = self.nic_of(&entry, snapshot);
        if entry.class() != EvictionClass::Ended {
            self.connection_counts.leave(nic);
        }
        self.unconfirmed -= u32::from(entry.class() == EvictionClass::Unconfirmed);
        let key = self.key(entry.addr, self.remote(flow), entry.ports, entry.protocol(), entry.is_v6());
        self.index.remove(key.hash, flow.0);
        self.timers.unlink(flow.0);
        self.timers.free_slot(flow.0);
        self.nic_lists.remove(nic, entry.class(), flow.0);
        // A free slot must not answer to a sweep or a listing.
        persist::withdraw(&mut self.entries[flow.0 as usize]);
        self.len -= 1;
    }

    fn nic_of(&self, entry: &Entry, snapshot: &Snapshot) -> NicSlot {
        snapshot.binding(entry.addr).nic
    }

    /// Ends what is due; examines at most `budget` entries.
    pub fn expire(&mut self, snapshot: &Snapshot, now: Now, mut budget: u32) {
        while budget > 0 {
            let Some((place, class)) = self.timers.due(now.tick) else { return };
            let flow = FlowIndex(place);
            if self.is_expired(flow, now) {
                self.end(flow, EndCause::Expired, snapshot);
            } else {
                // Its class stays, so its NIC does not matter.
                self.refile(flow, class, NicSlot::NONE);
            }
            budget -= 1;
        }
    }

    /// In a full table every newcomer has a victim: prefetches the lines that the next one will
    /// need, its bucket above all.
    fn prefetch_victims(&self, next: Option<u32>) {
        let Some(next) = next else { return };
        let entry = &self.entries[next as usize];
        if !entry.is_v6() {
            self.prefetch_index(self.hash_v4(&entry.key()));
        }
        if let Some(after) = self.timers.following(next) {
            prefetch(&self.entries[after as usize]);
        }
    }

    /// Calls `each` for every entry in the slots from `from` to before `from + slice`; returns
    /// where to go on, if there is more.
    pub fn list(&self, from: u32, slice: u32, mut each: impl FnMut(FlowIndex, &Entry)) -> Option<u32> {
        let end = from.saturating_add(slice).min(self.entries.len() as u32);
        for place in from..end {
            let entry = &self.entries[place as usize];
            if entry.addr != FREE {
                each(FlowIndex(place), entry);
            }
        }
        ((end as usize) < self.entries.len()).then_some(end)
    }
}

/// The gauge that counts an entry of this class and state.
#[inline]
fn gauge_of(class: EvictionClass, state: State) -> EntryGauge {
    match class {
        EvictionClass::Ended => EntryGauge::Ended,
        EvictionClass::Tombstone => EntryGauge::Tombstone,
        EvictionClass::Unconfirmed | EvictionClass::Confirmed => EntryGauge::Live(state),
    }
}

/// Looks up index buckets and hints. In a struct of its own, so that a loop keeps it in registers.
#[derive(Clone, Copy)]
pub struct IndexLookup<'s> {
    secret: Secret,
    index: IndexView<'s>,
}

impl IndexLookup<'_> {
    /// A key's hash.
    #[inline(always)]
    pub fn hash_v4(&self, key: &EntryKey) -> FlowHash {
        self.index.hash(self.secret.v4(key))
    }

    /// That of an IPv6 connection.
    #[inline(always)]
    pub fn hash_v6(&self, addr: AddrId, remote: u128, ports: u32, protocol: u8) -> FlowHash {
        self.index.hash(self.secret.v6(addr.0, remote, ports, protocol))
    }

    /// Prefetches the cache line that [`IndexLookup::hint`] reads.
    #[inline(always)]
    pub fn prefetch(&self, hash: FlowHash) {
        self.index.prefetch(hash);
    }

    /// The slot of the entry that is most likely meant; [`NO_HINT`] for none.
    #[inline(always)]
    pub fn hint(&self, isa: impl Isa, hash: FlowHash) -> u32 {
        self.index.hint(isa, hash).unwrap_or(NO_HINT)
    }
}

/// The entries of a shard, with what nearly every packet needs besides. In a struct of its own, so
/// that a loop keeps it in registers.
pub struct EntryTable<'s> {
    entries: &'s mut [Entry],
    remote6: &'s [u128],
    /// By state.
    pub timeouts: [u32; STATES.len()],
    /// By slot; empty, if flows are not counted.
    pub flow_counters: &'s mut [FlowCounters],
}

impl EntryTable<'_> {
    /// See [`Shard::prefetch_entry`].
    #[inline(always)]
    pub fn prefetch(&self, hint: u32, is_any_v6: bool) {
        prefetch_entry(self.entries, self.remote6, hint, is_any_v6);
    }

    /// Prefetches the flow counters of an entry.
    #[inline(always)]
    pub fn prefetch_flow_counters(&self, hint: u32) {
        flow_accounting::prefetch_flow_counters(self.flow_counters, hint);
    }

    /// The entry at `hint`, if it has this key and the state that the key requires
    /// ([`required_state_bits`]). `None` is inconclusive: the hint may be out of date, or the entry
    /// lie elsewhere. (A freed slot matches no key.) `remote` is called for IPv6 only.
    #[inline(always)]
    pub fn fast_path_entry(
        &mut self,
        isa: impl Isa,
        hint: u32,
        key: &EntryKey,
        remote: impl Fn() -> u128,
    ) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(hint as usize)?;
        let is_it = entry.matches_fast_path(isa, key);
        (is_it && (!entry.is_v6() || self.remote6[hint as usize] == remote())).then_some(entry)
    }
}

/// Without a bounds check, and whether or not an entry is meant: nothing is read.
#[inline(always)]
fn prefetch_entry(entries: &[Entry], remote6: &[u128], hint: u32, is_any_v6: bool) {
    prefetch(entries.as_ptr().wrapping_add(hint as usize));
    if is_any_v6 {
        prefetch(remote6.as_ptr().wrapping_add(hint as usize));
    }
}

/// No entry is likely: see [`IndexLookup::hint`].
pub const NO_HINT: u32 = u32::MAX;

/// No address has this number: slot 2²⁰ − 1 is never given out.
pub const FREE: AddrId = AddrId(u32::MAX);

/// The part of a remote address that lies in the entry.
#[inline]
pub fn remote_digest(remote: u128, key_meta: u32) -> u32 {
    if key_meta > 0xFF { (remote ^ remote >> 64) as u32 ^ (remote >> 32) as u32 } else { remote as u32 }
}
