//! What connections carry, and telling it: a cold array beside the table, there only where somebody wants to know.
//!
//! Each entry's packets and bytes lie in 32 bytes that its worker alone writes, by plain stores. What has been told of them so far lies
//! apart, touched when a connection opens, is told, or ends. Tellings go into a bounded ring; one that finds it full is counted as lost,
//! and nobody waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::refusals::{Refusal, Refusals, Tuple};
use super::{Entry, FREE, OPENER, RESPONDER, Shard, Standing, State, prefetch, standing};
use crate::lane::Lane;
use crate::ring::Producer;
use crate::snapshot::Snapshot;
use crate::tally::How;
use crate::time::{Anchor, Now};
use crate::verdict::Verdict;
use crate::wheel::Class;
use crate::{FlowIndex, Generation, NicSlot, RuleId, Side, proto};

/// What one entry has carried; the first of two is what came from inside, the second from outside.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(32))]
pub struct Carried {
    bytes: [u64; 2],
    /// The low halves, which leave room for the rest in half a cache line.
    packets: [u32; 2],
    /// How often those went round.
    rounds: [u16; 2],
    /// The tick of the last packet.
    last: u32,
}

const _: () = assert!(size_of::<Carried>() == 32);

impl Carried {
    /// Counts one packet of so many bytes that came in by this side.
    #[inline(always)]
    pub fn count(&mut self, side: Side, bytes: u32, now: Now) {
        let way = side as usize;
        self.bytes[way] = self.bytes[way].wrapping_add(u64::from(bytes));
        self.packets[way] = self.packets[way].wrapping_add(1);
        self.rounds[way] = self.rounds[way].wrapping_add(u16::from(self.packets[way] == 0));
        self.last = now.tick;
    }

    /// Both ways.
    pub fn sums(&self) -> Sums {
        let packets = [0, 1].map(|way| u64::from(self.rounds[way]) << 32 | u64::from(self.packets[way]));
        Sums { packets, bytes: self.bytes }
    }
}

/// Packets and bytes, of frames without the check sequence (FCS): first those from inside, then those from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Packets.
    pub packets: [u64; 2],
    /// Bytes.
    pub bytes: [u64; 2],
}

impl Sums {
    /// These, less what was before.
    fn since(&self, before: &Sums) -> Sums {
        let less = |a: [u64; 2], b: [u64; 2]| [a[0].wrapping_sub(b[0]), a[1].wrapping_sub(b[1])];
        Sums { packets: less(self.packets, before.packets), bytes: less(self.bytes, before.bytes) }
    }

    fn is_zero(&self) -> bool {
        *self == Sums::default()
    }
}

/// What has been told of an entry.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    sums: Sums,
    /// The tick at which it opened.
    opened: u32,
    /// The tick at which it was last told, or opened.
    since: u32,
    /// The generation under which it opened.
    generation: Generation,
    /// Its end has been told; what comes behind is a rest.
    is_over: bool,
}

/// Why a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has ended.
    Ended(How),
    /// An interval has.
    Active,
}

impl Why {
    /// As records call it.
    pub fn name(self) -> &'static str {
        match self {
            Why::Ended(how) => how.name(),
            Why::Active => "active",
        }
    }
}

/// What a connection has carried since it was last told.
#[derive(Clone, Copy, Debug)]
pub struct Telling {
    /// Whose it is.
    pub nic: NicSlot,
    /// The rule that let it open.
    pub rule: RuleId,
    /// The generation under which it opened.
    pub generation: Generation,
    /// IP protocol.
    pub protocol: u8,
    /// IPv6.
    pub v6: bool,
    /// The opening packet was inbound.
    pub inbound: bool,
    /// Why it is told.
    pub why: Why,
    /// Of ICMP: type × 256 + code of the request that opened it.
    pub icmp: u16,
    /// See [`Entry::ports`].
    pub ports: u32,
    /// The NIC's address.
    pub local: u128,
    /// The other side's.
    pub remote: u128,
    /// What it has carried since it was last told.
    pub sums: Sums,
    /// When it opened, in nanoseconds of its worker's clock, to an eighth of a second.
    pub opened_ns: u64,
    /// When it was last told, or opened.
    pub since_ns: u64,
    /// When its last packet came.
    pub last_ns: u64,
}

