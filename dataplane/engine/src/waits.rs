//! Later fragments that came ahead of their first one (semantics 4.6): which wait for which, how long, and what bounds them. The frames
//! themselves are [`crate::held`]'s, by the same numbers.

use std::collections::VecDeque;

use crate::NicSlot;
use crate::cells::MAX_NICS;
use crate::fragments::{FragmentKey, Hashed};
use crate::io::BURST;
use crate::time::{Now, TICKS_PER_SECOND, reached};

/// Fragments that one worker holds at most, of all NICs together.
pub const HELD: usize = 1024;
/// Fragments that it holds at most of one NIC.
pub const HELD_OF_NIC: u16 = 256;
/// Fragments that it holds at most of one packet: 64 kB in pieces of IPv6's least MTU are 53.
pub const HELD_OF_PACKET: usize = 64;
/// Fragments in one chain at most: what a look-up walks. Nobody can foresee which packets share a chain.
const CHAIN: usize = 4 * HELD_OF_PACKET;
/// How long, in ticks.
pub const HOLD: u32 = TICKS_PER_SECOND;
/// Places beside those: for what waits no more and is not judged yet.
const LEAVING: usize = 2 * BURST;
/// Frames that a worker has in hand because of fragments, at most.
pub const PLACES: usize = HELD + LEAVING;
/// Chains of what waits, by hash.
const CHAINS: usize = 1024;
/// Places that a full worker looks at for a newcomer, so far from each other that they lie all over the table.
const SAMPLE: usize = 16;
const STRIDE: usize = PLACES / SAMPLE - 1;
const NIL: u32 = u32::MAX;

/// The number under which a frame waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u32);

/// What becomes of a frame that waits no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Its first has been judged here: it follows.
    Follow,
    /// Its first went to this worker.
    Go(u32),
    /// Its time is over, or others need its place.
    Over,
}

#[derive(Clone, Copy)]
struct Wait {
    hashed: Hashed<FragmentKey>,
    deadline: u32,
    /// Neighbours in order of arrival.
    older: u32,
    newer: u32,
    /// The next in its chain.
    next: u32,
}

/// Who waits.
pub struct Waits {
    /// By ticket: who waits, none for one that is free or leaves.
    waits: Box<[Option<Wait>]>,
    free: Vec<u32>,
    chains: Box<[u32]>,
    oldest: u32,
    newest: u32,
    /// By NIC.
    counts: Box<[u16]>,
    waiting: usize,
    leaving: VecDeque<(Ticket, Leave)>,
    /// Where the next sample begins.
    hand: usize,
}

impl Default for Waits {
    fn default() -> Self {
        Waits {
            waits: vec![None; PLACES].into_boxed_slice(),
            free: (0..PLACES as u32).rev().collect(),
            chains: vec![NIL; CHAINS].into_boxed_slice(),
            oldest: NIL,
            newest: NIL,
            counts: vec![0; MAX_NICS].into_boxed_slice(),
            waiting: 0,
            leaving: VecDeque::with_capacity(PLACES),
            hand: 0,
        }
    }
}

impl Waits {
    /// True without anybody who waits or leaves.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting == 0 && self.leaving.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// True if somebody waits no more and was not taken yet.
    #[inline]
    pub fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// The tick at which the oldest one's time is over.
    pub fn next_deadline(&self) -> Option<u32> {
        self.get(self.oldest).map(|wait| wait.deadline)
    }

    fn get(&self, at: u32) -> Option<&Wait> {
        self.waits.get(at as usize)?.as_ref()
    }

    fn chain(hash: u32) -> usize {
        hash as usize % CHAINS
    }

