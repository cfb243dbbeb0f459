//! Which entry is evicted when the table is full or the unconfirmed have used up their share:
//! semantics 6.1.
//!
//! A NIC's *share* is its fair part of the table, or of what the unconfirmed may hold. NICs within
//! their share do not suffer from those above: entries of a NIC above its share go first, and a NIC
//! that has used up its share may take from such NICs and from itself alone. All of it is bounded:
//! so many of the oldest, so many of a NIC's own, so many at random.

use super::{FlowIndex, Shard};
use crate::NicSlot;
use crate::snapshot::Snapshot;
use crate::time::{Now, reached};
use crate::timer_wheel::EvictionClass;
use crate::worker_totals::EndCause;

/// Entries that have expired, or may have, examined for one newcomer.
const EXPIRY_LOOKS: u32 = 256;
/// The oldest entries of a class that are examined.
const OLDEST_LOOKS: u32 = 64;
/// Entries of one NIC that are examined; the longest idle of them goes.
const OWN_LOOKS: u32 = 32;
/// Slots sampled at random at a time; all of them in a table of no more than [`SMALL`].
const SAMPLE: u32 = 16;
/// Samples until one finds something, at most.
const SAMPLES: u32 = 16;
/// Entries of its own that are examined for a NIC at its limit.
const LIMIT_LOOKS: u32 = 256;
const SMALL: u32 = 64;

/// The least share: in a table of a few slots per NIC, NICs would otherwise take turns with single
/// connections.
const LEAST_PART: u32 = 16;

/// A NIC's fair share of `all` slots among `nics` NICs: an equal one, at least 16, or at least half
/// if a table has no room for two such.
pub fn fair_share(all: u32, nics: u32) -> u32 {
    (all / nics.max(1)).max(LEAST_PART.min(all / 2))
}

/// Each NIC's shares, under one snapshot.
#[derive(Clone, Copy)]
struct Shares {
    /// Of all workers' tables.
    table: u32,
    /// Of this worker's unconfirmed entries.
    unconfirmed: u32,
}

impl Shares {
    fn of(shard: &Shard, snapshot: &Snapshot) -> Shares {
        let nics = snapshot.policy_nics();
        Shares {
            table: fair_share(shard.config.all_workers, nics),
            unconfirmed: fair_share(shard.config.unconfirmed, nics),
        }
    }
}

impl Shard {
    /// Makes room for an entry of this NIC, which is counted already, by evicting: an expired
    /// entry, one that a change ended, an unconfirmed one, a confirmed one of a NIC above its
    /// share, a tombstone.
    #[cold]
    pub(super) fn make_room(&mut self, nic: NicSlot, snapshot: &Snapshot, now: Now) -> Option<()> {
        self.expire(snapshot, now, EXPIRY_LOOKS);
        if self.len < self.config.capacity {
            return Some(());
        }
        self.sweep_for_room(snapshot);
        let parts = Shares::of(self, snapshot);
        let is_within = self.connection_counts.get(nic) <= parts.table;
        if !is_within {
            self.note_largest_nic(nic, parts);
        }
        let made = self.evict_oldest(EvictionClass::Ended, snapshot)
            || self.evict_unconfirmed(|shard, whose| shard.is_above(whose, parts), snapshot)
            || is_within && self.evict_confirmed(parts, snapshot)
            || is_within && self.evict_unconfirmed(|_, _| true, snapshot)
            || self.evict_own_unconfirmed(nic, snapshot)
            || (is_within || self.is_sweeping())
                && self.evict_any_unconfirmed(|_, whose| is_within || whose == nic, snapshot)
            || self.evict_oldest(EvictionClass::Tombstone, snapshot);
        made.then_some(())
    }

