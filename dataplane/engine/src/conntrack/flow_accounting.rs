//! What connections carry, and telling it: a cold array beside the table, there only where somebody
//! wants to know.
//!
//! Each entry's packets and bytes lie in 32 bytes that its worker alone writes, by plain stores.
//! What has been told of them so far lies apart, touched when a connection opens, is told, or ends.
//! Tellings go into a bounded ring; one that finds it full is counted as lost, and nobody waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::refusals::{RefusalCount, RefusalTable, RefusedTuple};
use super::{Entry, FREE, Liveness, OPENER, RESPONDER, Shard, State, liveness, prefetch};
use crate::packet::PacketMeta;
use crate::ring::Producer;
use crate::snapshot::Snapshot;
use crate::time::{Anchor, Now};
use crate::timer_wheel::EvictionClass;
use crate::verdict::Verdict;
use crate::worker_totals::EndCause;
use crate::{FlowIndex, Generation, NicSlot, RuleId, Side, proto};

/// What one entry has carried; the first of two is what came from inside, the second from outside.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(32))]
pub struct FlowCounters {
    bytes: [u64; 2],
    /// The low halves, which leave room for the rest in half a cache line.
    packets: [u32; 2],
    /// How often those went round.
    rounds: [u16; 2],
    /// The tick of the last packet.
    last: u32,
}

const _: () = assert!(size_of::<FlowCounters>() == 32);

impl FlowCounters {
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
    pub fn sums(&self) -> FlowTotals {
        let packets = [0, 1].map(|way| u64::from(self.rounds[way]) << 32 | u64::from(self.packets[way]));
        FlowTotals { packets, bytes: self.bytes }
    }
}

/// Packets and bytes, of frames without the check sequence (FCS): first those from inside, then
/// those from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowTotals {
    /// Packets.
    pub packets: [u64; 2],
    /// Bytes.
    pub bytes: [u64; 2],
}

impl FlowTotals {
    /// These, less what was before.
    fn since(&self, before: &FlowTotals) -> FlowTotals {
        let less = |a: [u64; 2], b: [u64; 2]| [a[0].wrapping_sub(b[0]), a[1].wrapping_sub(b[1])];
        FlowTotals { packets: less(self.packets, before.packets), bytes: less(self.bytes, before.bytes) }
    }

    fn is_zero(&self) -> bool {
        *self == FlowTotals::default()
    }
}

/// What has been told of an entry.
#[derive(Clone, Copy, Debug, Default)]
struct ReportedFlow {
    sums: FlowTotals,
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
pub enum FlowCause {
    /// It has ended.
    Ended(EndCause),
    /// An interval has.
    Active,
}

impl FlowCause {
    /// As records call it.
    pub fn name(self) -> &'static str {
        match self {
            FlowCause::Ended(how) => how.name(),
            FlowCause::Active => "active",
        }
    }
}

/// What a connection has carried since it was last told.
#[derive(Clone, Copy, Debug)]
pub struct FlowRecord {
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
    pub why: FlowCause,
    /// Of ICMP: type × 256 + code of the request that opened it.
    pub icmp: u16,
    /// See [`Entry::ports`].
    pub ports: u32,
    /// The NIC's address.
    pub local: u128,
    /// The other side's.
    pub remote: u128,
    /// What it has carried since it was last told.
    pub sums: FlowTotals,
    /// When it opened, in nanoseconds of its worker's clock, to an eighth of a second.
    pub opened_ns: u64,
    /// When it was last told, or opened.
    pub since_ns: u64,
    /// When its last packet came.
    pub last_ns: u64,
}

/// What is told.
#[derive(Clone, Copy, Debug)]
pub enum FlowEvent {
    /// A connection.
    Connection(FlowRecord),
    /// Refused packets of one tuple, with the nanoseconds of the first and the last.
    Refusal(RefusalCount, [u64; 2]),
}

