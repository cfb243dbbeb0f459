//! What a worker receives: while one burst is processed the next one is in hand already, and its headers are on their way.

use crate::Side;
use crate::burst::Pass;
use crate::io::{Burst, Frame, Port};
use crate::worker::{Tap, Worker};

/// How many frames ahead of the one that is read headers are asked for. Reading one takes about 20 cycles, and a header from
/// beyond the second-level cache 200 to 400.
pub(super) const HEADERS_AHEAD: usize = 24;

/// A burst that a port brought.
pub(super) struct Received<F> {
    /// Behind a pointer, so that bursts change hands without being copied.
    pub frames: Box<Burst<F>>,
    /// See [`wire_and_side`].
    pub port: usize,
    /// The port's last burst had headers beyond the first cache line, so this one is likely to.
    pub is_deep: bool,
    /// So many of its headers are asked for.
    pub asked_for: usize,
}

impl<F> Default for Received<F> {
    fn default() -> Self {
        Received { frames: Box::default(), port: 0, is_deep: false, asked_for: 0 }
    }
}

impl<F: Frame> Received<F> {
    /// Asks for the headers of its first `count` frames, as far as that was not done yet.
    #[inline(always)]
    pub fn ask_for(&mut self, count: usize) {
        let Received { frames, is_deep, asked_for, .. } = self;
        if *asked_for < count.min(frames.len()) {
            for frame in frames.iter().take(count).skip(*asked_for) {
                frame.prefetch(*is_deep);
            }
            *asked_for = count;
        }
    }
}

/// Ports in the order in which they are asked.
#[inline(always)]
pub(super) fn wire_and_side(port: usize) -> (usize, Side) {
    (port / 2, if port.is_multiple_of(2) { Side::Inside } else { Side::Outside })
}

impl<P: Port> Worker<P> {
    /// Receives the next burst that any port has. Each is asked once, beginning with the one behind that which brought the last.
    #[inline(always)]
    pub(super) fn fetch(&mut self, tap: &mut impl Tap<P::Frame>) {
        let ports = 2 * self.wires.len();
        let mut port = self.next.port;
        for _ in 0..ports {
            port = if port + 1 >= ports { 0 } else { port + 1 };
            let (wire, side) = wire_and_side(port);
            self.wires[wire].port(side).rx(&mut self.next.frames);
            if !self.next.frames.is_empty() {
                self.next.port = port;
                self.next.is_deep = self.is_deep[wire][side as usize];
                self.next.asked_for = 0;
                tap.passed(Pass::Rx);
                return;
            }
        }
    }

    /// Has a burst to process in `rx`, and the one behind it in `next`. False if no port has any.
    #[inline(always)]
    pub(super) fn receive(&mut self, tap: &mut impl Tap<P::Frame>) -> bool {
        if self.next.frames.is_empty() {
            // All of them were found empty: again from the first one.
            self.next.port = 2 * self.wires.len();
            self.fetch(tap);
            if self.next.frames.is_empty() {
                return false;
            }
            self.next.ask_for(HEADERS_AHEAD);
        }
        std::mem::swap(&mut self.rx, &mut self.next);
        self.next.port = self.rx.port;
        self.fetch(tap);
        true
    }

    /// Frames that were received and wait for the next turn, which is to follow at once: never any after a turn without frames.
    pub fn held(&self) -> usize {
        self.next.frames.len()
    }
}
