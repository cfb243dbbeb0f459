//! How a store is found at a start: it is read in a copy, and compared with what its witness tells.

use std::fmt::Display;
use std::fs::{self, File, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::PermissionsExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use redb::Database;

use super::doubt::InDoubt;
use super::files::{self, TempCopy, identity, with_suffix};
use super::rows::{Digest, Objects};
use super::witness::{Witness, WitnessRecord, WitnessState};
use super::{
    Contents, Fault, HISTORY, SCHEMA, Store, StoreError, WriterState, get, put, read as read_tables,
};

/// What to do where there is no store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// One is made, unless a witness tells that there was one.
    #[default]
    Make,
    /// The start is refused (`[store] must_exist`).
    Refuse,
    /// One is made, and there must be none (`run --new-store`).
    New,
}

/// A store that is to be opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Its file.
    pub path: PathBuf,
    /// Where its witness is; beside it, if left out.
    pub witness: Option<PathBuf>,
    /// What to do where it is not there.
    pub missing: Missing,
}

impl OpenOptions {
    /// As it is without further settings.
    pub fn of(path: &Path) -> OpenOptions {
        OpenOptions { path: path.to_owned(), witness: None, missing: Missing::default() }
    }
}

/// A store as it lies in the file.
struct StoredFile {
    contents: Contents,
    /// Drawn when it was made; stores of earlier versions have none.
    name: Option<String>,
}

impl Store {
    /// Opens the store at `path`, or makes an empty one; what it holds, `None` if it is new.
    pub fn open(path: &Path) -> Result<(Store, Option<Contents>), StoreError> {
        Store::open_as(&OpenOptions::of(path))
    }

    /// Opens a store, or makes an empty one where that is asked for; what it holds, `None` if it is new.
    pub fn open_as(opening: &OpenOptions) -> Result<(Store, Option<Contents>), StoreError> {
        let OpenOptions { path, witness, missing } = opening;
        let io = |error: &dyn Display| StoreError::Io(path.clone(), error.to_string());
        let witness = witness.clone().unwrap_or_else(|| with_suffix(path, "witness"));
        let testimony = Witness::find(&witness);
        let testimony = testimony.map_err(|error| StoreError::Io(witness.clone(), error.to_string()))?;
        let is_there = path.try_exists().map_err(|error| io(&error))?;
        let held = match &testimony {
            WitnessState::Told(told) => Some(told.generation),
            WitnessState::Nothing | WitnessState::Damaged(_) => None,
        };
        let is_known = !matches!(testimony, WitnessState::Nothing);
        match missing {
            Missing::New if is_there => return Err(StoreError::Exists(path.clone())),
            Missing::Refuse if !is_there => return Err(StoreError::Missing { path: path.clone(), held }),
            Missing::Make if !is_there && is_known => {
                return Err(StoreError::Missing { path: path.clone(), held });
            }
            Missing::New | Missing::Refuse | Missing::Make => {}
        }
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory).map_err(|error| io(&error))?;
        }
        let lock = files::lock(path)?;
        files::remove_left_over(path);
        if is_there { found(path, &witness, testimony, lock) } else { made(path, &witness, lock) }
    }

    /// An open store's parts together.
    fn with(
        path: &Path,
        database: Database,
        witness: Witness,
        words: Vec<String>,
        lock: File,
    ) -> Result<Store, StoreError> {
        let identity = identity(path).map_err(|error| StoreError::Io(path.to_owned(), error.to_string()))?;
        Ok(Store {
            held: Mutex::new(WriterState { database: Some(database), doubt: None, witness, is_lent: false }),
            path: path.to_owned(),
            identity,
            words,
            #[cfg(test)]
            faults: super::tests::Faults::default(),
            lock,
        })
    }
}

/// An empty store, and its witness.
fn made(path: &Path, witness: &Path, lock: File) -> Result<(Store, Option<Contents>), StoreError> {
    let io = |error: &dyn Display| StoreError::Io(path.to_owned(), error.to_string());
    let database = opened(path)?;
    let name = drawn();
    found_first(&database, &name).map_err(|error| io(&error))?;
    let witness = Witness::make(witness, name, 0)
        .map_err(|error| StoreError::Io(witness.to_owned(), error.to_string()))?;
    let words =
        vec![format!("{}: there was no store, and nothing tells of one: it is made anew", path.display())];
    Ok((Store::with(path, database, witness, words, lock)?, None))
}

/// The first transaction: an empty policy.
fn found_first(database: &Database, name: &str) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    put(&transaction, "schema", &SCHEMA)?;
    put(&transaction, "identity", &name)?;
    put(&transaction, "generation", &0u32)?;
    put(&transaction, "next_id", &1u64)?;
    put(&transaction, "digest", &Digest::default())?;
    transaction.open_table(HISTORY)?;
    Objects::open(&transaction)?;
    Ok(transaction.commit()?)
}

