//! What a worker receives: while one burst is processed the next one is received already, and its
//! headers are prefetched.

use arrayvec::ArrayVec;

use crate::Side;
use crate::burst::Pass;
use crate::io::{BURST, Burst, Frame, Port};
use crate::worker::{HandoffMeta, Tap, Worker};

/// How many frames ahead of the one that is parsed headers are prefetched. Parsing one takes about
/// 20 cycles, and a header from beyond the second-level cache 200 to 400.
pub(super) const HEADER_PREFETCH_DISTANCE: usize = 24;

/// Where frames come from: a port, or another worker's ring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RxSource {
    /// This port of this wire.
    Port(usize, Side),
    /// This one of the rings from other workers.
    Ring(usize),
}

/// Sources in polling order, each with the number under which it is remembered. Every port once a
/// turn, and behind it every ring twice: another worker hands off up to a burst per port in a turn,
/// so a ring that filled while this worker was away empties again.
pub(super) fn rx_order(wires: usize, rings: usize) -> Vec<(RxSource, usize)> {
    let port =
        |n: usize| RxSource::Port(n / 2, if n.is_multiple_of(2) { Side::Inside } else { Side::Outside });
    let rings = (0..2 * rings).map(move |n| (RxSource::Ring(n / 2), 2 * wires + n / 2));
    (0..2 * wires).flat_map(|n| std::iter::once((port(n), n)).chain(rings.clone())).collect()
}

/// A burst from a port or another worker.
pub(super) struct RxBurst<F> {
    /// Boxed, so that bursts are swapped instead of copied.
    pub frames: Box<Burst<F>>,
    /// What handed-off frames carry along; empty for a port's.
    pub metas: Box<ArrayVec<HandoffMeta, BURST>>,
    /// Its source, as an index into [`rx_order`].
    pub at: usize,
    /// The last burst from there had headers beyond the first cache line, so this one is likely to.
    pub is_deep: bool,
    /// How many of its headers are prefetched.
    pub prefetched: usize,
}

impl<F> Default for RxBurst<F> {
    fn default() -> Self {
        RxBurst { frames: Box::default(), metas: Box::default(), at: 0, is_deep: false, prefetched: 0 }
    }
}

impl<F: Frame> RxBurst<F> {
    /// Prefetches the headers of its first `count` frames, as far as that is not done yet.
    #[inline(always)]
    pub fn prefetch_headers(&mut self, count: usize) {
        let RxBurst { frames, is_deep, prefetched: asked_for, .. } = self;
        if *asked_for < count.min(frames.len()) {
            for frame in frames.iter().take(count).skip(*asked_for) {
                frame.prefetch(*is_deep);
            }
            *asked_for = count;
        }
    }
}

impl<P: Port> Worker<P> {
    /// Receives the next burst from any source. Polls each once, beginning behind the one that
    /// brought the last.
    #[inline(always)]
    pub(super) fn fetch(&mut self, tap: &mut impl Tap<P::Frame>) {
        let mut at = self.next.at;
        for _ in 0..self.sources.len() {
            at = if at + 1 >= self.sources.len() { 0 } else { at + 1 };
            let (source, number) = self.sources[at];
            match source {
                RxSource::Port(wire, side) => self.wires[wire].port(side).rx(&mut self.next.frames),
                RxSource::Ring(from) => self.fetch_from_ring(from),
            }
            if !self.next.frames.is_empty() {
                self.next.at = at;
                self.next.is_deep = self.is_deep[number];
                self.next.prefetched = 0;
                tap.passed(Pass::Rx);
                return;
            }
        }
    }

    /// Takes what another worker handed off, a burst at most. All that is known of a frame lies on
    /// a line that the other core wrote.
    #[inline(never)]
    pub(super) fn fetch_from_ring(&mut self, from: usize) {
        let RxBurst { frames, metas: hops, .. } = &mut self.next;
        self.links.rings.from[from].take(BURST, |handed| {
            handed.frame.prefetch_metadata();
            frames.push(handed.frame);
            hops.push(handed.meta);
        });
    }

    /// Makes sure that `rx` holds a burst to process, and `next` the one behind it. False if no
    /// source has any.
    #[inline(always)]
    pub(super) fn receive(&mut self, tap: &mut impl Tap<P::Frame>) -> bool {
        if self.next.frames.is_empty() {
            // All sources were found empty: again from the first one.
            self.next.at = self.sources.len();
            self.fetch(tap);
            if self.next.frames.is_empty() {
                return false;
            }
            self.next.prefetch_headers(HEADER_PREFETCH_DISTANCE);
        }
        std::mem::swap(&mut self.rx, &mut self.next);
        self.next.at = self.rx.at;
        self.fetch(tap);
        true
    }

    /// Frames that were received and wait for the next turn, which is to follow at once: none after
    /// a turn without frames.
    pub fn frames_in_hand(&self) -> usize {
        self.next.frames.len()
    }
}
