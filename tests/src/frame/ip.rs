//! IPv4 and IPv6 packets around any transport: options, fragments, extension headers.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
};

use super::{Build, Link, Mac};

/// An address of either family, from text or from std's types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address(pub IpAddr);

impl From<&str> for Address {
    /// # Panics
    /// If the text is no address.
    fn from(text: &str) -> Address {
        Address(text.parse().unwrap_or_else(|_| panic!("{text} is no IP address")))
    }
}

impl<A: Into<IpAddr> + Copy> From<&A> for Address {
    fn from(address: &A) -> Address {
        Address((*address).into())
    }
}

macro_rules! address_from {
    ($($std:ty),*) => {$(
        impl From<$std> for Address {
            fn from(address: $std) -> Address {
                Address(address.into())
            }
        }
    )*};
}
address_from!(IpAddr, Ipv4Addr, Ipv6Addr);

/// An address and a port: `"10.5.6.7:22"`, `"[2001:db8::7]:22"`, a `SocketAddr` or a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint(pub SocketAddr);

impl From<&str> for Endpoint {
    /// # Panics
    /// If the text is no address with a port.
    fn from(text: &str) -> Endpoint {
        Endpoint(text.parse().unwrap_or_else(|_| panic!("{text} is not ADDRESS:PORT or [ADDRESS]:PORT")))
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(endpoint: SocketAddr) -> Endpoint {
        Endpoint(endpoint)
    }
}

impl<A: Into<Address>> From<(A, u16)> for Endpoint {
    fn from((address, port): (A, u16)) -> Endpoint {
        Endpoint(SocketAddr::new(address.into().0, port))
    }
}

/// The Internet checksum (RFC 1071) over pieces that all but the last have even length.
pub fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for piece in pieces {
        for pair in piece.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The pseudo header that transports put under their checksum.
pub(super) fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
            bytes.extend([0, protocol]);
            bytes.extend((length as u16).to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
            bytes.extend((length as u32).to_be_bytes());
            bytes.extend([0, 0, 0, protocol]);
        }
        _ => unreachable!("`Packet` checks that the families agree"),
    }
    bytes
}

/// What an IP packet carries.
pub trait Transport: Clone {
    /// Its protocol number over this family.
    fn protocol(&self, over_ipv6: bool) -> u8;
    /// Its bytes, with a checksum that may cover the addresses.
    fn bytes(&self, src: IpAddr, dst: IpAddr) -> Vec<u8>;
}

/// An IPv6 extension header. Its next-header field follows from what comes behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ext {
    /// 0, with these options (padded to a multiple of 8).
    HopByHop(Vec<u8>),
    /// 43, with its type, segments left, and data (padded).
    Routing(u8, u8, Vec<u8>),
    /// 44: offset in units of 8 bytes, more fragments, identification.
    Fragment(u16, bool, u32),
    /// 60, with these options (padded).
    DestinationOptions(Vec<u8>),
    /// 51, with SPI, sequence number and check value (padded to a multiple of 4).
    Authentication(u32, u32, Vec<u8>),
    /// Any number, with all its bytes but the first, which is the next header: for headers that lie
    /// about their length.
    Raw(u8, Vec<u8>),
}

impl Ext {
    /// A hop-by-hop header with padding only.
    pub fn hop_by_hop() -> Ext {
        Ext::HopByHop(vec![])
    }

    /// A hop-by-hop header with the router alert of MLD.
    pub fn router_alert() -> Ext {
        Ext::HopByHop(vec![5, 2, 0, 0])
    }

    /// A destination options header with padding only.
    pub fn destination_options() -> Ext {
        Ext::DestinationOptions(vec![])
    }

    /// A routing header of this type, with one address in it.
    pub fn routing(kind: u8, segments_left: u8) -> Ext {
        Ext::Routing(kind, segments_left, vec![0; 20])
    }

    /// The protocol number.
    pub fn number(&self) -> u8 {
        match self {
            Ext::HopByHop(_) => 0,
            Ext::Routing(..) => 43,
            Ext::Fragment(..) => 44,
            Ext::DestinationOptions(_) => 60,
            Ext::Authentication(..) => 51,
            Ext::Raw(number, _) => *number,
        }
    }

