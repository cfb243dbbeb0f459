//! The verdict on one packet: its NIC, then its connection or the rules, in the order of semantics 2.1.

mod fragments;

use std::sync::Arc;

pub use fragments::is_remembered;

use crate::classify::{Query, RuleVerdict};
use crate::conntrack::{
    Entry, EntryKey, EntryTable, Key, LAST_SYN, Liveness, OPENER, RESPONDER, Shard, State, key_meta,
    liveness, query_of_entry, remote_digest, required_state_bits, without_required_state,
};
use crate::counters::{ConnectionCounts, EngineCounters};
use crate::fragment_cache::{FirstFragment, FragmentCache, FragmentKey};
use crate::fragment_queue::{FragmentQueue, Ticket};
use crate::icmp_quote::{self, QuotedPacket};
use crate::io::BURST;
use crate::lookahead::{BindingPrefetch, Resolved, ResolvedBurst};
use crate::packet::{Fragment, PacketKind, PacketMeta, flags};
use crate::parse::icmp_kind;
use crate::resolve::{resolve_fast_v4, resolve_fast_v6};
use crate::rule_verdicts::{opening_query, refusal_verdict};
use crate::snapshot::{Binding, BindingHint, Snapshot, UniqueAddresses};
use crate::tcp::{self, Outcome};
use crate::time::reached;
use crate::timer_wheel::EvictionClass;
use crate::verdict::Verdict;
use crate::worker_totals::EndCause;
use crate::{Direction, FlowIndex, Reason, SegmentKey, Side, proto};

/// Local port × 65536 + remote port, or what stands for them in the key (semantics 4.1).
#[inline]
fn key_ports(pkt: &PacketMeta) -> u32 {
    let (sport, dport) = (u32::from(pkt.sport), u32::from(pkt.dport));
    match pkt.kind {
        PacketKind::Tcp | PacketKind::WithPorts | PacketKind::DhcpClient => match pkt.side {
            Side::Inside => sport << 16 | dport,
            Side::Outside => dport << 16 | sport,
        },
        PacketKind::IcmpRequest => icmp_key(pkt.sport, (dport >> 8) as u8, pkt.side.direction()),
        PacketKind::IcmpReply => {
            let kind = icmp_kind((dport >> 8) as u8, pkt.v6);
            icmp_key(pkt.sport, kind, pkt.side.direction().reverse())
        }
        _ => 0,
    }
}

#[inline]
fn icmp_key(identifier: u16, kind: u8, asked: Direction) -> u32 {
    u32::from(identifier) << 16 | u32::from(kind) << 8 | u32::from(asked == Direction::Inbound)
}

/// The fast path: TCP data or UDP, in whatever segment, of a connection that both sides have confirmed and no change has touched.
/// False leaves the packet, unchanged, to [`Judge::judge`], which decides the same (the oracle's tests run through both).
///
/// # Safety
/// With `V3` the processor has x86-64-v3.
#[inline(always)]
unsafe fn fast_path<const V3: bool>(
    table: &mut EntryTable<'_>,
    pkt: &PacketMeta,
    nic: &Binding,
    ahead: &Resolved<'_>,
    hint: u32,
) -> bool {
    let tcp_timeout = table.timeouts[State::Established as usize];
    let udp_timeout = table.timeouts[State::TwoWay as usize];
    // SAFETY: as the caller says.
    let found = unsafe { table.fast_path_entry::<V3>(hint, &ahead.key, || pkt.remote()) };
    let Some(entry) = found else { return false };
    // One branch for both, which always goes the same way: who opened the connection cannot be foreseen.
    let is_disconnected = entry.is_inbound() & (entry.stamp < nic.flush.max(nic.rejudge));
    if is_disconnected | reached(pkt.now.tick, entry.deadline) {
        return false;
    }
    // Which is what the key demands.
    let timeout = if entry.state() == State::Established {
        // SAFETY: as the caller says.
        if !unsafe { tcp::data_checked::<V3>(entry, pkt) } {
            return false;
        }
        tcp_timeout
    } else {
        udp_timeout
    };
    entry.deadline = pkt.now.ceil.wrapping_add(timeout);
    true
}

