//! One burst through the firewall: read, resolve, look ahead, judge. Ports and other workers are [`crate::worker`]'s.

mod batch;
mod fragments;
mod inspect;
mod upkeep;

use std::sync::Arc;

use arrayvec::ArrayVec;
pub use batch::{Batch, Verdicts};

use crate::classify::RuleVerdict;
use crate::conntrack::persist::PersistentMemory;
use crate::conntrack::restore::{PreviousProcess, RestoreCounts, SavedConnection};
use crate::conntrack::{NO_HINT, Secret, Shard, ShardConfig};
use crate::counters::{ConnectionCounts, EngineCounters};
use crate::io::{BURST, Frame};
use crate::judge::{Judge, is_remembered};
use crate::lookahead::{BindingPrefetch, ENTRY_PREFETCH_DISTANCE, Resolved, ResolvedBurst};
use crate::packet::{Arrival, Fragment, PacketKind, PacketMeta};
use crate::parse::parse;
#[cfg(target_arch = "x86_64")]
use crate::parse::parse_v3;
use crate::resolve::{Resolution, resolve};
use crate::rule_verdicts::{RuleVerdicts, refusal_verdict};
use crate::snapshot::{Binding, Snapshot};
use crate::staged::{StagedVerdict, staged_verdict};
use crate::time::{Clock, Now};
use crate::verdict::Verdict;
use crate::worker::Connection;
use crate::{Generation, NicSlot, Reason, Side};

/// Bytes of a segmented frame's first buffer that make it worth looking there for its headers.
const HEADERS: usize = 128;
/// The most bytes of a segmented frame that are looked at: more than any chain of headers that passes takes.
const SCRATCH: usize = 32 * 1024;

/// What a firewall needs beside the policy.
#[derive(Clone)]
pub struct FirewallConfig {
    /// Its connections.
    pub shard: ShardConfig,
    /// Drawn at random for each start.
    pub secret: Secret,
    /// Until this moment (nanoseconds, as frames are stamped) a mid-stream segment may open a connection.
    pub grace_end_ns: u64,
}

/// One worker's firewall: its connections, its clock, its counters.
pub struct Firewall {
    judge: Judge,
    clock: Clock,
    counters: Arc<EngineCounters>,
    grace_end_ns: u64,
    generation: Generation,
    scratch: Box<[u8]>,
    rule_verdicts: RuleVerdicts,
    /// See [`crate::cpu`].
    has_v3: bool,
}

/// A pass over the frames of a burst, in the order in which a poll goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Receiving.
    Rx,
    /// Reading headers into packet metadata; handing off what other workers own.
    Parse,
    /// Finding the NIC, hashing the key, asking for the index's line.
    Resolve,
    /// Looking into the index, asking for the entry's line.
    Prefetch,
    /// Connections, rules, verdicts, counters.
    Judge,
    /// Sending, and freeing what was dropped.
    Tx,
}

/// The bytes of a frame from its first on: gathered, if it is segmented.
#[inline]
fn bytes_of<'a, F: Frame>(frame: &'a F, scratch: &'a mut [u8]) -> &'a [u8] {
    if frame.is_odd() { gathered(frame, scratch) } else { frame.head() }
}

#[cold]
fn gathered<'a, F: Frame>(frame: &'a F, scratch: &'a mut [u8]) -> &'a [u8] {
    let len = frame.gather(scratch);
    &scratch[..len]
}

/// Whose the verdict on a first fragment is remembered for that no rule judged (semantics 4.6).
fn remembered_for<'s>(snapshot: &'s Snapshot, pkt: &PacketMeta, verdict: &Verdict) -> Option<&'s Binding> {
    if !is_remembered(verdict) {
        return None;
    }
    let mac = if pkt.side == Side::Inside { pkt.src_mac } else { pkt.dst_mac };
    snapshot.binding_for(snapshot.vpc_of(pkt.segment)?, pkt.local(), pkt.v6, mac)
}

impl Firewall {
    /// Without connections. `counters` are this worker's, `connection_counts` is everybody's.
    pub fn new(
        config: &FirewallConfig,
        counters: Arc<EngineCounters>,
        connection_counts: Arc<ConnectionCounts>,
    ) -> Firewall {
        Firewall::with_memory(None, config, counters, connection_counts)
    }

