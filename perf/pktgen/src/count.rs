//! What is counted while frames go and come.

use engine::Side;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::tag::Class;

/// Latencies above this are counted as this: 2⁴⁰ cycles are minutes.
const LONGEST: u64 = 1 << 40;
/// Digits that a latency keeps.
const DIGITS: u8 = 3;

/// Frames of one class that were sent from one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Taken by the port.
    pub sent: u64,
    /// Their bytes, checksums included.
    pub sent_bytes: u64,
    /// Come back, duplicates included.
    pub received: u64,
    /// Their bytes, checksums included.
    pub received_bytes: u64,
    /// Of those that came back: there already.
    pub duplicates: u64,
    /// Of those that came back: behind one that was sent later.
    pub reordered: u64,
}

impl Tally {
    /// Sent and not come back.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received - self.duplicates)
    }

    /// Both together.
    pub fn plus(self, other: Tally) -> Tally {
        Tally {
            sent: self.sent + other.sent,
            sent_bytes: self.sent_bytes + other.sent_bytes,
            received: self.received + other.received,
            received_bytes: self.received_bytes + other.received_bytes,
            duplicates: self.duplicates + other.duplicates,
            reordered: self.reordered + other.reordered,
        }
    }
}

/// Frames that nobody waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unexpected {
    /// Not the generator's, or changed beyond recognition.
    pub foreign: u64,
    /// Come out at the side that it was sent from.
    pub misdirected: u64,
    /// Of an earlier trial, or of a connection that is over.
    pub stale: u64,
}

impl Unexpected {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.foreign + self.misdirected + self.stale
    }
}

/// Connections, and what became of them.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Connections {
    /// SYNs of new connections.
    pub opened: u64,
    /// Handshakes completed.
    pub established: u64,
    /// Closed by FINs of both sides, all of them acknowledged.
    pub closed: u64,
    /// Reset by somebody.
    pub reset: u64,
    /// Given up without an answer.
    pub failed: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Requests sent, UDP's included.
    pub requests: u64,
    /// Requests answered, UDP's included.
    pub responses: u64,
    /// Requests of UDP without an answer in time.
    pub timeouts: u64,
}

/// All counts of a measurement.
#[derive(Clone, Debug)]
pub struct Counts {
    tallies: [[Tally; 2]; Class::ALL.len()],
    /// Frames that nobody waited for.
    pub unexpected: Unexpected,
    /// Connections.
    pub connections: Connections,
    /// Offers of frames that a port did not take at once; they are offered again.
    pub refused: u64,
    /// Latencies in cycles.
    pub latency: Histogram<u64>,
}

impl Default for Counts {
    fn default() -> Counts {
        let latency = Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("these bounds are valid");
        Counts {
            tallies: Default::default(),
            unexpected: Unexpected::default(),
            connections: Connections::default(),
            refused: 0,
            latency,
        }
    }
}

impl Counts {
    /// The tally of a class and the side that it is sent from.
    #[inline]
    pub fn of(&mut self, class: Class, from: Side) -> &mut Tally {
        &mut self.tallies[class as usize][from as usize]
    }

    /// A class, both directions together.
    pub fn class(&self, class: Class) -> Tally {
        let [inside, outside] = self.tallies[class as usize];
        inside.plus(outside)
    }

    /// What was sent from a side, all classes together.
    pub fn from(&self, side: Side) -> Tally {
        self.tallies.iter().map(|of_class| of_class[side as usize]).fold(Tally::default(), Tally::plus)
    }

    /// Everything.
    pub fn total(&self) -> Tally {
        self.from(Side::Inside).plus(self.from(Side::Outside))
    }

    /// What is to pass.
    pub fn admitted(&self) -> Tally {
        let admitted = Class::ALL.into_iter().filter(|class| class.is_admitted());
        admitted.map(|class| self.class(class)).fold(Tally::default(), Tally::plus)
    }

    /// Notes a latency.
    #[inline]
    pub fn note_latency(&mut self, cycles: u64) {
        self.latency.saturating_record(cycles.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_does_not_stand_for_a_lost_one() {
        let mut counts = Counts::default();
        *counts.of(Class::Flow, Side::Outside) =
            Tally { sent: 10, received: 9, duplicates: 2, ..Tally::default() };
        *counts.of(Class::Flow, Side::Inside) = Tally { sent: 5, received: 5, ..Tally::default() };
        *counts.of(Class::Denied, Side::Outside) = Tally { sent: 4, ..Tally::default() };
        assert_eq!((counts.admitted().lost(), counts.total().lost()), (3, 7));
        assert_eq!((counts.class(Class::Flow).sent, counts.from(Side::Outside).sent), (15, 14));
    }
}