/// What is told.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    /// A connection.
    Connection(Telling),
    /// Refused packets of one tuple, with the nanoseconds of the first and the last.
    Refusal(Refusal, [u64; 2]),
}

/// What the control side and one worker tell each other about tellings.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Whenever it changes, everything that has carried something is told once.
    round: AtomicU32,
    /// Tellings that found the ring full.
    lost: AtomicU64,
}

impl Wishes {
    /// Has the worker tell of every connection that has carried something, in slices between its bursts.
    pub fn ask(&self) {
        self.round.fetch_add(1, Relaxed);
    }

    /// Tellings lost since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

/// Where tellings go.
struct Teller {
    ring: Producer<Told>,
    wishes: Arc<Wishes>,
    refusals: Refusals,
    /// The round that was begun last.
    round: u32,
    /// Where its walk goes on, over the entries and over the refusals; `None` once it is over.
    at: Option<[u32; 2]>,
}

impl Teller {
    /// Tells of refusals at some of the places from one on, as far as there is room; the place to go on from.
    fn tell_refusals(&mut self, from: u32, slice: u32, anchor: &Anchor) -> u32 {
        let end = from.saturating_add(slice).min(self.refusals.len());
        for place in from..end {
            let Some(refusal) = self.refusals.take(place) else { continue };
            if self.ring.push(Told::Refusal(refusal, refusal.ticks.map(|tick| anchor.ns_of(tick)))).is_err() {
                self.refusals.put_back(place, refusal);
                return place;
            }
        }
        end
    }

    /// One that finds the ring full is lost.
    fn tell_or_lose(&mut self, told: Told) -> bool {
        let is_told = self.ring.push(told).is_ok();
        if !is_told {
            self.wishes.lost.store(self.wishes.lost.load(Relaxed) + 1, Relaxed);
        }
        is_told
    }
}

/// A shard's part of all this.
#[derive(Default)]
pub struct Flows {
    pub(super) carried: Box<[Carried]>,
    known: Box<[Known]>,
    teller: Option<Teller>,
    anchor: Anchor,
}

impl Flows {
    /// For so many entries.
    pub fn new(capacity: u32) -> Flows {
        let capacity = capacity as usize;
        Flows {
            carried: crate::pages::filled_on_huge_pages(Carried::default(), capacity),
            known: vec![Known::default(); capacity].into_boxed_slice(),
            ..Flows::default()
        }
    }

    pub(super) fn touch(&mut self) {
        crate::pages::touch(&mut self.carried);
        crate::pages::touch(&mut self.known);
    }
}

/// Asks for the line that counts what the entry carries that a hint means.
#[inline(always)]
pub(super) fn prefetch_carried(carried: &[Carried], hint: u32) {
    prefetch(carried.as_ptr().wrapping_add(hint as usize));
}

impl Shard {
    /// True if it counts what connections carry.
    #[inline]
    pub fn counts(&self) -> bool {
        !self.flows.carried.is_empty()
    }

    /// Asks for the line that counts what the entry carries that a hint means.
    #[inline]
    pub fn prefetch_carried(&self, hint: u32) {
        prefetch_carried(&self.flows.carried, hint);
    }

    /// From here on connections are told by this ring, as they end and as they are asked for. For a shard that counts.
    pub fn tell_by(&mut self, ring: Producer<Told>, wishes: Arc<Wishes>) {
        let refusals = Refusals::new(&self.secret);
        self.flows.teller = Some(Teller { ring, wishes, refusals, round: 0, at: None });
    }

    /// True if refused packets are to be counted.
    #[inline]
    pub fn counts_refusals(&self) -> bool {
        self.flows.teller.is_some()
    }

    /// Counts a packet that was refused.
    pub fn count_refusal(&mut self, lane: &Lane, verdict: &Verdict, generation: Generation) {
        let Flows { teller, anchor, .. } = &mut self.flows;
        let Some(teller) = teller else { return };
        let tuple = Tuple::of(lane, verdict);
        if let Some(driven_out) = teller.refusals.count(&tuple, lane.len, generation, lane.now) {
            teller.tell_or_lose(Told::Refusal(driven_out, driven_out.ticks.map(|tick| anchor.ns_of(tick))));
        }
    }