/// A store that is there, once it is what its witness tells.
fn found(
    path: &Path,
    witness: &Path,
    testimony: WitnessState,
    lock: File,
) -> Result<(Store, Option<Contents>), StoreError> {
    let io = |error: &dyn Display| StoreError::Io(path.to_owned(), error.to_string());
    let StoredFile { mut contents, name } = verified(path)?;
    let mut words = Vec::new();
    let told = match testimony {
        WitnessState::Told(told) => Some(told),
        WitnessState::Nothing => {
            words.push(format!(
                "{}: nothing tells what the store {} must hold; it holds generation {} and is taken for the right one",
                witness.display(),
                path.display(),
                contents.generation
            ));
            None
        }
        WitnessState::Damaged(what) => {
            words.push(format!(
                "{}: {what}; the store {} holds generation {} and is taken for the right one",
                witness.display(),
                path.display(),
                contents.generation
            ));
            None
        }
    };
    if let Some(told) = &told {
        compare(told, &contents, name.as_deref()).map_err(|what| StoreError::Unlike {
            path: path.to_owned(),
            what,
            witness: witness.to_owned(),
        })?;
    }
    let database = opened(path)?;
    if let Some(doubt) = told.as_ref().and_then(|told| InDoubt::told(told, &contents)) {
        words.push(format!(
            "{}: the last change of generation {} was refused: it is undone",
            path.display(),
            contents.generation
        ));
        doubt.undo(&database).map_err(|error| io(&error))?;
        let transaction = database.begin_write().map_err(|error| io(&error))?;
        contents = read_tables(&transaction).map_err(|fault| fault.at(path, |_| Ok(path.to_owned())))?;
    }
    let name = match name {
        Some(name) => name,
        // Written by an earlier version.
        None => named(&database).map_err(|error| io(&error))?,
    };
    let at_witness = |error: std::io::Error| StoreError::Io(witness.to_owned(), error.to_string());
    let witness = match told {
        Some(told) => {
            let mut open = Witness::open(witness, told).map_err(at_witness)?;
            open.record_generation(contents.generation).map_err(at_witness)?;
            open
        }
        None => Witness::make(witness, name, contents.generation).map_err(at_witness)?,
    };
    let store = Store::with(path, database, witness, words, lock)?;
    // Made and never filled.
    let contents = Some(contents).filter(|contents| contents.generation > 0);
    Ok((store, contents))
}

/// What differs from what the witness tells.
fn compare(told: &WitnessRecord, contents: &Contents, name: Option<&str>) -> Result<(), String> {
    if name != Some(&told.store) {
        return Err(format!(
            "it is not the store that was here, which held generation {}; this one holds {}",
            told.generation, contents.generation
        ));
    }
    if contents.generation < told.generation {
        return Err(format!(
            "it holds generation {}, and {} was the last that was acknowledged",
            contents.generation, told.generation
        ));
    }
    Ok(())
}

fn opened(path: &Path) -> Result<Database, StoreError> {
    let io = |error: &dyn Display| StoreError::Io(path.to_owned(), error.to_string());
    let database = files::open(path).map_err(|error| io(&error))?;
    // A policy tells where to attack: it is its owner's alone.
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|error| io(&error))?;
    Ok(database)
}

/// Gives a store a name.
fn named(database: &Database) -> Result<String, redb::Error> {
    let name = drawn();
    let transaction = database.begin_write()?;
    put(&transaction, "identity", &name)?;
    transaction.commit()?;
    Ok(name)
}

/// What no other store is called. The standard library keys its hash tables by what the system has at random.
fn drawn() -> String {
    let [high, low] = [0, 1].map(|word: u64| RandomState::new().hash_one(word));
    format!("{high:016x}{low:016x}")
}

/// What a store holds, for `check`.
pub(super) fn read(path: &Path) -> Result<Contents, StoreError> {
    let copy = TempCopy::of(path)?;
    let lying = read_copy(&copy).map_err(|fault| fault.at(path, |path| Ok(path.to_owned())))?;
    Ok(lying.contents)
}

/// What the store holds; a corrupt one is set aside.
fn verified(path: &Path) -> Result<StoredFile, StoreError> {
    let copy = TempCopy::of(path)?;
    read_copy(&copy).map_err(|fault| fault.at(path, files::set_aside))
}

impl Fault {
    /// The same as an error of the store at `path`.
    fn at(self, path: &Path, aside: impl FnOnce(&Path) -> Result<PathBuf, String>) -> StoreError {
        let path = path.to_owned();
        match self {
            Fault::Newer(schema) => StoreError::Newer { path, schema },
            Fault::Corrupt(what) => {
                let aside = aside(&path);
                StoreError::Corrupt { path, what, aside }
            }
        }
    }
}

/// The database takes some corrupt files for a fault of its own and panics: that is one way more to say that a file is not
/// what it wrote.
fn read_copy(copy: &TempCopy) -> Result<StoredFile, Fault> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let read = panic::catch_unwind(|| open_and_read(copy));
    panic::set_hook(hook);
    read.unwrap_or_else(|_| Err(Fault::Corrupt("its pages make no sense".to_owned())))
}

fn open_and_read(TempCopy(path): &TempCopy) -> Result<StoredFile, Fault> {
    let mut database = Database::open(path)?;
    // An unclean end is mended while it is opened; from then on every page must be what its checksum says.
    if !database.check_integrity()? {
        return Err(Fault::Corrupt("pages do not bear their checksums".to_owned()));
    }
    let transaction = database.begin_write()?;
    let contents = read_tables(&transaction)?;
    Ok(StoredFile { contents, name: get(&transaction, "identity")? })
}