/// What the control side and one worker tell each other about tellings.
#[derive(Debug, Default)]
pub struct FlowRequests {
    /// Whenever it changes, everything that has carried something is told once.
    round: AtomicU32,
    /// Tellings that found the ring full.
    lost: AtomicU64,
}

impl FlowRequests {
    /// Has the worker tell of every connection that has carried something, in slices between its
    /// bursts.
    pub fn request_round(&self) {
        self.round.fetch_add(1, Relaxed);
    }

    /// Tellings lost since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

/// Where tellings go.
struct FlowExporter {
    ring: Producer<FlowEvent>,
    requests: Arc<FlowRequests>,
    refusals: RefusalTable,
    /// The round that was begun last.
    round: u32,
    /// Where its walk goes on, over the entries and over the refusals; `None` once it is over.
    at: Option<[u32; 2]>,
}

impl FlowExporter {
    /// Tells of refusals at some of the places from one on, as far as there is room; the place to
    /// go on from.
    fn export_refusals(&mut self, from: u32, slice: u32, anchor: &Anchor) -> u32 {
        let end = from.saturating_add(slice).min(self.refusals.len());
        for place in from..end {
            let Some(refusal) = self.refusals.take(place) else { continue };
            if self
                .ring
                .push(FlowEvent::Refusal(refusal, refusal.ticks.map(|tick| anchor.ns_of(tick))))
                .is_err()
            {
                self.refusals.put_back(place, refusal);
                return place;
            }
        }
        end
    }

    /// One that finds the ring full is lost.
    fn push_or_lose(&mut self, told: FlowEvent) -> bool {
        let is_told = self.ring.push(told).is_ok();
        if !is_told {
            self.requests.lost.store(self.requests.lost.load(Relaxed) + 1, Relaxed);
        }
        is_told
    }
}

/// A shard's part of all this.
#[derive(Default)]
pub struct FlowAccounting {
    pub(super) counters: Box<[FlowCounters]>,
    reported: Box<[ReportedFlow]>,
    exporter: Option<FlowExporter>,
    anchor: Anchor,
}

impl FlowAccounting {
    /// For so many entries.
    pub fn new(capacity: u32) -> FlowAccounting {
        let capacity = capacity as usize;
        FlowAccounting {
            counters: crate::pages::filled_on_huge_pages(FlowCounters::default(), capacity),
            reported: vec![ReportedFlow::default(); capacity].into_boxed_slice(),
            ..FlowAccounting::default()
        }
    }

    pub(super) fn touch(&mut self) {
        crate::pages::touch(&mut self.counters);
        crate::pages::touch(&mut self.reported);
    }
}

/// Asks for the line that counts what the entry carries that a hint means.
#[inline(always)]
pub(super) fn prefetch_flow_counters(carried: &[FlowCounters], hint: u32) {
    prefetch(carried.as_ptr().wrapping_add(hint as usize));
}

impl Shard {
    /// True if it counts what connections carry.
    #[inline]
    pub fn counts_flows(&self) -> bool {
        !self.flows.counters.is_empty()
    }

    /// Asks for the line that counts what the entry carries that a hint means.
    #[inline]
    pub fn prefetch_flow_counters(&self, hint: u32) {
        prefetch_flow_counters(&self.flows.counters, hint);
    }

    /// From here on connections are told by this ring, as they end and as they are asked for. For a
    /// shard that counts.
    pub fn export_flows_to(&mut self, ring: Producer<FlowEvent>, wishes: Arc<FlowRequests>) {
        let refusals = RefusalTable::new(&self.secret);
        self.flows.exporter = Some(FlowExporter { ring, requests: wishes, refusals, round: 0, at: None });
    }

    /// True if refused packets are to be counted.
    #[inline]
    pub fn counts_refusals(&self) -> bool {
        self.flows.exporter.is_some()
    }

