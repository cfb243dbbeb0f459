//! Frames that no firewall should let pass: malformed, spoofed, or what no host of that side may
//! send. Each is made by one small change to a good frame, and marked at its very end, so that one
//! that got through is known.

use engine::Side;

use crate::flow::{Ends, Flows};
use crate::memory::MemoryFrame;
use crate::plan::{HOSTS, Plan, mix};
use crate::port::Writable;
use crate::tag::{Class, TAG, Tag};
use crate::template::{Shape, Tcp, Template, flags};
use engine::io::Frame;

/// Frames that are made for each side, and then sent round and round.
const EACH: usize = 512;
/// Bytes of payload, the mark among them.
const PAYLOAD: usize = 64;

/// Hostile frames of both sides.
#[derive(Clone, Debug)]
pub struct Hostile {
    frames: [Vec<Vec<u8>>; 2],
    at: [usize; 2],
}

/// A good frame, and where its headers are.
struct Good {
    bytes: Vec<u8>,
    ip: usize,
    l4: usize,
    random: u64,
}

/// A change that makes a frame hostile.
type Mutation = fn(&mut Good);

/// Of IPv4 frames with TCP in them.
const V4_TCP: &[Mutation] = &[
    |f| f.bytes[f.ip] = 0x55,                         // version 5
    |f| f.bytes[f.ip] = 0x44,                         // a header of 16 bytes
    |f| f.set16(f.ip + 2, 19),                        // shorter than its header
    |f| f.set16(f.ip + 2, 0xFFF0),                    // longer than the frame
    |f| f.bytes[f.l4 + 12] = 4 << 4,                  // a TCP header of 16 bytes
    |f| f.cut_tcp(),                                  // a TCP header that ends behind the packet
    |f| f.bytes[f.l4 + 13] = 0,                       // no flags
    |f| f.bytes[f.l4 + 13] = flags::SYN | flags::FIN, // impossible, as the next ones
    |f| f.bytes[f.l4 + 13] = flags::SYN | flags::RST,
    |f| f.bytes[f.l4 + 13] = flags::FIN | flags::RST,
    |f| f.bytes[f.l4 + 13] = flags::FIN,
    |f| f.bytes[f.l4 + 13] = flags::FIN | flags::PSH | flags::URG,
    |f| f.bytes[f.l4 + 13] = flags::ACK, // of no connection
    |f| f.bytes[f.l4 + 13] = flags::SYN | flags::ACK,
    |f| f.bytes[f.l4 + 13] = flags::RST,
    |f| f.set16(f.ip + 6, 100),    // a fragment whose first is unknown
    |f| f.tiny_first_fragment(),   // a first fragment too short for its header
    |f| f.set16(f.ip - 2, 0x88B5), // no IP
    |f| f.icmp_v4(0),              // an echo reply that nobody asked for
    |f| f.icmp_v4(3),              // an error about nothing
];

/// Of IPv4 frames with UDP in them.
const V4_UDP: &[Mutation] = &[
    |f| f.set16(f.l4 + 4, 7),      // shorter than its header
    |f| f.set16(f.l4 + 4, 0x4000), // past the packet
    |f| f.set16(f.ip + 2, 24),     // a UDP header cut by the IP length
];

/// Of IPv6 frames with TCP in them.
const V6_TCP: &[Mutation] = &[
    |f| f.bytes[f.ip] = 0x40,                          // version 4
    |f| f.set16(f.ip + 4, 0x4000),                     // longer than the frame
    |f| f.extension(43, &[6, 0, 0, 1, 0, 0, 0, 0]),    // a routing header of type 0
    |f| f.extension(0, &[60, 0, 1, 4, 0, 0, 0, 0]),    // a chain that becomes …
    |f| f.extension(60, &[43, 250, 1, 4, 0, 0, 0, 0]), // … longer than the packet
    |f| (0..9).for_each(|_| f.extension(60, &[f.bytes[f.ip + 6], 0, 1, 4, 0, 0, 0, 0])), // nine extension headers
    |f| f.bytes[f.l4 + 13] = flags::SYN | flags::FIN,
    |f| f.bytes[f.l4 + 13] = flags::ACK,
    |f| f.icmp_v6(129), // an echo reply that nobody asked for
    |f| f.icmp_v6(137), // a redirect
];