    /// The same with its connections in memory that outlives the process, where some is given.
    pub fn with_memory(
        memory: Option<PersistentMemory>,
        config: &FirewallConfig,
        counters: Arc<EngineCounters>,
        connection_counts: Arc<ConnectionCounts>,
    ) -> Firewall {
        let mut clock = Clock::new(config.shard.timeouts.longest());
        let start = clock.at(0).tick;
        let (secret, counts) = (config.secret, counters.clone());
        let shard =
            Shard::with_memory(memory, config.shard, secret, start, counts, connection_counts.clone());
        Firewall {
            judge: Judge::new(shard, connection_counts),
            clock,
            counters,
            grace_end_ns: config.grace_end_ns,
            generation: Generation(0),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            rule_verdicts: RuleVerdicts::default(),
            has_v3: crate::cpu::has_v3(),
        }
    }

    /// Has the memory backed that packets of the first so many NICs may need.
    pub fn touch(&mut self, nics: u32) {
        self.judge.touch();
        self.counters.touch(nics);
        crate::pages::touch(&mut self.scratch);
    }

    /// Takes up connections that a former process left, at moment `ns` of this one's clock.
    pub fn restore(
        &mut self,
        kept: Vec<SavedConnection>,
        since: &PreviousProcess,
        snapshot: &Snapshot,
        ns: u64,
    ) -> RestoreCounts {
        let now = self.now(ns);
        self.begin(snapshot);
        self.judge.shard.restore(kept, since, snapshot, ns, now)
    }

    /// Its connections.
    pub fn shard(&self) -> &Shard {
        &self.judge.shard
    }

    /// Disconnects one connection by an operator's wish, if it is still the one that was listed: an inbound one becomes a
    /// tombstone until its deadline, which no rollback takes back; an outbound one is gone. False if there was nothing to
    /// disconnect.
    pub fn disconnect(&mut self, listed: &Connection, snapshot: &Snapshot, now: Now) -> bool {
        self.judge.shard.disconnect(listed.flow, &listed.entry, listed.remote, snapshot, now)
    }

    /// Its counters.
    pub fn counters(&self) -> &EngineCounters {
        &self.counters
    }

    /// Begins a burst under a snapshot; with one not seen before, looks for what it has ended.
    #[inline]
    pub fn begin(&mut self, snapshot: &Snapshot) {
        if snapshot.generation != self.generation {
            self.adopt(snapshot);
        }
        // Before an entry bears a deadline that counts from it.
        self.judge.shard.note_lag(self.clock.lag());
        self.judge.loose_pickup = snapshot.settings.loose_pickup || self.clock.last_ns() < self.grace_end_ns;
        if self.judge.shard.counts_flows() {
            self.judge.shard.set_anchor(self.clock.anchor());
        }
    }

    #[cold]
    fn adopt(&mut self, snapshot: &Snapshot) {
        if self.generation < snapshot.last_ending {
            self.judge.shard.adopt();
        }
        self.generation = snapshot.generation;
    }

    /// The moment `ns`, in ticks; it does not run back.
    #[inline]
    pub fn now(&mut self, ns: u64) -> Now {
        self.clock.at(ns)
    }

    /// The last moment that it was told of.
    pub fn now_ns(&self) -> u64 {
        self.clock.last_ns()
    }

    /// Reads a frame of the first wire.
    #[inline]
    pub fn read<F: Frame>(&mut self, frame: &mut F, side: Side, tunnels: bool, now: Now) -> PacketMeta {
        let mut pkt = PacketMeta::default();
        self.read_into(frame, &Arrival { side, wire: 0, tunnels, now }, &mut pkt);
        pkt
    }

