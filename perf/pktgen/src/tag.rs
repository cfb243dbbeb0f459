//! What each frame with a payload tells its receiver: 14 bytes, so that a frame of 64 bytes holds
//! them beside a VLAN tag.
//!
//! ```text
//! magic 8 | epoch 8 | class 3, from outside 1, flow 28 | sequence 24 | stamp 40      (big-endian)
//! ```
//!
//! The stamp is the low part of the time stamp counter: a latency is right as long as it is shorter
//! than the 400 seconds or so that 40 bits last. The epoch tells apart the trials of a search, so
//! that a straggler of one is not counted in the next.

use engine::Side;

/// Bytes of a tag.
pub const TAG: usize = 14;
const MAGIC: u8 = 0xB7;
const FLOW_BITS: u32 = 28;
const STAMP_BITS: u32 = 40;
const SEQUENCE_BITS: u32 = 24;

/// What a frame is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// Of a flow: admitted.
    Flow,
    /// The only frame of a flow of its own: admitted.
    New,
    /// Of a flow that the policy denies.
    Denied,
    /// Malformed or spoofed.
    Hostile,
    /// A SYN of a flood, to where connections are admitted.
    Flood,
}

impl Class {
    /// All of them, in the order of their numbers.
    pub const ALL: [Class; 5] = [Class::Flow, Class::New, Class::Denied, Class::Hostile, Class::Flood];

    /// As results call it.
    pub fn name(self) -> &'static str {
        ["flows", "new", "denied", "hostile", "flood"][self as usize]
    }

    /// True if a firewall with the policy of [`crate::policy`] lets it pass.
    pub fn is_admitted(self) -> bool {
        matches!(self, Class::Flow | Class::New)
    }
}

/// A tag, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The trial.
    pub epoch: u8,
    /// What the frame is sent for.
    pub class: Class,
    /// The side it was sent from.
    pub from: Side,
    /// The flow's number, below 2²⁸.
    pub flow: u32,
    /// Its number among the flow's frames of this direction, modulo 2²⁴.
    pub sequence: u32,
    /// When it was built, in cycles modulo 2⁴⁰.
    pub stamp: u64,
}

impl Tag {
    /// As bytes.
    #[inline]
    pub fn bytes(&self) -> [u8; TAG] {
        let outside = u64::from(self.from == Side::Outside);
        let flow = u64::from(self.flow) | outside << FLOW_BITS | (self.class as u64) << (FLOW_BITS + 1);
        let head = u64::from(MAGIC) << 56
            | u64::from(self.epoch) << 48
            | flow << 16
            | u64::from(self.sequence >> 8 & 0xFFFF);
        let tail = u64::from(self.sequence & 0xFF) << STAMP_BITS | self.stamp & ((1 << STAMP_BITS) - 1);
        let mut bytes = [0; TAG];
        bytes[..8].copy_from_slice(&head.to_be_bytes());
        bytes[8..].copy_from_slice(&tail.to_be_bytes()[2..]);
        bytes
    }

    /// Read from the front of `bytes`; `None` if it is no tag.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<Tag> {
        let bytes: &[u8; TAG] = bytes.first_chunk()?;
        if bytes[0] != MAGIC {
            return None;
        }
        let head = u64::from_be_bytes([
            bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
        ]);
        let tail = u64::from_be_bytes([0, 0, bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13]]);
        let flow = (head >> 16) as u32;
        Some(Tag {
            epoch: bytes[1],
            class: *Class::ALL.get((flow >> (FLOW_BITS + 1)) as usize)?,
            from: if flow >> FLOW_BITS & 1 == 1 { Side::Outside } else { Side::Inside },
            flow: flow & ((1 << FLOW_BITS) - 1),
            sequence: (head as u32 & 0xFFFF) << 8 | (tail >> STAMP_BITS) as u32,
            stamp: tail & ((1 << STAMP_BITS) - 1),
        })
    }

    /// Cycles from the stamp until `now`.
    #[inline]
    pub fn age(&self, now: u64) -> u64 {
        now.wrapping_sub(self.stamp) & ((1 << STAMP_BITS) - 1)
    }
}

/// How far `sequence` is ahead of `expected`, modulo 2²⁴; negative if it is behind.
#[inline]
pub fn ahead(sequence: u32, expected: u32) -> i32 {
    const SHIFT: u32 = 32 - SEQUENCE_BITS;
    (sequence.wrapping_sub(expected) << SHIFT) as i32 >> SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_as_it_was_written() {
        for (class, from) in Class::ALL.into_iter().zip([Side::Inside, Side::Outside].into_iter().cycle()) {
            let tag = Tag {
                epoch: 0xA5,
                class,
                from,
                flow: 0xFED_CBA9,
                sequence: 0x12_3456,
                stamp: 0xAB_CDEF_0123,
            };
            assert_eq!(Tag::read(&tag.bytes()), Some(tag));
        }
        let mut bytes =
            Tag { epoch: 0, class: Class::Flow, from: Side::Inside, flow: 0, sequence: 0, stamp: 0 }.bytes();
        assert_eq!(Tag::read(&bytes[..13]), None);
        bytes[2] = 0xE0;
        assert_eq!(Tag::read(&bytes), None, "there is no class 7");
        bytes[0] = 0;
        assert_eq!(Tag::read(&bytes), None);
    }

    #[test]
    fn ages_and_distances_wrap() {
        let tag =
            |stamp| Tag { epoch: 0, class: Class::Flow, from: Side::Inside, flow: 0, sequence: 0, stamp };
        assert_eq!(tag(5).age(7), 2);
        assert_eq!(tag((1 << 40) - 1).age(1 << 40 | 3), 4);
        assert_eq!((ahead(7, 7), ahead(9, 7), ahead(5, 7)), (0, 2, -2));
        assert_eq!((ahead(1, 0xFF_FFFF), ahead(0xFF_FFFF, 1)), (2, -2));
    }
}
