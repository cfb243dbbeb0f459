//! The commonest packets of all, whole IPv4 ones of TCP or UDP, untagged, tagged or in VXLAN, taken
//! apart by vectors: what lies together in the frame is turned round and put where it belongs by
//! one shuffle each, where words would be loaded, shifted and stored one by one.

use std::arch::x86_64::{
    __m128i, _mm_loadu_si128, _mm_or_si128, _mm_set_epi8, _mm_set_epi32, _mm_setzero_si128, _mm_shuffle_epi8,
    _mm_store_si128, _mm_testz_si128, _mm_xor_si128, _mm256_loadu_si256, _mm256_storeu_si256,
};
use std::mem::offset_of;

use super::{IPV6, LINK_LOCAL, PacketOffset, UNTAGGED, VLAN, VXLAN_PORT, syn_and_fin, window_scale};
use crate::cpu::V3;
use crate::flow_key::{State, required_state_bits};
use crate::packet::{Arrival, Fragment, HandoffStage, NO_SCALE, PacketKind, PacketMeta, V4Tuple, flags};
use crate::proto;
use crate::time::Now;
use crate::{SegmentKey, Side};

// What one store fills.
const _: () = assert!(offset_of!(PacketMeta, src) == 0 && offset_of!(PacketMeta, dst) == 16);
const _: () = assert!(offset_of!(PacketMeta, src_mac) == 32 && offset_of!(PacketMeta, dst_mac) == 40);
const _: () = assert!(offset_of!(PacketMeta, ack) == 48 && offset_of!(PacketMeta, seq) == 52);
const _: () = assert!(offset_of!(PacketMeta, seq_end) == 56 && offset_of!(PacketMeta, end) == 60);
const _: () = assert!(offset_of!(PacketMeta, dport) == 64 && offset_of!(PacketMeta, sport) == 66);
const _: () = assert!(offset_of!(PacketMeta, win) == 68 && offset_of!(PacketMeta, wire) == 70);
const _: () =
    assert!(offset_of!(PacketMeta, now) == 72 && offset_of!(Now, tick) == 0 && offset_of!(Now, ceil) == 4);
const _: () = assert!(offset_of!(PacketMeta, tuple) == 112 && offset_of!(V4Tuple, local) == 0);
const _: () = assert!(offset_of!(V4Tuple, remote) == 4 && offset_of!(V4Tuple, rest) == 8);

/// What all these frames have in common, by side: of it the 32 bytes from `l3` on are copied, and
/// what differs is then set. TCP is data that has nothing but an ACK.
static TCP: [PacketMeta; 2] = [
    template(Side::Inside, PacketKind::Tcp, proto::TCP, flags::ACK),
    template(Side::Outside, PacketKind::Tcp, proto::TCP, flags::ACK),
];
static UDP: [PacketMeta; 2] = [
    template(Side::Inside, PacketKind::WithPorts, proto::UDP, 0),
    template(Side::Outside, PacketKind::WithPorts, proto::UDP, 0),
];
/// The same of IPv6.
static TCP6: [PacketMeta; 2] = [template_v6(&TCP[0]), template_v6(&TCP[1])];
static UDP6: [PacketMeta; 2] = [template_v6(&UDP[0]), template_v6(&UDP[1])];
const COPIED: usize = offset_of!(PacketMeta, l3);
const _: () = assert!(Side::Inside as usize == 0 && COPIED == 80);

const fn template(side: Side, what: PacketKind, proto: u8, flags: u8) -> PacketMeta {
    PacketMeta {
        src: 0,
        dst: 0,
        src_mac: 0,
        dst_mac: 0,
        ack: 0,
        seq: 0,
        seq_end: 0,
        end: 0,
        dport: 0,
        sport: 0,
        win: 0,
        wire: 0,
        now: Now { tick: 0, ceil: 0 },
        l3: 14,
        l4: 34,
        len: 0,
        frag_id: 0,
        reach: 0,
        wscale: NO_SCALE,
        ttl: 0,
        segment: SegmentKey::UNTAGGED,
        v6: false,
        fragment: Fragment::Whole,
        fragment_header: false,
        link_local: false,
        stage: HandoffStage::Received,
        tunnels: false,
        frag_proto: 0,
        fast_v4: true,
        proto,
        kind: what,
        side,
        flags,
        tuple: V4Tuple { local: 0, remote: 0, rest: 0 },
    }
}

