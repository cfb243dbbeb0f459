//! Simulated frames and ports, and a farm of workers on them, on a clock of the test's own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use control::commit::Committer;
use control::compile::shard_config;
use control::config::Config;
use control::document::{Limits, parse_policy};
use crossbeam::channel::Sender;
use engine::Side;
use engine::burst::{Firewall, FirewallConfig};
use engine::conntrack::Secret;
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::io::{Burst, Frame, Port, TxRefusal};
use engine::packet::PacketMeta;
use engine::rss::{RETA_SIZE, rss_hash};
use engine::snapshot::Snapshot;
use engine::verdict::Verdict;
use engine::worker::{Tap, Wire, Worker, WorkerRequest, mesh};

/// A frame as a device might bring it: in segments, with a tag beside the data, cut short.
#[derive(Debug)]
pub struct SimFrame {
    /// The test's number for it.
    pub id: usize,
    segments: Vec<Vec<u8>>,
    wire_len: usize,
    tag: Option<u16>,
    alive: Arc<AtomicUsize>,
}

impl SimFrame {
    /// A whole frame. `alive` counts the frames that have not been given back.
    pub fn new(id: usize, bytes: Vec<u8>, alive: &Arc<AtomicUsize>) -> SimFrame {
        alive.fetch_add(1, Ordering::Relaxed);
        SimFrame { id, wire_len: bytes.len(), segments: vec![bytes], tag: None, alive: alive.clone() }
    }

    /// The same bytes in segments of at most `size`.
    pub fn segmented(mut self, size: usize) -> SimFrame {
        self.segments = self.bytes().chunks(size.max(1)).map(<[u8]>::to_vec).collect();
        self
    }

    /// Its first tag taken out of the data and put beside it.
    pub fn tag_stripped(mut self) -> SimFrame {
        let mut bytes = self.bytes();
        assert_eq!(bytes[12..14], [0x81, 0x00], "the frame has no tag");
        self.tag = Some(u16::from_be_bytes([bytes[14], bytes[15]]));
        bytes.drain(12..16);
        self.segments = vec![bytes];
        self.wire_len -= 4;
        self
    }

    /// Cut to its first `len` bytes by who captured it; it was longer on the wire.
    pub fn snapped(mut self, len: usize) -> SimFrame {
        let mut bytes = self.bytes();
        bytes.truncate(len);
        self.segments = vec![bytes];
        self
    }

    /// All bytes, as they would leave.
    pub fn bytes(&self) -> Vec<u8> {
        self.segments.concat()
    }
}

impl Drop for SimFrame {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Frame for SimFrame {
    fn head(&self) -> &[u8] {
        &self.segments[0]
    }

    fn captured(&self) -> usize {
        self.segments.iter().map(Vec::len).sum()
    }

    fn wire_len(&self) -> usize {
        self.wire_len
    }

    fn is_odd(&self) -> bool {
        self.segments.len() > 1 || self.tag.is_some()
    }

    fn restore_tag(&mut self) -> bool {
        if let Some(tci) = self.tag.take() {
            let tag = [[0x81, 0x00], tci.to_be_bytes()].concat();
            self.segments[0].splice(12..12, tag);
            self.wire_len += 4;
        }
        true
    }

    fn index(&self) -> Option<u64> {
        Some(self.id as u64)
    }

