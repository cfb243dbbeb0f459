//! The policy, durable: an embedded database of one file (redb), written before a change reaches any worker.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `meta` | `schema`, `generation`, `next_id`, `digest`, `unconfirmed` | JSON |
//! | `objects` | kind and name | a row as JSON: a stable id, the generation that last changed it, the object |
//! | `history` | generation | [`Past`] as JSON: who, when and what, and what it replaced |
//!
//! A change is one transaction: after a crash the file holds the last generation that was acknowledged or the one on its
//! way, whole. The digest covers every object, so that a file which somebody or some disk has altered is told from one
//! that we wrote.
//!
//! A store is read in a copy first: opening one may repair it, and what cannot be repaired must stay as it was found. It is then
//! set aside under another name, and the appliance does not start. Only one process has a store at a time.

mod rows;

use std::fmt;
use std::fs::{self, File, Permissions, TryLockError};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::api::shape::Record;
use crate::commit::KEPT_GENERATIONS;
use crate::delta::Delta;
use crate::model::Policy;
use rows::{Digest, Objects};

/// The layout of the tables. Another number means that a migration is due, or that a newer version wrote the file.
pub const SCHEMA: u32 = 1;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const HISTORY: TableDefinition<u32, &[u8]> = TableDefinition::new("history");

/// A generation's way back, and its record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// Who, when and what.
    pub record: Record,
    /// What it replaced.
    pub delta: Arc<Delta>,
}

/// A change that awaits its confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// Which.
    pub generation: u32,
    /// What it rolls back to.
    pub before: u32,
    /// Until when: milliseconds since 1970.
    pub until_ms: u64,
    /// How long it was to wait from the first, in milliseconds: a clock that is wrong makes it wait no longer.
    #[serde(default)]
    pub wait_ms: Option<u64>,
}

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// The policy.
    pub policy: Policy,
    /// Its generation.
    pub generation: u32,
    /// The generations that led there, the newest last; each leads back to the one before it.
    pub history: Vec<Past>,
    /// The present generation, if it awaits its confirmation.
    pub awaited: Option<Awaited>,
}

