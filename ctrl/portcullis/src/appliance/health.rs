//! What the control side looks at by itself, every second: workers, the log, the store, the clock, memory and tables.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant, SystemTime};

use control::health::{HealthBoard, Severity};
use control::live::Live;
use tokio::task::JoinHandle;

use super::log::LogWriter;
use super::service::Watchdog;
use super::workers::Workers;
use crate::memory;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// A worker whose loop stands still for so long is in health.
const STALLED: Duration = Duration::from_secs(1);
/// Workers that judge by an older generation for so long are in health.
const LAGGING: Duration = Duration::from_secs(2);
/// The wall clock is told to have stepped if it moves so much more or less than time does.
const STEP: Duration = Duration::from_secs(2);
/// How long that stays a problem.
const STEP_SHOWN: Duration = Duration::from_secs(60);
/// How long after a line was lost that stays a problem.
const LOST_SHOWN: Duration = Duration::from_secs(60);
/// Shares of memory and of the table of connections above which they are in health, in hundredths.
const FULL: u64 = 90;
/// How often it is said again that the work is spread unevenly.
const UNEVEN: Duration = Duration::from_secs(600);
/// NICs that are named at most.
const NAMED: usize = 5;
/// A task that ended by a panic begins again after so long.
const RESTART: Duration = Duration::from_secs(1);

const CLOCK: (&str, &str) = ("clock", "step");
const LOG: (&str, &str) = ("log", "lost");
const MEMORY: (&str, &str) = ("memory", "full");
const WANTED: (&str, &str) = ("memory", "wanted");
const TABLE: (&str, &str) = ("connections", "full");

/// Looks after what has no other watch.
pub struct HealthWatch {
    lines: LogWriter,
    last: Instant,
    /// Wall clock and time at the last look.
    clocks: (SystemTime, Instant),
    stepped: Option<Instant>,
    lost: (u64, Option<Instant>),
    /// Since when some worker has not followed.
    lagging: Option<Instant>,
    /// When it was last said of a worker that its work is spread unevenly, or far from it.
    uneven: HashMap<usize, Instant>,
    capacity: u64,
    store: Option<JoinHandle<()>>,
    watchdog: Option<Watchdog>,
}

impl HealthWatch {
    /// Of an appliance whose log is `lines`.
    pub fn new(live: &Live, lines: &LogWriter) -> HealthWatch {
        let now = Instant::now();
        HealthWatch {
            lines: lines.clone(),
            last: now,
            clocks: (SystemTime::now(), now),
            stepped: None,
            lost: (0, None),
            lagging: None,
            uneven: HashMap::new(),
            capacity: u64::from(live.config().conntrack.capacity),
            store: None,
            watchdog: Watchdog::of_process(),
        }
    }

    /// Looks at everything, if the time has come. Within a runtime.
    pub fn look(&mut self, live: &Live, workers: &Workers) {
        let now = Instant::now();
        if now.duration_since(self.last) < EVERY {
            return;
        }
        self.last = now;
        self.look_at_workers(live, workers, now);
        self.look_at_clock(live, now);
        self.look_at_log(live, now);
        look_at_memory(live);
        look_at_allocations(live);
        self.look_at_spread(live, now);
        self.look_at_table(live);
        if self.store.as_ref().is_none_or(JoinHandle::is_finished) {
            let live = live.clone();
            self.store = Some(tokio::spawn(async move { live.look_after_store().await }));
        }
        if let Some(watchdog) = &self.watchdog {
            watchdog.feed(workers.stalls().map(|(_, stalled)| stalled).max().unwrap_or_default());
        }
    }

    fn look_at_workers(&mut self, live: &Live, workers: &Workers, now: Instant) {
        let board = live.board();
        for (id, stalled) in workers.stalls() {
            let what = format!("worker {id}");
            if stalled < STALLED {
                board.clear((&what, "stalled"));
                continue;
            }
            let seconds = stalled.as_secs();
            board.raise(
                (&what, "stalled"),
                Severity::Failed,
                format!("its loop has stood still for {seconds} s: it judges nothing"),
                "look who else runs on its core, and at its ports' drivers; a restart starts it anew",
            );
        }
        let lagging = live.health().lagging;
        self.lagging = if lagging.is_empty() { None } else { self.lagging.or(Some(now)) };
        match self.lagging {
            Some(since) if now.duration_since(since) > LAGGING => board.raise(
                ("workers", "lagging"),
                Severity::Degraded,
                format!("workers {lagging:?} do not judge by the present generation yet"),
                "look who else runs on their cores, and at their ports' drivers",
            ),
            _ => board.clear(("workers", "lagging")),
        }
    }

    /// Nothing is wrong with packets then, so it is said in the log and in `show workers`.
    fn look_at_spread(&mut self, live: &Live, now: Instant) {
        self.uneven.retain(|_, said| now.duration_since(*said) < UNEVEN);
        let mut said = Vec::new();
        for (id, note) in live.unevenness() {
            if !self.uneven.contains_key(&id) {
                tracing::warn!("worker {id}: {note}");
                said.push((id, now));
            }
        }
        self.uneven.extend(said);
    }

