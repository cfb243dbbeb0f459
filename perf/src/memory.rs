//! A port in memory: brings preloaded frames round and round, and forgets what is sent.

use engine::io::{Burst, Frame, Port};

/// A frame in a pool that outlives every port.
#[derive(Clone, Copy)]
pub struct PoolFrame(&'static [u8]);

impl Frame for PoolFrame {
    #[inline]
    fn head(&self) -> &[u8] {
        self.0
    }

    #[inline]
    fn captured(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn prefetch(&self) {
        engine::conntrack::prefetch(&self.0[0]);
    }
}

/// Frames laid out one after the other, each on cache lines of its own, as in a pool of buffers.
pub struct Pool {
    bytes: &'static [u8],
    frames: Vec<(usize, usize)>,
}

impl Pool {
    /// Lays out frames; the memory is never given back, since ports hold on to it.
    pub fn new(frames: &[Vec<u8>]) -> Pool {
        let mut bytes = Vec::new();
        let mut places = Vec::with_capacity(frames.len());
        for frame in frames {
            bytes.resize(bytes.len().next_multiple_of(64), 0);
            places.push((bytes.len(), frame.len()));
            bytes.extend_from_slice(frame);
        }
        Pool { bytes: bytes.leak(), frames: places }
    }

    /// The frame at a place.
    #[inline]
    pub fn frame(&self, at: usize) -> PoolFrame {
        let (start, len) = self.frames[at];
        PoolFrame(&self.bytes[start..start + len])
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

/// One end of a wire in memory.
#[derive(Default)]
pub struct MemoryPort {
    frames: Vec<PoolFrame>,
    at: usize,
    /// Frames still to be brought.
    pub left: usize,
    /// Frames sent.
    pub sent: usize,
}

impl MemoryPort {
    /// Brings these frames from now on, in this order, `count` in all.
    pub fn load(&mut self, frames: Vec<PoolFrame>, count: usize) {
        self.frames = frames;
        self.at = 0;
        self.left = count;
    }
}

impl Port for MemoryPort {
    type Frame = PoolFrame;

    #[inline]
    fn rx(&mut self, burst: &mut Burst<PoolFrame>) {
        let count = if self.frames.is_empty() { 0 } else { burst.remaining_capacity().min(self.left) };
        for _ in 0..count {
            burst.push(self.frames[self.at]);
            self.at = if self.at + 1 == self.frames.len() { 0 } else { self.at + 1 };
        }
        self.left -= count;
    }

    #[inline]
    fn tx(&mut self, burst: &mut Burst<PoolFrame>) {
        self.sent += burst.len();
        burst.clear();
    }
}