    fn gather(&self, out: &mut [u8]) -> usize {
        let all = self.bytes();
        let len = all.len().min(out.len());
        out[..len].copy_from_slice(&all[..len]);
        len
    }
}

/// Both ends of a simulated queue pair.
#[derive(Clone, Default)]
pub struct SimQueue {
    rx: Arc<Mutex<VecDeque<SimFrame>>>,
    tx: Arc<Mutex<Vec<SimFrame>>>,
    /// Frames that it refuses from now on.
    refusals: Arc<AtomicUsize>,
    /// What it refuses, it refuses since nobody is at its other end.
    is_down: Arc<AtomicBool>,
    /// Frames that one receive call yields at most; 0 for a whole burst.
    most: Arc<AtomicUsize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl SimQueue {
    /// Lets a frame arrive.
    pub fn arrive(&self, frame: SimFrame) {
        lock(&self.rx).push_back(frame);
    }

    /// How many frames wait to be received.
    pub fn waiting(&self) -> usize {
        lock(&self.rx).len()
    }

    /// What has left so far, in order.
    pub fn left(&self) -> Vec<SimFrame> {
        std::mem::take(&mut lock(&self.tx))
    }

    /// The next `n` frames are refused.
    pub fn refuse(&self, n: usize) {
        self.refusals.store(n, Ordering::Relaxed);
    }

    /// Whether what it refuses from now on it refuses since nobody is at its other end.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    /// Why it refuses.
    pub fn refusal(&self) -> TxRefusal {
        if self.is_down.load(Ordering::Relaxed) { TxRefusal::Down } else { TxRefusal::Full }
    }

    /// Receive calls yield at most `n` frames each.
    pub fn at_most(&self, n: usize) {
        self.most.store(n, Ordering::Relaxed);
    }
}

impl Port for SimQueue {
    type Frame = SimFrame;

    fn rx(&mut self, burst: &mut Burst<SimFrame>) {
        let most = match self.most.load(Ordering::Relaxed) {
            0 => usize::MAX,
            most => most,
        };
        let mut queue = lock(&self.rx);
        let count = burst.remaining_capacity().min(most).min(queue.len());
        burst.extend(queue.drain(..count));
    }

    fn tx(&mut self, burst: &mut Burst<SimFrame>) {
        let refused = self.refusals.load(Ordering::Relaxed).min(burst.len());
        self.refusals.fetch_sub(refused, Ordering::Relaxed);
        let taken = burst.len() - refused;
        lock(&self.tx).extend(burst.drain(..taken));
    }

    fn abandon(&mut self, _: usize) -> TxRefusal {
        self.refusal()
    }
}

/// Verdicts by the frames' numbers.
#[derive(Default)]
pub struct Verdicts(pub Vec<Option<Verdict>>);

impl Tap<SimFrame> for Verdicts {
    fn judged(&mut self, frame: &SimFrame, _: &PacketMeta, verdict: &Verdict) {
        if self.0.len() <= frame.id {
            self.0.resize(frame.id + 1, None);
        }
        assert!(self.0[frame.id].is_none(), "frame {} was judged twice", frame.id);
        self.0[frame.id] = Some(*verdict);
    }
}

/// How arriving frames are spread over the workers' queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// As a NIC with symmetric RSS would.
    Rss,
    /// Each to a worker that does not own it, where there is one.
    Wrong,
    /// One after the other.
    RoundRobin,
}

/// Workers on one simulated wire.
pub struct SimWorkers {
    /// The control side.
    pub committer: Committer,
    /// Where its snapshots become the workers'.
    pub publisher: rcu::Publisher<Snapshot>,
    workers: Vec<Worker<SimQueue>>,
    questions: Vec<Sender<WorkerRequest>>,
    inside: Vec<SimQueue>,
    outside: Vec<SimQueue>,
    /// What was judged.
    pub verdicts: Verdicts,
    alive: Arc<AtomicUsize>,
    next_id: usize,
    now_ns: u64,
    steering: Steering,
    counters: Vec<Arc<EngineCounters>>,
    connection_counts: Arc<ConnectionCounts>,
}

impl SimWorkers {
    /// `workers` workers under a policy document, with rings of `ring` frames.
    pub fn new(config: &Config, policy: &str, workers: u32, ring: usize, steering: Steering) -> SimWorkers {
        let mut farm = SimWorkers::empty(config, 1_000_000_000, workers, ring, steering);
        farm.apply(policy);
        farm
    }