/// Why a store is not used.
#[derive(Debug)]
pub enum StoreError {
    /// Another process has it.
    InUse(PathBuf),
    /// It is not what we wrote. It lies under another name now.
    Corrupt {
        /// The store.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// Where it is now, or why it is where it was.
        aside: Result<PathBuf, String>,
    },
    /// A newer version wrote it.
    Newer {
        /// The store.
        path: PathBuf,
        /// Its schema.
        schema: u32,
    },
    /// It is not there any more, or another file is in its place.
    Gone(PathBuf),
    /// The system does not let us.
    Io(PathBuf, String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::InUse(path) => write!(f, "{}: another appliance uses this store", path.display()),
            StoreError::Corrupt { path, what, aside } => {
                write!(f, "{}: the store is corrupt ({what})", path.display())?;
                match aside {
                    Ok(aside) if aside == path => Ok(()),
                    Ok(aside) => write!(
                        f,
                        "; it was set aside, untouched, as {}: put a copy back, or start again with an empty store",
                        aside.display()
                    ),
                    Err(error) => write!(f, "; it can't be set aside and stays where it is: {error}"),
                }
            }
            StoreError::Newer { path, schema } => write!(
                f,
                "{}: the store has schema {schema}, written by a newer version; allowed: up to {SCHEMA}",
                path.display()
            ),
            StoreError::Gone(path) => write!(
                f,
                "{}: the store that this appliance uses is not there any more; nothing can be changed until it is back",
                path.display()
            ),
            StoreError::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for StoreError {}

/// What went wrong within a file.
enum Fault {
    Corrupt(String),
    Newer(u32),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Fault {
        Fault::Corrupt(error.into().to_string())
    }
}

/// A change on its way into the store.
pub struct Step<'a> {
    /// The policy after it.
    pub policy: &'a Policy,
    /// What it replaces.
    pub past: &'a Past,
    /// Its wish for a confirmation.
    pub awaited: Option<Awaited>,
}

/// An open store.
pub struct Store {
    /// `None` after an error: the database refuses everything from then on, and is opened again.
    database: Mutex<Option<Database>>,
    path: PathBuf,
    /// Device and inode of the file that is open.
    identity: (u64, u64),
    /// Held as long as the store is.
    _lock: File,
}

impl Store {
    /// Opens the store at `path`, or makes an empty one; what it holds, `None` if it is new.
    pub fn open(path: &Path) -> Result<(Store, Option<Contents>), StoreError> {
        let io = |error: &dyn fmt::Display| StoreError::Io(path.to_owned(), error.to_string());
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory).map_err(|error| io(&error))?;
        }
        let lock = lock(path)?;
        let contents = match path.try_exists().map_err(|error| io(&error))? {
            true => Some(verified(path)?),
            false => None,
        };
        let database = Database::create(path).map_err(|error| io(&error))?;
        // A policy tells where to attack: it is its owner's alone.
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|error| io(&error))?;
        let identity = identity(path).map_err(|error| io(&error))?;
        let database = Mutex::new(Some(database));
        let store = Store { database, path: path.to_owned(), identity, _lock: lock };
        if contents.is_none() {
            store.found()?;
        }
        // Found and never filled: a crash right after it was made.
        let contents = contents.filter(|contents| contents.generation > 0);
        Ok((store, contents))
    }

    /// Reads what the store at `path` holds and changes nothing, for `check`.
    pub fn read(path: &Path) -> Result<Contents, StoreError> {
        let copy = Copy::of(path)?;
        read_copy(&copy).map_err(|fault| match fault {
            Fault::Newer(schema) => StoreError::Newer { path: path.to_owned(), schema },
            Fault::Corrupt(what) => {
                StoreError::Corrupt { path: path.to_owned(), what, aside: Ok(path.to_owned()) }
            }
        })
    }

    /// The first transaction: an empty policy.
    fn found(&self) -> Result<(), StoreError> {
        self.write(|transaction| {
            put(transaction, "schema", &SCHEMA)?;
            put(transaction, "generation", &0u32)?;
            put(transaction, "next_id", &1u64)?;
            put(transaction, "digest", &Digest::default())?;
            transaction.open_table(HISTORY)?;
            Objects::open(transaction)?;
            Ok(())
        })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is still the file that was opened: what is written into an unlinked one is lost.
    pub fn check(&self) -> Result<(), StoreError> {
        match identity(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            _ => Err(StoreError::Gone(self.path.clone())),
        }
    }

    /// Makes a change durable. When this returns, it is on the disk.
    pub fn commit(&self, step: &Step<'_>) -> Result<(), StoreError> {
        self.write(|transaction| {
            let generation = step.past.record.generation;
            let mut next_id = get(transaction, "next_id")?.unwrap_or(1);
            let mut digest: Digest = get(transaction, "digest")?.unwrap_or_default();
            let mut objects = Objects::open(transaction)?;
            objects.replace(&step.past.delta, step.policy, generation, &mut next_id, &mut digest)?;
            drop(objects);
            put(transaction, "next_id", &next_id)?;
            put(transaction, "digest", &digest)?;
            put(transaction, "generation", &generation)?;
            put(transaction, "unconfirmed", &step.awaited)?;
            let mut history = transaction.open_table(HISTORY)?;
            history.insert(generation, &*rows::json(step.past))?;
            let oldest = generation.saturating_sub(KEPT_GENERATIONS as u32);
            history.retain_in(..=oldest, |_, _| false)?;
            Ok(())
        })
    }

    /// The present generation needs no confirmation any more; its record says so.
    pub fn settle(&self, record: &Record) -> Result<(), StoreError> {
        self.write(|transaction| {
            put(transaction, "unconfirmed", &None::<Awaited>)?;
            let mut history = transaction.open_table(HISTORY)?;
            let kept =
                history.get(record.generation)?.and_then(|kept| serde_json::from_slice(kept.value()).ok());
            if let Some(Past { delta, .. }) = kept {
                history.insert(record.generation, &*rows::json(&Past { record: record.clone(), delta }))?;
            }
            Ok(())
        })
    }

    /// Writes something that means nothing, to know whether anything can be written.
    pub fn probe(&self) -> Result<(), StoreError> {
        self.write(|transaction| put(transaction, "probe", &std::process::id()))
    }

    fn write(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        self.check()?;
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out, and put back when all is well: after an error it is opened again the next time.
        let database = match held.take() {
            Some(database) => database,
            None => Database::create(&self.path).map_err(|error| self.io(&error))?,
        };
        let done = (|| {
            let transaction = database.begin_write()?;
            work(&transaction)?;
            transaction.commit()?;
            Ok(())
        })();
        done.map_err(|error: redb::Error| self.io(&error))?;
        *held = Some(database);
        drop(held);
        // It may have been taken away meanwhile.
        self.check()
    }

    fn io(&self, error: &dyn fmt::Display) -> StoreError {
        StoreError::Io(self.path.clone(), error.to_string())
    }
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

/// The lock is a file of its own beside the store, so that a store can be looked at by its bytes while it is held.
fn lock(path: &Path) -> Result<File, StoreError> {
    let beside = with_suffix(path, "lock");
    let io = |error: &dyn fmt::Display| StoreError::Io(beside.clone(), error.to_string());
    let file = File::options().create(true).truncate(false).write(true).open(&beside).map_err(|e| io(&e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(io(&error)),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// A copy of a store, gone with this.
struct Copy(PathBuf);

impl Copy {
    fn of(path: &Path) -> Result<Copy, StoreError> {
        let copy = Copy(with_suffix(path, &format!("copy-{}", std::process::id())));
        // With the permissions of the store.
        let copied = fs::copy(path, &copy.0);
        copied.map_err(|error| StoreError::Io(path.to_owned(), error.to_string()))?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What the store holds; a corrupt one is set aside.
fn verified(path: &Path) -> Result<Contents, StoreError> {
    let copy = Copy::of(path)?;
    read_copy(&copy).map_err(|fault| match fault {
        Fault::Newer(schema) => StoreError::Newer { path: path.to_owned(), schema },
        Fault::Corrupt(what) => StoreError::Corrupt { path: path.to_owned(), what, aside: set_aside(path) },
    })
}

/// Renames it to the first `.corrupt-N` that is free.
fn set_aside(path: &Path) -> Result<PathBuf, String> {
    let free = (1..10_000).map(|n| with_suffix(path, &format!("corrupt-{n}"))).find(|path| !path.exists());
    let free = free.ok_or("too many corrupt stores lie there")?;
    fs::rename(path, &free).map_err(|error| error.to_string())?;
    Ok(free)
}

/// The database takes some corrupt files for a fault of its own and panics: that is one way more to say that a file is not
/// what it wrote.
fn read_copy(copy: &Copy) -> Result<Contents, Fault> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let read = panic::catch_unwind(|| open_and_read(copy));
    panic::set_hook(hook);
    read.unwrap_or_else(|_| Err(Fault::Corrupt("its pages make no sense".to_owned())))
}

fn open_and_read(Copy(path): &Copy) -> Result<Contents, Fault> {
    let mut database = Database::open(path)?;
    // An unclean end is mended while it is opened; from then on every page must be what its checksum says.
    if !database.check_integrity()? {
        return Err(Fault::Corrupt("pages do not bear their checksums".to_owned()));
    }
    read(&database.begin_write()?)
}

fn read(transaction: &WriteTransaction) -> Result<Contents, Fault> {
    let missing = |what: &str| Fault::Corrupt(format!("{what} is missing"));
    let schema: u32 = get(transaction, "schema")?.ok_or_else(|| missing("the schema"))?;
    if schema > SCHEMA {
        return Err(Fault::Newer(schema));
    }
    let generation = get(transaction, "generation")?.ok_or_else(|| missing("the generation"))?;
    let digest: Digest = get(transaction, "digest")?.ok_or_else(|| missing("the digest"))?;
    let (policy, found) = Objects::open(transaction)?.read().map_err(Fault::Corrupt)?;
    if digest != found {
        return Err(Fault::Corrupt("its objects are not those that were written".to_owned()));
    }
    rows::validate(&policy).map_err(Fault::Corrupt)?;
    let mut history = Vec::new();
    for row in transaction.open_table(HISTORY)?.iter()? {
        let (key, value) = row?;
        let past: Past = serde_json::from_slice(value.value())
            .map_err(|error| Fault::Corrupt(format!("generation {}: {error}", key.value())))?;
        history.push(past);
    }
    let steps = history.iter().rev().map(|past| past.record.generation);
    if !steps.eq((0..=generation).rev().take(history.len())) {
        return Err(Fault::Corrupt("its history has gaps".to_owned()));
    }
    let awaited: Option<Awaited> = get(transaction, "unconfirmed")?.flatten();
    Ok(Contents { policy, generation, history, awaited: awaited.filter(|a| a.generation == generation) })
}

fn put<T: Serialize>(transaction: &WriteTransaction, key: &str, value: &T) -> Result<(), redb::Error> {
    transaction.open_table(META)?.insert(key, &*rows::json(value))?;
    Ok(())
}

fn get<T: for<'d> Deserialize<'d>>(
    transaction: &WriteTransaction,
    key: &str,
) -> Result<Option<T>, redb::Error> {
    let table = transaction.open_table(META)?;
    let value = table.get(key)?;
    let parsed = value.map(|value| serde_json::from_slice(value.value()));
    parsed.transpose().map_err(|error| redb::Error::Corrupted(format!("{key}: {error}")))
}
