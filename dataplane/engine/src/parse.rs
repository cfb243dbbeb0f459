//! From a frame's bytes to a [`PacketMeta`]: Ethernet, one 802.1Q tag, ARP, IPv4, IPv6 with its
//! extension headers, the L4 header, and the tunnels that bear a VPC's number (VXLAN, RFC 7348;
//! Geneve, RFC 8926).
//!
//! Lengths that headers name are compared with the frame's length on the wire; headers must lie
//! within the captured bytes (semantics 2.7). Nothing is allocated, no byte is believed, and every
//! read is bounds-checked.

mod v6;
#[cfg(target_arch = "x86_64")]
mod vector;

use crate::SegmentKey;
use crate::cpu::{Isa, V3};
use crate::flow_key::{State, required_state_bits};
use crate::packet::{Arrival, Fragment, NO_SCALE, PacketKind, PacketMeta, V4Tuple, flags, mac_bits};
use crate::proto;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88A8;
const IPV6: u16 = 0x86DD;
const VXLAN_PORT: u16 = 4789;
const GENEVE_PORT: u16 = 6081;
/// How the addresses begin that bridges keep to themselves.
const LINK_LOCAL: [u8; 4] = [0x01, 0x80, 0xC2, 0x00];
/// 01:80:C2:00:00:00–0F.
const LINK_LOCAL_MACS: u64 = 0x0180_C200_0000;
/// Extension headers that are walked at most (semantics 2.7).
const MAX_EXTENSIONS: usize = 8;

/// Where in a frame a packet lies.
#[derive(Clone, Copy)]
struct PacketOffset {
    /// 14 bytes before its IP header.
    at: usize,
    /// Its Ethernet addresses.
    macs: usize,
    /// Its VPC's.
    segment: SegmentKey,
}

const UNTAGGED: PacketOffset = PacketOffset { at: 0, macs: 0, segment: SegmentKey::UNTAGGED };

/// Reads the frame whose captured bytes are `data` and which had `wire_len` bytes. With tunnels,
/// untagged frames are only what carries tunnels (semantics 2.2).
///
/// With x86-64-v3, by vectors for what is most common of all.
#[inline(always)]
pub fn parse(isa: impl Isa, data: &[u8], wire_len: usize, arrival: &Arrival, pkt: &mut PacketMeta) {
    #[cfg(target_arch = "x86_64")]
    if let Some(v3) = isa.v3() {
        if arrival.tunnels || !vector::read_untagged(v3, data, wire_len, arrival, pkt) {
            // SAFETY: the token proves that the processor has what the function is compiled for.
            unsafe { parse_other(v3, data, wire_len, arrival, pkt) }
        }
        pkt.len = wire_len as u32;
        return;
    }
    parse_baseline(data, wire_len, arrival, pkt);
}

fn parse_baseline(data: &[u8], wire_len: usize, arrival: &Arrival, pkt: &mut PacketMeta) {
    let is_read = !arrival.tunnels
        && (fast_ipv4(data, wire_len, arrival, pkt).is_some()
            || v6::read_at(data, wire_len, UNTAGGED, arrival, pkt));
    if !is_read {
        parse_slow(data, wire_len, arrival, pkt);
    }
    pkt.len = wire_len as u32;
}

/// One call for all that is not untagged and plain, so that the loop around it saves as little as
/// it can.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,movbe,lzcnt")]
#[inline(never)]
fn parse_other(v3: V3, data: &[u8], wire_len: usize, arrival: &Arrival, pkt: &mut PacketMeta) {
    if !vector::read_other(v3, data, wire_len, arrival, pkt) {
        parse_slow(data, wire_len, arrival, pkt);
    }
}

#[inline(never)]
fn parse_slow(data: &[u8], wire_len: usize, arrival: &Arrival, pkt: &mut PacketMeta) {
    *pkt = PacketMeta { wscale: NO_SCALE, ..PacketMeta::of(arrival) };
    pkt.kind = link(data, wire_len, pkt);
}

