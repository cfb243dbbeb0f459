//! The verdict on one packet: its NIC, then its connection or the rules, in the order of semantics 2.1.

mod fragments;

use std::sync::Arc;

pub use fragments::is_remembered;

use crate::ahead::{Ahead, Guesses, Packets};
use crate::answers::{opening, refused};
use crate::cells::{Cells, Population};
use crate::classify::{Judgement, Query};
use crate::conntrack::{
    Entry, EntryKey, Key, NOTED, OPENER, RESPONDER, Shard, Standing, State, Table, demand, key_meta,
    opening_query, remote_digest, standing, without_demand,
};
use crate::fragments::{FragmentKey, Memory, Recent};
use crate::io::BURST;
use crate::lane::{Fragment, Lane, What, flags};
use crate::parse::icmp_kind;
use crate::quote::{self, Quote};
use crate::resolve::{resolve_plain, resolve_plain_v6};
use crate::snapshot::{Binding, Guess, Snapshot, SoleHolders};
use crate::tally::How;
use crate::tcp::{self, Outcome};
use crate::time::reached;
use crate::verdict::Verdict;
use crate::waits::{Ticket, Waits};
use crate::wheel::Class;
use crate::{Direction, FlowIndex, Reason, SegmentKey, Side, proto};

/// Local port × 65536 + remote port, or what stands for them in the key (semantics 4.1).
#[inline]
fn key_ports(lane: &Lane) -> u32 {
    let (sport, dport) = (u32::from(lane.sport), u32::from(lane.dport));
    match lane.what {
        What::Tcp | What::Ports | What::DhcpClient => match lane.side {
            Side::Inside => sport << 16 | dport,
            Side::Outside => dport << 16 | sport,
        },
        What::IcmpRequest => icmp_key(lane.sport, (dport >> 8) as u8, lane.side.direction()),
        What::IcmpReply => {
            let kind = icmp_kind((dport >> 8) as u8, lane.v6);
            icmp_key(lane.sport, kind, lane.side.direction().reverse())
        }
        _ => 0,
    }
}

#[inline]
fn icmp_key(identifier: u16, kind: u8, asked: Direction) -> u32 {
    u32::from(identifier) << 16 | u32::from(kind) << 8 | u32::from(asked == Direction::Inbound)
}

/// The way of nearly every packet, cut short: TCP data or UDP, in whatever segment, of a connection that both sides have
/// confirmed and no change has touched. False leaves the packet, unchanged, to [`Judge::judge`], which would say the same of
/// those that are true here (the oracle's tests run through both).
///
/// # Safety
/// With `V3` the processor has x86-64-v3.
#[inline(always)]
unsafe fn established<const V3: bool>(
    table: &mut Table<'_>,
    lane: &Lane,
    nic: &Binding,
    ahead: &Ahead<'_>,
    hint: u32,
) -> bool {
    let tcp_timeout = table.timeouts[State::Established as usize];
    let udp_timeout = table.timeouts[State::TwoWay as usize];
    // SAFETY: as the caller says.
    let found = unsafe { table.plainly_at::<V3>(hint, &ahead.key, || lane.remote()) };
    let Some(entry) = found else { return false };
    // One branch for both, which always goes the same way: who opened the connection cannot be foreseen.
    let is_disconnected = entry.is_inbound() & (entry.stamp < nic.flush.max(nic.rejudge));
    if is_disconnected | reached(lane.now.tick, entry.deadline) {
        return false;
    }
    // Which is what the key demands.
    let timeout = if entry.state() == State::Established {
        // SAFETY: as the caller says.
        if !unsafe { tcp::plain_data::<V3>(entry, lane) } {
            return false;
        }
        tcp_timeout
    } else {
        udp_timeout
    };
    entry.deadline = lane.now.up.wrapping_add(timeout);
    true
}

/// IPv6 packets one after the other whose NICs are asked for before the first of them is needed.
const V6_RUN: usize = 16;

