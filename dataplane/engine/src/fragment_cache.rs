//! What became of first fragments, for those behind them (semantics 4.6): a table by keyed hash, in
//! buckets of a few places.
//!
//! Strangers choose the keys, so a look-up compares one bucket and no more, and one NIC's flood
//! takes room from itself: in a full bucket the place of the NIC that has most of the table goes,
//! its oldest first.

use crate::counters::MAX_NICS;
use crate::time::reached;
use crate::{AddrId, Direction, FlowIndex, Generation, NicSlot, Reason, RuleId};

/// First fragments remembered at most.
pub const CAPACITY: usize = BUCKETS * WAYS;
/// Places of a bucket: what a look-up compares at most.
const WAYS: usize = 8;
const BUCKETS: usize = 2048;

/// What the fragments of one packet have in common, as its NIC sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentKey {
    /// NIC and local address.
    pub addr: AddrId,
    /// Remote address.
    pub remote: u128,
    /// Identification.
    pub id: u32,
    /// See [`crate::packet::PacketMeta::frag_proto`].
    pub proto: u8,
    /// Direction.
    pub direction: Direction,
}

/// What is remembered of a first fragment.
#[derive(Clone, Copy, Debug)]
pub struct FirstFragment {
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

/// A key with its hash, and the NIC that it is counted for.
#[derive(Clone, Copy, Debug)]
pub struct Hashed<K> {
    /// The key.
    pub key: K,
    /// Its hash, which nobody outside can foresee.
    pub hash: u32,
    /// Whose it is.
    pub nic: NicSlot,
}

#[derive(Clone, Copy)]
struct Place<K, M> {
    key: K,
    memory: M,
    nic: NicSlot,
    /// The tick at which it is forgotten.
    deadline: u32,
}

/// Memories of something, by key, each until its deadline, at most [`CAPACITY`].
pub struct FragmentCache<K, M> {
    /// Of each place some bits of its key's hash; 0 for a free one.
    tags: Box<[[u16; WAYS]]>,
    places: Box<[Option<Place<K, M>>]>,
    /// Places by NIC, forgotten ones included that nobody has come by since.
    counts: Box<[u16]>,
    /// The bucket to be looked through next for what is forgotten.
    hand: usize,
}

impl<K: Copy + PartialEq, M: Copy> Default for FragmentCache<K, M> {
    fn default() -> Self {
        Self::new()
    }
}

fn bucket_of(hash: u32) -> usize {
    hash as usize % BUCKETS
}

fn tag_of(hash: u32) -> u16 {
    (hash >> 16) as u16 | 1
}

impl<K: Copy + PartialEq, M: Copy> FragmentCache<K, M> {
    /// Empty.
    pub fn new() -> FragmentCache<K, M> {
        FragmentCache {
            tags: vec![[0; WAYS]; BUCKETS].into_boxed_slice(),
            places: vec![None; CAPACITY].into_boxed_slice(),
            counts: vec![0; MAX_NICS].into_boxed_slice(),
            hand: 0,
        }
    }

    /// Has the memory of all places backed, so that no packet waits for a page.
    pub fn touch(&mut self) {
        crate::pages::touch(&mut self.tags);
        crate::pages::touch(&mut self.places);
        crate::pages::touch(&mut self.counts);
    }

    /// Remembers something until `deadline`, in place of what was remembered under the same key;
    /// `now` is the present tick.
    pub fn remember(&mut self, hashed: &Hashed<K>, memory: M, deadline: u32, now: u32) {
        self.sweep(now);
        let Some(place) = self.find(hashed).or_else(|| self.room(hashed, now)) else { return };
        self.forget(place);
        let Hashed { key, hash, nic } = *hashed;
        self.tags[place / WAYS][place % WAYS] = tag_of(hash);
        self.places[place] = Some(Place { key, memory, nic, deadline });
        self.counts[nic.0 as usize] += 1;
    }

    /// What is remembered under this key at tick `now`.
    pub fn recall(&self, hashed: &Hashed<K>, now: u32) -> Option<&M> {
        let place = self.places[self.find(hashed)?].as_ref()?;
        (!reached(now, place.deadline)).then_some(&place.memory)
    }

    fn find(&self, hashed: &Hashed<K>) -> Option<usize> {
        let (bucket, tag) = (bucket_of(hashed.hash), tag_of(hashed.hash));
        let is_it = |place: &usize| {
            self.tags[bucket][place % WAYS] == tag
                && self.places[*place].as_ref().is_some_and(|it| it.key == hashed.key)
        };
        (bucket * WAYS..(bucket + 1) * WAYS).find(is_it)
    }

