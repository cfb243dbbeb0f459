//! The verdict on one packet of a NIC: by its connection, else by the rules, in the order of
//! semantics 2.1.

mod fragments;

use std::sync::Arc;

pub use fragments::is_remembered;

use crate::classify::{Query, RuleVerdict};
use crate::conntrack::{
    Entry, EntryKey, EntryTable, Key, LAST_SYN, Liveness, OPENER, RESPONDER, Shard, State, key_meta,
    liveness, query_of_entry, remote_digest, required_state_bits, without_required_state,
};
use crate::counters::{ConnectionCounts, EngineCounters};
use crate::cpu::Isa;
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

/// The fast path: an ACK-only TCP segment or UDP, in any segment, of a connection that both sides
/// have confirmed and no change has touched. False leaves the packet, unchanged, to
/// [`Judge::judge`], which decides the same; the oracle's tests run through both.
#[inline(always)]
fn fast_path(
    isa: impl Isa,
    table: &mut EntryTable<'_>,
    pkt: &PacketMeta,
    nic: &Binding,
    resolved: &Resolved<'_>,
    hint: u32,
) -> bool {
    let tcp_timeout = table.timeouts[State::Established as usize];
    let udp_timeout = table.timeouts[State::TwoWay as usize];
    let found = table.fast_path_entry(isa, hint, &resolved.key, || pkt.remote());
    let Some(entry) = found else { return false };
    // One branch for both conditions, which is always predicted: who opened the connection is not
    // predictable.
    let is_disconnected = entry.is_inbound() & (entry.stamp < nic.flush.max(nic.rejudge));
    if is_disconnected | reached(pkt.now.tick, entry.deadline) {
        return false;
    }
    // The key requires the state, so it need not be compared again.
    let timeout = if entry.state() == State::Established {
        if !tcp::data_checked(isa, entry, pkt) {
            return false;
        }
        tcp_timeout
    } else {
        udp_timeout
    };
    entry.deadline = pkt.now.ceil.wrapping_add(timeout);
    true
}

/// IPv6 packets of a run whose bindings are prefetched before the first of them is needed.
const V6_RUN: usize = 16;

/// One packet of a NIC, with everything that its verdict depends on except the connections.
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    /// The policy.
    pub snapshot: &'a Snapshot,
    /// What was read of it.
    pub pkt: &'a PacketMeta,
    /// Its NIC.
    pub nic: &'a Binding,
    /// The key of its connection.
    pub key: &'a Key,
    /// The bytes of its frame, for the few that are read again.
    pub bytes: &'a [u8],
    /// What the rules say of it, if they were evaluated ahead of time.
    pub rule_verdict: Option<RuleVerdict>,
}

/// Judges the packets of one worker: its connections, and what it remembers of fragments.
pub struct Judge {
    /// Connections.
    pub shard: Shard,
    fragments: FragmentCache<FragmentKey, FirstFragment>,
    /// Later fragments that came ahead of their first.
    pub fragment_queue: FragmentQueue,
    /// The ticket of the fragment just judged, if it is to wait.
    pub ticket: Option<Ticket>,
    connection_counts: Arc<ConnectionCounts>,
    /// The connection that the packet just judged was part of. Not part of the verdict, which is
    /// then returned in registers.
    flow: Option<FlowIndex>,
    /// A mid-stream segment may open a connection at present.
    pub loose_pickup: bool,
}

impl Judge {
    /// Over an empty shard.
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

    /// Has the kernel back the memory of its tables, so that no packet waits for a page.
    pub fn touch(&mut self) {
        self.shard.touch();
        self.fragments.touch();
    }