    /// Makes room for an entry of this NIC among the unconfirmed, of which a change may have made
    /// some tombstones.
    #[cold]
    pub(super) fn enforce_unconfirmed_share(
        &mut self,
        nic: NicSlot,
        snapshot: &Snapshot,
        now: Now,
    ) -> Option<()> {
        self.sweep_for_room(snapshot);
        self.expire(snapshot, now, OLDEST_LOOKS);
        if self.unconfirmed < self.config.unconfirmed {
            return Some(());
        }
        let part = Shares::of(self, snapshot).unconfirmed;
        let is_within = self.nic_lists.unconfirmed(nic) < part;
        let is_above = |shard: &Shard, whose| shard.nic_lists.unconfirmed(whose) > part;
        if !is_within {
            let may = |shard: &Shard, whose| whose == nic || is_above(shard, whose);
            let made = self.evict_unconfirmed(may, snapshot) || self.evict_own_unconfirmed(nic, snapshot);
            return made.then_some(());
        }
        let made = self.evict_unconfirmed(is_above, snapshot)
            || self.evict_any_unconfirmed(is_above, snapshot)
            || self.evict_unconfirmed(|_, _| true, snapshot)
            || self.evict_any_unconfirmed(|_, _| true, snapshot);
        made.then_some(())
    }

    /// Ends the expired entries of a NIC that were not found yet.
    #[cold]
    pub fn expire_of(&mut self, nic: NicSlot, snapshot: &Snapshot, now: Now) {
        self.expire(snapshot, now, EXPIRY_LOOKS);
        if !self.timers.is_behind(now.tick) {
            return;
        }
        for ring in [EvictionClass::Unconfirmed, EvictionClass::Confirmed] {
            let (mut next, mut last) = (self.nic_lists.first(nic, ring), None);
            for _ in 0..LIMIT_LOOKS {
                let Some(place) = next else { break };
                next = self.nic_lists.after(place);
                if self.is_expired(FlowIndex(place), now) {
                    self.end(FlowIndex(place), EndCause::Expired, snapshot);
                } else {
                    last = Some(place);
                }
            }
            if let (Some(last), true) = (last, next.is_some()) {
                self.nic_lists.turn(nic, ring, last);
            }
        }
    }

    fn is_above(&self, nic: NicSlot, parts: Shares) -> bool {
        self.nic_lists.unconfirmed(nic) > parts.unconfirmed || self.connection_counts.get(nic) > parts.table
    }

    /// Remembers, of the NICs above their share that come to a full table, the one furthest above:
    /// a random sample rarely finds a NIC that has little of the table.
    fn note_largest_nic(&mut self, nic: NicSlot, parts: Shares) {
        let above = |nic| self.connection_counts.get(nic).saturating_sub(parts.table);
        if above(nic) > above(self.largest_nic) {
            self.largest_nic = nic;
        }
    }

    /// Evicts a confirmed connection of the NIC furthest above its share, by a sample: the longest
    /// idle of a few.
    fn evict_confirmed(&mut self, parts: Shares, snapshot: &Snapshot) -> bool {
        let above = |shard: &Shard, nic| shard.connection_counts.get(nic).saturating_sub(parts.table);
        let mut hog = self.largest_nic;
        if self.nic_lists.first(hog, EvictionClass::Confirmed).is_none() {
            hog = NicSlot::NONE;
        }
        let looks = if self.entries.len() as u32 <= SMALL { SMALL } else { SAMPLE };
        for _ in 0..SAMPLES {
            for look in 0..looks {
                let whose = self.nic_at(look, snapshot);
                if above(self, whose) > above(self, hog) {
                    hog = whose;
                }
            }
            if above(self, hog) > 0 || looks == SMALL {
                break;
            }
        }
        self.largest_nic = hog;
        if above(self, hog) == 0 {
            return false;
        }
        // The first few may all have changed their class.
        let victim = (0..2).find_map(|_| self.longest_idle(hog, EvictionClass::Confirmed, snapshot));
        let Some(flow) = victim else { return false };
        self.counters.count_displaced(hog);
        self.end(flow, EndCause::Evicted, snapshot);
        true
    }

    /// The NIC of the entry at a slot: of the `look`th in a small table, else at random.
    /// [`NicSlot::NONE`] for a free slot.
    fn nic_at(&mut self, look: u32, snapshot: &Snapshot) -> NicSlot {
        let places = self.entries.len() as u32;
        let place = if places <= SMALL { look } else { self.random_below(places) };
        match self.entries.get(place as usize) {
            Some(entry) if entry.addr != super::FREE && entry.class() != EvictionClass::Ended => {
                self.nic_of(entry, snapshot)
            }
            _ => NicSlot::NONE,
        }
    }

