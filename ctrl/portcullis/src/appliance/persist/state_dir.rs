//! The folder: opened, locked, read, written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use control::commit::Committer;
use control::persisted::{PersistedState, Tables};
use engine::conntrack::persist::{self, PersistentMemory, TableIdentity};
use engine::conntrack::restore::{self, ExpectedTable, SavedConnection};
use engine::rss::RssHash;
use engine::snapshot::Snapshot;
use engine::{Generation, addr_from_bits};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::time::{ClockId, clock_gettime};

/// The file of the control side.
pub const CONTROL: &str = "control";
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
    /// Where it is, and the lock on it.
    pub fn place(&self) -> (&Path, BorrowedFd<'_>) {
        (&self.path, self.lock.as_fd())
    }

    /// Opens it, or makes it. It must be this user's, and nobody else may look into it.
    pub fn open(path: &Path) -> Result<StateDir, String> {
        StateDir::open_with(path, None)
    }

    /// The same; `lock` is the lock on it, where another process shares its own.
    pub fn open_with(path: &Path, lock: Option<OwnedFd>) -> Result<StateDir, String> {
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
    pub fn keep_or_forget(&self, tables: &Tables, committer: &Committer) -> io::Result<()> {
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
