//! What a frame says: plain slices, read by the letter of semantics 2.2 and 2.7.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes as captured, and how many there were on the wire.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    pub data: &'a [u8],
    pub wire: usize,
}

impl<'a> Bytes<'a> {
    /// What lies behind the first `skip` bytes.
    pub fn from(self, skip: usize) -> Bytes<'a> {
        let data = self.data.get(skip..).unwrap_or(&[]);
        Bytes { data, wire: self.wire.saturating_sub(skip) }
    }

    /// The first `len` bytes.
    pub fn upto(self, len: usize) -> Bytes<'a> {
        Bytes { data: &self.data[..self.data.len().min(len)], wire: self.wire.min(len) }
    }

    /// Whether the first `len` bytes are there: on the wire by the length fields, and in the
    /// capture (2.7).
    pub fn holds(self, len: usize) -> bool {
        self.data.len() >= len && self.wire >= len
    }

    pub fn u16(self, at: usize) -> u16 {
        u16::from_be_bytes([self.data[at], self.data[at + 1]])
    }

    pub fn u32(self, at: usize) -> u32 {
        u32::from(self.u16(at)) << 16 | u32::from(self.u16(at + 2))
    }

    pub fn mac(self, at: usize) -> [u8; 6] {
        self.data[at..at + 6].try_into().expect("six bytes")
    }

    pub fn v4(self, at: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.u32(at)))
    }

    pub fn v6(self, at: usize) -> IpAddr {
        let octets: [u8; 16] = self.data[at..at + 16].try_into().expect("sixteen bytes");
        IpAddr::V6(Ipv6Addr::from(octets))
    }
}

/// The tags of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tag {
    /// None, or a priority tag: VLAN 0 counts as untagged (2.2).
    Untagged,
    Vlan(u16),
    /// More than one, or a lone 0x88A8 tag (2.2).
    Odd,
}

/// The link header and what it carries.
#[derive(Clone, Copy)]
pub(super) struct Link<'a> {
    pub dst: [u8; 6],
    pub src: [u8; 6],
    pub tag: Tag,
    /// Whether any tag is there, a priority tag too.
    pub tagged: bool,
    pub ethertype: u16,
    pub payload: Bytes<'a>,
}

const DOT1Q: u16 = 0x8100;
const DOT1AD: u16 = 0x88a8;
pub(super) const ARP: u16 = 0x0806;
pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;

impl<'a> Link<'a> {
    /// `None` if the link header is cut.
    pub fn read(frame: Bytes<'a>) -> Option<Link<'a>> {
        if !frame.holds(14) {
            return None;
        }
        let (dst, src, first) = (frame.mac(0), frame.mac(6), frame.u16(12));
        // Tags are part of the link header, both where there are two (a first one of 0x88A8 is
        // refused by itself).
        let is_tag = |ethertype| matches!(ethertype, DOT1Q | DOT1AD);
        if is_tag(first) && !frame.holds(18) || first == DOT1Q && is_tag(frame.u16(16)) && !frame.holds(22) {
            return None;
        }
        if first == DOT1AD {
            return Some(Link {
                dst,
                src,
                tag: Tag::Odd,
                tagged: true,
                ethertype: first,
                payload: frame.from(14),
            });
        }
        if first != DOT1Q {
            return Some(Link {
                dst,
                src,
                tag: Tag::Untagged,
                tagged: false,
                ethertype: first,
                payload: frame.from(14),
            });
        }
        let ethertype = frame.u16(16);
        let tag = match frame.u16(14) & 0xfff {
            _ if is_tag(ethertype) => Tag::Odd,
            0 => Tag::Untagged,
            id => Tag::Vlan(id),
        };
        Some(Link { dst, src, tag, tagged: true, ethertype, payload: frame.from(18) })
    }
}

/// Whether a packet is a fragment (4.6). An IPv6 packet whose fragment header says "from 0, no
/// more" is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fragment {
    Whole,
    First,
    /// At this many bytes.
    Later(usize),
}

/// An IP packet whose headers are sound.
#[derive(Clone)]
pub(super) struct Ip<'a> {
    pub v6: bool,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub hop_limit: u8,
    /// What it carries, behind all extension headers.
    pub protocol: u8,
    pub fragment: Fragment,
    pub id: u32,
    pub has_fragment_header: bool,
    /// Extension headers between the fragment header and the L4 header.
    pub before_l4: usize,
    /// From the L4 header on, to the end of the packet.
    pub l4: Bytes<'a>,
    /// Length of the L4 header; 0 for protocols without.
    pub l4_header: usize,
}

