//! The page: opened, read again and again, and rates made of it.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use stats::{Reader, Unreadable};

use super::figures::Figures;
use crate::failure::Failure;

/// A page that was not written for so long, in nanoseconds, says what was: it is written every second.
pub const STALE: u64 = 5_000_000_000;

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

/// Where figures come from, the last of them, and those that rates are made against.
pub struct Source {
    path: PathBuf,
    reader: Reader,
    before: Option<Figures>,
    /// What was read last, without rates.
    last: Option<Figures>,
}

impl Source {
    pub fn open(path: &Path) -> Result<Source, Failure> {
        let reader = Reader::open(path).map_err(|error| unreadable(path, &error))?;
        Ok(Source { path: path.to_owned(), reader, before: None, last: None })
    }

    /// What the page says now. A page that is gone or cannot be read is an error; one that nobody writes any more is not.
    pub fn read(&mut self) -> Result<Figures, Failure> {
        let page = self.reader.read().map_err(|error| unreadable(&self.path, &error))?;
        let figures = Figures::of(&page);
        if let Some(last) = self.last.take().filter(|last| last.written != figures.written) {
            self.before = Some(last);
        }
        self.last = Some(figures.clone());
        if is_stale(&figures, now()) {
            return Ok(figures.stale());
        }
        Ok(match &self.before {
            Some(before) => figures.since(before),
            None => figures,
        })
    }
}

/// Whether its writer is gone or stuck.
pub fn is_stale(figures: &Figures, now: u64) -> bool {
    figures.ended.is_some() || now.saturating_sub(figures.written) > STALE
}

fn unreadable(path: &Path, error: &Unreadable) -> Failure {
    Failure::runtime(format!(
        "{}: {error} (it is written by a running appliance, where [stats] page says or beside the socket; --page names another)",
        path.display()
    ))
}