impl Good {
    fn set16(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn get16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn cut_tcp(&mut self) {
        self.bytes[self.l4 + 12] = 0xF0;
        self.set16(self.ip + 2, 20 + 30);
    }

    fn tiny_first_fragment(&mut self) {
        self.set16(self.ip + 6, 0x2000);
        self.set16(self.ip + 2, 20 + 8);
    }

    fn icmp_v4(&mut self, kind: u8) {
        self.bytes[self.ip + 9] = 1;
        self.bytes[self.l4..self.l4 + 8].copy_from_slice(&[kind, 0, 0, 0, 0, 7, 0, 1]);
    }

    fn icmp_v6(&mut self, kind: u8) {
        self.bytes[self.ip + 6] = 58;
        self.bytes[self.ip + 7] = 255;
        self.bytes[self.l4..self.l4 + 8].copy_from_slice(&[kind, 0, 0, 0, 0, 7, 0, 1]);
    }

    /// Puts an extension header of this kind behind the IPv6 header; its first byte says what
    /// follows it.
    fn extension(&mut self, kind: u8, header: &[u8]) {
        let length = self.get16(self.ip + 4) + header.len() as u16;
        self.set16(self.ip + 4, length);
        self.bytes[self.ip + 6] = kind;
        self.bytes.splice(self.ip + 40..self.ip + 40, header.iter().copied());
    }
}

/// From nobody's address, or from one that its frame's sender has not: what a side must not be
/// believed.
fn spoofed(good: &mut Good, plan: &Plan, from: Side) {
    let ip = good.ip;
    match (from, good.random % 3) {
        // An instance's frame under another Ethernet address.
        (Side::Inside, 0) => good.bytes[11] ^= 0x80,
        // An address that no instance has.
        (Side::Inside, _) => good.bytes[ip + 14..ip + 16].copy_from_slice(&[0xFF, 0xFE]),
        // From the very address that it goes to.
        (Side::Outside, 0) => good.bytes.copy_within(ip + 16..ip + 20, ip + 12),
        // To an address that no instance has.
        (Side::Outside, _) if plan.servers < HOSTS => {
            good.bytes[ip + 18..ip + 20].copy_from_slice(&[0xFF, 0xFE])
        }
        (Side::Outside, _) => good.bytes.copy_within(ip + 16..ip + 20, ip + 12),
    }
}

/// In a segment that nobody has: another VLAN, or two tags.
fn segment(good: &mut Good, plan: &Plan) {
    let other = plan.vlan.map_or(4094, |vlan| if vlan == 4094 { 1 } else { vlan + 1 });
    let [high, low] = other.to_be_bytes();
    if plan.vlan.is_some() && good.random & 1 == 0 {
        good.bytes[14..16].copy_from_slice(&[high, low]);
    } else {
        good.bytes.splice(12..12, [0x81, 0, high, low]);
    }
}

impl Hostile {
    /// For the hosts of a plan.
    pub fn new(plan: &Plan) -> Hostile {
        let each = |from| (0..EACH).map(|n| make(plan, from, n)).collect();
        Hostile { frames: [each(Side::Inside), each(Side::Outside)], at: [0; 2] }
    }

    /// Fills a frame with the next one of this side; its length. `None` if there is no room.
    pub fn write<F: Writable>(&mut self, from: Side, frame: &mut F) -> Option<usize> {
        let (frames, at) = (&self.frames[from as usize], &mut self.at[from as usize]);
        let bytes = &frames[*at];
        *at = if *at + 1 == frames.len() { 0 } else { *at + 1 };
        frame.fill(bytes).then_some(bytes.len())
    }

