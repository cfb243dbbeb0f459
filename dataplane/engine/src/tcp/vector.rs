//! Data on an established connection, its windows checked and moved four numbers at a time: about
//! 30 instructions, where numbers one by one take 60.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_blend_epi32, _mm_blendv_ps, _mm_castps_si128, _mm_castsi128_ps,
    _mm_insert_epi32, _mm_load_si128, _mm_max_epu32, _mm_movemask_ps, _mm_set_epi32, _mm_shuffle_epi32,
    _mm_shuffle_ps, _mm_slli_si128, _mm_store_si128, _mm_sub_epi32, _mm_unpackhi_epi32, _mm_unpacklo_epi32,
    _mm_unpacklo_epi64,
};
use std::mem::offset_of;

use super::ACK_ROOM;
use crate::conntrack::entry::Window;
use crate::conntrack::{Entry, Peer};
use crate::cpu::V3;
use crate::packet::PacketMeta;

// What one load brings.
const _: () = assert!(offset_of!(Window, end) == 0 && offset_of!(Window, maxend) == 4);
const _: () = assert!(offset_of!(Window, maxwin) == 8 && offset_of!(Window, acked) == 12);
const _: () = assert!(offset_of!(Entry, windows) % 16 == 0 && size_of::<Window>() == 16);
const _: () = assert!(
    offset_of!(PacketMeta, ack) % 16 == 0 && offset_of!(PacketMeta, seq) == offset_of!(PacketMeta, ack) + 4
);
const _: () = assert!(offset_of!(PacketMeta, seq_end) == offset_of!(PacketMeta, ack) + 8);

/// What [`super::data`] does if windows are checked; false where they are overstepped, and nothing
/// has changed.
#[inline(always)]
pub fn data(_: V3, entry: &mut Entry, pkt: &PacketMeta, from: Peer) -> bool {
    let scale = entry.scale(from);
    // SAFETY: `from & 1` and the other one are the two windows; all of them, and the packet
    // metadata's numbers, lie on multiples of 16 bytes (asserted above), and every number is a
    // valid one. The token proves SSE4.1.
    unsafe {
        let windows = entry.windows.as_mut_ptr().cast::<__m128i>();
        let (sender_at, receiver_at) = (windows.add(from & 1), windows.add(from & 1 ^ 1));
        // end, maxend, maxwin, acked; ack, seq, seq_end.
        let (sender, receiver) = (_mm_load_si128(sender_at), _mm_load_si128(receiver_at));
        let numbers = _mm_load_si128(std::ptr::from_ref(pkt).byte_add(offset_of!(PacketMeta, ack)).cast());
        if _mm_movemask_ps(_mm_castsi128_ps(room(sender, receiver, numbers))) != 0 {
            return false;
        }
        let window = u32::from(pkt.win) << scale;
        // `maxwin` is below 2³¹, so that one comparison, modulo 2³², does for all.
        let sent = _mm_insert_epi32::<2>(sender, window as i32);
        let sent = _mm_blend_epi32::<0b1001>(sent, _mm_shuffle_epi32::<0b00_00_00_10>(numbers));
        _mm_store_si128(sender_at, later(sender, sent));
        let maxend = pkt.ack.wrapping_add(window.max(1));
        let offered = _mm_insert_epi32::<1>(receiver, maxend as i32);
        _mm_store_si128(receiver_at, later(receiver, offered));
    }
    true
}

/// How much room is left to each of the four bounds (semantics 4.4): negative, modulo 2³², exactly
/// where one is overstepped.
#[target_feature(enable = "avx2")]
#[inline]
fn room(sender: __m128i, receiver: __m128i, numbers: __m128i) -> __m128i {
    let as_floats = _mm_castsi128_ps;
    // receiver.end, sender.maxend, seq_end, ack
    let ends = _mm_blend_epi32::<0b0010>(receiver, sender);
    let upper = _mm_castps_si128(_mm_shuffle_ps::<0b00_10_01_00>(as_floats(ends), as_floats(numbers)));
    // ack, seq, sender.end, receiver.end
    let lower = _mm_unpacklo_epi64(numbers, _mm_unpacklo_epi32(sender, receiver));
    // 0, 0, receiver.maxwin, the larger of sender.maxwin and what acknowledgments may lag behind at
    // least
    let behind = _mm_slli_si128::<8>(_mm_unpackhi_epi32(receiver, sender));
    let behind = _mm_max_epu32(behind, _mm_set_epi32(ACK_ROOM as i32, 0, 0, 0));
    _mm_add_epi32(_mm_sub_epi32(upper, lower), behind)
}

