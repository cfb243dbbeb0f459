//! The policy, durable: an embedded database of one file (redb), written before a change reaches any worker.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `meta` | `schema`, `identity`, `generation`, `next_id`, `digest`, `unconfirmed`, `unconfirmed_before` | JSON |
//! | `objects` | kind and name | a row as JSON: a stable id, the generation that last changed it, the object |
//! | `history` | generation | [`PastGeneration`] as JSON: who, when and what, and what it replaced |
//!
//! A change is one transaction: after a crash the file holds the last generation that was acknowledged or the one on its
//! way, whole. The digest covers every object, so that a file which somebody or some disk has altered is told from one
//! that we wrote.
//!
//! What is refused is not in the store. Where it may be there all the same (a commit that fails at its very end, a file that is
//! moved away meanwhile), it is undone before anything else is written, and at the next start at the latest. A
//! witness beside the store knows which store it is and the last generation that somebody was told of.
//!
//! A store is read in a copy first: opening one may repair it, and what cannot be repaired must stay as it was found. It is then
//! set aside under another name, and the appliance does not start. Only one process has a store at a time.

mod doubt;
mod files;
mod rows;
mod start;
#[cfg(test)]
pub(crate) mod tests;
mod witness;

use std::fmt;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::api::types::Record;
use crate::commit::KEPT_GENERATIONS;
use crate::delta::Delta;
use crate::model::Policy;
use doubt::InDoubt;
use files::{identity, with_suffix};
use rows::{Digest, Objects};
pub use start::{Missing, OpenOptions};
use witness::Witness;

/// The layout of the tables. Another number means that a migration is due, or that a newer version wrote the file.
pub const SCHEMA: u32 = 1;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const HISTORY: TableDefinition<u32, &[u8]> = TableDefinition::new("history");

