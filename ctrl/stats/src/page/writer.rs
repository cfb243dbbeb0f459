//! Who writes a page.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

use super::map::{Map, WORD};
use super::{HEAD, MAGIC, VERSION, half, laid_out, protocol, word};
use crate::Family;

/// Room that a half has at least.
const LEAST: usize = 64 << 10;

/// The one that writes a page. Dropped in order, it says in the page that it has ended.
pub struct Writer {
    file: File,
    map: Map,
    length: usize,
    published: u64,
    directory: String,
    /// The number of the directory: it is another one each time that the directory is.
    number: u64,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

impl Writer {
    /// A new page in the place of an old one, which stays as it is for those who have it open. One
    /// that another process writes is refused.
    pub fn create(path: &Path) -> io::Result<Writer> {
        let directory =
            path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        match fs::symlink_metadata(path) {
            Ok(there) if !there.is_file() => {
                return Err(io::Error::other("something else than a file is there"));
            }
            Ok(_) => {
                let old = File::open(path)?;
                flock(&old, FlockOperation::NonBlockingLockExclusive)
                    .map_err(|_| io::Error::other("another process writes it"))?;
            }
            Err(_) => {}
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let fresh = directory.join(format!(".{name}.{}", std::process::id()));
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o644).open(&fresh)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.set_len(HEAD as u64)?;
        let map = Map::writable(&file)?;
        map.store(word::VERSION, VERSION);
        map.store(word::STARTED, now());
        map.store(word::PROCESS, u64::from(std::process::id()));
        map.store(word::MAGIC, MAGIC);
        fs::rename(&fresh, path).inspect_err(|_| _ = fs::remove_file(&fresh))?;
        Ok(Writer { file, map, length: HEAD, published: 0, directory: String::new(), number: 0 })
    }

    /// Publishes what is counted by now.
    pub fn write(&mut self, families: &[Family]) -> io::Result<()> {
        let (directory, values) = laid_out(families);
        let directory = serde_json::to_string(&directory)?;
        if directory != self.directory {
            self.number += 1;
            self.directory = directory;
        }
        let next = self.published + 1;
        let head = word::HALVES[protocol::half_of(next)];
        protocol::begin();
        self.make_room(head, values.len() * WORD + self.directory.len().next_multiple_of(WORD))?;
        let first = self.map.load(head + half::OFFSET) as usize / WORD;
        for (at, value) in values.iter().enumerate() {
            self.map.store(first + at, *value);
        }
        let is_elsewhere = self.map.load(head + half::VALUES) != values.len() as u64;
        if is_elsewhere || self.map.load(head + half::DIRECTORY) != self.number {
            for (at, bytes) in self.directory.as_bytes().chunks(WORD).enumerate() {
                let mut word = [0; WORD];
                word[..bytes.len()].copy_from_slice(bytes);
                self.map.store(first + values.len() + at, u64::from_le_bytes(word));
            }
        }
        self.map.store(head + half::DIRECTORY, self.number);
        self.map.store(head + half::LENGTH, self.directory.len() as u64);
        self.map.store(head + half::VALUES, values.len() as u64);
        self.map.store(word::WRITTEN, now());
        if let Some(published) = self.map.word(word::PUBLISHED) {
            protocol::publish(published, next);
        }
        self.published = next;
        Ok(())
    }

    /// Has so many bytes of room in a half: else it moves to the end of the file.
    fn make_room(&mut self, head: usize, bytes: usize) -> io::Result<()> {
        if self.map.load(head + half::ROOM) >= bytes as u64 {
            return Ok(());
        }
        let room = bytes.next_power_of_two().max(LEAST);
        self.file.set_len((self.length + room) as u64)?;
        self.map = Map::writable(&self.file)?;
        self.map.store(head + half::OFFSET, self.length as u64);
        self.map.store(head + half::ROOM, room as u64);
        self.map.store(head + half::DIRECTORY, 0);
        self.length += room;
        Ok(())
    }

    /// Says in the page that nothing more comes.
    pub fn end(&mut self) {
        self.map.store(word::ENDED, now());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.map.load(word::ENDED) == 0 {
            self.end();
        }
    }
}
