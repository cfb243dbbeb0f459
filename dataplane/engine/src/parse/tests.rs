//! What short ways make of frames, beside what the long way makes of them.

use super::*;
use crate::{SegmentKey, Side};

/// Ethernet, IPv4, TCP with ACK and four bytes.
const TCP: [u8; 58] = [
    2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, // Ethernet
    0x45, 0, 0, 44, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
    0x12, 0x34, 0, 22, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0, // TCP
    b'd', b'a', b't', b'a',
];

/// The same as UDP of 24 bytes.
fn udp() -> [u8; 58] {
    let mut frame = TCP;
    (frame[23], frame[38], frame[39]) = (proto::UDP, 0, 24);
    frame
}

fn by_the_slow_path(data: &[u8], wire_len: usize, arrival: &Arrival) -> PacketMeta {
    let mut pkt = PacketMeta::default();
    parse_slow(data, wire_len, arrival, &mut pkt);
    pkt
}

/// Packet metadata that a short way has filled is what the long way makes of the frame, and beside
/// that has its part of the key.
fn assert_as_by_the_long_way(mut pkt: PacketMeta, data: &[u8], wire_len: usize, arrival: &Arrival) {
    assert_eq!(std::mem::take(&mut pkt.fast_v4), !pkt.v6);
    if !pkt.v6 {
        let (src, dst) = ((pkt.src as u32, pkt.sport), (pkt.dst as u32, pkt.dport));
        let meta = u32::from(pkt.proto) | required_state_bits(pkt.fast_path_state());
        assert_eq!(std::mem::take(&mut pkt.tuple), V4Tuple::new(arrival.side, src, dst, meta));
    }
    assert_eq!(format!("{pkt:?}"), format!("{:?}", by_the_slow_path(data, wire_len, arrival)));
}

fn arrival(side: Side) -> Arrival {
    Arrival { side, wire: 3, tunnels: false, now: crate::time::Now { tick: 7, ceil: 8 } }
}

/// Every frame that differs in one byte from one of these, cut and on longer wires.
fn frames(mut each: impl FnMut(&[u8], usize)) {
    for whole in [TCP, udp()] {
        varied(&whole, &mut each);
    }
}

fn varied(whole: &[u8], each: &mut impl FnMut(&[u8], usize)) {
    let mut frame = whole.to_vec();
    let full = whole.len();
    for (at, value) in (0..full).flat_map(|at| (0..=255).map(move |value| (at, value))) {
        frame[at] = value;
        for (short, longer) in [(0, 0), (0, 42), (4, 0), (5, 0), (16, 0), (18, 0)] {
            each(&frame[..full - short], full + longer);
        }
        frame[at] = whole[at];
    }
}