/// IPv6 packets one after the other whose NICs are asked for before the first of them is needed.
const V6_RUN: usize = 16;

/// What opens or belongs to connections, on one worker.
pub struct Judge {
    /// Connections.
    pub shard: Shard,
    fragments: FragmentCache<FragmentKey, FirstFragment>,
    /// Fragments that came ahead of their first.
    pub fragment_queue: FragmentQueue,
    /// Of the fragment just judged, if it is to wait.
    pub ticket: Option<Ticket>,
    connection_counts: Arc<ConnectionCounts>,
    /// The connection that the packet just judged was part of. Kept out of the verdict, which so comes back in registers.
    flow: Option<FlowIndex>,
    /// A mid-stream segment may open a connection just now.
    pub loose_pickup: bool,
}

impl Judge {
    /// On an empty shard.
    pub fn new(shard: Shard, connection_counts: Arc<ConnectionCounts>) -> Judge {
        Judge {
            shard,
            fragments: FragmentCache::new(),
            fragment_queue: FragmentQueue::default(),
            ticket: None,
            connection_counts,
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
    pub fn resolve_key<'s>(&self, pkt: &PacketMeta, nic: &'s Binding) -> Resolved<'s> {
        let (remote, ports, meta) = (pkt.remote(), key_ports(pkt), key_meta(pkt.proto, pkt.v6));
        let demanding = meta | required_state_bits(pkt.fast_path_state());
        let key = EntryKey::new(nic.id, remote_digest(remote, meta), ports, demanding);
        Resolved { key, hash: self.shard.hash(nic.id, remote, ports, pkt.proto, pkt.v6), nic: Some(nic) }
    }

    /// Plain packets of one segment one after the other from `first` on, each with what is known ahead of its verdict and its bucket
    /// asked for; the place of the first of another segment or that has to go the long way, or of the end. In a loop of its own, so
    /// that what all of them need stays in registers.
    #[inline(always)]
    pub fn resolve_fast_v4_run<'s>(
        &self,
        holders: &UniqueAddresses<'s>,
        guesses: &mut BindingPrefetch,
        first: usize,
        pkts: &[PacketMeta],
        aheads: &mut [Resolved<'s>; BURST],
    ) -> usize {
        let homes = self.shard.index_lookup();
        let (segment, count) = (guesses.segment(), pkts.len().min(BURST));
        let mut place = first;
        while place < count {
            let until = guesses.look_ahead(holders, place, pkts).min(count);
            while place < until {
                let (pkt, guess) = (&pkts[place], guesses.hint(place));
                let is_one = pkt.fast_v4 && pkt.segment == segment;
                let nic = if is_one { resolve_fast_v4(holders, pkt, guess) } else { None };
                let Some(nic) = nic else { return place };
                let key = pkt.tuple.key(nic.id);
                let hash = homes.hash_v4(&key);
                homes.prefetch(hash);
                aheads[place] = Resolved { key, hash, nic: Some(nic) };
                place += 1;
            }
        }
        count
    }

    /// The same of plain IPv6 packets.
    #[inline(always)]
    pub fn resolve_fast_v6_run<'s>(
        &self,
        holders: &UniqueAddresses<'s>,
        segment: SegmentKey,
        first: usize,
        pkts: &[PacketMeta],
        aheads: &mut [Resolved<'s>; BURST],
    ) -> usize {
        let homes = self.shard.index_lookup();
        let is_one = |pkt: &&PacketMeta| pkt.is_fast_v6() && pkt.segment == segment;
        let run = pkts[first..].iter().take(V6_RUN).take_while(is_one);
        let mut guesses = [BindingHint::default(); V6_RUN];
        let mut count = 0;
        for (guess, pkt) in guesses.iter_mut().zip(run) {
            *guess = holders.hint_v6(pkt.local());
            count += 1;
        }
        for (place, guess) in (first..).zip(&guesses[..count]) {
            let pkt = &pkts[place];
            let Some(nic) = resolve_fast_v6(holders, pkt, *guess) else { return place };
            let (remote, ports, meta) = (pkt.remote(), key_ports(pkt), key_meta(pkt.proto, true));
            let key = EntryKey::new(
                nic.id,
                remote_digest(remote, meta),
                ports,
                meta | required_state_bits(pkt.fast_path_state()),
            );
            let hash = homes.hash_v6(nic.id, remote, ports, pkt.proto);
            homes.prefetch(hash);
            aheads[place] = Resolved { key, hash, nic: Some(nic) };
        }
        first + count
    }

