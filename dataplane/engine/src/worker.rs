//! A worker's loop, top-down: one poll takes what the ports and the other workers have, judges it under one snapshot,
//! sends what passed, and only then says that it has let go of that snapshot.

mod fragments;
mod handed_off;
mod request;
mod rx;

use std::time::Duration;

use crossbeam::channel::{Receiver, TryRecvError};
use rcu::{Parked, Parker, Waker};

use crate::burst::{Batch, Firewall, Pass};
use crate::handoff::Router;
use crate::held_frames::HeldFrames;
use crate::io::{BURST, Burst, Frame, Port, TxRefusal};
use crate::packet::{Arrival, HandoffStage, PacketMeta};
use crate::reason::Reason;
use crate::ring::{Consumer, Producer};
use crate::snapshot::Snapshot;
use crate::trace::Recorder;
use crate::verdict::Verdict;
use crate::{Direction, NicSlot, Side};
use request::serve;
pub use request::{Connection, RequestKind, WorkerReply, WorkerRequest};
use rx::{HEADER_PREFETCH_DISTANCE, RxBurst, RxSource, rx_order};

/// A frame on its way to the worker that owns it, which reads it again: its packet metadata would be two cache lines from core to core, written
/// by the one and read by the other, and a ring of them more than a quarter of a second-level cache of 512 kB.
pub struct HandedOff<F> {
    frame: F,
    meta: HandoffMeta,
}

/// What such a frame brings along.
#[derive(Clone, Copy)]
struct HandoffMeta {
    wire: u16,
    side: Side,
    /// How far it has come...
    stage: HandoffStage,
    /// ... by a snapshot that knows tunnels, or by one that does not.
    tunnels: bool,
}

/// This worker's queues of one wire's two ports.
pub struct Wire<P> {
    /// Towards the instances.
    pub inside: P,
    /// Towards the network.
    pub outside: P,
}

impl<P: Port> Wire<P> {
    fn port(&mut self, side: Side) -> &mut P {
        match side {
            Side::Inside => &mut self.inside,
            Side::Outside => &mut self.outside,
        }
    }
}

/// Rings to and from the other workers.
pub struct Rings<F> {
    /// To worker `i`; none to itself.
    pub to: Vec<Option<Producer<HandedOff<F>>>>,
    /// From the others.
    pub from: Vec<Consumer<HandedOff<F>>>,
    /// Of worker `i`, where workers sleep when they have nothing to do; empty where they never do.
    pub wakers: Vec<Waker>,
}

/// Frames that a ring between two workers of so many wires should hold: a worker takes a burst from
/// each port in a turn and shows what it hands over at its end, and the other may just have begun a turn of its own. Room for two
/// turns, so that a worker with nothing else to do loses nothing though all of it is for that one.
pub fn ring_size(wires: usize) -> usize {
    (2 * 2 * wires * BURST).max(1024)
}

/// Rings between `workers` workers, each of `size` frames: element `i` is worker `i`'s.
pub fn mesh<F: Frame>(workers: usize, size: usize) -> Vec<Rings<F>> {
    let mut all: Vec<Rings<F>> =
        (0..workers).map(|_| Rings { to: Vec::new(), from: Vec::new(), wakers: Vec::new() }).collect();
    for from in 0..workers {
        for to in 0..workers {
            if from == to {
                all[from].to.push(None);
                continue;
            }
            let (tx, rx) = crate::ring::ring(size);
            all[from].to.push(Some(tx));
            all[to].from.push(rx);
        }
    }
    all
}

/// Watches a worker, verdict by verdict and pass by pass. Live workers have none: `()`, of which nothing is left in the code.
pub trait Tap<F> {
    /// One packet was judged, in order of arrival; where it passes, it is about to be sent.
    #[inline]
    fn judged(&mut self, _frame: &F, _lane: &PacketMeta, _verdict: &Verdict) {}

    /// A pass over a burst that is not empty is done.
    #[inline]
    fn passed(&mut self, _pass: Pass) {}
}

impl<F> Tap<F> for () {}

/// Frames that are read one after the other without a look at what lies ahead.
const PREFETCH_STRIDE: usize = 8;

/// Where an L4 header begins at most that lies in a frame's first cache line, with what is read of it.
const ONE_LINE: u16 = 64 - 20;

/// What one poll did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollResult {
    /// Frames received and taken from rings.
    pub frames: usize,
}

