//! Frames that are written once, and then copied: only addresses, ports, numbers and the tag are
//! put into each copy, and the checksums follow from sums taken when the template was made.
//!
//! Ones' complement sums do not depend on the order of bytes in a word (RFC 1071), so all of them
//! are taken in the machine's own.

use engine::Side;

use crate::flow::{Ends, Flows};
use crate::plan::Plan;
use crate::port::Writable;
use crate::tag::TAG;

/// TCP's flags.
pub mod flags {
    #![allow(missing_docs)]
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
}

/// First bytes of the address of every host outside; all of them are behind one router.
pub const OUTSIDE_MAC: [u8; 6] = [0x02, 0x4F, 0, 0, 0, 1];
const INSIDE_MAC: [u8; 2] = [0x02, 0x50];
const WINDOW: u16 = 0xFFFF;

/// The Ethernet address of a host inside.
pub fn inside_mac(server: u32) -> [u8; 6] {
    let [a, b, c, d] = server.to_be_bytes();
    [INSIDE_MAC[0], INSIDE_MAC[1], a, b, c, d]
}

/// What TCP says in a frame beside its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tcp {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment.
    pub acknowledgment: u32,
    /// Flags.
    pub flags: u8,
}

/// A frame of one kind and length, but for what [`Template::write`] puts in.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Box<[u8]>,
    from: Side,
    v6: bool,
    udp: bool,
    /// Where the address of the host inside stands: as source or as destination. None if frames go
    /// to a gateway.
    mac: Option<usize>,
    ip: usize,
    l4: usize,
    payload: usize,
    payload_len: usize,
    inside_net: u32,
    outside_net: u32,
    ip_sum: u64,
    l4_sum: u64,
}

/// What a template is for.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The side it is sent from.
    pub from: Side,
    /// IPv6.
    pub v6: bool,
    /// UDP, else TCP.
    pub udp: bool,
    /// Bytes of the payload; TCP may have none.
    pub payload: usize,
}

impl Template {
    /// For a frame of `length` bytes, checksum left out.
    pub fn of_length(plan: &Plan, from: Side, v6: bool, udp: bool, length: usize) -> Template {
        let headers = plan.link() + if v6 { 40 } else { 20 } + if udp { 8 } else { 20 };
        Template::new(plan, Shape { from, v6, udp, payload: length - headers })
    }

    /// With so many bytes of payload; padded to Ethernet's 60 bytes.
    pub fn new(plan: &Plan, shape: Shape) -> Template {
        let Shape { from, v6, udp, payload } = shape;
        let (ip, l4_header) = (plan.link(), if udp { 8 } else { 20 });
        let l4 = ip + if v6 { 40 } else { 20 };
        let end = l4 + l4_header + payload;
        let mut bytes = vec![0; end.max(60)];
        let mac = write_link(&mut bytes, plan, from, v6);
        let l4_length = (l4_header + payload) as u16;
        write_ip(&mut bytes[ip..], plan, shape, l4_length);
        let body = &mut bytes[l4..end];
        if udp {
            body[4..6].copy_from_slice(&l4_length.to_be_bytes());
        } else {
            body[12] = 5 << 4;
            body[14..16].copy_from_slice(&WINDOW.to_be_bytes());
        }
        for (n, byte) in body[l4_header..].iter_mut().enumerate().skip(TAG) {
            *byte = n as u8;
        }
        let ip_sum = if v6 { 0 } else { sum(&bytes[ip..ip + 20]) };
        let addresses = if v6 { sum(&bytes[ip + 8..ip + 40]) } else { 0 };
        let protocol = word([0, if udp { 17 } else { 6 }]) + word(l4_length.to_be_bytes());
        let l4_sum = sum(&bytes[l4..end]) + addresses + protocol;
        let net = |address: std::net::Ipv4Addr| if v6 { 0 } else { u32::from(address) & 0xFFFF_0000 };
        Template {
            bytes: bytes.into(),
            from,
            v6,
            udp,
            mac,
            ip,
            l4,
            payload: l4 + l4_header,
            payload_len: payload,
            inside_net: net(plan.inside_v4),
            outside_net: net(plan.outside_v4),
            ip_sum,
            l4_sum,
        }
    }

