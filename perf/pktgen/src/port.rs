//! What the generator asks of a port: bursts in and out, as the engine does, and empty frames to
//! fill.

use std::sync::Arc;

use engine::Side;
use engine::io::{self, Burst, Frame};

/// A frame that can be written.
pub trait Writable: Frame {
    /// Makes `bytes` the whole frame; false, and nothing changed, if there is no room for them.
    fn fill(&mut self, bytes: &[u8]) -> bool;

    /// The frame's bytes, to be changed in place.
    fn bytes_mut(&mut self) -> &mut [u8];
}

/// One queue pair of one port, with frames to send.
pub trait Port: io::Port<Frame: Writable> {
    /// Appends up to `count` empty frames to `burst`; returns how many: fewer if there is no room
    /// or no buffer.
    fn alloc(&mut self, count: usize, burst: &mut Burst<Self::Frame>) -> usize;
}

/// The ports of a run.
#[derive(Debug)]
pub struct Ports<P> {
    inside: Option<P>,
    outside: Option<P>,
}

impl<P> Ports<P> {
    /// A port at each side of what is tested.
    pub fn pair(inside: P, outside: P) -> Ports<P> {
        Ports { inside: Some(inside), outside: Some(outside) }
    }

    /// One port for both sides: what it sends comes back to it.
    pub fn single(port: P) -> Ports<P> {
        Ports { inside: None, outside: Some(port) }
    }

    /// True with a port for each side.
    pub fn is_pair(&self) -> bool {
        self.inside.is_some()
    }

    /// The port of a side.
    pub fn at(&mut self, side: Side) -> &mut P {
        let Ports { inside, outside } = self;
        let chosen = match side {
            Side::Inside => inside.as_mut().or(outside.as_mut()),
            Side::Outside => outside.as_mut(),
        };
        chosen.expect("there is always an outside port")
    }

    /// The sides that have a port of their own.
    pub fn sides(&self) -> &'static [Side] {
        if self.is_pair() { &[Side::Inside, Side::Outside] } else { &[Side::Outside] }
    }

    /// The ports, inside first.
    pub fn into_ports(self) -> impl Iterator<Item = P> {
        [self.inside, self.outside].into_iter().flatten()
    }
}

/// A queue pair of a DPDK port, and the pool that its frames come from. The pool's caches are per
/// thread: whoever polls it registers with [`pmd::Eal::register_thread`] first.
#[derive(Debug)]
pub struct DpdkPort {
    queue: pmd::Queue,
    pool: Arc<pmd::Mempool>,
}

impl DpdkPort {
    /// Frames of `pool` through `queue`.
    pub fn new(queue: pmd::Queue, pool: Arc<pmd::Mempool>) -> DpdkPort {
        DpdkPort { queue, pool }
    }
}

impl Writable for pmd::Mbuf {
    #[inline]
    fn fill(&mut self, bytes: &[u8]) -> bool {
        pmd::Mbuf::fill(self, bytes)
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.head_mut()
    }
}

impl io::Port for DpdkPort {
    type Frame = pmd::Mbuf;

    #[inline]
    fn rx(&mut self, burst: &mut Burst<pmd::Mbuf>) {
        self.queue.rx(burst);
    }

    #[inline]
    fn tx(&mut self, burst: &mut Burst<pmd::Mbuf>) {
        self.queue.tx(burst);
    }

    #[inline]
    fn free(&mut self, burst: &mut Burst<pmd::Mbuf>) {
        self.queue.free(burst);
    }
}

impl Port for DpdkPort {
    #[inline]
    fn alloc(&mut self, count: usize, burst: &mut Burst<pmd::Mbuf>) -> usize {
        self.pool.alloc_bulk(burst, count)
    }
}
