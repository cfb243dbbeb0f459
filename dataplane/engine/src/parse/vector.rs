//! The commonest frames of all, untagged IPv4 with TCP or UDP, taken apart by vectors: what lies together in the frame is
//! turned round and put where it belongs by one shuffle each, where words would be loaded, shifted and stored one by one.

use std::arch::x86_64::{
    __m128i, _mm_loadu_si128, _mm_set_epi8, _mm_shuffle_epi8, _mm_store_si128, _mm_testz_si128,
    _mm_xor_si128, _mm256_loadu_si256, _mm256_storeu_si256,
};
use std::mem::offset_of;

use super::{syn_and_fin, window_scale};
use crate::lane::{Ends, Fragment, Lane, NO_SCALE, Stage, What, flags};
use crate::proto;
use crate::time::Now;
use crate::{SegmentKey, Side};

// What one store fills.
const _: () = assert!(offset_of!(Lane, src) == 0 && offset_of!(Lane, dst) == 16);
const _: () = assert!(offset_of!(Lane, src_mac) == 32 && offset_of!(Lane, dst_mac) == 40);
const _: () = assert!(offset_of!(Lane, ack) == 48 && offset_of!(Lane, seq) == 52);
const _: () = assert!(offset_of!(Lane, seq_end) == 56 && offset_of!(Lane, end) == 60);
const _: () = assert!(offset_of!(Lane, ends) == 112 && offset_of!(Ends, local) == 0);
const _: () = assert!(offset_of!(Ends, remote) == 4 && offset_of!(Ends, ports) == 8);
const _: () = assert!(offset_of!(Ends, protocol) == 12);

/// What all these frames have in common, by side: of it the 32 bytes from `l3` on are copied, and what differs is then set.
static TCP: [Lane; 2] =
    [plain(Side::Inside, What::Tcp, proto::TCP), plain(Side::Outside, What::Tcp, proto::TCP)];
static UDP: [Lane; 2] =
    [plain(Side::Inside, What::Ports, proto::UDP), plain(Side::Outside, What::Ports, proto::UDP)];
const COPIED: usize = offset_of!(Lane, l3);
const _: () = assert!(Side::Inside as usize == 0 && COPIED == 80);

const fn plain(side: Side, what: What, proto: u8) -> Lane {
    Lane {
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
        now: Now { tick: 0, up: 0 },
        l3: 14,
        l4: 34,
        frag_id: 0,
        reach: 0,
        wscale: NO_SCALE,
        hops: 0,
        segment: SegmentKey::UNTAGGED,
        v6: false,
        fragment: Fragment::Whole,
        fragment_header: false,
        link_local: false,
        stage: Stage::Received,
        tunnels: false,
        frag_proto: 0,
        plain: true,
        proto,
        what,
        side,
        flags: 0,
        ends: Ends { local: 0, remote: 0, ports: 0, protocol: 0 },
    }
}

/// A zero in a shuffle.
const O: i8 = -128;

/// Reads such a frame as [`super::plain`] does. False leaves it, and the lane as it was, to the long way: every other frame, those to
/// addresses that begin as the link-local ones do, and datagrams in frames of less than 54 bytes.
///
/// # Safety
/// The processor has x86-64-v3.
#[inline(always)]
pub unsafe fn read(data: &[u8], wire_len: usize, side: Side, lane: &mut Lane) -> bool {
    let Some(h) = data.first_chunk::<54>() else { return false };
    let end = 14 + usize::from(u16::from_be_bytes([h[16], h[17]]));
    // SAFETY: as the caller says.
    if end > wire_len || h[..4] == [0x01, 0x80, 0xC2, 0x00] || !unsafe { is_whole_ipv4(h) } {
        return false;
    }
    if h[23] == proto::TCP {
        let payload = 34 + usize::from(h[46] >> 4) * 4;
        if payload < 54 || payload > end || payload > data.len() {
            return false;
        }
        // SAFETY: as the caller says.
        unsafe { ends(h, side, &TCP, lane) };
        let bits = h[47] & (flags::FIN | flags::SYN | flags::RST | flags::ACK);
        lane.flags = bits;
        lane.win = u16::from_be_bytes([h[48], h[49]]);
        let seq = u32::from_be_bytes([h[38], h[39], h[40], h[41]]);
        lane.seq_end = seq.wrapping_add((end - payload) as u32).wrapping_add(syn_and_fin(bits));
        if bits & flags::SYN != 0 {
            lane.wscale = window_scale(&data[54..payload]);
        }
    } else {
        let len = usize::from(u16::from_be_bytes([h[38], h[39]]));
        // DHCP has the ports 67 and 68.
        if h[23] != proto::UDP || len < 8 || 34 + len > end || h[34] == 0 && h[35] & !7 == 64 {
            return false;
        }
        // SAFETY: as the caller says.
        unsafe { ends(h, side, &UDP, lane) };
        (lane.ack, lane.seq, lane.seq_end, lane.win) = (0, 0, 0, 0);
    }
    lane.end = end as u32;
    true
}