    /// The same under the empty policy, started at this moment.
    pub fn empty(
        config: &Config,
        start_ns: u64,
        workers: u32,
        ring: usize,
        steering: Steering,
    ) -> SimWorkers {
        let committer = Committer::new(config.clone());
        let (publisher, readers) = rcu::domain(Box::new(committer.initial()), workers as usize);
        let connection_counts = Arc::new(ConnectionCounts::new());
        let mut farm = SimWorkers {
            committer,
            publisher,
            workers: Vec::new(),
            questions: Vec::new(),
            inside: Vec::new(),
            outside: Vec::new(),
            verdicts: Verdicts::default(),
            alive: Arc::default(),
            next_id: 0,
            now_ns: start_ns,
            steering,
            counters: Vec::new(),
            connection_counts: connection_counts.clone(),
        };
        let grace_end_ns = start_ns + config.conntrack.pickup_grace.as_nanos() as u64;
        for ((me, reader), rings) in (0..workers).zip(readers).zip(mesh(workers as usize, ring)) {
            let shard = shard_config(config, me, workers);
            let firewall = FirewallConfig { shard, secret: Secret::new([3, 5]), grace_end_ns };
            let counters = Arc::new(EngineCounters::new());
            let firewall = Firewall::new(&firewall, counters.clone(), connection_counts.clone());
            let (inside, outside) = (SimQueue::default(), SimQueue::default());
            let wire = Wire { inside: inside.clone(), outside: outside.clone() };
            let (ask, questions) = crossbeam::channel::bounded(1);
            farm.questions.push(ask);
            farm.workers.push(Worker::new(me, firewall, reader, vec![wire], rings, questions));
            farm.inside.push(inside);
            farm.outside.push(outside);
            farm.counters.push(counters);
        }
        farm
    }

    /// Commits a document, publishes it and waits for the workers, as the appliance's `apply` does.
    pub fn apply(&mut self, policy: &str) {
        self.publish(policy);
        for worker in &mut self.workers {
            worker.reader().quiescent();
        }
        assert!(self.acknowledged());
    }

    /// Commits a document and publishes it; workers take it up when they next let go of what they
    /// hold.
    pub fn publish(&mut self, policy: &str) {
        let parsed = parse_policy(policy, "policy", &Limits::default()).unwrap_or_else(|e| panic!("{e}"));
        if let Ok(Some(commit)) = self.committer.commit(parsed.policy, self.now_ns) {
            self.publisher.publish(commit.snapshot);
        }
    }

    /// True if every worker has let go of the snapshots before the present one.
    pub fn acknowledged(&self) -> bool {
        self.publisher.all_acknowledged(self.publisher.epoch())
    }

    /// Moves the clock on.
    pub fn wait_ms(&mut self, ms: u64) {
        self.now_ns += ms * 1_000_000;
    }

    /// Sets the clock.
    pub fn set_clock(&mut self, ns: u64) {
        self.now_ns = ns;
    }

    /// Lets a frame arrive on a side; its number.
    pub fn arrive(&mut self, side: Side, bytes: &[u8]) -> usize {
        let frame = SimFrame::new(self.next_id, bytes.to_vec(), &self.alive);
        self.arrive_as(side, frame)
    }

    /// A frame that the test made; it must bear the number that is due.
    pub fn arrive_as(&mut self, side: Side, mut frame: SimFrame) -> usize {
        frame.id = self.next_id;
        let id = frame.id;
        let queue = self.queue_for(&frame.bytes());
        self.next_id += 1;
        let queues = if side == Side::Inside { &self.inside } else { &self.outside };
        queues[queue].arrive(frame);
        id
    }

    /// The count of frames not given back, for frames that the test makes.
    pub fn alive(&self) -> &Arc<AtomicUsize> {
        &self.alive
    }