    /// Reads a frame into packet metadata that is in its place already.
    #[inline]
    pub fn read_into<F: Frame>(&mut self, frame: &mut F, arrival: &Arrival, pkt: &mut PacketMeta) {
        #[cfg(target_arch = "x86_64")]
        if self.has_v3 {
            // SAFETY: the flag says that the processor was asked.
            return unsafe { self.read_v3(frame, arrival, pkt) };
        }
        // SAFETY: nothing is demanded without `V3`.
        unsafe { self.read_as::<false, F>(frame, arrival, pkt) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,movbe,lzcnt")]
    fn read_v3<F: Frame>(&mut self, frame: &mut F, arrival: &Arrival, pkt: &mut PacketMeta) {
        // SAFETY: who calls this has these instructions.
        unsafe { self.read_as::<true, F>(frame, arrival, pkt) }
    }

    /// The same with the instructions that the caller has asked the processor for.
    ///
    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    pub unsafe fn read_as<const V3: bool, F: Frame>(
        &mut self,
        frame: &mut F,
        arrival: &Arrival,
        pkt: &mut PacketMeta,
    ) {
        if frame.is_odd() {
            return self.read_odd(frame, arrival, pkt);
        }
        let (data, wire_len) = (frame.head(), frame.wire_len());
        #[cfg(target_arch = "x86_64")]
        if V3 {
            // SAFETY: as the caller says.
            return unsafe { parse_v3(data, wire_len, arrival, pkt) };
        }
        parse(data, wire_len, arrival, pkt);
    }

    #[cold]
    fn read_odd<F: Frame>(&mut self, frame: &mut F, arrival: &Arrival, pkt: &mut PacketMeta) {
        if frame.restore_tag() {
            let wire_len = frame.wire_len();
            // The headers of a segmented frame mostly lie in its first buffer, and nothing has to be copied then. What is
            // read so and is sound is what the whole frame says: only headers are read.
            let head = frame.head();
            if head.len() >= HEADERS && head.len() < frame.captured() {
                parse(head, wire_len, arrival, pkt);
                if !matches!(
                    pkt.kind,
                    PacketKind::Malformed | PacketKind::TruncatedLink | PacketKind::BadSegment
                ) {
                    return;
                }
            }
            parse(bytes_of(frame, &mut self.scratch), wire_len, arrival, pkt);
        } else {
            let len = frame.wire_len() as u32;
            *pkt = PacketMeta { kind: PacketKind::TruncatedLink, len, ..PacketMeta::of(arrival) };
        }
    }

    /// The bytes of a frame, for the few that are read again.
    #[inline]
    pub fn bytes<'a, F: Frame>(&'a mut self, frame: &'a F) -> &'a [u8] {
        bytes_of(frame, &mut self.scratch)
    }

    /// Judges a batch in order of arrival, and counts. Two passes look ahead, so that the third finds what it needs in
    /// the cache: NIC and bucket, then the entry.
    #[inline]
    pub fn judge<F: Frame>(&mut self, snapshot: &Snapshot, batch: &mut Batch<F>) {
        #[cfg(target_arch = "x86_64")]
        if self.has_v3 {
            // SAFETY: the flag says that the processor was asked.
            return unsafe { self.judge_v3(snapshot, batch) };
        }
        // SAFETY: nothing is demanded without `V3`.
        unsafe { self.judge_in_passes::<false, F>(snapshot, batch, |_| (), |_| ()) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,movbe,lzcnt")]
    fn judge_v3<F: Frame>(&mut self, snapshot: &Snapshot, batch: &mut Batch<F>) {
        // SAFETY: who calls this has these instructions.
        unsafe { self.judge_in_passes::<true, F>(snapshot, batch, |_| (), |_| ()) }
    }

    /// The same, saying when each pass over the batch is done; `meanwhile` is done as each packet is judged, by its place.
    ///
    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    pub unsafe fn judge_in_passes<const V3: bool, F: Frame>(
        &mut self,
        snapshot: &Snapshot,
        batch: &mut Batch<F>,
        mut done: impl FnMut(Pass),
        meanwhile: impl Fn(usize),
    ) {
        let Batch { frames, pkts, verdicts, tickets, staged, .. } = batch;
        staged.clear();
        let mut aheads = [Resolved::NONE; BURST];
        // Verdicts of packets that need no connection, in their order.
        let mut early: ArrayVec<Verdict, BURST> = ArrayVec::new();
        let (mut place, mut is_any_v6, mut guesses) = (0, false, BindingPrefetch::default());
        while let (Some(first), Some(frame)) = (pkts.get(place), frames.get(place)) {
            if first.fast_v4
                && let Some(holders) = snapshot.unique_addresses(first.segment)
            {
                guesses.begin(first.segment);
                let next = self.judge.resolve_fast_v4_run(&holders, &mut guesses, place, pkts, &mut aheads);
                if next != place {
                    place = next;
                    continue;
                }
            }
            if first.is_fast_v6()
                && let Some(holders) = snapshot.unique_addresses(first.segment)
            {
                let segment = first.segment;
                let next = self.judge.resolve_fast_v6_run(&holders, segment, place, pkts, &mut aheads);
                if next != place {
                    (place, is_any_v6) = (next, true);
                    continue;
                }
            }
            match self.resolve_slow(snapshot, first, frame) {
                Ok(found) => {
                    is_any_v6 |= first.v6;
                    self.judge.shard.prefetch_index(found.hash);
                    aheads[place] = found;
                }
                Err(verdict) => early.push(verdict),
            }
            place += 1;
        }
        done(Pass::Resolve);
        // Of no packet none is missing.
        let mut hints = [0; BURST];
        let homes = self.judge.shard.index_lookup();
        for (hint, ahead) in hints.iter_mut().zip(&aheads[..pkts.len()]) {
            // SAFETY: as the caller says.
            *hint = unsafe { homes.hint::<V3>(ahead.hash) };
        }
        for hint in &hints[..ENTRY_PREFETCH_DISTANCE] {
            self.judge.shard.prefetch_entry(*hint, is_any_v6);
        }
        if self.judge.shard.counts_flows() {
            hints[..ENTRY_PREFETCH_DISTANCE]
                .iter()
                .for_each(|hint| self.judge.shard.prefetch_flow_counters(*hint));
        }
        done(Pass::Prefetch);
        self.rule_verdicts.evaluate(snapshot, pkts, &aheads, &hints);
        let mut early = early.into_iter();
        let (mut all_pass, mut all_established, mut more_refused) = (true, true, 0);
        verdicts.len = pkts.len();
        let packets = ResolvedBurst { pkts, resolved: &aheads, hints: &hints, is_any_v6 };
        let mut place = 0;
        while place < pkts.len() {
            if hints[place] != NO_HINT {
                // SAFETY: as the caller says.
                place = unsafe {
                    self.judge.fast_path_run::<V3>(
                        &self.counters,
                        place,
                        &packets,
                        &mut verdicts.all,
                        &meanwhile,
                    )
                };
            }
            let (Some(pkt), Some(frame), Some(ahead)) =
                (pkts.get(place), frames.get(place), aheads.get(place))
            else {
                break;
            };
            packets.prefetch_ahead(place, |hint| self.judge.shard.prefetch_entry(hint, is_any_v6));
            meanwhile(place);
            // An earlier packet of this burst may have opened its connection: the index is asked again.
            let verdict = if let Some(nic) = ahead.nic
                && let Some(refusal) = self.rule_verdicts.refusal(place)
                && self.judge.shard.is_absent(ahead.hash)
            {
                self.refuse(pkt, nic, refusal)
            } else {
                let known = if ahead.nic.is_none() { early.next() } else { None };
                let verdict = self.judge_slow(snapshot, pkt, frame, ahead, place, known);
                if verdict.held {
                    tickets.extend(self.judge.ticket.take());
                }
                verdict
            };
            verdicts.all[place] = verdict;
            if snapshot.has_staged {
                staged.extend(self.evaluate_staged(snapshot, pkt, ahead, &verdict).map(|told| (place, told)));
            }
            more_refused += match verdict.reason {
                Reason::NoRule | Reason::Denied => 1,
                Reason::New => -1,
                _ => 0,
            };
            all_pass &= verdict.passes();
            all_established &= verdict.reason == Reason::Established;
            place += 1;
        }
        self.rule_verdicts.learn(more_refused);
        if !all_established && self.judge.shard.counts_refusals() {
            self.count_refusals(snapshot, pkts, verdicts);
        }
        (batch.all_pass, batch.all_established) = (all_pass, all_established);
        done(Pass::Judge);
    }

    /// Any packet's NIC, or the verdict that needs none.
    #[inline(never)]
    fn resolve_slow<'s, F: Frame>(
        &mut self,
        snapshot: &'s Snapshot,
        pkt: &PacketMeta,
        frame: &F,
    ) -> Result<Resolved<'s>, Verdict> {
        match resolve(snapshot, pkt, bytes_of(frame, &mut self.scratch)) {
            Resolution::Nic(nic) => Ok(self.judge.resolve_key(pkt, nic)),
            Resolution::Verdict(verdict) => Err(verdict),
        }
    }

    /// The verdict, counted, on a packet that has no connection and that the rules refuse so.
    #[inline(never)]
    fn refuse(&self, pkt: &PacketMeta, nic: &Binding, refusal: RuleVerdict) -> Verdict {
        self.counted(pkt, refusal_verdict(refusal, nic.nic), nic.observes())
    }

    /// Any packet's verdict, counted; `place` is its in the burst, `known` that of a packet without a NIC.
    #[inline(never)]
    fn judge_slow<F: Frame>(
        &mut self,
        snapshot: &Snapshot,
        pkt: &PacketMeta,
        frame: &F,
        ahead: &Resolved<'_>,
        place: usize,
        known: Option<Verdict>,
    ) -> Verdict {
        let (verdict, observes) = match ahead.nic {
            Some(nic) => {
                let key = self.judge.key(pkt, ahead);
                let bytes = bytes_of(frame, &mut self.scratch);
                let answer = self.rule_verdicts.get(place);
                self.judge.forget_flow();
                let verdict = self.judge.judge(snapshot, pkt, nic, &key, bytes, answer);
                if self.judge.shard.counts_flows() {
                    self.judge.count_flow(snapshot, pkt, &verdict);
                }
                (verdict, nic.observes())
            }
            None => {
                let verdict = known.unwrap_or(Verdict::nobody(Reason::Malformed));
                (verdict, self.observes_resolved(snapshot, pkt, &verdict))
            }
        };
        self.counted(pkt, verdict, observes)
    }

    /// Counts a verdict, and lets its packet go on where its NIC is only observed.
    #[inline]
    fn counted(&self, pkt: &PacketMeta, mut verdict: Verdict, observes: bool) -> Verdict {
        if verdict.held {
            return verdict;
        }
        if !verdict.reason.passes() {
            verdict.observed = observes;
            if observes {
                self.counters.observe(verdict.nic, pkt.side.direction(), verdict.reason, 1);
            }
        }
        let direction = pkt.side.direction();
        self.counters.count(verdict.nic, direction, verdict.reason);
        self.counters.count_bytes(verdict.nic, direction, verdict.passes(), pkt.len);
        match verdict.reason {
            Reason::New => self.counters.rules.count_opened(verdict.rule),
            Reason::Denied => self.counters.rules.count_denied(verdict.rule),
            _ => {}
        }
        verdict
    }

    /// What a staged rule would decide about a packet that was judged, counted.
    #[cold]
    #[inline(never)]
    fn evaluate_staged(
        &self,
        snapshot: &Snapshot,
        pkt: &PacketMeta,
        ahead: &Resolved<'_>,
        verdict: &Verdict,
    ) -> Option<StagedVerdict> {
        let staged_verdict = staged_verdict(snapshot, pkt, ahead.nic?, verdict)?;
        self.counters.rules.count_would_be(&staged_verdict);
        Some(staged_verdict)
    }

    /// Whether its NIC is observed; what no rule judged is remembered on the way, if fragments follow (semantics 4.6).
    #[inline]
    fn observes_resolved(&mut self, snapshot: &Snapshot, pkt: &PacketMeta, verdict: &Verdict) -> bool {
        if pkt.fragment == Fragment::First
            && let Some(nic) = remembered_for(snapshot, pkt, verdict)
        {
            self.judge.remember(snapshot, pkt, nic, *verdict, None);
        }
        // A NIC's own mode comes before everybody's.
        if verdict.nic == NicSlot::NONE {
            snapshot.settings.observe
        } else {
            snapshot.nic(verdict.nic).observe
        }
    }
}
