//! One burst through the firewall: read, resolve, look ahead, judge. Ports and other workers are [`crate::worker`]'s.

mod bench;
mod fragments;
mod upkeep;

use std::ops::Deref;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::ahead::{Ahead, ENTRIES_AHEAD, Guesses, Packets};
use crate::answers::{Answers, refused};
use crate::cells::{Cells, Population};
use crate::classify::Judgement;
use crate::conntrack::keep::Memory;
use crate::conntrack::kept::{Kept, Since, TakenUp};
use crate::conntrack::{NO_HINT, Secret, Shard, ShardConfig};
use crate::io::{BURST, Burst, Frame};
use crate::judge::{Judge, is_remembered};
use crate::lane::{Arrival, Fragment, Lane, Lanes, What};
use crate::parse::parse;
#[cfg(target_arch = "x86_64")]
use crate::parse::parse_v3;
use crate::resolve::{Step, resolve};
use crate::snapshot::{Binding, Snapshot};
use crate::staged::{WouldBe, would_be};
use crate::time::{Clock, Now};
use crate::verdict::Verdict;
use crate::waits::Ticket;
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
    cells: Arc<Cells>,
    grace_end_ns: u64,
    generation: Generation,
    scratch: Box<[u8]>,
    answers: Answers,
    /// See [`crate::cpu`].
    has_v3: bool,
}

/// A pass over the frames of a burst, in the order in which a poll goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Receiving.
    Rx,
    /// Reading headers into lanes; handing off what other workers own.
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

/// A verdict a frame, in memory that is used again without being cleared: pushing each would look at the room left.
pub struct Verdicts {
    all: Box<[Verdict; BURST]>,
    len: usize,
}

impl Default for Verdicts {
    fn default() -> Self {
        Verdicts { all: Box::new([Verdict::nobody(Reason::Malformed); BURST]), len: 0 }
    }
}

impl Deref for Verdicts {
    type Target = [Verdict];

    #[inline]
    fn deref(&self) -> &[Verdict] {
        &self.all[..self.len]
    }
}

/// Frames with what was read of them.
pub struct Batch<F> {
    /// The frames, in order of arrival; behind a pointer, so that bursts change hands without being copied.
    pub frames: Box<Burst<F>>,
    /// A lane a frame.
    pub lanes: Lanes,
    /// A verdict a frame, once judged.
    pub verdicts: Verdicts,
    /// Once judged: every frame goes on.
    pub all_pass: bool,
    /// Once judged: all of them are of established connections.
    pub all_established: bool,
    /// Once judged: where those that are held wait, in their order.
    pub tickets: ArrayVec<Ticket, BURST>,
    /// Once judged: what staged rules would decide, by the packets' places.
    pub staged: ArrayVec<(usize, WouldBe), BURST>,
}

impl<F> Default for Batch<F> {
    fn default() -> Self {
        Batch {
            frames: Box::default(),
            lanes: Lanes::default(),
            verdicts: Verdicts::default(),
            all_pass: false,
            all_established: false,
            tickets: ArrayVec::new(),
            staged: ArrayVec::new(),
        }
    }
}

impl<F> Batch<F> {
    /// Appends a frame that was read.
    #[inline]
    pub fn push(&mut self, frame: F, lane: Lane) {
        self.frames.push(frame);
        if let [place] = self.lanes.grow(1) {
            *place = lane;
        }
    }

    /// Forgets lanes and verdicts; the frames are gone already.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.lanes.clear();
        self.verdicts.len = 0;
        self.tickets.clear();
        self.staged.clear();
    }
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
fn remembered_for<'s>(snapshot: &'s Snapshot, lane: &Lane, verdict: &Verdict) -> Option<&'s Binding> {
    if !is_remembered(verdict) {
        return None;
    }
    let mac = if lane.side == Side::Inside { lane.src_mac } else { lane.dst_mac };
    snapshot.holder(snapshot.vpc_of(lane.segment)?, lane.local(), lane.v6, mac)
}

