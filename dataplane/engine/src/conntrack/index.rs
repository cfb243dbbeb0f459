//! From a key's hash to a connection's place: cache-line buckets of ten 16-bit tags and ten places.
//!
//! One bucket, so one cache line, answers nearly every question. A bucket that is full lets entries
//! go on to the next ones and counts them (as F14's overflow counters do), so that a search knows
//! when to stop and nothing needs a tombstone. At the load chosen here (5.4 of 10) about 1 entry in
//! 140 does not lie in its home.

use super::hash::{FlowHash, RawHash};
use crate::cpu::{Isa, V3};

const WAYS: usize = 10;
/// Entries per bucket when the table is at its capacity, in tenths: just below 12 bytes of index an
/// entry.
const LOAD_TENTHS: u64 = 54;

/// Buckets that are recounted one by one, at most.
const LOOKED_AT: usize = 1 << 10;

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Bucket {
    /// 0 for a free place.
    tags: [u16; WAYS],
    /// How many entries went past this bucket to a later one.
    overflows: u32,
    slots: [u32; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// The index of one shard.
pub struct Index {
    buckets: Box<[Bucket]>,
}

/// A bucket's answer: a bit for each place whose tag fits.
#[derive(Clone, Copy)]
struct Matches(u32);

impl Iterator for Matches {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (bit < WAYS).then_some(bit)
    }
}

impl Bucket {
    #[inline]
    fn matches(&self, tag: u16) -> Matches {
        Matches(matching(&self.tags, tag))
    }
}

/// A bit for each tag that is equal: eight at once, and the last two.
#[cfg(target_arch = "x86_64")]
#[inline]
fn matching(tags: &[u16; WAYS], tag: u16) -> u32 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
        _mm_setzero_si128,
    };
    // SAFETY: SSE2 is part of x86-64, and the load reads the first 16 of the array's 20 bytes.
    let first = unsafe {
        let equal =
            _mm_cmpeq_epi16(_mm_loadu_si128(tags.as_ptr().cast::<__m128i>()), _mm_set1_epi16(tag as i16));
        _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())) as u32
    };
    first | u32::from(tags[8] == tag) << 8 | u32::from(tags[9] == tag) << 9
}

/// The first way whose tag is equal, [`WAYS`] or more if none is: all at once, with what lies
/// behind them.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn first_matching(_: V3, bucket: &Bucket, tag: u16) -> usize {
    use std::arch::x86_64::{
        __m256i, _mm256_cmpeq_epi16, _mm256_load_si256, _mm256_movemask_epi8, _mm256_set1_epi16,
    };
    // SAFETY: a bucket begins with its tags, has 64 bytes and lies on a multiple of that; the token
    // proves AVX2.
    let equal = unsafe {
        let tags = _mm256_load_si256(std::ptr::from_ref(bucket).cast::<__m256i>());
        _mm256_movemask_epi8(_mm256_cmpeq_epi16(tags, _mm256_set1_epi16(tag as i16)))
    };
    // Two bits a tag.
    equal.trailing_zeros() as usize / 2
}

/// What [`matching`] finds, one by one.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[cfg_attr(target_arch = "x86_64", allow(dead_code))]
fn matching_one_by_one(tags: &[u16; WAYS], tag: u16) -> u32 {
    tags.iter().enumerate().fold(0, |bits, (way, t)| bits | u32::from(*t == tag) << way)
}

#[cfg(not(target_arch = "x86_64"))]
use matching_one_by_one as matching;

/// An index to be asked only.
#[derive(Clone, Copy)]
pub struct IndexView<'i> {
    buckets: &'i [Bucket],
}

impl IndexView<'_> {
    /// A key's hash as the index takes it.
    #[inline(always)]
    pub fn hash(&self, raw: RawHash) -> FlowHash {
        raw.within(self.buckets.len())
    }

    /// Asks for the home bucket's cache line.
    #[inline(always)]
    pub fn prefetch(&self, hash: FlowHash) {
        // Nothing is read, so that nothing need be looked at first.
        crate::cpu::prefetch(self.buckets.as_ptr().wrapping_add(hash.home()));
    }

    /// The first place whose tag fits, to be prefetched: a hint and no more.
    #[inline(always)]
    pub fn hint(&self, isa: impl Isa, hash: FlowHash) -> Option<u32> {
        let bucket = &self.buckets[hash.home()];
        #[cfg(target_arch = "x86_64")]
        if let Some(v3) = isa.v3() {
            let way = first_matching(v3, bucket, hash.tag());
            return (way < WAYS).then(|| bucket.slots[way]);
        }
        bucket.matches(hash.tag()).next().map(|way| bucket.slots[way])
    }
}