const fn template_v6(v4: &PacketMeta) -> PacketMeta {
    PacketMeta { l4: 54, v6: true, fast_v4: false, ..template(v4.side, v4.kind, v4.proto, v4.flags) }
}

/// A zero in a shuffle.
const O: i8 = -128;

/// Ethernet, IPv6, TCP.
const V6_HEADERS: usize = 14 + 40 + 20;
/// Bytes before the Ethernet frame in a VXLAN frame: Ethernet, IPv4, UDP, VXLAN.
const VXLAN_HEADERS: usize = 14 + 20 + 8 + 8;

/// Reads such a frame without a tag as the long way does. False leaves it, and the packet metadata
/// as it was, to the long way: every other frame, those to addresses that begin as the link-local
/// ones do, and packets of less than 40 bytes.
#[inline(always)]
pub fn read_untagged(v3: V3, data: &[u8], wire_len: usize, arrival: &Arrival, pkt: &mut PacketMeta) -> bool {
    read_at(v3, data, wire_len, UNTAGGED, arrival, pkt)
}

/// The same of what has an 802.1Q tag, or lies in VXLAN over IPv4; and of IPv6 in any segment.
#[inline(always)]
pub fn read_other(v3: V3, data: &[u8], wire_len: usize, arrival: &Arrival, pkt: &mut PacketMeta) -> bool {
    let Some(h) = data.first_chunk::<54>() else { return false };
    if [h[12], h[13]] == VLAN.to_be_bytes() {
        let segment = SegmentKey::vlan(u16::from_be_bytes([h[14], h[15]]) & 0x0FFF);
        let place = PacketOffset { at: 4, macs: 0, segment };
        // A priority tag is none: where untagged frames are tunnels, this is the tunnels' own.
        let is_some = segment != SegmentKey::UNTAGGED || !arrival.tunnels;
        return is_some && read_either(v3, data, wire_len, place, arrival, pkt);
    }
    if !arrival.tunnels {
        return read_v6_at(v3, data, wire_len, UNTAGGED, arrival, pkt);
    }
    let Some((segment, inner_end)) = vxlan(v3, h, wire_len) else { return false };
    let place = PacketOffset { at: VXLAN_HEADERS, macs: VXLAN_HEADERS, segment };
    read_either(v3, &data[..inner_end.min(data.len())], inner_end, place, arrival, pkt)
}

#[inline(always)]
fn read_either(
    v3: V3,
    data: &[u8],
    limit: usize,
    place: PacketOffset,
    arrival: &Arrival,
    pkt: &mut PacketMeta,
) -> bool {
    read_at(v3, data, limit, place, arrival, pkt) || read_v6_at(v3, data, limit, place, arrival, pkt)
}

/// Of a whole packet to VXLAN's port with a VNI: its segment, and where the inner frame ends.
#[inline(always)]
fn vxlan(v3: V3, h: &[u8; 54], wire_len: usize) -> Option<(SegmentKey, usize)> {
    let is_vxlan = is_whole_ipv4(v3, h)
        && h[23] == proto::UDP
        && [h[36], h[37]] == VXLAN_PORT.to_be_bytes()
        && h[42] & 8 != 0
        && h[..4] != LINK_LOCAL;
    let end = 14 + usize::from(u16::from_be_bytes([h[16], h[17]]));
    let inner_end = 34 + usize::from(u16::from_be_bytes([h[38], h[39]]));
    let segment = SegmentKey::vni(u32::from_be_bytes([0, h[46], h[47], h[48]]));
    (is_vxlan && end <= wire_len && inner_end <= end).then_some((segment, inner_end))
}

