//! What changes of the policy do to entries: their liveness, and how the table follows (semantics
//! 5).

use super::{Entry, FREE, FlowIndex, Shard};
use crate::classify::{Query, RuleVerdict};
use crate::conntrack::Connection;
use crate::snapshot::{Binding, Snapshot};
use crate::time::Now;
use crate::timer_wheel::EvictionClass;
use crate::worker_totals::EndCause;
use crate::{Direction, Generation, proto};

/// Slots swept at most in one turn because a packet needs an exact count: small tables are always
/// swept whole.
const ROOM_SLICE: u32 = 1024;

/// The slots that have not been swept since the last change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    /// The next slot. A new change does not reset it, so that every slot is reached however often
    /// changes come.
    at: u32,
    /// How many slots are left, from there on and round.
    left: u32,
    /// See [`ROOM_SLICE`].
    room: u32,
}

impl Sweep {
    /// Nothing to look at.
    pub const DONE: Sweep = Sweep { at: 0, left: 0, room: ROOM_SLICE };

    /// One more slot is in use. It lies between the last and the first on the way round, and must
    /// not be swept in place of one that is left.
    #[inline]
    pub fn grow(&mut self) {
        self.left += u32::from(self.left != 0);
    }
}

/// What a flush, a deletion or a rollback has made of an entry (semantics 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Its packets pass.
    Live,
    /// Disconnected.
    Tombstone,
    /// Something that its permission depends on has changed: the rules must be evaluated again.
    Rejudge,
    /// Its NIC or address is gone.
    Ended,
}

/// The liveness of an entry under a snapshot, from its stamp and its NIC's epochs alone.
#[inline]
pub fn liveness(entry: &Entry, binding: &Binding, snapshot: &Snapshot) -> Liveness {
    if binding.id != entry.addr || binding.is_gone() {
        return Liveness::Ended;
    }
    if !entry.is_inbound() {
        return Liveness::Live;
    }
    if entry.stamp < binding.flush {
        return Liveness::Tombstone;
    }
    if entry.is_dead() {
        let is_undone = snapshot.nic(binding.nic).rollbacks.iter().any(|undone| undone.holds(entry.stamp));
        return if is_undone { Liveness::Rejudge } else { Liveness::Tombstone };
    }
    if entry.stamp < binding.rejudge { Liveness::Rejudge } else { Liveness::Live }
}

impl Shard {
    /// Counts an inbound connection as live or not, for the receipts of commits.
    pub(super) fn count_live(&self, flow: FlowIndex, snapshot: &Snapshot, by: i64) {
        let entry = self.entry(flow);
        if self.is_counted(entry, snapshot) {
            let binding = snapshot.binding(entry.addr);
            self.counters.live_inbound(binding.nic, snapshot.live_epoch(binding), by);
        }
    }

    /// True if the entry counts among its NIC's live inbound connections. After a rollback they are
    /// counted anew: a connection that the rollback brings back counts once it has been re-judged.
    fn is_counted(&self, entry: &Entry, snapshot: &Snapshot) -> bool {
        let binding = snapshot.binding(entry.addr);
        entry.is_inbound()
            && !entry.is_dead()
            && binding.id == entry.addr
            && entry.stamp >= snapshot.live_epoch(binding)
    }

    /// Marks an inbound connection that the present rules refuse (semantics 5.4).
    pub fn kill(&mut self, flow: FlowIndex, snapshot: &Snapshot) {
        self.count_live(flow, snapshot, -1);
        self.begin_change(flow);
        let entry = &mut self.entries[flow.0 as usize];
        if !entry.is_dead() {
            self.counters.count_killed();
        }
        entry.set_dead(true);
        entry.stamp = snapshot.generation;
        self.end_change(flow);
        let nic = self.nic_of(self.entry(flow), snapshot);
        self.refile(flow, EvictionClass::Tombstone, nic);
        self.export_flushed(flow, snapshot);
    }

    /// Adds a copy of another shard's connection; false if there is no room.
    pub fn copy_in(&mut self, connection: &Connection, snapshot: &Snapshot, now: Now) -> bool {
        let Connection { entry, remote, last_syn: noted, .. } = connection;
        let key = self.key(entry.addr, *remote, entry.ports, entry.protocol(), entry.is_v6());
        let Some(flow) = self.admit(&key, *entry, snapshot, now) else { return false };
        self.connection_counts.enter(snapshot.binding(entry.addr).nic, u32::MAX);
        let place = flow.0 as usize;
        self.last_syns[place] = *noted;
        self.entries[place].deadline = entry.deadline;
        let class = self.entries[place].class();
        self.timers.unlink(flow.0);
        self.timers.insert(flow.0, class, entry.deadline);
        true
    }

    /// See [`crate::burst::Firewall::disconnect`].
    pub fn disconnect(
        &mut self,
        flow: FlowIndex,
        listed: &Entry,
        remote: u128,
        snapshot: &Snapshot,
        now: Now,
    ) -> bool {
        let Some(entry) = self.entries.get(flow.0 as usize) else { return false };
        let is_it = entry.has_key(&listed.key())
            && entry.is_inbound() == listed.is_inbound()
            && self.remote(flow) == remote;
        if !is_it || self.is_expired(flow, now) {
            return false;
        }
        let entry = *self.entry(flow);
        match liveness(&entry, snapshot.binding(entry.addr), snapshot) {
            Liveness::Ended | Liveness::Tombstone => return false,
            Liveness::Live | Liveness::Rejudge if !entry.is_inbound() => {
                self.end(flow, EndCause::Flushed, snapshot);
            }
            Liveness::Live | Liveness::Rejudge => {
                self.count_live(flow, snapshot, -1);
                self.begin_change(flow);
                let entry = &mut self.entries[flow.0 as usize];
                entry.set_dead(true);
                // Before any generation, so that no rollback reverts it.
                entry.stamp = Generation(0);
                self.end_change(flow);
                let nic = self.nic_of(self.entry(flow), snapshot);
                self.refile(flow, EvictionClass::Tombstone, nic);
                self.export_flushed(flow, snapshot);
            }
        }
        true
    }