    /// The worker's clock, for whoever is told of ticks.
    #[inline]
    pub fn set_anchor(&mut self, anchor: Anchor) {
        self.flows.anchor = anchor;
    }

    /// What a connection has carried; `None` if it is not counted.
    pub fn carried(&self, flow: FlowIndex) -> Option<Sums> {
        self.flows.carried.get(flow.0 as usize).map(Carried::sums)
    }

    /// A connection has opened at this place.
    #[inline]
    pub(super) fn begin_flow(&mut self, place: u32, now: Now) {
        if let Some(carried) = self.flows.carried.get_mut(place as usize) {
            *carried = Carried { last: now.tick, ..Carried::default() };
            let generation = self.entries[place as usize].stamp;
            self.flows.known[place as usize] =
                Known { opened: now.tick, since: now.tick, generation, ..Known::default() };
        }
    }

    /// Counts a packet of a connection, and tells of its end if this was what was left to be acknowledged.
    pub fn count(&mut self, flow: FlowIndex, lane: &Lane, snapshot: &Snapshot) {
        let Some(carried) = self.flows.carried.get_mut(flow.0 as usize) else { return };
        carried.count(lane.side, lane.len, lane.now);
        let entry = self.entry(flow);
        if entry.state() == State::Closing && is_over(entry) && !self.flows.known[flow.0 as usize].is_over {
            self.tell(flow, Why::Ended(How::Closed), snapshot);
        }
    }

    /// Tells of an entry's end, but where it has been told and nothing has come since.
    pub(super) fn tell_end(&mut self, flow: FlowIndex, how: How, snapshot: &Snapshot) {
        let Some(known) = self.flows.known.get(flow.0 as usize) else { return };
        let place = flow.0 as usize;
        if known.is_over && self.flows.carried[place].sums().since(&known.sums).is_zero() {
            return;
        }
        let entry = self.entry(flow);
        // The sweep may not have come by yet.
        let how = match (how, standing(entry, snapshot.binding(entry.addr), snapshot)) {
            (How::Reset, _) => How::Reset,
            (_, Standing::Tombstone | Standing::Ended) => How::Flushed,
            (How::Expired, _) if entry.state() == State::Closing => How::Closed,
            _ => how,
        };
        self.tell(flow, Why::Ended(how), snapshot);
    }

    /// A change has disconnected it: that is its end, whatever becomes of its tombstone.
    pub(super) fn tell_flushed(&mut self, flow: FlowIndex, snapshot: &Snapshot) {
        let Some(known) = self.flows.known.get(flow.0 as usize) else { return };
        let sums = self.flows.carried[flow.0 as usize].sums();
        if !known.is_over || !sums.since(&known.sums).is_zero() {
            self.tell(flow, Why::Ended(How::Flushed), snapshot);
        }
    }

    /// The end of the entry at this place was told by a former process.
    pub(super) fn end_was_told(&mut self, flow: FlowIndex) {
        if let Some(known) = self.flows.known.get_mut(flow.0 as usize) {
            known.is_over = true;
        }
    }

    /// A rollback has brought it back: it will end once more.
    pub(super) fn resume_flow(&mut self, flow: FlowIndex) {
        if let Some(known) = self.flows.known.get_mut(flow.0 as usize) {
            known.is_over = false;
        }
    }

