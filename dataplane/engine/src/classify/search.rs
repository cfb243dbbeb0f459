//! Finding the range that a key lies in, without a branch that anybody outside could make unforeseeable: the remote address and the
//! port of an opening packet are a stranger's choice. Ranges are known by their last keys; that of the last range is the largest key.
//!
//! Sixteen keys are compared with at once: by SSE2, which every x86-64 has, or by AVX-512, for which see [`Compare`].

/// Keys that are compared with one at a time.
const NODE: usize = 16;

/// A key whose ranges can be looked up.
pub(super) trait RangeKey: Copy + Ord {
    /// The smallest key.
    const ZERO: Self;
    /// The largest one.
    const LAST: Self;
    /// How a key is found.
    type Search: Search<Self>;
    /// The key before this one, which is not the smallest.
    fn before(self) -> Self;
}

/// Finds the range that a key lies in.
///
/// # Safety
/// What is found is below the number of ranges: who asks reads there without another look.
pub(super) unsafe trait Search<K>: Eq {
    /// Of ranges with these last keys, in order; the last is the largest key.
    fn new(ends: &[K]) -> Self;
    /// The number of the range.
    fn find<C: Compare>(&self, key: K) -> usize;
}

/// How a key is compared with sixteen sorted ones: how many of them are below it. Keys are moved by half their space (see [`moved_u16`]), as
/// there is no comparison of unsigned numbers before AVX-512.
pub(super) trait Compare {
    /// With ports.
    fn below_u16(keys: &[i16; NODE], key: i16) -> usize;
    /// With addresses.
    fn below_u32(keys: &Node, key: i32) -> usize;
}

/// To where signed comparison does what unsigned does here.
#[inline(always)]
fn moved_u16(key: u16) -> i16 {
    (key ^ 0x8000) as i16
}

#[inline(always)]
fn moved_u32(key: u32) -> i32 {
    (key ^ 0x8000_0000) as i32
}

macro_rules! range_key {
    ($key:ty, $search:ty) => {
        impl RangeKey for $key {
            const ZERO: Self = 0;
            const LAST: Self = <$key>::MAX;
            type Search = $search;

            fn before(self) -> Self {
                self - 1
            }
        }
    };
}
range_key!(u16, ByTopByte);
range_key!(u32, Tree);
range_key!(u128, Halving);

/// Ports: the top byte leads to the range that its first key lies in, and the next ranges are compared with at once.
#[derive(PartialEq, Eq)]
pub(super) struct ByTopByte {
    first: Box<[u16; 256]>,
    /// Filled up so that there are [`NODE`] from any on.
    ends: Box<[i16]>,
}

// SAFETY: the walk ends at the latest at the last range, as no key is above its end.
unsafe impl Search<u16> for ByTopByte {
    fn new(ends: &[u16]) -> ByTopByte {
        assert_eq!(ends.last(), Some(&u16::MAX));
        let mut first = Box::new([0; 256]);
        let mut at = 0;
        for (top, first) in first.iter_mut().enumerate() {
            while usize::from(ends[at]) < top << 8 {
                at += 1;
            }
            *first = at as u16;
        }
        let mut filled = Vec::with_capacity(ends.len() + NODE);
        filled.extend(ends.iter().map(|end| moved_u16(*end)));
        filled.resize(ends.len() + NODE, i16::MAX);
        ByTopByte { first, ends: filled.into() }
    }

    #[inline(always)]
    fn find<C: Compare>(&self, key: u16) -> usize {
        let mut at = usize::from(self.first[usize::from(key >> 8)]);
        loop {
            // SAFETY: `at` is the number of a range, and behind the last one there are as many ends as a node has.
            let node = unsafe { &*self.ends.as_ptr().add(at).cast() };
            let below = C::below_u16(node, moved_u16(key));
            at += below;
            // More than sixteen ranges begin under one top byte only where somebody has listed port by port.
            if below < NODE {
                return at;
            }
        }
    }
}

/// No one range holds all of a /8 network (or its number is too large).
const DIVIDED: u16 = u16::MAX;

/// A cache line.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Node([i32; NODE]);