    /// Counts a packet that was refused.
    pub fn count_refusal(&mut self, pkt: &PacketMeta, verdict: &Verdict, generation: Generation) {
        let FlowAccounting { exporter: teller, anchor, .. } = &mut self.flows;
        let Some(teller) = teller else { return };
        let tuple = RefusedTuple::of(pkt, verdict);
        if let Some(driven_out) = teller.refusals.count(&tuple, pkt.len, generation, pkt.now) {
            teller.push_or_lose(FlowEvent::Refusal(
                driven_out,
                driven_out.ticks.map(|tick| anchor.ns_of(tick)),
            ));
        }
    }

    /// The worker's clock, for whoever is told of ticks.
    #[inline]
    pub fn set_anchor(&mut self, anchor: Anchor) {
        self.flows.anchor = anchor;
    }

    /// What a connection has carried; `None` if it is not counted.
    pub fn carried(&self, flow: FlowIndex) -> Option<FlowTotals> {
        self.flows.counters.get(flow.0 as usize).map(FlowCounters::sums)
    }

    /// A connection has opened at this place.
    #[inline]
    pub(super) fn begin_flow(&mut self, place: u32, now: Now) {
        if let Some(carried) = self.flows.counters.get_mut(place as usize) {
            *carried = FlowCounters { last: now.tick, ..FlowCounters::default() };
            let generation = self.entries[place as usize].stamp;
            self.flows.reported[place as usize] =
                ReportedFlow { opened: now.tick, since: now.tick, generation, ..ReportedFlow::default() };
        }
    }

    /// Counts a packet of a connection, and tells of its end if this was what was left to be
    /// acknowledged.
    pub fn count(&mut self, flow: FlowIndex, pkt: &PacketMeta, snapshot: &Snapshot) {
        let Some(carried) = self.flows.counters.get_mut(flow.0 as usize) else { return };
        carried.count(pkt.side, pkt.len, pkt.now);
        let entry = self.entry(flow);
        if entry.state() == State::Closing && is_over(entry) && !self.flows.reported[flow.0 as usize].is_over
        {
            self.export_flow(flow, FlowCause::Ended(EndCause::Closed), snapshot);
        }
    }

    /// Tells of an entry's end, but where it has been told and nothing has come since.
    pub(super) fn tell_end(&mut self, flow: FlowIndex, how: EndCause, snapshot: &Snapshot) {
        let Some(known) = self.flows.reported.get(flow.0 as usize) else { return };
        let place = flow.0 as usize;
        if known.is_over && self.flows.counters[place].sums().since(&known.sums).is_zero() {
            return;
        }
        let entry = self.entry(flow);
        // The sweep may not have come by yet.
        let how = match (how, liveness(entry, snapshot.binding(entry.addr), snapshot)) {
            (EndCause::Reset, _) => EndCause::Reset,
            (_, Liveness::Tombstone | Liveness::Ended) => EndCause::Flushed,
            (EndCause::Expired, _) if entry.state() == State::Closing => EndCause::Closed,
            _ => how,
        };
        self.export_flow(flow, FlowCause::Ended(how), snapshot);
    }

    /// A change has disconnected it: that is its end, whatever becomes of its tombstone.
    pub(super) fn export_flushed(&mut self, flow: FlowIndex, snapshot: &Snapshot) {
        let Some(known) = self.flows.reported.get(flow.0 as usize) else { return };
        let sums = self.flows.counters[flow.0 as usize].sums();
        if !known.is_over || !sums.since(&known.sums).is_zero() {
            self.export_flow(flow, FlowCause::Ended(EndCause::Flushed), snapshot);
        }
    }

    /// The end of the entry at this place was told by a former process.
    pub(super) fn mark_end_exported(&mut self, flow: FlowIndex) {
        if let Some(known) = self.flows.reported.get_mut(flow.0 as usize) {
            known.is_over = true;
        }
    }

    /// A rollback has brought it back: it will end once more.
    pub(super) fn resume_flow(&mut self, flow: FlowIndex) {
        if let Some(known) = self.flows.reported.get_mut(flow.0 as usize) {
            known.is_over = false;
        }
    }

