//! Connections of a table that a former process left, read one by one and mistrusted, and their way
//! into a shard.

use std::cmp::Reverse;
use std::net::IpAddr;

use super::entry::LastSyn;
use super::persist::{self, Bytes, Layout, RestoreError, TableHeader};
use super::{Entry, FREE, FlowIndex, Key, Liveness, Shard, State, liveness, remote_digest};
use crate::rss::RssHash;
use crate::snapshot::Snapshot;
use crate::time::{FIRST_TICK, Now, TICK_NS, reached};
use crate::timer_wheel::EvictionClass;
use crate::{AddrId, Generation, addr_bits, proto};

/// One connection that a former process left.
#[derive(Clone, Copy, Debug)]
pub struct SavedConnection {
    entry: Entry,
    remote: u128,
    noted: LastSyn,
    /// Until when it lasts: nanoseconds of the clock that goes on from process to process.
    until_ns: u64,
}

impl SavedConnection {
    /// Its NIC's address.
    pub fn addr(&self) -> AddrId {
        self.entry.addr
    }

    /// As it was, its remote address apart.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Its remote address.
    pub fn remote(&self) -> u128 {
        self.remote
    }

    /// Which of so many workers owns it, where connections are spread by this; `local` is its NIC's
    /// address.
    pub fn owner(&self, spread: &RssHash, workers: u32, local: IpAddr) -> u32 {
        let (ports, protocol) = (self.entry.ports, self.entry.protocol());
        let ends = ((ports >> 16) as u16, ports as u16);
        spread.owner(addr_bits(local).0, self.remote, ends, protocol, workers)
    }
}

/// What a table held.
#[derive(Clone, Debug, Default)]
pub struct SavedTable {
    /// Its connections, tombstones among them.
    pub connections: Vec<SavedConnection>,
    /// Those that had expired by then.
    pub expired: u64,
    /// Places whose bytes are no entry that was written there.
    pub unverifiable: u64,
}

/// Whether a table belongs to what is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedTable {
    /// See [`persist::TableIdentity::set`].
    pub set: u64,
    /// See [`persist::TableIdentity::boot`].
    pub boot: [u64; 2],
    /// The last generation that an entry can bear.
    pub generation: Generation,
}

/// Reads a table, whatever bytes it is made of. `now_ns` is the clock that goes on from process to
/// process.
pub fn read(bytes: &[u8], belongs: &ExpectedTable, now_ns: u64) -> Result<SavedTable, RestoreError> {
    let TableHeader { birth, lag, undo } = persist::head(bytes)?;
    if birth.set != belongs.set || birth.boot != belongs.boot {
        return Err(RestoreError::NoTable);
    }
    let (layout, all) = (Layout::of(birth.capacity), Bytes(bytes));
    let mut reading = SavedTable::default();
    for place in 0..birth.capacity {
        let at = place as usize;
        let (mut entry, mut noted, mut seal) = (
            all.entry(layout.entries + at * size_of::<Entry>()),
            all.noted(layout.noted + at * size_of::<LastSyn>()),
            all.u32(layout.seals + at * size_of::<u32>()),
        );
        if let Some((_, before, then, sealed)) = undo.filter(|(changing, ..)| *changing == place) {
            (entry, noted, seal) = (before, then, sealed);
        }
        if seal == 0 || entry.addr == FREE {
            continue;
        }
        let six = all.u128(layout.remote6 + at * size_of::<u128>());
        let remote = if entry.is_v6() { six } else { u128::from(entry.remote) };
        let is_sound = seal == persist::seal(birth.secret, &entry, remote)
            && entry.remote == remote_digest(remote, entry.key_meta())
            && entry.has_sound_state()
            && entry.stamp <= belongs.generation;
        if !is_sound {
            reading.unverifiable += 1;
            continue;
        }
        let ticks = u64::from(entry.deadline.wrapping_sub(FIRST_TICK)).saturating_add(lag);
        let until_ns = birth.epoch_ns.saturating_add(ticks.saturating_mul(TICK_NS));
        if until_ns <= now_ns {
            reading.expired += 1;
            continue;
        }
        reading.connections.push(SavedConnection { entry, remote, noted, until_ns });
    }
    Ok(reading)
}

/// What is known of the process that left them.
#[derive(Clone, Copy, Debug)]
pub struct PreviousProcess {
    /// Its last generation.
    pub generation: Generation,
    /// Moment 0 of this process's clock on the one that goes on from process to process.
    pub zero_ns: u64,
}

/// What became of connections that were taken up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreCounts {
    /// They go on.
    pub live: u64,
    /// They were disconnected before, and stay so.
    pub tombstones: u64,
    /// The policy of now has ended them: disconnected, or their NIC or address is gone.
    pub ended: u64,
    /// They ran out before they were taken up.
    pub expired: u64,
    /// They name what there is not, or a connection that there is already.
    pub unverifiable: u64,
    /// There was no room.
    pub left_out: u64,
}

impl std::ops::AddAssign for RestoreCounts {
    fn add_assign(&mut self, other: RestoreCounts) {
        let RestoreCounts { live, tombstones, ended, expired, unverifiable, left_out } = other;
        self.live += live;
        self.tombstones += tombstones;
        self.ended += ended;
        self.expired += expired;
        self.unverifiable += unverifiable;
        self.left_out += left_out;
    }
}

