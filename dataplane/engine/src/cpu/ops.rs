//! Comparisons of many keys or rules at once: by SSE2, which every x86-64 has, by AVX2, by AVX-512,
//! or without any of them. All have the same results.

use super::Baseline;
#[cfg(target_arch = "x86_64")]
use super::{V3, V4};

/// Keys that are compared with at once.
pub const LANES: usize = 16;

/// Rules of a chunk.
pub const CHUNK: usize = 256;

/// A set of 256 rules, half a cache line.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct Chunk(pub [u64; CHUNK / 64]);

/// To where signed comparison does what unsigned does here: there is no other one before AVX-512.
#[inline(always)]
pub fn bias(key: u32) -> i32 {
    (key ^ 0x8000_0000) as i32
}

/// The comparisons, by one instruction set.
pub trait VectorOps: Copy {
    /// How many keys are below `key` before one that is not.
    fn below_u16(self, keys: &[u16; LANES], key: u16) -> usize;
    /// How many of these sorted keys are below `key`, all [`bias`].
    fn below_u32(self, keys: &[i32; LANES], key: i32) -> usize;
    /// A bit for each word in which two sets have no common rule.
    fn disjoint_words(self, one: &Chunk, other: &Chunk) -> u64;
}

#[inline(always)]
fn disjoint_by_word(one: &Chunk, other: &Chunk) -> u64 {
    (0..one.0.len()).fold(0, |bits, word| bits | u64::from(one.0[word] & other.0[word] == 0) << word)
}

#[cfg(target_arch = "x86_64")]
impl VectorOps for Baseline {
    #[inline(always)]
    fn below_u16(self, keys: &[u16; LANES], key: u16) -> usize {
        use std::arch::x86_64::{
            __m128i, _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
            _mm_setzero_si128, _mm_subs_epu16,
        };
        // SAFETY: SSE2 is part of x86-64, and the loads are of the sixteen keys.
        let not_below = unsafe {
            let (keys, key): (*const __m128i, _) = (keys.as_ptr().cast(), _mm_set1_epi16(key as i16));
            // What is left of a key that nothing above it is taken from.
            let not_below =
                |at| _mm_cmpeq_epi16(_mm_subs_epu16(key, _mm_loadu_si128(keys.add(at))), _mm_setzero_si128());
            _mm_movemask_epi8(_mm_packs_epi16(not_below(0), not_below(1)))
        };
        (not_below | 1 << LANES).trailing_zeros() as usize
    }

    #[inline(always)]
    fn below_u32(self, keys: &[i32; LANES], key: i32) -> usize {
        use std::arch::x86_64::{
            __m128i, _mm_cmpgt_epi32, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_packs_epi32,
            _mm_set1_epi32,
        };
        // SAFETY: as above.
        let below = unsafe {
            let (keys, key): (*const __m128i, _) = (keys.as_ptr().cast(), _mm_set1_epi32(key));
            let below = |at| _mm_cmpgt_epi32(key, _mm_loadu_si128(keys.add(at)));
            let (low, high) = (_mm_packs_epi32(below(0), below(1)), _mm_packs_epi32(below(2), below(3)));
            _mm_movemask_epi8(_mm_packs_epi16(low, high))
        };
        (!below).trailing_zeros() as usize
    }

