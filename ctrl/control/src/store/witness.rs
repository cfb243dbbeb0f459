//! What is known of a store in a second place: which one it is, and the last generation of it that somebody was told of. A store
//! that is missing, another one or an older one is told by it from a first start.
//!
//! The file has two lines of the same length, written in turn and each with its checksum, so that one of them is always
//! whole. Writing one takes no room on the disk: also where that is full, a refusal can be noted.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::Awaited;
use super::doubt::InDoubt;

/// The length of a line, its end included.
const LINE: usize = 512;

/// What is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessRecord {
    /// Drawn when the store was made.
    pub store: String,
    /// The last generation that somebody was told of.
    pub generation: u32,
    /// A later one that was refused and may lie in the store all the same.
    pub refused: Option<u32>,
    /// A confirmation that was refused, likewise: what awaits it still.
    #[serde(default)]
    pub awaited: Option<Awaited>,
    /// Counts up with each line.
    serial: u64,
}

/// What a look at the file yields.
#[derive(Debug)]
pub enum WitnessState {
    /// There is none.
    Nothing,
    /// It makes no sense; this is why.
    Damaged(String),
    /// What it says.
    Told(WitnessRecord),
}

/// The file, held open.
pub struct Witness {
    path: PathBuf,
    file: File,
    last: WitnessRecord,
}

impl Witness {
    /// Looks at a file.
    pub fn find(path: &Path) -> io::Result<WitnessState> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(WitnessState::Nothing),
            Err(error) => return Err(error),
        };
        let lines = text.chunks(LINE).take(2).filter_map(parsed);
        Ok(match lines.max_by_key(|told| told.serial) {
            Some(told) => WitnessState::Told(told),
            None => WitnessState::Damaged("neither of its lines bears its checksum".to_owned()),
        })
    }

    /// Makes the file, in the place of one that is there.
    pub fn make(path: &Path, store: String, generation: u32) -> io::Result<Witness> {
        let last = WitnessRecord { store, generation, ..WitnessRecord::default() };
        let file = made(path, &last)?;
        Ok(Witness { path: path.to_owned(), file, last })
    }

    /// Goes on with one that says this.
    pub fn open(path: &Path, last: WitnessRecord) -> io::Result<Witness> {
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Witness { path: path.to_owned(), file, last })
    }

    /// Notes that somebody is told of a generation. When this returns, it is on the disk.
    pub fn record_generation(&mut self, generation: u32) -> io::Result<()> {
        self.note(WitnessRecord { generation, refused: None, awaited: None, ..self.last.clone() })
    }

    /// Notes what was refused and may lie in the store.
    pub fn doubt(&mut self, doubt: &InDoubt) -> io::Result<()> {
        let (mut refused, mut still) = (None, None);
        match doubt {
            InDoubt::Generation(generation) => refused = Some(*generation),
            InDoubt::Settled { awaited, .. } => still = *awaited,
        }
        self.note(WitnessRecord { refused, awaited: still, ..self.last.clone() })
    }

    fn note(&mut self, mut next: WitnessRecord) -> io::Result<()> {
        if next == self.last {
            return Ok(());
        }
        next.serial += 1;
        if self.is_there() {
            self.file.write_all_at(&line(&next), next.serial % 2 * LINE as u64)?;
            self.file.sync_data()?;
        } else {
            self.file = made(&self.path, &next)?;
        }
        self.last = next;
        Ok(())
    }

    /// The last generation that somebody was told of.
    pub fn generation(&self) -> u32 {
        self.last.generation
    }

    fn is_there(&self) -> bool {
        let same = |found: fs::Metadata| {
            self.file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
        };
        fs::metadata(&self.path).is_ok_and(same)
    }
}

/// Makes the file whole under another name, and puts it in its place.
fn made(path: &Path, told: &WitnessRecord) -> io::Result<File> {
    let beside = super::with_suffix(path, "new");
    fs::write(&beside, [line(told), line(told)].concat())?;
    fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
    let file = File::options().read(true).write(true).open(&beside)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(file)
}

fn line(told: &WitnessRecord) -> Vec<u8> {
    let text = super::rows::json(told);
    let mut line = format!("{:016x} ", xxh3_64(&text)).into_bytes();
    line.extend(text);
    line.resize(LINE - 1, b' ');
    line.push(b'\n');
    line
}

fn parsed(line: &[u8]) -> Option<WitnessRecord> {
    let text = std::str::from_utf8(line).ok()?;
    let (sum, told) = text.trim_end().split_once(' ')?;
    let is_whole = line.len() == LINE && u64::from_str_radix(sum, 16) == Ok(xxh3_64(told.as_bytes()));
    is_whole.then(|| serde_json::from_str(told).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(path: &Path) -> Option<(String, u32, Option<u32>)> {
        match Witness::find(path).unwrap() {
            WitnessState::Told(told) => Some((told.store, told.generation, told.refused)),
            WitnessState::Nothing | WitnessState::Damaged(_) => None,
        }
    }

    #[test]
    fn the_newest_whole_line_counts_and_a_lost_file_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("witness");
        assert!(matches!(Witness::find(&path), Ok(WitnessState::Nothing)));
        let mut witness = Witness::make(&path, "s".to_owned(), 3).unwrap();
        for generation in 4..9 {
            witness.record_generation(generation).unwrap();
            assert_eq!(told(&path), Some(("s".to_owned(), generation, None)));
        }
        witness.doubt(&InDoubt::Generation(9)).unwrap();
        assert_eq!(told(&path), Some(("s".to_owned(), 8, Some(9))));
        // A line half written: the other one counts.
        let whole = fs::read(&path).unwrap();
        assert_eq!(whole.len(), 2 * LINE);
        let damaged = |lines: &[usize]| {
            let mut text = whole.clone();
            lines.iter().for_each(|line| text[line * LINE + 30] ^= 1);
            fs::write(&path, &text).unwrap();
            told(&path).map(|(_, generation, refused)| (generation, refused))
        };
        assert_eq!((damaged(&[0]), damaged(&[1])), (Some((8, None)), Some((8, Some(9)))));
        assert_eq!(damaged(&[0, 1]), None);
        assert!(matches!(Witness::find(&path), Ok(WitnessState::Damaged(_))));
        fs::remove_file(&path).unwrap();
        witness.record_generation(9).unwrap();
        assert_eq!(told(&path), Some(("s".to_owned(), 9, None)));
        let again = Witness::open(&path, WitnessRecord::default()).unwrap();
        assert!(again.is_there());
    }
}