    fn look_at_clock(&mut self, live: &Live, now: Instant) {
        let wall = SystemTime::now();
        let expected = self.clocks.0 + now.duration_since(self.clocks.1);
        self.clocks = (wall, now);
        let (ahead, back) = (wall.duration_since(expected), expected.duration_since(wall));
        let step = ahead.as_ref().or(back.as_ref()).copied().unwrap_or_default();
        if step > STEP {
            let way = if ahead.is_ok() { "ahead" } else { "back" };
            let seconds = step.as_secs();
            live.board().raise(
                CLOCK,
                Severity::Degraded,
                format!("the wall clock stepped {way} by {seconds} s"),
                "connections and confirmations are timed by another clock and go on; look at the time service",
            );
            self.stepped = Some(now);
        }
        if self.stepped.is_some_and(|at| now.duration_since(at) > STEP_SHOWN) {
            self.stepped = None;
            live.board().clear(CLOCK);
        }
    }

    fn look_at_log(&mut self, live: &Live, now: Instant) {
        let lost = self.lines.lost();
        if lost > self.lost.0 {
            self.lost = (lost, Some(now));
            live.board().raise(
                LOG,
                Severity::Degraded,
                format!("{lost} lines of the log are lost since the start"),
                "look at what reads the log, and at its disk",
            );
        }
        if self.lost.1.is_some_and(|at| now.duration_since(at) > LOST_SHOWN) {
            self.lost.1 = None;
            live.board().clear(LOG);
        }
    }

    fn look_at_table(&self, live: &Live) {
        let Some((held, above)) = live.connections_held() else { return };
        if held * 100 < self.capacity * FULL {
            return live.board().clear(TABLE);
        }
        live.board().raise(
            TABLE,
            Severity::Degraded,
            format!("{held} connections of {} that fit, tombstones included{}", self.capacity, who(&above)),
            "look at the NICs above their fair share (`show nics`), limit them by max_connections, or raise [conntrack] \
             capacity",
        );
    }
}

/// NICs above their share, for the end of a sentence.
fn who(above: &[(String, u32)]) -> String {
    let told: Vec<_> = above.iter().take(NAMED).map(|(nic, held)| format!("{nic} ({held})")).collect();
    match above.len() {
        0 => String::new(),
        1..=NAMED => format!("; above their fair share: {}", told.join(", ")),
        more => format!("; above their fair share: {} and {} more", told.join(", "), more - NAMED),
    }
}

/// By what the kernel says is left for everybody: it ends a process when there is nothing more.
fn look_at_memory(live: &Live) {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else { return };
    let kilobytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    let (Some(total), Some(left)) = (kilobytes("MemTotal:"), kilobytes("MemAvailable:")) else { return };
    if left * 100 >= total * (100 - FULL) {
        return live.board().clear(MEMORY);
    }
    live.board().raise(
        MEMORY,
        Severity::Degraded,
        format!("{} MB of {} MB of memory are left", left >> 10, total >> 10),
        "look who takes it; a process that the kernel ends for want of memory forwards nothing",
    );
}

/// By those that wait for memory.
fn look_at_allocations(live: &Live) {
    let Some(bytes) = memory::wanted() else { return live.board().clear(WANTED) };
    live.board().raise(
        WANTED,
        Severity::Degraded,
        format!("there is no memory for an allocation of {bytes} bytes: what needs it waits, packets go on"),
        "raise the limit of memory, or end what takes it; it goes on by itself",
    );
}

/// Runs a task that must not end. One that panics is begun anew after a moment, and is in health meanwhile.
pub fn supervised<F>(live: &Live, what: &'static str, make: impl Fn() -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(again_and_again(live.board().clone(), what, make));
}

async fn again_and_again<F>(board: HealthBoard, what: &'static str, make: impl Fn() -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let made = std::panic::catch_unwind(AssertUnwindSafe(&make));
        let ended = match made {
            Ok(task) => tokio::spawn(task).await.is_ok(),
            Err(_) => false,
        };
        let how = if ended { "ended" } else { "panicked" };
        let problem = format!("the {what} {how}");
        board.raise((what, "task"), Severity::Degraded, problem, "it is begun anew; report this as a fault");
        tokio::time::sleep(RESTART).await;
        board.clear((what, "task"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_panics_is_in_health_and_is_begun_anew() {
        let (board, begun) =
            (HealthBoard::default(), std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (counted, its) = (begun.clone(), board.clone());
            tokio::spawn(again_and_again(its, "task of a test", move || {
                let counted = counted.clone();
                async move {
                    if counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
                        panic!("a fault");
                    }
                    std::future::pending().await
                }
            }));
            let lasts =
                || board.list().1.iter().any(|its| its.ended.is_none() && its.what == "task of a test");
            while !lasts() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(board.list().1[0].problem.contains("the task of a test panicked"));
            assert_eq!(begun.load(std::sync::atomic::Ordering::SeqCst), 1, "not before its moment is over");
            while lasts() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(begun.load(std::sync::atomic::Ordering::SeqCst), 2);
        });
    }

    #[test]
    fn those_above_their_share_are_named_most_first_and_the_rest_counted() {
        let above = |count: u32| (0..count).map(|n| (format!("n{n}"), 100 - n)).collect::<Vec<_>>();
        assert_eq!(who(&above(0)), "");
        assert_eq!(who(&above(2)), "; above their fair share: n0 (100), n1 (99)");
        assert!(who(&above(7)).ends_with("n4 (96) and 2 more"), "{}", who(&above(7)));
    }
}
