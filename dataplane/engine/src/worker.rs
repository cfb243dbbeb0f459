//! A worker's loop, top-down: one poll takes what the ports and the other workers have, judges it
//! under one snapshot, sends what passed, and only then passes a quiescent state.

mod fragments;
mod handed_off;
mod request;
mod rx;

use std::time::Duration;

use crossbeam::channel::{Receiver, TryRecvError};
use rcu::{Parked, Parker, Waker};

use crate::burst::{Batch, Firewall, Pass};
use crate::cpu::{Baseline, Isa, Simd, Work, simd};
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
pub use request::{RequestKind, WorkerReply, WorkerRequest};
use rx::{HEADER_PREFETCH_DISTANCE, RxBurst, RxSource, rx_order};

/// A frame on its way to the worker that owns it, which parses it again: handing its metadata over
/// would move two more cache lines between cores, and a ring of those would fill a quarter of a
/// second-level cache of 512 kB.
pub struct HandedOff<F> {
    frame: F,
    meta: HandoffMeta,
}

/// What a handed-off frame carries along.
#[derive(Clone, Copy)]
struct HandoffMeta {
    wire: u16,
    side: Side,
    /// How far the frame has come.
    stage: HandoffStage,
    /// Whether the snapshot that it was parsed under has tunnels.
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
    /// Of worker `i`, if workers park when idle; empty if they never do.
    pub wakers: Vec<Waker>,
}

/// The size of a ring between two workers with this many wires. A worker takes a burst from each
/// port in a turn and publishes its hand-offs at the end, when the other may just have begun a turn
/// of its own: room for two turns, so that nothing is lost even if all of it is for one idle
/// worker.
pub fn ring_size(wires: usize) -> usize {
    (2 * 2 * wires * BURST).max(1024)
}

/// Rings between `workers` workers, each for `size` frames: element `i` belongs to worker `i`.
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

/// Observes a worker, verdict by verdict and pass by pass. Live workers use `()`, which compiles to
/// nothing.
pub trait Tap<F> {
    /// One packet was judged, in order of arrival; if it passes, it is about to be sent.
    #[inline]
    fn judged(&mut self, _frame: &F, _lane: &PacketMeta, _verdict: &Verdict) {}

    /// A pass over a non-empty burst is done.
    #[inline]
    fn passed(&mut self, _pass: Pass) {}
}

impl<F> Tap<F> for () {}

/// Frames that are parsed between two rounds of prefetching.
const PREFETCH_STRIDE: usize = 8;

/// The largest L4 offset at which the headers lie in a frame's first cache line.
const ONE_LINE: u16 = 64 - 20;

/// The result of one poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollResult {
    /// Frames received and taken from rings.
    pub frames: usize,
}

/// One worker: its firewall, its queues, its rings, its reader of the policy.
pub struct Worker<P: Port> {
    firewall: Firewall,
    reader: rcu::Reader<Snapshot>,
    wires: Vec<Wire<P>>,
    links: HandoffLinks<P::Frame>,
    /// Ports and rings in the order in which they are polled, each with its number.
    sources: Box<[(RxSource, usize)]>,
    /// The burst that is processed.
    rx: RxBurst<P::Frame>,
    /// The next one: its headers are prefetched meanwhile.
    next: RxBurst<P::Frame>,
    batch: Batch<P::Frame>,
    /// Fragments that wait for their first.
    held_frames: HeldFrames<P::Frame>,
    /// Frames that passed, by wire and by the side they leave on.
    out: Vec<[Box<Burst<P::Frame>>; 2]>,
    dropped: Burst<P::Frame>,
    /// By a source's number: the headers of its last burst lay beyond the first cache line, so
    /// those of the next one are likely to.
    is_deep: Box<[bool]>,
    requests: Receiver<WorkerRequest>,
    /// Reports packets to the control side, where it asks for them.
    recorder: Recorder,
    simd: Simd,
}

/// [`Worker::poll`], for each instruction set.
struct Poll<'a, P: Port, T> {
    worker: &'a mut Worker<P>,
    ns: u64,
    tap: &'a mut T,
}

impl<P: Port, T: Tap<P::Frame>> Work for Poll<'_, P, T> {
    type Output = PollResult;

    #[inline(always)]
    fn run(self, isa: impl Isa) -> PollResult {
        self.worker.poll_once(isa, self.ns, self.tap)
    }
}

struct HandoffLinks<F> {
    router: Router,
    rings: Rings<F>,
}

