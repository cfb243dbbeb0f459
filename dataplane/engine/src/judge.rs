//! The verdict on one packet: its NIC, then its connection or the rules, in the order of semantics 2.1.

use std::sync::Arc;

use crate::answers::{opening, refused};
use crate::cells::Population;
use crate::classify::{Judgement, Query};
use crate::conntrack::hash::NO_HASH;
use crate::conntrack::{
    Entry, EntryKey, FlowHash, Key, OPENER, RESPONDER, Shard, Standing, State, key_meta, opening_query,
    remote_digest, standing,
};
use crate::control;
use crate::fragments::{FragmentKey, Memory, Recent};
use crate::lane::{Ends, Fragment, Lane, What, flags};
use crate::parse::icmp_kind;
use crate::quote::{self, Quote};
use crate::snapshot::{ANY_MAC, Binding, Snapshot};
use crate::tcp::{self, Outcome};
use crate::time::reached;
use crate::verdict::Verdict;
use crate::wheel::Class;
use crate::{AddrId, Direction, FlowIndex, Reason, Side, VpcId, proto};

/// A packet after its NIC is known, or known not to matter.
pub enum Step<'s> {
    /// Judged already.
    Done(Verdict),
    /// To be judged as a packet of this NIC.
    Nic(&'s Binding),
}

/// Finds the packet's NIC (semantics 2.1–2.6). `bytes` are the frame's, for the few that are read again.
#[inline]
pub fn resolve<'s>(snapshot: &'s Snapshot, lane: &Lane, bytes: &[u8]) -> Step<'s> {
    if lane.what < What::LaterFragment || lane.link_local {
        return resolve_rare(snapshot, lane, bytes);
    }
    match snapshot.vpc_of(lane.segment) {
        Some(vpc) => resolve_nic(snapshot, lane, vpc),
        None => Step::Done(unknown_segment(snapshot)),
    }
}

/// [`resolve`] cut short for a plain packet of this VPC whose NIC has its address alone, and which is clearly not spoofed. `None`
/// leaves it to the long way, which says the same and more.
#[inline(always)]
pub fn resolve_plain<'s>(snapshot: &'s Snapshot, vpc: VpcId, lane: &Lane) -> Option<&'s Binding> {
    let nic = snapshot.sole_holder_v4(vpc, lane.ends.local)?;
    let is_clean = match lane.side {
        Side::Inside => nic.mac == lane.src_mac || nic.mac == ANY_MAC,
        Side::Outside => !snapshot.may_be_own(nic, u128::from(lane.ends.remote)),
    };
    is_clean.then_some(nic)
}

fn unknown_segment(snapshot: &Snapshot) -> Verdict {
    let pass = snapshot.settings.pass_unknown_segment;
    Verdict::nobody(if pass { Reason::Control } else { Reason::UnknownSegment })
}

#[cold]
fn resolve_rare<'s>(snapshot: &'s Snapshot, lane: &Lane, bytes: &[u8]) -> Step<'s> {
    let settings = &snapshot.settings;
    let done = |reason| Step::Done(Verdict::nobody(reason));
    match lane.what {
        _ if lane.link_local && settings.pass_link_local => return done(Reason::Control),
        What::LinkCut => return done(Reason::Malformed),
        What::BadSegment => return Step::Done(unknown_segment(snapshot)),
        What::Underlay => return done(Reason::Control),
        _ => {}
    }
    let Some(vpc) = snapshot.vpc_of(lane.segment) else { return Step::Done(unknown_segment(snapshot)) };
    match lane.what {
        What::NotIp if settings.pass_ethertypes.contains(&lane.dport) => done(Reason::Control),
        What::NotIp => done(Reason::NotIp),
        What::Arp => Step::Done(control::arp(snapshot, vpc, lane, bytes)),
        What::Malformed => done(Reason::Malformed),
        What::Nd if !control::nd_is_sound(lane, bytes) => done(Reason::Malformed),
        What::Nd | What::DhcpClient | What::DhcpServer | What::Multicast => {
            match control::ip(snapshot, vpc, lane, bytes) {
                Some(verdict) => Step::Done(verdict),
                None => resolve_nic(snapshot, lane, vpc),
            }
        }
        _ => resolve_nic(snapshot, lane, vpc),
    }
}

#[inline]
fn resolve_nic<'s>(snapshot: &'s Snapshot, lane: &Lane, vpc: VpcId) -> Step<'s> {
    match lane.side {
        Side::Inside => {
            let Some(binding) = snapshot.holder(vpc, lane.src, lane.v6, lane.src_mac) else {
                return unknown_nic(snapshot, lane, Reason::UnknownSource);
            };
            if binding.mac != ANY_MAC && binding.mac != lane.src_mac {
                return Step::Done(Verdict::of(Reason::Spoofed, binding.nic));
            }
            Step::Nic(binding)
        }
        Side::Outside => {
            let Some(binding) = snapshot.holder(vpc, lane.dst, lane.v6, lane.dst_mac) else {
                return unknown_nic(snapshot, lane, Reason::UnknownDestination);
            };
            if snapshot.is_own(binding, lane.src, lane.v6) {
                return Step::Done(Verdict::of(Reason::Spoofed, binding.nic));
            }
            Step::Nic(binding)
        }
    }
}

