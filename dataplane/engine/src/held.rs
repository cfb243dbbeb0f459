//! Frames that are held until their first fragments come (semantics 4.6): the buffers themselves, nothing copied, by the numbers of
//! [`crate::waits`].

use crate::lane::Lane;
use crate::waits::{PLACES, Ticket};

/// Held frames, each with what was read of it.
pub struct Held<F> {
    places: Box<[Option<(F, Lane)>]>,
}

impl<F> Default for Held<F> {
    fn default() -> Self {
        Held { places: (0..PLACES).map(|_| None).collect() }
    }
}

impl<F> Held<F> {
    /// Keeps a frame.
    pub fn keep(&mut self, ticket: Ticket, frame: F, lane: Lane) {
        if let Some(place) = self.places.get_mut(ticket.0 as usize) {
            *place = Some((frame, lane));
        }
    }

    /// Gives a frame back.
    pub fn take(&mut self, ticket: Ticket) -> Option<(F, Lane)> {
        self.places.get_mut(ticket.0 as usize)?.take()
    }
}
