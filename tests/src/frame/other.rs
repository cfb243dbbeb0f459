//! Protocols that the firewall knows by number and, at most, by ports: SCTP, DCCP, GRE, ESP, AH,
//! IGMP and any other.

use std::net::IpAddr;

use super::{
    Address, Endpoint, Packet, Transport,
    ip::{checksum, pseudo_header},
};

/// A transport of any number and bytes; made by [`ip`] and its like.
#[derive(Clone, Debug)]
pub struct Raw {
    protocol: u8,
    bytes: Vec<u8>,
}

/// A packet of any protocol; its data by [`payload`](Packet::payload).
pub fn ip(src: impl Into<Address>, dst: impl Into<Address>, protocol: u8) -> Packet<Raw> {
    Packet::new(src, dst, Raw { protocol, bytes: vec![] })
}

/// GRE (47) without options: carries a packet of this ethertype.
pub fn gre(src: impl Into<Address>, dst: impl Into<Address>, ethertype: u16, inner: &[u8]) -> Packet<Raw> {
    ip(src, dst, 47).payload([&[0, 0][..], &ethertype.to_be_bytes(), inner].concat())
}

/// ESP (50) with 32 bytes that mean nothing without the key.
pub fn esp(src: impl Into<Address>, dst: impl Into<Address>, spi: u32, seq: u32) -> Packet<Raw> {
    ip(src, dst, 50).payload([&spi.to_be_bytes()[..], &seq.to_be_bytes(), &[0xa5; 32]].concat())
}

/// AH (51) as the packet's protocol, over a packet of `next`.
pub fn ah(src: impl Into<Address>, dst: impl Into<Address>, spi: u32, next: u8, inner: &[u8]) -> Packet<Raw> {
    // 24 bytes: the length counts words less two.
    let header = [&[next, 4, 0, 0][..], &spi.to_be_bytes(), &[0, 0, 0, 1], &[0x5a; 12]].concat();
    ip(src, dst, 51).payload([&header, inner].concat())
}

/// IGMPv2 (2): "I am in `group`", to the group, with TTL 1 and the router alert.
pub fn igmp_report(src: impl Into<Address>, group: impl Into<Address>) -> Packet<Raw> {
    let group = group.into();
    let IpAddr::V4(v4) = group.0 else { panic!("IGMP is for IPv4, not {}", group.0) };
    let mut bytes = [&[0x16, 0, 0, 0][..], &v4.octets()].concat();
    let sum = checksum(&[&bytes]);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(src, group, 2).payload(bytes).ttl(1).options(&[0x94, 4, 0, 0])
}

/// DCCP (33): a request, in a header of 20 bytes with long sequence numbers.
pub fn dccp(src: impl Into<Endpoint>, dst: impl Into<Endpoint>) -> Packet<Raw> {
    let (src, dst) = (src.into().0, dst.into().0);
    let mut bytes = [src.port().to_be_bytes(), dst.port().to_be_bytes()].concat();
    bytes.extend([5, 0, 0, 0, 0x01, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    let pseudo = pseudo_header(src.ip(), dst.ip(), 33, bytes.len());
    let sum = checksum(&[&pseudo, &bytes]);
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    ip(src.ip(), dst.ip(), 33).payload(bytes)
}

impl Packet<Raw> {
    /// All bytes behind the IP header.
    pub fn payload(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.transport.bytes = bytes.as_ref().to_vec();
        self
    }
}

impl Transport for Raw {
    fn protocol(&self, _: bool) -> u8 {
        self.protocol
    }

    fn bytes(&self, _: IpAddr, _: IpAddr) -> Vec<u8> {
        self.bytes.clone()
    }
}

/// An SCTP packet; made by [`sctp`].
#[derive(Clone, Debug)]
pub struct Sctp {
    ports: (u16, u16),
    tag: u32,
    chunks: Vec<u8>,
    checksum: Option<u32>,
}

/// An SCTP packet without chunks.
pub fn sctp(src: impl Into<Endpoint>, dst: impl Into<Endpoint>) -> Packet<Sctp> {
    let (src, dst) = (src.into().0, dst.into().0);
    let transport = Sctp { ports: (src.port(), dst.port()), tag: 0, chunks: vec![], checksum: None };
    Packet::new(src.ip(), dst.ip(), transport)
}

impl Packet<Sctp> {
    /// The verification tag (0 with INIT).
    pub fn verification_tag(mut self, tag: u32) -> Self {
        self.transport.tag = tag;
        self
    }

    /// Another chunk: INIT is 1, DATA 0, ABORT 6.
    pub fn chunk(mut self, kind: u8, flags: u8, value: &[u8]) -> Self {
        let chunks = &mut self.transport.chunks;
        chunks.extend([kind, flags]);
        chunks.extend((4 + value.len() as u16).to_be_bytes());
        chunks.extend(value);
        chunks.resize(chunks.len().next_multiple_of(4), 0);
        self
    }

    /// The INIT chunk of an association that begins.
    pub fn init(self, tag: u32) -> Self {
        self.chunk(1, 0, &[&tag.to_be_bytes()[..], &[0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1]].concat())
    }

    /// Another checksum.
    pub fn lie_checksum(mut self, checksum: u32) -> Self {
        self.transport.checksum = Some(checksum);
        self
    }
}

impl Transport for Sctp {
    fn protocol(&self, _: bool) -> u8 {
        132
    }

    fn bytes(&self, _: IpAddr, _: IpAddr) -> Vec<u8> {
        let mut bytes = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.chunks);
        let sum = self.checksum.unwrap_or_else(|| crc32c(&bytes));
        // SCTP sends its CRC with the low byte first (RFC 9260, appendix A).
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

/// CRC-32C, bit by bit: tests have the time.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_crc_is_that_of_rfc_3720() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(super::crc32c(&[0; 32]), 0x8a91_36aa);
    }
}