/// IPv4 without options, no fragment.
///
/// # Safety
/// The processor has x86-64-v3.
#[inline(always)]
unsafe fn is_whole_ipv4(h: &[u8; 54]) -> bool {
    // SAFETY: the load lies within the 54 bytes; the instructions are there, as the caller says.
    unsafe {
        // Ethertype, version and header length; fragment offset and more fragments.
        let is = _mm_set_epi8(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x45, 0, 8);
        let counts = _mm_set_epi8(0, 0, 0, 0, 0, 0, -1, 0x3F, 0, 0, 0, 0, 0, -1, -1, -1);
        _mm_testz_si128(_mm_xor_si128(_mm_loadu_si128(h[12..].as_ptr().cast::<__m128i>()), is), counts) == 1
    }
}

/// Writes addresses, ports, numbers and what these frames have in common.
///
/// # Safety
/// The processor has x86-64-v3.
#[inline(always)]
unsafe fn ends(h: &[u8; 54], side: Side, common: &[Lane; 2], lane: &mut Lane) {
    // SAFETY: the loads lie within the 54 bytes, the stores within the lane (asserted above), which is aligned to 64 bytes. They
    // leave numbers, of which all are valid, and a copy of 32 bytes of a lane in their own place. The instructions are there, as
    // the caller says.
    unsafe {
        let load = |at: usize| _mm_loadu_si128(h.as_ptr().add(at).cast::<__m128i>());
        let place = std::ptr::from_mut(lane).cast::<__m128i>();
        let store = |at: usize, from: __m128i, order: __m128i| {
            _mm_store_si128(place.add(at / 16), _mm_shuffle_epi8(from, order));
        };
        // Time to live, protocol, checksum, source, destination, ports.
        let ip = load(22);
        store(0, ip, _mm_set_epi8(O, O, O, O, O, O, O, O, O, O, O, O, 4, 5, 6, 7));
        store(16, ip, _mm_set_epi8(O, O, O, O, O, O, O, O, O, O, O, O, 8, 9, 10, 11));
        store(32, load(0), _mm_set_epi8(O, O, 0, 1, 2, 3, 4, 5, O, O, 6, 7, 8, 9, 10, 11));
        // Sequence and acknowledgment number.
        store(48, load(38), _mm_set_epi8(O, O, O, O, O, O, O, O, 0, 1, 2, 3, 4, 5, 6, 7));
        let order = match side {
            Side::Inside => _mm_set_epi8(O, O, O, 1, 12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7),
            Side::Outside => _mm_set_epi8(O, O, O, 1, 14, 15, 12, 13, 4, 5, 6, 7, 8, 9, 10, 11),
        };
        store(112, ip, order);
        let common = common.as_ptr().add(side as usize).byte_add(COPIED);
        let common = _mm256_loadu_si256(common.cast());
        _mm256_storeu_si256(std::ptr::from_mut(lane).byte_add(COPIED).cast(), common);
    }
    let ports = u32::from_be_bytes([h[34], h[35], h[36], h[37]]);
    (lane.dport, lane.sport) = (ports as u16, (ports >> 16) as u16);
    lane.hops = h[22];
}
