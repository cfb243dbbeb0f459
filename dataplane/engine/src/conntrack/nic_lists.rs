//! The connections of each NIC: two rings a NIC through all entries of a shard, 8 bytes an entry.
//! One is of those that are unconfirmed, the other of the rest.
//!
//! Who asks for a NIC's own (its limit, its share) looks at the first few of a ring and turns that
//! on, so that the next look goes to others: bounded work, and in time all of them.

use crate::NicSlot;
use crate::counters::MAX_NICS;
use crate::timer_wheel::EvictionClass;

/// Before and after: places of links.
type Link = [u32; 2];
const BEFORE: usize = 0;
const AFTER: usize = 1;

/// Links of rings; those of entries lie behind them.
const RINGS: u32 = 2 * MAX_NICS as u32;

/// The rings of one shard. Entries are numbers below the capacity.
pub struct NicLists {
    /// Where each ring begins and ends, then one an entry. Zeros, which point to no entry, are an
    /// empty ring: the memory stays unbacked until it is touched.
    links: Box<[Link]>,
    /// Unconfirmed entries of each NIC.
    unconfirmed: Box<[u32]>,
}

#[inline]
fn is_unconfirmed(class: EvictionClass) -> bool {
    class == EvictionClass::Unconfirmed
}

#[inline]
fn ring_of(nic: NicSlot, class: EvictionClass) -> u32 {
    2 * nic.0 + u32::from(is_unconfirmed(class))
}

#[inline]
fn link_of(entry: u32) -> u32 {
    RINGS + entry
}

impl NicLists {
    /// Bytes an entry.
    pub const BYTES_AN_ENTRY: usize = size_of::<Link>();

    /// Of nobody, for entries 0 … `capacity` − 1.
    pub fn new(capacity: u32) -> NicLists {
        let all = RINGS as usize + capacity as usize;
        NicLists { links: vec![[0; 2]; all].into(), unconfirmed: vec![0; MAX_NICS].into() }
    }

    /// See [`crate::pages::touch`].
    pub fn touch(&mut self) {
        crate::pages::touch(&mut self.links);
        crate::pages::touch(&mut self.unconfirmed);
    }

    /// Puts an entry of this class that is in no ring at the end of a NIC's.
    #[inline]
    pub fn add(&mut self, nic: NicSlot, class: EvictionClass, entry: u32) {
        let ring = ring_of(nic, class);
        let last = self.links[ring as usize][BEFORE];
        let last = if last < RINGS { ring } else { last };
        self.put_behind(last, ring, link_of(entry));
        if is_unconfirmed(class) {
            self.unconfirmed[nic.0 as usize] += 1;
        }
    }

    /// `first` and `second` follow one another; `link` comes between them.
    #[inline]
    fn put_behind(&mut self, first: u32, second: u32, link: u32) {
        self.links[link as usize] = [first, second];
        self.links[first as usize][AFTER] = link;
        self.links[second as usize][BEFORE] = link;
    }

    /// Takes an entry of this NIC and class out of its ring.
    #[inline]
    pub fn remove(&mut self, nic: NicSlot, class: EvictionClass, entry: u32) {
        self.unlink(link_of(entry));
        if is_unconfirmed(class) {
            let count = &mut self.unconfirmed[nic.0 as usize];
            *count = count.wrapping_sub(1);
        }
    }

    #[inline]
    fn unlink(&mut self, link: u32) {
        let [before, after] = self.links[link as usize];
        self.links[before as usize][AFTER] = after;
        self.links[after as usize][BEFORE] = before;
    }

    /// An entry has become one of another class.
    #[inline]
    pub fn move_on(&mut self, nic: NicSlot, [old, new]: [EvictionClass; 2], entry: u32) {
        if is_unconfirmed(old) != is_unconfirmed(new) {
            self.remove(nic, old, entry);
            self.add(nic, new, entry);
        }
    }

    /// The first of the ring of a NIC's entries of this class.
    #[inline]
    pub fn first(&self, nic: NicSlot, class: EvictionClass) -> Option<u32> {
        self.links[ring_of(nic, class) as usize][AFTER].checked_sub(RINGS)
    }

    /// The one behind an entry in its ring.
    #[inline]
    pub fn after(&self, entry: u32) -> Option<u32> {
        self.links[link_of(entry) as usize][AFTER].checked_sub(RINGS)
    }

