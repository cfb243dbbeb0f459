//! The flow logs of the running appliance: a thread that takes what workers tell, and hands records to sinks.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use control::commit::Committer;
use control::compile::{NamedRule, RuleNames};
use control::config::{Config, FlowLog};
use control::health::{HealthBoard, Severity};
use control::live::Live;
use engine::conntrack::flow_accounting::{FlowEvent, FlowRequests};
use engine::ring::{Consumer, Producer, ring};
use engine::{NicSlot, RuleId};

use crate::flow::gather::FlowCollector;
use crate::flow::record::NameSource;
use crate::flow::sink::{Sink, State, unix_ns};

/// Tellings of one worker that wait: at a million connections a second that end, the thread may be 30 ms late.
const RING: usize = 1 << 15;
/// Tellings taken from one worker at a time.
const AT_A_TIME: usize = 4096;
/// So long after the end of an interval workers have told what belongs to it.
const LAG_NS: u64 = 250_000_000;
/// How often it looks.
const PAUSE: Duration = Duration::from_millis(10);
/// How often what is wrong is told.
const TELL: Duration = Duration::from_secs(1);
/// How long after a record was lost that stays a problem.
const LOST_SHOWN: Duration = Duration::from_secs(60);
/// How long sinks may take to write what they have when the appliance ends.
const LAST_WORDS: Duration = Duration::from_millis(600);

/// One worker's end: where it tells, and what it is asked.
pub type FlowSender = (Producer<FlowEvent>, Arc<FlowRequests>);
/// The other end.
pub type FlowReceiver = (Consumer<FlowEvent>, Arc<FlowRequests>);

/// Both ends for so many workers; nothing where nobody wants to know.
pub fn flow_channels(config: &Config, workers: usize) -> (Vec<Option<FlowSender>>, Vec<FlowReceiver>) {
    let is_wanted = !config.flow_logs.is_empty();
    let one = |_| {
        let ((tells, hears), wishes) = (ring(RING), Arc::new(FlowRequests::default()));
        is_wanted.then(|| ((tells, wishes.clone()), (hears, wishes)))
    };
    let all: Vec<_> = (0..workers).map(one).collect();
    let mut hears = Vec::new();
    let tells = all.into_iter().map(|line| {
        let (told, heard) = line?;
        hears.push(heard);
        Some(told)
    });
    (tells.collect(), hears)
}

/// The running thread; without any flow log there is none.
pub struct FlowLogs {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl FlowLogs {
    /// Begins. `start` is moment 0 of the workers' clocks.
    pub fn start(live: &Live, hears: Vec<FlowReceiver>, start: Instant) -> io::Result<FlowLogs> {
        let stop = Arc::new(AtomicBool::new(false));
        let logs = live.config().flow_logs;
        if logs.is_empty() {
            return Ok(FlowLogs { thread: None, stop });
        }
        let mut round = Round::new(live, &logs, hears, start)?;
        let stopped = stop.clone();
        let body = move || {
            while !stopped.load(Relaxed) {
                round.look();
                std::thread::sleep(PAUSE);
            }
            round.end();
        };
        let thread = Some(Builder::new().name("flow-log".to_owned()).spawn(body)?);
        Ok(FlowLogs { thread, stop })
    }

    /// Ends it, when the workers have told all they had.
    pub fn stop(self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread {
            // A panic was told by its hook.
            let _ = thread.join();
        }
    }
}

/// Names, also while a change is worked out and of NICs that are gone.
#[derive(Default)]
struct NameCache {
    rules: RuleNames,
    nics: HashMap<NicSlot, Arc<str>>,
}

impl NameCache {
    /// Has these at hand, with the policy's own where nobody holds it.
    fn by(&mut self, live: &Live, look: impl FnOnce(&mut Present<'_>)) {
        let mut look = Some(look);
        live.names_now(|committer| {
            self.rules.clone_from(committer.compiler().rules());
            let mut present = Present { known: self, committer: Some(committer), live };
            look.take().into_iter().for_each(|look| look(&mut present));
        });
        let mut present = Present { known: self, committer: None, live };
        look.into_iter().for_each(|look| look(&mut present));
    }
}

/// They, with the policy's own where nobody holds it.
struct Present<'k> {
    known: &'k mut NameCache,
    committer: Option<&'k Committer>,
    live: &'k Live,
}

impl NameSource for Present<'_> {
    fn nic(&mut self, nic: NicSlot) -> Option<Arc<str>> {
        if nic == NicSlot::NONE {
            return None;
        }
        let seen = self.known.nics.get(&nic);
        let named = match self.committer {
            Some(committer) => committer.nic_name(nic),
            None if seen.is_some() => None,
            None => self.live.with_names(|committer| committer.nic_name(nic)),
        };
        if let Some(name) = named.filter(|name| seen != Some(name)) {
            self.known.nics.insert(nic, name);
        }
        self.known.nics.get(&nic).cloned()
    }

    fn rule(&mut self, rule: RuleId) -> Option<NamedRule> {
        let place = rule.0 as usize;
        if self.known.rules.get(place).is_none() {
            self.known.rules = match self.committer {
                Some(committer) => committer.compiler().rules().clone(),
                None => self.live.with_names(|committer| committer.compiler().rules().clone()),
            };
        }
        self.known.rules.get(place).cloned()
    }
}

struct Round {
    live: Live,
    hears: Vec<FlowReceiver>,
    start: Instant,
    gatherer: FlowCollector,
    /// By the place of their interval.
    sinks: Vec<(Reported, Vec<Sink>)>,
    known: NameCache,
    told: Vec<FlowEvent>,
    /// The end of an interval at which workers were asked last.
    asked: u64,
    /// Tellings that workers have lost, as far as that was counted.
    lost: u64,
    reported: Instant,
}

