//! The worker threads: started, watched, drained, ended.

use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use control::live::Polls;
use crossbeam::channel::Receiver;
use crossbeam::utils::CachePadded;
use engine::burst::{Firewall, FirewallConfig};
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::snapshot::Snapshot;
use engine::trace::Recorder;
use engine::worker::{Rings, Wire, Worker, WorkerRequest};
use pmd::{Eal, Mbuf, Queue};
use rcu::Parker;
use tracing::warn;

use super::cores;
use super::flows::FlowSender;
use super::persist::WorkerShare;
use super::swap::{Swap, SwapChannel};

/// Empty polls in a row after which a worker offers its core to others between two polls.
const PATIENT_POLLS: u32 = 2048;
/// Empty polls in a row after which a worker sleeps between two polls, where it may.
const SLEEPY_POLLS: u32 = 20_000;
/// Its first sleep, and its longest: they double. The sleep is what the first frame after a pause is late by.
const NAPS: [Duration; 2] = [Duration::from_micros(50), Duration::from_micros(800)];
/// A worker whose loop stands still for so long hangs in a driver, and is kicked out of it. (Or somebody else has its
/// core: then the kick does nothing.)
const STALL: Duration = Duration::from_millis(20);
/// Until all workers have stopped receiving.
const STOP_PATIENCE: Duration = Duration::from_millis(500);
/// How long a worker that ends tells of what its connections have carried, if whoever hears that is slow: less than it may take to end.
const LAST_WORDS: Duration = Duration::from_millis(400);
/// Between two looks of a worker that stands still: another process wants its core.
const PAUSED: Duration = Duration::from_micros(200);
/// Until nothing is left in the rings.
const DRAIN_PATIENCE: Duration = Duration::from_millis(200);
/// The signal that ends a wait in a driver; its handler does nothing.
pub const KICK: libc::c_int = libc::SIGUSR2;

/// NICs whose counters' memory is backed from the start; more are as they come.
const EXPECTED_NICS: u32 = 4096;

/// What workers are told. Relaxed throughout: it carries nothing but itself.
pub mod order {
    /// Receive, judge, send.
    pub const RUN: u8 = 0;
    /// Receive no more.
    pub const DRAIN: u8 = 1;
    /// Let go of everything.
    pub const END: u8 = 2;
    /// Behind `DRAIN`: touch nothing, and be ready to go on.
    pub const PAUSE: u8 = 4;
    /// As `RUN`, and take the queues that come by the [`SwapChannel`](super::SwapChannel).
    pub const SWAP: u8 = 3;
}

/// What a worker tells of itself. Relaxed but for `drained`: counts that stand for themselves, each written by its
/// worker alone.
#[derive(Default)]
pub struct WorkerStatus {
    polls: AtomicU64,
    busy: AtomicU64,
    sleeps: AtomicU64,
    busy_cycles: AtomicU64,
    idle_cycles: AtomicU64,
    /// Turns of the loop that receives no more; 0 until then. Its store releases `taken`.
    drained: AtomicU64,
    /// It touches nothing. Its store releases everything that it has done.
    paused: AtomicBool,
    /// Frames taken from rings by these.
    taken: AtomicU64,
}

impl WorkerStatus {
    /// What the loop has done.
    pub fn polls(&self) -> Polls {
        Polls {
            all: self.polls.load(Relaxed),
            busy: self.busy.load(Relaxed),
            sleeps: self.sleeps.load(Relaxed),
            busy_cycles: self.busy_cycles.load(Relaxed),
            idle_cycles: self.idle_cycles.load(Relaxed),
        }
    }

    fn sleep(&self) {
        self.sleeps.store(self.sleeps.load(Relaxed) + 1, Relaxed);
    }

    /// A turn that found so many frames took so long, the pause behind it included: only a turn without any has one.
    fn spend(&self, frames: usize, cycles: u64) {
        let spent = if frames > 0 { &self.busy_cycles } else { &self.idle_cycles };
        spent.store(spent.load(Relaxed).wrapping_add(cycles), Relaxed);
    }

    fn turn(&self, frames: usize) {
        self.polls.store(self.polls.load(Relaxed) + 1, Relaxed);
        if frames > 0 {
            self.busy.store(self.busy.load(Relaxed) + 1, Relaxed);
        }
    }
}