impl Firewall {
    /// Without connections. `cells` are this worker's, `population` is everybody's.
    pub fn new(config: &FirewallConfig, cells: Arc<Cells>, population: Arc<Population>) -> Firewall {
        Firewall::within(None, config, cells, population)
    }

    /// The same with its connections in memory that outlives the process, where some is given.
    pub fn within(
        memory: Option<Memory>,
        config: &FirewallConfig,
        cells: Arc<Cells>,
        population: Arc<Population>,
    ) -> Firewall {
        let mut clock = Clock::new(config.shard.timeouts.longest());
        let start = clock.at(0).tick;
        let (secret, counts) = (config.secret, cells.clone());
        let shard = Shard::within(memory, config.shard, secret, start, counts, population.clone());
        Firewall {
            judge: Judge::new(shard, population),
            clock,
            cells,
            grace_end_ns: config.grace_end_ns,
            generation: Generation(0),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            answers: Answers::default(),
            has_v3: crate::cpu::has_v3(),
        }
    }

    /// Has the memory backed that packets of the first so many NICs may need.
    pub fn touch(&mut self, nics: u32) {
        self.judge.touch();
        self.cells.touch(nics);
        crate::pages::touch(&mut self.scratch);
    }

    /// Takes up connections that a former process left, at moment `ns` of this one's clock.
    pub fn restore(&mut self, kept: Vec<Kept>, since: &Since, snapshot: &Snapshot, ns: u64) -> TakenUp {
        let now = self.now(ns);
        self.begin(snapshot);
        self.judge.shard.take_up(kept, since, snapshot, ns, now)
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
    pub fn cells(&self) -> &Cells {
        &self.cells
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
        if self.judge.shard.counts() {
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
    pub fn read<F: Frame>(&mut self, frame: &mut F, side: Side, tunnels: bool, now: Now) -> Lane {
        let mut lane = Lane::default();
        self.read_into(frame, &Arrival { side, wire: 0, tunnels, now }, &mut lane);
        lane
    }

    /// Reads a frame into a lane that is in its place already.
    #[inline]
    pub fn read_into<F: Frame>(&mut self, frame: &mut F, arrival: &Arrival, lane: &mut Lane) {
        #[cfg(target_arch = "x86_64")]
        if self.has_v3 {
            // SAFETY: the flag says that the processor was asked.
            return unsafe { self.read_v3(frame, arrival, lane) };
        }
        // SAFETY: nothing is demanded without `V3`.
        unsafe { self.read_as::<false, F>(frame, arrival, lane) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,movbe,lzcnt")]
    fn read_v3<F: Frame>(&mut self, frame: &mut F, arrival: &Arrival, lane: &mut Lane) {
        // SAFETY: who calls this has these instructions.
        unsafe { self.read_as::<true, F>(frame, arrival, lane) }
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
        lane: &mut Lane,
    ) {
        if frame.is_odd() {
            return self.read_odd(frame, arrival, lane);
        }
        let (data, wire_len) = (frame.head(), frame.wire_len());
        #[cfg(target_arch = "x86_64")]
        if V3 {
            // SAFETY: as the caller says.
            return unsafe { parse_v3(data, wire_len, arrival, lane) };
        }
        parse(data, wire_len, arrival, lane);
    }

    #[cold]
    fn read_odd<F: Frame>(&mut self, frame: &mut F, arrival: &Arrival, lane: &mut Lane) {
        if frame.restore_tag() {
            let wire_len = frame.wire_len();
            // The headers of a segmented frame mostly lie in its first buffer, and nothing has to be copied then. What is
            // read so and is sound is what the whole frame says: only headers are read.
            let head = frame.head();
            if head.len() >= HEADERS && head.len() < frame.captured() {
                parse(head, wire_len, arrival, lane);
                if !matches!(lane.what, What::Malformed | What::LinkCut | What::BadSegment) {
                    return;
                }
            }
            parse(bytes_of(frame, &mut self.scratch), wire_len, arrival, lane);
        } else {
            let len = frame.wire_len() as u32;
            *lane = Lane { what: What::LinkCut, len, ..Lane::of(arrival) };
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
        let Batch { frames, lanes, verdicts, tickets, staged, .. } = batch;
        staged.clear();
        let mut aheads = [Ahead::NONE; BURST];
        // Verdicts of packets that need no connection, in their order.
        let mut early: ArrayVec<Verdict, BURST> = ArrayVec::new();
        let (mut place, mut is_any_v6, mut guesses) = (0, false, Guesses::default());
        while let (Some(first), Some(frame)) = (lanes.get(place), frames.get(place)) {
            if first.plain
                && let Some(holders) = snapshot.sole_holders(first.segment)
            {
                guesses.begin(first.segment);
                let next = self.judge.resolve_plain_ones(&holders, &mut guesses, place, lanes, &mut aheads);
                if next != place {
                    place = next;
                    continue;
                }
            }
            if first.is_plain_v6()
                && let Some(holders) = snapshot.sole_holders(first.segment)
            {
                let segment = first.segment;
                let next = self.judge.resolve_plain_v6_ones(&holders, segment, place, lanes, &mut aheads);
                if next != place {
                    (place, is_any_v6) = (next, true);
                    continue;
                }
            }
            match self.resolve_at_length(snapshot, first, frame) {
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
        let homes = self.judge.shard.homes();
        for (hint, ahead) in hints.iter_mut().zip(&aheads[..lanes.len()]) {
            // SAFETY: as the caller says.
            *hint = unsafe { homes.hint::<V3>(ahead.hash) };
        }
        for hint in &hints[..ENTRIES_AHEAD] {
            self.judge.shard.prefetch_entry(*hint, is_any_v6);
        }
        if self.judge.shard.counts() {
            hints[..ENTRIES_AHEAD].iter().for_each(|hint| self.judge.shard.prefetch_carried(*hint));
        }
        done(Pass::Prefetch);
        self.answers.ask(snapshot, lanes, &aheads, &hints);
        let mut early = early.into_iter();
        let (mut all_pass, mut all_established, mut more_refused) = (true, true, 0);
        verdicts.len = lanes.len();
        let packets = Packets { lanes, aheads: &aheads, hints: &hints, is_any_v6 };
        let mut place = 0;
        while place < lanes.len() {
            if hints[place] != NO_HINT {
                // SAFETY: as the caller says.
                place = unsafe {
                    self.judge.established_ones::<V3>(
                        &self.cells,
                        place,
                        &packets,
                        &mut verdicts.all,
                        &meanwhile,
                    )
                };
            }
            let (Some(lane), Some(frame), Some(ahead)) =
                (lanes.get(place), frames.get(place), aheads.get(place))
            else {
                break;
            };
            packets.ask_ahead(place, |hint| self.judge.shard.prefetch_entry(hint, is_any_v6));
            meanwhile(place);
            // An earlier packet of this burst may have opened its connection: the index is asked again.
            let verdict = if let Some(nic) = ahead.nic
                && let Some(refusal) = self.answers.refusal(place)
                && self.judge.shard.is_absent(ahead.hash)
            {
                self.refuse(lane, nic, refusal)
            } else {
                let known = if ahead.nic.is_none() { early.next() } else { None };
                let verdict = self.judge_at_length(snapshot, lane, frame, ahead, place, known);
                if verdict.held {
                    tickets.extend(self.judge.ticket.take());
                }
                verdict
            };
            verdicts.all[place] = verdict;
            if snapshot.has_staged {
                staged.extend(self.ask_staged(snapshot, lane, ahead, &verdict).map(|told| (place, told)));
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
        self.answers.learn(more_refused);
        if !all_established && self.judge.shard.counts_refusals() {
            self.count_refusals(snapshot, lanes, verdicts);
        }
        (batch.all_pass, batch.all_established) = (all_pass, all_established);
        done(Pass::Judge);
    }

    /// Any packet's NIC, or the verdict that needs none.
    #[inline(never)]
    fn resolve_at_length<'s, F: Frame>(
        &mut self,
        snapshot: &'s Snapshot,
        lane: &Lane,
        frame: &F,
    ) -> Result<Ahead<'s>, Verdict> {
        match resolve(snapshot, lane, bytes_of(frame, &mut self.scratch)) {
            Step::Nic(nic) => Ok(self.judge.ahead(lane, nic)),
            Step::Done(verdict) => Err(verdict),
        }
    }

    /// The verdict, counted, on a packet that has no connection and that the rules refuse so.
    #[inline(never)]
    fn refuse(&self, lane: &Lane, nic: &Binding, refusal: Judgement) -> Verdict {
        self.counted(lane, refused(refusal, nic.nic), nic.observes())
    }

    /// Any packet's verdict, counted; `place` is its in the burst, `known` that of a packet without a NIC.
    #[inline(never)]
    fn judge_at_length<F: Frame>(
        &mut self,
        snapshot: &Snapshot,
        lane: &Lane,
        frame: &F,
        ahead: &Ahead<'_>,
        place: usize,
        known: Option<Verdict>,
    ) -> Verdict {
        let (verdict, observes) = match ahead.nic {
            Some(nic) => {
                let key = self.judge.key(lane, ahead);
                let bytes = bytes_of(frame, &mut self.scratch);
                let answer = self.answers.of(place);
                self.judge.forget_flow();
                let verdict = self.judge.judge(snapshot, lane, nic, &key, bytes, answer);
                if self.judge.shard.counts() {
                    self.judge.count_flow(snapshot, lane, &verdict);
                }
                (verdict, nic.observes())
            }
            None => {
                let verdict = known.unwrap_or(Verdict::nobody(Reason::Malformed));
                (verdict, self.judged_already(snapshot, lane, &verdict))
            }
        };
        self.counted(lane, verdict, observes)
    }

    /// Counts a verdict, and lets its packet go on where its NIC is only observed.
    #[inline]
    fn counted(&self, lane: &Lane, mut verdict: Verdict, observes: bool) -> Verdict {
        if verdict.held {
            return verdict;
        }
        if !verdict.reason.passes() {
            verdict.observed = observes;
            if observes {
                self.cells.observe(verdict.nic, lane.side.direction(), verdict.reason, 1);
            }
        }
        let direction = lane.side.direction();
        self.cells.count(verdict.nic, direction, verdict.reason);
        self.cells.count_bytes(verdict.nic, direction, verdict.passes(), lane.len);
        match verdict.reason {
            Reason::New => self.cells.rules.count_opened(verdict.rule),
            Reason::Denied => self.cells.rules.count_denied(verdict.rule),
            _ => {}
        }
        verdict
    }

    /// What a staged rule would decide about a packet that was judged, counted.
    #[cold]
    #[inline(never)]
    fn ask_staged(
        &self,
        snapshot: &Snapshot,
        lane: &Lane,
        ahead: &Ahead<'_>,
        verdict: &Verdict,
    ) -> Option<WouldBe> {
        let would_be = would_be(snapshot, lane, ahead.nic?, verdict)?;
        self.cells.rules.count_would_be(&would_be);
        Some(would_be)
    }

    /// Whether its NIC is observed; what no rule judged is remembered on the way, if fragments follow (semantics 4.6).
    #[inline]
    fn judged_already(&mut self, snapshot: &Snapshot, lane: &Lane, verdict: &Verdict) -> bool {
        if lane.fragment == Fragment::First
            && let Some(nic) = remembered_for(snapshot, lane, verdict)
        {
            self.judge.remember(snapshot, lane, nic, *verdict, None);
        }
        // A NIC's own mode comes before everybody's.
        if verdict.nic == NicSlot::NONE {
            snapshot.settings.observe
        } else {
            snapshot.nic(verdict.nic).observe
        }
    }
}