/// The commonest frames of all, read in one go: untagged, IPv4 without options, whole, TCP or UDP
/// that is not DHCP. `None` leaves everything else, and everything odd, to [`link`], which reads
/// these frames alike (a test compares the two). Fields that lie together are loaded together.
#[inline(always)]
fn fast_ipv4(data: &[u8], wire_len: usize, arrival: &Arrival, pkt: &mut PacketMeta) -> Option<()> {
    let h: &[u8; 54] = data.first_chunk()?;
    let end = 14 + usize::from(u16::from_be_bytes([h[16], h[17]]));
    let dst_mac = word64(h, 0) >> 16;
    // Ethertype, version and header length; fragment offset and more fragments.
    let is_odd = (word32(h, 12) >> 8 ^ 0x08_0045) | word32(h, 20) >> 16 & 0x3FFF;
    if is_odd != 0 || end > wire_len || end < 42 || dst_mac & !0xF == LINK_LOCAL_MACS {
        return None;
    }
    let ports = word32(h, 34);
    let l4 = match h[23] {
        proto::TCP => fast_tcp(h, data, end)?,
        proto::UDP => {
            let len = usize::from(u16::from_be_bytes([h[38], h[39]]));
            // DHCP has the ports 67 and 68.
            if len < 8 || 34 + len > end || ports >> 16 & !7 == 64 {
                return None;
            }
            FastL4 { what: PacketKind::WithPorts, wscale: NO_SCALE, ..FastL4::default() }
        }
        _ => return None,
    };
    let addresses = word64(h, 26);
    let (src, dst) = ((addresses >> 32) as u32, addresses as u32);
    let (sport, dport) = ((ports >> 16) as u16, ports as u16);
    let state = match l4.what {
        PacketKind::WithPorts => Some(State::TwoWay),
        _ if l4.flags == flags::ACK => Some(State::Established),
        _ => None,
    };
    *pkt = PacketMeta {
        src: u128::from(src),
        dst: u128::from(dst),
        src_mac: word64(h, 6) >> 16,
        dst_mac,
        ack: l4.ack,
        seq: l4.seq,
        seq_end: l4.seq_end,
        end: end as u32,
        dport,
        sport,
        win: l4.win,
        wscale: l4.wscale,
        l3: 14,
        l4: 34,
        fast_v4: true,
        proto: h[23],
        kind: l4.what,
        flags: l4.flags,
        ttl: h[22],
        tuple: V4Tuple::new(
            arrival.side,
            (src, sport),
            (dst, dport),
            u32::from(h[23]) | required_state_bits(state),
        ),
        ..PacketMeta::of(arrival)
    };
    Some(())
}

/// The big-endian word at a place inside, by one load: put together from bytes, those that two
/// words have in common would be loaded one by one.
#[inline(always)]
fn word32(h: &[u8; 54], at: usize) -> u32 {
    u32::from_be_bytes(h[at..].first_chunk().copied().unwrap_or_default())
}

#[inline(always)]
fn word64(h: &[u8; 54], at: usize) -> u64 {
    u64::from_be_bytes(h[at..].first_chunk().copied().unwrap_or_default())
}

/// What TCP has more than ports.
#[derive(Default)]
struct FastL4 {
    what: PacketKind,
    seq: u32,
    seq_end: u32,
    ack: u32,
    win: u16,
    wscale: u8,
    flags: u8,
}

#[inline(always)]
fn fast_tcp(h: &[u8; 54], data: &[u8], end: usize) -> Option<FastL4> {
    let tail = word32(h, 46);
    let payload = 34 + (tail >> 28) as usize * 4;
    let bits = (tail >> 16) as u8;
    if payload < 54 || payload > end.min(data.len()) {
        return None;
    }
    let segment_flags = bits & (flags::FIN | flags::SYN | flags::RST | flags::ACK);
    let numbers = word64(h, 38);
    let seq = (numbers >> 32) as u32;
    Some(FastL4 {
        what: PacketKind::Tcp,
        seq,
        seq_end: seq.wrapping_add((end - payload) as u32).wrapping_add(syn_and_fin(segment_flags)),
        ack: numbers as u32,
        win: tail as u16,
        wscale: if bits & flags::SYN == 0 { NO_SCALE } else { window_scale(&data[54..payload]) },
        flags: segment_flags,
    })
}

#[inline]
fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

