//! Frames that are held until their first fragments come (semantics 4.6): the buffers themselves,
//! nothing copied, by the numbers of [`crate::fragment_queue`].

use crate::fragment_queue::{SLOTS, Ticket};
use crate::packet::PacketMeta;

/// Held frames, each with what was read of it.
pub struct HeldFrames<F> {
    slots: Box<[Option<(F, PacketMeta)>]>,
}

impl<F> Default for HeldFrames<F> {
    fn default() -> Self {
        HeldFrames { slots: (0..SLOTS).map(|_| None).collect() }
    }
}

impl<F> HeldFrames<F> {
    /// Keeps a frame.
    pub fn keep(&mut self, ticket: Ticket, frame: F, pkt: PacketMeta) {
        if let Some(place) = self.slots.get_mut(ticket.0 as usize) {
            *place = Some((frame, pkt));
        }
    }

    /// Gives a frame back.
    pub fn take(&mut self, ticket: Ticket) -> Option<(F, PacketMeta)> {
        self.slots.get_mut(ticket.0 as usize)?.take()
    }
}