/// Of each pair of numbers the later one.
#[target_feature(enable = "avx2")]
#[inline]
fn later(old: __m128i, new: __m128i) -> __m128i {
    let (old, new, difference) =
        (_mm_castsi128_ps(old), _mm_castsi128_ps(new), _mm_castsi128_ps(_mm_sub_epi32(old, new)));
    _mm_castps_si128(_mm_blendv_ps(old, new, difference))
}

#[cfg(test)]
mod tests {
    use crate::Side;
    use crate::conntrack::{Entry, State, key_meta};
    use crate::packet::{PacketKind, PacketMeta, flags};
    use crate::{AddrId, proto};

    /// Marsaglia's xorshift.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u64) -> u32 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (((self.0 >> 32) * n) >> 32) as u32
        }

        /// Near the wrap of 2³² or of 2³¹, or anywhere.
        fn number(&mut self) -> u32 {
            let near = self.below(200_000).wrapping_sub(100_000);
            match self.below(3) {
                0 => near,
                1 => near ^ 1 << 31,
                _ => self.below(1 << 32),
            }
        }
    }

    fn connection(random: &mut Random) -> Entry {
        let inbound = random.below(2) == 0;
        let mut entry = Entry::new(AddrId::new(0, 0), 1, 2, key_meta(proto::TCP, false), inbound);
        entry.set_state(State::Established);
        for who in 0..2 {
            entry.set_scale(who, random.below(15) as u8);
            let window = &mut entry.windows[who];
            (window.end, window.maxend, window.acked) = (random.number(), random.number(), random.number());
            window.maxwin = random.number() >> random.below(18).max(1);
        }
        entry
    }

    #[test]
    fn four_numbers_at_a_time_come_to_what_they_come_to_one_by_one() {
        let Some(v3) = crate::cpu::simd().v3() else { return };
        let (mut random, mut passed) = (Random(0x9E37_79B9_7F4A_7C15), 0);
        for _ in 0..200_000 {
            let mut entry = connection(&mut random);
            let outside = random.below(2) == 0;
            let from = usize::from(outside != entry.is_inbound());
            let (mut ack, mut seq) = (random.number(), random.number());
            // Most of them on a bound or one beside it: of what is drawn freely little passes.
            if random.below(4) != 0 {
                let mut beside = |number: u32| number.wrapping_add(random.below(3)).wrapping_sub(1);
                ack = beside(entry.windows[1 - from].end);
                seq = beside(entry.windows[from].end);
                entry.windows[from].maxend = beside(seq);
            }
            let seq_end = seq.wrapping_add(random.below(2000));
            let side = if outside { Side::Outside } else { Side::Inside };
            let win = if random.below(4) == 0 { 0 } else { random.below(1 << 16) as u16 };
            let pkt = PacketMeta {
                ack,
                seq,
                seq_end,
                win,
                side,
                kind: PacketKind::Tcp,
                flags: flags::ACK,
                ..PacketMeta::default()
            };
            let (mut one_by_one, mut at_once) = (entry, entry);
            let passes = super::super::data(&mut one_by_one, &pkt, from, false);
            assert_eq!(super::super::data_checked(v3, &mut at_once, &pkt), passes);
            assert_eq!(at_once.windows, one_by_one.windows, "{entry:?} {pkt:?}");
            passed += u32::from(passes);
        }
        assert!((20_000..180_000).contains(&passed), "{passed} pass");
    }
}