    /// A random number that nobody outside can predict (Marsaglia's xorshift).
    fn random_below(&mut self, bound: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (((self.random >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// Of the first few of a NIC's list, the one of this class that was idle for longest. The list
    /// is rotated past them.
    fn longest_idle(&mut self, nic: NicSlot, class: EvictionClass, snapshot: &Snapshot) -> Option<FlowIndex> {
        let (mut best, mut last) = (None, None);
        let mut next = self.nic_lists.first(nic, class);
        for _ in 0..OWN_LOOKS {
            let Some(place) = next else { break };
            next = self.nic_lists.after(place);
            let found = self.reclassify(FlowIndex(place), snapshot);
            // An entry that has changed its class has left this list.
            if (found == EvictionClass::Unconfirmed) == (class == EvictionClass::Unconfirmed) {
                last = Some(place);
            }
            if found != class {
                continue;
            }
            let entry = &self.entries[place as usize];
            let heard = entry.deadline.wrapping_sub(self.timeouts[entry.state() as usize]);
            let is_longer = best.is_none_or(|(longest, _)| !reached(heard, longest));
            if is_longer {
                best = Some((heard, FlowIndex(place)));
            }
        }
        // A list that was seen whole keeps its order, in which its entries came.
        if let (Some(last), true) = (last, next.is_some()) {
            self.nic_lists.turn(nic, class, last);
        }
        best.map(|(_, flow)| flow)
    }

    /// Evicts the oldest unconfirmed entry, of the oldest few, whose NIC may lose one.
    fn evict_unconfirmed(&mut self, may: impl Fn(&Shard, NicSlot) -> bool, snapshot: &Snapshot) -> bool {
        let mut at = self.timers.oldest(EvictionClass::Unconfirmed);
        for _ in 0..OLDEST_LOOKS {
            let Some(place) = at else { return false };
            // Looked up before the entry is filed elsewhere.
            let next = self.timers.next_oldest(EvictionClass::Unconfirmed, place);
            if self.try_evict(place, &may, snapshot) {
                self.prefetch_victims(next);
                return true;
            }
            at = next;
        }
        false
    }

    /// The same for a NIC's own.
    fn evict_own_unconfirmed(&mut self, nic: NicSlot, snapshot: &Snapshot) -> bool {
        if self.nic_lists.unconfirmed(nic) == 0 {
            return false;
        }
        let Some(flow) = self.longest_idle(nic, EvictionClass::Unconfirmed, snapshot) else { return false };
        self.end(flow, EndCause::Evicted, snapshot);
        true
    }

    /// The same for any, if the oldest are hidden behind entries of others, or behind tombstones
    /// that a change has made.
    fn evict_any_unconfirmed(&mut self, may: impl Fn(&Shard, NicSlot) -> bool, snapshot: &Snapshot) -> bool {
        let places = self.entries.len() as u32;
        if self.unconfirmed == 0 {
            return false;
        }
        for look in 0..SAMPLE * SAMPLES {
            let place = if places <= SMALL { look } else { self.random_below(places) };
            let entry = self.entries.get(place as usize);
            let is_one =
                entry.is_some_and(|e| e.addr != super::FREE && e.class() == EvictionClass::Unconfirmed);
            if is_one && self.try_evict(place, &may, snapshot) {
                return true;
            }
        }
        false
    }

    /// Evicts an entry if it is still unconfirmed and its NIC may lose one.
    fn try_evict(&mut self, place: u32, may: &impl Fn(&Shard, NicSlot) -> bool, snapshot: &Snapshot) -> bool {
        let flow = FlowIndex(place);
        let goes = self.reclassify(flow, snapshot) == EvictionClass::Unconfirmed
            && may(self, self.nic_of(self.entry(flow), snapshot));
        if goes {
            self.end(flow, EndCause::Evicted, snapshot);
        }
        goes
    }

    /// Evicts the oldest entry that is still of this class; those that are not are filed anew.
    fn evict_oldest(&mut self, class: EvictionClass, snapshot: &Snapshot) -> bool {
        for _ in 0..OLDEST_LOOKS {
            let Some(place) = self.timers.oldest(class) else { return false };
            let next = self.timers.following(place);
            if self.reclassify(FlowIndex(place), snapshot) == class {
                self.end(FlowIndex(place), EndCause::Evicted, snapshot);
                self.prefetch_victims(next);
                return true;
            }
        }
        false
    }
}