/// What opens or belongs to connections, on one worker.
pub struct Judge {
    /// Connections.
    pub shard: Shard,
    fragments: Recent<FragmentKey, Memory>,
    /// Fragments that came ahead of their first.
    pub waits: Waits,
    /// Of the fragment just judged, if it is to wait.
    pub ticket: Option<Ticket>,
    population: Arc<Population>,
    /// The connection that the packet just judged passed as part of: asked for of first fragments only, and kept out of
    /// the verdict, which so comes back in registers.
    flow: Option<FlowIndex>,
    /// A mid-stream segment may open a connection just now.
    pub loose_pickup: bool,
}

impl Judge {
    /// On an empty shard.
    pub fn new(shard: Shard, population: Arc<Population>) -> Judge {
        Judge {
            shard,
            fragments: Recent::new(),
            waits: Waits::default(),
            ticket: None,
            population,
            flow: None,
            loose_pickup: false,
        }
    }

    /// Has the memory of its tables backed, so that no packet waits for a page.
    pub fn touch(&mut self) {
        self.shard.touch();
        self.fragments.touch();
    }

    /// What can be worked out before anything is looked up.
    #[inline]
    pub fn ahead<'s>(&self, lane: &Lane, nic: &'s Binding) -> Ahead<'s> {
        let (remote, ports, meta) = (lane.remote(), key_ports(lane), key_meta(lane.proto, lane.v6));
        let demanding = meta | demand(lane.demands());
        let key = EntryKey::new(nic.id, remote_digest(remote, meta), ports, demanding);
        Ahead { key, hash: self.shard.hash(nic.id, remote, ports, lane.proto, lane.v6), nic: Some(nic) }
    }

    /// Plain packets of one segment one after the other from `first` on, each with what is known ahead of its verdict and its bucket
    /// asked for; the place of the first of another segment or that has to go the long way, or of the end. In a loop of its own, so
    /// that what all of them need stays in registers.
    #[inline(always)]
    pub fn resolve_plain_ones<'s>(
        &self,
        holders: &SoleHolders<'s>,
        guesses: &mut Guesses,
        first: usize,
        lanes: &[Lane],
        aheads: &mut [Ahead<'s>; BURST],
    ) -> usize {
        let homes = self.shard.homes();
        let (segment, count) = (guesses.segment(), lanes.len().min(BURST));
        let mut place = first;
        while place < count {
            let until = guesses.look_ahead(holders, place, lanes).min(count);
            while place < until {
                let (lane, guess) = (&lanes[place], guesses.of(place));
                let is_one = lane.plain && lane.segment == segment;
                let nic = if is_one { resolve_plain(holders, lane, guess) } else { None };
                let Some(nic) = nic else { return place };
                let key = lane.ends.key(nic.id);
                let hash = homes.hash_v4(&key);
                homes.prefetch(hash);
                aheads[place] = Ahead { key, hash, nic: Some(nic) };
                place += 1;
            }
        }
        count
    }

    /// The same of plain IPv6 packets.
    #[inline(always)]
    pub fn resolve_plain_v6_ones<'s>(
        &self,
        holders: &SoleHolders<'s>,
        segment: SegmentKey,
        first: usize,
        lanes: &[Lane],
        aheads: &mut [Ahead<'s>; BURST],
    ) -> usize {
        let homes = self.shard.homes();
        let is_one = |lane: &&Lane| lane.is_plain_v6() && lane.segment == segment;
        let run = lanes[first..].iter().take(V6_RUN).take_while(is_one);
        let mut guesses = [Guess::default(); V6_RUN];
        let mut count = 0;
        for (guess, lane) in guesses.iter_mut().zip(run) {
            *guess = holders.guess_v6(lane.local());
            count += 1;
        }
        for (place, guess) in (first..).zip(&guesses[..count]) {
            let lane = &lanes[place];
            let Some(nic) = resolve_plain_v6(holders, lane, *guess) else { return place };
            let (remote, ports, meta) = (lane.remote(), key_ports(lane), key_meta(lane.proto, true));
            let key =
                EntryKey::new(nic.id, remote_digest(remote, meta), ports, meta | demand(lane.demands()));
            let hash = homes.hash_v6(nic.id, remote, ports, lane.proto);
            homes.prefetch(hash);
            aheads[place] = Ahead { key, hash, nic: Some(nic) };
        }
        first + count
    }

    /// The key under which a packet's connection is looked up.
    #[inline]
    pub fn key(&self, lane: &Lane, &Ahead { key, hash, .. }: &Ahead<'_>) -> Key {
        let meta = without_demand(key.meta());
        Key { addr: key.addr(), remote: lane.remote(), ports: key.ports(), meta, hash }
    }

    /// The verdict on a packet of a NIC; `answer` is what the rules say, if they were asked already.
    #[inline]
    pub fn judge(
        &mut self,
        snapshot: &Snapshot,
        lane: &Lane,
        nic: &Binding,
        key: &Key,
        bytes: &[u8],
        answer: Option<Judgement>,
    ) -> Verdict {
        match lane.fragment {
            Fragment::Whole => self.packet(snapshot, lane, nic, key, bytes, answer),
            Fragment::First => {
                self.flow = None;
                let verdict = self.packet(snapshot, lane, nic, key, bytes, answer);
                self.remember(snapshot, lane, nic, verdict, self.flow);
                verdict
            }
            Fragment::Later => self.later_fragment(snapshot, lane, nic),
        }
    }

    /// Packets of established connections one after the other from `first` on, judged and counted; the place of the first that has to
    /// go the long way, or of the end. In a loop of its own, as [`Judge::resolve_plain_ones`].
    ///
    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    pub unsafe fn established_ones<const V3: bool>(
        &mut self,
        cells: &Cells,
        first: usize,
        packets: &Packets<'_, '_>,
        verdicts: &mut [Verdict; BURST],
        meanwhile: &impl Fn(usize),
    ) -> usize {
        // Of its own where connections are counted, so that the other knows nothing of it.
        if self.shard.counts() {
            // SAFETY: as the caller says.
            unsafe { self.established_run::<V3, true>(cells, first, packets, verdicts, meanwhile) }
        } else {
            // SAFETY: as the caller says.
            unsafe { self.established_run::<V3, false>(cells, first, packets, verdicts, meanwhile) }
        }
    }

    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    unsafe fn established_run<const V3: bool, const COUNT: bool>(
        &mut self,
        cells: &Cells,
        first: usize,
        packets: &Packets<'_, '_>,
        verdicts: &mut [Verdict; BURST],
        meanwhile: &impl Fn(usize),
    ) -> usize {
        let mut table = self.shard.table();
        let Some(counts) = cells.established() else { return first };
        let count = packets.lanes.len().min(BURST);
        // By the place: iterators over all of these took 19 instructions a packet more.
        let mut place = first;
        while place < count {
            let (lane, ahead) = (&packets.lanes[place], &packets.aheads[place]);
            let Some(nic) = ahead.nic else { return place };
            // SAFETY: as the caller says.
            if !unsafe { established::<V3>(&mut table, lane, nic, ahead, packets.hints[place]) } {
                return place;
            }
            verdicts[place] = Verdict::of(Reason::Established, nic.nic);
            counts.count(nic.nic, lane.side, lane.len);
            if COUNT && let Some(carried) = table.carried.get_mut(packets.hints[place] as usize) {
                carried.count(lane.side, lane.len, lane.now);
            }
            packets.ask_ahead(place, |hint| {
                table.prefetch(hint, packets.is_any_v6);
                if COUNT {
                    table.prefetch_carried(hint);
                }
            });
            meanwhile(place);
            place += 1;
        }
        count
    }

    /// Forgets whose the packet judged last was.
    #[inline]
    pub fn forget_flow(&mut self) {
        self.flow = None;
    }

    /// Counts a packet that has passed as part of a connection. One of an RST that ended it is counted by then; ICMP errors about it
    /// are none of its packets.
    pub fn count_flow(&mut self, snapshot: &Snapshot, lane: &Lane, verdict: &Verdict) {
        let is_part = matches!(verdict.reason, Reason::Established | Reason::New | Reason::Fragment);
        if let Some(flow) = self.flow.filter(|_| is_part) {
            self.shard.count(flow, lane, snapshot);
        }
    }

    /// The verdict; the connection that the packet passed as part of is left in `flow`.
    #[inline]
    fn packet(
        &mut self,
        snapshot: &Snapshot,
        lane: &Lane,
        nic: &Binding,
        key: &Key,
        bytes: &[u8],
        answer: Option<Judgement>,
    ) -> Verdict {
        let drop = |reason| Verdict::of(reason, nic.nic);
        match lane.what {
            What::Tcp if tcp::impossible(lane.flags) => return drop(Reason::Invalid),
            What::IcmpError => return self.icmp_error(snapshot, lane, nic, bytes),
            What::IcmpOther => return drop(Reason::Invalid),
            _ => {}
        }
        if let Some(flow) = self.shard.find(key) {
            if self.shard.is_expired(flow, lane.now) {
                self.shard.end(flow, How::Expired, snapshot);
            } else {
                return match self.settle(snapshot, nic, flow) {
                    Standing::Live => self.on_connection(snapshot, lane, nic, flow),
                    _ => drop(Reason::Tombstone),
                };
            }
        }
        self.open(snapshot, lane, nic, key, answer)
    }

    /// Whether a connection that has not expired is live, asking the rules again where that is due (semantics 5.4).
    #[inline]
    fn settle(&mut self, snapshot: &Snapshot, nic: &Binding, flow: FlowIndex) -> Standing {
        // A rollback has brought its NIC back, and the sweep has not come by yet.
        if self.shard.entry(flow).class() == Class::Ended {
            self.shard.reclassify(flow, snapshot);
        }
        match standing(self.shard.entry(flow), nic, snapshot) {
            Standing::Rejudge => self.rejudge(snapshot, nic, flow),
            standing => standing,
        }
    }

    #[cold]
    fn rejudge(&mut self, snapshot: &Snapshot, nic: &Binding, flow: FlowIndex) -> Standing {
        let query = opening_query(self.shard.entry(flow), self.shard.remote(flow));
        match snapshot.policy(nic).judge(snapshot, nic.vpc, &query) {
            Judgement::Allow(_) => {
                self.shard.revive(flow, snapshot);
                Standing::Live
            }
            _ => {
                self.shard.kill(flow, snapshot);
                Standing::Tombstone
            }
        }
    }

    /// A packet whose connection is live.
    #[inline]
    fn on_connection(&mut self, snapshot: &Snapshot, lane: &Lane, nic: &Binding, flow: FlowIndex) -> Verdict {
        let is_kept = lane.what == What::Tcp && self.shard.is_kept();
        if is_kept {
            self.shard.begin_change(flow);
        }
        let (entry, noted) = self.shard.entry_and_noted(flow);
        let is_opener = (lane.side == Side::Outside) == entry.is_inbound();
        let before = entry.state();
        let outcome = if lane.what == What::Tcp {
            let from = if is_opener { OPENER } else { RESPONDER };
            tcp::step(entry, noted, lane, from, snapshot.settings.no_window_check)
        } else {
            if !is_opener {
                entry.set_state(match before {
                    State::OneWay => State::TwoWay,
                    State::Icmp => State::IcmpAnswered,
                    other => other,
                });
            }
            Outcome::Pass
        };
        if is_kept {
            self.shard.end_step();
        }
        let established = Verdict::of(Reason::Established, nic.nic);
        match outcome {
            Outcome::Pass => {
                self.shard.moved_on(flow, before, nic.nic, lane.now);
                self.flow = Some(flow);
                established
            }
            Outcome::Doubted => {
                self.shard.hasten(flow, lane.now);
                self.flow = Some(flow);
                established
            }
            Outcome::Quiet => {
                self.flow = Some(flow);
                established
            }
            Outcome::Invalid => Verdict::of(Reason::Invalid, nic.nic),
            Outcome::End => {
                self.shard.count(flow, lane, snapshot);
                self.shard.end(flow, How::Reset, snapshot);
                established
            }
            Outcome::Restart => self.restart(snapshot, lane, nic, flow, lane.side.direction()),
            Outcome::Reopen => self.restart(snapshot, lane, nic, flow, lane.side.direction().reverse()),
        }
    }

    /// A connection in the place of a live one: by a SYN after both FINs, or by the answer to a SYN that passed within
    /// it (semantics 4.3). `direction` is that of the SYN. If the rules refuse it, the old one stays as it was.
    #[cold]
    fn restart(
        &mut self,
        snapshot: &Snapshot,
        lane: &Lane,
        nic: &Binding,
        flow: FlowIndex,
        direction: Direction,
    ) -> Verdict {
        let old = *self.shard.entry(flow);
        let remote = lane.remote();
        let port = if direction == Direction::Inbound { old.ports >> 16 } else { old.ports } as u16;
        let query = Query { direction, v6: lane.v6, protocol: lane.proto, port, remote };
        let rule = match snapshot.policy(nic).judge(snapshot, nic.vpc, &query) {
            Judgement::Allow(rule) => rule,
            refusal => return refused(refusal, nic.nic),
        };
        let inbound = direction == Direction::Inbound;
        let mut entry = Entry::new(old.addr, old.remote, old.ports, old.key_meta(), inbound);
        entry.stamp = snapshot.generation;
        entry.set_rule(rule);
        if lane.flags & flags::ACK == 0 {
            tcp::open(&mut entry, lane);
        } else {
            tcp::reopen(&mut entry, self.shard.noted_syn(flow), old.scale(NOTED), lane);
        }
        self.shard.replace(flow, entry, snapshot, lane.now);
        self.flow = Some(flow);
        Verdict { rule, ..Verdict::of(Reason::New, nic.nic) }
    }

    /// A packet without a connection: it opens one, or drops.
    fn open(
        &mut self,
        snapshot: &Snapshot,
        lane: &Lane,
        nic: &Binding,
        key: &Key,
        answer: Option<Judgement>,
    ) -> Verdict {
        let drop = |reason| Verdict::of(reason, nic.nic);
        let is_pickup = lane.what == What::Tcp && !tcp::opens(lane.flags);
        if lane.what == What::IcmpReply || is_pickup && !(self.loose_pickup && lane.flags == flags::ACK) {
            return drop(Reason::Invalid);
        }
        let mut direction = lane.side.direction();
        let judge = |query: Query| snapshot.policy(nic).judge(snapshot, nic.vpc, &query);
        let query = opening(lane, key.remote);
        let mut judgement = answer.unwrap_or_else(|| judge(query));
        if is_pickup && direction == Direction::Outbound {
            // A segment of a server must not turn its client's connection into an outbound one, which no flush ends.
            let inbound = Query { direction: Direction::Inbound, port: lane.sport, ..query };
            if let Judgement::Allow(rule) = judge(inbound) {
                (direction, judgement) = (Direction::Inbound, Judgement::Allow(rule));
            }
        }
        let Judgement::Allow(rule) = judgement else { return refused(judgement, nic.nic) };
        let mut limit = u32::MAX;
        if nic.is_limited() {
            limit = snapshot.nic(nic.nic).max_connections;
            // What a change has ended or a rollback has brought back is to be counted as such, found or not.
            self.shard.sweep_for_room(snapshot);
        }
        if !self.population.enter(nic.nic, limit) && !self.enter_after_expiry(snapshot, lane, nic, limit) {
            return drop(Reason::NicLimit);
        }
        let digest = remote_digest(key.remote, key.meta);
        let mut entry = Entry::new(nic.id, digest, key.ports, key.meta, direction == Direction::Inbound);
        entry.stamp = snapshot.generation;
        entry.set_rule(rule);
        match lane.what {
            What::Tcp if is_pickup => {
                let is_opener = direction == lane.side.direction();
                tcp::pick_up(&mut entry, lane, if is_opener { OPENER } else { RESPONDER });
            }
            What::Tcp => tcp::open(&mut entry, lane),
            What::IcmpRequest => {
                entry.set_state(State::Icmp);
                entry.syn_seq = u32::from(lane.dport);
            }
            _ => entry.set_state(State::OneWay),
        }
        let Some(flow) = self.shard.admit(key, entry, snapshot, lane.now) else {
            self.population.leave(nic.nic);
            return drop(Reason::TableFull);
        };
        self.flow = Some(flow);
        Verdict { rule, ..Verdict::of(Reason::New, nic.nic) }
    }

    /// At a NIC's limit: what of its own has expired and was not found yet does not count.
    #[cold]
    fn enter_after_expiry(&mut self, snapshot: &Snapshot, lane: &Lane, nic: &Binding, limit: u32) -> bool {
        self.shard.expire_of(nic.nic, snapshot, lane.now);
        self.population.enter(nic.nic, limit)
    }

    /// An ICMP error: part of the connection of the packet that it quotes, or nothing (semantics 4.5).
    #[cold]
    fn icmp_error(&mut self, snapshot: &Snapshot, lane: &Lane, nic: &Binding, bytes: &[u8]) -> Verdict {
        match quote::read(lane, bytes).and_then(|quote| self.quoted_flow(snapshot, lane, nic, &quote)) {
            Some(flow) => {
                self.flow = Some(flow);
                Verdict::of(Reason::Related, nic.nic)
            }
            None => Verdict::of(Reason::Invalid, nic.nic),
        }
    }

    /// The key of the connection that a quoted packet is of; `None` if it is not this NIC's.
    pub fn quoted_key(&self, lane: &Lane, nic: &Binding, quote: &Quote) -> Option<Key> {
        // The quoted packet went the other way than the error.
        let direction = lane.side.direction().reverse();
        let (local, remote, local_port, remote_port) = match direction {
            Direction::Outbound => (quote.src, quote.dst, quote.sport, quote.dport),
            Direction::Inbound => (quote.dst, quote.src, quote.dport, quote.sport),
        };
        if local != lane.local() {
            return None;
        }
        let is_icmp = quote.proto == if lane.v6 { proto::ICMPV6 } else { proto::ICMP };
        let ports = if is_icmp {
            let asked = if quote.is_request { direction } else { direction.reverse() };
            icmp_key(quote.sport, quote.dport as u8, asked)
        } else {
            u32::from(local_port) << 16 | u32::from(remote_port)
        };
        Some(self.shard.key(nic.id, remote, ports, quote.proto, lane.v6))
    }

    fn quoted_flow(
        &mut self,
        snapshot: &Snapshot,
        lane: &Lane,
        nic: &Binding,
        quote: &Quote,
    ) -> Option<FlowIndex> {
        let direction = lane.side.direction().reverse();
        let key = self.quoted_key(lane, nic, quote)?;
        let flow = self.shard.find(&key).filter(|flow| !self.shard.is_expired(*flow, lane.now))?;
        if self.settle(snapshot, nic, flow) != Standing::Live {
            return None;
        }
        let entry = self.shard.entry(flow);
        let unchecked = snapshot.settings.no_window_check || entry.is_unchecked();
        if quote.proto == proto::TCP && !unchecked {
            let sender =
                if (direction == Direction::Inbound) == entry.is_inbound() { OPENER } else { RESPONDER };
            let noted = self.shard.noted_syn(flow);
            if !tcp::may_have_sent(entry, noted, quote.seq, sender) {
                return None;
            }
        }
        Some(flow)
    }
}
