//! A mapped file as words that several processes read and one writes.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use memmap2::{MmapOptions, MmapRaw};

/// Bytes of a word.
pub(super) const WORD: usize = size_of::<u64>();

pub(super) struct Map(MmapRaw);

impl Map {
    /// To read and write.
    pub fn writable(file: &File) -> io::Result<Map> {
        MmapOptions::new().map_raw(file).map(Map)
    }

    /// To read.
    pub fn readable(file: &File) -> io::Result<Map> {
        MmapOptions::new().map_raw_read_only(file).map(Map)
    }

    /// The word of this number; `None` behind the end. Only who mapped it writable may store there.
    pub fn word(&self, at: usize) -> Option<&AtomicU64> {
        let is_within =
            at.checked_add(1).and_then(|end| end.checked_mul(WORD)).is_some_and(|end| end <= self.0.len());
        // SAFETY: the word lies within the mapping, which begins at a page and lives as long as the
        // reference. Every process looks at it as an atomic. (Were the file cut short, the kernel
        // would end who reads there; nobody cuts it: it only grows.)
        is_within.then(|| unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().cast::<u64>().add(at)) })
    }

    /// Its value; 0 behind the end.
    pub fn load(&self, at: usize) -> u64 {
        self.word(at).map_or(0, |word| u64::from_le(word.load(Relaxed)))
    }

    /// Writes it, where it is within.
    pub fn store(&self, at: usize, value: u64) {
        if let Some(word) = self.word(at) {
            word.store(value.to_le(), Relaxed);
        }
    }
}