/// A generation's way back, and its record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PastGeneration {
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
    pub history: Vec<PastGeneration>,
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
    /// It is not there, where there was one or must be one.
    Missing {
        /// The store.
        path: PathBuf,
        /// The generation that it held, as far as is known.
        held: Option<u32>,
    },
    /// It is there, and a new one was asked for.
    Exists(PathBuf),
    /// The witness knows of another one, or of a later generation.
    Unlike {
        /// The store.
        path: PathBuf,
        /// What differs.
        what: String,
        /// The witness.
        witness: PathBuf,
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
                        "; it was set aside, untouched, as {}: put a copy back, or begin with an empty one by `run --new-store`",
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
            StoreError::Missing { path, held } => {
                write!(f, "{}: there is no store", path.display())?;
                if let Some(held) = held {
                    write!(f, ", and the one that was there held generation {held}")?;
                }
                f.write_str(
                    ": put it back (is its disk mounted?), or begin with an empty one by `run --new-store`",
                )
            }
            StoreError::Exists(path) => {
                write!(
                    f,
                    "{}: there is a store; allowed with --new-store: a path where none is",
                    path.display()
                )
            }
            StoreError::Unlike { path, what, witness } => write!(
                f,
                "{}: {what}, as {} tells: put the right one back, or move the witness away to go on with this one",
                path.display(),
                witness.display()
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
    pub past: &'a PastGeneration,
    /// Its wish for a confirmation.
    pub awaited: Option<Awaited>,
    /// The oldest generation that can be gone back to after it.
    pub oldest: u32,
}

/// An open store.
pub struct Store {
    held: Mutex<WriterState>,
    path: PathBuf,
    /// Device and inode of the file that is open.
    identity: (u64, u64),
    /// What the operator should know of the start.
    words: Vec<String>,
    #[cfg(test)]
    pub(crate) faults: tests::Faults,
    /// Locked as long as the store is open.
    lock: File,
}

/// What one at a time writes with.
struct WriterState {
    /// `None` after an error: the database refuses everything from then on, and is opened again.
    database: Option<Database>,
    /// What may lie in the file though it was refused.
    doubt: Option<InDoubt>,
    witness: Witness,
    /// It was closed for another process, which may have it still.
    is_lent: bool,
}

impl Store {
    /// Reads what the store at `path` holds and changes nothing, for `check`.
    pub fn read(path: &Path) -> Result<Contents, StoreError> {
        start::read(path)
    }

    /// What the operator should know of how it was found.
    pub fn notes(&self) -> &[String] {
        &self.words
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

    /// Closes it, so that another process can open it. False if what lies in the file is in doubt: then it stays open.
    pub fn close(&self) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.doubt.is_some() || self.lock.unlock().is_err() {
            return false;
        }
        (held.database, held.is_lent) = (None, true);
        true
    }

    /// Has it again, after [`Store::close`]. Whoever opened it meanwhile has changed nothing. An error if it is still held
    /// elsewhere: then each change tries again.
    pub fn reopen(&self) -> Result<(), StoreError> {
        self.have_again(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn have_again(&self, held: &mut WriterState) -> Result<(), StoreError> {
        if !held.is_lent {
            return Ok(());
        }
        match self.lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(self.path.clone())),
            Err(TryLockError::Error(error)) => return Err(self.io(&error)),
        }
        held.is_lent = false;
        Ok(())
    }

    /// Makes a change durable. When this returns, it is on the disk; when it fails, it will not be there.
    pub fn commit(&self, step: &Step<'_>) -> Result<(), StoreError> {
        let generation = step.past.record.generation;
        self.write(Some(generation), |transaction, doubt| {
            *doubt = Some(InDoubt::Generation(generation));
            let before: u32 = get(transaction, "generation")?.unwrap_or_default();
            if before + 1 != generation {
                let what = format!("generation {generation} is to follow on {before}");
                return Err(redb::Error::Corrupted(what));
            }
            let mut next_id = get(transaction, "next_id")?.unwrap_or(1);
            let mut digest: Digest = get(transaction, "digest")?.unwrap_or_default();
            let mut objects = Objects::open(transaction)?;
            self.step()?;
            objects.replace(&step.past.delta, step.policy, generation, &mut next_id, &mut digest)?;
            drop(objects);
            self.step()?;
            put(transaction, "next_id", &next_id)?;
            put(transaction, "digest", &digest)?;
            put(transaction, "generation", &generation)?;
            let awaited: Option<Awaited> = get(transaction, "unconfirmed")?.flatten();
            put(transaction, "unconfirmed_before", &awaited)?;
            put(transaction, "unconfirmed", &step.awaited)?;
            self.step()?;
            let mut history = transaction.open_table(HISTORY)?;
            history.insert(generation, &*rows::json(step.past))?;
            // One more than can be gone back to: this change may be undone.
            history.retain_in(..step.oldest, |_, _| false)?;
            Ok(())
        })
    }

    /// The present generation needs no confirmation any more; its record says so.
    pub fn settle(&self, record: &Record) -> Result<(), StoreError> {
        self.write(None, |transaction, doubt| {
            let mut history = transaction.open_table(HISTORY)?;
            let row = history.get(record.generation)?.map(|row| row.value().to_vec());
            let awaited: Option<Awaited> = get(transaction, "unconfirmed")?.flatten();
            self.step()?;
            put(transaction, "unconfirmed", &None::<Awaited>)?;
            if let Some(PastGeneration { delta, .. }) =
                row.as_ref().and_then(|row| serde_json::from_slice(row).ok())
            {
                let kept = PastGeneration { record: record.clone(), delta };
                history.insert(record.generation, &*rows::json(&kept))?;
            }
            *doubt = Some(InDoubt::Settled { generation: record.generation, row, awaited });
            Ok(())
        })
    }

    /// Writes something that means nothing, to know whether anything can be written.
    pub fn probe(&self) -> Result<(), StoreError> {
        self.write(None, |transaction, _| put(transaction, "probe", &std::process::id()))
    }

    /// One transaction, after what is in doubt was undone. With `told`, the witness knows of that generation when this returns.
    fn write(
        &self,
        told: Option<u32>,
        work: impl FnOnce(&WriteTransaction, &mut Option<InDoubt>) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        self.check()?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.have_again(&mut held)?;
        let WriterState { database: place, doubt, witness, .. } = &mut *held;
        // Taken out, and put back when all is well: after an error it is opened again the next time.
        let done = self.open_again(place.take()).and_then(|database| {
            if let Some(doubted) = doubt.as_ref() {
                doubted.undo(&database)?;
                *doubt = None;
            }
            self.step()?;
            let transaction = database.begin_write()?;
            work(&transaction, doubt)?;
            self.step()?;
            transaction.commit()?;
            self.step()?;
            Ok(database)
        });
        let done = done.map_err(|error| self.io(&error)).and_then(|database| {
            *place = Some(database);
            // It may have been taken away meanwhile.
            self.check()?;
            self.step().map_err(|error| self.io(&error))?;
            witness.record_generation(told.unwrap_or(witness.generation())).map_err(|error| self.io(&error))
        });
        match done {
            Ok(()) => *doubt = None,
            // Where not even that can be written, this process knows.
            Err(_) => _ = doubt.as_ref().map(|doubt| witness.doubt(doubt)),
        }
        done
    }

    fn open_again(&self, database: Option<Database>) -> Result<Database, redb::Error> {
        self.step()?;
        match database {
            Some(database) => Ok(database),
            None => Ok(files::open(&self.path)?),
        }
    }

    fn io(&self, error: &dyn fmt::Display) -> StoreError {
        StoreError::Io(self.path.clone(), error.to_string())
    }

    /// A step that can fail: tests have each of them fail in turn.
    #[cfg(test)]
    fn step(&self) -> Result<(), redb::Error> {
        self.faults.step()
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests have it fail")]
    fn step(&self) -> Result<(), redb::Error> {
        Ok(())
    }
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
        let past: PastGeneration = serde_json::from_slice(value.value())
            .map_err(|error| Fault::Corrupt(format!("generation {}: {error}", key.value())))?;
        history.push(past);
    }
    // One more is kept, for a change that is undone.
    let surplus = history.len().saturating_sub(KEPT_GENERATIONS);
    history.drain(..surplus);
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