    fn bytes(&self, next: u8) -> Vec<u8> {
        // What stands behind the next header and length bytes, filled up with PadN or zeros to a
        // multiple of 8.
        let padded = |mut data: Vec<u8>, options: bool| {
            let missing = (8 - (data.len() + 2) % 8) % 8;
            match missing {
                0 => {}
                1 => data.push(0),
                _ if options => {
                    data.extend([1, missing as u8 - 2]);
                    data.resize(data.len() + missing - 2, 0);
                }
                _ => data.resize(data.len() + missing, 0),
            }
            let mut bytes = vec![next, ((data.len() + 2) / 8 - 1) as u8];
            bytes.extend(data);
            bytes
        };
        match self {
            Ext::HopByHop(options) | Ext::DestinationOptions(options) => padded(options.clone(), true),
            Ext::Routing(kind, left, data) => padded([&[*kind, *left][..], data].concat(), false),
            Ext::Fragment(offset, more, id) => {
                let field = (offset << 3) | u16::from(*more);
                [&[next, 0][..], &field.to_be_bytes(), &id.to_be_bytes()].concat()
            }
            Ext::Authentication(spi, seq, value) => {
                let words = value.len().div_ceil(4);
                let mut bytes = vec![next, (words + 1) as u8, 0, 0];
                bytes.extend(spi.to_be_bytes());
                bytes.extend(seq.to_be_bytes());
                bytes.extend(value);
                bytes.resize(12 + 4 * words, 0);
                bytes
            }
            Ext::Raw(_, rest) => [&[next][..], rest].concat(),
        }
    }
}

/// An IPv4 or IPv6 packet (the family of its addresses) with the transport `T`.
#[derive(Clone, Debug)]
pub struct Packet<T> {
    link: Link,
    src: IpAddr,
    dst: IpAddr,
    traffic_class: u8,
    flow_label: u32,
    ttl: u8,
    id: u32,
    dont_fragment: bool,
    /// IPv4: offset in units of 8 bytes, and more fragments. IPv6 has an `Ext::Fragment`.
    fragment: (u16, bool),
    options: Vec<u8>,
    exts: Vec<Ext>,
    slice: Option<Range<usize>>,
    lies: Lies,
    /// The transport, with its own knobs.
    pub transport: T,
}

#[derive(Clone, Default, Debug)]
struct Lies {
    version: Option<u8>,
    header_words: Option<u8>,
    length: Option<u16>,
    protocol: Option<u8>,
    checksum: Option<u16>,
}

impl<T: Transport> Packet<T> {
    /// A packet around a transport.
    ///
    /// # Panics
    /// If the addresses are of two families.
    pub fn new(src: impl Into<Address>, dst: impl Into<Address>, transport: T) -> Packet<T> {
        let (src, dst) = (src.into().0, dst.into().0);
        assert_eq!(src.is_ipv4(), dst.is_ipv4(), "{src} and {dst} are of two families");
        Packet {
            link: Link::default(),
            src,
            dst,
            traffic_class: 0,
            flow_label: 0,
            ttl: 64,
            id: 1,
            dont_fragment: false,
            fragment: (0, false),
            options: vec![],
            exts: vec![],
            slice: None,
            lies: Lies::default(),
            transport,
        }
    }

    /// The source address.
    pub fn src(&self) -> IpAddr {
        self.src
    }

    /// The destination address.
    pub fn dst(&self) -> IpAddr {
        self.dst
    }

    /// Time to live, or hop limit. 64 by default.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// Type of service, or traffic class.
    pub fn traffic_class(mut self, class: u8) -> Self {
        self.traffic_class = class;
        self
    }

    /// IPv6: the flow label.
    pub fn flow_label(mut self, label: u32) -> Self {
        self.flow_label = label & 0xf_ffff;
        self
    }

    /// The identification that fragments of one datagram share (16 bits in IPv4).
    pub fn id(mut self, id: u32) -> Self {
        self.id = id;
        self
    }

    /// IPv4: sets "don't fragment".
    pub fn dont_fragment(mut self) -> Self {
        self.dont_fragment = true;
        self
    }