#[cold]
fn unknown_nic<'s>(snapshot: &Snapshot, lane: &Lane, reason: Reason) -> Step<'s> {
    let settings = &snapshot.settings;
    let is_passed_multicast = lane.side == Side::Outside
        && settings
            .pass_multicast
            .iter()
            .any(|&(first, last, v6)| v6 == lane.v6 && (first..=last).contains(&lane.dst));
    let pass = settings.pass_unknown_nic || is_passed_multicast;
    Step::Done(Verdict::nobody(if pass { Reason::Control } else { reason }))
}

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

/// What is known of a packet ahead of its verdict.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct Ahead<'s> {
    /// Its key, as it would lie in an entry.
    pub key: EntryKey,
    /// Its key's hash.
    pub hash: FlowHash,
    /// Its NIC; `None` where the verdict is there already.
    pub nic: Option<&'s Binding>,
}

impl Ahead<'_> {
    /// Of a packet that needs no connection.
    pub const NONE: Ahead<'static> =
        Ahead { key: EntryKey { addr: AddrId(0), remote: 0, ports: 0, meta: 0 }, hash: NO_HASH, nic: None };
}

/// What opens or belongs to connections, on one worker.
pub struct Judge {
    /// Connections.
    pub shard: Shard,
    fragments: Recent<FragmentKey, Memory>,
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
        Judge { shard, fragments: Recent::new(), population, flow: None, loose_pickup: false }
    }

    /// What can be worked out before anything is looked up.
    #[inline]
    pub fn ahead<'s>(&self, lane: &Lane, nic: &'s Binding) -> Ahead<'s> {
        let (remote, ports, meta) = (lane.remote(), key_ports(lane), key_meta(lane.proto, lane.v6));
        let key = EntryKey { addr: nic.id, remote: remote_digest(remote, meta), ports, meta };
        Ahead { key, hash: self.shard.hash(nic.id, remote, ports, lane.proto, lane.v6), nic: Some(nic) }
    }

    /// The same for a plain packet.
    #[inline(always)]
    pub fn ahead_plain<'s>(&self, lane: &Lane, nic: &'s Binding) -> Ahead<'s> {
        let Ends { remote, ports, protocol, .. } = lane.ends;
        // An IPv4 key's flags are its protocol alone.
        let key = EntryKey { addr: nic.id, remote, ports, meta: protocol };
        Ahead { key, hash: self.shard.hash_v4(&key), nic: Some(nic) }
    }

    /// The key under which a packet's connection is looked up.
    #[inline]
    pub fn key(&self, lane: &Lane, &Ahead { key, hash, .. }: &Ahead<'_>) -> Key {
        Key { addr: key.addr, remote: lane.remote(), ports: key.ports, meta: key.meta, hash }
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

    /// The way of nearly every packet, cut short: TCP data or UDP, in whatever segment, of a connection that both sides have
    /// confirmed and no change has touched. False leaves the packet, unchanged, to [`Judge::judge`], which would say the same of
    /// those that are true here (the oracle's tests run through both).
    ///
    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    pub unsafe fn established<const V3: bool>(
        &mut self,
        snapshot: &Snapshot,
        lane: &Lane,
        nic: &Binding,
        ahead: &Ahead<'_>,
        hint: u32,
    ) -> bool {
        let state = match lane.what {
            What::Tcp if tcp::is_data(lane) => State::Established,
            What::Ports if lane.fragment == Fragment::Whole => State::TwoWay,
            _ => return false,
        };
        // SAFETY: as the caller says.
        let found = unsafe { self.shard.find_hinted::<V3>(hint, &ahead.key, || lane.remote()) };
        let Some(flow) = found else { return false };
        let deadline = self.shard.deadline(state, lane.now);
        let entry = self.shard.entry_mut(flow);
        let is_untouched = !entry.is_inbound() || entry.stamp >= nic.flush.max(nic.rejudge);
        if !entry.is_plainly(state) || !is_untouched || reached(lane.now.tick, entry.deadline) {
            return false;
        }
        if state == State::Established {
            let from = if (lane.side == Side::Outside) == entry.is_inbound() { OPENER } else { RESPONDER };
            if !tcp::data(entry, lane, from, snapshot.settings.no_window_check) {
                return false;
            }
        }
        entry.deadline = deadline;
        true
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
                self.shard.end(flow, snapshot);
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
        let entry = self.shard.entry_mut(flow);
        let is_opener = (lane.side == Side::Outside) == entry.is_inbound();
        let before = entry.state();
        let outcome = if lane.what == What::Tcp {
            let from = if is_opener { OPENER } else { RESPONDER };
            tcp::step(entry, lane, from, snapshot.settings.no_window_check)
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
        let established = Verdict::of(Reason::Established, nic.nic);
        match outcome {
            Outcome::Pass => {
                self.shard.moved_on(flow, before, lane.now);
                self.flow = Some(flow);
                established
            }
            Outcome::Noted => {
                self.shard.note_window(flow, lane.win);
                self.flow = Some(flow);
                established
            }
            Outcome::Quiet => {
                self.flow = Some(flow);
                established
            }
            Outcome::Invalid => Verdict::of(Reason::Invalid, nic.nic),
            Outcome::End => {
                self.shard.end(flow, snapshot);
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
            tcp::reopen(&mut entry, &old, self.shard.noted_window(flow), lane);
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
        let limit = if nic.is_limited() { snapshot.nic(nic.nic).max_connections } else { u32::MAX };
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

    /// At a NIC's limit: what has expired and was not found yet does not count.
    #[cold]
    fn enter_after_expiry(&mut self, snapshot: &Snapshot, lane: &Lane, nic: &Binding, limit: u32) -> bool {
        self.shard.expire(snapshot, lane.now, 1024);
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

    fn quoted_flow(
        &mut self,
        snapshot: &Snapshot,
        lane: &Lane,
        nic: &Binding,
        quote: &Quote,
    ) -> Option<FlowIndex> {
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
        let key = self.shard.key(nic.id, remote, ports, quote.proto, lane.v6);
        let flow = self.shard.find(&key).filter(|flow| !self.shard.is_expired(*flow, lane.now))?;
        if self.settle(snapshot, nic, flow) != Standing::Live {
            return None;
        }
        let entry = self.shard.entry(flow);
        let unchecked = snapshot.settings.no_window_check || entry.is_unchecked();
        if quote.proto == proto::TCP && !unchecked {
            let sender =
                if (direction == Direction::Inbound) == entry.is_inbound() { OPENER } else { RESPONDER };
            if !tcp::may_have_sent(entry, quote.seq, quote.len, sender) {
                return None;
            }
        }
        Some(flow)
    }

    fn fragment_key(lane: &Lane, nic: &Binding) -> FragmentKey {
        FragmentKey {
            addr: nic.id,
            remote: lane.remote(),
            id: lane.frag_id,
            proto: lane.frag_proto,
            direction: lane.side.direction(),
        }
    }

    fn fragment_hash(&self, key: &FragmentKey) -> u32 {
        let ports = key.id ^ (key.direction as u32) << 31;
        self.shard.key(key.addr, key.remote, ports, key.proto, true).hash.bucket()
    }

    /// Remembers a first fragment's verdict for those behind it.
    #[cold]
    pub fn remember(
        &mut self,
        snapshot: &Snapshot,
        lane: &Lane,
        nic: &Binding,
        verdict: Verdict,
        flow: Option<FlowIndex>,
    ) {
        // Who forges an address says nothing about its owner's fragments.
        if matches!(verdict.reason, Reason::Malformed | Reason::Spoofed) {
            return;
        }
        let flow = flow.map(|flow| (flow, self.shard.entry(flow)));
        let is_inbound = flow.is_some_and(|(_, entry)| entry.is_inbound());
        // An RST has ended its connection, which was inbound or not: a flush may as well forget it.
        let has_ended = flow.is_none() && verdict.reason != Reason::Control;
        let memory = Memory {
            reason: verdict.reason,
            rule: verdict.rule,
            reach: lane.reach,
            stamp: snapshot.generation,
            flushable: is_inbound || has_ended,
            flow: flow.map(|(flow, entry)| (flow, entry.ports)),
        };
        let key = Self::fragment_key(lane, nic);
        let deadline = lane.now.up.wrapping_add(self.shard.timeouts().fragment);
        self.fragments.remember(self.fragment_hash(&key), key, memory, deadline);
    }

    #[cold]
    fn later_fragment(&mut self, snapshot: &Snapshot, lane: &Lane, nic: &Binding) -> Verdict {
        let key = Self::fragment_key(lane, nic);
        let verdict = |reason| Verdict::of(reason, nic.nic);
        let Some(memory) = self.fragments.recall(self.fragment_hash(&key), &key, lane.now.tick) else {
            return verdict(Reason::FragmentNoFirst);
        };
        // A rollback lowers the flush epoch: what was remembered before it may be of rules that it took back.
        let is_flushed = memory.flushable && memory.stamp < snapshot.live_epoch(nic);
        let is_of_tombstone = memory.flow.is_some_and(|(flow, ports)| {
            let entry = self.shard.entry(flow);
            entry.addr == nic.id
                && entry.ports == ports
                && self.shard.remote(flow) == key.remote
                && entry.is_dead()
        });
        if is_flushed || is_of_tombstone {
            return verdict(Reason::FragmentNoFirst);
        }
        if !memory.reason.passes() {
            return Verdict { rule: memory.rule, ..verdict(memory.reason) };
        }
        if lane.reach < memory.reach {
            return verdict(Reason::Malformed);
        }
        verdict(Reason::Fragment)
    }
}
