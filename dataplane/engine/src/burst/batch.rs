//! The frames of one burst, with what was read of them and what became of them.

use std::ops::Deref;

use arrayvec::ArrayVec;

use crate::Reason;
use crate::fragment_queue::Ticket;
use crate::io::{BURST, Burst};
use crate::packet::{PacketMeta, ParsedBurst};
use crate::staged::StagedVerdict;
use crate::verdict::Verdict;

/// A verdict a frame, in memory that is used again without being cleared: pushing each would look at the room left.
pub struct Verdicts {
    pub(super) all: Box<[Verdict; BURST]>,
    pub(super) len: usize,
}

impl Default for Verdicts {
    fn default() -> Self {
        Verdicts { all: Box::new([Verdict::nobody(Reason::Malformed); BURST]), len: 0 }
    }
}

impl Deref for Verdicts {
    type Target = [Verdict];

    #[inline]
    fn deref(&self) -> &[Verdict] {
        &self.all[..self.len]
    }
}

/// Frames with what was read of them.
pub struct Batch<F> {
    /// The frames, in order of arrival; behind a pointer, so that bursts change hands without being copied.
    pub frames: Box<Burst<F>>,
    /// A packet metadata of each frame.
    pub pkts: ParsedBurst,
    /// A verdict a frame, once judged.
    pub verdicts: Verdicts,
    /// Once judged: every frame goes on.
    pub all_pass: bool,
    /// Once judged: all of them are of established connections.
    pub all_established: bool,
    /// Once judged: where those that are held wait, in their order.
    pub tickets: ArrayVec<Ticket, BURST>,
    /// Once judged: what staged rules would decide, by the packets' places.
    pub staged: ArrayVec<(usize, StagedVerdict), BURST>,
}

impl<F> Default for Batch<F> {
    fn default() -> Self {
        Batch {
            frames: Box::default(),
            pkts: ParsedBurst::default(),
            verdicts: Verdicts::default(),
            all_pass: false,
            all_established: false,
            tickets: ArrayVec::new(),
            staged: ArrayVec::new(),
        }
    }
}

impl<F> Batch<F> {
    /// Appends a frame that was read.
    #[inline]
    pub fn push(&mut self, frame: F, pkt: PacketMeta) {
        self.frames.push(frame);
        if let [place] = self.pkts.grow(1) {
            *place = pkt;
        }
    }

    /// Forgets packet metadata and verdicts; the frames are gone already.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.pkts.clear();
        self.verdicts.len = 0;
        self.tickets.clear();
        self.staged.clear();
    }
}
