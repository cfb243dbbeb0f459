//! Two captures as one sequence in time (interfaces page, "Replay").

use engine::Side;

use super::capture::{BadCapture, Packet, Packets};

/// A packet with its side and the time it is judged at: its stamp, or that of a packet before it in its file where
/// that is later.
#[derive(Clone, Copy, Debug)]
pub struct Merged<'a> {
    /// The packet.
    pub packet: Packet<'a>,
    /// Where it came in.
    pub side: Side,
    /// Nanoseconds since the UNIX epoch; never runs back within a file.
    pub at_ns: u64,
}

impl Merged<'_> {
    /// Bytes it had on the wire; a capture that says less than it holds is not believed.
    pub fn wire_len(&self) -> usize {
        (self.packet.original as usize).max(self.packet.data.len())
    }
}

struct Lane<'a> {
    packets: Option<Packets<'a>>,
    side: Side,
    next: Option<Merged<'a>>,
    last_ns: u64,
}

impl<'a> Lane<'a> {
    fn new(packets: Option<Packets<'a>>, side: Side) -> Result<Lane<'a>, BadCapture> {
        let mut pkt = Lane { packets, side, next: None, last_ns: 0 };
        pkt.advance()?;
        Ok(pkt)
    }

    #[inline]
    fn advance(&mut self) -> Result<Option<Merged<'a>>, BadCapture> {
        let following = match &mut self.packets {
            Some(packets) => packets.next()?,
            None => None,
        };
        let following = following.map(|packet| {
            self.last_ns = self.last_ns.max(packet.stamp.nanos());
            Merged { packet, side: self.side, at_ns: self.last_ns }
        });
        Ok(std::mem::replace(&mut self.next, following))
    }
}

/// The merged sequence.
pub struct Merge<'a> {
    inside: Lane<'a>,
    outside: Lane<'a>,
}

impl<'a> Merge<'a> {
    /// Of one or two captures.
    pub fn new(inside: Option<Packets<'a>>, outside: Option<Packets<'a>>) -> Result<Merge<'a>, BadCapture> {
        Ok(Merge { inside: Lane::new(inside, Side::Inside)?, outside: Lane::new(outside, Side::Outside)? })
    }

    #[inline]
    fn inside_is_next(&self) -> bool {
        match (&self.inside.next, &self.outside.next) {
            (Some(inside), Some(outside)) => inside.at_ns <= outside.at_ns,
            (inside, _) => inside.is_some(),
        }
    }

    /// When the next packet is judged.
    pub fn peek_ns(&self) -> Option<u64> {
        let pkt = if self.inside_is_next() { &self.inside } else { &self.outside };
        pkt.next.as_ref().map(|merged| merged.at_ns)
    }

    /// The next packet.
    pub fn next(&mut self) -> Result<Option<Merged<'a>>, BadCapture> {
        if self.inside_is_next() { self.inside.advance() } else { self.outside.advance() }
    }
}
