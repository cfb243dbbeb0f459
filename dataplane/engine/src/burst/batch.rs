//! The frames of one burst, with what was read of them and what became of them.

use std::ops::Deref;

use arrayvec::ArrayVec;

use crate::Reason;
use crate::fragment_queue::Ticket;
use crate::io::{BURST, Burst};
use crate::packet::{PacketMeta, ParsedBurst};
use crate::verdict::StagedVerdict;
use crate::verdict::Verdict;

/// One verdict per frame, in memory that is reused without being cleared: pushing each would check
/// for room.
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

/// Frames with their metadata and verdicts.
pub struct Batch<F> {
    /// The frames, in order of arrival. Boxed, so that bursts are swapped instead of copied.
    pub frames: Box<Burst<F>>,
    /// The metadata of each frame.
    pub pkts: ParsedBurst,
    /// The verdict of each frame, once judged.
    pub verdicts: Verdicts,
    /// Once judged: every frame passes.
    pub all_pass: bool,
    /// Once judged: all of them belong to established connections.
    pub all_established: bool,
    /// Once judged: the tickets of those that are held, in their order.
    pub tickets: ArrayVec<Ticket, BURST>,
    /// Once judged: what staged rules would decide, by the packets' index.
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
    /// Appends a parsed frame.
    #[inline]
    pub fn push(&mut self, frame: F, pkt: PacketMeta) {
        self.frames.push(frame);
        if let [place] = self.pkts.grow(1) {
            *place = pkt;
        }
    }

    /// Clears metadata and verdicts; the frames are gone already.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.pkts.clear();
        self.verdicts.len = 0;
        self.tickets.clear();
        self.staged.clear();
    }
}
