//! One worker's firewall: a burst of frames is read, and judged in passes. Ports and other workers
//! are the business of [`crate::worker`].

mod batch;
mod fragments;
mod inspect;
mod pipeline;
mod upkeep;

use std::sync::Arc;

pub use batch::{Batch, Verdicts};
use pipeline::Pipeline;

use crate::conntrack::Connection;
use crate::conntrack::persist::PersistentMemory;
use crate::conntrack::restore::{PreviousProcess, RestoreCounts, SavedConnection};
use crate::conntrack::{Secret, Shard, ShardConfig};
use crate::counters::{ConnectionCounts, EngineCounters};
use crate::cpu::{Baseline, Isa, Simd, Work, simd};
use crate::io::Frame;
use crate::judge::{Judge, is_remembered};
use crate::lookahead::Resolved;
use crate::packet::{Arrival, Fragment, PacketKind, PacketMeta};
use crate::parse::parse;
use crate::rule_verdicts::RuleVerdicts;
use crate::snapshot::{Binding, Snapshot};
use crate::staged::staged_verdict;
use crate::time::{Clock, Now};
use crate::verdict::StagedVerdict;
use crate::verdict::Verdict;
use crate::{Generation, NicSlot, Reason, Side};

/// Bytes of a segmented frame's first buffer from which its headers are read in place.
const HEADERS: usize = 128;
/// Bytes of a segmented frame that are gathered at most: more than any chain of headers that passes
/// takes.
const SCRATCH: usize = 32 * 1024;

/// What a firewall needs besides the policy.
#[derive(Clone)]
pub struct FirewallConfig {
    /// The connection table.
    pub shard: ShardConfig,
    /// Drawn at random for each start.
    pub secret: Secret,
    /// Until this moment (nanoseconds, as frames are stamped) a mid-stream segment may open a
    /// connection.
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
    simd: Simd,
}

/// A pass over the frames of a burst, in the order in which a poll makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Receiving.
    Rx,
    /// Parsing headers; handing off the frames of other workers.
    Parse,
    /// Finding the NIC, hashing the key, prefetching the index bucket.
    Resolve,
    /// Looking the hint up in the index, prefetching the entry.
    Prefetch,
    /// Connections, rules, verdicts, counters.
    Judge,
    /// Sending, and freeing what was dropped.
    Tx,
}

/// The bytes of a frame from its first on, gathered if it is segmented.
#[inline]
fn bytes_of<'a, F: Frame>(frame: &'a F, scratch: &'a mut [u8]) -> &'a [u8] {
    if frame.is_odd() { gathered(frame, scratch) } else { frame.head() }
}

#[cold]
fn gathered<'a, F: Frame>(frame: &'a F, scratch: &'a mut [u8]) -> &'a [u8] {
    let len = frame.gather(scratch);
    &scratch[..len]
}

/// The NIC for which a first fragment's verdict is remembered, if no rule judged it (semantics
/// 4.6).
fn remembered_for<'s>(snapshot: &'s Snapshot, pkt: &PacketMeta, verdict: &Verdict) -> Option<&'s Binding> {
    if !is_remembered(verdict) {
        return None;
    }
    let mac = if pkt.side == Side::Inside { pkt.src_mac } else { pkt.dst_mac };
    snapshot.binding_for(snapshot.vpc_of(pkt.segment)?, pkt.local(), pkt.v6, mac)
}

/// [`Firewall::read_into`], for each instruction set.
struct Read<'a, F> {
    firewall: &'a mut Firewall,
    frame: &'a mut F,
    arrival: &'a Arrival,
    pkt: &'a mut PacketMeta,
}

impl<F: Frame> Work for Read<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: impl Isa) {
        self.firewall.read_as(isa, self.frame, self.arrival, self.pkt);
    }
}

/// [`Firewall::judge`], for each instruction set.
struct JudgeBatch<'a, F> {
    firewall: &'a mut Firewall,
    snapshot: &'a Snapshot,
    batch: &'a mut Batch<F>,
}

impl<F: Frame> Work for JudgeBatch<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: impl Isa) {
        self.firewall.judge_in_passes(isa, self.snapshot, self.batch, |_| (), |_| ());
    }
}

impl Firewall {
    /// A firewall without connections. `counters` are this worker's, `connection_counts` are
    /// shared.
    pub fn new(
        config: &FirewallConfig,
        counters: Arc<EngineCounters>,
        connection_counts: Arc<ConnectionCounts>,
    ) -> Firewall {
        Firewall::with_memory(None, config, counters, connection_counts)
    }