/// One worker: its firewall, its queues, its rings, its view of the policy.
pub struct Worker<P: Port> {
    firewall: Firewall,
    reader: rcu::Reader<Snapshot>,
    wires: Vec<Wire<P>>,
    links: HandoffLinks<P::Frame>,
    /// Who brings frames, in turn, each with its number.
    sources: Box<[(RxSource, usize)]>,
    /// The burst in hand.
    rx: RxBurst<P::Frame>,
    /// The one behind it: its headers are asked for while the one in hand is judged.
    next: RxBurst<P::Frame>,
    batch: Batch<P::Frame>,
    /// Fragments that wait for their first.
    held_frames: HeldFrames<P::Frame>,
    /// What passed, by wire and by the side it leaves on.
    out: Vec<[Box<Burst<P::Frame>>; 2]>,
    dropped: Burst<P::Frame>,
    /// By a source's number: its last burst had headers beyond the first cache line, so the next one is likely to.
    is_deep: Box<[bool]>,
    requests: Receiver<WorkerRequest>,
    /// Tells the control side what becomes of packets, where it wants to know.
    recorder: Recorder,
    /// See [`crate::cpu`].
    has_v3: bool,
}

struct HandoffLinks<F> {
    router: Router,
    rings: Rings<F>,
}

impl<P: Port> Worker<P> {
    /// Worker `me`. Questions come by `questions`.
    pub fn new(
        me: u32,
        firewall: Firewall,
        reader: rcu::Reader<Snapshot>,
        wires: Vec<Wire<P>>,
        rings: Rings<P::Frame>,
        questions: Receiver<WorkerRequest>,
    ) -> Worker<P> {
        let router = Router::new(me, rings.to.len().max(1) as u32, firewall.shard().secret().pattern());
        let sources = rx_order(wires.len(), rings.from.len()).into();
        let is_deep = vec![false; 2 * wires.len() + rings.from.len()].into();
        let out = wires.iter().map(|_| [Box::default(), Box::default()]).collect();
        Worker {
            firewall,
            reader,
            wires,
            links: HandoffLinks { router, rings },
            sources,
            rx: RxBurst::default(),
            next: RxBurst::default(),
            batch: Batch::default(),
            held_frames: HeldFrames::default(),
            out,
            dropped: Burst::new(),
            is_deep,
            requests: questions,
            recorder: Recorder::default(),
            has_v3: crate::cpu::has_v3(),
        }
    }

    /// Has this record from now on.
    pub fn set_recorder(&mut self, recorder: Recorder) {
        self.recorder = recorder;
    }