    fn in_chain(&self, hash: u32) -> impl Iterator<Item = u32> + '_ {
        let next = |at: &u32| self.get(*at).map(|wait| wait.next);
        std::iter::successors(Some(self.chains[Self::chain(hash)]), next).take_while(|at| *at != NIL)
    }

    /// Has a fragment wait. `None` if there is no room for it.
    pub fn hold(&mut self, hashed: &Hashed<FragmentKey>, now: Now) -> Option<Ticket> {
        let count = self.counts[hashed.nic.0 as usize];
        let (mut of_packet, mut in_chain) = (0, 0);
        for at in self.in_chain(hashed.hash) {
            in_chain += 1;
            of_packet += usize::from(self.get(at).is_some_and(|wait| wait.hashed.key == hashed.key));
        }
        if count >= HELD_OF_NIC || of_packet >= HELD_OF_PACKET || in_chain >= CHAIN {
            return None;
        }
        if self.waiting >= HELD {
            self.make_room(count)?;
        }
        let at = self.free.pop()?;
        let chain = Self::chain(hashed.hash);
        self.waits[at as usize] = Some(Wait {
            hashed: *hashed,
            deadline: now.up.wrapping_add(HOLD),
            older: self.newest,
            newer: NIL,
            next: std::mem::replace(&mut self.chains[chain], at),
        });
        match self.waits.get_mut(self.newest as usize) {
            Some(Some(newest)) => newest.newer = at,
            _ => self.oldest = at,
        }
        self.newest = at;
        self.waiting += 1;
        self.counts[hashed.nic.0 as usize] += 1;
        Some(Ticket(at))
    }

    /// Takes the place of somebody whose NIC has more than one frame more than the newcomer's `count`: of a bounded sample, the one that
    /// has most.
    fn make_room(&mut self, count: u16) -> Option<()> {
        let sample = (0..SAMPLE).map(|n| (self.hand + n * STRIDE) % PLACES);
        let all = sample.filter_map(|at| {
            let nic = self.get(at as u32)?.hashed.nic;
            Some((self.counts[nic.0 as usize], at as u32))
        });
        let victim = all.max();
        self.hand = (self.hand + 1) % PLACES;
        let (_, at) = victim.filter(|(most, _)| *most > count + 1)?;
        self.leave(at, Leave::Over);
        Some(())
    }

    /// A first fragment was judged, or sent on to another worker: those that wait for it follow, but for those whose time is over.
    pub fn follow(&mut self, hashed: &Hashed<FragmentKey>, tick: u32, how: Leave) {
        if self.waiting == 0 {
            return;
        }
        // In order of arrival: the chain has the newest first.
        let mut followers = [NIL; HELD_OF_PACKET];
        let mut count = 0;
        for at in self.in_chain(hashed.hash) {
            let is_one = |wait: &Wait| wait.hashed.key == hashed.key && !reached(tick, wait.deadline);
            if self.get(at).is_some_and(is_one) && count < followers.len() {
                followers[count] = at;
                count += 1;
            }
        }
        for at in followers[..count].iter().rev() {
            self.leave(*at, how);
        }
    }

    /// The first of this one has gone on to another worker.
    pub fn follow_alone(&mut self, Ticket(at): Ticket, how: Leave) {
        self.leave(at, how);
    }

    /// Whose time is over leaves.
    pub fn expire(&mut self, tick: u32) {
        while self.next_deadline().is_some_and(|deadline| reached(tick, deadline)) {
            self.leave(self.oldest, Leave::Over);
        }
    }

    /// Everybody leaves.
    pub fn end(&mut self) {
        while self.oldest != NIL {
            self.leave(self.oldest, Leave::Over);
        }
    }

    fn leave(&mut self, at: u32, how: Leave) {
        let Some(wait) = self.waits.get_mut(at as usize).and_then(Option::take) else { return };
        let chain = Self::chain(wait.hashed.hash);
        let before = self.in_chain_before(chain, at);
        match self.waits.get_mut(before as usize) {
            Some(Some(before)) => before.next = wait.next,
            _ => self.chains[chain] = wait.next,
        }
        match self.waits.get_mut(wait.older as usize) {
            Some(Some(older)) => older.newer = wait.newer,
            _ => self.oldest = wait.newer,
        }
        match self.waits.get_mut(wait.newer as usize) {
            Some(Some(newer)) => newer.older = wait.older,
            _ => self.newest = wait.older,
        }
        self.waiting -= 1;
        self.counts[wait.hashed.nic.0 as usize] -= 1;
        self.leaving.push_back((Ticket(at), how));
    }

    /// Who lies before one in its chain; [`NIL`] for the first.
    fn in_chain_before(&self, chain: usize, at: u32) -> u32 {
        let (mut before, mut next) = (NIL, self.chains[chain]);
        while next != at {
            let Some(wait) = self.get(next) else { break };
            (before, next) = (next, wait.next);
        }
        before
    }

    /// The next who leaves; its place is free.
    pub fn next_leaving(&mut self) -> Option<(Ticket, Leave)> {
        let (ticket, how) = self.leaving.pop_front()?;
        self.free.push(ticket.0);
        Some((ticket, how))
    }

    /// Frames of a NIC that wait.
    pub fn of_nic(&self, nic: NicSlot) -> u16 {
        self.counts[nic.0 as usize]
    }
}