#[inline]
fn be32(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

#[inline]
fn ethernet(data: &[u8], at: usize, pkt: &mut PacketMeta) -> Option<u16> {
    let header: &[u8; 14] = data.get(at..)?.first_chunk()?;
    pkt.dst_mac = mac_bits(*header.first_chunk()?);
    pkt.src_mac = mac_bits(*header[6..].first_chunk()?);
    Some(u16::from_be_bytes([header[12], header[13]]))
}

#[inline]
fn link(data: &[u8], wire_len: usize, pkt: &mut PacketMeta) -> PacketKind {
    let Some(ethertype) = ethernet(data, 0, pkt) else { return PacketKind::TruncatedLink };
    pkt.link_local = pkt.dst_mac & !0xF == LINK_LOCAL_MACS;
    let (ethertype, at) = if ethertype == VLAN || ethertype == QINQ {
        match tag(data, ethertype, pkt) {
            Ok(inner) => (inner, 18),
            Err(what) => {
                // A cut link header is malformed wherever the frame goes; a tunnel's is behind
                // this.
                pkt.link_local &= what != PacketKind::TruncatedLink;
                return what;
            }
        }
    } else {
        (ethertype, 14)
    };
    if pkt.tunnels && pkt.segment == SegmentKey::UNTAGGED {
        return underlay(data, at, wire_len, ethertype, pkt);
    }
    network(data, at, wire_len, ethertype, pkt)
}

/// One 802.1Q tag: its ethertype, with the segment noted.
fn tag(data: &[u8], outer: u16, pkt: &mut PacketMeta) -> Result<u16, PacketKind> {
    let (Some(tci), Some(inner)) = (be16(data, 14), be16(data, 16)) else {
        return Err(PacketKind::TruncatedLink);
    };
    if outer == QINQ {
        return Err(PacketKind::BadSegment);
    }
    if inner == VLAN || inner == QINQ {
        return Err(if data.len() < 22 { PacketKind::TruncatedLink } else { PacketKind::BadSegment });
    }
    pkt.segment = SegmentKey::vlan(tci & 0x0FFF);
    Ok(inner)
}

#[inline]
fn network(data: &[u8], at: usize, wire_len: usize, ethertype: u16, pkt: &mut PacketMeta) -> PacketKind {
    pkt.l3 = at as u16;
    pkt.end = wire_len as u32;
    match ethertype {
        IPV4 => ipv4(data, at, wire_len, pkt),
        IPV6 => ipv6(data, at, wire_len, pkt),
        ARP => PacketKind::Arp,
        other => {
            pkt.dport = other;
            PacketKind::NotIp
        }
    }
}

#[inline]
fn ipv4(data: &[u8], at: usize, wire_len: usize, pkt: &mut PacketMeta) -> PacketKind {
    let Some(header) = data.get(at..).and_then(|d| d.first_chunk::<20>()) else {
        return PacketKind::Malformed;
    };
    let header_len = usize::from(header[0] & 0x0F) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let l4 = at + header_len;
    let end = at + total;
    if header[0] >> 4 != 4 || header_len < 20 || total < header_len || end > wire_len || l4 > data.len() {
        return PacketKind::Malformed;
    }
    if header_len > 20 && has_source_route(&data[at + 20..l4]) {
        return PacketKind::Malformed;
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    pkt.ttl = header[8];
    pkt.proto = header[9];
    pkt.src = u128::from(u32::from_be_bytes([header[12], header[13], header[14], header[15]]));
    pkt.dst = u128::from(u32::from_be_bytes([header[16], header[17], header[18], header[19]]));
    pkt.end = end as u32;
    if fragment & 0x3FFF != 0 {
        pkt.frag_proto = header[9];
        pkt.frag_id = u32::from(u16::from_be_bytes([header[4], header[5]]));
        note_fragment(fragment & 0x1FFF, fragment & 0x2000 != 0, pkt);
    }
    transport(data, l4, l4, header[9], pkt)
}

/// True if a source route is among these IPv4 options (RFC 791, 3.1), loose (131) or strict (137):
/// it would have the packet judged for one destination and delivered to another. Options that lie
/// about their length end the list, as they do for who receives it.
pub fn has_source_route(mut options: &[u8]) -> bool {
    while let [kind, rest @ ..] = options {
        match (kind, rest) {
            (0, _) => break,
            (1, _) => options = rest,
            (131 | 137, _) => return true,
            (_, [len, ..]) if *len >= 2 && usize::from(*len) <= options.len() => {
                options = &options[usize::from(*len)..]
            }
            _ => break,
        }
    }
    false
}

fn note_fragment(offset: u16, more: bool, pkt: &mut PacketMeta) {
    if offset != 0 {
        pkt.fragment = Fragment::Later;
        pkt.reach = offset * 8;
    } else if more {
        pkt.fragment = Fragment::First;
    }
}

#[inline]
fn ipv6(data: &[u8], at: usize, wire_len: usize, pkt: &mut PacketMeta) -> PacketKind {
    let Some(header) = data.get(at..).and_then(|d| d.first_chunk::<40>()) else {
        return PacketKind::Malformed;
    };
    let end = at + 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || end > wire_len {
        return PacketKind::Malformed;
    }
    pkt.v6 = true;
    pkt.ttl = header[7];
    if let (Some(src), Some(dst)) = (header[8..].first_chunk(), header[24..].first_chunk()) {
        pkt.src = u128::from_be_bytes(*src);
        pkt.dst = u128::from_be_bytes(*dst);
    }
    pkt.end = end as u32;
    let next = header[6];
    pkt.proto = next;
    if is_extension(next) {
        return extensions(data, at + 40, next, pkt);
    }
    transport(data, at + 40, at + 40, next, pkt)
}

/// Hop-by-hop options, routing, fragment, destination options.
#[inline]
fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | 44 | 60)
}