    /// The side that a hostile frame was sent from, if it is one.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<Side> {
        let last: &[u8; TAG] = bytes.last_chunk()?;
        // Headers may end as a tag begins: all of the mark must be there.
        [Side::Inside, Side::Outside].into_iter().find(|from| *last == mark(*from))
    }

    /// All frames of a side.
    pub fn frames(&self, from: Side) -> &[Vec<u8>] {
        &self.frames[from as usize]
    }
}

/// What a hostile frame ends with: a tag whose numbers no other has.
#[inline]
fn mark(from: Side) -> [u8; TAG] {
    Tag {
        epoch: 0x5A,
        class: Class::Hostile,
        from,
        flow: 0x5A5_A5A5,
        sequence: 0xA5_A5A5,
        stamp: 0xA5_A5A5_A5A5,
    }
    .bytes()
}

/// The `number`th hostile frame of a side.
fn make(plan: &Plan, from: Side, number: usize) -> Vec<u8> {
    let random = mix(plan.seed ^ (number as u64) << 1 ^ from as u64);
    let kinds = V4_TCP.len() + V4_UDP.len() + V6_TCP.len() + 3;
    let kind = number % kinds;
    let v6 = (V4_TCP.len() + V4_UDP.len()..V4_TCP.len() + V4_UDP.len() + V6_TCP.len()).contains(&kind);
    let udp = (V4_TCP.len()..V4_TCP.len() + V4_UDP.len()).contains(&kind);
    let mut good = good(plan, from, v6, udp, random);
    let mutations = V4_TCP.iter().chain(V4_UDP).chain(V6_TCP);
    match mutations.clone().nth(kind) {
        Some(mutation) => mutation(&mut good),
        None if kind + 1 == kinds => segment(&mut good, plan),
        None => spoofed(&mut good, plan, from),
    }
    let end = good.bytes.len() - TAG;
    good.bytes[end..].copy_from_slice(&mark(from));
    good.bytes
}

/// A SYN or a datagram that would open a connection, between ports that no flow has.
fn good(plan: &Plan, from: Side, v6: bool, udp: bool, random: u64) -> Good {
    let template = Template::new(plan, Shape { from, v6, udp, payload: PAYLOAD });
    let flow = (random % u64::from(plan.flows)) as u32;
    let own = 65_535 - (random >> 32) as u16 % 1000;
    let ends = Flows::new(plan).of(flow, from, 0);
    let ends = match from {
        Side::Inside => Ends { inside_port: own, ..ends },
        Side::Outside => Ends { outside_port: own, ..ends },
    };
    let mut frame = MemoryFrame::default();
    let tcp = Tcp { sequence: random as u32, acknowledgment: 0, flags: flags::SYN };
    template.write(&mut frame, &ends, random as u16, tcp, None);
    let ip = plan.link();
    Good { bytes: frame.head().to_vec(), ip, l4: ip + if v6 { 40 } else { 20 }, random }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::plan::Spec;

    #[test]
    fn each_side_has_many_different_ones_and_all_are_known_again() {
        for vlan in [None, Some(9), Some(4094)] {
            let plan = Plan::new(Spec { vlan, ..Spec::default() }).unwrap();
            let mut hostile = Hostile::new(&plan);
            for from in [Side::Inside, Side::Outside] {
                let different: HashSet<&Vec<u8>> = hostile.frames(from).iter().collect();
                assert!(different.len() > EACH * 9 / 10, "{}", different.len());
                assert!(
                    different.iter().all(|frame| Hostile::read(frame) == Some(from) && frame.len() >= 60)
                );
                let mut frame = MemoryFrame::default();
                for n in 0..2 * EACH {
                    hostile.write(from, &mut frame).unwrap();
                    assert_eq!(frame.head(), hostile.frames(from)[n % EACH]);
                }
            }
        }
        assert_eq!(Hostile::read(&[0; 60]), None);
        assert_eq!(Hostile::read(&[0; 5]), None);
    }
}