    /// One turn at the moment `ns` (nanoseconds; a frame's own stamp comes before it).
    pub fn poll(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) -> PollResult {
        #[cfg(target_arch = "x86_64")]
        if self.has_v3 {
            // SAFETY: the processor has these instructions: the flag says that it was asked.
            return unsafe { self.poll_v3(ns, tap) };
        }
        // SAFETY: nothing is demanded without `V3`.
        unsafe { self.poll_once::<false>(ns, tap) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,movbe,lzcnt")]
    fn poll_v3(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) -> PollResult {
        // SAFETY: who calls this has these instructions.
        unsafe { self.poll_once::<true>(ns, tap) }
    }

    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    unsafe fn poll_once<const V3: bool>(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) -> PollResult {
        let (mut polled, mut of_ports) = (PollResult::default(), 0);
        if !self.firewall.fragment_queue().is_empty() {
            polled.frames += self.expire_held(ns, tap);
        }
        for _ in 0..self.sources.len() {
            if !self.receive(tap) {
                break;
            }
            // SAFETY: as the caller says.
            polled.frames += unsafe { self.process::<V3>(ns, tap) };
            if self.firewall.fragment_queue().has_released() {
                self.release_held(ns, tap);
            }
            of_ports += usize::from(matches!(self.sources[self.rx.at].0, RxSource::Port(..)));
            // A burst a port at most, though rings be empty: what is handed over is shown at the end of the turn. Or everybody was asked
            // behind this burst already, and had nothing.
            if of_ports == 2 * self.wires.len() || self.frames_in_hand() == 0 {
                break;
            }
        }
        if !self.links.router.is_alone() {
            self.links.publish();
        }
        self.upkeep(ns, polled.frames == 0);
        // Everything in hand is sent or handed off: no frame sent from now on was judged by an older snapshot.
        self.reader.quiescent();
        polled
    }

    /// One turn that receives nothing: what the rings hold, and what was received before, is judged and sent, and once there is none of
    /// that, fragments wait no more. Before the end, so that no frame is lost.
    pub fn drain(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) -> PollResult {
        let mut polled = PollResult::default();
        for at in 0..self.sources.len() {
            if self.frames_in_hand() == 0
                && let RxSource::Ring(from) = self.sources[at].0
            {
                self.next.at = at;
                self.fetch_from_ring(from);
            }
            if self.frames_in_hand() != 0 {
                std::mem::swap(&mut self.rx, &mut self.next);
                // SAFETY: nothing is demanded without `V3`.
                polled.frames += unsafe { self.process::<false>(ns, tap) };
            }
        }
        // What comes last may be a first fragment.
        if polled.frames == 0 {
            self.firewall.fragment_queue_mut().release_all();
        }
        polled.frames += self.expire_held(ns, tap);
        self.links.publish();
        self.upkeep(ns, polled.frames == 0);
        self.reader.quiescent();
        polled
    }

    /// Judges the burst in hand.
    ///
    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    unsafe fn process<const V3: bool>(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) -> usize {
        let received = self.rx.frames.len();
        let (RxSource::Port(wire, side), number) = self.sources[self.rx.at] else {
            self.process_handed_off(ns, tap);
            return received;
        };
        let counters = self.firewall.counters();
        counters.count_received(received);
        counters.worker.count_burst(received);
        let snapshot = self.reader.read();
        let now = self.firewall.now(ns);
        self.firewall.begin(snapshot);
        let tunnels = snapshot.tunnels;
        let arrival = Arrival { side, wire: wire as u16, tunnels, now };
        // SAFETY: as the caller says.
        let is_deep = unsafe {
            if self.links.router.is_alone() {
                self.read::<V3>(arrival)
            } else {
                self.read_and_route::<V3>(arrival)
            }
        };
        self.is_deep[number] = is_deep;
        tap.passed(Pass::Parse);
        // SAFETY: as the caller says.
        unsafe { self.run_batch::<V3>(Some((wire, side.other())), tap) };
        received
    }

    /// Makes the burst in hand the batch, read into packet metadata. True if its headers are likely to lie beyond the first cache line.
    ///
    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    unsafe fn read<const V3: bool>(&mut self, mut arrival: Arrival) -> bool {
        let mut is_deep = false;
        let pkts = self.batch.pkts.grow(self.rx.frames.len());
        for (some, pkts) in pkts.chunks_mut(PREFETCH_STRIDE).enumerate() {
            let first = some * PREFETCH_STRIDE;
            self.rx.prefetch_headers(first + PREFETCH_STRIDE + HEADER_PREFETCH_DISTANCE);
            for (frame, pkt) in self.rx.frames[first..].iter_mut().zip(&mut *pkts) {
                if let Some(stamp) = frame.stamp() {
                    arrival.now = self.firewall.now(stamp);
                }
                // SAFETY: as the caller says.
                unsafe { self.firewall.read_as::<V3, _>(frame, &arrival, pkt) };
            }
            is_deep |= pkts.first().is_some_and(|pkt| pkt.l4 > ONE_LINE);
        }
        std::mem::swap(&mut self.batch.frames, &mut self.rx.frames);
        is_deep
    }

    /// The same where there are other workers: what they own is handed off, the batch is the rest. Each frame is read into the packet metadata
    /// behind the last one that stays, so that none has to be copied.
    ///
    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    unsafe fn read_and_route<const V3: bool>(&mut self, mut arrival: Arrival) -> bool {
        let (received, snapshot) = (self.rx.frames.len(), self.reader.read());
        let (mut kept, mut is_deep) = (0, false);
        let (mut owners, mut stages) = ([0; BURST], [HandoffStage::Judge; BURST]);
        let Batch { frames, pkts, .. } = &mut self.batch;
        let room = pkts.grow(received);
        for place in 0..received {
            if place.is_multiple_of(PREFETCH_STRIDE) {
                self.rx.prefetch_headers(place + PREFETCH_STRIDE + HEADER_PREFETCH_DISTANCE);
            }
            let (Some(frame), Some(pkt)) = (self.rx.frames.get_mut(place), room.get_mut(kept)) else {
                break;
            };
            if let Some(stamp) = frame.stamp() {
                arrival.now = self.firewall.now(stamp);
            }
            // SAFETY: as the caller says.
            unsafe { self.firewall.read_as::<V3, _>(frame, &arrival, pkt) };
            is_deep |= pkt.l4 > ONE_LINE;
            let owner = self.links.next_worker(frame, pkt, &mut self.firewall, snapshot);
            (owners[place], stages[place]) = (owner, pkt.stage);
            kept += usize::from(self.links.is_mine(owner));
        }
        pkts.truncate(kept);
        if kept == received {
            std::mem::swap(frames, &mut self.rx.frames);
            return is_deep;
        }
        self.firewall.counters().count_handed_over(received - kept);
        let Arrival { side, wire, tunnels, .. } = arrival;
        for ((frame, owner), stage) in self.rx.frames.drain(..).zip(owners).zip(stages) {
            let handed = HandedOff { frame, meta: HandoffMeta { wire, side, stage, tunnels } };
            if let Some(frame) = self.links.hand_off(owner, handed, &self.firewall) {
                frames.push(frame);
            }
        }
        is_deep
    }

    /// Judges the batch and sends what passed. `way`: all of it came in by this wire and leaves by this side, if
    /// at all.
    ///
    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    unsafe fn run_batch<const V3: bool>(&mut self, way: Option<(usize, Side)>, tap: &mut impl Tap<P::Frame>) {
        if self.batch.frames.is_empty() {
            self.batch.clear();
            return;
        }
        // One of the next burst's headers for each packet that is judged: asked for by dozens, they keep the processor from asking for
        // anything else.
        let (next, is_deep) = (self.next.frames.as_slice(), self.next.is_deep);
        let meanwhile = |place: usize| {
            if let Some(frame) = next.get(place) {
                frame.prefetch(is_deep);
            }
        };
        let (snapshot, done) = (self.reader.read(), |pass| tap.passed(pass));
        // SAFETY: as the caller says.
        unsafe { self.firewall.judge_in_passes::<V3, _>(snapshot, &mut self.batch, done, meanwhile) };
        self.next.prefetched = self.batch.frames.len();
        self.next.prefetch_headers(HEADER_PREFETCH_DISTANCE);
        if self.recorder.is_on() {
            self.recorder.record_burst(&mut self.firewall, snapshot, &self.batch);
        }
        let Batch { frames, pkts, verdicts, all_pass, .. } = &mut self.batch;
        for (frame, (pkt, verdict)) in frames.iter().zip(pkts.iter().zip(verdicts.iter())) {
            if !verdict.held {
                tap.judged(frame, pkt, verdict);
            }
        }
        if let (Some((wire, leaves)), true) = (way, *all_pass) {
            std::mem::swap(frames, &mut self.out[wire][leaves as usize]);
            self.send(wire, leaves);
        } else {
            self.send_or_drop();
        }
        self.batch.clear();
        tap.passed(Pass::Tx);
    }

    /// Sends the frames that pass each on its way, and drops the others but for those that wait.
    fn send_or_drop(&mut self) {
        let Batch { frames, pkts, verdicts, tickets, .. } = &mut self.batch;
        let mut waiting = tickets.iter();
        for (frame, (pkt, verdict)) in frames.drain(..).zip(pkts.iter().zip(verdicts.iter())) {
            if verdict.passes() {
                self.out[usize::from(pkt.wire)][pkt.side.other() as usize].push(frame);
            } else if verdict.held {
                if let Some(ticket) = waiting.next() {
                    self.held_frames.keep(*ticket, frame, pkt.clone());
                }
            } else {
                self.dropped.push(frame);
            }
        }
        if !self.batch.tickets.is_empty() && !self.links.router.is_alone() {
            self.follow_handed_off_firsts();
        }
        if !self.dropped.is_empty() {
            self.wires[0].inside.free(&mut self.dropped);
        }
        for wire in 0..self.wires.len() {
            self.send(wire, Side::Inside);
            self.send(wire, Side::Outside);
        }
    }

    #[inline]
    fn send(&mut self, wire: usize, leaves: Side) {
        let out = &mut self.out[wire][leaves as usize];
        if out.is_empty() {
            return;
        }
        let ports = &mut self.wires[wire];
        let port = if leaves == Side::Inside { &mut ports.inside } else { &mut ports.outside };
        port.tx(out);
        if !out.is_empty() {
            let refused = out.len();
            let reason = match port.abandon(refused) {
                TxRefusal::Full => Reason::TxFull,
                TxRefusal::Down => Reason::TxDown,
            };
            port.free(out);
            self.count_refused(wire, leaves, refused, reason);
        }
    }

    /// The last `refused` frames of the batch that should have left here are drops, not passes.
    #[cold]
    fn count_refused(&mut self, wire: usize, leaves: Side, refused: usize, reason: Reason) {
        let Worker { batch: Batch { pkts, verdicts, .. }, firewall, recorder, reader, .. } = self;
        let passed = pkts.iter().zip(verdicts.iter()).rev().filter(|(pkt, verdict)| {
            verdict.passes() && usize::from(pkt.wire) == wire && pkt.side.other() == leaves
        });
        for (pkt, verdict) in passed.take(refused) {
            let (counters, direction) = (firewall.counters(), pkt.side.direction());
            counters.add(verdict.nic, direction, verdict.reason, 1u64.wrapping_neg());
            if verdict.observed {
                counters.observe(verdict.nic, direction, verdict.reason, -1);
            }
            counters.count(verdict.nic, direction, reason);
            counters.drop_bytes(verdict.nic, direction, pkt.len);
            if recorder.is_on() {
                let refused = Verdict::of(reason, verdict.nic);
                recorder.record_refused(firewall, reader.read(), pkt, &refused);
            }
        }
    }

    #[inline]
    fn upkeep(&mut self, ns: u64, is_idle: bool) {
        let snapshot = self.reader.read();
        self.firewall.begin(snapshot);
        let now = self.firewall.now(ns);
        self.firewall.upkeep(snapshot, now, is_idle);
        match self.requests.try_recv() {
            Ok(question) => serve(&mut self.firewall, &mut self.recorder, snapshot, question, now),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
    }

    /// Sleeps until woken, or until `timeout`, unless another worker's frames or a question wait. Frames at the ports wait
    /// until the time is up: a port wakes nobody.
    pub fn park(&mut self, parker: &mut Parker, timeout: Duration) -> Parked {
        let Worker { reader, requests: questions, links, .. } = self;
        let has_work = || !questions.is_empty() || links.rings.from.iter().any(|ring| !ring.is_empty());
        parker.park(reader, timeout, has_work)
    }

    /// Its view of the policy: to go offline and online around a sleep.
    pub fn reader(&mut self) -> &mut rcu::Reader<Snapshot> {
        &mut self.reader
    }

    /// The policy that it judges by, while it is online.
    pub fn snapshot(&self) -> &Snapshot {
        self.reader.read()
    }

    /// Has its memory backed, before it polls: see [`Firewall::touch`]. `nics` are those that are expected at least.
    pub fn touch(&mut self, nics: u32) {
        let nics = nics.max(self.reader.read().nic_count());
        self.firewall.touch(nics);
        self.links.router.touch();
    }

    /// Tells of everything that connections have carried; false if there is no room for all of it: to be called again then.
    pub fn export_all_flows(&mut self) -> bool {
        self.firewall.export_all_flows(self.reader.read())
    }

    /// Its firewall.
    pub fn firewall(&self) -> &Firewall {
        &self.firewall
    }

    /// The ports' queues.
    pub fn wires(&mut self) -> &mut [Wire<P>] {
        &mut self.wires
    }
}

impl<F: Frame> HandoffLinks<F> {
    /// The worker to which a frame goes next.
    #[inline]
    fn next_worker(
        &mut self,
        frame: &F,
        pkt: &mut PacketMeta,
        firewall: &mut Firewall,
        snapshot: &Snapshot,
    ) -> u32 {
        match self.router.next(pkt, firewall.bytes(frame)) {
            Some(owner) => owner,
            None => self.next_worker_of_fragment(frame, pkt, firewall, snapshot),
        }
    }

    /// True if what goes to this worker stays here.
    #[inline]
    fn is_mine(&self, owner: u32) -> bool {
        self.rings.to.get(owner as usize).is_none_or(Option::is_none)
    }

    /// Sends a frame on to the worker it belongs to; gives it back if that is this one.
    #[inline]
    fn hand_off(&mut self, owner: u32, handed: HandedOff<F>, firewall: &Firewall) -> Option<F> {
        let Some(ring) = self.rings.to.get_mut(owner as usize).and_then(Option::as_mut) else {
            return Some(handed.frame);
        };
        let direction: Direction = handed.meta.side.direction();
        if let Err(handed) = ring.push(handed) {
            let (counters, bytes) = (firewall.counters(), handed.frame.wire_len() as u32);
            counters.count(NicSlot::NONE, direction, Reason::HandoffFull);
            counters.count_bytes(NicSlot::NONE, direction, false, bytes);
        }
        None
    }

    fn publish(&mut self) {
        for (to, ring) in self.rings.to.iter_mut().enumerate() {
            let has_new = ring.as_mut().is_some_and(Producer::publish);
            if has_new && let Some(waker) = self.rings.wakers.get(to) {
                waker.wake();
            }
        }
    }
}
