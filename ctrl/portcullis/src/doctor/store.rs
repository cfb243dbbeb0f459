//! The disk of the store.

use std::path::{Path, PathBuf};

use control::store::Store;
use rustix::fs::{Access, access, statvfs};

use super::MachineCheck;

const STORE: &str = "store";
/// Below so much, the next large change may find no room.
const LITTLE: u64 = 256 << 20;

impl MachineCheck<'_> {
    pub(super) fn store(&mut self) {
        let Some(path) = self.config.store.path.clone() else {
            if self.checked.is_some() {
                self.ok(STORE, None, "none: the policy file governs, and nothing outlives the process");
            }
            return;
        };
        let on = Some(path.display().to_string());
        let Some(directory) = nearest_directory(&path) else { return };
        if !may_write(&directory) || (path.exists() && !may_write(&path)) {
            let what = if path.exists() { &path } else { &directory };
            let found = format!("this user may not write {}", what.display());
            let cure = format!("`chown portcullis {}`, or run as its owner", what.display());
            return self.fail(STORE, on, found, cure);
        }
        if !path.exists() && (self.config.store.must_exist || self.witness(&path).exists()) {
            let found = "it is not there, and must_exist or its witness says that it was";
            let cure = "mount what it lies on, or bring a copy back; `portcullis run --new-store` makes an empty one";
            return self.fail(STORE, on, found, cure);
        }
        // A running appliance has it locked.
        if path.exists()
            && !self.runs
            && let Err(error) = Store::read(&path)
        {
            let cure = format!(
                "`portcullis check --store {}` tells more; set it aside, or restore a copy",
                path.display()
            );
            return self.fail(STORE, on, error.to_string(), cure);
        }
        let free = statvfs(&directory).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let kind = self.file_system(&directory).unwrap_or_else(|| "unknown".to_owned());
        let found = format!("{} MB are free, the file system is {kind}", free >> 20);
        let elsewhere = "[store] path on a local disk (ext4, xfs)";
        match &*kind {
            _ if free < LITTLE => {
                let cost = "changes are refused once it is full";
                self.warn(STORE, on, found, (cost, "make room, or [store] path on another disk"));
            }
            "tmpfs" | "ramfs" | "overlay" => {
                self.warn(
                    STORE,
                    on,
                    found,
                    ("what is stored there goes with the next boot or container", elsewhere),
                );
            }
            "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "fuse" | "ceph" => {
                let cost = "each change waits for the network, and locks and fsync may not hold";
                self.warn(STORE, on, found, (cost, elsewhere));
            }
            _ => self.ok(STORE, on, found),
        }
    }

    /// Where what is known of the store lies in a second place.
    fn witness(&self, path: &Path) -> PathBuf {
        let beside = || PathBuf::from(format!("{}.witness", path.display()));
        self.config.store.witness.clone().unwrap_or_else(beside)
    }

    /// The kind of file system that a directory is on: the longest mount above it, the last of equals.
    fn file_system(&self, directory: &Path) -> Option<String> {
        let directory = std::path::absolute(directory).ok()?;
        let mounts = self.machine.proc_text("mounts")?;
        let words = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let above =
            words.filter(|words| words.len() > 2 && directory.starts_with(words[1].replace("\\040", " ")));
        above.max_by_key(|words| words[1].len()).map(|words| words[2].to_owned())
    }
}

/// The directory of a file, or the nearest above it that is there.
pub fn nearest_directory(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors().skip(1).find(|directory| directory.is_dir()).map(Path::to_owned)
}

/// Whether this user may write there.
pub fn may_write(path: &Path) -> bool {
    access(path, Access::WRITE_OK).is_ok()
}
