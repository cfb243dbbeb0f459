//! Frames in memory, laid out as in a pool of buffers, and a port that brings them in any order,
//! round and round, and forgets what is sent. Traffic of ten million flows fits, where a capture
//! port would need a buffer a frame.

use std::ops::Range;

use engine::io::{BURST, Burst, Frame, Port};

/// Bytes from one frame to the next: a frame of 64 bytes, its checksum left out, on a cache line of
/// its own.
pub const SLOT: usize = 64;

/// A frame of a [`Pool`] that is loaded.
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
    fn prefetch(&self, deep: bool) {
        engine::cpu::prefetch(self.0.as_ptr());
        if deep && let Some(second) = self.0.get(SLOT) {
            engine::cpu::prefetch(second);
        }
    }
}

/// Frames of one length, one after the other, each beginning on a cache line.
pub struct Pool {
    lines: Box<[Line]>,
    /// Lines a frame.
    stride: usize,
    len: usize,
}

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; SLOT]);

impl Pool {
    /// `count` copies of a template, each then patched by its number.
    pub fn new(count: usize, template: &[u8], mut patch: impl FnMut(usize, &mut [u8])) -> Pool {
        let len = template.len();
        let stride = len.div_ceil(SLOT).max(1);
        let mut lines = engine::pages::filled_on_huge_pages(Line([0; SLOT]), count * stride);
        let bytes: *mut u8 = lines.as_mut_ptr().cast();
        for n in 0..count {
            // SAFETY: lines are bytes without padding, one after the other, and a frame is no
            // longer than its lines.
            let frame = unsafe { std::slice::from_raw_parts_mut(bytes.add(n * stride * SLOT), len) };
            frame.copy_from_slice(template);
            patch(n, frame);
        }
        Pool { lines, stride, len }
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.lines.len() / self.stride
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// A frame's bytes.
    pub fn bytes(&self, at: usize) -> &[u8] {
        let lines = &self.lines[at * self.stride..(at + 1) * self.stride];
        // SAFETY: lines are bytes without padding, one after the other, and a frame is no longer
        // than its lines.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), self.len) }
    }
}

/// Frames of a pool in the order in which a port brings them.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    /// The frames.
    pub pool: &'a Pool,
    /// Their places in the pool, round and round.
    pub order: &'a [u32],
}

/// One end of a wire in memory.
#[derive(Default)]
pub struct MemoryPort {
    load: Option<Load<'static>>,
    at: usize,
    /// Frames still to be brought.
    left: usize,
    /// Frames sent.
    pub sent: usize,
}

impl MemoryPort {
    /// Brings `count` frames from now on.
    ///
    /// # Safety
    /// The load must stay alive until [`MemoryPort::unload`], and until every frame brought is sent
    /// or freed.
    pub unsafe fn load(&mut self, load: Option<Load<'_>>, count: usize) {
        // SAFETY: the caller keeps it alive for as long as it is used.
        self.load = unsafe { std::mem::transmute::<Option<Load<'_>>, Option<Load<'static>>>(load) };
        self.at = 0;
        self.left = if self.load.is_some_and(|load| !load.order.is_empty()) { count } else { 0 };
    }

    /// Brings nothing any more.
    pub fn unload(&mut self) {
        self.load = None;
        self.left = 0;
    }

    /// True when all is brought.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }
}

impl Port for MemoryPort {
    type Frame = PoolFrame;

    #[inline]
    fn rx(&mut self, burst: &mut Burst<PoolFrame>) {
        let Some(load) = self.load else { return };
        let count = burst.remaining_capacity().min(self.left).min(BURST);
        for _ in 0..count {
            burst.push(PoolFrame(load.pool.bytes(load.order[self.at] as usize)));
            self.at = if self.at + 1 == load.order.len() { 0 } else { self.at + 1 };
        }
        self.left -= count;
    }

    #[inline]
    fn tx(&mut self, burst: &mut Burst<PoolFrame>) {
        self.sent += burst.len();
        burst.clear();
    }
}

/// Frames of one length that ports may bring for ever: their memory is never given back.
pub fn kept(frames: &[Vec<u8>]) -> Vec<PoolFrame> {
    let template = frames.first().map_or(&[][..], Vec::as_slice);
    let pool = Box::leak(Box::new(Pool::new(frames.len(), template, |n, frame| {
        frame.copy_from_slice(&frames[n]);
    })));
    (0..frames.len()).map(|at| PoolFrame(pool.bytes(at))).collect()
}

/// A random order of `places`, the same for the same seed.
pub fn shuffled(places: Range<u32>, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = places.collect();
    let mut rng = testkit::rng::Rng::new(seed);
    for at in (1..order.len()).rev() {
        order.swap(at, rng.below(at + 1));
    }
    order
}
