//! The part of a mapped file that is in memory.

use memmap2::{Advice, Mmap, UncheckedAdvice};

/// How far the reader goes before the window moves. Two of these are mapped at a time: the one that is read, and the one
/// before it, where the packets of the present burst may still lie.
const STRIDE: usize = 2 << 20;
/// Pages are of this size, or divide it.
const PAGE: usize = 64 << 10;

/// What lies behind the reader is given back to the kernel (which may keep it in its cache), what lies ahead is mapped at once
/// instead of fault by fault. So a capture of any length takes as much memory as a short one.
pub struct Window<'a> {
    map: Option<&'a Mmap>,
    /// Given back up to here,
    behind: usize,
    /// and, with the next move, up to here.
    start: usize,
    /// Where the window moves.
    end: usize,
}

impl<'a> Window<'a> {
    /// At a file's beginning.
    pub fn new(map: Option<&'a Mmap>) -> Window<'a> {
        Window { map, behind: 0, start: 0, end: 0 }
    }

    /// The reader has come to byte `at`.
    #[inline]
    pub fn reached(&mut self, at: usize) {
        if at >= self.end {
            self.advance(at);
        }
    }

    #[cold]
    fn advance(&mut self, at: usize) {
        let Some(map) = self.map else {
            self.end = usize::MAX;
            return;
        };
        let at = at.min(map.len()) / PAGE * PAGE;
        // Both are hints: without them the file is still read, and only takes more memory or time.
        if self.start > self.behind {
            // SAFETY: the map is of a file and never written, so bytes that are read again come from the file again.
            let _ = unsafe {
                map.unchecked_advise_range(UncheckedAdvice::DontNeed, self.behind, self.start - self.behind)
            };
            self.behind = self.start;
        }
        let _ = map.advise_range(Advice::PopulateRead, at, STRIDE.min(map.len() - at));
        self.start = at;
        self.end = at + STRIDE;
    }
}