    /// Bytes of a frame, checksum left out.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the payload.
    pub fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// Never: there are always headers.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Fills a frame: between whom, with this identification (IPv4) or flow label (IPv6), what TCP
    /// says, and the tag if there is one. False if the frame has no room.
    #[inline]
    pub fn write<F: Writable>(
        &self,
        frame: &mut F,
        ends: &Ends,
        id: u16,
        tcp: Tcp,
        tag: Option<&[u8; TAG]>,
    ) -> bool {
        if !frame.fill(&self.bytes) {
            return false;
        }
        let bytes = &mut frame.bytes_mut()[..self.bytes.len()];
        if let Some(at) = self.mac {
            bytes[at..at + 4].copy_from_slice(&ends.server.to_be_bytes());
        }
        let server = (self.inside_net | Flows::host_of(ends.server)).to_be_bytes();
        let client = (self.outside_net | Flows::host_of(ends.client)).to_be_bytes();
        let (inside, outside) = (ends.inside_port.to_be_bytes(), ends.outside_port.to_be_bytes());
        let (source, destination, from, to) = match self.from {
            Side::Inside => (server, client, inside, outside),
            Side::Outside => (client, server, outside, inside),
        };
        let addresses = word4(source) + word4(destination);
        let ip = &mut bytes[self.ip..];
        if self.v6 {
            ip[2..4].copy_from_slice(&id.to_be_bytes());
            ip[20..24].copy_from_slice(&source);
            ip[36..40].copy_from_slice(&destination);
        } else {
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip[12..16].copy_from_slice(&source);
            ip[16..20].copy_from_slice(&destination);
            let check = !fold(self.ip_sum + addresses + word(id.to_be_bytes()));
            ip[10..12].copy_from_slice(&check.to_ne_bytes());
        }
        let mut l4_sum = self.l4_sum + addresses + word(from) + word(to);
        if let Some(tag) = tag {
            bytes[self.payload..self.payload + TAG].copy_from_slice(tag);
            l4_sum += sum(tag);
        }
        let l4 = &mut bytes[self.l4..];
        l4[..2].copy_from_slice(&from);
        l4[2..4].copy_from_slice(&to);
        if self.udp {
            // 0 says "no checksum"; the same sum is written as its other zero.
            let check = match !fold(l4_sum) {
                0 => 0xFFFF,
                check => check,
            };
            l4[6..8].copy_from_slice(&check.to_ne_bytes());
        } else {
            let (sequence, acknowledgment) = (tcp.sequence.to_be_bytes(), tcp.acknowledgment.to_be_bytes());
            l4[4..8].copy_from_slice(&sequence);
            l4[8..12].copy_from_slice(&acknowledgment);
            l4[13] = tcp.flags;
            l4_sum += word4(sequence) + word4(acknowledgment) + word([0, tcp.flags]);
            l4[16..18].copy_from_slice(&(!fold(l4_sum)).to_ne_bytes());
        }
        true
    }
}

/// Ethernet addresses, tag and type. Returns where the part of the inside address stands that
/// differs between hosts.
fn write_link(bytes: &mut [u8], plan: &Plan, from: Side, v6: bool) -> Option<usize> {
    let inside = inside_mac(0);
    let (destination, source, at) = match from {
        Side::Inside => (plan.gateway_mac.unwrap_or(OUTSIDE_MAC), inside, Some(8)),
        Side::Outside => {
            (plan.gateway_mac.unwrap_or(inside), OUTSIDE_MAC, plan.gateway_mac.is_none().then_some(2))
        }
    };
    bytes[..6].copy_from_slice(&destination);
    bytes[6..12].copy_from_slice(&source);
    let mut link = 12;
    if let Some(vlan) = plan.vlan {
        bytes[12..14].copy_from_slice(&[0x81, 0x00]);
        bytes[14..16].copy_from_slice(&vlan.to_be_bytes());
        link = 16;
    }
    bytes[link..link + 2].copy_from_slice(if v6 { &[0x86, 0xDD] } else { &[0x08, 0x00] });
    at
}

/// The IP header, but for checksum, identification and hosts.
fn write_ip(ip: &mut [u8], plan: &Plan, shape: Shape, l4_length: u16) {
    let protocol = if shape.udp { 17 } else { 6 };
    if shape.v6 {
        ip[0] = 6 << 4;
        ip[4..6].copy_from_slice(&l4_length.to_be_bytes());
        ip[6..8].copy_from_slice(&[protocol, 64]);
        let (inside, outside) = (plan.inside_v6.octets(), plan.outside_v6.octets());
        let (source, destination) =
            if shape.from == Side::Inside { (inside, outside) } else { (outside, inside) };
        ip[8..20].copy_from_slice(&source[..12]);
        ip[24..36].copy_from_slice(&destination[..12]);
    } else {
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&(20 + l4_length).to_be_bytes());
        // Don't fragment.
        ip[6] = 0x40;
        ip[8..10].copy_from_slice(&[64, protocol]);
    }
}

#[inline]
fn word(bytes: [u8; 2]) -> u64 {
    u64::from(u16::from_ne_bytes(bytes))
}

#[inline]
fn word4(bytes: [u8; 4]) -> u64 {
    u64::from(u32::from_ne_bytes(bytes))
}

/// The sum of these bytes as words; not yet folded.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map_or(0, |last| word([*last, 0]));
    words.iter().map(|pair| word(*pair)).sum::<u64>() + last
}

