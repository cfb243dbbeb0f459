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

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use control::api::types::{Began, Restart};
use control::commit::Committer;
use control::config::{Config, Persistence};
use control::health::{HealthBoard, Severity};
use control::live::Live;
use control::persisted::{PersistedState, StateWriter, Tables};
use crossbeam::channel::{Receiver, Sender};
use engine::conntrack::persist::{self, PersistentMemory, TableIdentity};
use engine::conntrack::restore::{self, ExpectedTable, PreviousProcess, RestoreCounts, SavedConnection};
use engine::handoff::RssHash;
use engine::snapshot::Snapshot;
use engine::time::TICK_NS;
use engine::{Generation, addr_from_bits};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::time::{ClockId, clock_gettime};
use tracing::{info, warn};

const CONTROL: &str = "control";
const LOCK: &str = "lock";
const TABLE: &str = "table-";

/// A folder that is ours alone while we run.
pub struct StateDir {
    path: PathBuf,
    boot: [u64; 2],
    lock: File,
}

/// What a folder held.
pub enum StateDirContents {
    /// Nothing.
    Nothing,
    /// What a former process left.
    State(Box<PersistedState>),
    /// Something that is not read, and why.
    Unfit(String),
}

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
                if keeping.found.is_none() {
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

    /// Why it is cold, if it is.
    pub fn reason(&self) -> &str {
        self.restart.reason.as_deref().unwrap_or("nothing was kept")
    }

    /// Where connections are kept, with the lock on it.
    pub fn place(&self) -> Option<(&Path, BorrowedFd<'_>)> {
        self.folder.as_ref().map(|folder| (&*folder.path, folder.lock.as_fd()))
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

/// Nanoseconds of a clock that goes on from process to process, and begins anew with each boot.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn boot() -> io::Result<[u64; 2]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16).map_err(io::Error::other)?;
    Ok([(number >> 64) as u64, number as u64])
}

fn random() -> io::Result<[u64; 3]> {
    let mut bytes = [0; 24];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    let (words, _) = bytes.as_chunks();
    Ok([0, 1, 2].map(|at| words.get(at).map_or(0, |word| u64::from_ne_bytes(*word))))
}

impl StateDir {
    /// Opens it, or makes it. It must be this user's, and nobody else may look into it.
    pub fn open(path: &Path) -> Result<StateDir, String> {
        StateDir::open_with(path, None)
    }

    /// The same; `lock` is the lock on it, where another process shares its own.
    fn open_with(path: &Path, lock: Option<OwnedFd>) -> Result<StateDir, String> {
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let found = fs::symlink_metadata(path).map_err(failed)?;
        let me = rustix::process::geteuid().as_raw();
        if !found.is_dir() {
            return Err(format!("{}: it is no folder", path.display()));
        }
        if found.uid() != me {
            return Err(format!("{}: it belongs to user {}; required: {me}", path.display(), found.uid()));
        }
        if found.permissions().mode() & 0o077 != 0 {
            let mode = found.permissions().mode() & 0o777;
            return Err(format!("{}: its mode is {mode:o}; required: 700", path.display()));
        }
        let boot = boot().map_err(failed)?;
        if let Some(shared) = lock {
            return Ok(StateDir { path: path.to_owned(), boot, lock: shared.into() });
        }
        let mut lock = OpenOptions::new();
        lock.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let lock = lock.open(path.join(LOCK)).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| format!("{}: another process keeps its connections there", path.display()))?;
        Ok(StateDir { path: path.to_owned(), boot, lock })
    }

    /// What a former process left.
    pub fn found(&self) -> StateDirContents {
        let bytes = match fs::read(self.path.join(CONTROL)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return StateDirContents::Nothing,
            Err(error) => return StateDirContents::Unfit(error.to_string()),
        };
        match PersistedState::decode(&bytes) {
            Ok(state) if state.tables.boot != self.boot => {
                StateDirContents::Unfit("it was kept before the machine's last boot".to_owned())
            }
            Ok(state) => StateDirContents::State(Box::new(state)),
            Err(reason) => StateDirContents::Unfit(reason),
        }
    }

    /// Forgets what it holds.
    pub fn forget(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join(CONTROL)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Connections of these tables: those that can be verified, and how many had expired, and how many could not.
    pub fn read(&self, tables: &Tables, generation: Generation) -> Result<PreviousConnections, String> {
        let belongs = ExpectedTable { set: tables.set, boot: tables.boot, generation };
        let mut former =
            PreviousConnections { generation, connections: Vec::new(), expired: 0, unverifiable: 0 };
        for name in &tables.files {
            let is_ours = name.starts_with(TABLE) && !name.contains('/');
            let path = self.path.join(name);
            let failed = |error: &dyn std::fmt::Display| format!("{name}: {error}");
            if !is_ours {
                return Err(failed(&"it is no name of a table"));
            }
            let bytes = fs::read(&path).map_err(|error| failed(&error))?;
            let reading = restore::read(&bytes, &belongs, monotonic_ns()).map_err(|error| failed(&error))?;
            former.connections.extend(reading.connections);
            former.expired += reading.expired;
            former.unverifiable += reading.unverifiable;
        }
        Ok(former)
    }

    /// New tables, one of each of these capacities; `zero_ns` is moment 0 of the workers' clock.
    pub fn lay_out(
        &self,
        capacities: &[u32],
        zero_ns: u64,
    ) -> Result<(Tables, Vec<PersistentMemory>), String> {
        let failed = |error: io::Error| format!("{}: {error}", self.path.display());
        let [set, secret @ ..] = random().map_err(failed)?;
        let mut tables = Tables { set, files: Vec::new(), boot: self.boot };
        let mut memories = Vec::new();
        for (worker, capacity) in capacities.iter().enumerate() {
            let name = format!("{TABLE}{set:016x}-{worker}");
            let (worker, capacity, boot) = (worker as u32, *capacity, self.boot);
            let birth = TableIdentity { set, worker, capacity, boot, secret, epoch_ns: zero_ns };
            memories.push(self.table(&name, &birth).map_err(|error| {
                // What was begun is of no use.
                self.remove_others(None);
                failed(error)
            })?);
            tables.files.push(name);
        }
        Ok((tables, memories))
    }

    fn table(&self, name: &str, birth: &TableIdentity) -> io::Result<PersistentMemory> {
        let len = persist::bytes(birth.capacity);
        let mut file = OpenOptions::new();
        let file = file.read(true).write(true).create_new(true).mode(0o600).open(self.path.join(name))?;
        // All of it now: a page that cannot be had later ends the process.
        fallocate(&file, FallocateFlags::empty(), 0, len as u64)?;
        let map = MmapRaw::from(
            // SAFETY: the file is new and in a folder that nobody else looks into.
            unsafe { MmapOptions::new().len(len).map_mut(&file) }?,
        );
        let start = NonNull::new(map.as_mut_ptr()).ok_or_else(|| io::Error::other("it is mapped nowhere"))?;
        // It stays for as long as the process runs.
        std::mem::forget(map);
        // SAFETY: it is as long as that, of zeros, begins with a page, is never taken away, and nobody else has it.
        Ok(unsafe { PersistentMemory::lay_out(start, birth) })
    }

    /// Writes down what the control side leaves, as a whole.
    pub fn keep(&self, tables: &Tables, committer: &Committer) -> io::Result<()> {
        let next = self.path.join("control.next");
        let mut file = OpenOptions::new();
        let mut file = file.write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(&PersistedState::of(committer, tables).encode())?;
        // No disk is to have it: it need not outlive the machine.
        fs::rename(&next, self.path.join(CONTROL))
    }

    /// The same; what could not be written is forgotten: nothing is better than what is no longer so.
    fn keep_or_forget(&self, tables: &Tables, committer: &Committer) -> io::Result<()> {
        self.keep(tables, committer).or_else(|error| {
            self.forget()?;
            Err(error)
        })
    }

    /// Removes tables that are not these.
    pub fn remove_others(&self, tables: Option<&Tables>) {
        let named = |name: &str| tables.is_some_and(|tables| tables.files.iter().any(|file| file == name));
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(TABLE) && !named(name)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// What a former process left, read.
pub struct PreviousConnections {
    /// Its last generation.
    pub generation: Generation,
    /// Its connections.
    pub connections: Vec<SavedConnection>,
    /// That had expired.
    pub expired: u64,
    /// Places that are no entry.
    pub unverifiable: u64,
}

impl PreviousConnections {
    /// Its connections by the worker that owns each, as `spread` deals them out under this snapshot.
    pub fn by_worker(
        &mut self,
        spread: &RssHash,
        workers: usize,
        snapshot: &Snapshot,
    ) -> Vec<Vec<SavedConnection>> {
        let mut dealt: Vec<Vec<SavedConnection>> = vec![Vec::new(); workers];
        for kept in self.connections.drain(..) {
            // Of an address that is gone, none goes on.
            let owner = snapshot.bindings().get(kept.addr().slot()).map_or(0, |binding| {
                kept.owner(spread, workers as u32, addr_from_bits(binding.addr, binding.is_v6()))
            });
            if let Some(mine) = dealt.get_mut(owner as usize) {
                mine.push(kept);
            }
        }
        dealt
    }
}

/// What a worker begins with that keeps its connections.
pub struct WorkerShare {
    /// Where they lie.
    pub memory: PersistentMemory,
    /// Those of the former process that it owns.
    pub connections: Vec<SavedConnection>,
    /// What is known of that process.
    pub since: PreviousProcess,
    /// What became of them is told here...
    pub told: mpsc::Sender<RestoreCounts>,
    /// ... and frames are waited with until here comes something.
    pub go: Receiver<()>,
}

/// Connections finding their places, before the first frame.
pub struct Restoration {
    folder: Arc<StateDir>,
    tables: Tables,
    told: mpsc::Receiver<RestoreCounts>,
    go: Sender<()>,
    workers: usize,
}

impl Restoration {
    /// Shares of new tables, one a worker, with what each has to take up.
    pub fn prepare(
        folder: &Arc<StateDir>,
        (tables, memories): (Tables, Vec<PersistentMemory>),
        dealt: Vec<Vec<SavedConnection>>,
        since: PreviousProcess,
    ) -> (Restoration, Vec<WorkerShare>) {
        let workers = memories.len();
        let ((tells, told), (go, goes)) = (mpsc::channel(), crossbeam::channel::bounded(workers));
        let share = |(memory, connections)| WorkerShare {
            memory,
            connections,
            since,
            told: tells.clone(),
            go: goes.clone(),
        };
        let shares = memories.into_iter().zip(dealt).map(share).collect();
        (Restoration { folder: folder.clone(), tables, told, go, workers }, shares)
    }

    /// Waits for all workers, writes down where the connections are now, and lets frames come: what became of the connections, and where
    /// they lie. `None` if a worker did not start, or `is_ours` says that another process goes on; that needs its tables until then.
    pub fn finish(
        self,
        committer: &Committer,
        is_ours: Option<&mut dyn FnMut() -> bool>,
    ) -> Option<(RestoreCounts, Tables, io::Result<()>)> {
        let mut all = RestoreCounts::default();
        for _ in 0..self.workers {
            all += self.told.recv().ok()?;
        }
        let written = self.folder.keep_or_forget(&self.tables, committer);
        match is_ours {
            Some(is_ours) => {
                if !is_ours() {
                    return None;
                }
            }
            None => self.folder.remove_others(Some(&self.tables)),
        }
        for _ in 0..self.workers {
            let _ = self.go.send(());
        }
        Some((all, self.tables, written))
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