    #[inline(always)]
    fn disjoint_words(self, one: &Chunk, other: &Chunk) -> u64 {
        disjoint_by_word(one, other)
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl VectorOps for Baseline {
    #[inline(always)]
    fn below_u16(self, keys: &[u16; LANES], key: u16) -> usize {
        keys.iter().position(|end| *end >= key).unwrap_or(LANES)
    }

    #[inline(always)]
    fn below_u32(self, keys: &[i32; LANES], key: i32) -> usize {
        keys.iter().filter(|end| **end < key).count()
    }

    #[inline(always)]
    fn disjoint_words(self, one: &Chunk, other: &Chunk) -> u64 {
        disjoint_by_word(one, other)
    }
}

#[cfg(target_arch = "x86_64")]
impl VectorOps for V3 {
    #[inline(always)]
    fn below_u16(self, keys: &[u16; LANES], key: u16) -> usize {
        use std::arch::x86_64::{
            _mm256_cmpeq_epi16, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_set1_epi16,
            _mm256_setzero_si256, _mm256_subs_epu16,
        };
        // SAFETY: the token proves AVX2, and the load is of the sixteen keys.
        let not_below = unsafe {
            let left =
                _mm256_subs_epu16(_mm256_set1_epi16(key as i16), _mm256_loadu_si256(keys.as_ptr().cast()));
            _mm256_movemask_epi8(_mm256_cmpeq_epi16(left, _mm256_setzero_si256()))
        };
        // Of none there are 32 zeros: two a key.
        (not_below.trailing_zeros() / 2) as usize
    }

    #[inline(always)]
    fn below_u32(self, keys: &[i32; LANES], key: i32) -> usize {
        use std::arch::x86_64::{
            __m256i, _mm256_cmpgt_epi32, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_packs_epi32,
            _mm256_set1_epi32,
        };
        // SAFETY: as above.
        let below = unsafe {
            let (keys, key): (*const __m256i, _) = (keys.as_ptr().cast(), _mm256_set1_epi32(key));
            let below = |at| _mm256_cmpgt_epi32(key, _mm256_loadu_si256(keys.add(at)));
            _mm256_movemask_epi8(_mm256_packs_epi32(below(0), below(1)))
        };
        // Two a key, and in no order that would matter.
        (below.count_ones() / 2) as usize
    }

    #[inline(always)]
    fn disjoint_words(self, one: &Chunk, other: &Chunk) -> u64 {
        use std::arch::x86_64::{
            _mm256_and_si256, _mm256_castsi256_pd, _mm256_cmpeq_epi64, _mm256_load_si256, _mm256_movemask_pd,
            _mm256_setzero_si256,
        };
        // SAFETY: as above; the loads are of chunks, which lie as such loads want them.
        let apart = unsafe {
            let common = _mm256_and_si256(
                _mm256_load_si256(one.0.as_ptr().cast()),
                _mm256_load_si256(other.0.as_ptr().cast()),
            );
            _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(common, _mm256_setzero_si256())))
        };
        apart as u64
    }
}

#[cfg(target_arch = "x86_64")]
impl VectorOps for V4 {
    #[inline(always)]
    fn below_u16(self, keys: &[u16; LANES], key: u16) -> usize {
        use std::arch::x86_64::{_mm256_cmpge_epu16_mask, _mm256_loadu_si256, _mm256_set1_epi16};
        // SAFETY: the token proves AVX-512, and the load is of the sixteen keys.
        let not_below = unsafe {
            _mm256_cmpge_epu16_mask(_mm256_loadu_si256(keys.as_ptr().cast()), _mm256_set1_epi16(key as i16))
        };
        (u32::from(not_below) | 1 << LANES).trailing_zeros() as usize
    }

    #[inline(always)]
    fn below_u32(self, keys: &[i32; LANES], key: i32) -> usize {
        use std::arch::x86_64::{_mm512_cmplt_epi32_mask, _mm512_loadu_si512, _mm512_set1_epi32};
        // SAFETY: as above.
        let below = unsafe {
            _mm512_cmplt_epi32_mask(_mm512_loadu_si512(keys.as_ptr().cast()), _mm512_set1_epi32(key))
        };
        below.count_ones() as usize
    }

    #[inline(always)]
    fn disjoint_words(self, one: &Chunk, other: &Chunk) -> u64 {
        use std::arch::x86_64::{_mm256_load_si256, _mm256_testn_epi64_mask};
        // SAFETY: as above; the loads are of chunks, which lie as such loads want them.
        let apart = unsafe {
            _mm256_testn_epi64_mask(
                _mm256_load_si256(one.0.as_ptr().cast()),
                _mm256_load_si256(other.0.as_ptr().cast()),
            )
        };
        u64::from(apart)
    }
}