/// The same of what lies at a place in `data`, and ends before `limit` on the wire.
#[inline(always)]
fn read_at(
    v3: V3,
    data: &[u8],
    limit: usize,
    place: PacketOffset,
    arrival: &Arrival,
    pkt: &mut PacketMeta,
) -> bool {
    let PacketOffset { at, macs, segment } = place;
    let Some(h) = data.get(at..).and_then(|data| data.first_chunk::<54>()) else { return false };
    let Some(macs) = data.get(macs..).and_then(|data| data.first_chunk::<16>()) else { return false };
    let end = at + 14 + usize::from(u16::from_be_bytes([h[16], h[17]]));
    if end > limit || macs[..4] == LINK_LOCAL || !is_whole_ipv4(v3, h) {
        return false;
    }
    if h[23] == proto::TCP {
        let payload = at + 34 + usize::from(h[46] >> 4) * 4;
        if h[46] < 5 << 4 || payload > end || payload > data.len() {
            return false;
        }
        write_tuple::<true>(v3, h, macs, arrival, &TCP, State::Established, pkt);
        let seq = u32::from_be_bytes([h[38], h[39], h[40], h[41]]);
        pkt.seq_end = seq.wrapping_add((end - payload) as u32);
        let bits = h[47] & (flags::FIN | flags::SYN | flags::RST | flags::ACK);
        if bits != flags::ACK {
            more_than_data(bits, &data[at + 54..payload], pkt);
        }
    } else {
        let len = usize::from(u16::from_be_bytes([h[38], h[39]]));
        // DHCP has the ports 67 and 68.
        if h[23] != proto::UDP || len < 8 || at + 34 + len > end || h[34] == 0 && h[35] & !7 == 64 {
            return false;
        }
        write_tuple::<false>(v3, h, macs, arrival, &UDP, State::TwoWay, pkt);
    }
    pkt.end = end as u32;
    if at != 0 {
        (pkt.l3, pkt.l4) = (at as u16 + 14, at as u16 + 34);
        (pkt.segment, pkt.tunnels) = (segment, arrival.tunnels);
    }
    true
}

/// The same of IPv6 without extension headers; datagrams of less than 20 bytes are left to the long
/// way.
#[inline(always)]
fn read_v6_at(
    v3: V3,
    data: &[u8],
    limit: usize,
    place: PacketOffset,
    arrival: &Arrival,
    pkt: &mut PacketMeta,
) -> bool {
    let PacketOffset { at, macs, segment } = place;
    let Some(h) = data.get(at..).and_then(|data| data.first_chunk::<V6_HEADERS>()) else { return false };
    let Some(macs) = data.get(macs..).and_then(|data| data.first_chunk::<16>()) else { return false };
    let end = at + 54 + usize::from(u16::from_be_bytes([h[18], h[19]]));
    if [h[12], h[13]] != IPV6.to_be_bytes() || h[14] >> 4 != 6 || end > limit || macs[..4] == LINK_LOCAL {
        return false;
    }
    if h[20] == proto::TCP {
        let payload = at + 54 + usize::from(h[66] >> 4) * 4;
        if h[66] < 5 << 4 || payload > end || payload > data.len() {
            return false;
        }
        write_tuple_v6::<true>(v3, h, macs, arrival, &TCP6, pkt);
        let seq = u32::from_be_bytes([h[58], h[59], h[60], h[61]]);
        pkt.seq_end = seq.wrapping_add((end - payload) as u32);
        let bits = h[67] & (flags::FIN | flags::SYN | flags::RST | flags::ACK);
        if bits != flags::ACK {
            more_than_v6_data(bits, &data[at + 74..payload], pkt);
        }
    } else {
        let len = usize::from(u16::from_be_bytes([h[58], h[59]]));
        let sport = u16::from_be_bytes([h[54], h[55]]);
        // DHCP has the ports 546 and 547.
        if h[20] != proto::UDP || len < 8 || at + 54 + len > end || sport & !1 == 546 {
            return false;
        }
        write_tuple_v6::<false>(v3, h, macs, arrival, &UDP6, pkt);
    }
    pkt.end = end as u32;
    if at != 0 {
        (pkt.l3, pkt.l4) = (at as u16 + 14, at as u16 + 54);
        (pkt.segment, pkt.tunnels) = (segment, arrival.tunnels);
    }
    true
}

