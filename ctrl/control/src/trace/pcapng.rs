//! Captured frames as pcapng (draft-ietf-opsawg-pcapng): one interface per port and side, stamps in nanoseconds, and with each packet
//! its verdict as a comment.

use engine::Side;

use super::{DecisionText, Event};
use crate::config::Wire;
use crate::model::Policy;

const SECTION: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
const MAGIC: u32 = 0x1A2B_3C4D;
const ETHERNET: u32 = 1;

mod option {
    pub const END: u16 = 0;
    pub const COMMENT: u16 = 1;
    /// Of an interface.
    pub const NAME: u16 = 2;
    pub const DESCRIPTION: u16 = 3;
    pub const RESOLUTION: u16 = 9;
    /// Of a packet.
    pub const FLAGS: u16 = 2;
    /// Of a section.
    pub const APPLICATION: u16 = 4;
    /// Of statistics: frames that had no room.
    pub const DROPPED: u16 = 5;
}

/// Packets that came in, as seen by their interface.
const INBOUND: u32 = 1;
/// A stamp's unit: 10 to the minus ninth of a second.
const NANOSECONDS: u8 = 9;

/// A port that frames come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// What it is called.
    pub name: String,
    /// What it is.
    pub description: String,
}

/// The number of the interface of a wire's side: inside and outside of the first wire, then of the next.
pub fn interface_of(wire: u16, side: Side) -> u32 {
    2 * u32::from(wire) + side as u32
}

/// A wire's ports.
pub fn interfaces_of(wire: &Wire) -> [Interface; 2] {
    [(&wire.inside, "inside"), (&wire.outside, "outside")]
        .map(|(port, side)| Interface { name: port.clone(), description: format!("{} {side}", wire.name) })
}

/// One frame.
pub struct Packet<'p> {
    /// Which interface.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub at_ns: u64,
    /// The captured bytes.
    pub bytes: &'p [u8],
    /// Bytes that there were.
    pub original: u32,
    /// What stands beside it.
    pub comment: &'p str,
}

/// Appends a block of this type, whose length stands at both of its ends.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let length = (out.len() - start + 4) as u32;
    out.extend(length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
}

fn padded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(bytes);
    out.extend(&[0; 4][..bytes.len().next_multiple_of(4) - bytes.len()]);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    // What a 16-bit length can say.
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    padded(out, value);
}

fn end_of_options(out: &mut Vec<u8>) {
    option(out, option::END, &[]);
}

/// Appends what a file begins with.
pub fn begin(out: &mut Vec<u8>, interfaces: &[Interface], snaplen: u32) {
    block(out, SECTION, |out| {
        out.extend(MAGIC.to_le_bytes());
        // Version 1.0, and a length of the section that is not known yet.
        out.extend([1, 0, 0, 0]);
        out.extend([0xFF; 8]);
        option(out, option::APPLICATION, concat!("portcullis ", env!("CARGO_PKG_VERSION")).as_bytes());
        end_of_options(out);
    });
    for interface in interfaces {
        block(out, INTERFACE, |out| {
            out.extend(ETHERNET.to_le_bytes());
            out.extend(snaplen.to_le_bytes());
            option(out, option::NAME, interface.name.as_bytes());
            option(out, option::DESCRIPTION, interface.description.as_bytes());
            option(out, option::RESOLUTION, &[NANOSECONDS]);
            end_of_options(out);
        });
    }
}

/// Appends a frame.
pub fn packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    block(out, PACKET, |out| {
        for word in [
            packet.interface,
            (packet.at_ns >> 32) as u32,
            packet.at_ns as u32,
            packet.bytes.len() as u32,
            packet.original,
        ] {
            out.extend(word.to_le_bytes());
        }
        padded(out, packet.bytes);
        option(out, option::FLAGS, &INBOUND.to_le_bytes());
        option(out, option::COMMENT, packet.comment.as_bytes());
        end_of_options(out);
    });
}

/// Appends a captured frame; the policy lends its words.
pub fn event(out: &mut Vec<u8>, event: &Event, policy: &Policy) {
    let record = &event.decision.record;
    packet(
        out,
        &Packet {
            interface: interface_of(record.wire, record.side),
            at_ns: record.at_ns,
            bytes: &event.bytes,
            original: record.len,
            comment: &DecisionText::new(&event.decision, policy).comment(),
        },
    );
}

/// Appends how many frames were lost so far, of all interfaces: told of the first.
pub fn statistics(out: &mut Vec<u8>, lost: u64) {
    block(out, STATISTICS, |out| {
        // Of no time: a reader's clock tells it better.
        out.extend([0; 12]);
        option(out, option::DROPPED, &lost.to_le_bytes());
        end_of_options(out);
    });
}
