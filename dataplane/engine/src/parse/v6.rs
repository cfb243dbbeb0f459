//! IPv6 without extension headers, with TCP or UDP that is not DHCP, for processors without
//! vectors: read in one go, where the long way goes from header to header and writes field by
//! field.

use super::{IPV6, LINK_LOCAL, PacketOffset, syn_and_fin, window_scale};
use crate::packet::{Arrival, NO_SCALE, PacketKind, PacketMeta, flags};
use crate::proto;

/// Ethernet, IPv6, TCP.
const HEADERS: usize = 14 + 40 + 20;

/// Reads such a packet at its place in `data`, which ends before `limit` on the wire, as the long
/// way does. False leaves it, and the pkt as it was, to that: every other one, and datagrams of
/// less than 20 bytes.
#[inline]
pub fn read_at(
    data: &[u8],
    limit: usize,
    place: PacketOffset,
    arrival: &Arrival,
    pkt: &mut PacketMeta,
) -> bool {
    let PacketOffset { at, macs, segment } = place;
    let Some(h) = data.get(at..).and_then(|data| data.first_chunk::<HEADERS>()) else { return false };
    let Some(macs) = data.get(macs..).and_then(|data| data.first_chunk::<12>()) else { return false };
    let end = at + 54 + usize::from(be16(h, 18));
    if be16(h, 12) != IPV6 || h[14] >> 4 != 6 || end > limit || macs[..4] == LINK_LOCAL {
        return false;
    }
    let Some(l4) = l4(h, data, at, end) else { return false };
    *pkt = PacketMeta {
        src: be128(h, 22),
        dst: be128(h, 38),
        src_mac: be64(macs, 4) & 0xFFFF_FFFF_FFFF,
        dst_mac: be64(macs, 0) >> 16,
        ack: l4.ack,
        seq: l4.seq,
        seq_end: l4.seq_end,
        end: end as u32,
        dport: be16(h, 56),
        sport: be16(h, 54),
        win: l4.win,
        l3: at as u16 + 14,
        l4: at as u16 + 54,
        wscale: l4.wscale,
        ttl: h[21],
        segment,
        v6: true,
        proto: h[20],
        kind: l4.what,
        flags: l4.flags,
        ..PacketMeta::of(arrival)
    };
    true
}

/// What differs between TCP and UDP.
struct L4 {
    what: PacketKind,
    ack: u32,
    seq: u32,
    seq_end: u32,
    win: u16,
    wscale: u8,
    flags: u8,
}

#[inline(always)]
fn l4(h: &[u8; HEADERS], data: &[u8], at: usize, end: usize) -> Option<L4> {
    match h[20] {
        proto::TCP => {
            let payload = at + 54 + usize::from(h[66] >> 4) * 4;
            if h[66] < 5 << 4 || payload > end || payload > data.len() {
                return None;
            }
            let bits = h[67] & (flags::FIN | flags::SYN | flags::RST | flags::ACK);
            let seq = be32(h, 58);
            let wscale =
                if bits & flags::SYN == 0 { NO_SCALE } else { window_scale(&data[at + 74..payload]) };
            let seq_end = seq.wrapping_add((end - payload) as u32).wrapping_add(syn_and_fin(bits));
            Some(L4 {
                what: PacketKind::Tcp,
                ack: be32(h, 62),
                seq,
                seq_end,
                win: be16(h, 68),
                wscale,
                flags: bits,
            })
        }
        proto::UDP => {
            let len = usize::from(be16(h, 58));
            // DHCP has the ports 546 and 547.
            if len < 8 || at + 54 + len > end || be16(h, 54) & !1 == 546 {
                return None;
            }
            Some(L4 {
                what: PacketKind::WithPorts,
                ack: 0,
                seq: 0,
                seq_end: 0,
                win: 0,
                wscale: NO_SCALE,
                flags: 0,
            })
        }
        _ => None,
    }
}

/// The big-endian word at a place inside, by one load.
#[inline(always)]
fn be16<const N: usize>(h: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes(h[at..].first_chunk().copied().unwrap_or_default())
}

#[inline(always)]
fn be32<const N: usize>(h: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes(h[at..].first_chunk().copied().unwrap_or_default())
}

#[inline(always)]
fn be64<const N: usize>(h: &[u8; N], at: usize) -> u64 {
    u64::from_be_bytes(h[at..].first_chunk().copied().unwrap_or_default())
}

#[inline(always)]
fn be128<const N: usize>(h: &[u8; N], at: usize) -> u128 {
    u128::from_be_bytes(h[at..].first_chunk().copied().unwrap_or_default())
}