    /// A packet's key and hash: everything that can be computed before a look-up.
    #[inline]
    pub fn resolve_key<'s>(&self, pkt: &PacketMeta, nic: &'s Binding) -> Resolved<'s> {
        let (remote, ports, meta) = (pkt.remote(), key_ports(pkt), key_meta(pkt.proto, pkt.v6));
        let demanding = meta | required_state_bits(pkt.fast_path_state());
        let key = EntryKey::new(nic.id, remote_digest(remote, meta), ports, demanding);
        Resolved { key, hash: self.shard.hash(nic.id, remote, ports, pkt.proto, pkt.v6), nic: Some(nic) }
    }

    /// Resolves a run of fast-path packets of one segment, from `first` on, and prefetches their
    /// index buckets. Returns the index of the first packet that is of another segment or needs the
    /// slow path, or the end. In a loop of its own, so that what all of them need stays in
    /// registers.
    #[inline(always)]
    pub fn resolve_fast_v4_run<'s>(
        &self,
        unique: &UniqueAddresses<'s>,
        bindings: &mut BindingPrefetch,
        first: usize,
        pkts: &[PacketMeta],
        resolved: &mut [Resolved<'s>; BURST],
    ) -> usize {
        let index = self.shard.index_lookup();
        let (segment, count) = (bindings.segment(), pkts.len().min(BURST));
        let mut place = first;
        while place < count {
            let until = bindings.look_ahead(unique, place, pkts).min(count);
            while place < until {
                let (pkt, hint) = (&pkts[place], bindings.hint(place));
                let is_one = pkt.fast_v4 && pkt.segment == segment;
                let nic = if is_one { resolve_fast_v4(unique, pkt, hint) } else { None };
                let Some(nic) = nic else { return place };
                let key = pkt.tuple.key(nic.id);
                let hash = index.hash_v4(&key);
                index.prefetch(hash);
                resolved[place] = Resolved { key, hash, nic: Some(nic) };
                place += 1;
            }
        }
        count
    }

    /// The same for IPv6 packets.
    #[inline(always)]
    pub fn resolve_fast_v6_run<'s>(
        &self,
        unique: &UniqueAddresses<'s>,
        segment: SegmentKey,
        first: usize,
        pkts: &[PacketMeta],
        resolved: &mut [Resolved<'s>; BURST],
    ) -> usize {
        let index = self.shard.index_lookup();
        let is_one = |pkt: &&PacketMeta| pkt.is_fast_v6() && pkt.segment == segment;
        let run = pkts[first..].iter().take(V6_RUN).take_while(is_one);
        let mut hints = [BindingHint::default(); V6_RUN];
        let mut count = 0;
        for (hint, pkt) in hints.iter_mut().zip(run) {
            *hint = unique.hint_v6(pkt.local());
            count += 1;
        }
        for (place, hint) in (first..).zip(&hints[..count]) {
            let pkt = &pkts[place];
            let Some(nic) = resolve_fast_v6(unique, pkt, *hint) else { return place };
            let (remote, ports, meta) = (pkt.remote(), key_ports(pkt), key_meta(pkt.proto, true));
            let key = EntryKey::new(
                nic.id,
                remote_digest(remote, meta),
                ports,
                meta | required_state_bits(pkt.fast_path_state()),
            );
            let hash = index.hash_v6(nic.id, remote, ports, pkt.proto);
            index.prefetch(hash);
            resolved[place] = Resolved { key, hash, nic: Some(nic) };
        }
        first + count
    }

    /// The key under which a packet's connection is looked up.
    #[inline]
    pub fn key(&self, pkt: &PacketMeta, &Resolved { key, hash, .. }: &Resolved<'_>) -> Key {
        let meta = without_required_state(key.meta());
        Key { addr: key.addr(), remote: pkt.remote(), ports: key.ports(), meta, hash }
    }

    /// The verdict on a packet of a NIC.
    #[inline(always)]
    pub fn judge(&mut self, packet: &Packet<'_>) -> Verdict {
        let Packet { snapshot, pkt, nic, .. } = *packet;
        match pkt.fragment {
            Fragment::Whole => self.judge_packet(packet),
            Fragment::First => {
                self.flow = None;
                let verdict = self.judge_packet(packet);
                self.remember(snapshot, pkt, nic, verdict, self.flow);
                verdict
            }
            Fragment::Later => self.later_fragment(snapshot, pkt, nic),
        }
    }

    /// Judges and counts a run of packets of established connections, from `first` on. Returns the
    /// index of the first packet that needs the slow path, or the end. In a loop of its own, as
    /// [`Judge::resolve_fast_v4_run`].
    #[inline(always)]
    pub fn fast_path_run(
        &mut self,
        isa: impl Isa,
        counters: &EngineCounters,
        first: usize,
        burst: &ResolvedBurst<'_, '_>,
        verdicts: &mut [Verdict; BURST],
        meanwhile: &impl Fn(usize),
    ) -> usize {
        // Two copies, so that the one without flow accounting pays nothing for it.
        if self.shard.counts_flows() {
            self.fast_path_run_with::<true>(isa, counters, first, burst, verdicts, meanwhile)
        } else {
            self.fast_path_run_with::<false>(isa, counters, first, burst, verdicts, meanwhile)
        }
    }

    #[inline(always)]
    fn fast_path_run_with<const COUNT: bool>(
        &mut self,
        isa: impl Isa,
        counters: &EngineCounters,
        first: usize,
        burst: &ResolvedBurst<'_, '_>,
        verdicts: &mut [Verdict; BURST],
        meanwhile: &impl Fn(usize),
    ) -> usize {
        let mut table = self.shard.entry_table();
        let Some(counts) = counters.established() else { return first };
        let count = burst.pkts.len().min(BURST);
        // By index: iterators over all of these took 19 instructions more per packet.
        let mut place = first;
        while place < count {
            let (pkt, resolved) = (&burst.pkts[place], &burst.resolved[place]);
            let Some(nic) = resolved.nic else { return place };
            if !fast_path(isa, &mut table, pkt, nic, resolved, burst.hints[place]) {
                return place;
            }
            verdicts[place] = Verdict::of(Reason::Established, nic.nic);
            counts.count(nic.nic, pkt.side, pkt.len);
            if COUNT && let Some(carried) = table.flow_counters.get_mut(burst.hints[place] as usize) {
                carried.count(pkt.side, pkt.len, pkt.now);
            }
            burst.prefetch_ahead(place, |hint| {
                table.prefetch(hint, burst.is_any_v6);
                if COUNT {
                    table.prefetch_flow_counters(hint);
                }
            });
            meanwhile(place);
            place += 1;
        }
        count
    }

    /// Forgets the connection of the packet that was judged last.
    #[inline]
    pub fn forget_flow(&mut self) {
        self.flow = None;
    }

    /// Counts a packet that passed as part of a connection. An RST that ended its connection is
    /// counted by then; ICMP errors about a connection are not part of it.
    pub fn count_flow(&mut self, snapshot: &Snapshot, pkt: &PacketMeta, verdict: &Verdict) {
        let is_part = matches!(verdict.reason, Reason::Established | Reason::New | Reason::Fragment);
        if let Some(flow) = self.flow.filter(|_| is_part) {
            self.shard.count(flow, pkt, snapshot);
        }
    }

    /// The verdict on a whole packet or first fragment; leaves the connection that it passed as
    /// part of in `flow`.
    #[inline]
    fn judge_packet(&mut self, packet: &Packet<'_>) -> Verdict {
        let Packet { snapshot, pkt, nic, .. } = *packet;
        let drop = |reason| Verdict::of(reason, nic.nic);
        match pkt.kind {
            PacketKind::Tcp if tcp::is_impossible(pkt.flags) => return drop(Reason::Invalid),
            PacketKind::IcmpError => return self.icmp_error(packet),
            PacketKind::IcmpOther => return drop(Reason::Invalid),
            _ => {}
        }
        if let Some(flow) = self.shard.find(packet.key) {
            if self.shard.is_expired(flow, pkt.now) {
                self.shard.end(flow, EndCause::Expired, snapshot);
            } else {
                return match self.current_liveness(snapshot, nic, flow) {
                    Liveness::Live => self.existing_connection(packet, flow),
                    _ => drop(Reason::Tombstone),
                };
            }
        }
        self.new_connection(packet)
    }

    /// Whether a connection that has not expired is live; re-judges it if that is due (semantics
    /// 5.4).
    #[inline]
    fn current_liveness(&mut self, snapshot: &Snapshot, nic: &Binding, flow: FlowIndex) -> Liveness {
        // A rollback has brought its NIC back, and the sweep has not reached it yet.
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
        match snapshot.judge(nic, &query) {
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

    /// The verdict on a packet whose connection is live.
    #[inline]
    fn existing_connection(&mut self, packet: &Packet<'_>, flow: FlowIndex) -> Verdict {
        let Packet { snapshot, pkt, nic, .. } = *packet;
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
            Outcome::Restart => self.restart(packet, flow, pkt.side.direction()),
            Outcome::Reopen => self.restart(packet, flow, pkt.side.direction().reverse()),
        }
    }

    /// Replaces a live connection by a new one: for a SYN after both FINs, or for the answer to a
    /// SYN that passed within it (semantics 4.3). `direction` is that of the SYN. If the rules
    /// refuse the new one, the old one stays as it is.
    #[cold]
    fn restart(&mut self, packet: &Packet<'_>, flow: FlowIndex, direction: Direction) -> Verdict {
        let Packet { snapshot, pkt, nic, .. } = *packet;
        let old = *self.shard.entry(flow);
        let remote = pkt.remote();
        let port = if direction == Direction::Inbound { old.ports >> 16 } else { old.ports } as u16;
        let query = Query { direction, v6: pkt.v6, protocol: pkt.proto, port, remote };
        let rule = match snapshot.judge(nic, &query) {
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

    /// The verdict on a packet without a connection: it opens one, or drops.
    fn new_connection(&mut self, packet: &Packet<'_>) -> Verdict {
        let Packet { snapshot, pkt, nic, key, rule_verdict, .. } = *packet;
        let drop = |reason| Verdict::of(reason, nic.nic);
        let is_pickup = pkt.kind == PacketKind::Tcp && !tcp::is_opening_syn(pkt.flags);
        if pkt.kind == PacketKind::IcmpReply || is_pickup && !(self.loose_pickup && pkt.flags == flags::ACK) {
            return drop(Reason::Invalid);
        }
        let mut direction = pkt.side.direction();
        let judge = |query: Query| snapshot.judge(nic, &query);
        let query = opening_query(pkt, key.remote);
        let mut judgement = rule_verdict.unwrap_or_else(|| judge(query));
        if is_pickup && direction == Direction::Outbound {
            // A server's segment must not turn its client's connection into an outbound one, which
            // no flush ends.
            let inbound = Query { direction: Direction::Inbound, port: pkt.sport, ..query };
            if let RuleVerdict::Allow(rule) = judge(inbound) {
                (direction, judgement) = (Direction::Inbound, RuleVerdict::Allow(rule));
            }
        }
        let RuleVerdict::Allow(rule) = judgement else { return refusal_verdict(judgement, nic.nic) };
        let mut limit = u32::MAX;
        if nic.is_limited() {
            limit = snapshot.nic(nic.nic).max_connections;
            // The limit counts what a change has ended or a rollback has restored only once the
            // sweep has found it.
            self.shard.sweep_for_room(snapshot);
        }
        if !self.connection_counts.enter(nic.nic, limit) && !self.enter_after_expiry(packet, limit) {
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

    /// At a NIC's limit: its own expired connections that were not found yet do not count.
    #[cold]
    fn enter_after_expiry(&mut self, packet: &Packet<'_>, limit: u32) -> bool {
        let Packet { snapshot, pkt, nic, .. } = *packet;
        self.shard.expire_of(nic.nic, snapshot, pkt.now);
        self.connection_counts.enter(nic.nic, limit)
    }

    /// The verdict on an ICMP error: part of the connection of the packet that it quotes, or
    /// invalid (semantics 4.5).
    #[cold]
    fn icmp_error(&mut self, packet: &Packet<'_>) -> Verdict {
        let Packet { pkt, nic, bytes, .. } = *packet;
        match icmp_quote::read(pkt, bytes).and_then(|quote| self.quoted_flow(packet, &quote)) {
            Some(flow) => {
                self.flow = Some(flow);
                Verdict::of(Reason::Related, nic.nic)
            }
            None => Verdict::of(Reason::Invalid, nic.nic),
        }
    }

    /// The key of the connection that a quoted packet belongs to; `None` if the packet is not this
    /// NIC's.
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

    fn quoted_flow(&mut self, packet: &Packet<'_>, quote: &QuotedPacket) -> Option<FlowIndex> {
        let Packet { snapshot, pkt, nic, .. } = *packet;
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