/// Walks the chain (RFC 8200 §4) up to the L4 header or a later fragment.
fn extensions(data: &[u8], mut at: usize, mut next: u8, pkt: &mut PacketMeta) -> PacketKind {
    let end = (pkt.end as usize).min(data.len());
    let mut behind_fragment = None;
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(next) {
            break;
        }
        let Some(header) = data.get(at..end).and_then(|d| d.first_chunk::<8>()) else {
            return PacketKind::Malformed;
        };
        let len = if next == 44 { 8 } else { (usize::from(header[1]) + 1) * 8 };
        if at + len > end || (next == 43 && header[2] == 0) {
            return PacketKind::Malformed;
        }
        if next == 44 {
            // A fragment within a fragment is nobody's honest packet, and hides its headers from
            // every check.
            if pkt.fragment_header {
                return PacketKind::Malformed;
            }
            pkt.fragment_header = true;
            pkt.frag_id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let field = u16::from_be_bytes([header[2], header[3]]);
            note_fragment(field >> 3, field & 1 != 0, pkt);
            behind_fragment = Some(at + 8);
            if pkt.fragment == Fragment::Later {
                pkt.l4 = (at + 8) as u16;
                return PacketKind::LaterFragment;
            }
        }
        next = header[0];
        at += len;
    }
    if is_extension(next) {
        return PacketKind::Malformed;
    }
    pkt.proto = next;
    transport(data, at, behind_fragment.unwrap_or(at), next, pkt)
}

/// The L4 header at `at`; `reach_from` is where a reassembler puts the bytes of the fragments.
#[inline]
fn transport(data: &[u8], at: usize, reach_from: usize, protocol: u8, pkt: &mut PacketMeta) -> PacketKind {
    pkt.l4 = at as u16;
    if pkt.fragment == Fragment::Later {
        return if protocol == proto::IGMP && !pkt.v6 {
            PacketKind::Multicast
        } else {
            PacketKind::LaterFragment
        };
    }
    let end = pkt.end as usize;
    let header = &data[at.min(data.len())..end.min(data.len()).max(at.min(data.len()))];
    let (what, header_len) = match protocol {
        proto::TCP => tcp(header, end - at, pkt),
        proto::UDP => udp(header, end - at, pkt),
        proto::UDPLITE => ports(header, 8, pkt),
        proto::SCTP | proto::DCCP => ports(header, 12, pkt),
        proto::ICMP if !pkt.v6 => icmp(header, pkt),
        proto::ICMPV6 if pkt.v6 => icmpv6(header, pkt),
        proto::IGMP if !pkt.v6 => (PacketKind::Multicast, 0),
        _ => (PacketKind::OtherProtocol, 0),
    };
    if pkt.fragment == Fragment::First {
        // At most eight extension headers of 2 kB, and an L4 header.
        pkt.reach = (at - reach_from + header_len) as u16;
    }
    what
}