impl Index {
    /// For at most `capacity` entries.
    pub fn new(capacity: u32) -> Index {
        let buckets = (u64::from(capacity) * 10).div_ceil(LOAD_TENTHS).max(2) as usize;
        let empty = Bucket { tags: [0; WAYS], overflows: 0, slots: [0; WAYS] };
        Index { buckets: crate::pages::filled_on_huge_pages(empty, buckets) }
    }

    /// Itself, to be kept in registers.
    #[inline(always)]
    pub fn view(&self) -> IndexView<'_> {
        IndexView { buckets: &self.buckets }
    }

    /// See [`IndexView::hash`].
    #[inline(always)]
    pub fn hash(&self, raw: RawHash) -> FlowHash {
        self.view().hash(raw)
    }

    #[inline]
    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() { 0 } else { bucket + 1 }
    }

    /// See [`IndexView::prefetch`].
    #[inline]
    pub fn prefetch(&self, hash: FlowHash) {
        self.view().prefetch(hash);
    }

    /// True if no place can be meant: no tag at home fits, and nothing went on from there.
    #[inline]
    pub fn is_absent(&self, hash: FlowHash) -> bool {
        let bucket = &self.buckets[hash.home()];
        bucket.overflows == 0 && matching(&bucket.tags, hash.tag()) == 0
    }

    /// The place for which `is_it` holds.
    #[inline(always)]
    pub fn find(&self, hash: FlowHash, is_it: impl Fn(u32) -> bool + Copy) -> Option<u32> {
        let bucket = &self.buckets[hash.home()];
        for way in bucket.matches(hash.tag()) {
            if is_it(bucket.slots[way]) {
                return Some(bucket.slots[way]);
            }
        }
        if bucket.overflows == 0 { None } else { self.find_beyond(hash, is_it) }
    }

    /// For the few that did not find room at home.
    #[inline(never)]
    fn find_beyond(&self, hash: FlowHash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.after(hash.home());
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            for way in bucket.matches(hash.tag()) {
                if is_it(bucket.slots[way]) {
                    return Some(bucket.slots[way]);
                }
            }
            if bucket.overflows == 0 {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// Notes a place under a hash. There is always room for the capacity's worth.
    pub fn insert(&mut self, hash: FlowHash, place: u32) {
        let mut at = hash.home();
        for _ in 0..self.buckets.len() {
            let bucket = &mut self.buckets[at];
            if let Some(way) = bucket.matches(0).next() {
                bucket.tags[way] = hash.tag();
                bucket.slots[way] = place;
                return;
            }
            bucket.overflows += 1;
            at = self.after(at);
        }
        debug_assert!(false, "more entries than the index was made for");
    }

    /// Forgets a place that was noted under this hash.
    pub fn remove(&mut self, hash: FlowHash, place: u32) {
        let home = hash.home();
        let mut at = home;
        for _ in 0..self.buckets.len() {
            let bucket = &mut self.buckets[at];
            if let Some(way) = bucket.matches(hash.tag()).find(|&way| bucket.slots[way] == place) {
                bucket.tags[way] = 0;
                self.clear_overflows(home, at);
                return;
            }
            at = self.after(at);
        }
        debug_assert!(false, "removed an entry that is not there");
    }

    fn clear_overflows(&mut self, home: usize, end: usize) {
        let mut at = home;
        while at != end {
            self.buckets[at].overflows -= 1;
            at = self.after(at);
        }
    }

    /// What is not as these entries, by hash and place, would have it; in words, and for tests.
    /// Buckets too many to be looked at by a test are taken as they are.
    pub(super) fn miscount(&self, entries: &[(FlowHash, u32)]) -> Option<String> {
        if self.buckets.len() > LOOKED_AT {
            return None;
        }
        let mut passed = vec![0u32; self.buckets.len()];
        for (hash, place) in entries {
            let mut at = hash.home();
            let is_here = |bucket: &Bucket| bucket.matches(hash.tag()).any(|way| bucket.slots[way] == *place);
            while !is_here(&self.buckets[at]) {
                passed[at] += 1;
                at = self.after(at);
                if at == hash.home() {
                    return Some(format!("place {place} is not in the index"));
                }
            }
        }
        let noted: usize =
            self.buckets.iter().map(|bucket| bucket.tags.iter().filter(|tag| **tag != 0).count()).sum();
        if noted != entries.len() {
            return Some(format!("{noted} places are in the index, of {} entries", entries.len()));
        }
        let wrong = self.buckets.iter().zip(&passed).position(|(bucket, passed)| bucket.overflows != *passed);
        wrong.map(|at| {
            format!("bucket {at} says that {} went past it, not {}", self.buckets[at].overflows, passed[at])
        })
    }

    /// See [`crate::pages::touch`].
    pub fn touch(&mut self) {
        crate::pages::touch(&mut self.buckets);
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AddrId;
    use crate::conntrack::hash::Secret;
    use crate::conntrack::{EntryKey, key_meta};

    fn key(remote: u32) -> EntryKey {
        EntryKey::new(AddrId(1), remote, 77, key_meta(6, false))
    }

    #[test]
    fn full_to_capacity_every_entry_is_found_and_after_removal_none() {
        let secret = Secret::new([7, 9]);
        for capacity in [1, 2, 10, 100, 5000] {
            let mut index = Index::new(capacity);
            let buckets = index.buckets.len();
            let hash = |n: u32| secret.v4(&key(n)).within(buckets);
            for round in 0..3 {
                for n in 0..capacity {
                    assert_eq!(index.find(hash(n), |p| p == n), None, "round {round}");
                    index.insert(hash(n), n);
                }
                for n in 0..capacity {
                    assert_eq!(index.find(hash(n), |p| p == n), Some(n));
                }
                for n in (0..capacity).rev() {
                    index.remove(hash(n), n);
                }
            }
            assert!(index.buckets.iter().all(|b| b.overflows == 0 && b.tags == [0; WAYS]));
        }
    }

    #[test]
    fn eight_at_once_find_what_one_by_one_finds() {
        for seed in 0..2000u32 {
            let tags: [u16; WAYS] =
                std::array::from_fn(|n| (seed.wrapping_mul(n as u32 * 77 + 13) >> 5) as u16 % 4);
            for tag in 0..5 {
                let one_by_one = matching_one_by_one(&tags, tag);
                assert_eq!(matching(&tags, tag), one_by_one);
                #[cfg(target_arch = "x86_64")]
                if let Some(v3) = crate::cpu::simd().v3() {
                    let bucket = Bucket { tags, overflows: seed, slots: [u32::from(tag); WAYS] };
                    let first = first_matching(v3, &bucket, tag);
                    assert_eq!(first.min(WAYS), (one_by_one.trailing_zeros() as usize).min(WAYS));
                }
            }
        }
    }

    #[test]
    fn a_bucket_that_overflows_spills_into_the_next_and_forgets_it_again() {
        let mut index = Index::new(20);
        let hash = index.hash(Secret::new([1, 2]).v4(&key(2)));
        for place in 0..25 {
            index.insert(hash, place);
        }
        for place in 0..25 {
            assert_eq!(index.find(hash, |p| p == place), Some(place));
        }
        for place in 0..25 {
            index.remove(hash, place);
        }
        assert!(index.buckets.iter().all(|b| b.overflows == 0));
    }

    #[test]
    fn of_a_full_table_of_ports_of_one_remote_no_key_lies_far_from_its_home() {
        const CAPACITY: u32 = 60_000;
        for (seed, six) in [(1, false), (2, true), (3, false), (4, true)] {
            let secret =
                Secret::new([0x9E37_79B9_7F4A_7C15u64.wrapping_mul(seed), 0xD1B5_4A32_D192_ED03 ^ seed]);
            let mut index = Index::new(CAPACITY);
            let hash = |index: &Index, port: u32| {
                index.hash(if six {
                    secret.v6(1, 0x2001_0db8 << 96 | 9, 443 << 16 | port, 6)
                } else {
                    secret.v4(&EntryKey::new(AddrId(1), 9, 443 << 16 | port, key_meta(6, false)))
                })
            };
            (0..CAPACITY).for_each(|port| index.insert(hash(&index, port), port));
            let passed = |at: usize| index.buckets[at % index.buckets.len()].overflows;
            let walk = |port| (hash(&index, port).home()..).take_while(|at| passed(*at) > 0).count();
            let longest = (0..CAPACITY).map(walk).max().unwrap_or_default();
            let away: usize = (0..CAPACITY).map(|port| usize::from(walk(port) > 0)).sum();
            assert_eq!(longest.max(12), 12, "buckets behind one another, IPv6: {six}");
            assert!(away < CAPACITY as usize / 10, "{away} keys may lie beyond their homes, IPv6: {six}");
        }
    }
}