/// What one worker starts with.
pub struct Job {
    /// Its number.
    pub id: usize,
    /// Its core.
    pub core: usize,
    /// Its part of the table of connections, its secret, its timeouts.
    pub firewall: FirewallConfig,
    /// What it counts.
    pub counters: Arc<EngineCounters>,
    /// Everybody's connections by NIC.
    pub connection_counts: Arc<ConnectionCounts>,
    /// Its view of the policy.
    pub reader: rcu::Reader<Snapshot>,
    /// Its queues.
    pub wires: Vec<Wire<Queue>>,
    /// Its rings.
    pub rings: Rings<Mbuf>,
    /// What it is asked.
    pub questions: Receiver<WorkerRequest>,
    /// What it tells.
    pub beat: Arc<CachePadded<WorkerStatus>>,
    /// Where it sleeps when there is nothing to do; `None` to poll on.
    pub parker: Option<Parker>,
    /// What it tells of packets.
    pub recorder: Recorder,
    /// Where it tells what connections carry, if anybody wants to know.
    pub tells: Option<FlowSender>,
    /// Where its connections outlive it, with those that it takes up.
    pub share: Option<WorkerShare>,
}

/// The running workers.
pub struct Workers {
    order: Arc<CachePadded<AtomicU8>>,
    threads: Vec<Thread>,
    exchange: SwapChannel,
}

struct Thread {
    id: usize,
    handle: JoinHandle<()>,
    beat: Arc<CachePadded<WorkerStatus>>,
    seen: u64,
    since: Instant,
}

impl Workers {
    /// Starts a thread a job and waits until each polls. `start` is moment 0 of their clock.
    /// `settle` is called once all have begun, when they may be waited for.
    pub fn start(
        jobs: Vec<Job>,
        eal: &Arc<Eal>,
        start: Instant,
        settle: impl FnOnce(),
    ) -> Result<Workers, String> {
        let order = Arc::new(CachePadded::new(AtomicU8::new(order::RUN)));
        let (exchange, swaps) = SwapChannel::new(&order, jobs.len());
        let mut workers = Workers { order, threads: Vec::new(), exchange };
        let (ready, is_ready) = mpsc::channel();
        for (job, swaps) in jobs.into_iter().zip(swaps) {
            let (id, beat) = (job.id, job.beat.clone());
            let (eal, order, ready) = (eal.clone(), workers.order.clone(), ready.clone());
            let body = move || run(job, &swaps, &eal, &order, start, ready);
            match Builder::new().name(format!("worker-{id}")).spawn(body) {
                Ok(handle) => {
                    workers.threads.push(Thread { id, handle, beat, seen: 0, since: Instant::now() })
                }
                Err(error) => {
                    workers.stop();
                    return Err(format!("worker {id} does not start: {error}"));
                }
            }
        }
        drop(ready);
        settle();
        for _ in 0..workers.threads.len() {
            let result =
                is_ready.recv().unwrap_or_else(|_| Err("a worker ended while it started".to_owned()));
            if let Err(reason) = result {
                workers.stop();
                return Err(reason);
            }
        }
        Ok(workers)
    }

    /// Kicks workers that hang in a driver's wait (`net_af_packet` waits without end for room in a ring that nobody
    /// drains). True while all run. To be called every now and then.
    pub fn watch(&mut self) -> bool {
        for thread in &mut self.threads {
            let polls = thread.beat.polls.load(Relaxed);
            if polls != thread.seen {
                (thread.seen, thread.since) = (polls, Instant::now());
            } else if thread.since.elapsed() > STALL {
                thread.kick();
            }
        }
        self.threads.iter().all(|thread| !thread.handle.is_finished())
    }

    /// The way to exchange their queues.
    pub fn exchange(&self) -> SwapChannel {
        self.exchange.clone()
    }