#[inline]
fn tcp(header: &[u8], segment_len: usize, pkt: &mut PacketMeta) -> (PacketKind, usize) {
    let Some(fixed) = header.first_chunk::<20>() else { return (PacketKind::Malformed, 0) };
    let header_len = usize::from(fixed[12] >> 4) * 4;
    if header_len < 20 || header_len > header.len() {
        return (PacketKind::Malformed, 0);
    }
    pkt.sport = u16::from_be_bytes([fixed[0], fixed[1]]);
    pkt.dport = u16::from_be_bytes([fixed[2], fixed[3]]);
    pkt.seq = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    pkt.ack = u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);
    pkt.flags = fixed[13] & (flags::FIN | flags::SYN | flags::RST | flags::ACK);
    pkt.win = u16::from_be_bytes([fixed[14], fixed[15]]);
    pkt.seq_end =
        pkt.seq.wrapping_add((segment_len - header_len) as u32).wrapping_add(syn_and_fin(pkt.flags));
    if pkt.flags & flags::SYN != 0 && header_len > 20 {
        pkt.wscale = window_scale(&header[20..header_len]);
    }
    (PacketKind::Tcp, header_len)
}

/// The sequence numbers that SYN and FIN take: one each.
#[inline(always)]
fn syn_and_fin(bits: u8) -> u32 {
    u32::from(bits >> 1 & 1) + u32::from(bits & 1)
}

/// The window scale option (RFC 7323 §2), at most 14; [`NO_SCALE`] where there is none that can be
/// read.
fn window_scale(mut options: &[u8]) -> u8 {
    while let [kind, rest @ ..] = options {
        match (kind, rest) {
            (0, _) => break,
            (1, _) => options = rest,
            (3, [3, shift, ..]) => return (*shift).min(14),
            (_, [len, ..]) if *len >= 2 && usize::from(*len) <= options.len() => {
                options = &options[usize::from(*len)..]
            }
            _ => break,
        }
    }
    NO_SCALE
}

#[inline]
fn udp(header: &[u8], room: usize, pkt: &mut PacketMeta) -> (PacketKind, usize) {
    let Some(fixed) = header.first_chunk::<8>() else { return (PacketKind::Malformed, 0) };
    let len = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    // A first fragment's length is that of the whole datagram, which is longer than the fragment.
    if len < 8 || (len > room && pkt.fragment == Fragment::Whole) {
        return (PacketKind::Malformed, 0);
    }
    pkt.sport = u16::from_be_bytes([fixed[0], fixed[1]]);
    pkt.dport = u16::from_be_bytes([fixed[2], fixed[3]]);
    let what = match (pkt.v6, pkt.sport, pkt.dport) {
        (false, 68, 67) | (true, 546, 547) => PacketKind::DhcpClient,
        (false, 67, 68) | (true, 547, 546) => PacketKind::DhcpServer,
        _ => PacketKind::WithPorts,
    };
    (what, 8)
}

#[inline]
fn ports(header: &[u8], header_len: usize, pkt: &mut PacketMeta) -> (PacketKind, usize) {
    if header.len() < header_len {
        return (PacketKind::Malformed, 0);
    }
    pkt.sport = be16(header, 0).unwrap_or(0);
    pkt.dport = be16(header, 2).unwrap_or(0);
    (PacketKind::WithPorts, header_len)
}

fn icmp(header: &[u8], pkt: &mut PacketMeta) -> (PacketKind, usize) {
    let Some(fixed) = header.first_chunk::<8>() else { return (PacketKind::Malformed, 0) };
    pkt.dport = u16::from_be_bytes([fixed[0], fixed[1]]);
    pkt.sport = u16::from_be_bytes([fixed[4], fixed[5]]);
    let what = match fixed[0] {
        8 | 13 | 15 | 17 | 42 => PacketKind::IcmpRequest,
        0 | 14 | 16 | 18 | 43 => PacketKind::IcmpReply,
        3 | 11 | 12 => PacketKind::IcmpError,
        _ => PacketKind::IcmpOther,
    };
    (what, 8)
}

