//! Later fragments that came ahead of their first one (semantics 4.6): which wait for which, how
//! long, and what bounds them. The frames themselves are [`crate::held_frames`]'s, by the same
//! numbers.

use std::collections::VecDeque;

use crate::NicSlot;
use crate::counters::MAX_NICS;
use crate::fragment_cache::{FragmentKey, Hashed};
use crate::io::BURST;
use crate::time::{Now, TICKS_PER_SECOND, reached};

/// Fragments that one worker holds at most, of all NICs together.
pub const MAX_HELD: usize = 1024;
/// Fragments that it holds at most of one NIC.
pub const MAX_HELD_PER_NIC: u16 = 256;
/// Fragments that it holds at most of one packet: 64 kB in pieces of IPv6's least MTU are 53.
pub const MAX_HELD_PER_PACKET: usize = 64;
/// Fragments in one chain at most: what a look-up walks. Nobody can foresee which packets share a
/// chain.
const CHAIN: usize = 4 * MAX_HELD_PER_PACKET;
/// How long, in ticks.
pub const HOLD_TICKS: u32 = TICKS_PER_SECOND;
/// Places beside those: for what waits no more and is not judged yet.
const LEAVING: usize = 2 * BURST;
/// Frames that a worker has in hand because of fragments, at most.
pub const SLOTS: usize = MAX_HELD + LEAVING;
/// Chains of what waits, by hash.
const CHAINS: usize = 1024;
/// Places that a full worker looks at for a newcomer, so far from each other that they lie all over
/// the table.
const SAMPLE: usize = 16;
const STRIDE: usize = SLOTS / SAMPLE - 1;
const NIL: u32 = u32::MAX;

/// The number under which a frame waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u32);

/// What becomes of a frame that waits no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Its first has been judged here: it follows.
    Here,
    /// Its first went to this worker.
    ToWorker(u32),
    /// Its time is over, or others need its place.
    Expired,
}

#[derive(Clone, Copy)]
struct QueuedFragment {
    hashed: Hashed<FragmentKey>,
    deadline: u32,
    /// Neighbours in order of arrival.
    older: u32,
    newer: u32,
    /// The next in its chain.
    next: u32,
}

/// Who waits.
pub struct FragmentQueue {
    /// By ticket: who waits, none for one that is free or leaves.
    queued: Box<[Option<QueuedFragment>]>,
    free: Vec<u32>,
    chains: Box<[u32]>,
    oldest: u32,
    newest: u32,
    /// By NIC.
    counts: Box<[u16]>,
    waiting: usize,
    released: VecDeque<(Ticket, Release)>,
    /// Where the next sample begins.
    hand: usize,
}

impl Default for FragmentQueue {
    fn default() -> Self {
        FragmentQueue {
            queued: vec![None; SLOTS].into_boxed_slice(),
            free: (0..SLOTS as u32).rev().collect(),
            chains: vec![NIL; CHAINS].into_boxed_slice(),
            oldest: NIL,
            newest: NIL,
            counts: vec![0; MAX_NICS].into_boxed_slice(),
            waiting: 0,
            released: VecDeque::with_capacity(SLOTS),
            hand: 0,
        }
    }
}

impl FragmentQueue {
    /// True without anybody who waits or leaves.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting == 0 && self.released.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// True if somebody waits no more and was not taken yet.
    #[inline]
    pub fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// The tick at which the oldest one's time is over.
    pub fn next_deadline(&self) -> Option<u32> {
        self.get(self.oldest).map(|wait| wait.deadline)
    }

