//! Watches the policy file: says when somebody has finished writing it, or has put another in its place.
//!
//! A file is read only after it was closed or moved there, never while it is being written: half a policy would cut
//! connections. Symbolic links on the way to the file are watched too, since that is how Kubernetes swaps its volumes.
//!
//! Not everything is told: a directory on the way that is replaced, another name of the same file (a hard link, a bind mount) that is
//! written to, a kernel that can watch no more. So what the path leads to is looked at each second, too.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// A change is told when nothing has happened for so long: writers like to close a file more than once.
const QUIET: Duration = Duration::from_millis(150);
/// The longest that a change waits for that: a file that is written again and again is read all the same.
const LONGEST_QUIET: Duration = Duration::from_secs(1);
/// How often the file is looked at, and places that can't be watched (a directory that is gone) are tried again.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Links that are followed, as the kernel counts.
const MAX_LINKS: usize = 40;

/// Which file a path leads to, and which state of it. `None` if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(Option<[i64; 7]>);

impl Stamp {
    /// As of now.
    pub fn of(path: &Path) -> Stamp {
        let found = std::fs::metadata(path).ok().map(|found| {
            let (device, inode, size) = (found.dev() as i64, found.ino() as i64, found.size() as i64);
            let (mtime, ctime) = ([found.mtime(), found.mtime_nsec()], [found.ctime(), found.ctime_nsec()]);
            [device, inode, size, mtime[0], mtime[1], ctime[0], ctime[1]]
        });
        Stamp(found)
    }
}

/// Looks at a file now and then.
pub struct FilePoller {
    path: PathBuf,
    /// As it was when it was last read.
    read: Stamp,
    last: Stamp,
}

impl FilePoller {
    /// At a file that was read when it bore this stamp.
    pub fn new(path: &Path, read: Stamp) -> FilePoller {
        FilePoller { path: path.to_owned(), read, last: read }
    }

    /// True if it is another than was read, and has not changed since the last look: nobody is writing it.
    pub fn is_another(&mut self) -> bool {
        let now = Stamp::of(&self.path);
        let rests = std::mem::replace(&mut self.last, now) == now;
        rests && now != self.read && now.0.is_some()
    }

    /// It is about to be read.
    pub fn reads(&mut self) {
        self.read = Stamp::of(&self.path);
        self.last = self.read;
    }
}

/// A watched file.
pub struct Watch {
    path: PathBuf,
    glances: FilePoller,
    looked: Instant,
    inotify: AsyncFd<OwnedFd>,
    /// What counts, by watched directory.
    names: HashMap<i32, (PathBuf, HashSet<OsString>)>,
    is_complete: bool,
    state: State,
    /// Since when a change is not told.
    since: Option<Instant>,
}

/// What was seen since the last change that was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// The file is another.
    changed: bool,
    /// Somebody has written and not closed yet.
    in_writing: bool,
}