/// IPv4 addresses: a tree whose nodes are cache lines. Every key takes as many steps, one a level: 2 up to 256 ranges, 3 up to 4,096;
/// but for those in a /8 network that no range begins or ends in, as most strangers' are, which take none.
#[derive(PartialEq, Eq)]
pub(super) struct Tree {
    /// By first byte the range that all such addresses lie in, or [`DIVIDED`].
    whole: Box<[u16; 256]>,
    nodes: Box<[Node]>,
    /// Where the nodes of each level begin, the root's first.
    levels: Box<[usize]>,
}

// SAFETY: a key is above as many ends of a node as there are before the one that it is not above, and that one is always there: the last
// end of a level is the largest key. So each level's find is the number of a node, or range, that is there.
unsafe impl Search<u32> for Tree {
    fn new(ends: &[u32]) -> Tree {
        assert_eq!(ends.last(), Some(&u32::MAX));
        let mut whole = Box::new([DIVIDED; 256]);
        let mut at = 0;
        for (top, whole) in (0u32..).zip(whole.iter_mut()) {
            while ends[at] < top << 24 {
                at += 1;
            }
            if ends[at] >= top << 24 | 0xFF_FFFF {
                *whole = at.min(usize::from(DIVIDED)) as u16;
            }
        }
        let mut levels: Vec<Vec<Node>> = Vec::new();
        let mut ends = ends.to_vec();
        loop {
            let node = |some: &[u32]| {
                let mut node = Node([i32::MAX; NODE]);
                for (key, end) in node.0.iter_mut().zip(some) {
                    *key = moved_u32(*end);
                }
                node
            };
            levels.push(ends.chunks(NODE).map(node).collect());
            if ends.len() <= NODE {
                break;
            }
            // The level above has the last key of each node.
            ends = ends.chunks(NODE).map(|some| some[some.len() - 1]).collect();
        }
        let (mut nodes, mut begins) = (Vec::new(), Vec::new());
        for level in levels.iter().rev() {
            begins.push(nodes.len());
            nodes.extend_from_slice(level);
        }
        Tree { whole, nodes: nodes.into(), levels: begins.into() }
    }

    #[inline(always)]
    fn find<C: Compare>(&self, key: u32) -> usize {
        let whole = self.whole[(key >> 24) as usize];
        if whole != DIVIDED {
            return usize::from(whole);
        }
        let key = moved_u32(key);
        self.levels.iter().fold(0, |at, level| {
            // SAFETY: `at` is the number of a node of this level.
            let node = unsafe { self.nodes.get_unchecked(level + at) };
            at * NODE + C::below_u32(node, key)
        })
    }
}

/// IPv6 addresses: halving, as many steps for every key.
#[derive(PartialEq, Eq)]
pub(super) struct Halving(Box<[u128]>);

// SAFETY: what is left to search begins at `at` and never becomes empty.
unsafe impl Search<u128> for Halving {
    fn new(ends: &[u128]) -> Halving {
        assert_eq!(ends.last(), Some(&u128::MAX));
        Halving(ends.into())
    }

    #[inline(always)]
    fn find<C: Compare>(&self, key: u128) -> usize {
        let (mut at, mut len) = (0, self.0.len());
        while len > 1 {
            let half = len / 2;
            at += half & usize::from(self.0[at + half - 1] < key).wrapping_neg();
            len -= half;
        }
        at
    }
}

/// With what every machine has that this is built for.
pub(super) struct Plain;

#[cfg(target_arch = "x86_64")]
impl Compare for Plain {
    #[inline(always)]
    fn below_u16(keys: &[i16; NODE], key: i16) -> usize {
        use std::arch::x86_64::{
            __m128i, _mm_cmpgt_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
        };
        // SAFETY: SSE2 is part of x86-64, and the loads are of the sixteen keys.
        let below = unsafe {
            let (keys, key): (*const __m128i, _) = (keys.as_ptr().cast(), _mm_set1_epi16(key));
            let below = |at| _mm_cmpgt_epi16(key, _mm_loadu_si128(keys.add(at)));
            _mm_movemask_epi8(_mm_packs_epi16(below(0), below(1)))
        };
        (!below).trailing_zeros() as usize
    }

