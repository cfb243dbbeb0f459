//! The files of a store: the database, its lock, copies of it.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError};

use super::StoreError;

/// What the database may keep of its file in memory: it holds objects and history, which are in memory as they are.
const CACHE: usize = 16 << 20;
/// What the names of copies have before the number of the process that made them.
const COPY: &str = "copy-";

/// Opens a database, or makes an empty one.
pub(super) fn open(path: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE).create(path)
}

/// Device and inode.
pub(super) fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

/// The lock is a file of its own beside the store, so that a store can be looked at by its bytes while it is held.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let beside = with_suffix(path, "lock");
    let io = |error: &dyn std::fmt::Display| StoreError::Io(beside.clone(), error.to_string());
    let file = File::options().create(true).truncate(false).write(true).open(&beside).map_err(|e| io(&e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(io(&error)),
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// A copy of a store, gone with this.
pub(super) struct TempCopy(pub PathBuf);

impl TempCopy {
    pub fn of(path: &Path) -> Result<TempCopy, StoreError> {
        let copy = TempCopy(with_suffix(path, &format!("{COPY}{}", std::process::id())));
        // With the permissions of the store.
        let copied = fs::copy(path, &copy.0);
        copied.map_err(|error| StoreError::Io(path.to_owned(), error.to_string()))?;
        Ok(copy)
    }
}

impl Drop for TempCopy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Removes copies of processes that are no more.
pub(super) fn remove_left_over(path: &Path) {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    let Ok(entries) = fs::read_dir(directory.unwrap_or(Path::new("."))) else { return };
    for entry in entries.flatten() {
        let found = entry.file_name();
        let rest = found.to_str().and_then(|found| found.strip_prefix(name)?.strip_prefix('.'));
        let process = rest.and_then(|rest| rest.strip_prefix(COPY)).and_then(|id| id.parse::<u32>().ok());
        if process.is_some_and(|id| !Path::new("/proc").join(id.to_string()).exists()) {
            // Another start may have done it.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Renames it to the first `.corrupt-N` that is free.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, String> {
    let free = (1..10_000).map(|n| with_suffix(path, &format!("corrupt-{n}"))).find(|path| !path.exists());
    let free = free.ok_or("too many corrupt stores lie there")?;
    fs::rename(path, &free).map_err(|error| error.to_string())?;
    Ok(free)
}