    /// For each worker, how long its loop has stood still.
    pub fn stalls(&self) -> impl Iterator<Item = (usize, Duration)> + '_ {
        self.threads.iter().map(|thread| (thread.id, thread.since.elapsed()))
    }

    /// They stop receiving, and judge and send what their rings hold. Then they touch neither tables nor queues any more. False if one
    /// does not.
    pub fn pause(&self) -> bool {
        self.drain();
        self.order.store(order::PAUSE, Relaxed);
        let is_paused = |thread: &Thread| thread.beat.paused.load(Acquire);
        self.wait(STOP_PATIENCE, is_paused);
        self.threads.iter().all(is_paused)
    }

    /// After a pause: they go on.
    pub fn resume(&self) {
        self.order.store(order::RUN, Relaxed);
    }

    fn drain(&self) {
        let turns = |thread: &Thread| thread.beat.drained.load(Relaxed);
        let before: Vec<_> = self.threads.iter().map(turns).collect();
        self.order.store(order::DRAIN, Relaxed);
        self.wait(STOP_PATIENCE, |thread| {
            thread.has_ended() || before.get(thread.id).is_none_or(|before| turns(thread) > *before)
        });
        let end = Instant::now() + DRAIN_PATIENCE;
        while !self.rings_are_empty() && Instant::now() < end {}
    }

    /// Ends them: they stop receiving, judge and send what their rings hold, and let go of their queues. Names those
    /// that did not end; whose ports must then stay as they are.
    pub fn stop(self) -> Vec<usize> {
        self.drain();
        self.order.store(order::END, Relaxed);
        self.wait(STOP_PATIENCE, Thread::has_ended);
        let mut stuck = Vec::new();
        for Thread { id, handle, .. } in self.threads {
            if !handle.is_finished() {
                stuck.push(id);
            } else if handle.join().is_err() {
                warn!("worker {id} had panicked");
            }
        }
        stuck
    }

    /// Waits until `done` holds for all threads, and kicks those for which it does not.
    fn wait(&self, patience: Duration, done: impl Fn(&Thread) -> bool) {
        let begin = Instant::now();
        let mut kicked = begin;
        while !self.threads.iter().all(&done) && begin.elapsed() < patience {
            if kicked.elapsed() > STALL {
                self.threads.iter().filter(|thread| !done(thread)).for_each(Thread::kick);
                kicked = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// One look at the rings of workers that receive no more. If every worker has taken nothing in a whole turn, then no
    /// ring held anything when the first of these turns began; and since only who takes can put, nor do they now.
    fn rings_are_empty(&self) -> bool {
        let taken = |thread: &Thread| thread.beat.taken.load(Relaxed);
        let before: Vec<_> = self.threads.iter().map(|t| (taken(t), t.beat.drained.load(Acquire))).collect();
        // Two turns on, one of them has begun and ended since.
        let mut moved_on = self.threads.iter().zip(&before);
        let begin = Instant::now();
        while !moved_on
            .clone()
            .all(|(t, (_, turns))| t.has_ended() || t.beat.drained.load(Acquire) >= turns + 2)
        {
            if begin.elapsed() > DRAIN_PATIENCE {
                return false;
            }
            std::thread::yield_now();
        }
        moved_on.all(|(thread, (before, _))| taken(thread) == *before)
    }
}

impl Thread {
    fn has_ended(&self) -> bool {
        self.handle.is_finished()
    }

    fn kick(&self) {
        if self.has_ended() {
            return;
        }
        // SAFETY: the thread's id is valid until its handle is joined, which takes `self`. The signal has a handler (see
        // `signals`), so it does no more than to end a wait.
        unsafe { libc::pthread_kill(self.handle.as_pthread_t(), KICK) };
    }
}

/// One worker's thread.
fn run(
    job: Job,
    swaps: &Receiver<Swap>,
    eal: &Eal,
    order: &AtomicU8,
    start: Instant,
    ready: mpsc::Sender<Result<(), String>>,
) {
    let Job {
        id,
        core,
        firewall,
        counters,
        connection_counts,
        reader,
        wires,
        rings,
        questions,
        beat,
        parker,
        recorder,
        tells,
        share,
    } = job;
    let registered = match (cores::pin(core), eal.register_thread()) {
        (true, Ok(guard)) => guard,
        (false, _) => return drop(ready.send(Err(format!("worker {id} can't be pinned to core {core}")))),
        (_, Err(error)) => return drop(ready.send(Err(error.to_string()))),
    };
    // On its own core, so that its memory is near.
    let (memory, keeping) =
        share.map(|share| (share.memory, (share.connections, share.since, share.told, share.go))).unzip();
    let mut firewall = Firewall::with_memory(memory, &firewall, counters, connection_counts);
    if let Some((ring, wishes)) = tells {
        firewall.export_flows_to(ring, wishes);
    }
    let now = || start.elapsed().as_nanos() as u64;
    if let Some((connections, since, told, go)) = keeping {
        let _ = told.send(firewall.restore(connections, &since, reader.read(), now()));
        // Not a frame before it is written down where they are now.
        if go.recv().is_err() {
            return;
        }
    }
    let mut worker = Worker::new(id as u32, firewall, reader, wires, rings, questions);
    worker.set_recorder(recorder);
    worker.touch(EXPECTED_NICS);
    worker.poll(now(), &mut ());
    drop(ready.send(Ok(())));
    drop(ready);

    let mut pause = Pause { idle: 0, parker, nap: NAPS[0] };
    let mut turn_began = cycles();
    loop {
        match order.load(Relaxed) {
            order::RUN => {}
            order::SWAP => swaps.try_iter().for_each(|swap| swap.apply(worker.wires())),
            _ => {
                if !drain(&mut worker, &beat, order, now) {
                    break;
                }
                turn_began = cycles();
                continue;
            }
        }
        let polled = worker.poll(now(), &mut ());
        beat.turn(polled.frames);
        pause.after(polled.frames, &mut worker, &beat);
        // The one look at the counter in a turn: where one ends, the next begins.
        let turn_ended = cycles();
        beat.spend(polled.frames, turn_ended.wrapping_sub(turn_began));
        turn_began = turn_ended;
    }
    let until = Instant::now() + LAST_WORDS;
    while !worker.export_all_flows() && Instant::now() < until {
        std::thread::yield_now();
    }
    drop(worker);
    drop(registered);
}

/// Receives nothing; true when it is to go on as before, false when it is to end.
fn drain(worker: &mut Worker<Queue>, beat: &WorkerStatus, order: &AtomicU8, now: impl Fn() -> u64) -> bool {
    loop {
        match order.load(Relaxed) {
            order::END => return false,
            order::RUN | order::SWAP => {
                beat.paused.store(false, Relaxed);
                return true;
            }
            order::PAUSE => {
                // Release: who sees this sees the tables as they are now.
                beat.paused.store(true, Release);
                std::thread::sleep(PAUSED);
            }
            _ => {
                let drained = worker.drain(now(), &mut ());
                beat.taken.store(beat.taken.load(Relaxed) + drained.frames as u64, Relaxed);
                beat.turn(drained.frames);
                // Release: who sees this turn sees what it has taken.
                beat.drained.store(beat.drained.load(Relaxed) + 1, Release);
                std::thread::yield_now();
            }
        }
    }
}

/// The time-stamp counter, the same on all cores of a machine with `constant_tsc`; elsewhere than on x86-64 the system's clock in
/// nanoseconds.
#[inline]
fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the counter, and user code may read it.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        START.elapsed().as_nanos() as u64
    }
}

