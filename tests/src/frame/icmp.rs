//! ICMP and ICMPv6: echo, errors, neighbour discovery, MLD.

use std::net::IpAddr;

use super::{
    Address, Build, Ext, Mac, Packet, Transport,
    ip::{checksum, pseudo_header},
};

/// An ICMP message (of the version that fits the addresses); made by [`icmp`] and its like.
#[derive(Clone, Debug)]
pub struct Icmp {
    kind: u8,
    code: u8,
    rest: [u8; 4],
    payload: Vec<u8>,
    checksum: Option<u16>,
}

/// A message of any type and code.
pub fn icmp(src: impl Into<Address>, dst: impl Into<Address>, kind: u8, code: u8) -> Packet<Icmp> {
    Packet::new(src, dst, Icmp { kind, code, rest: [0; 4], payload: vec![], checksum: None })
}

/// An echo request: type 8, or 128 in IPv6.
pub fn echo_request(src: impl Into<Address>, dst: impl Into<Address>, id: u16, seq: u16) -> Packet<Icmp> {
    let src = src.into();
    icmp(src, dst, if src.0.is_ipv6() { 128 } else { 8 }, 0).id_seq(id, seq)
}

/// An echo reply: type 0, or 129 in IPv6.
pub fn echo_reply(src: impl Into<Address>, dst: impl Into<Address>, id: u16, seq: u16) -> Packet<Icmp> {
    let src = src.into();
    icmp(src, dst, if src.0.is_ipv6() { 129 } else { 0 }, 0).id_seq(id, seq)
}

/// An error (or anything else of that shape) that quotes a packet, see [`Packet::packet`]. Cut the
/// quote to say less.
pub fn icmp_error(
    src: impl Into<Address>,
    dst: impl Into<Address>,
    kind: u8,
    code: u8,
    quoted: &[u8],
) -> Packet<Icmp> {
    icmp(src, dst, kind, code).payload(quoted)
}

/// ND: a router solicitation (133) to all routers.
pub fn router_solicitation(src: impl Into<Address>) -> Packet<Icmp> {
    icmp(src, "ff02::2", 133, 0).ttl(255)
}

/// ND: a router advertisement (134).
pub fn router_advertisement(src: impl Into<Address>, dst: impl Into<Address>) -> Packet<Icmp> {
    // Hop limit 64, no flags, router for 1800 s; reachable and retransmission times left to the
    // host.
    icmp(src, dst, 134, 0).ttl(255).rest([64, 0, 0x07, 0x08]).payload([0; 8])
}

/// ND: "who has `target`?" (135), to the target's solicited-node group. From `::` it is a duplicate
/// check, and names no MAC.
pub fn neighbor_solicitation(
    mac: impl Into<Mac>,
    src: impl Into<Address>,
    target: impl Into<Address>,
) -> Packet<Icmp> {
    let (mac, src, target) = (mac.into(), src.into(), v6(target));
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group[13..].copy_from_slice(&target[13..]);
    let mut body = target.to_vec();
    if !src.0.is_unspecified() {
        body.extend([1, 1]);
        body.extend(mac.0);
    }
    icmp(src, IpAddr::from(group), 135, 0).ttl(255).payload(body).src_mac(mac)
}

/// ND: "`target` is at `mac`" (136), solicited and overriding.
pub fn neighbor_advertisement(
    mac: impl Into<Mac>,
    src: impl Into<Address>,
    dst: impl Into<Address>,
    target: impl Into<Address>,
) -> Packet<Icmp> {
    let mac = mac.into();
    let body = [&v6(target)[..], &[2, 1], &mac.0].concat();
    icmp(src, dst, 136, 0).ttl(255).rest([0x60, 0, 0, 0]).payload(body).src_mac(mac)
}

/// ND: "`destination` is reached over `target`" (137).
pub fn redirect(
    src: impl Into<Address>,
    dst: impl Into<Address>,
    target: impl Into<Address>,
    destination: impl Into<Address>,
) -> Packet<Icmp> {
    icmp(src, dst, 137, 0).ttl(255).payload([v6(target), v6(destination)].concat())
}

/// MLDv1: "I am in `group`" (131), to the group, with the router alert. Queries (130), dones (132)
/// and MLDv2 reports (143) by [`kind`](Packet::kind).
pub fn mld_report(src: impl Into<Address>, group: impl Into<Address>) -> Packet<Icmp> {
    let group = group.into();
    icmp(src, group, 131, 0).ttl(1).ext(Ext::router_alert()).payload(v6(group))
}

fn v6(address: impl Into<Address>) -> [u8; 16] {
    match address.into().0 {
        IpAddr::V6(v6) => v6.octets(),
        IpAddr::V4(v4) => panic!("this message is ICMPv6's, not for {v4}"),
    }
}

impl Packet<Icmp> {
    /// Another type.
    pub fn kind(mut self, kind: u8) -> Self {
        self.transport.kind = kind;
        self
    }

    /// Another code.
    pub fn code(mut self, code: u8) -> Self {
        self.transport.code = code;
        self
    }

    /// Identifier and sequence number: of echoes, and of the timestamp, mask and information
    /// messages.
    pub fn id_seq(self, id: u16, seq: u16) -> Self {
        let ([a, b], [c, d]) = (id.to_be_bytes(), seq.to_be_bytes());
        self.rest([a, b, c, d])
    }

    /// The second four bytes, whatever they mean: MTU, pointer, gateway, flags.
    pub fn rest(mut self, rest: [u8; 4]) -> Self {
        self.transport.rest = rest;
        self
    }

    /// What follows the first eight bytes.
    pub fn payload(mut self, payload: impl AsRef<[u8]>) -> Self {
        self.transport.payload = payload.as_ref().to_vec();
        self
    }

    /// Another checksum.
    pub fn lie_checksum(mut self, checksum: u16) -> Self {
        self.transport.checksum = Some(checksum);
        self
    }
}

impl Transport for Icmp {
    fn protocol(&self, over_ipv6: bool) -> u8 {
        if over_ipv6 { 58 } else { 1 }
    }

    fn bytes(&self, src: IpAddr, dst: IpAddr) -> Vec<u8> {
        let mut bytes = vec![self.kind, self.code, 0, 0];
        bytes.extend(self.rest);
        bytes.extend(&self.payload);
        // ICMPv6 covers the addresses, ICMP does not.
        let pseudo = if src.is_ipv6() { pseudo_header(src, dst, 58, bytes.len()) } else { vec![] };
        let sum = self.checksum.unwrap_or_else(|| checksum(&[&pseudo, &bytes]));
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}
