//! What became of first fragments, for those behind them (semantics 4.6): a ring in order of time, and chains by hash.

use crate::time::reached;
use crate::{AddrId, Direction, FlowIndex, Generation, Reason, RuleId};

/// First fragments remembered at most; the oldest makes room.
pub const CAPACITY: u32 = 8192;
const NIL: u32 = u32::MAX;

/// What the fragments of one packet have in common, as its NIC sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentKey {
    /// NIC and local address.
    pub addr: AddrId,
    /// Remote address.
    pub remote: u128,
    /// Identification.
    pub id: u32,
    /// See [`crate::lane::Lane::frag_proto`].
    pub proto: u8,
    /// Direction.
    pub direction: Direction,
}

/// What is remembered of a first fragment.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Why it passed or was dropped.
    pub reason: Reason,
    /// The rule that denied it.
    pub rule: RuleId,
    /// Fragments that begin before this many bytes reach back into its headers.
    pub reach: u16,
    /// When it was judged.
    pub stamp: Generation,
    /// A flush forgets it: it was a drop, or of an inbound connection.
    pub flushable: bool,
    /// Its connection, with that one's ports, if it passed as part of one.
    pub flow: Option<(FlowIndex, u32)>,
}

#[derive(Clone, Copy)]
struct Slot<K, M> {
    key: K,
    memory: M,
    /// The tick at which it is forgotten.
    deadline: u32,
    next: u32,
    chain: u32,
    /// False for a memory that a newer one of the same key has replaced.
    linked: bool,
}

/// The last [`CAPACITY`] memories of something, by key, each until its deadline. Callers bring the key's hash.
pub struct Recent<K, M> {
    slots: Vec<Slot<K, M>>,
    chains: Box<[u32]>,
    /// The slot to be written next: when all are in use, that of the oldest.
    next: u32,
}

impl<K: Copy + PartialEq, M: Copy> Default for Recent<K, M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Copy + PartialEq, M: Copy> Recent<K, M> {
    /// Empty.
    pub fn new() -> Recent<K, M> {
        Recent {
            slots: Vec::with_capacity(CAPACITY as usize),
            chains: vec![NIL; CAPACITY as usize].into_boxed_slice(),
            next: 0,
        }
    }

    /// Remembers something until `deadline`, in place of what was remembered under the same key.
    pub fn remember(&mut self, hash: u32, key: K, memory: M, deadline: u32) {
        let chain = hash % CAPACITY;
        if let Some(old) = self.find(&key, chain) {
            self.unlink(old);
        }
        let slot = Slot { key, memory, deadline, next: NIL, chain, linked: true };
        let place = self.next;
        if place as usize == self.slots.len() {
            self.slots.push(slot);
        } else {
            self.unlink(place);
            self.slots[place as usize] = slot;
        }
        self.slots[place as usize].next = self.chains[chain as usize];
        self.chains[chain as usize] = place;
        self.next = (place + 1) % CAPACITY;
    }

    /// What is remembered under this key at tick `now`.
    pub fn recall(&self, hash: u32, key: &K, now: u32) -> Option<&M> {
        let slot = &self.slots[self.find(key, hash % CAPACITY)? as usize];
        (!reached(now, slot.deadline)).then_some(&slot.memory)
    }

    fn find(&self, key: &K, chain: u32) -> Option<u32> {
        let mut place = self.chains[chain as usize];
        while place != NIL {
            let slot = &self.slots[place as usize];
            if slot.key == *key {
                return Some(place);
            }
            place = slot.next;
        }
        None
    }

    fn unlink(&mut self, place: u32) {
        let Slot { chain, next, linked, .. } = self.slots[place as usize];
        if !linked {
            return;
        }
        self.slots[place as usize].linked = false;
        if self.chains[chain as usize] == place {
            self.chains[chain as usize] = next;
            return;
        }
        let mut at = self.chains[chain as usize];
        while at != NIL {
            if self.slots[at as usize].next == place {
                self.slots[at as usize].next = next;
                return;
            }
            at = self.slots[at as usize].next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_memory_of_a_key_counts_until_its_deadline() {
        let mut recent = Recent::new();
        recent.remember(7, 5, "old", 100);
        recent.remember(7, 5, "new", 100);
        recent.remember(7, 6, "chained", 100);
        assert_eq!(recent.recall(7, &5, 99), Some(&"new"));
        assert_eq!(recent.recall(7, &6, 99), Some(&"chained"));
        assert_eq!(recent.recall(7, &5, 100), None);
        assert_eq!(recent.recall(7, &8, 50), None);
    }

    #[test]
    fn when_full_the_oldest_goes_and_the_rest_stay() {
        let mut recent = Recent::new();
        for id in 0..CAPACITY + 10 {
            recent.remember(id / 3, id, id, 1000);
        }
        assert!((0..10).all(|id| recent.recall(id / 3, &id, 0).is_none()));
        assert!((10..CAPACITY + 10).all(|id| recent.recall(id / 3, &id, 0) == Some(&id)));
    }
}