/// [`more_than_data`] of what demands nothing yet.
#[inline(always)]
fn more_than_v6_data(bits: u8, options: &[u8], pkt: &mut PacketMeta) {
    pkt.flags = bits;
    pkt.seq_end = pkt.seq_end.wrapping_add(syn_and_fin(bits));
    if bits & flags::SYN != 0 {
        pkt.wscale = window_scale(options);
    }
}

/// What segments have that open, end or break a connection.
#[inline(always)]
fn more_than_data(bits: u8, options: &[u8], pkt: &mut PacketMeta) {
    pkt.flags = bits;
    pkt.tuple.rest |= u64::from(required_state_bits(None)) << 32;
    pkt.seq_end = pkt.seq_end.wrapping_add(syn_and_fin(bits));
    if bits & flags::SYN != 0 {
        pkt.wscale = window_scale(options);
    }
}

/// IPv4 without options, no fragment.
#[inline(always)]
fn is_whole_ipv4(_: V3, h: &[u8; 54]) -> bool {
    // SAFETY: the load lies within the 54 bytes; the token proves SSE4.1.
    unsafe {
        // Ethertype, version and header length; fragment offset and more fragments.
        let is = _mm_set_epi8(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x45, 0, 8);
        let counts = _mm_set_epi8(0, 0, 0, 0, 0, 0, -1, 0x3F, 0, 0, 0, 0, 0, -1, -1, -1);
        _mm_testz_si128(_mm_xor_si128(_mm_loadu_si128(h[12..].as_ptr().cast::<__m128i>()), is), counts) == 1
    }
}

/// Writes addresses, ports, when and where it came in, what these frames have in common, and what
/// TCP has beside; `state` is what they demand of their connections.
#[inline(always)]
fn write_tuple<const TCP: bool>(
    _: V3,
    h: &[u8; 54],
    macs: &[u8; 16],
    arrival: &Arrival,
    common: &[PacketMeta; 2],
    state: State,
    pkt: &mut PacketMeta,
) {
    let Arrival { side, wire, now, .. } = *arrival;
    // SAFETY: the loads lie within the 54 and 16 bytes, the stores within the packet metadata
    // (asserted above), which is aligned to 64 bytes. They leave numbers, of which all are valid,
    // and a copy of 32 bytes of packet metadata in their own place. The token proves AVX2.
    unsafe {
        let load = |at: usize| _mm_loadu_si128(h.as_ptr().add(at).cast::<__m128i>());
        let place = std::ptr::from_mut(pkt).cast::<__m128i>();
        let store = |at: usize, what: __m128i| _mm_store_si128(place.add(at / 16), what);
        let turn = |from: __m128i, order: __m128i| _mm_shuffle_epi8(from, order);
        // Time to live, protocol, checksum, source, destination, ports.
        let ip = load(22);
        store(0, turn(ip, _mm_set_epi8(O, O, O, O, O, O, O, O, O, O, O, O, 4, 5, 6, 7)));
        store(16, turn(ip, _mm_set_epi8(O, O, O, O, O, O, O, O, O, O, O, O, 8, 9, 10, 11)));
        store(
            32,
            turn(
                _mm_loadu_si128(macs.as_ptr().cast()),
                _mm_set_epi8(O, O, 0, 1, 2, 3, 4, 5, O, O, 6, 7, 8, 9, 10, 11),
            ),
        );
        // Destination and source port, then the wire in the upper half of a word.
        let ports = turn(ip, _mm_set_epi8(O, O, O, O, O, O, O, O, O, O, O, O, 12, 13, 14, 15));
        let arrived = _mm_set_epi32(now.ceil as i32, now.tick as i32, (u32::from(wire) << 16) as i32, 0);
        let mut beside = _mm_or_si128(ports, arrived);
        if TCP {
            // Sequence and acknowledgment number; the window.
            let tcp = load(38);
            store(48, turn(tcp, _mm_set_epi8(O, O, O, O, O, O, O, O, 0, 1, 2, 3, 4, 5, 6, 7)));
            let window = turn(tcp, _mm_set_epi8(O, O, O, O, O, O, O, O, O, O, 10, 11, O, O, O, O));
            beside = _mm_or_si128(beside, window);
        } else {
            store(48, _mm_setzero_si128());
        }
        store(64, beside);
        let order = match side {
            Side::Inside => _mm_set_epi8(O, O, O, 1, 12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7),
            Side::Outside => _mm_set_epi8(O, O, O, 1, 14, 15, 12, 13, 4, 5, 6, 7, 8, 9, 10, 11),
        };
        let demanded = _mm_set_epi32(required_state_bits(Some(state)) as i32, 0, 0, 0);
        store(112, _mm_or_si128(turn(ip, order), demanded));
        let common = common.as_ptr().add(side as usize).byte_add(COPIED);
        let common = _mm256_loadu_si256(common.cast());
        _mm256_storeu_si256(std::ptr::from_mut(pkt).byte_add(COPIED).cast(), common);
    }
    pkt.ttl = h[22];
}