impl Watch {
    /// Begins to watch a file that was read when it bore this stamp.
    pub fn new(path: &Path, read: Stamp) -> io::Result<Watch> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let path = std::path::absolute(path)?;
        // SAFETY: the descriptor was just made; an OwnedFd keeps it open, and the same, until it is dropped.
        let inotify = unsafe { AsyncFd::register(inotify) }?;
        let glances = FilePoller::new(&path, read);
        let mut watch = Watch {
            path,
            glances,
            looked: Instant::now(),
            inotify,
            names: HashMap::new(),
            is_complete: false,
            state: State::default(),
            since: None,
        };
        watch.look_around();
        Ok(watch)
    }

    /// Waits until the file has changed and is whole again.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            if let Ok(ready) = timeout(self.patience(), self.inotify.readable()).await {
                let mut ready = ready?;
                ready.clear_ready();
                drop(ready);
                self.read_events()?;
                self.look_around();
                if self.state.changed {
                    self.since.get_or_insert_with(Instant::now);
                }
                if !self.is_overdue() {
                    continue;
                }
            }
            if self.state == (State { changed: true, in_writing: false }) {
                (self.state, self.since) = (State::default(), None);
                self.glances.reads();
                return Ok(());
            }
            if self.looked.elapsed() >= LOOK_EVERY {
                self.looked = Instant::now();
                let was_complete = self.is_complete;
                self.look_around();
                // What happened in a directory that nobody watched is not known.
                self.state.changed |= self.is_complete && !was_complete;
                if self.glances.is_another() && !self.state.in_writing {
                    self.state = State { changed: true, in_writing: false };
                }
            }
        }
    }

    /// How long to wait for the next event.
    fn patience(&self) -> Duration {
        match self.state {
            State { changed: true, in_writing: false } => QUIET,
            _ => LOOK_EVERY.saturating_sub(self.looked.elapsed()),
        }
    }

    /// A change that has waited long enough for those who write to end.
    fn is_overdue(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= LONGEST_QUIET)
    }

    fn read_events(&mut self) -> io::Result<()> {
        let mut buffer = [const { MaybeUninit::uninit() }; 4096];
        let mut events = Reader::new(self.inotify.get_ref(), &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.state.changed = true;
                continue;
            }
            let Some((directory, names)) = self.names.get(&event.wd()) else { continue };
            if event.events().contains(ReadFlags::IGNORED) {
                self.names.remove(&event.wd());
                continue;
            }
            let Some(name) = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes())) else {
                continue;
            };
            if names.contains(name) {
                let is_link = || directory.join(name).is_symlink();
                self.state.note(event.events(), is_link);
            }
        }
    }

    /// Watches every directory that holds the file or a link on the way to it, and no other.
    fn look_around(&mut self) {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let mut names: HashMap<i32, (PathBuf, HashSet<OsString>)> = HashMap::new();
        self.is_complete = true;
        for (directory, name) in places(&self.path) {
            match inotify::add_watch(self.inotify.get_ref(), &directory, flags) {
                Ok(wd) => {
                    names.entry(wd).or_insert_with(|| (directory, HashSet::new())).1.insert(name);
                }
                Err(_) => self.is_complete = false,
            }
        }
        for stale in self.names.keys().filter(|wd| !names.contains_key(wd)) {
            // It may be gone by itself.
            let _ = inotify::remove_watch(self.inotify.get_ref(), *stale);
        }
        self.names = names;
    }
}

impl State {
    fn note(&mut self, events: ReadFlags, is_link: impl Fn() -> bool) {
        if events.contains(ReadFlags::MODIFY) {
            self.in_writing = true;
        }
        if events.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO) {
            *self = State { changed: true, in_writing: false };
        }
        // A new file is of interest once it is closed, a new link at once.
        if events.contains(ReadFlags::CREATE) && is_link() {
            *self = State { changed: true, in_writing: false };
        }
    }
}

/// Where a policy file is read from: the directories of every link on the way to it, of what the links point to, and its own; and those
/// that hold these, since a directory may be replaced, too. The root is left out, and what lies in it as a holder of others: below
/// those is nearly everything.
pub fn directories(path: &Path) -> Vec<PathBuf> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut found = Vec::new();
    for (directory, name) in places(&path) {
        if let Ok(target) = std::fs::read_link(directory.join(&name)) {
            found.extend(directory.join(target).parent().map(Path::to_owned));
        }
        found.push(directory);
    }
    let depth = |directory: &Path| directory.components().count() - 1;
    let holders: Vec<_> = found.iter().filter_map(|its| Some(its.parent()?.to_owned())).collect();
    found.retain(|directory| depth(directory) > 0);
    found.extend(holders.into_iter().filter(|holder| depth(holder) > 1));
    found
}

/// Directory and name of every link on the way to `path`, which is absolute, and of the file itself.
fn places(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut places = Vec::new();
    let mut at = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = names(path).collect();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let here = at.join(&name);
        match std::fs::read_link(&here) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                places.push((at.clone(), name));
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                names(&target).rev().for_each(|name| rest.push_front(name));
            }
            _ if rest.is_empty() => places.push((at.clone(), name)),
            _ => at = here,
        }
    }
    places
}

fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    let named = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    named.map(|part| part.as_os_str().to_owned())
}

#[cfg(test)]
mod tests;
