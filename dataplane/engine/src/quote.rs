//! The packet that an ICMP error quotes (semantics 4.5).

use crate::lane::{Lane, What};
use crate::parse::icmp_kind;
use crate::proto;

/// What can be read of a quoted packet: enough to find its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
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
    /// Bytes of its TCP payload; options count as payload where the quote is too short to tell.
    pub len: u32,
}

/// Reads the quote of an ICMP error, in `frame`; `None` if it cannot be read, or is of an ICMP error itself or of a
/// later fragment.
pub fn read(lane: &Lane, frame: &[u8]) -> Option<Quote> {
    debug_assert_eq!(lane.what, What::IcmpError);
    let end = (lane.end as usize).min(frame.len());
    let packet = frame.get(lane.l4 as usize + 8..end)?;
    if lane.v6 { v6(packet) } else { v4(packet) }
}

fn v4(packet: &[u8]) -> Option<Quote> {
    let header = packet.first_chunk::<20>()?;
    let header_len = usize::from(header[0] & 0x0F) * 4;
    let is_later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1FFF != 0;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // As of any packet, a total length shorter than its header is a lie (semantics 2.7).
    if header[0] >> 4 != 4 || header_len < 20 || total < header_len || is_later_fragment {
        return None;
    }
    let addr = |at: usize| {
        u128::from(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    let l4 = packet.get(header_len..total.min(packet.len()))?;
    transport(l4, header[9], addr(12), addr(16), (total - header_len) as u32, false)
}

fn v6(packet: &[u8]) -> Option<Quote> {
    let header = packet.first_chunk::<40>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let src = u128::from_be_bytes(*header[8..].first_chunk()?);
    let dst = u128::from_be_bytes(*header[24..].first_chunk()?);
    let end = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let packet = &packet[..end.min(packet.len())];
    let (mut next, mut at, mut is_fragment) = (header[6], 40, false);
    for _ in 0..=8 {
        if !matches!(next, 0 | 43 | 44 | 60) {
            return transport(packet.get(at..)?, next, src, dst, end.saturating_sub(at) as u32, true);
        }
        let extension = packet.get(at..)?.first_chunk::<8>()?;
        let is_later = next == 44 && u16::from_be_bytes([extension[2], extension[3]]) >> 3 != 0;
        // A type 0 routing header and a fragment of a fragment are as malformed here as in front (semantics 2.7).
        if is_later || next == 44 && is_fragment || next == 43 && extension[2] == 0 {
            return None;
        }
        is_fragment |= next == 44;
        at += if next == 44 { 8 } else { (usize::from(extension[1]) + 1) * 8 };
        next = extension[0];
    }
    None
}

fn transport(l4: &[u8], proto: u8, src: u128, dst: u128, len: u32, v6: bool) -> Option<Quote> {
    let mut quote = Quote { src, dst, proto, sport: 0, dport: 0, is_request: false, seq: 0, len: 0 };
    let is_icmp = proto == if v6 { proto::ICMPV6 } else { proto::ICMP };
    if !is_icmp && !proto::has_ports(proto) {
        return Some(quote);
    }
    // Eight bytes of the L4 header are the least that is quoted (RFC 792).
    let header = l4.first_chunk::<8>()?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if is_icmp {
        let (kind, requests): (u8, &[u8]) = (header[0], if v6 { &[128] } else { &[8, 13, 15, 17] });
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
        let tcp_header = l4.get(12).map_or(20, |offset| u32::from(offset >> 4) * 4);
        quote.len = len.saturating_sub(tcp_header);
    }
    Some(quote)
}
