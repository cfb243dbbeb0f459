//! A run: workers on simulated ports, the control side, the oracle; one event after the other.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

use control::compile::RuleNames;
use engine::io::TxRefusal;
use engine::packet::{Fragment, HandoffStage, PacketMeta};
use engine::verdict::Verdict as Judged;
use engine::worker::Tap;
use engine::{Generation, NicSlot, Reason, RuleId, Side};

use super::coverage::Coverage;
use super::plan::{Arriving, Op, Setup};
use super::record::{Recorded, recorder};
use super::{Failure, fail};
use crate::oracle::{FrameView, GRACE_NS, Oracle, Verdict};
use crate::sim::{SimFrame, SimWorkers, Steering};

/// The moment at which every run begins.
pub(super) const START_NS: u64 = 1_700_000_000_000_000_000;
/// What a frame that waits for its owner longer than this may lose: the way of its fragments, which
/// is remembered a little longer than the timeout (4.6).
const STALL_NS: u64 = 500_000_000;
/// How long a fragment waits for its first (4.6).
const HOLD_NS: u64 = 1_000_000_000;
const HELD_OF_DATAGRAM: usize = 64;
/// No worker goes without a poll for longer.
const SLEEP_NS: u64 = 60_000_000_000;
/// Polls of all workers after which something must have come to rest.
const PATIENCE: usize = 2000;

/// A frame that has arrived.
pub(super) struct Sent {
    pub side: Side,
    pub bytes: Vec<u8>,
    pub original_len: usize,
    /// The queue at which it arrived.
    pub queue: usize,
    /// When a worker took it from there.
    received_ns: u64,
    pub judged: bool,
}

/// Which counter: worker, NIC, direction, reason.
pub(super) type Cell = (usize, u32, u8, u8);

/// A frame that a worker has judged.
pub(super) struct Seen {
    pub id: usize,
    pub fragment: Fragment,
    pub stage: HandoffStage,
    pub verdict: Judged,
}

/// Notes what a worker judges in a poll.
#[derive(Default)]
struct Notes(Vec<Seen>);

impl Tap<SimFrame> for Notes {
    fn judged(&mut self, frame: &SimFrame, pkt: &PacketMeta, verdict: &Judged) {
        let (fragment, stage) = (pkt.fragment, pkt.stage);
        self.0.push(Seen { id: frame.id, fragment, stage, verdict: *verdict });
    }
}

pub(super) struct World<'s> {
    pub setup: &'s Setup,
    pub farm: SimWorkers,
    pub oracle: Oracle,
    pub now_ns: u64,
    pub sent: Vec<Sent>,
    /// By counter, what it must say.
    pub tally: BTreeMap<Cell, u64>,
    pub observed: BTreeMap<(usize, u32, u8), u64>,
    /// Bytes of what passed (`true`) and dropped, by worker, NIC and direction.
    pub bytes: BTreeMap<(usize, u32, u8, bool), u64>,
    /// Connections that each rule opened, and packets that it denied, by worker.
    pub ruled: BTreeMap<(usize, u32), (u64, u64)>,
    /// By worker, packets about which staged rules would decide otherwise.
    pub staged: Vec<u64>,
    pub figures: Coverage,
    /// What happened, if anybody is to read it.
    pub story: Option<Vec<String>>,
    /// The last generation that every worker had acknowledged.
    acknowledged: u32,
    /// What rules were called under each generation, and the generation that is judged by.
    rules: BTreeMap<u32, RuleNames>,
    judging: u32,
    pub(super) parked: Vec<bool>,
    polled_ns: Vec<u64>,
    /// When each worker took up the generation that it judges by.
    adopted_ns: Vec<u64>,
    /// By queue and side the frames that wait to be received.
    waiting: Vec<[VecDeque<usize>; 2]>,
    /// By worker, what it tells of packets.
    recorded: Vec<Option<Recorded>>,
    /// When a frame was last judged that had waited long for its owner, or a forged first fragment.
    misled_ns: Option<u64>,
    /// By queue, worker and side the last whole frame judged.
    order: BTreeMap<(usize, usize, bool), usize>,
}