    /// Tells what an entry has carried since it was last told. False if the ring is full: an end is lost then, an interval is not.
    fn tell(&mut self, flow: FlowIndex, why: Why, snapshot: &Snapshot) -> bool {
        let place = flow.0 as usize;
        let (entry, remote) = (self.entries[place], self.remote(flow));
        let Flows { carried, known, teller, anchor } = &mut self.flows;
        let (Some(teller), Some(known)) = (teller, known.get_mut(place)) else { return true };
        let (carried, binding) = (carried[place], snapshot.binding(entry.addr));
        let sums = carried.sums();
        let telling = Telling {
            nic: binding.nic,
            rule: entry.rule(),
            generation: known.generation,
            protocol: entry.protocol(),
            v6: entry.is_v6(),
            inbound: entry.is_inbound(),
            why,
            icmp: if is_icmp(&entry) { entry.syn_seq as u16 } else { 0 },
            ports: entry.ports,
            local: binding.addr,
            remote,
            sums: sums.since(&known.sums),
            opened_ns: anchor.ns_of(known.opened),
            since_ns: anchor.ns_of(known.since),
            last_ns: anchor.ns_of(carried.last),
        };
        let told = Told::Connection(telling);
        if why == Why::Active && !teller.ring.has_room(1) {
            return false;
        }
        let is_told = teller.tell_or_lose(told);
        known.sums = sums;
        known.since = anchor.tick;
        known.is_over |= why != Why::Active;
        is_told
    }

    /// Shows what was told in this turn, and goes on with what the control side asked for: over at most so many places.
    pub fn go_on_telling(&mut self, snapshot: &Snapshot, slice: u32) {
        let Some(teller) = &mut self.flows.teller else { return };
        let round = teller.wishes.round.load(Relaxed);
        if round != teller.round && teller.at.is_none() {
            (teller.round, teller.at) = (round, Some([0; 2]));
        }
        if teller.at.is_some() {
            self.walk(snapshot, slice);
        }
        if let Some(teller) = &mut self.flows.teller {
            teller.ring.publish();
        }
    }

    /// Tells of everything that has carried something; false if the ring is too full for all of it: to be called again then.
    pub fn tell_all(&mut self, snapshot: &Snapshot) -> bool {
        let Some(teller) = &mut self.flows.teller else { return true };
        teller.at.get_or_insert([0; 2]);
        self.walk(snapshot, u32::MAX);
        let Some(teller) = &mut self.flows.teller else { return true };
        teller.ring.publish();
        teller.at.is_none()
    }

    /// Goes on with the walk; it rests where the ring is full.
    fn walk(&mut self, snapshot: &Snapshot, slice: u32) {
        let Some([from, refused]) = self.flows.teller.as_ref().and_then(|teller| teller.at) else { return };
        let end = from.saturating_add(slice).min(self.entries.len() as u32);
        let mut at = from;
        while at < end && self.tell_active(FlowIndex(at), snapshot) {
            at += 1;
        }
        let all = self.entries.len() as u32;
        let Flows { teller: Some(teller), anchor, .. } = &mut self.flows else { return };
        let refused = teller.tell_refusals(refused, slice, anchor);
        teller.at = (at < all || refused < teller.refusals.len()).then_some([at, refused]);
    }

    fn tell_active(&mut self, flow: FlowIndex, snapshot: &Snapshot) -> bool {
        let place = flow.0 as usize;
        let entry = &self.entries[place];
        let is_live = entry.addr != FREE && matches!(entry.class(), Class::Confirmed | Class::Unconfirmed);
        let known = &self.flows.known[place];
        let has_carried = !self.flows.carried[place].sums().since(&known.sums).is_zero();
        if !is_live || known.is_over || !has_carried {
            return true;
        }
        self.tell(flow, Why::Active, snapshot)
    }
}

/// True once both ends have acknowledged the other's FIN.
fn is_over(entry: &Entry) -> bool {
    let [opener, responder] = [OPENER, RESPONDER].map(|who| &entry.windows[who]);
    opener.acked == responder.end && responder.acked == opener.end
}

fn is_icmp(entry: &Entry) -> bool {
    entry.protocol() == if entry.is_v6() { proto::ICMPV6 } else { proto::ICMP }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_beyond_four_billions() {
        let mut carried = Carried { packets: [u32::MAX, 7], ..Carried::default() };
        carried.count(Side::Inside, 60, Now { tick: 5, up: 6 });
        carried.count(Side::Outside, 1500, Now { tick: 9, up: 9 });
        assert_eq!(carried.sums(), Sums { packets: [1 << 32, 8], bytes: [60, 1500] });
        assert_eq!(carried.last, 9);
    }
}
