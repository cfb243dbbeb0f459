//! The unix socket that clients reach the appliance by.

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::Mode;
use rustix::process::umask;

/// A bound socket: its file is there until this is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
    /// Device and inode: a file that another process put there since is not ours to remove. `None`: nor is this one.
    identity: Mutex<Option<(u64, u64)>>,
}

/// Why there is no socket.
#[derive(Debug)]
pub enum BindError {
    /// Another appliance answers there.
    InUse(PathBuf),
    /// Something that is no socket lies there.
    NoSocket(PathBuf),
    /// The system knows no such group.
    NoGroup(String),
    /// The system refused it.
    Io(PathBuf, io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::InUse(path) => {
                write!(
                    f,
                    "another appliance answers on {} already; [api] socket chooses another",
                    path.display()
                )
            }
            BindError::NoSocket(path) => write!(f, "{} is there and is no socket", path.display()),
            BindError::NoGroup(group) => {
                write!(
                    f,
                    "api.socket_group: {group}: the system has no such group; `groupadd {group}` makes it"
                )
            }
            BindError::Io(path, error) => write!(f, "the socket {} can't be made: {error}", path.display()),
        }
    }
}

impl std::error::Error for BindError {}

impl Socket {
    /// Binds `path`, for its owner alone, or for a group, too. Its directory is made where it lacks, and the socket of an appliance that is gone
    /// is replaced. Call it while no other thread makes files: the process's umask is another for a moment.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Socket, BindError> {
        let failed = |error| BindError::Io(path.to_owned(), error);
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
        }
        remove_stale(path)?;
        let before = umask(Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        umask(before);
        let listener = bound.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        if let Some(group) = group {
            let gid = group_id(group).ok_or_else(|| BindError::NoGroup(group.to_owned()))?;
            std::os::unix::fs::chown(path, None, Some(gid)).map_err(failed)?;
            fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed)?;
        }
        let identity = identity(path).map_err(failed)?;
        Ok(Socket { path: path.to_owned(), listener, identity: Mutex::new(Some(identity)) })
    }

    /// One that another process has bound to `path` and lends. Its file stays when this is dropped, until [`Socket::own`].
    pub fn inherit(path: &Path, listener: OwnedFd) -> Socket {
        Socket { path: path.to_owned(), listener: listener.into(), identity: Mutex::default() }
    }

    /// No other process serves it from now on.
    pub fn own(&self) {
        *self.owned() = identity(&self.path).ok();
    }

    /// Another process serves it from now on: its file stays.
    pub fn leave(&self) {
        *self.owned() = None;
    }

    fn owned(&self) -> MutexGuard<'_, Option<(u64, u64)>> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For the runtime that serves it.
    pub fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let owned = *self.owned();
        if owned.is_some() && identity(&self.path).ok() == owned {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Makes the path free, unless somebody listens there or it is no socket.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NoSocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| BindError::Io(path.to_owned(), error))
        }
        // Busy, or not ours to talk to: somebody is there all the same.
        _ => Err(BindError::InUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_a_live_one_and_a_file_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/down/api.sock");
        let socket = Socket::bind(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(Socket::bind(&path, None), Err(BindError::InUse(_))));
        drop(socket);
        assert!(!path.exists());

        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = Socket::bind(&path, None).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        drop(socket);
        assert!(matches!(Socket::bind(&path, None), Err(BindError::NoSocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer(pub String);

impl Peer {
    /// The user at the other end of a socket.
    pub(super) fn of_socket(stream: &tokio::net::UnixStream) -> Peer {
        let uid = stream.peer_cred().map(|credentials| credentials.uid());
        Peer(uid.map_or_else(|_| "unknown".to_owned(), user_name))
    }
}

/// A user's name by the system's list, or the number.
fn user_name(uid: u32) -> String {
    let list = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("uid {uid}"))
}

/// A group's number by the system's list, or the number that it is.
pub(super) fn group_id(name: &str) -> Option<u32> {
    let list = fs::read_to_string("/etc/group").unwrap_or_default();
    let named = list.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    });
    named.or_else(|| name.parse().ok())
}
