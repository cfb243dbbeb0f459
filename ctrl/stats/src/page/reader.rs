//! Who reads a page.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use super::map::{Map, WORD};
use super::{Directory, HEAD, Listed, MAGIC, VERSION, half, protocol, word};

/// How often a copy is tried that the writer was in the middle of: it writes every second.
const TRIES: usize = 100;

/// Why a page cannot be read.
#[derive(Debug)]
pub enum Unreadable {
    /// There is none, or it is not to be had.
    Io(io::Error),
    /// The file is no page, or one of another version.
    NoPage(String),
    /// Nothing was published in it yet.
    Empty,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Io(error) => error.fmt(f),
            Unreadable::NoPage(why) => f.write_str(why),
            Unreadable::Empty => f.write_str("nothing is published in it yet"),
        }
    }
}

impl std::error::Error for Unreadable {}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Unreadable {
        Unreadable::Io(error)
    }
}

/// What a page said at one moment.
#[derive(Clone, Debug)]
pub struct Page {
    /// When it was written, in nanoseconds since 1970.
    pub written: u64,
    /// When its writer started, likewise.
    pub started: u64,
    /// When its writer ended in order; `None` while it runs, or if it was killed.
    pub ended: Option<u64>,
    /// The writer's process.
    pub process: u32,
    /// What lies where.
    pub directory: Arc<Directory>,
    values: Vec<u64>,
}

impl Page {
    /// Every series with its family, the values of its labels, and its values.
    pub fn series(&self) -> impl Iterator<Item = (&Listed, &[String], &[u64])> {
        self.directory.iter().flat_map(move |family| {
            family.series.iter().enumerate().filter_map(move |(n, labels)| {
                let at = family.at + n * family.width();
                Some((family, &labels[..], self.values.get(at..at + family.width())?))
            })
        })
    }

    /// The sum of a counter's or gauge's series that have all of these labels; `None` if there is
    /// none.
    pub fn sum(&self, name: &str, wanted: &[(&str, &str)]) -> Option<u64> {
        let has = |family: &Listed, labels: &[String], (name, value): &(&str, &str)| {
            family.labels.iter().zip(labels).any(|(label, its)| label == name && its == value)
        };
        let fitting = self.series().filter(|(family, labels, values)| {
            family.name == name && values.len() == 1 && wanted.iter().all(|label| has(family, labels, label))
        });
        fitting.map(|(.., values)| values[0]).reduce(u64::wrapping_add)
    }
}

/// A page that is open.
pub struct Reader {
    path: PathBuf,
    file: File,
    map: Map,
    /// The directory that was read last, with its number.
    known: Option<(u64, Arc<Directory>)>,
}

impl Reader {
    /// Opens one.
    pub fn open(path: &Path) -> Result<Reader, Unreadable> {
        let file = File::open(path)?;
        if file.metadata()?.len() < HEAD as u64 {
            return Err(Unreadable::NoPage("it is no stats page".to_owned()));
        }
        let map = Map::readable(&file)?;
        match (map.load(word::MAGIC), map.load(word::VERSION)) {
            (MAGIC, VERSION) => Ok(Reader { path: path.to_owned(), file, map, known: None }),
            (MAGIC, other) => {
                Err(Unreadable::NoPage(format!("it has version {other}; this program reads {VERSION}")))
            }
            _ => Err(Unreadable::NoPage("it is no stats page".to_owned())),
        }
    }

    /// What it says now. A page that a later start has put in its place is read from then on.
    pub fn read(&mut self) -> Result<Page, Unreadable> {
        let identity = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
        let (own, there) = (self.file.metadata()?, std::fs::metadata(&self.path));
        if there.is_ok_and(|there| identity(&there) != identity(&own)) {
            *self = Reader::open(&self.path)?;
        }
        for _ in 0..TRIES {
            let published = self.published();
            if published == 0 {
                return Err(Unreadable::Empty);
            }
            if let Some(page) = self.copy(published)? {
                return Ok(page);
            }
        }
        Err(Unreadable::NoPage("it is written faster than it can be read".to_owned()))
    }

    fn published(&self) -> u64 {
        self.map.word(word::PUBLISHED).map_or(0, protocol::published)
    }

    /// The half that was published as this; `None` if it was written to meanwhile.
    fn copy(&mut self, published: u64) -> Result<Option<Page>, Unreadable> {
        let head = word::HALVES[protocol::half_of(published)];
        let [offset, number, length, count] = [half::OFFSET, half::DIRECTORY, half::LENGTH, half::VALUES]
            .map(|which| self.map.load(head + which));
        let (first, count, length) = (offset as usize / WORD, count as usize, length as usize);
        let end = first.checked_add(count).and_then(|end| end.checked_add(length.div_ceil(WORD)));
        let Some(end) = end.filter(|end| *end <= self.file.metadata().map_or(0, |m| m.len() as usize) / WORD)
        else {
            return Ok(None);
        };
        if self.map.word(end - 1).is_none() {
            // It has grown.
            self.map = Map::readable(&self.file)?;
        }
        let values = (first..first + count).map(|at| self.map.load(at)).collect();
        let known = self.known.clone().filter(|(known, _)| *known == number);
        let mut text: Vec<u8> = Vec::new();
        if known.is_none() {
            text.extend((first + count..end).flat_map(|at| self.map.load(at).to_le_bytes()));
            text.truncate(length);
        }
        let (written, ended) = (self.map.load(word::WRITTEN), self.map.load(word::ENDED));
        if !protocol::is_whole(self.map.word(word::PUBLISHED), published) {
            return Ok(None);
        }
        let directory = match known {
            Some((_, directory)) => directory,
            None => {
                let directory = serde_json::from_slice::<Directory>(&text)
                    .map_err(|error| Unreadable::NoPage(format!("its directory is damaged: {error}")))?;
                let directory = Arc::new(directory);
                self.known = Some((number, directory.clone()));
                directory
            }
        };
        Ok(Some(Page {
            written,
            started: self.map.load(word::STARTED),
            ended: (ended != 0).then_some(ended),
            process: self.map.load(word::PROCESS) as u32,
            directory,
            values,
        }))
    }
}