/// An IPv6 packet with the TCP segment, or with a datagram of 24 bytes.
fn over_ipv6(protocol: u8) -> Vec<u8> {
    let mut frame = TCP[..12].to_vec();
    frame.extend([0x86, 0xDD, 0x60, 0, 0, 0, 0, 24, protocol, 64]);
    for last in [1, 2] {
        frame.extend([0x20, 1, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    frame.extend(&TCP[34..]);
    if protocol == proto::UDP {
        (frame[58], frame[59]) = (0, 24);
    }
    frame
}

/// These frames behind an 802.1Q tag, and in VXLAN, and the IPv6 ones as they are.
fn other_fast_frames() -> Vec<Vec<u8>> {
    let tag = [0x81, 0, 0x20, 7];
    let ipv6 = [over_ipv6(proto::TCP), over_ipv6(proto::UDP)];
    let mut all = ipv6.to_vec();
    for inner in [TCP.to_vec(), udp().to_vec()].into_iter().chain(ipv6) {
        all.push([&inner[..12], &tag, &inner[12..]].concat());
        let mut outer = udp()[..42].to_vec();
        (outer[17], outer[36], outer[37]) = (36 + inner.len() as u8, 0x12, 0xB5);
        outer[39] = 16 + inner.len() as u8;
        all.push([&outer, &[8, 0, 0, 0, 0, 1, 2, 0][..], &inner].concat());
    }
    all
}

#[test]
fn the_short_way_reads_what_the_long_way_reads_whatever_a_byte_says() {
    let mut short = 0;
    frames(|data, wire_len| {
        let mut pkt = PacketMeta::default();
        if fast_ipv4(data, wire_len, &arrival(Side::Outside), &mut pkt).is_some() {
            short += 1;
            assert_as_by_the_long_way(pkt, data, wire_len, &arrival(Side::Outside));
        }
    });
    assert!(short > 20_000);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn vectors_read_what_the_short_way_reads_whatever_a_byte_says() {
    let Some(v3) = crate::cpu::simd().v3() else { return };
    let mut read = 0;
    frames(|data, wire_len| {
        for side in [Side::Inside, Side::Outside] {
            let arrival = arrival(side);
            // What stood there before.
            let old = PacketMeta { frag_id: 9, v6: true, reach: 7, wire: 4, ..PacketMeta::default() };
            let (mut pkt, mut short) = (old.clone(), PacketMeta::default());
            if vector::read_untagged(v3, data, wire_len, &arrival, &mut pkt) {
                read += 1;
                assert!(fast_ipv4(data, wire_len, &arrival, &mut short).is_some());
                assert_eq!(format!("{pkt:?}"), format!("{short:?}"));
            } else {
                assert_eq!(format!("{pkt:?}"), format!("{old:?}"));
                let is_plain = fast_ipv4(data, wire_len, &arrival, &mut short).is_some();
                assert!(!is_plain || data.len() < 54 || short.dst_mac >> 16 == 0x0180_C200);
            }
        }
    });
    assert!(read > 20_000);
}

#[test]
fn ipv6_is_read_without_vectors_as_by_the_long_way_whatever_a_byte_says() {
    let mut read = 0;
    for frame in [over_ipv6(proto::TCP), over_ipv6(proto::UDP)] {
        varied(&frame, &mut |data: &[u8], wire_len: usize| {
            for side in [Side::Inside, Side::Outside] {
                let (mut pkt, arrival) = (PacketMeta::default(), arrival(side));
                if v6::read_at(data, wire_len, UNTAGGED, &arrival, &mut pkt) {
                    read += 1;
                    assert_as_by_the_long_way(pkt, data, wire_len, &arrival);
                }
            }
        });
    }
    assert!(read > 20_000, "{read}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn what_is_tagged_or_tunnelled_or_ipv6_is_read_as_by_the_long_way_whatever_a_byte_says() {
    let Some(v3) = crate::cpu::simd().v3() else { return };
    let mut read = [[0; 2]; 3];
    for frame in other_fast_frames() {
        let mut each = |data: &[u8], wire_len: usize| {
            for (side, tunnels) in [(Side::Inside, false), (Side::Outside, true)] {
                let arrival = Arrival { tunnels, ..arrival(side) };
                let old = PacketMeta { frag_id: 9, v6: true, reach: 7, wire: 4, ..PacketMeta::default() };
                let mut pkt = old.clone();
                if vector::read_other(v3, data, wire_len, &arrival, &mut pkt) {
                    let segment = match pkt.segment {
                        SegmentKey::UNTAGGED => 0,
                        vni if vni.is_vni() => 2,
                        _ => 1,
                    };
                    read[segment][usize::from(pkt.v6)] += 1;
                    assert_as_by_the_long_way(pkt, data, wire_len, &arrival);
                } else {
                    assert_eq!(format!("{pkt:?}"), format!("{old:?}"));
                }
            }
        };
        varied(&frame, &mut each);
    }
    // Without a tag IPv4 is not this function's, but for a tag that is cleared.
    assert!(read[0][1] > 20_000 && read[1..].iter().flatten().all(|read| *read > 20_000), "{read:?}");
}