    /// The key under which a packet's connection is looked up.
    #[inline]
    pub fn key(&self, pkt: &PacketMeta, &Resolved { key, hash, .. }: &Resolved<'_>) -> Key {
        let meta = without_required_state(key.meta());
        Key { addr: key.addr(), remote: pkt.remote(), ports: key.ports(), meta, hash }
    }

    /// The verdict on a packet of a NIC; `answer` is what the rules say, if they were asked already.
    #[inline]
    pub fn judge(
        &mut self,
        snapshot: &Snapshot,
        pkt: &PacketMeta,
        nic: &Binding,
        key: &Key,
        bytes: &[u8],
        answer: Option<RuleVerdict>,
    ) -> Verdict {
        match pkt.fragment {
            Fragment::Whole => self.judge_packet(snapshot, pkt, nic, key, bytes, answer),
            Fragment::First => {
                self.flow = None;
                let verdict = self.judge_packet(snapshot, pkt, nic, key, bytes, answer);
                self.remember(snapshot, pkt, nic, verdict, self.flow);
                verdict
            }
            Fragment::Later => self.later_fragment(snapshot, pkt, nic),
        }
    }

    /// Packets of established connections one after the other from `first` on, judged and counted; the place of the first that has to
    /// go the long way, or of the end. In a loop of its own, as [`Judge::resolve_fast_v4_run`].
    ///
    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    pub unsafe fn fast_path_run<const V3: bool>(
        &mut self,
        counters: &EngineCounters,
        first: usize,
        packets: &ResolvedBurst<'_, '_>,
        verdicts: &mut [Verdict; BURST],
        meanwhile: &impl Fn(usize),
    ) -> usize {
        // Of its own where connections are counted, so that the other knows nothing of it.
        if self.shard.counts_flows() {
            // SAFETY: as the caller says.
            unsafe { self.fast_path_run_with::<V3, true>(counters, first, packets, verdicts, meanwhile) }
        } else {
            // SAFETY: as the caller says.
            unsafe { self.fast_path_run_with::<V3, false>(counters, first, packets, verdicts, meanwhile) }
        }
    }

    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    unsafe fn fast_path_run_with<const V3: bool, const COUNT: bool>(
        &mut self,
        counters: &EngineCounters,
        first: usize,
        packets: &ResolvedBurst<'_, '_>,
        verdicts: &mut [Verdict; BURST],
        meanwhile: &impl Fn(usize),
    ) -> usize {
        let mut table = self.shard.entry_table();
        let Some(counts) = counters.established() else { return first };
        let count = packets.pkts.len().min(BURST);
        // By the place: iterators over all of these took 19 instructions a packet more.
        let mut place = first;
        while place < count {
            let (pkt, ahead) = (&packets.pkts[place], &packets.resolved[place]);
            let Some(nic) = ahead.nic else { return place };
            // SAFETY: as the caller says.
            if !unsafe { fast_path::<V3>(&mut table, pkt, nic, ahead, packets.hints[place]) } {
                return place;
            }
            verdicts[place] = Verdict::of(Reason::Established, nic.nic);
            counts.count(nic.nic, pkt.side, pkt.len);
            if COUNT && let Some(carried) = table.flow_counters.get_mut(packets.hints[place] as usize) {
                carried.count(pkt.side, pkt.len, pkt.now);
            }
            packets.prefetch_ahead(place, |hint| {
                table.prefetch(hint, packets.is_any_v6);
                if COUNT {
                    table.prefetch_flow_counters(hint);
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
    pub fn count_flow(&mut self, snapshot: &Snapshot, pkt: &PacketMeta, verdict: &Verdict) {
        let is_part = matches!(verdict.reason, Reason::Established | Reason::New | Reason::Fragment);
        if let Some(flow) = self.flow.filter(|_| is_part) {
            self.shard.count(flow, pkt, snapshot);
        }
    }

    /// The verdict; the connection that the packet passed as part of is left in `flow`.
    #[inline]
    fn judge_packet(
        &mut self,
        snapshot: &Snapshot,
        pkt: &PacketMeta,
        nic: &Binding,
        key: &Key,
        bytes: &[u8],
        answer: Option<RuleVerdict>,
    ) -> Verdict {
        let drop = |reason| Verdict::of(reason, nic.nic);
        match pkt.kind {
            PacketKind::Tcp if tcp::is_impossible(pkt.flags) => return drop(Reason::Invalid),
            PacketKind::IcmpError => return self.icmp_error(snapshot, pkt, nic, bytes),
            PacketKind::IcmpOther => return drop(Reason::Invalid),
            _ => {}
        }
        if let Some(flow) = self.shard.find(key) {
            if self.shard.is_expired(flow, pkt.now) {
                self.shard.end(flow, EndCause::Expired, snapshot);
            } else {
                return match self.current_liveness(snapshot, nic, flow) {
                    Liveness::Live => self.existing_connection(snapshot, pkt, nic, flow),
                    _ => drop(Reason::Tombstone),
                };
            }
        }
        self.new_connection(snapshot, pkt, nic, key, answer)
    }

    /// Whether a connection that has not expired is live, asking the rules again where that is due (semantics 5.4).
    #[inline]
    fn current_liveness(&mut self, snapshot: &Snapshot, nic: &Binding, flow: FlowIndex) -> Liveness {
        // A rollback has brought its NIC back, and the sweep has not come by yet.
        if self.shard.entry(flow).class() == EvictionClass::Ended {
            self.shard.reclassify(flow, snapshot);
        }
        match liveness(self.shard.entry(flow), nic, snapshot) {
            Liveness::Rejudge => self.rejudge(snapshot, nic, flow),
            liveness => liveness,
        }
    }

    #[cold]
    fn rejudge(&mut self, snapshot: &Snapshot, nic: &Binding, flow: FlowIndex) -> Liveness {
        let query = query_of_entry(self.shard.entry(flow), self.shard.remote(flow));
        match snapshot.policy(nic).judge(snapshot, nic.vpc, &query) {
            RuleVerdict::Allow(_) => {
                self.shard.revive(flow, snapshot);
                Liveness::Live
            }
            _ => {
                self.shard.kill(flow, snapshot);
                Liveness::Tombstone
            }
        }
    }

    /// A packet whose connection is live.
    #[inline]
    fn existing_connection(
        &mut self,
        snapshot: &Snapshot,
        pkt: &PacketMeta,
        nic: &Binding,
        flow: FlowIndex,
    ) -> Verdict {
        let is_kept = pkt.kind == PacketKind::Tcp && self.shard.is_persistent();
        if is_kept {
            self.shard.begin_change(flow);
        }
        let (entry, noted) = self.shard.entry_and_last_syn(flow);
        let is_opener = (pkt.side == Side::Outside) == entry.is_inbound();
        let before = entry.state();
        let outcome = if pkt.kind == PacketKind::Tcp {
            let from = if is_opener { OPENER } else { RESPONDER };
            tcp::step(entry, noted, pkt, from, snapshot.settings.no_window_check)
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
                self.shard.update_after_packet(flow, before, nic.nic, pkt.now);
                self.flow = Some(flow);
                established
            }
            Outcome::PassDoubtfulReset => {
                self.shard.shorten_to_reset(flow, pkt.now);
                self.flow = Some(flow);
                established
            }
            Outcome::PassUnchanged => {
                self.flow = Some(flow);
                established
            }
            Outcome::Invalid => Verdict::of(Reason::Invalid, nic.nic),
            Outcome::End => {
                self.shard.count(flow, pkt, snapshot);
                self.shard.end(flow, EndCause::Reset, snapshot);
                established
            }
            Outcome::Restart => self.restart(snapshot, pkt, nic, flow, pkt.side.direction()),
            Outcome::Reopen => self.restart(snapshot, pkt, nic, flow, pkt.side.direction().reverse()),
        }
    }

    /// A connection in the place of a live one: by a SYN after both FINs, or by the answer to a SYN that passed within
    /// it (semantics 4.3). `direction` is that of the SYN. If the rules refuse it, the old one stays as it was.
    #[cold]
    fn restart(
        &mut self,
        snapshot: &Snapshot,
        pkt: &PacketMeta,
        nic: &Binding,
        flow: FlowIndex,
        direction: Direction,
    ) -> Verdict {
        let old = *self.shard.entry(flow);
        let remote = pkt.remote();
        let port = if direction == Direction::Inbound { old.ports >> 16 } else { old.ports } as u16;
        let query = Query { direction, v6: pkt.v6, protocol: pkt.proto, port, remote };
        let rule = match snapshot.policy(nic).judge(snapshot, nic.vpc, &query) {
            RuleVerdict::Allow(rule) => rule,
            refusal => return refusal_verdict(refusal, nic.nic),
        };
        let inbound = direction == Direction::Inbound;
        let mut entry = Entry::new(old.addr, old.remote, old.ports, old.key_meta(), inbound);
        entry.stamp = snapshot.generation;
        entry.set_rule(rule);
        if pkt.flags & flags::ACK == 0 {
            tcp::open(&mut entry, pkt);
        } else {
            tcp::reopen(&mut entry, self.shard.last_syn(flow), old.scale(LAST_SYN), pkt);
        }
        self.shard.replace(flow, entry, snapshot, pkt.now);
        self.flow = Some(flow);
        Verdict { rule, ..Verdict::of(Reason::New, nic.nic) }
    }

    /// A packet without a connection: it opens one, or drops.
    fn new_connection(
        &mut self,
        snapshot: &Snapshot,
        pkt: &PacketMeta,
        nic: &Binding,
        key: &Key,
        answer: Option<RuleVerdict>,
    ) -> Verdict {
        let drop = |reason| Verdict::of(reason, nic.nic);
        let is_pickup = pkt.kind == PacketKind::Tcp && !tcp::is_opening_syn(pkt.flags);
        if pkt.kind == PacketKind::IcmpReply || is_pickup && !(self.loose_pickup && pkt.flags == flags::ACK) {
            return drop(Reason::Invalid);
        }
        let mut direction = pkt.side.direction();
        let judge = |query: Query| snapshot.policy(nic).judge(snapshot, nic.vpc, &query);
        let query = opening_query(pkt, key.remote);
        let mut judgement = answer.unwrap_or_else(|| judge(query));
        if is_pickup && direction == Direction::Outbound {
            // A segment of a server must not turn its client's connection into an outbound one, which no flush ends.
            let inbound = Query { direction: Direction::Inbound, port: pkt.sport, ..query };
            if let RuleVerdict::Allow(rule) = judge(inbound) {
                (direction, judgement) = (Direction::Inbound, RuleVerdict::Allow(rule));
            }
        }
        let RuleVerdict::Allow(rule) = judgement else { return refusal_verdict(judgement, nic.nic) };
        let mut limit = u32::MAX;
        if nic.is_limited() {
            limit = snapshot.nic(nic.nic).max_connections;
            // What a change has ended or a rollback has brought back is to be counted as such, found or not.
            self.shard.sweep_for_room(snapshot);
        }
        if !self.connection_counts.enter(nic.nic, limit)
            && !self.enter_after_expiry(snapshot, pkt, nic, limit)
        {
            return drop(Reason::NicLimit);
        }
        let digest = remote_digest(key.remote, key.meta);
        let mut entry = Entry::new(nic.id, digest, key.ports, key.meta, direction == Direction::Inbound);
        entry.stamp = snapshot.generation;
        entry.set_rule(rule);
        match pkt.kind {
            PacketKind::Tcp if is_pickup => {
                let is_opener = direction == pkt.side.direction();
                tcp::pick_up(&mut entry, pkt, if is_opener { OPENER } else { RESPONDER });
            }
            PacketKind::Tcp => tcp::open(&mut entry, pkt),
            PacketKind::IcmpRequest => {
                entry.set_state(State::Icmp);
                entry.syn_seq = u32::from(pkt.dport);
            }
            _ => entry.set_state(State::OneWay),
        }
        let Some(flow) = self.shard.admit(key, entry, snapshot, pkt.now) else {
            self.connection_counts.leave(nic.nic);
            return drop(Reason::TableFull);
        };
        self.flow = Some(flow);
        Verdict { rule, ..Verdict::of(Reason::New, nic.nic) }
    }

    /// At a NIC's limit: what of its own has expired and was not found yet does not count.
    #[cold]
    fn enter_after_expiry(
        &mut self,
        snapshot: &Snapshot,
        pkt: &PacketMeta,
        nic: &Binding,
        limit: u32,
    ) -> bool {
        self.shard.expire_of(nic.nic, snapshot, pkt.now);
        self.connection_counts.enter(nic.nic, limit)
    }

    /// An ICMP error: part of the connection of the packet that it quotes, or nothing (semantics 4.5).
    #[cold]
    fn icmp_error(&mut self, snapshot: &Snapshot, pkt: &PacketMeta, nic: &Binding, bytes: &[u8]) -> Verdict {
        match icmp_quote::read(pkt, bytes).and_then(|quote| self.quoted_flow(snapshot, pkt, nic, &quote)) {
            Some(flow) => {
                self.flow = Some(flow);
                Verdict::of(Reason::Related, nic.nic)
            }
            None => Verdict::of(Reason::Invalid, nic.nic),
        }
    }

    /// The key of the connection that a quoted packet is of; `None` if it is not this NIC's.
    pub fn quoted_key(&self, pkt: &PacketMeta, nic: &Binding, quote: &QuotedPacket) -> Option<Key> {
        // The quoted packet went the other way than the error.
        let direction = pkt.side.direction().reverse();
        let (local, remote, local_port, remote_port) = match direction {
            Direction::Outbound => (quote.src, quote.dst, quote.sport, quote.dport),
            Direction::Inbound => (quote.dst, quote.src, quote.dport, quote.sport),
        };
        if local != pkt.local() {
            return None;
        }
        let is_icmp = quote.proto == if pkt.v6 { proto::ICMPV6 } else { proto::ICMP };
        let ports = if is_icmp {
            let asked = if quote.is_request { direction } else { direction.reverse() };
            icmp_key(quote.sport, quote.dport as u8, asked)
        } else {
            u32::from(local_port) << 16 | u32::from(remote_port)
        };
        Some(self.shard.key(nic.id, remote, ports, quote.proto, pkt.v6))
    }

    fn quoted_flow(
        &mut self,
        snapshot: &Snapshot,
        pkt: &PacketMeta,
        nic: &Binding,
        quote: &QuotedPacket,
    ) -> Option<FlowIndex> {
        let direction = pkt.side.direction().reverse();
        let key = self.quoted_key(pkt, nic, quote)?;
        let flow = self.shard.find(&key).filter(|flow| !self.shard.is_expired(*flow, pkt.now))?;
        if self.current_liveness(snapshot, nic, flow) != Liveness::Live {
            return None;
        }
        let entry = self.shard.entry(flow);
        let unchecked = snapshot.settings.no_window_check || entry.is_unchecked();
        if quote.proto == proto::TCP && !unchecked {
            let sender =
                if (direction == Direction::Inbound) == entry.is_inbound() { OPENER } else { RESPONDER };
            let noted = self.shard.last_syn(flow);
            if !tcp::may_have_sent(entry, noted, quote.seq, sender) {
                return None;
            }
        }
        Some(flow)
    }
}