    /// A place for a new key: a free one, or that of what is forgotten; else the oldest of the NIC
    /// that has most of the table. `None` if that is the newcomer's own NIC, which has none of
    /// these places.
    fn room(&self, hashed: &Hashed<K>, now: u32) -> Option<usize> {
        let bucket = bucket_of(hashed.hash);
        let count = |nic: NicSlot| self.counts[nic.0 as usize];
        let mut victim: Option<(usize, u16, u32)> = None;
        for at in bucket * WAYS..(bucket + 1) * WAYS {
            let Some(place) = &self.places[at] else { return Some(at) };
            if reached(now, place.deadline) {
                return Some(at);
            }
            // Of NICs that have as many, the newcomer's own goes.
            let weight = count(place.nic).saturating_mul(2) + u16::from(place.nic == hashed.nic);
            let left = place.deadline.wrapping_sub(now);
            if victim.is_none_or(|(_, most, least)| weight > most || weight == most && left < least) {
                victim = Some((at, weight, left));
            }
        }
        let (at, weight, _) = victim?;
        (weight >= count(hashed.nic).saturating_mul(2)).then_some(at)
    }

    fn forget(&mut self, at: usize) {
        if let Some(place) = self.places[at].take() {
            self.counts[place.nic.0 as usize] -= 1;
            self.tags[at / WAYS][at % WAYS] = 0;
        }
    }

    /// Looks through one bucket, so that what is forgotten does not count for long.
    fn sweep(&mut self, now: u32) {
        self.hand = (self.hand + 1) % BUCKETS;
        for at in self.hand * WAYS..(self.hand + 1) * WAYS {
            if self.places[at].as_ref().is_some_and(|place| reached(now, place.deadline)) {
                self.forget(at);
            }
        }
    }
}

const _: () = assert!(CAPACITY * 2 < u16::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::fold;

    /// Hashed as by a secret: no key is anywhere near the next.
    fn of(nic: u32, key: u32) -> Hashed<u32> {
        let hash = fold(u64::from(key) ^ 0x2545_F491_4F6C_DD1D, 0x9E37_79B9_7F4A_7C15) as u32;
        Hashed { key, hash, nic: NicSlot(nic) }
    }

    #[test]
    fn the_newest_memory_of_a_key_counts_until_its_deadline() {
        let mut recent = FragmentCache::new();
        let same = |key| Hashed { hash: 7, ..of(1, key) };
        recent.remember(&same(5), "old", 100, 0);
        recent.remember(&same(5), "new", 100, 0);
        recent.remember(&same(6), "in the same bucket", 100, 0);
        assert_eq!(recent.recall(&same(5), 99), Some(&"new"));
        assert_eq!(recent.recall(&same(6), 99), Some(&"in the same bucket"));
        assert_eq!(recent.recall(&same(5), 100), None);
        assert_eq!(recent.recall(&same(8), 50), None);
        assert_eq!(recent.counts[1], 2);
    }

    #[test]
    fn when_full_the_oldest_goes_and_the_newest_stay() {
        let mut recent = FragmentCache::new();
        let all = 4 * CAPACITY as u32;
        for id in 0..all {
            recent.remember(&of(1, id), id, 1000 + id, 0);
        }
        assert!((0..CAPACITY as u32 / 2).all(|id| recent.recall(&of(1, id), 0).is_none()));
        assert!((all - 512..all).all(|id| recent.recall(&of(1, id), 0) == Some(&id)));
        assert_eq!(usize::from(recent.counts[1]), CAPACITY);
    }

    #[test]
    fn a_flood_of_one_nic_has_nobody_elses_forgotten_and_takes_no_more_than_the_rest() {
        let mut recent = FragmentCache::new();
        let (victims, flood) = (1_000, 1_000_000);
        for id in 0..victims {
            recent.remember(&of(2 + id % 50, id), id, 1000, 0);
        }
        for id in 0..200_000 {
            recent.remember(&of(1, flood + id), id, 1000, 0);
        }
        let is_known =
            |recent: &FragmentCache<u32, u32>, id: u32| recent.recall(&of(2 + id % 50, id), 0) == Some(&id);
        assert!((0..victims).all(|id| is_known(&recent, id)));
        // And newcomers find room while the flood goes on.
        for id in victims..2 * victims {
            recent.remember(&of(2 + id % 50, id), id, 1000, 0);
            for n in 0..10 {
                recent.remember(&of(1, 2 * flood + 10 * id + n), 0, 1000, 0);
            }
        }
        assert!((0..2 * victims).all(|id| is_known(&recent, id)));
    }

    #[test]
    fn what_is_forgotten_does_not_count_for_long() {
        let mut recent = FragmentCache::new();
        for id in 0..CAPACITY as u32 {
            recent.remember(&of(1, id), id, 100, 0);
        }
        for id in 0..2 * BUCKETS as u32 {
            recent.remember(&of(2, 1_000_000 + id), id, 200, 150);
        }
        assert_eq!((recent.counts[1], usize::from(recent.counts[2])), (0, 2 * BUCKETS));
    }
}