    /// Tells what an entry has carried since it was last told. False if the ring is full: an end is
    /// lost then, an interval is not.
    fn export_flow(&mut self, flow: FlowIndex, why: FlowCause, snapshot: &Snapshot) -> bool {
        let place = flow.0 as usize;
        let (entry, remote) = (self.entries[place], self.remote(flow));
        let FlowAccounting { counters: carried, reported: known, exporter: teller, anchor } = &mut self.flows;
        let (Some(teller), Some(known)) = (teller, known.get_mut(place)) else { return true };
        let (carried, binding) = (carried[place], snapshot.binding(entry.addr));
        let sums = carried.sums();
        let telling = FlowRecord {
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
        let told = FlowEvent::Connection(telling);
        if why == FlowCause::Active && !teller.ring.has_room(1) {
            return false;
        }
        let is_told = teller.push_or_lose(told);
        known.sums = sums;
        known.since = anchor.tick;
        known.is_over |= why != FlowCause::Active;
        is_told
    }

    /// Shows what was told in this turn, and goes on with what the control side asked for: over at
    /// most so many places.
    pub fn continue_export(&mut self, snapshot: &Snapshot, slice: u32) {
        let Some(teller) = &mut self.flows.exporter else { return };
        let round = teller.requests.round.load(Relaxed);
        if round != teller.round && teller.at.is_none() {
            (teller.round, teller.at) = (round, Some([0; 2]));
        }
        if teller.at.is_some() {
            self.walk(snapshot, slice);
        }
        if let Some(teller) = &mut self.flows.exporter {
            teller.ring.publish();
        }
    }

    /// Tells of everything that has carried something; false if the ring is too full for all of it:
    /// to be called again then.
    pub fn export_all_flows(&mut self, snapshot: &Snapshot) -> bool {
        let Some(teller) = &mut self.flows.exporter else { return true };
        teller.at.get_or_insert([0; 2]);
        self.walk(snapshot, u32::MAX);
        let Some(teller) = &mut self.flows.exporter else { return true };
        teller.ring.publish();
        teller.at.is_none()
    }

    /// Goes on with the walk; it rests where the ring is full.
    fn walk(&mut self, snapshot: &Snapshot, slice: u32) {
        let Some([from, refused]) = self.flows.exporter.as_ref().and_then(|teller| teller.at) else { return };
        let end = from.saturating_add(slice).min(self.entries.len() as u32);
        let mut at = from;
        while at < end && self.export_active(FlowIndex(at), snapshot) {
            at += 1;
        }
        let all = self.entries.len() as u32;
        let FlowAccounting { exporter: Some(teller), anchor, .. } = &mut self.flows else { return };
        let refused = teller.export_refusals(refused, slice, anchor);
        teller.at = (at < all || refused < teller.refusals.len()).then_some([at, refused]);
    }

    fn export_active(&mut self, flow: FlowIndex, snapshot: &Snapshot) -> bool {
        let place = flow.0 as usize;
        let entry = &self.entries[place];
        let is_live = entry.addr != FREE
            && matches!(entry.class(), EvictionClass::Confirmed | EvictionClass::Unconfirmed);
        let known = &self.flows.reported[place];
        let has_carried = !self.flows.counters[place].sums().since(&known.sums).is_zero();
        if !is_live || known.is_over || !has_carried {
            return true;
        }
        self.export_flow(flow, FlowCause::Active, snapshot)
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
        let mut carried = FlowCounters { packets: [u32::MAX, 7], ..FlowCounters::default() };
        carried.count(Side::Inside, 60, Now { tick: 5, ceil: 6 });
        carried.count(Side::Outside, 1500, Now { tick: 9, ceil: 9 });
        assert_eq!(carried.sums(), FlowTotals { packets: [1 << 32, 8], bytes: [60, 1500] });
        assert_eq!(carried.last, 9);
    }
}