    /// Marks an inbound connection that the present rules allow again.
    pub fn revive(&mut self, flow: FlowIndex, snapshot: &Snapshot) {
        let is_counted = self.is_counted(self.entry(flow), snapshot);
        self.begin_change(flow);
        let entry = &mut self.entries[flow.0 as usize];
        entry.set_dead(false);
        entry.stamp = snapshot.generation;
        let (state, class) = (entry.state(), entry.class());
        self.end_change(flow);
        if class != state.class() {
            let nic = self.nic_of(self.entry(flow), snapshot);
            self.refile(flow, state.class(), nic);
            self.resume_flow(flow);
        }
        if !is_counted {
            self.count_live(flow, snapshot, 1);
        }
    }

    /// Starts a sweep: a commit was adopted that may have ended or disconnected connections.
    /// Nothing is swept here, in the middle of a burst: a packet's connection is judged by its
    /// epochs, swept or not.
    pub fn adopt(&mut self) {
        self.sweep.left = self.entries.len() as u32;
    }

    /// Continues the sweep over at most `slice` slots.
    pub fn sweep(&mut self, snapshot: &Snapshot, slice: u32) {
        self.sweep.room = ROOM_SLICE;
        self.sweep_on(snapshot, slice);
    }

    /// The same for a packet that needs a slot or comes to a NIC with a limit, as any number of a
    /// burst's may.
    pub fn sweep_for_room(&mut self, snapshot: &Snapshot) {
        let looked_at = self.sweep_on(snapshot, self.sweep.room);
        self.sweep.room -= looked_at;
    }

    /// True if something is due by now, or the sweep is not done.
    pub fn is_behind(&self, now: Now) -> bool {
        self.is_sweeping() || self.timers.is_behind(now.tick)
    }

    /// True while slots are left to sweep.
    pub(super) fn is_sweeping(&self) -> bool {
        self.sweep.left != 0
    }

    /// Returns how many slots were swept.
    fn sweep_on(&mut self, snapshot: &Snapshot, slice: u32) -> u32 {
        let slice = slice.min(self.sweep.left);
        for _ in 0..slice {
            let place = if (self.sweep.at as usize) < self.entries.len() { self.sweep.at } else { 0 };
            self.sweep.at = place + 1;
            if self.entries[place as usize].addr != FREE {
                self.reclassify(FlowIndex(place), snapshot);
            }
        }
        self.sweep.left -= slice;
        slice
    }

    /// Files an entry by its liveness; returns its class.
    pub fn reclassify(&mut self, flow: FlowIndex, snapshot: &Snapshot) -> EvictionClass {
        let entry = *self.entry(flow);
        let binding = snapshot.binding(entry.addr);
        let class = match liveness(&entry, binding, snapshot) {
            Liveness::Ended => EvictionClass::Ended,
            Liveness::Tombstone => EvictionClass::Tombstone,
            Liveness::Live => entry.state().class(),
            Liveness::Rejudge => self.classify_pending(flow, snapshot),
        };
        if class != entry.class() {
            match (entry.class(), class) {
                (_, EvictionClass::Ended) => self.connection_counts.leave(binding.nic),
                (EvictionClass::Ended, _) => {
                    self.connection_counts.enter(binding.nic, u32::MAX);
                }
                _ => {}
            }
            match class {
                EvictionClass::Tombstone | EvictionClass::Ended => self.export_flushed(flow, snapshot),
                _ if matches!(entry.class(), EvictionClass::Tombstone | EvictionClass::Ended) => {
                    self.resume_flow(flow)
                }
                _ => {}
            }
            self.refile(flow, class, binding.nic);
        }
        class
    }

    /// The class of an entry that must be re-judged. After a rollback it is revived here if the
    /// rules allow it, as its next packet would: the table and its counts are then right for silent
    /// connections, too. One that the rules refuse is left to its packet, by whose time they may
    /// have changed.
    fn classify_pending(&mut self, flow: FlowIndex, snapshot: &Snapshot) -> EvictionClass {
        let entry = *self.entry(flow);
        let binding = snapshot.binding(entry.addr);
        if entry.stamp < snapshot.nic(binding.nic).rolled_back() || entry.is_dead() {
            let query = query_of_entry(&entry, self.remote(flow));
            match snapshot.judge(binding, &query) {
                RuleVerdict::Allow(_) => self.revive(flow, snapshot),
                _ if entry.is_dead() => return EvictionClass::Tombstone,
                _ => {}
            }
        }
        entry.state().class()
    }
}

/// The query that the rules were asked when this inbound connection opened.
pub fn query_of_entry(entry: &Entry, remote: u128) -> Query {
    let protocol = entry.protocol();
    let port = if proto::has_ports(protocol) { (entry.ports >> 16) as u16 } else { entry.syn_seq as u16 };
    Query { direction: Direction::Inbound, v6: entry.is_v6(), protocol, port, remote }
}