    /// The same with connections in memory that outlives the process, if some is given.
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
            simd: simd(),
        }
    }

    /// Has the kernel back the memory that packets of the first `nics` NICs may need.
    pub fn touch(&mut self, nics: u32) {
        self.judge.touch();
        self.counters.touch(nics);
        crate::pages::touch(&mut self.scratch);
    }

    /// Restores the connections that an earlier process left, at moment `ns` of this one's clock.
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

    /// Disconnects one connection for an operator, if it is still the one that was listed. An
    /// inbound one becomes a tombstone until its deadline, which no rollback reverts; an outbound
    /// one is removed. False if there was nothing to disconnect.
    pub fn disconnect(&mut self, listed: &Connection, snapshot: &Snapshot, now: Now) -> bool {
        self.judge.shard.disconnect(listed.flow, &listed.entry, listed.remote, snapshot, now)
    }

    /// Its counters.
    pub fn counters(&self) -> &EngineCounters {
        &self.counters
    }

    /// Begins a burst under a snapshot. A new snapshot starts a sweep for what it has ended.
    #[inline]
    pub fn begin(&mut self, snapshot: &Snapshot) {
        if snapshot.generation != self.generation {
            self.adopt(snapshot);
        }
        // Before any entry gets a deadline that counts from it.
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

    /// The moment `ns` in ticks, which never run back.
    #[inline]
    pub fn now(&mut self, ns: u64) -> Now {
        self.clock.at(ns)
    }

    /// The last moment given.
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

    /// Reads a frame into metadata that is in its place already.
    #[inline]
    pub fn read_into<F: Frame>(&mut self, frame: &mut F, arrival: &Arrival, pkt: &mut PacketMeta) {
        self.simd.run(Read { firewall: self, frame, arrival, pkt });
    }

    /// The same, as part of a function that is compiled for an instruction set.
    #[inline(always)]
    pub fn read_as<F: Frame>(
        &mut self,
        isa: impl Isa,
        frame: &mut F,
        arrival: &Arrival,
        pkt: &mut PacketMeta,
    ) {
        if frame.is_odd() {
            return self.read_odd(frame, arrival, pkt);
        }
        parse(isa, frame.head(), frame.wire_len(), arrival, pkt);
    }

    #[cold]
    fn read_odd<F: Frame>(&mut self, frame: &mut F, arrival: &Arrival, pkt: &mut PacketMeta) {
        if frame.restore_tag() {
            let wire_len = frame.wire_len();
            // The headers of a segmented frame mostly lie in its first buffer; nothing is copied
            // then. Only headers are read, so a sound result from there is that of the whole frame.
            let head = frame.head();
            if head.len() >= HEADERS && head.len() < frame.captured() {
                parse(Baseline, head, wire_len, arrival, pkt);
                if !matches!(
                    pkt.kind,
                    PacketKind::Malformed | PacketKind::TruncatedLink | PacketKind::BadSegment
                ) {
                    return;
                }
            }
            parse(Baseline, bytes_of(frame, &mut self.scratch), wire_len, arrival, pkt);
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

    /// Judges a batch in order of arrival, and counts it.
    #[inline]
    pub fn judge<F: Frame>(&mut self, snapshot: &Snapshot, batch: &mut Batch<F>) {
        self.simd.run(JudgeBatch { firewall: self, snapshot, batch });
    }

    /// The same, reporting the end of each pass; `meanwhile` is called with each packet's index as
    /// it is judged.
    #[inline(always)]
    pub fn judge_in_passes<F: Frame>(
        &mut self,
        isa: impl Isa,
        snapshot: &Snapshot,
        batch: &mut Batch<F>,
        mut done: impl FnMut(Pass),
        meanwhile: impl Fn(usize),
    ) {
        batch.staged.clear();
        batch.verdicts.len = batch.pkts.len();
        let mut pipeline = Pipeline::new(snapshot);
        pipeline.resolve(self, &batch.pkts, &batch.frames);
        done(Pass::Resolve);
        pipeline.prefetch(isa, &self.judge.shard, batch.pkts.len());
        done(Pass::Prefetch);
        pipeline.evaluate_rules(&mut self.rule_verdicts, &batch.pkts);
        pipeline.judge(isa, self, batch, meanwhile);
        done(Pass::Judge);
    }

    /// Counts a verdict. The packet passes all the same if its NIC is only observed.
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

    /// What a staged rule would decide about a packet that was judged; counts it.
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

    /// Whether the NIC of a packet with an early verdict is observed. Remembers the verdict if
    /// fragments follow (semantics 4.6).
    #[inline]
    fn observes_resolved(&mut self, snapshot: &Snapshot, pkt: &PacketMeta, verdict: &Verdict) -> bool {
        if pkt.fragment == Fragment::First
            && let Some(nic) = remembered_for(snapshot, pkt, verdict)
        {
            self.judge.remember(snapshot, pkt, nic, *verdict, None);
        }
        // A NIC's own mode has precedence over the appliance's.
        if verdict.nic == NicSlot::NONE {
            snapshot.settings.observe
        } else {
            snapshot.nic(verdict.nic).observe
        }
    }
}
