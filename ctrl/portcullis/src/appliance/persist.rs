//! The folder that connections and what they rest on outlive the process in: opened, mistrusted, read, written anew.
//!
//! ```text
//! lock                whoever runs holds it
//! control             what the control side leaves (control::persisted), put in the old one's place as a whole
//! table-SET-WORKER    the connections of one worker (engine::conntrack::persist)
//! ```
//!
//! A start reads what `control` names, writes its own tables beside, and names those once every connection has found its place and
//! before the first frame: whenever it is killed, `control` names tables that are whole.

mod restoration;
mod state_dir;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::api::types::{Began, Restart};
use control::config::{Config, Persistence};
use control::health::{HealthBoard, Severity};
use control::live::Live;
use control::persisted::{PersistedState, StateWriter, Tables};
use engine::Generation;
use engine::conntrack::persist::PersistentMemory;
use engine::conntrack::restore::PreviousProcess;
use engine::rss::RssHash;
use engine::snapshot::Snapshot;
use engine::time::TICK_NS;
use restoration::Restoration;
pub use restoration::WorkerShare;
use state_dir::{CONTROL, PreviousConnections, StateDir, StateDirContents, monotonic_ns};
use tracing::{info, warn};

/// Where connections are to be kept.
pub fn place(config: &Config) -> Option<PathBuf> {
    match &config.conntrack.keep {
        Persistence::Off => None,
        Persistence::At(path) => Some(path.clone()),
        Persistence::Auto => Some(usual_place(config)),
    }
}

/// In `/dev/shm`, named after the API socket.
fn usual_place(config: &Config) -> PathBuf {
    let socket = std::path::absolute(&config.api.socket).unwrap_or_else(|_| config.api.socket.clone());
    let name = socket.display().to_string();
    let name = name.trim_start_matches('/').replace('/', "-");
    Path::new("/dev/shm").join(format!("portcullis-{name}"))
}

/// Nothing tells a folder of what happens while nothing is kept, so what lies in the usual one is no longer so.
fn forget_the_usual(config: &Config) {
    let usual = usual_place(config);
    if usual.join(CONTROL).exists()
        && let Ok(folder) = StateDir::open(&usual)
        && folder.forget().is_ok()
    {
        info!("what a former run kept in {} is forgotten: [conntrack] keep is \"off\"", usual.display());
        folder.remove_others(None);
    }
}

/// What a run does to keep its connections, from its start on.
pub struct StateKeeper {
    folder: Option<Arc<StateDir>>,
    restart: Restart,
    found: Option<Box<PersistedState>>,
    tables: Option<Tables>,
    former: Option<PreviousConnections>,
    /// Tables that were laid out before they are needed.
    ahead: Option<Ahead>,
    revival: Option<Restoration>,
    is_warm: bool,
    began: Instant,
    /// Moment 0 of the workers' clock, and the same on the one that goes on from process to process.
    clock: (Instant, u64),
}

/// Empty tables.
struct Ahead {
    tables: Tables,
    memories: Vec<PersistentMemory>,
}

/// Where the connections of a running appliance lie.
pub struct KeptIn {
    folder: Arc<StateDir>,
    tables: Tables,
}

impl KeptIn {
    /// Removes tables of others.
    pub fn remove_others(&self) {
        self.folder.remove_others(Some(&self.tables));
    }
}

impl StateKeeper {
    /// Opens the folder, if there is to be one. A folder that the configuration names must be there; without the one that it leaves to
    /// us the run goes on, and says so.
    pub fn open(config: &Config, cold: bool, lock: Option<OwnedFd>) -> Result<StateKeeper, String> {
        let mut keeping = StateKeeper {
            folder: None,
            restart: Restart::default(),
            found: None,
            tables: None,
            former: None,
            ahead: None,
            revival: None,
            is_warm: false,
            began: Instant::now(),
            clock: at_a_tick(),
        };
        let Some(path) = place(config) else {
            forget_the_usual(config);
            return Ok(keeping);
        };
        // What another process still goes by is not ours to forget.
        let is_shared = lock.is_some();
        match StateDir::open_with(&path, lock) {
            Ok(folder) => {
                keeping.restart.folder = Some(path.display().to_string());
                keeping.restart.began = Began::Cold;
                match folder.found() {
                    _ if cold => keeping.begin_cold("--cold was given"),
                    StateDirContents::Nothing => keeping.begin_cold("nothing was kept"),
                    StateDirContents::Unfit(reason) => keeping.begin_cold(&reason),
                    StateDirContents::State(state) => keeping.found = Some(state),
                }
                if keeping.found.is_none() && !is_shared {
                    folder.forget().map_err(|error| format!("{}: {error}", path.display()))?;
                }
                keeping.folder = Some(Arc::new(folder));
            }
            Err(error) if config.conntrack.keep == Persistence::Auto => {
                warn!("connections are not kept: {error}; [conntrack] keep names another folder");
                keeping.restart.reason = Some(error);
            }
            Err(error) => return Err(error),
        }
        Ok(keeping)
    }

