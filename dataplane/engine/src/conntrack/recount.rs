//! A shard's books against its entries, from the beginning: lists, index, counts. For tests;
//! nothing on the way of a packet asks.

use std::collections::HashMap;

use super::{FREE, Shard};
use crate::NicSlot;
use crate::snapshot::Snapshot;
use crate::timer_wheel::EvictionClass;
use crate::{FlowIndex, conntrack::Key};

impl Shard {
    /// The first thing that is not as the entries say, in words.
    pub fn miscount(&self, snapshot: &Snapshot) -> Option<String> {
        let there: Vec<u32> = (0..self.entries.len() as u32)
            .filter(|place| self.entries[*place as usize].addr != FREE)
            .collect();
        let unconfirmed = there
            .iter()
            .filter(|place| self.entries[**place as usize].class() == EvictionClass::Unconfirmed)
            .count();
        if (self.len as usize, self.unconfirmed as usize) != (there.len(), unconfirmed) {
            let (len, counted) = (self.len, self.unconfirmed);
            let found = there.len();
            return Some(format!(
                "{len} entries and {counted} unconfirmed are counted of {found} and {unconfirmed}"
            ));
        }
        self.miscount_of_timers(&there)
            .or_else(|| self.miscount_of_index(&there))
            .or_else(|| self.miscount_of_rings(&there, snapshot))
    }

    /// Each entry hangs in one list, of its class and of no slot behind its deadline, and each
    /// other place is free.
    fn miscount_of_timers(&self, there: &[u32]) -> Option<String> {
        let filed = match self.timers.filed() {
            Ok(filed) => filed,
            Err(broken) => return Some(broken),
        };
        let mut by_place: HashMap<u32, (EvictionClass, u32)> = HashMap::with_capacity(filed.len());
        for (place, class, ahead) in filed {
            if by_place.insert(place, (class, ahead)).is_some() {
                return Some(format!("entry {place} is filed twice"));
            }
        }
        for place in there {
            let entry = &self.entries[*place as usize];
            let Some((class, ahead)) = by_place.remove(place) else {
                return Some(format!("entry {place} has no timer"));
            };
            let latest = self.timers.ahead(entry.deadline);
            if class != entry.class() || ahead > latest {
                return Some(format!(
                    "entry {place} of {:?} is filed among {class:?}, {ahead} ticks ahead, at the latest {latest}",
                    entry.class()
                ));
            }
        }
        if let Some(place) = by_place.keys().next() {
            return Some(format!("place {place} is free and has a timer"));
        }
        let free = self.timers.free_slots();
        let is_free = |place: &u32| self.entries.get(*place as usize).is_some_and(|entry| entry.addr == FREE);
        if free.len() + there.len() != self.entries.len() || !free.iter().all(is_free) {
            let (free, there, all) = (free.len(), there.len(), self.entries.len());
            return Some(format!("{free} places are free and {there} are not, of {all}"));
        }
        None
    }

    /// Each entry is found by its key, and nothing else is in the index.
    fn miscount_of_index(&self, there: &[u32]) -> Option<String> {
        let mut hashes = Vec::with_capacity(there.len());
        for place in there {
            let entry = &self.entries[*place as usize];
            let remote = self.remote(FlowIndex(*place));
            let key: Key = self.key(entry.addr, remote, entry.ports, entry.protocol(), entry.is_v6());
            if self.find(&key) != Some(FlowIndex(*place)) {
                return Some(format!("entry {place} is found as {:?} by its key", self.find(&key)));
            }
            hashes.push((key.hash, *place));
        }
        self.index.miscount(&hashes)
    }

    /// Each entry is in the ring of its NIC and kind, once.
    fn miscount_of_rings(&self, there: &[u32], snapshot: &Snapshot) -> Option<String> {
        let mut rings: HashMap<NicSlot, [Vec<u32>; 2]> = HashMap::new();
        for place in there {
            let entry = &self.entries[*place as usize];
            let of_nic = rings.entry(self.nic_of(entry, snapshot)).or_default();
            of_nic[usize::from(entry.class() == EvictionClass::Unconfirmed)].push(*place);
        }
        for (nic, [others, unconfirmed]) in rings {
            if self.nic_lists.unconfirmed(nic) as usize != unconfirmed.len() {
                let counted = self.nic_lists.unconfirmed(nic);
                return Some(format!(
                    "{counted} unconfirmed of {nic:?} are counted of {}",
                    unconfirmed.len()
                ));
            }
            for (class, expected) in
                [(EvictionClass::Confirmed, others), (EvictionClass::Unconfirmed, unconfirmed)]
            {
                let first = self.nic_lists.first(nic, class);
                let ring = std::iter::successors(first, |entry| self.nic_lists.after(*entry));
                // A ring that does not end has more than there are.
                let mut found: Vec<u32> = ring.take(there.len() + 1).collect();
                found.sort_unstable();
                if found != expected {
                    return Some(format!("the ring of {nic:?}, {class:?} holds {found:?}, not {expected:?}"));
                }
            }
        }
        None
    }
}