    /// IPv4: options, padded to a multiple of 4 (40 bytes at most are legal).
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self.options.resize(options.len().next_multiple_of(4), 0);
        self
    }

    /// IPv6: another extension header, behind those so far.
    pub fn ext(mut self, ext: Ext) -> Self {
        assert!(self.src.is_ipv6(), "extension headers are IPv6's");
        self.exts.push(ext);
        self
    }

    /// Says in the header that this is a fragment: offset in units of 8 bytes, and whether more
    /// follow. In IPv6 by a fragment header with the present [`id`](Self::id) behind the headers so
    /// far. What the fragment holds is up to [`slice`](Self::slice).
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        if self.src.is_ipv6() {
            let id = self.id;
            return self.ext(Ext::Fragment(offset, more, id));
        }
        self.fragment = (offset, more);
        self
    }

    /// Carries only this range of the datagram's fragmentable part: in IPv4 the transport, in IPv6
    /// all behind the last fragment header.
    pub fn slice(mut self, range: Range<usize>) -> Self {
        self.slice = Some(range);
        self
    }

    /// The whole datagram as fragments of at most `size` bytes each (rounded down to units of 8).
    pub fn fragments(&self, size: usize) -> Vec<Vec<u8>> {
        let whole = self.transport.bytes(self.src, self.dst).len();
        let size = (size / 8 * 8).max(8);
        (0..whole.max(1))
            .step_by(size)
            .map(|start| {
                let end = (start + size).min(whole);
                self.clone().fragment((start / 8) as u16, end < whole).slice(start..end).frame()
            })
            .collect()
    }

    /// Another version in the header (4 or 6 by the family).
    pub fn lie_version(mut self, version: u8) -> Self {
        self.lies.version = Some(version);
        self
    }

    /// IPv4: another header length, in units of 4 bytes.
    pub fn lie_header_words(mut self, words: u8) -> Self {
        self.lies.header_words = Some(words);
        self
    }

    /// IPv4's total length, IPv6's payload length.
    pub fn lie_ip_length(mut self, length: u16) -> Self {
        self.lies.length = Some(length);
        self
    }

    /// Another protocol number (in IPv6 in the last header of the chain) than the transport's.
    pub fn lie_protocol(mut self, protocol: u8) -> Self {
        self.lies.protocol = Some(protocol);
        self
    }

    /// IPv4: another header checksum.
    pub fn lie_ip_checksum(mut self, checksum: u16) -> Self {
        self.lies.checksum = Some(checksum);
        self
    }

    /// The IP packet, without a link header: what an ICMP error quotes.
    pub fn packet(&self) -> Vec<u8> {
        let transport = self.transport.bytes(self.src, self.dst);
        let protocol = self.lies.protocol.unwrap_or(self.transport.protocol(self.src.is_ipv6()));
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.v4(src, dst, protocol, &self.sliced(transport)),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.v6(src, dst, protocol, transport),
            _ => unreachable!("`new` checked that the families agree"),
        }
    }

    fn sliced(&self, bytes: Vec<u8>) -> Vec<u8> {
        match &self.slice {
            Some(range) => bytes[range.start.min(bytes.len())..range.end.min(bytes.len())].to_vec(),
            None => bytes,
        }
    }

    fn v4(&self, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let words = self.lies.header_words.unwrap_or((header / 4) as u8);
        let length = self.lies.length.unwrap_or((header + payload.len()) as u16);
        let (offset, more) = self.fragment;
        let fragment = offset & 0x1fff | u16::from(more) << 13 | u16::from(self.dont_fragment) << 14;
        let mut bytes = vec![self.lies.version.unwrap_or(4) << 4 | words & 15, self.traffic_class];
        bytes.extend(length.to_be_bytes());
        bytes.extend((self.id as u16).to_be_bytes());
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([self.ttl, protocol, 0, 0]);
        bytes.extend(src.octets());
        bytes.extend(dst.octets());
        bytes.extend(&self.options);
        let sum = self.lies.checksum.unwrap_or_else(|| checksum(&[&bytes]));
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn v6(&self, src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, transport: Vec<u8>) -> Vec<u8> {
        // From the last header to the first, since each names the one behind it. The slice cuts
        // what is behind the last fragment header, or the transport alone where there is none.
        let cut_behind = self.exts.iter().rposition(|ext| matches!(ext, Ext::Fragment(..)));
        let (mut next, mut payload) = (protocol, transport);
        if cut_behind.is_none() {
            payload = self.sliced(payload);
        }
        for (at, ext) in self.exts.iter().enumerate().rev() {
            if cut_behind == Some(at) {
                payload = self.sliced(payload);
            }
            payload = [ext.bytes(next), payload].concat();
            next = ext.number();
        }
        let length = self.lies.length.unwrap_or(payload.len() as u16);
        let version = u32::from(self.lies.version.unwrap_or(6));
        let first = version << 28 | u32::from(self.traffic_class) << 20 | self.flow_label;
        let mut bytes = first.to_be_bytes().to_vec();
        bytes.extend(length.to_be_bytes());
        bytes.extend([next, self.ttl]);
        bytes.extend(src.octets());
        bytes.extend(dst.octets());
        bytes.extend(payload);
        bytes
    }
}

impl<T: Transport> Build for Packet<T> {
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    fn link_ref(&self) -> &Link {
        &self.link
    }

    fn body(&self) -> (u16, Vec<u8>, Mac, Mac) {
        let ethertype = if self.src.is_ipv6() { 0x86dd } else { 0x0800 };
        (ethertype, self.packet(), Mac::SOURCE, Mac::of(self.dst))
    }
}