/// [`write_tuple`] of IPv6. There is no key ready made: `tuple` of the packet is zero.
#[inline(always)]
fn write_tuple_v6<const TCP: bool>(
    _: V3,
    h: &[u8; V6_HEADERS],
    macs: &[u8; 16],
    arrival: &Arrival,
    common: &[PacketMeta; 2],
    pkt: &mut PacketMeta,
) {
    let Arrival { side, wire, now, .. } = *arrival;
    // SAFETY: the loads lie within the 74 and 16 bytes; the rest as in `write_tuple`.
    unsafe {
        let load = |at: usize| _mm_loadu_si128(h.as_ptr().add(at).cast::<__m128i>());
        let place = std::ptr::from_mut(pkt).cast::<__m128i>();
        let store = |at: usize, what: __m128i| _mm_store_si128(place.add(at / 16), what);
        let turn = |from: __m128i, order: __m128i| _mm_shuffle_epi8(from, order);
        let reversed = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        store(0, turn(load(22), reversed));
        store(16, turn(load(38), reversed));
        store(
            32,
            turn(
                _mm_loadu_si128(macs.as_ptr().cast()),
                _mm_set_epi8(O, O, 0, 1, 2, 3, 4, 5, O, O, 6, 7, 8, 9, 10, 11),
            ),
        );
        // Ports, sequence and acknowledgment number; the window.
        let l4 = load(54);
        let arrived = _mm_set_epi32(now.ceil as i32, now.tick as i32, (u32::from(wire) << 16) as i32, 0);
        let beside = if TCP {
            store(48, turn(l4, _mm_set_epi8(O, O, O, O, O, O, O, O, 4, 5, 6, 7, 8, 9, 10, 11)));
            turn(l4, _mm_set_epi8(O, O, O, O, O, O, O, O, O, O, 14, 15, 0, 1, 2, 3))
        } else {
            store(48, _mm_setzero_si128());
            turn(l4, _mm_set_epi8(O, O, O, O, O, O, O, O, O, O, O, O, 0, 1, 2, 3))
        };
        store(64, _mm_or_si128(beside, arrived));
        store(112, _mm_setzero_si128());
        let common = common.as_ptr().add(side as usize).byte_add(COPIED);
        let common = _mm256_loadu_si256(common.cast());
        _mm256_storeu_si256(std::ptr::from_mut(pkt).byte_add(COPIED).cast(), common);
    }
    pkt.ttl = h[21];
}