fn icmpv6(header: &[u8], pkt: &mut PacketMeta) -> (PacketKind, usize) {
    let Some(fixed) = header.first_chunk::<8>() else { return (PacketKind::Malformed, 0) };
    pkt.dport = u16::from_be_bytes([fixed[0], fixed[1]]);
    pkt.sport = u16::from_be_bytes([fixed[4], fixed[5]]);
    let what = match fixed[0] {
        128 | 160 => PacketKind::IcmpRequest,
        129 | 161 => PacketKind::IcmpReply,
        1..=4 => PacketKind::IcmpError,
        130 | 131 | 132 | 143 => PacketKind::Multicast,
        133..=137 => PacketKind::Nd,
        _ => PacketKind::IcmpOther,
    };
    (what, 8)
}

/// The request type that an ICMP request or reply belongs to, for both sides' packets the same.
#[inline]
pub fn icmp_kind(kind: u8, v6: bool) -> u8 {
    match (v6, kind) {
        (false, 0) => 8,
        (false, 14 | 16 | 18 | 43) => kind - 1,
        (true, 129 | 161) => kind - 1,
        _ => kind,
    }
}

/// Untagged, where VPCs are told apart by VNI: a tunnel's inner frame, the tunnels' own ARP and
/// neighbour discovery, or nothing that any VPC has.
fn underlay(data: &[u8], at: usize, wire_len: usize, ethertype: u16, pkt: &mut PacketMeta) -> PacketKind {
    if ethertype == ARP {
        return PacketKind::UnderlayNeighbor;
    }
    match network(data, at, wire_len, ethertype, pkt) {
        PacketKind::Nd => PacketKind::UnderlayNeighbor,
        PacketKind::WithPorts if pkt.proto == proto::UDP && pkt.fragment == Fragment::Whole => {
            match pkt.dport {
                VXLAN_PORT => tunnel(data, pkt, vxlan),
                GENEVE_PORT => tunnel(data, pkt, geneve),
                _ => PacketKind::BadSegment,
            }
        }
        _ => PacketKind::BadSegment,
    }
}

/// VNI and header length of a tunnel that carries Ethernet.
type TunnelHeader = fn(&[u8]) -> Option<(u32, usize)>;

fn vxlan(header: &[u8]) -> Option<(u32, usize)> {
    let word = be32(header, 4)?;
    (header[0] & 0x08 != 0).then_some((word >> 8, 8))
}

fn geneve(header: &[u8]) -> Option<(u32, usize)> {
    let word = be32(header, 4)?;
    let len = 8 + usize::from(header[0] & 0x3F) * 4;
    (header[0] >> 6 == 0 && be16(header, 2)? == 0x6558 && len <= header.len()).then_some((word >> 8, len))
}

fn tunnel(data: &[u8], pkt: &mut PacketMeta, header: TunnelHeader) -> PacketKind {
    let l4 = pkt.l4 as usize;
    let udp_len = usize::from(be16(data, l4 + 4).unwrap_or(0));
    let inner_end = l4 + udp_len;
    let payload = &data[l4 + 8..inner_end.min(data.len()).max(l4 + 8)];
    let PacketMeta { side, link_local, wire, now, .. } = *pkt;
    *pkt =
        PacketMeta { side, link_local, wire, now, tunnels: true, wscale: NO_SCALE, ..PacketMeta::default() };
    let Some((vni, header_len)) = header(payload) else { return PacketKind::TruncatedLink };
    pkt.segment = SegmentKey::vni(vni);
    let at = l4 + 8 + header_len;
    let inner = &data[..inner_end.min(data.len())];
    let Some(ethertype) = ethernet(inner, at, pkt) else { return PacketKind::TruncatedLink };
    if ethertype == VLAN || ethertype == QINQ {
        return if inner.len() < at + 18 { PacketKind::TruncatedLink } else { PacketKind::BadSegment };
    }
    network(inner, at + 14, inner_end, ethertype, pkt)
}

#[cfg(test)]
mod tests;