/// The ones' complement sum of 16 bits.
#[inline]
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryFrame;
    use crate::plan::{Spec, Versions};
    use engine::io::Frame;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    const ENDS: Ends = Ends { server: 700, inside_port: 80, client: 65_000, outside_port: 31_999 };

    fn write(template: &Template, tag: bool) -> Vec<u8> {
        let mut frame = MemoryFrame::default();
        let tcp = Tcp { sequence: 0xFFFE_1234, acknowledgment: 0x8765_FFFF, flags: flags::PSH | flags::ACK };
        assert!(template.write(&mut frame, &ENDS, 0xFEDC, tcp, tag.then_some(&[0xE7; TAG])));
        frame.head().to_vec()
    }

    #[test]
    fn every_kind_of_frame_is_read_by_others_as_it_should_be_and_its_checksums_are_right() {
        for (vlan, v6, udp, from, length) in (0..64).map(|n| {
            let sides = if n & 8 == 0 { Side::Inside } else { Side::Outside };
            (n & 1 == 1, n & 2 == 2, n & 4 == 4, sides, [96, 97, 600, 1514][n >> 4])
        }) {
            let spec = Spec {
                vlan: vlan.then_some(300),
                versions: Versions::Both,
                sizes: vec![200],
                ..Spec::default()
            };
            let plan = Plan::new(spec).unwrap();
            let bytes = write(&Template::of_length(&plan, from, v6, udp, length), true);
            assert_eq!(bytes.len(), length);
            let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
            assert_eq!(packet.vlan_ids().first().map(|id| id.value()), vlan.then_some(300));
            let inside = [0x02, 0x50, 0, 0, 0x02, 0xBC];
            let (destination, source) =
                if from == Side::Inside { (OUTSIDE_MAC, inside) } else { (inside, OUTSIDE_MAC) };
            assert_eq!((&bytes[..6], &bytes[6..12]), (&destination[..], &source[..]));
            let (inside, outside) = match packet.net.as_ref().unwrap() {
                NetSlice::Ipv4(ip) => {
                    let header = ip.header();
                    assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
                    assert_eq!(header.identification(), 0xFEDC);
                    let (source, destination) =
                        (header.source_addr().to_string(), header.destination_addr().to_string());
                    if from == Side::Inside { (source, destination) } else { (destination, source) }
                }
                NetSlice::Ipv6(ip) => {
                    let header = ip.header();
                    assert_eq!(header.flow_label().value(), 0xFEDC);
                    let (source, destination) =
                        (header.source_addr().to_string(), header.destination_addr().to_string());
                    if from == Side::Inside { (source, destination) } else { (destination, source) }
                }
                other => panic!("{other:?}"),
            };
            let expected =
                if v6 { ("2001:2:0:1::2bd", "2001:2:0:2::fde9") } else { ("198.19.2.189", "198.18.253.233") };
            assert_eq!((&*inside, &*outside), expected);
            check_transport(&packet, from);
        }
    }

    fn check_transport(packet: &SlicedPacket, from: Side) {
        let (source, destination) = match packet.transport.as_ref().unwrap() {
            TransportSlice::Udp(udp) => {
                let right = match packet.net.as_ref().unwrap() {
                    NetSlice::Ipv4(ip) => {
                        udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload())
                    }
                    NetSlice::Ipv6(ip) => {
                        udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), udp.payload())
                    }
                    other => panic!("{other:?}"),
                };
                assert_eq!(udp.checksum(), right.unwrap());
                assert!(udp.payload().starts_with(&[0xE7; TAG]));
                (udp.source_port(), udp.destination_port())
            }
            TransportSlice::Tcp(tcp) => {
                let right = match packet.net.as_ref().unwrap() {
                    NetSlice::Ipv4(ip) => {
                        tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
                    }
                    NetSlice::Ipv6(ip) => {
                        tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
                    }
                    other => panic!("{other:?}"),
                };
                assert_eq!(tcp.checksum(), right.unwrap());
                assert_eq!((tcp.sequence_number(), tcp.acknowledgment_number()), (0xFFFE_1234, 0x8765_FFFF));
                assert!(tcp.psh() && tcp.ack() && !tcp.syn() && tcp.payload().starts_with(&[0xE7; TAG]));
                (tcp.source_port(), tcp.destination_port())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!((source, destination), if from == Side::Inside { (80, 31_999) } else { (31_999, 80) });
    }

    #[test]
    fn segments_without_payload_are_padded_and_frames_to_a_gateway_bear_its_address() {
        let gateway = [2, 9, 9, 9, 9, 9];
        let plan = Plan::new(Spec { gateway_mac: Some(gateway), ..Spec::default() }).unwrap();
        for from in [Side::Inside, Side::Outside] {
            let bytes =
                write(&Template::new(&plan, Shape { from, v6: false, udp: false, payload: 0 }), false);
            assert_eq!((bytes.len(), &bytes[..6]), (60, &gateway[..]));
            let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
            check_no_payload(&packet);
        }
    }

    fn check_no_payload(packet: &SlicedPacket) {
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (&packet.net, &packet.transport)
        else {
            panic!("{packet:?}")
        };
        assert_eq!((tcp.payload().len(), ip.header().total_len()), (0, 40));
        let right = tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination());
        assert_eq!(tcp.checksum(), right.unwrap());
    }
}