    /// Turns the ring of a NIC's entries of this class so that it begins behind this one of them.
    pub fn turn(&mut self, nic: NicSlot, class: EvictionClass, last: u32) {
        let ring = ring_of(nic, class);
        self.unlink(ring);
        let second = self.links[link_of(last) as usize][AFTER];
        self.put_behind(link_of(last), second, ring);
    }

    /// Unconfirmed entries of a NIC.
    #[inline]
    pub fn unconfirmed(&self, nic: NicSlot) -> u32 {
        self.unconfirmed[nic.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(rosters: &NicLists, nic: NicSlot) -> Vec<u32> {
        std::iter::successors(rosters.first(nic, EvictionClass::Confirmed), |entry| rosters.after(*entry))
            .collect()
    }

    #[test]
    fn a_nic_has_its_own_in_the_order_in_which_they_came() {
        let mut rosters = NicLists::new(10);
        let (one, two) = (NicSlot(1), NicSlot(MAX_NICS as u32 - 1));
        assert_eq!(ring(&rosters, one), []);
        for entry in 0..6 {
            rosters.add(if entry % 2 == 0 { one } else { two }, EvictionClass::Confirmed, entry);
        }
        assert_eq!((ring(&rosters, one), ring(&rosters, two)), (vec![0, 2, 4], vec![1, 3, 5]));
        rosters.remove(one, EvictionClass::Confirmed, 2);
        rosters.remove(one, EvictionClass::Confirmed, 4);
        rosters.remove(two, EvictionClass::Confirmed, 1);
        assert_eq!((ring(&rosters, one), ring(&rosters, two)), (vec![0], vec![3, 5]));
        rosters.remove(one, EvictionClass::Confirmed, 0);
        assert_eq!(ring(&rosters, one), []);
        rosters.add(one, EvictionClass::Confirmed, 0);
        rosters.add(one, EvictionClass::Confirmed, 9);
        assert_eq!(ring(&rosters, one), [0, 9]);
    }

    #[test]
    fn a_ring_that_is_turned_begins_behind_what_was_looked_at_and_loses_nothing() {
        let mut rosters = NicLists::new(10);
        let nic = NicSlot(7);
        (0..5).for_each(|entry| rosters.add(nic, EvictionClass::Confirmed, entry));
        rosters.turn(nic, EvictionClass::Confirmed, 1);
        assert_eq!(ring(&rosters, nic), [2, 3, 4, 0, 1]);
        rosters.turn(nic, EvictionClass::Confirmed, 1);
        assert_eq!(ring(&rosters, nic), [2, 3, 4, 0, 1], "the last one");
        rosters.remove(nic, EvictionClass::Confirmed, 2);
        rosters.add(nic, EvictionClass::Confirmed, 8);
        assert_eq!(ring(&rosters, nic), [3, 4, 0, 1, 8]);
        let lone = NicSlot(8);
        rosters.add(lone, EvictionClass::Confirmed, 9);
        rosters.turn(lone, EvictionClass::Confirmed, 9);
        assert_eq!(ring(&rosters, lone), [9]);
    }

    #[test]
    fn what_is_unconfirmed_has_a_ring_of_its_own_and_is_counted() {
        let (mut rosters, nic) = (NicLists::new(10), NicSlot(3));
        (0..4).for_each(|entry| rosters.add(nic, EvictionClass::Unconfirmed, entry));
        assert_eq!((rosters.unconfirmed(nic), ring(&rosters, nic)), (4, vec![]));
        rosters.move_on(nic, [EvictionClass::Unconfirmed, EvictionClass::Confirmed], 1);
        rosters.move_on(nic, [EvictionClass::Confirmed, EvictionClass::Tombstone], 1);
        assert_eq!((rosters.unconfirmed(nic), ring(&rosters, nic)), (3, vec![1]));
        rosters.remove(nic, EvictionClass::Unconfirmed, 0);
        rosters.move_on(nic, [EvictionClass::Tombstone, EvictionClass::Unconfirmed], 1);
        assert_eq!((rosters.unconfirmed(nic), rosters.first(nic, EvictionClass::Unconfirmed)), (3, Some(2)));
        assert_eq!(ring(&rosters, nic), []);
    }
}