/// What health says of the sinks of one interval.
struct Reported {
    /// By sink: its name, and how many records it had lost when that was last looked at, and when that changed.
    sinks: Vec<(String, u64, Option<Instant>)>,
}

impl Round {
    fn new(live: &Live, logs: &[FlowLog], hears: Vec<FlowReceiver>, start: Instant) -> io::Result<Round> {
        let mut intervals: Vec<u64> = logs.iter().map(|log| log.interval.as_nanos() as u64).collect();
        intervals.sort_unstable();
        intervals.dedup();
        let mut sinks: Vec<_> =
            intervals.iter().map(|_| (Reported { sinks: Vec::new() }, Vec::new())).collect();
        for (domain, log) in (1..).zip(logs) {
            let interval = log.interval.as_nanos() as u64;
            let place = intervals.iter().position(|other| *other == interval).unwrap_or(0);
            let (reported, sinks) = &mut sinks[place];
            reported.sinks.push((log.name(), 0, None));
            sinks.push(Sink::start(
                log,
                domain,
                live.metrics().flow_sink(&label(logs, domain as usize - 1)),
            )?);
        }
        Ok(Round {
            live: live.clone(),
            hears,
            start,
            gatherer: FlowCollector::new(&intervals, unix_ns()),
            sinks,
            known: NameCache::default(),
            told: Vec::new(),
            asked: 0,
            lost: 0,
            reported: Instant::now(),
        })
    }

    fn look(&mut self) {
        while self.take() {}
        let end_ns = self.gatherer.next_end_ns();
        let now_ns = unix_ns();
        if now_ns >= end_ns && self.asked != end_ns {
            self.asked = end_ns;
            self.hears.iter().for_each(|(_, wishes)| wishes.request_round());
        }
        if now_ns >= end_ns.saturating_add(LAG_NS) {
            let Round { live, known, gatherer, .. } = self;
            known.by(live, |names| gatherer.end_intervals(now_ns - LAG_NS, names));
            self.hand_out();
        }
        if self.reported.elapsed() > TELL {
            self.reported = Instant::now();
            self.report();
        }
    }

    /// Takes some of what workers told; true if there is likely to be more.
    fn take(&mut self) -> bool {
        self.told.clear();
        let mut is_full = false;
        for (ring, _) in &mut self.hears {
            is_full |= ring.take(AT_A_TIME, |telling| self.told.push(telling)) == AT_A_TIME;
        }
        if self.told.is_empty() {
            return false;
        }
        let origin_ns = unix_ns().saturating_sub(self.start.elapsed().as_nanos() as u64);
        let Round { live, known, gatherer, told, .. } = self;
        known.by(live, |names| {
            told.iter().for_each(|told| gatherer.take_up(told, origin_ns, names));
        });
        self.hand_out();
        is_full
    }

    /// Gives sinks what is due.
    fn hand_out(&mut self) {
        let lost: u64 = self.hears.iter().map(|(_, wishes)| wishes.lost()).sum();
        let by_workers = lost - self.lost;
        self.lost = lost;
        for sink in self.sinks.iter().flat_map(|(_, sinks)| sinks).filter(|_| by_workers > 0) {
            sink.state().loses(by_workers);
        }
        let sinks = &self.sinks;
        self.gatherer.take(|place, records, lost| {
            for sink in sinks.get(place).into_iter().flat_map(|(_, sinks)| sinks) {
                sink.put(&records);
                sink.state().loses(lost);
            }
        });
    }

    fn report(&mut self) {
        let board = self.live.board();
        for (reported, sinks) in &mut self.sinks {
            for ((name, lost, since), sink) in reported.sinks.iter_mut().zip(&*sinks) {
                tell_of(board, name, sink.state(), lost, since);
            }
        }
    }

    /// All that is left.
    fn end(mut self) {
        while self.take() {}
        let Round { live, known, gatherer, .. } = &mut self;
        known.by(live, |names| gatherer.end(names));
        self.hand_out();
        let until = Instant::now() + LAST_WORDS;
        self.sinks.into_iter().flat_map(|(_, sinks)| sinks).for_each(|sink| sink.finish(until));
    }
}

/// What metrics call the log at a place: its kind, with a number from the second of that kind on.
fn label(logs: &[FlowLog], place: usize) -> String {
    let kind = logs[place].kind;
    match logs[..=place].iter().filter(|log| log.kind == kind).count() {
        1 => kind.name().to_owned(),
        number => format!("{}-{number}", kind.name()),
    }
}

/// What is wrong with a sink, in health.
fn tell_of(board: &HealthBoard, name: &str, state: &State, lost: &mut u64, since: &mut Option<Instant>) {
    let what = format!("flow log {name}");
    match state.problem() {
        Some(problem) => board.raise(
            (&what, "write"),
            Severity::Degraded,
            format!("{problem}; {} records are lost since the start", state.lost()),
            "look at its disk or its collector; packets are forwarded all the same",
        ),
        None => board.clear((&what, "write")),
    }
    let now = state.lost();
    if now > *lost {
        (*lost, *since) = (now, Some(Instant::now()));
        board.raise(
            (&what, "lost"),
            Severity::Degraded,
            format!("{now} records are lost since the start, {} are written or sent", state.sent()),
            "records that come faster than they can be written or sent are lost: log less, or to a faster disk",
        );
    }
    if since.is_some_and(|since| since.elapsed() > LOST_SHOWN) {
        *since = None;
        board.clear((&what, "lost"));
    }
}