    fn begin_cold(&mut self, reason: &str) {
        self.restart.reason = Some(reason.to_owned());
        (self.is_warm, self.found, self.former) = (false, None, None);
    }

    /// What the control side left.
    pub fn state(&mut self) -> Option<PersistedState> {
        let state = *self.found.take()?;
        self.restart.generation = Some(state.generation);
        self.tables = Some(state.tables.clone());
        Some(state)
    }

    /// Reads the connections, if the control side has taken its part up.
    pub fn read_connections(&mut self, former: &control::live::PreviousState) {
        let (Some(folder), Some(tables)) = (self.folder.clone(), self.tables.take()) else { return };
        let read = match former {
            control::live::PreviousState::None => return,
            control::live::PreviousState::Unfit(reason) => Err(reason.clone()),
            control::live::PreviousState::Taken(generation) => folder.read(&tables, *generation),
        };
        match read {
            Ok(former) => {
                (self.restart.expired, self.restart.unverifiable) = (former.expired, former.unverifiable);
                (self.former, self.is_warm) = (Some(former), true);
            }
            Err(reason) => self.begin_cold(&reason),
        }
    }

    /// How long segments in mid-stream may open connections: not at all where there is earlier state.
    pub fn grace(&self, configured: Duration) -> Duration {
        if self.is_warm { Duration::ZERO } else { configured }
    }

    /// True if connections are kept from now on.
    pub fn is_on(&self) -> bool {
        self.folder.is_some()
    }

    /// True if there is earlier state.
    pub fn is_warm(&self) -> bool {
        self.is_warm
    }

    /// Why what the control side left is not gone by, if it is not.
    pub fn unfit(&self, former: &control::live::PreviousState) -> Option<String> {
        match former {
            control::live::PreviousState::Taken(_) => None,
            control::live::PreviousState::Unfit(reason) => Some(reason.clone()),
            control::live::PreviousState::None => Some(self.reason().to_owned()),
        }
    }

    /// Why it is cold, if it is.
    pub fn reason(&self) -> &str {
        self.restart.reason.as_deref().unwrap_or("nothing was kept")
    }

    /// Where connections are kept, with the lock on it.
    pub fn place(&self) -> Option<(&Path, BorrowedFd<'_>)> {
        self.folder.as_ref().map(|folder| folder.place())
    }