impl<P: Port> Worker<P> {
    /// Worker `me`. `requests` come from the control side.
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
            simd: simd(),
        }
    }

    /// Replaces the recorder.
    pub fn set_recorder(&mut self, recorder: Recorder) {
        self.recorder = recorder;
    }

    /// One turn at the moment `ns` (nanoseconds; a frame's own stamp has precedence).
    pub fn poll(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) -> PollResult {
        self.simd.run(Poll { worker: self, ns, tap })
    }

    #[inline(always)]
    fn poll_once(&mut self, isa: impl Isa, ns: u64, tap: &mut impl Tap<P::Frame>) -> PollResult {
        let (mut polled, mut of_ports) = (PollResult::default(), 0);
        if !self.firewall.fragment_queue().is_empty() {
            polled.frames += self.expire_held(ns, tap);
        }
        for _ in 0..self.sources.len() {
            if !self.receive(tap) {
                break;
            }
            polled.frames += self.process(isa, ns, tap);
            if self.firewall.fragment_queue().has_released() {
                self.release_held(ns, tap);
            }
            of_ports += usize::from(matches!(self.sources[self.rx.at].0, RxSource::Port(..)));
            // At most one burst per port, even if rings are empty: hand-offs are published at the
            // end of the turn. Or every source was polled behind this burst already, and had
            // nothing.
            if of_ports == 2 * self.wires.len() || self.frames_in_hand() == 0 {
                break;
            }
        }
        if !self.links.router.is_alone() {
            self.links.publish();
        }
        self.upkeep(ns, polled.frames == 0);
        // Everything in hand is sent or handed off: no frame sent from now on was judged by an
        // older snapshot.
        self.reader.quiescent();
        polled
    }

    /// One turn that receives nothing: judges and sends what the rings hold and what was received
    /// before. Once there is nothing left, releases all held fragments. For the end of a worker, so
    /// that no frame is lost.
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
                polled.frames += self.process(Baseline, ns, tap);
            }
        }
        // The last frame may be a first fragment.
        if polled.frames == 0 {
            self.firewall.fragment_queue_mut().release_all();
        }
        polled.frames += self.expire_held(ns, tap);
        self.links.publish();
        self.upkeep(ns, polled.frames == 0);
        self.reader.quiescent();
        polled
    }

    /// Processes the burst in hand.
    #[inline(always)]
    fn process(&mut self, isa: impl Isa, ns: u64, tap: &mut impl Tap<P::Frame>) -> usize {
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
        let is_deep = if self.links.router.is_alone() {
            self.read(isa, arrival)
        } else {
            self.read_and_route(isa, arrival)
        };
        self.is_deep[number] = is_deep;
        tap.passed(Pass::Parse);
        self.run_batch(isa, Some((wire, side.other())), tap);
        received
    }

    /// Parses the burst in hand into the batch. True if its headers are likely to lie beyond the
    /// first cache line.
    #[inline(always)]
    fn read(&mut self, isa: impl Isa, mut arrival: Arrival) -> bool {
        let mut is_deep = false;
        let pkts = self.batch.pkts.grow(self.rx.frames.len());
        for (some, pkts) in pkts.chunks_mut(PREFETCH_STRIDE).enumerate() {
            let first = some * PREFETCH_STRIDE;
            self.rx.prefetch_headers(first + PREFETCH_STRIDE + HEADER_PREFETCH_DISTANCE);
            for (frame, pkt) in self.rx.frames[first..].iter_mut().zip(&mut *pkts) {
                if let Some(stamp) = frame.stamp() {
                    arrival.now = self.firewall.now(stamp);
                }
                self.firewall.read_as(isa, frame, &arrival, pkt);
            }
            is_deep |= pkts.first().is_some_and(|pkt| pkt.l4 > ONE_LINE);
        }
        std::mem::swap(&mut self.batch.frames, &mut self.rx.frames);
        is_deep
    }

    /// The same if there are other workers: hands their frames off, and keeps the rest as the
    /// batch. Each frame is parsed into the slot behind the last one kept, so that no metadata is
    /// copied.
    #[inline(always)]
    fn read_and_route(&mut self, isa: impl Isa, mut arrival: Arrival) -> bool {
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
            self.firewall.read_as(isa, frame, &arrival, pkt);
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

    /// Judges the batch and sends what passed. `way`: the wire that all of it came in by, and the
    /// side it leaves on.
    #[inline(always)]
    fn run_batch(&mut self, isa: impl Isa, way: Option<(usize, Side)>, tap: &mut impl Tap<P::Frame>) {
        if self.batch.frames.is_empty() {
            self.batch.clear();
            return;
        }
        // Prefetches one header of the next burst per packet that is judged: dozens at once would
        // stall the core.
        let (next, is_deep) = (self.next.frames.as_slice(), self.next.is_deep);
        let meanwhile = |place: usize| {
            if let Some(frame) = next.get(place) {
                frame.prefetch(is_deep);
            }
        };
        let (snapshot, done) = (self.reader.read(), |pass| tap.passed(pass));
        self.firewall.judge_in_passes(isa, snapshot, &mut self.batch, done, meanwhile);
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

    /// Sends each frame that passes on its way, drops the others, and keeps those that wait.
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

    /// Counts the last `refused` frames of the batch that should have left here as drops instead of
    /// passes.
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

    /// Sleeps until woken, or until `timeout`, unless frames of other workers or a request wait.
    /// Frames at the ports wait until the timeout: a port wakes nobody.
    pub fn park(&mut self, parker: &mut Parker, timeout: Duration) -> Parked {
        let Worker { reader, requests: questions, links, .. } = self;
        let has_work = || !questions.is_empty() || links.rings.from.iter().any(|ring| !ring.is_empty());
        parker.park(reader, timeout, has_work)
    }

    /// Its reader of the policy, to go offline and online around a sleep.
    pub fn reader(&mut self) -> &mut rcu::Reader<Snapshot> {
        &mut self.reader
    }

    /// The policy that it judges by, while it is online.
    pub fn snapshot(&self) -> &Snapshot {
        self.reader.read()
    }

    /// Has the kernel back its memory, before it polls: see [`Firewall::touch`]. `nics` are
    /// expected at least.
    pub fn touch(&mut self, nics: u32) {
        let nics = nics.max(self.reader.read().nic_count());
        self.firewall.touch(nics);
        self.links.router.touch();
    }

    /// Exports all flow counters; false if the ring has no room for all of them, and it must be
    /// called again.
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

    /// True if frames for this worker stay here.
    #[inline]
    fn is_mine(&self, owner: u32) -> bool {
        self.rings.to.get(owner as usize).is_none_or(Option::is_none)
    }

    /// Hands a frame off to its worker; returns it if that is this one.
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
