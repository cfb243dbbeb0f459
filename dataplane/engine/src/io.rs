//! What the engine asks of the world: frames, and ports that receive and send them in bursts.

use arrayvec::ArrayVec;

/// Frames that one `rx` call yields at most.
pub const BURST: usize = 64;

/// Frames on their way through one poll: an array of owned frames, never on the heap.
pub type Burst<F> = ArrayVec<F, BURST>;

/// One owned frame. Dropping it gives its buffer back.
pub trait Frame: Send {
    /// The captured bytes that lie together at the front (the whole frame, unless it is segmented).
    fn head(&self) -> &[u8];

    /// Bytes captured, over all segments.
    fn captured(&self) -> usize;

    /// Bytes the frame had on the wire; more than [`Frame::captured`] only in a cut capture.
    fn wire_len(&self) -> usize {
        self.captured()
    }

    /// True if the frame is segmented, or has a VLAN tag beside the data: the slow path then calls
    /// [`Frame::restore_tag`] and, where headers are cut, [`Frame::gather`].
    fn is_odd(&self) -> bool {
        false
    }

    /// Writes a VLAN tag that a driver took out of the frame back to where it was.
    /// False if there is no room, which drops the frame as `malformed`.
    fn restore_tag(&mut self) -> bool {
        true
    }

    /// Copies the frame's first bytes over all segments into `out`; returns how many.
    fn gather(&self, out: &mut [u8]) -> usize {
        let head = self.head();
        let n = head.len().min(out.len());
        out[..n].copy_from_slice(&head[..n]);
        n
    }

    /// The frame's own arrival time in nanoseconds since the UNIX epoch, where it has one
    /// (captures).
    fn stamp(&self) -> Option<u64> {
        None
    }

    /// The frame's place in its capture, where it has one.
    fn index(&self) -> Option<u64> {
        None
    }

    /// Hints that the head will be read soon: its first cache line, and with `deep` the second,
    /// too.
    fn prefetch(&self, _deep: bool) {}

    /// Hints that where the frame lies and how long it is will be read soon: of one that another
    /// core has written.
    fn prefetch_metadata(&self) {}
}

/// Why a port refused frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxRefusal {
    /// It has no room, or cannot carry them.
    Full,
    /// Its link is down, its interface is gone, or its peer is not there.
    Down,
}

/// One queue pair of one port, owned by one worker.
pub trait Port {
    /// The frames that it carries.
    type Frame: Frame;

    /// Appends up to the room left in `burst`.
    fn rx(&mut self, burst: &mut Burst<Self::Frame>);

    /// Takes frames from the front of `burst`, in order; those that it refuses stay.
    fn tx(&mut self, burst: &mut Burst<Self::Frame>);

    /// Tells the port that `_frames` of those that the last [`Port::tx`] refused are dropped; it
    /// tells why it refused them. Not part of the usual way of a burst.
    fn abandon(&mut self, _frames: usize) -> TxRefusal {
        TxRefusal::Full
    }

    /// Gives the frames' buffers back, in bulk where the driver can.
    fn free(&mut self, burst: &mut Burst<Self::Frame>) {
        burst.clear();
    }
}