    fn get(&self, at: u32) -> Option<&QueuedFragment> {
        self.queued.get(at as usize)?.as_ref()
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
        if count >= MAX_HELD_PER_NIC || of_packet >= MAX_HELD_PER_PACKET || in_chain >= CHAIN {
            return None;
        }
        if self.waiting >= MAX_HELD {
            self.make_room(count)?;
        }
        let at = self.free.pop()?;
        let chain = Self::chain(hashed.hash);
        self.queued[at as usize] = Some(QueuedFragment {
            hashed: *hashed,
            deadline: now.ceil.wrapping_add(HOLD_TICKS),
            older: self.newest,
            newer: NIL,
            next: std::mem::replace(&mut self.chains[chain], at),
        });
        match self.queued.get_mut(self.newest as usize) {
            Some(Some(newest)) => newest.newer = at,
            _ => self.oldest = at,
        }
        self.newest = at;
        self.waiting += 1;
        self.counts[hashed.nic.0 as usize] += 1;
        Some(Ticket(at))
    }

    /// Takes the place of somebody whose NIC has more than one frame more than the newcomer's
    /// `count`: of a bounded sample, the one that has most.
    fn make_room(&mut self, count: u16) -> Option<()> {
        let sample = (0..SAMPLE).map(|n| (self.hand + n * STRIDE) % SLOTS);
        let all = sample.filter_map(|at| {
            let nic = self.get(at as u32)?.hashed.nic;
            Some((self.counts[nic.0 as usize], at as u32))
        });
        let victim = all.max();
        self.hand = (self.hand + 1) % SLOTS;
        let (_, at) = victim.filter(|(most, _)| *most > count + 1)?;
        self.release_slot(at, Release::Expired);
        Some(())
    }

    /// A first fragment was judged, or sent on to another worker: those that wait for it follow,
    /// but for those whose time is over.
    pub fn release(&mut self, hashed: &Hashed<FragmentKey>, tick: u32, how: Release) {
        if self.waiting == 0 {
            return;
        }
        // In order of arrival: the chain has the newest first.
        let mut followers = [NIL; MAX_HELD_PER_PACKET];
        let mut count = 0;
        for at in self.in_chain(hashed.hash) {
            let is_one =
                |wait: &QueuedFragment| wait.hashed.key == hashed.key && !reached(tick, wait.deadline);
            if self.get(at).is_some_and(is_one) && count < followers.len() {
                followers[count] = at;
                count += 1;
            }
        }
        for at in followers[..count].iter().rev() {
            self.release_slot(*at, how);
        }
    }

    /// The first of this one has gone on to another worker.
    pub fn release_one(&mut self, Ticket(at): Ticket, how: Release) {
        self.release_slot(at, how);
    }

    /// Whose time is over leaves.
    pub fn expire(&mut self, tick: u32) {
        while self.next_deadline().is_some_and(|deadline| reached(tick, deadline)) {
            self.release_slot(self.oldest, Release::Expired);
        }
    }

    /// Everybody leaves.
    pub fn release_all(&mut self) {
        while self.oldest != NIL {
            self.release_slot(self.oldest, Release::Expired);
        }
    }

    fn release_slot(&mut self, at: u32, how: Release) {
        let Some(wait) = self.queued.get_mut(at as usize).and_then(Option::take) else { return };
        let chain = Self::chain(wait.hashed.hash);
        let before = self.in_chain_before(chain, at);
        match self.queued.get_mut(before as usize) {
            Some(Some(before)) => before.next = wait.next,
            _ => self.chains[chain] = wait.next,
        }
        match self.queued.get_mut(wait.older as usize) {
            Some(Some(older)) => older.newer = wait.newer,
            _ => self.oldest = wait.newer,
        }
        match self.queued.get_mut(wait.newer as usize) {
            Some(Some(newer)) => newer.older = wait.older,
            _ => self.newest = wait.older,
        }
        self.waiting -= 1;
        self.counts[wait.hashed.nic.0 as usize] -= 1;
        self.released.push_back((Ticket(at), how));
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
    pub fn next_released(&mut self) -> Option<(Ticket, Release)> {
        let (ticket, how) = self.released.pop_front()?;
        self.free.push(ticket.0);
        Some((ticket, how))
    }

    /// Frames of a NIC that wait.
    pub fn of_nic(&self, nic: NicSlot) -> u16 {
        self.counts[nic.0 as usize]
    }
}
