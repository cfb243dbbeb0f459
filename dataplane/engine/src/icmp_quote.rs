//! The packet that an ICMP error quotes (semantics 4.5).

use crate::packet::{PacketKind, PacketMeta};
use crate::parse::{has_source_route, icmp_kind};
use crate::proto;

/// What can be read of a quoted packet: enough to find its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotedPacket {
    /// Source of the quoted packet.
    pub src: u128,
    /// Destination of the quoted packet.
    pub dst: u128,
    /// Its protocol.
    pub proto: u8,
    /// Source port or ICMP identifier.
    pub sport: u16,
    /// Destination port; of ICMP the kind of request.
    pub dport: u16,
    /// Of ICMP: it was a request, not a reply.
    pub is_request: bool,
    /// TCP sequence number.
    pub seq: u32,
}

/// Reads the quote of an ICMP error, in `frame`; `None` if it cannot be read, or is of an ICMP
/// error itself or of a later fragment. The lengths that its headers state are not looked at:
/// gateways alter them. What is there is what counts.
pub fn read(pkt: &PacketMeta, frame: &[u8]) -> Option<QuotedPacket> {
    debug_assert_eq!(pkt.kind, PacketKind::IcmpError);
    let end = (pkt.end as usize).min(frame.len());
    let packet = frame.get(pkt.l4 as usize + 8..end)?;
    if pkt.v6 { v6(packet) } else { v4(packet) }
}

fn v4(packet: &[u8]) -> Option<QuotedPacket> {
    let header = packet.first_chunk::<20>()?;
    let header_len = usize::from(header[0] & 0x0F) * 4;
    let is_later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1FFF != 0;
    if header[0] >> 4 != 4 || header_len < 20 || is_later_fragment {
        return None;
    }
    let (options, l4) = packet[20..].split_at_checked(header_len - 20)?;
    // As malformed here as in front (semantics 2.7).
    if has_source_route(options) {
        return None;
    }
    let addr = |at: usize| {
        u128::from(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    transport(l4, header[9], addr(12), addr(16), false)
}

fn v6(packet: &[u8]) -> Option<QuotedPacket> {
    let header = packet.first_chunk::<40>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let src = u128::from_be_bytes(*header[8..].first_chunk()?);
    let dst = u128::from_be_bytes(*header[24..].first_chunk()?);
    let (mut next, mut at, mut is_fragment) = (header[6], 40, false);
    for _ in 0..=8 {
        if !matches!(next, 0 | 43 | 44 | 60) {
            return transport(packet.get(at..)?, next, src, dst, true);
        }
        let extension = packet.get(at..)?.first_chunk::<8>()?;
        let is_later = next == 44 && u16::from_be_bytes([extension[2], extension[3]]) >> 3 != 0;
        // A type 0 routing header and a fragment of a fragment are as malformed here as in front
        // (semantics 2.7).
        if is_later || next == 44 && is_fragment || next == 43 && extension[2] == 0 {
            return None;
        }
        is_fragment |= next == 44;
        at += if next == 44 { 8 } else { (usize::from(extension[1]) + 1) * 8 };
        next = extension[0];
    }
    None
}

fn transport(l4: &[u8], proto: u8, src: u128, dst: u128, v6: bool) -> Option<QuotedPacket> {
    let mut quote = QuotedPacket { src, dst, proto, sport: 0, dport: 0, is_request: false, seq: 0 };
    let is_icmp = proto == if v6 { proto::ICMPV6 } else { proto::ICMP };
    if !is_icmp && !proto::has_ports(proto) {
        return Some(quote);
    }
    // Eight bytes of the L4 header are the least that is quoted (RFC 792).
    let header = l4.first_chunk::<8>()?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if is_icmp {
        let (kind, requests): (u8, &[u8]) = (header[0], if v6 { &[128, 160] } else { &[8, 13, 15, 17, 42] });
        let asked = icmp_kind(kind, v6);
        if !requests.contains(&asked) {
            return None;
        }
        quote.is_request = asked == kind;
        quote.sport = word(4);
        quote.dport = u16::from(asked);
    } else {
        quote.sport = word(0);
        quote.dport = word(2);
        quote.seq = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    }
    Some(quote)
}