    /// Lays the tables out before anybody waits for it.
    pub fn lay_out_ahead(&mut self, capacities: &[u32]) -> Result<(), String> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let (tables, memories) = folder.lay_out(capacities, self.clock.1)?;
        self.ahead = Some(Ahead { tables, memories });
        Ok(())
    }

    /// Moment 0 of the workers' clock.
    pub fn start(&self) -> Instant {
        if self.is_on() { self.clock.0 } else { Instant::now() }
    }

    /// Deals the connections out to workers of these capacities, each with memory for its own.
    pub fn deal(&mut self, capacities: &[u32], pattern: u16, snapshot: &Snapshot) -> Vec<WorkerShare> {
        let Some(folder) = self.folder.clone() else { return Vec::new() };
        let ahead = self.ahead.take();
        let zero_ns = self.clock.1;
        let mut former = self.former.take().unwrap_or(PreviousConnections {
            generation: Generation(0),
            connections: Vec::new(),
            expired: 0,
            unverifiable: 0,
        });
        let dealt = former.by_worker(&RssHash::new(pattern), capacities.len(), snapshot);
        let since = PreviousProcess { generation: former.generation, zero_ns };
        let laid_out = match ahead {
            Some(Ahead { tables, memories }) => Ok((tables, memories)),
            None => folder.lay_out(capacities, zero_ns),
        };
        match laid_out.map(|laid_out| Restoration::prepare(&folder, laid_out, dealt, since)) {
            Ok((revival, shares)) => {
                self.revival = Some(revival);
                shares
            }
            Err(error) => {
                warn!("connections are not kept: {error}");
                let _ = folder.forget();
                self.begin_cold(&error);
                (self.folder, self.restart.began) = (None, Began::Off);
                Vec::new()
            }
        }
    }

    /// Waits until each connection has its place, and has the control side keep what they rest on from here on. Frames move if
    /// `is_ours` says so, once all else is done. Where the connections lie.
    pub fn settle(mut self, live: &Live, is_ours: Option<&mut dyn FnMut() -> bool>) -> Option<KeptIn> {
        let (mut kept, takes_over) = (None, is_ours.is_some());
        if let (Some(revival), Some(folder)) = (self.revival.take(), self.folder.take()) {
            let finished = live.with_committer(|committer| revival.finish(committer, is_ours));
            // A worker did not start, or the former process goes on: that is told elsewhere.
            let (taken, tables, written) = finished?;
            tell(live.board(), written);
            kept = Some(KeptIn { folder: folder.clone(), tables: tables.clone() });
            live.set_state_writer(keeper(folder, tables, live.board().clone()));
            let restart = &mut self.restart;
            if self.is_warm {
                restart.began = if takes_over { Began::TookOver } else { Began::Warm };
            }
            (restart.live, restart.tombstones, restart.ended) = (taken.live, taken.tombstones, taken.ended);
            restart.expired += taken.expired;
            restart.unverifiable += taken.unverifiable;
            restart.left_out = taken.left_out;
        }
        self.restart.took_us = self.began.elapsed().as_micros() as u64;
        say(&self.restart);
        live.set_restart(self.restart);
        kept
    }
}

/// Where each generation goes.
fn keeper(folder: Arc<StateDir>, tables: Tables, board: HealthBoard) -> StateWriter {
    Box::new(move |committer| tell(&board, folder.keep_or_forget(&tables, committer)))
}

/// What the next start would find is not what is so.
const UNKEPT: (&str, &str) = ("kept connections", "unwritten");

fn tell(board: &HealthBoard, written: io::Result<()>) {
    match written {
        Ok(()) => board.clear(UNKEPT),
        Err(error) => board.raise(
            UNKEPT,
            Severity::Degraded,
            format!("what connections rest on could not be written: {error}; a restart now forgets them"),
            "make room in the folder that [conntrack] keep names; the next change writes it again",
        ),
    }
}

/// One line on how it began.
fn say(restart: &Restart) {
    let Restart { live, tombstones, ended, expired, unverifiable, left_out, .. } = restart;
    let reason = restart.reason.as_deref().unwrap_or_default();
    match restart.began {
        Began::Off => {}
        Began::Cold => info!("a cold start: {reason}"),
        Began::Warm | Began::TookOver => info!(
            "{}: {live} connections go on, {tombstones} tombstones stay; {ended} were ended by the policy of now, {expired} had \
             expired, {unverifiable} could not be verified, for {left_out} there was no room; {} ms",
            if restart.began == Began::TookOver { "taken over" } else { "a warm start" },
            restart.took_us / 1000
        ),
    }
}

/// The last moment at which a tick began, counted from the machine's start: where the ticks of all processes begin together, a deadline
/// goes from the one to the next without being rounded.
fn at_a_tick() -> (Instant, u64) {
    let (now, ns) = (Instant::now(), monotonic_ns());
    let since = ns % TICK_NS;
    match now.checked_sub(Duration::from_nanos(since)) {
        Some(start) => (start, ns - since),
        None => (now, ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_in_mid_stream_open_nothing_behind_a_warm_start() {
        let mut keeping = StateKeeper::open(&Config::default(), false, None).unwrap();
        let grace = Duration::from_secs(60);
        assert_eq!(keeping.grace(grace), grace);
        keeping.is_warm = true;
        assert_eq!(keeping.grace(grace), Duration::ZERO);
    }
}
