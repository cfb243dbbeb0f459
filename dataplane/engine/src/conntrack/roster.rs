//! The connections of each NIC: a ring a NIC through all entries of a shard, 8 bytes an entry.
//!
//! Who asks for a NIC's own (its limit, its share) looks at the first few of its ring and turns that on, so that the next look goes to
//! others: bounded work, and in time all of them.

use crate::NicSlot;
use crate::cells::MAX_NICS;

/// Before and after: places of links.
type Link = [u32; 2];
const BEFORE: usize = 0;
const AFTER: usize = 1;

/// The rings of one shard. Entries are numbers below the capacity.
pub struct Rosters {
    /// One a NIC, where its ring begins and ends, and behind them one an entry. Zeros, which point to no entry, are an empty ring: the
    /// memory stays unbacked until it is touched.
    links: Box<[Link]>,
    /// Unconfirmed entries of each NIC.
    unconfirmed: Box<[u32]>,
}

#[inline]
fn link_of(entry: u32) -> u32 {
    MAX_NICS as u32 + entry
}

impl Rosters {
    /// Bytes an entry.
    pub const BYTES_AN_ENTRY: usize = size_of::<Link>();

    /// Of nobody, for entries 0 … `capacity` − 1.
    pub fn new(capacity: u32) -> Rosters {
        let all = MAX_NICS + capacity as usize;
        Rosters { links: vec![[0; 2]; all].into(), unconfirmed: vec![0; MAX_NICS].into() }
    }

    /// Puts an entry that is in no ring at the end of a NIC's.
    #[inline]
    pub fn add(&mut self, nic: NicSlot, entry: u32) {
        let last = self.links[nic.0 as usize][BEFORE];
        let last = if last < MAX_NICS as u32 { nic.0 } else { last };
        self.put_behind(last, nic.0, link_of(entry));
    }

    /// `first` and `second` follow one another; `link` comes between them.
    #[inline]
    fn put_behind(&mut self, first: u32, second: u32, link: u32) {
        self.links[link as usize] = [first, second];
        self.links[first as usize][AFTER] = link;
        self.links[second as usize][BEFORE] = link;
    }

    /// Takes an entry out of its ring.
    #[inline]
    pub fn remove(&mut self, entry: u32) {
        self.unlink(link_of(entry));
    }

    #[inline]
    fn unlink(&mut self, link: u32) {
        let [before, after] = self.links[link as usize];
        self.links[before as usize][AFTER] = after;
        self.links[after as usize][BEFORE] = before;
    }

    /// The first of a NIC's ring.
    #[inline]
    pub fn first(&self, nic: NicSlot) -> Option<u32> {
        self.links[nic.0 as usize][AFTER].checked_sub(MAX_NICS as u32)
    }

    /// The one behind an entry in its ring.
    #[inline]
    pub fn after(&self, entry: u32) -> Option<u32> {
        self.links[link_of(entry) as usize][AFTER].checked_sub(MAX_NICS as u32)
    }

    /// Turns a NIC's ring so that it begins behind this entry of it.
    pub fn turn(&mut self, nic: NicSlot, last: u32) {
        self.unlink(nic.0);
        let second = self.links[link_of(last) as usize][AFTER];
        self.put_behind(link_of(last), second, nic.0);
    }

    /// Unconfirmed entries of a NIC.
    #[inline]
    pub fn unconfirmed(&self, nic: NicSlot) -> u32 {
        self.unconfirmed[nic.0 as usize]
    }

    /// So many more of them; `-1` as u32 takes one back.
    #[inline]
    pub fn count_unconfirmed(&mut self, nic: NicSlot, by: u32) {
        let count = &mut self.unconfirmed[nic.0 as usize];
        *count = count.wrapping_add(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(rosters: &Rosters, nic: NicSlot) -> Vec<u32> {
        std::iter::successors(rosters.first(nic), |entry| rosters.after(*entry)).collect()
    }

    #[test]
    fn a_nic_has_its_own_in_the_order_in_which_they_came() {
        let mut rosters = Rosters::new(10);
        let (one, two) = (NicSlot(1), NicSlot(MAX_NICS as u32 - 1));
        assert_eq!(ring(&rosters, one), []);
        for entry in 0..6 {
            rosters.add(if entry % 2 == 0 { one } else { two }, entry);
        }
        assert_eq!((ring(&rosters, one), ring(&rosters, two)), (vec![0, 2, 4], vec![1, 3, 5]));
        rosters.remove(2);
        rosters.remove(4);
        rosters.remove(1);
        assert_eq!((ring(&rosters, one), ring(&rosters, two)), (vec![0], vec![3, 5]));
        rosters.remove(0);
        assert_eq!(ring(&rosters, one), []);
        rosters.add(one, 0);
        rosters.add(one, 9);
        assert_eq!(ring(&rosters, one), [0, 9]);
    }

    #[test]
    fn a_ring_that_is_turned_begins_behind_what_was_looked_at_and_loses_nothing() {
        let mut rosters = Rosters::new(10);
        let nic = NicSlot(7);
        (0..5).for_each(|entry| rosters.add(nic, entry));
        rosters.turn(nic, 1);
        assert_eq!(ring(&rosters, nic), [2, 3, 4, 0, 1]);
        rosters.turn(nic, 1);
        assert_eq!(ring(&rosters, nic), [2, 3, 4, 0, 1], "the last one");
        rosters.remove(2);
        rosters.add(nic, 8);
        assert_eq!(ring(&rosters, nic), [3, 4, 0, 1, 8]);
        let lone = NicSlot(8);
        rosters.add(lone, 9);
        rosters.turn(lone, 9);
        assert_eq!(ring(&rosters, lone), [9]);
    }
}