impl<'s> World<'s> {
    pub fn new(setup: &'s Setup, tell: bool) -> World<'s> {
        let Setup { config, workers, ring, steering, .. } = setup;
        let mut farm = SimWorkers::empty(config, START_NS, *workers as u32, *ring, *steering);
        let recorded = farm.workers().iter_mut().enumerate().map(|(id, worker)| {
            let (recorder, recorded) = recorder(id)?;
            worker.set_recorder(recorder);
            Some(recorded)
        });
        let recorded = recorded.collect();
        World {
            setup,
            farm,
            oracle: Oracle::new(config, START_NS, *workers),
            now_ns: START_NS,
            sent: Vec::new(),
            tally: BTreeMap::new(),
            observed: BTreeMap::new(),
            bytes: BTreeMap::new(),
            ruled: BTreeMap::new(),
            staged: vec![0; *workers],
            figures: Coverage::default(),
            story: tell.then(Vec::new),
            acknowledged: 0,
            rules: BTreeMap::new(),
            judging: 0,
            parked: vec![false; *workers],
            polled_ns: vec![START_NS; *workers],
            adopted_ns: vec![0; *workers],
            waiting: vec![Default::default(); *workers],
            recorded,
            misled_ns: None,
            order: BTreeMap::new(),
        }
    }

    /// One event. After every poll what was judged, sent and counted is compared.
    pub fn step(&mut self, op: &Op) -> Result<(), Failure> {
        self.tell(|| format!("-- {op}"));
        match op {
            Op::Wait(ns) => self.wait(*ns)?,
            Op::Frame(arriving) => return self.arrive(arriving),
            Op::Poll(worker) => drop(self.poll(*worker)?),
            Op::Settle => self.settle()?,
            Op::Commit(change) => self.commit(&change.policy)?,
            Op::Rollback(back) => self.rollback(*back)?,
            Op::Acknowledge => self.acknowledge()?,
            Op::Burst(worker, side, most) => self.farm.queues(*side)[*worker].at_most(*most),
            Op::Refuse(worker, side, n) => {
                let queue = &self.farm.queues(*side)[*worker];
                queue.refuse(*n);
                queue.set_down(!n.is_multiple_of(2));
            }
            Op::Park(worker) => self.park(*worker),
            Op::Wake(worker) => self.wake(*worker),
            Op::Check => self.check()?,
        }
        Ok(())
    }

    /// Everybody wakes, everything comes to rest and is looked through.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.tell(|| "-- the end".to_owned());
        for worker in 0..self.setup.workers {
            self.wake(worker);
        }
        self.settle()?;
        self.acknowledge()?;
        self.check()?;
        // Nobody's first comes any more.
        self.now_ns += HOLD_NS + GRACE_NS;
        self.settle()?;
        self.check()?;
        self.nothing_is_left()
    }

    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(line());
        }
    }

    /// Time goes by. Nobody sleeps for long, and a worker that hangs is another matter than the
    /// order of events.
    fn wait(&mut self, ns: u64) -> Result<(), Failure> {
        for worker in 0..self.setup.workers {
            if self.now_ns + ns - self.polled_ns[worker] > SLEEP_NS {
                self.wake(worker);
                self.poll(worker)?;
            }
        }
        self.now_ns += ns;
        self.figures.add("leaps of the clock", u64::from(ns > 3_000_000_000_000));
        Ok(())
    }

    fn arrive(&mut self, arriving: &Arriving) -> Result<(), Failure> {
        let arrival = &arriving.arrival;
        let mut frame = SimFrame::new(0, arrival.frame.clone(), self.farm.alive());
        if arrival.original_len > arrival.frame.len() {
            let mut whole = arrival.frame.clone();
            whole.resize(arrival.original_len, 0);
            frame = SimFrame::new(0, whole, self.farm.alive()).snapped(arrival.frame.len());
        }
        if arriving.stripped {
            frame = frame.tag_stripped();
        }
        if let Some(size) = arriving.segments.filter(|_| !arrival.frame.is_empty()) {
            frame = frame.segmented(size);
        }
        let queue = self.farm.queue_for(&frame.bytes());
        self.sent.push(Sent {
            side: arrival.side,
            bytes: arrival.frame.clone(),
            original_len: arrival.original_len,
            queue,
            received_ns: 0,
            judged: false,
        });
        self.waiting[queue][arrival.side as usize].push_back(self.sent.len() - 1);
        self.farm.arrive_as(arrival.side, frame);
        self.figures.count("frames");
        // Under pressure each frame goes its whole way alone: then it is known what it gave up.
        if self.setup.pressure { self.settle() } else { Ok(()) }
    }

    fn commit(&mut self, policy: &control::model::Policy) -> Result<(), Failure> {
        let expected = self.oracle.commit(policy, self.now_ns);
        let commit = self.farm.committer.commit(policy.clone(), self.now_ns);
        let Some(commit) = commit.expect("room for a few NICs") else {
            self.figures.count("commits that change nothing");
            return if expected.is_none() { Ok(()) } else { fail("commit", "the engine sees no change") };
        };
        self.figures.count("commits");
        self.figures.add("NICs flushed", commit.plan.flushed.len() as u64);
        self.figures.add("NICs judged again", commit.plan.rejudged.len() as u64);
        self.figures.add("NICs ended", commit.plan.ended.len() as u64);
        self.tell(|| {
            let names = |keys: &std::collections::BTreeSet<control::model::Key>| {
                keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            };
            let plan = &commit.plan;
            format!(
                "   generation {}: flushes [{}], judges again [{}], ends [{}]",
                commit.snapshot.generation.0,
                names(&plan.flushed),
                names(&plan.rejudged),
                names(&plan.ended)
            )
        });
        self.publish(commit.snapshot, expected)
    }

    fn rollback(&mut self, back: u32) -> Result<(), Failure> {
        let present = self.farm.committer.generation().0;
        // Generation 0 is the policy of nobody: a rare place to go back to.
        let to = present.saturating_sub(back).max(u32::from(back < 20));
        if to >= present {
            return Ok(());
        }
        let commit = match self.farm.committer.rollback(Generation(to), self.now_ns) {
            Ok(Some(commit)) => commit,
            Ok(None) => {
                return fail("rollback", format!("nothing happens on the way from {present} to {to}"));
            }
            Err(why) => return fail("rollback", format!("from {present} to {to}: {why}")),
        };
        self.figures.count("rollbacks");
        self.tell(|| format!("   generation {}: back to {to}", commit.snapshot.generation.0));
        let expected = self.oracle.rollback(to, self.now_ns);
        self.publish(commit.snapshot, Some(expected))
    }

    fn publish(
        &mut self,
        snapshot: Box<engine::snapshot::Snapshot>,
        expected: Option<u32>,
    ) -> Result<(), Failure> {
        let generation = snapshot.generation.0;
        if expected != Some(generation) {
            return fail("commit", format!("generation {generation} where the oracle makes {expected:?}"));
        }
        self.rules.insert(generation, self.farm.committer.compiler().rules().clone());
        self.farm.publisher.publish(snapshot);
        self.note_acknowledged();
        Ok(())
    }

    fn note_acknowledged(&mut self) {
        if self.farm.acknowledged() {
            self.acknowledged = self.farm.committer.generation().0;
        }
        self.farm.publisher.reclaim();
    }

    /// The change returns: nothing that arrives from now on is judged by an older policy.
    fn acknowledge(&mut self) -> Result<(), Failure> {
        for _ in 0..3 {
            if self.farm.acknowledged() {
                self.note_acknowledged();
                return Ok(());
            }
            for worker in 0..self.setup.workers {
                self.poll(worker)?;
            }
        }
        fail("acknowledgement", "three polls of everybody do not acknowledge")
    }

    fn park(&mut self, worker: usize) {
        if !self.setup.pressure && !self.parked[worker] {
            self.parked[worker] = true;
            self.farm.workers()[worker].reader().offline();
            self.note_acknowledged();
            self.figures.count("parked workers");
        }
    }

    fn wake(&mut self, worker: usize) {
        if std::mem::take(&mut self.parked[worker]) {
            self.farm.workers()[worker].reader().online();
        }
    }

    /// Polls everybody until nothing moves.
    fn settle(&mut self) -> Result<(), Failure> {
        let mut idle = 0;
        for _ in 0..PATIENCE {
            let mut frames = 0;
            for worker in 0..self.setup.workers {
                frames += self.poll(worker)?;
            }
            idle = if frames == 0 { idle + 1 } else { 0 };
            // A frame may lie in two rings on its way: that of the knower of its fragments, that of
            // its owner.
            if idle == 2 {
                return Ok(());
            }
        }
        fail("rest", format!("something still moves after {PATIENCE} polls of everybody"))
    }

    /// One worker takes its turn. How many frames it took.
    fn poll(&mut self, worker: usize) -> Result<usize, Failure> {
        if self.parked[worker] {
            return Ok(0);
        }
        // What is due is due to both: between a deadline and its grace the engine may say either.
        self.now_ns = self.oracle.clear_of_deadlines(self.now_ns);
        self.farm.set_clock(self.now_ns);
        let generation = self.farm.workers()[worker].reader().read().generation.0;
        if generation < self.acknowledged {
            return fail("acknowledgement", format!("worker {worker} judges by {generation}"));
        }
        if self.oracle.generation(worker) != generation {
            self.adopted_ns[worker] = self.now_ns;
        }
        self.oracle.adopt(worker, generation);
        self.judging = generation;
        let before = self.before(worker, generation);
        let answer = self.ask(worker);
        let mut notes = Notes::default();
        let frames = self.farm.poll_worker(worker, &mut notes);
        self.figures.count("polls");
        self.received(worker);
        for seen in &notes.0 {
            self.judged(worker, seen)?;
        }
        if let Some(recorded) = &mut self.recorded[worker] {
            let (told, refused) = recorded.compare(&notes.0, &self.sent, generation)?;
            self.figures.add("packets told of", told);
            self.figures.add("refused frames told of", refused);
        }
        self.oracle.polled(worker, self.now_ns);
        self.polled_ns[worker] = self.now_ns;
        self.left(worker, &notes.0)?;
        self.compare(worker, &notes.0, before, &answer)?;
        self.note_acknowledged();
        Ok(frames)
    }

    /// Notes when frames left the worker's queues.
    fn received(&mut self, worker: usize) {
        for side in [Side::Inside, Side::Outside] {
            let left = self.farm.queues(side)[worker].waiting();
            let waiting = &mut self.waiting[worker][side as usize];
            for id in waiting.drain(..waiting.len() - left) {
                self.sent[id].received_ns = self.now_ns;
            }
        }
    }

    /// A frame was judged: the oracle judges it now.
    fn judged(&mut self, worker: usize, seen: &Seen) -> Result<(), Failure> {
        let Seen { id, verdict, fragment, .. } = seen;
        let sent = &mut self.sent[*id];
        if std::mem::replace(&mut sent.judged, true) {
            return fail("twice", format!("frame {id} is judged twice"));
        }
        let (side, queue) = (sent.side, sent.queue);
        let is_forged = verdict.reason == Reason::Spoofed && *fragment == Fragment::First;
        if self.now_ns - sent.received_ns > STALL_NS || is_forged {
            self.misled_ns = Some(self.now_ns);
        }
        let reason = verdict.reason.name();
        let mut expected = self.oracle.judge(&FrameView {
            worker,
            time_ns: self.now_ns,
            side,
            frame: &self.sent[*id].bytes,
            original_len: self.sent[*id].original_len,
            refusal: matches!(reason, "table-full" | "nic-limit" | "fragment-no-first").then_some(reason),
            holds: None,
            // Where the worker has taken up a change since, the address may be another NIC's, or
            // that of the NIC as it was before (5.5, 5.7); what is known of first fragments is that
            // one's.
            in_vain: seen.stage == HandoffStage::Expired
                && self.adopted_ns[worker] >= self.sent[*id].received_ns,
        });
        // Whoever knows the way of a datagram's fragments counts from when its first came by, its
        // owner from when it was judged; and a first that was lost on its way, or forged, was noted
        // there in place of another.
        let timeout = self.setup.config.timeouts.fragment.as_nanos() as u64;
        let is_misled = self.misled_ns.is_some_and(|at| self.now_ns - at < timeout + GRACE_NS);
        let forgotten = expected.forgotten && (is_misled || self.handoff_full() > 0);
        let got = Verdict { forgotten, ..self.named(side, verdict) };
        self.figures.add("fragments lost on a long way", u64::from(got.forgotten));
        let at = (self.now_ns - START_NS) as f64 / 1e9;
        self.tell(|| format!("   {at:.6} worker {worker}: frame {id}: {}", brief(&got)));
        self.figures.count(reason);
        self.figures.add("frames handed off", u64::from(queue != worker));
        let cell = (worker, verdict.nic.0, side.direction() as u8);
        *self.tally.entry((cell.0, cell.1, cell.2, verdict.reason as u8)).or_default() += 1;
        *self.observed.entry(cell).or_default() += u64::from(verdict.observed);
        let bytes = self.bytes.entry((cell.0, cell.1, cell.2, verdict.passes())).or_default();
        *bytes += self.sent[*id].original_len as u64;
        let (opened, denied) = self.ruled.entry((worker, verdict.rule.0)).or_default();
        *opened += u64::from(verdict.reason == Reason::New);
        *denied += u64::from(verdict.reason == Reason::Denied);
        if let Some((_, allows)) = expected.staged.take()
            && allows != (verdict.reason == Reason::New)
        {
            self.staged[worker] += 1;
        }
        if got != expected {
            let hex: String = self.sent[*id].bytes.iter().take(160).map(|b| format!("{b:02x}")).collect();
            return fail(
                "verdict",
                format!("frame {id}: expected {}\n     got {}\n{hex}", brief(&expected), brief(&got)),
            );
        }
        self.has_waited(seen)?;
        self.in_order(worker, queue, side, *id, *fragment)
    }

    /// "A later fragment whose first is not known is held, up to 1 s" (4.6): it says so no sooner,
    /// unless its first has come and is forgotten again.
    fn has_waited(&mut self, seen: &Seen) -> Result<(), Failure> {
        let waited = self.now_ns - self.sent[seen.id].received_ns;
        let is_vain = seen.verdict.reason == Reason::FragmentNoFirst;
        match seen.stage {
            HandoffStage::Expired if is_vain && waited >= HOLD_NS => {
                self.figures.count("fragments held in vain")
            }
            HandoffStage::Released if is_vain => self.figures.count("fragments released in vain"),
            HandoffStage::Released => self.figures.count("fragments behind a late first"),
            // Of one datagram no more than so many are held.
            stage if stage < HandoffStage::Released && is_vain && self.in_hand() >= HELD_OF_DATAGRAM => {
                self.figures.count("fragments without room to wait");
            }
            // Its NIC is gone, say.
            HandoffStage::Expired if !is_vain => self.figures.count("fragments held for nobody"),
            _ if is_vain => return fail("wait", format!("frame {} has waited for {waited} ns", seen.id)),
            _ => {}
        }
        Ok(())
    }

    /// Frames that workers have received and not judged.
    fn in_hand(&self) -> usize {
        self.sent.iter().filter(|sent| sent.received_ns > 0 && !sent.judged).count()
    }

    /// Whole frames of one queue that one worker judges are judged in order of arrival: from queue
    /// to owner there is one way.
    fn in_order(
        &mut self,
        worker: usize,
        queue: usize,
        side: Side,
        id: usize,
        fragment: Fragment,
    ) -> Result<(), Failure> {
        // Where a change makes tunnels of frames, their way may change on the way.
        if fragment != Fragment::Whole || self.setup.tunnels {
            return Ok(());
        }
        let before = self.order.insert((queue, worker, side == Side::Inside), id);
        match before {
            Some(before) if before > id && self.setup.steering != Steering::RoundRobin => {
                fail("order", format!("frame {id} is judged behind {before}"))
            }
            _ => Ok(()),
        }
    }

    /// What left the ports is what passed, byte for byte, less what the ports refused.
    fn left(&mut self, worker: usize, judged: &[Seen]) -> Result<(), Failure> {
        for leaves in [Side::Inside, Side::Outside] {
            let mut left = self.farm.queues(leaves)[worker].left().into_iter().peekable();
            for Seen { id, verdict, .. } in judged {
                let sent = &self.sent[*id];
                if !verdict.passes() || sent.side.other() != leaves {
                    continue;
                }
                if let Some(frame) = left.next_if(|frame| frame.id == *id) {
                    if frame.bytes() != sent.bytes {
                        return fail("bytes", format!("frame {id} leaves as {:02x?}", frame.bytes()));
                    }
                    continue;
                }
                let (direction, nic) = (sent.side.direction() as u8, verdict.nic.0);
                *self.tally.entry((worker, nic, direction, verdict.reason as u8)).or_default() -= 1;
                *self.observed.entry((worker, nic, direction)).or_default() -= u64::from(verdict.observed);
                let (len, cell) = (sent.original_len as u64, (worker, nic, direction));
                *self.bytes.entry((cell.0, cell.1, cell.2, true)).or_default() -= len;
                *self.bytes.entry((cell.0, cell.1, cell.2, false)).or_default() += len;
                let reason = match self.farm.queues(leaves)[worker].refusal() {
                    TxRefusal::Full => Reason::TxFull,
                    TxRefusal::Down => Reason::TxDown,
                };
                *self.tally.entry((worker, nic, direction, reason as u8)).or_default() += 1;
                self.figures.count(reason.name());
            }
            if let Some(frame) = left.next() {
                return fail("left", format!("frame {} leaves out of turn, or should not", frame.id));
            }
        }
        Ok(())
    }

    /// The engine's verdict by names.
    fn named(&self, side: Side, got: &Judged) -> Verdict {
        let committer = &self.farm.committer;
        let nobody = got.nic == NicSlot::NONE;
        let nic = (!nobody).then(|| committer.nic_name(got.nic).map_or("?".to_owned(), |n| n.to_string()));
        let names = self.rules.get(&self.judging);
        let name = |rule: RuleId| names?.get(rule.0 as usize).map(|named| named.name.to_string());
        let rule = got.rule.get().map(|rule| name(rule).unwrap_or("?".to_owned()));
        Verdict {
            pass: got.passes(),
            observed: got.observed,
            reason: got.reason.name(),
            direction: nic.is_some().then(|| side.direction()),
            nic,
            rule,
            staged: None,
            ambiguous: false,
            stray: false,
            forgotten: false,
            held: false,
        }
    }
}

fn brief(verdict: &Verdict) -> String {
    let mut text = verdict.reason.to_owned();
    if let Some(nic) = &verdict.nic {
        let _ = write!(text, " of {nic} {:?}", verdict.direction);
    }
    if let Some(rule) = &verdict.rule {
        let _ = write!(text, " by {rule}");
    }
    for (is, word) in [
        (verdict.observed, " (observed)"),
        (verdict.ambiguous, " (at a deadline)"),
        (verdict.forgotten, " (of a first that is known)"),
        (verdict.stray, " (with a worker that does not have its connection)"),
    ] {
        text.push_str(if is { word } else { "" });
    }
    text
}