/// What lies between two polls.
struct Pause {
    /// Polls in a row that found nothing.
    idle: u32,
    parker: Option<Parker>,
    nap: Duration,
}

impl Pause {
    #[inline]
    fn after(&mut self, frames: usize, worker: &mut Worker<Queue>, beat: &WorkerStatus) {
        if frames > 0 {
            self.idle = 0;
            return;
        }
        self.idle = self.idle.saturating_add(1);
        match (self.idle, &mut self.parker) {
            (..PATIENT_POLLS, _) => std::hint::spin_loop(),
            (SLEEPY_POLLS.., Some(parker)) => {
                self.nap = if self.idle == SLEEPY_POLLS { NAPS[0] } else { (self.nap * 2).min(NAPS[1]) };
                beat.sleep();
                worker.park(parker, self.nap);
            }
            // Costs a system call, which an idle worker has time for; where others wait for the core, they get it.
            _ => std::thread::yield_now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_panics_is_missed_at_once_and_ends_with_the_others() {
        let order = Arc::new(CachePadded::new(AtomicU8::new(order::RUN)));
        let (exchange, _swaps) = SwapChannel::new(&order, 2);
        let thread = |id: usize, body: Box<dyn FnOnce() + Send>| Thread {
            id,
            handle: Builder::new().spawn(body).unwrap(),
            beat: Arc::default(),
            seen: 0,
            since: Instant::now(),
        };
        let ends = order.clone();
        let well = move || {
            while ends.load(Relaxed) != order::END {
                std::thread::yield_now();
            }
        };
        let mut workers = Workers { order, threads: vec![thread(0, Box::new(well))], exchange };
        // A signal that a test has no handler for would end it.
        // SAFETY: to be ignored is a handler that does nothing.
        unsafe { libc::signal(KICK, libc::SIG_IGN) };
        assert!(workers.watch());
        workers.threads.push(thread(1, Box::new(|| panic!("a fault"))));
        let until = Instant::now() + Duration::from_secs(5);
        while workers.watch() {
            assert!(Instant::now() < until, "nobody misses it");
            std::thread::sleep(Duration::from_millis(1));
        }
        // Its ports may be closed: it holds on to nothing.
        assert_eq!(workers.stop(), [0usize; 0]);
    }
}