    #[inline(always)]
    fn below_u32(keys: &Node, key: i32) -> usize {
        use std::arch::x86_64::{
            __m128i, _mm_cmpgt_epi32, _mm_load_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_packs_epi32,
            _mm_set1_epi32,
        };
        // SAFETY: SSE2 is part of x86-64, and the loads are of the sixteen keys, which lie on a cache line.
        let below = unsafe {
            let (keys, key): (*const __m128i, _) = (keys.0.as_ptr().cast(), _mm_set1_epi32(key));
            let below = |at| _mm_cmpgt_epi32(key, _mm_load_si128(keys.add(at)));
            let (low, high) = (_mm_packs_epi32(below(0), below(1)), _mm_packs_epi32(below(2), below(3)));
            _mm_movemask_epi8(_mm_packs_epi16(low, high))
        };
        (!below).trailing_zeros() as usize
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Compare for Plain {
    #[inline(always)]
    fn below_u16(keys: &[i16; NODE], key: i16) -> usize {
        keys.iter().filter(|end| **end < key).count()
    }

    #[inline(always)]
    fn below_u32(keys: &Node, key: i32) -> usize {
        keys.0.iter().filter(|end| **end < key).count()
    }
}

/// With AVX-512 (F, BW, VL), a node in one comparison. Only for functions that are compiled for it.
#[cfg(target_arch = "x86_64")]
pub(super) struct Wide;

#[cfg(target_arch = "x86_64")]
impl Compare for Wide {
    #[inline(always)]
    fn below_u16(keys: &[i16; NODE], key: i16) -> usize {
        use std::arch::x86_64::{_mm256_cmplt_epi16_mask, _mm256_loadu_si256, _mm256_set1_epi16};
        // SAFETY: who is compiled for AVX-512 runs where it is, and the load is of the sixteen keys.
        let below = unsafe {
            _mm256_cmplt_epi16_mask(_mm256_loadu_si256(keys.as_ptr().cast()), _mm256_set1_epi16(key))
        };
        below.count_ones() as usize
    }

    #[inline(always)]
    fn below_u32(keys: &Node, key: i32) -> usize {
        use std::arch::x86_64::{_mm512_cmplt_epi32_mask, _mm512_load_si512, _mm512_set1_epi32};
        // SAFETY: as above; the keys lie on a cache line.
        let below = unsafe {
            _mm512_cmplt_epi32_mask(_mm512_load_si512(keys.0.as_ptr().cast()), _mm512_set1_epi32(key))
        };
        below.count_ones() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,popcnt")]
    fn find_wide<K: RangeKey>(search: &K::Search, key: K) -> usize {
        search.find::<Wide>(key)
    }

    fn check<K: RangeKey + std::fmt::Debug>(mut ends: Vec<K>, beside: impl Fn(K) -> [K; 3]) {
        ends.push(K::LAST);
        ends.sort_unstable();
        ends.dedup();
        let search = K::Search::new(&ends);
        for key in ends.iter().flat_map(|end| beside(*end)).chain([K::ZERO, K::LAST]) {
            let expected = ends.partition_point(|end| *end < key);
            #[cfg(target_arch = "x86_64")]
            if crate::cpu::simd() == crate::cpu::Simd::V4 {
                // SAFETY: the machine has AVX-512.
                let found = unsafe { find_wide(&search, key) };
                assert_eq!(found, expected, "key {key:?} of {} ranges", ends.len());
            }
            assert_eq!(search.find::<Plain>(key), expected, "key {key:?} of {} ranges", ends.len());
        }
    }

    #[test]
    fn a_key_is_found_in_the_range_that_it_lies_in_however_many_there_are() {
        for count in [0, 1, 2, 15, 16, 17, 100, 255, 256, 257, 4095, 4096, 4097, 30_000] {
            // Spread over all keys; crowded; at both ends.
            for (step, from) in
                [(u32::MAX / (count + 1), 0), (1, 0), (3, 0x7FFF_0000), (1, u32::MAX - count), (61_000, 5)]
            {
                let ends: Vec<u32> = (0..count).map(|n| from.wrapping_add(n.wrapping_mul(step))).collect();
                check(ends.iter().map(|end| *end as u16).collect(), |e: u16| {
                    [e.wrapping_sub(1), e, e.wrapping_add(1)]
                });
                check(ends.iter().map(|end| u128::from(*end) << 90).collect(), |e: u128| {
                    [e.wrapping_sub(1), e, e.wrapping_add(1)]
                });
                check(ends, |e: u32| [e.wrapping_sub(1), e, e.wrapping_add(1)]);
            }
        }
    }
}