    /// The queue at which the next frame arrives, if it has these bytes.
    pub fn queue_for(&self, bytes: &[u8]) -> usize {
        let workers = self.workers.len();
        let owner = plain_rss(bytes).map_or(0, |hash| (hash % RETA_SIZE) as usize % workers);
        match self.steering {
            Steering::Rss => owner,
            Steering::Wrong => (owner + 1) % workers,
            Steering::RoundRobin => self.next_id % workers,
        }
    }

    /// Polls each worker once.
    pub fn poll(&mut self) -> usize {
        let now = self.now_ns;
        let mut frames = 0;
        for worker in &mut self.workers {
            frames += worker.poll(now, &mut self.verdicts).frames;
        }
        frames
    }

    /// Polls one worker.
    pub fn poll_worker(&mut self, worker: usize, tap: &mut impl Tap<SimFrame>) -> usize {
        self.workers[worker].poll(self.now_ns, tap).frames
    }

    /// Asks a worker something; it answers at the end of its next poll.
    pub fn ask(&self, worker: usize, question: WorkerRequest) {
        assert!(self.questions[worker].try_send(question).is_ok(), "one question at a time");
    }

    /// Polls until nothing moves any more.
    pub fn drain(&mut self) {
        let mut idle = 0;
        while idle < 3 {
            idle = if self.poll() == 0 { idle + 1 } else { 0 };
        }
        self.publisher.reclaim();
    }

    /// What left by a side, over all queues, in order of the frames' numbers.
    pub fn left(&self, side: Side) -> Vec<SimFrame> {
        let queues = if side == Side::Inside { &self.inside } else { &self.outside };
        let mut frames: Vec<SimFrame> = queues.iter().flat_map(SimQueue::left).collect();
        frames.sort_by_key(|frame| frame.id);
        frames
    }

    /// The queues of a side.
    pub fn queues(&self, side: Side) -> &[SimQueue] {
        if side == Side::Inside { &self.inside } else { &self.outside }
    }

    /// The counters of each worker.
    pub fn counters(&self) -> &[Arc<EngineCounters>] {
        &self.counters
    }

    /// How many connections each NIC has with all workers, as these count them.
    pub fn connection_counts(&self) -> &ConnectionCounts {
        &self.connection_counts
    }

    /// The workers.
    pub fn workers(&mut self) -> &mut [Worker<SimQueue>] {
        &mut self.workers
    }

    /// Frames that arrived in all.
    pub fn arrived(&self) -> usize {
        self.next_id
    }

    /// A frame's verdict as text.
    pub fn verdict(&self, id: usize) -> String {
        match self.verdicts.0.get(id).copied().flatten() {
            Some(verdict) => crate::scenario::describe(&verdict, &self.committer),
            None => "not judged".to_owned(),
        }
    }
}

/// What a NIC would hash of an untagged or tagged IP frame without options, roughly: enough to
/// steer.
fn plain_rss(bytes: &[u8]) -> Option<u32> {
    let at = if bytes.get(12..14)? == [0x81, 0x00] { 18 } else { 14 };
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let (src, dst, l4, proto, fragment) = match word(at - 2)? {
        0x0800 => {
            let addr = |at: usize| Some(u128::from(word(at)?) << 16 | u128::from(word(at + 2)?));
            let header_len = usize::from(bytes.get(at)? & 0xF) * 4;
            (
                addr(at + 12)?,
                addr(at + 16)?,
                at + header_len,
                *bytes.get(at + 9)?,
                word(at + 6)? & 0x3FFF != 0,
            )
        }
        0x86DD => {
            let addr = |at: usize| Some(u128::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
            (addr(at + 8)?, addr(at + 24)?, at + 40, *bytes.get(at + 6)?, false)
        }
        _ => return None,
    };
    let ports = match proto {
        6 | 17 | 132 if !fragment => Some((word(l4)?, word(l4 + 2)?)),
        _ => None,
    };
    Some(rss_hash(src, dst, ports))
}