/// A header is cut or lies.
pub(super) struct Malformed;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const DCCP: u8 = 33;
pub(super) const ICMPV6: u8 = 58;
pub(super) const SCTP: u8 = 132;
pub(super) const UDPLITE: u8 = 136;

impl<'a> Ip<'a> {
    /// Reads header, chain and L4 header; what is wrong with any of them is `malformed` (2.1, 2.7).
    pub fn read(v6: bool, bytes: Bytes<'a>) -> Result<Ip<'a>, Malformed> {
        let mut ip = if v6 { Ip::headers_v6(bytes, true)? } else { Ip::headers_v4(bytes, true)? };
        if !matches!(ip.fragment, Fragment::Later(_)) {
            ip.l4_header = ip.read_l4()?;
        }
        Ok(ip)
    }

    /// Reads the headers in front of L4 of a packet that an ICMP error quotes: it may end anywhere
    /// behind them.
    pub fn read_quoted(v6: bool, bytes: Bytes<'a>) -> Result<Ip<'a>, Malformed> {
        if v6 { Ip::headers_v6(bytes, false) } else { Ip::headers_v4(bytes, false) }
    }

    fn headers_v4(bytes: Bytes<'a>, whole: bool) -> Result<Ip<'a>, Malformed> {
        if !bytes.holds(20) || bytes.data[0] >> 4 != 4 {
            return Err(Malformed);
        }
        let header = usize::from(bytes.data[0] & 15) * 4;
        let total = usize::from(bytes.u16(2));
        // "IP total length shorter than its header or longer than the frame, a header cut" (2.7);
        // of a quote "the lengths that the quoted header states are not looked at" (4.5).
        if header < 20 || !bytes.holds(header) || whole && (total < header || total > bytes.wire) {
            return Err(Malformed);
        }
        // "A source route (IPv4 options 131 and 137) is `malformed`."
        if options(&bytes.data[20..header]).iter().any(|kind| matches!(kind, 131 | 137)) {
            return Err(Malformed);
        }
        let field = bytes.u16(6);
        let (offset, more) = (usize::from(field & 0x1fff) * 8, field & 0x2000 != 0);
        let protocol = bytes.data[9];
        Ok(Ip {
            v6: false,
            src: bytes.v4(12),
            dst: bytes.v4(16),
            hop_limit: bytes.data[8],
            protocol,
            fragment: fragment_of(offset, more),
            id: u32::from(bytes.u16(4)),
            has_fragment_header: false,
            before_l4: 0,
            l4: if whole { bytes.upto(total) } else { bytes }.from(header),
            l4_header: 0,
        })
    }

    fn headers_v6(bytes: Bytes<'a>, whole: bool) -> Result<Ip<'a>, Malformed> {
        if !bytes.holds(40) || bytes.data[0] >> 4 != 6 {
            return Err(Malformed);
        }
        let total = 40 + usize::from(bytes.u16(4));
        if whole && total > bytes.wire {
            return Err(Malformed);
        }
        let packet = if whole { bytes.upto(total) } else { bytes };
        let mut ip = Ip {
            v6: true,
            src: bytes.v6(8),
            dst: bytes.v6(24),
            hop_limit: bytes.data[7],
            protocol: bytes.data[6],
            fragment: Fragment::Whole,
            id: 0,
            has_fragment_header: false,
            before_l4: 0,
            l4: packet.from(40),
            l4_header: 0,
        };
        // "0, 43, 44, 60 are walked, at most 8 (a ninth … `malformed`)" (2.7).
        let mut walked = 0;
        while matches!(ip.protocol, 0 | 43 | 44 | 60) {
            // What a later fragment holds first is the middle of something, whatever its number
            // says.
            if matches!(ip.fragment, Fragment::Later(_)) {
                break;
            }
            walked += 1;
            let rest = ip.l4;
            if walked > 8 || !rest.holds(8) {
                return Err(Malformed);
            }
            let length = if ip.protocol == 44 { 8 } else { (usize::from(rest.data[1]) + 1) * 8 };
            // "So is a type 0 routing header."
            if !rest.holds(length) || ip.protocol == 43 && rest.data[2] == 0 {
                return Err(Malformed);
            }
            if ip.protocol == 44 {
                // A fragment of a fragment: nobody may send it (RFC 8200, 4.5).
                if ip.has_fragment_header {
                    return Err(Malformed);
                }
                let field = rest.u16(2);
                ip.fragment = fragment_of(usize::from(field & 0xfff8), field & 1 != 0);
                ip.id = rest.u32(4);
                ip.has_fragment_header = true;
                ip.before_l4 = 0;
            } else {
                ip.before_l4 += length;
            }
            ip.protocol = rest.data[0];
            ip.l4 = rest.from(length);
        }
        Ok(ip)
    }

    /// The length of the L4 header: "TCP its data offset, UDP, UDP-Lite and ICMP 8, SCTP 12, DCCP
    /// 12, others none" (2.7).
    fn read_l4(&self) -> Result<usize, Malformed> {
        let least = match self.protocol {
            TCP => 20,
            UDP | UDPLITE => 8,
            SCTP | DCCP => 12,
            _ if self.is_icmp() => 8,
            _ => 0,
        };
        if !self.l4.holds(least) {
            return Err(Malformed);
        }
        match self.protocol {
            TCP => {
                // "TCP data offset < 20 or past the segment".
                let offset = usize::from(self.l4.data[12] >> 4) * 4;
                if offset < 20 || !self.l4.holds(offset) { Err(Malformed) } else { Ok(offset) }
            }
            UDP => {
                // "UDP length < 8 or past the packet"; a first fragment cannot hold all that the
                // length counts.
                let length = usize::from(self.l4.u16(4));
                let past = self.fragment == Fragment::Whole && length > self.l4.wire;
                if length < 8 || past { Err(Malformed) } else { Ok(8) }
            }
            _ => Ok(least),
        }
    }

    /// ICMP over IPv4, or ICMPv6 over IPv6: 58 over IPv4 and 1 over IPv6 are numbers like any
    /// other.
    pub fn is_icmp(&self) -> bool {
        self.protocol == if self.v6 { ICMPV6 } else { ICMP }
    }

    /// "offset × 8 < what follows the fragment header up to the end of the L4 header" (4.6).
    pub fn headers_behind_fragment(&self) -> usize {
        self.before_l4 + self.l4_header
    }

    /// Source and destination port.
    pub fn ports(&self) -> Option<(u16, u16)> {
        let has = matches!(self.protocol, TCP | UDP | UDPLITE | SCTP | DCCP);
        (has && self.l4.data.len() >= 4).then(|| (self.l4.u16(0), self.l4.u16(2)))
    }
}

/// The kinds of IPv4 options, as far as their lengths can be believed.
fn options(bytes: &[u8]) -> Vec<u8> {
    let (mut kinds, mut at) = (vec![], 0);
    while at < bytes.len() && bytes[at] != 0 {
        kinds.push(bytes[at]);
        at += match (bytes[at], bytes.get(at + 1)) {
            (1, _) => 1,
            (_, Some(length)) if *length >= 2 => usize::from(*length),
            _ => break,
        };
    }
    kinds
}

fn fragment_of(offset: usize, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        (offset, _) => Fragment::Later(offset),
    }
}

/// The frame in a tunnel (2.2).
pub(super) enum Tunnel<'a> {
    Inner(u32, Bytes<'a>),
    /// "VXLAN without the I flag, or Geneve that does not carry Ethernet", or a tunnel header that
    /// is cut.
    Malformed,
    None,
}

/// What an unfragmented datagram to 4789 or 6081 carries.
pub(super) fn tunnel<'a>(ip: &Ip<'a>) -> Tunnel<'a> {
    if ip.protocol != UDP || ip.fragment != Fragment::Whole {
        return Tunnel::None;
    }
    let port = ip.l4.u16(2);
    let payload = ip.l4.upto(usize::from(ip.l4.u16(4))).from(8);
    let header = match port {
        4789 => 8,
        6081 if payload.holds(1) => 8 + usize::from(payload.data[0] & 0x3f) * 4,
        6081 => 8,
        _ => return Tunnel::None,
    };
    if !payload.holds(header) {
        return Tunnel::Malformed;
    }
    let readable = match port {
        4789 => payload.data[0] & 0x08 != 0,
        // A version that nobody knows yet cannot be read.
        _ => payload.data[0] >> 6 == 0 && payload.u16(2) == 0x6558,
    };
    if !readable {
        return Tunnel::Malformed;
    }
    Tunnel::Inner(payload.u32(4) >> 8, payload.from(header))
}