impl Shard {
    /// Takes up connections that a former process left, under the snapshot of now; where there is
    /// no room for all, tombstones come first, then what is confirmed, those with the most time
    /// left before others. `ns` is now.
    pub fn restore(
        &mut self,
        mut kept: Vec<SavedConnection>,
        since: &PreviousProcess,
        snapshot: &Snapshot,
        ns: u64,
        now: Now,
    ) -> RestoreCounts {
        let bindings = snapshot.bindings();
        let rank = |kept: &SavedConnection| match bindings.get(kept.entry.addr.slot()) {
            None => 4,
            Some(binding) => match liveness(&kept.entry, binding, snapshot) {
                Liveness::Tombstone => 0,
                Liveness::Ended => 3,
                Liveness::Live | Liveness::Rejudge => match kept.entry.state().class() {
                    EvictionClass::Unconfirmed => 2,
                    _ => 1,
                },
            },
        };
        kept.sort_by_cached_key(|kept| (rank(kept), Reverse(kept.until_ns)));
        let mut all = RestoreCounts::default();
        for one in &kept {
            let left_ns = one.until_ns.saturating_sub(since.zero_ns.saturating_add(ns));
            // Counted from where the present tick began, so that a process that begins at one of
            // the former's rounds nothing.
            let ticks = (left_ns > 0).then(|| left_ns.saturating_add(ns % TICK_NS).div_ceil(TICK_NS));
            self.restore_one(one, (ticks, since.generation), snapshot, now, &mut all);
        }
        all
    }

    fn restore_one(
        &mut self,
        kept: &SavedConnection,
        (ticks, generation): (Option<u64>, Generation),
        snapshot: &Snapshot,
        now: Now,
        all: &mut RestoreCounts,
    ) {
        let SavedConnection { mut entry, remote, noted, .. } = *kept;
        let Some(binding) = snapshot.bindings().get(entry.addr.slot()) else {
            all.unverifiable += 1;
            return;
        };
        let Some(ticks) = ticks else {
            all.expired += 1;
            return;
        };
        if binding.id != entry.addr {
            // Its address's place has been another's since.
            all.ended += 1;
            return;
        }
        let key = self.key(entry.addr, remote, entry.ports, entry.protocol(), entry.is_v6());
        if binding.is_v6() != entry.is_v6() || self.find(&key).is_some() {
            all.unverifiable += 1;
            return;
        }
        let (was, class) = (entry.class(), entry.state().class());
        let was_over = matches!(was, EvictionClass::Tombstone | EvictionClass::Ended);
        let is_newcomer = class == EvictionClass::Unconfirmed && !was_over;
        if self.len >= self.config.capacity || is_newcomer && self.unconfirmed >= self.config.unconfirmed {
            all.left_out += 1;
            return;
        }
        // No longer than its state lasts today.
        let longest =
            u64::from(self.timeouts[entry.state() as usize]) + u64::from(now.ceil.wrapping_sub(now.tick));
        entry.deadline = now.tick.wrapping_add(ticks.min(longest) as u32);
        let class = if was_over { was } else { class };
        let Some(flow) = self.restore_entry(&key, entry, noted, class, snapshot, now) else {
            all.left_out += 1;
            return;
        };
        // A flush that was in force then, whether or not a sweep had come by.
        let was_flushed = entry.is_inbound() && entry.stamp < binding.flush && binding.flush <= generation;
        let was_dead = was_over || entry.is_dead() || was_flushed;
        match (was_dead, self.reclassify(flow, snapshot)) {
            (false, EvictionClass::Tombstone | EvictionClass::Ended) => all.ended += 1,
            (true, EvictionClass::Tombstone | EvictionClass::Ended) => all.tombstones += 1,
            _ => all.live += 1,
        }
    }

    /// Puts an entry that has been one before into a place.
    fn restore_entry(
        &mut self,
        key: &Key,
        mut entry: Entry,
        noted: LastSyn,
        class: EvictionClass,
        snapshot: &Snapshot,
        now: Now,
    ) -> Option<FlowIndex> {
        let nic = snapshot.binding(key.addr).nic;
        let place = self.timers.alloc_slot()?;
        entry.set_class(class);
        self.last_syns[place as usize] = noted;
        self.put(place, &entry, key.remote);
        self.begin_flow(place, now);
        self.index.insert(key.hash, place);
        self.timers.insert(place, class, entry.deadline);
        self.nic_lists.add(nic, class, place);
        self.len += 1;
        self.unconfirmed += u32::from(class == EvictionClass::Unconfirmed);
        if class != EvictionClass::Ended {
            self.connection_counts.enter(nic, u32::MAX);
        }
        self.counters.worker.count(super::gauge_of(class, entry.state()), 1);
        let flow = FlowIndex(place);
        self.count_live(flow, snapshot, 1);
        if matches!(class, EvictionClass::Tombstone | EvictionClass::Ended) {
            self.mark_end_exported(flow);
        }
        debug_assert!(!reached(now.tick, entry.deadline), "what has time left is not due");
        Some(flow)
    }
}

impl Entry {
    /// True if its state is one that a connection of its protocol can have.
    fn has_sound_state(&self) -> bool {
        let protocol = self.protocol();
        let is_icmp = protocol == if self.is_v6() { proto::ICMPV6 } else { proto::ICMP };
        let is_of = |states: &[State]| states.contains(&self.state());
        self.has_known_state()
            && match protocol {
                proto::TCP => is_of(&[
                    State::SynSent,
                    State::SynReceived,
                    State::Established,
                    State::FinWait,
                    State::Closing,
                ]),
                _ if is_icmp => is_of(&[State::Icmp, State::IcmpAnswered]),
                _ => is_of(&[State::OneWay, State::TwoWay]),
            }
    }
}
