//! Finding the range that an address lies in, without a branch that anybody outside could make
//! unforeseeable: the remote of an opening packet is a stranger's choice. Ranges are known by their
//! last keys; that of the last range is the largest key.

use std::sync::Arc;

use super::pool::{InternPool, Node};
use crate::cpu::{LANES, VectorOps, bias};

/// A key whose ranges can be looked up.
pub(super) trait RangeKey: Copy + Ord {
    /// The smallest key.
    const ZERO: Self;
    /// The largest one.
    const LAST: Self;
    /// The key before this one, which is not the smallest.
    fn before(self) -> Self;
    /// The key behind this one.
    fn next(self) -> Option<Self>;
}

/// An address of one family.
pub(super) trait Address: RangeKey {
    /// It is IPv6's.
    const V6: bool;
    /// How one is found.
    type Search: Search<Self>;
    /// From the low bits of a longer number.
    fn of(address: u128) -> Self;
}

/// Finds the range that a key lies in.
///
/// # Safety
/// What is found is below the number of ranges: who asks reads there without another look.
pub(super) unsafe trait Search<K>: Eq {
    /// Of ranges with these last keys, in order; the last is the largest key.
    fn new(ends: &[K]) -> Self;
    /// The number of the range.
    fn find(&self, isa: impl VectorOps, key: K) -> usize;
    /// Takes known parts in the place of equal ones.
    fn share(&mut self, pool: &mut InternPool);
}

macro_rules! range_key {
    ($($key:ty),+) => {
        $(impl RangeKey for $key {
            const ZERO: Self = 0;
            const LAST: Self = <$key>::MAX;

            fn before(self) -> Self {
                self - 1
            }

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
        })+
    };
}
range_key!(u16, u32, u128);

impl Address for u32 {
    const V6: bool = false;
    type Search = Buckets;

    #[inline(always)]
    fn of(address: u128) -> u32 {
        address as u32
    }
}

impl Address for u128 {
    const V6: bool = true;
    type Search = BinarySearch;

    #[inline(always)]
    fn of(address: u128) -> u128 {
        address
    }
}

/// IPv4 addresses: of each /8 network a row of equally wide buckets, from the first to the last
/// range that ends in there, which are so narrow that the first range of a bucket and one look at
/// sixteen ends from there on tell the rest. So every address takes the same way: its network, its
/// bucket, its range. Only where ranges crowd much more in one place than in others a bucket has
/// buckets again.
#[derive(PartialEq, Eq)]
pub(super) struct Buckets {
    /// By first byte.
    networks: Box<[u8; 256]>,
    nodes: Arc<[Node]>,
    buckets: Arc<[u16]>,
    /// Of the ranges, [`bias`]; filled up so that there are sixteen from any on.
    ends: Arc<[i32]>,
}

impl Node {
    /// The part of the node's region that lies in one of its buckets.
    fn region_of(&self, bucket: u32, region: Region) -> Region {
        let begin = |bucket: u32| self.base + (bucket << self.shift);
        Region {
            first: if bucket == 0 { region.first } else { begin(bucket) },
            last: if bucket == self.last { region.last } else { begin(bucket + 1) - 1 },
        }
    }
}

/// Set in a bucket that has buckets.
const DIVIDED: u16 = 1 << 15;

/// Buckets a range there may be in a node, so that memory stays in bounds.
const BUCKETS_A_RANGE: usize = 64;

/// What is behind a node, before it is laid down: keys from … to.
#[derive(Clone, Copy)]
struct Region {
    first: u32,
    last: u32,
}

/// What lays down nodes.
struct Builder<'e> {
    ends: &'e [u32],
    nodes: Vec<Node>,
    buckets: Vec<u16>,
    /// Whose nodes are to be laid down, beside nodes that are there for them.
    open: Vec<(usize, Region)>,
}

impl Builder<'_> {
    /// How many ends are below a key.
    fn rank(&self, key: u32) -> usize {
        self.ends.partition_point(|end| *end < key)
    }

    /// The buckets of a region, at a place among the nodes that is there for them.
    fn lay(&mut self, at: usize, region: Region) {
        let (first, behind) = (self.rank(region.first), self.rank(region.last));
        let inside = &self.ends[first..behind];
        // A key behind the last of these ends is behind all of them.
        let (base, top) = match inside {
            [] => (region.first, region.first),
            [base, ..] => (*base, inside[inside.len() - 1]),
        };
        let shift = narrow(inside, base, top);
        // The last bucket is that of the key behind the last end, so that every bucket but this one
        // ends where the next begins and no bucket is crowded because it is the last.
        let last = match inside {
            [] => 0,
            _ => (top - base + 1) >> shift,
        };
        let node = Node {
            base,
            shift,
            last,
            buckets: self.buckets.len() as u32,
            first: first as u32,
            children: self.nodes.len() as u32,
        };
        self.nodes[at] = node;
        let bucket_of = |end: u32| (end - base) >> shift;
        let mut below = 0;
        for some in inside.chunk_by(|one, next| bucket_of(*one) == bucket_of(*next)) {
            let bucket = bucket_of(some[0]);
            self.fill(&node, bucket, below, region);
            let its = node.region_of(bucket, region);
            let crowd = some.len() - usize::from(some[some.len() - 1] == its.last);
            if crowd > LANES {
                self.divide(&node, its);
            } else {
                self.fill(&node, bucket + 1, below, region);
            }
            below += some.len();
        }
        self.fill(&node, last + 1, below, region);
    }

    /// Buckets up to before this one, with so many ends before each. A number too large for a
    /// bucket is a node's.
    fn fill(&mut self, node: &Node, to: u32, below: usize, region: Region) {
        if below < usize::from(DIVIDED) {
            return self.buckets.resize((node.buckets + to) as usize, below as u16);
        }
        for bucket in self.buckets.len() as u32 - node.buckets..to {
            self.divide(node, node.region_of(bucket, region));
        }
    }

    /// The next bucket, with buckets of its own.
    fn divide(&mut self, node: &Node, its: Region) {
        let child = self.nodes.len();
        self.buckets.push(DIVIDED | (child - node.children as usize) as u16);
        self.open.push((child, its));
        self.nodes.push(*node);
    }
}

/// How wide buckets are to be, as a power of two: as wide as can be without more than sixteen
/// ranges in any, but not so narrow that there were too many.
fn narrow(ends: &[u32], base: u32, top: u32) -> u32 {
    let most = (ends.len() * BUCKETS_A_RANGE).clamp(2, usize::from(DIVIDED)) as u32;
    let too_many = |shift: u32| (top - base + 1) >> shift >= most;
    // Seventeen ends are not crowded if the key behind the last one is in another bucket than the
    // first one.
    let apart = |some: &[u32]| ((some[0] - base) ^ (some[LANES] - base + 1)).ilog2();
    // At most as wide as one of two to the thirtieth, so that where a bucket ends is a number.
    let mut shift = ends.windows(LANES + 1).map(apart).min().unwrap_or(30);
    while too_many(shift) {
        shift += 1;
    }
    shift
}

// SAFETY: a bucket's first range is there, and a key of the bucket is above no more ends than there
// are before the range that the key lies in.
unsafe impl Search<u32> for Buckets {
    fn new(ends: &[u32]) -> Buckets {
        assert_eq!(ends.last(), Some(&u32::MAX));
        let mut networks = Box::new([0; 256]);
        let mut builder = Builder { ends, nodes: Vec::new(), buckets: Vec::new(), open: Vec::new() };
        // The range that the last network without ends lies in, and its node.
        let mut whole = None;
        for (top, network) in (0u32..).zip(networks.iter_mut()) {
            let region = Region { first: top << 24, last: top << 24 | 0xFF_FFFF };
            let range = builder.rank(region.first);
            let is_whole = ends[range] >= region.last;
            *network = match whole {
                Some((same, node)) if is_whole && same == range => node,
                _ => {
                    let node = builder.nodes.len() as u8;
                    builder.open.push((usize::from(node), region));
                    builder.nodes.push(Node {
                        base: 0,
                        shift: 0,
                        last: 0,
                        buckets: 0,
                        first: 0,
                        children: 0,
                    });
                    if is_whole {
                        whole = Some((range, node));
                    }
                    node
                }
            };
        }
        while let Some((node, region)) = builder.open.pop() {
            builder.lay(node, region);
        }
        let mut moved_ends = Vec::with_capacity(ends.len() + LANES);
        moved_ends.extend(ends.iter().map(|end| bias(*end)));
        moved_ends.resize(ends.len() + LANES, i32::MAX);
        Buckets {
            networks,
            nodes: builder.nodes.into(),
            buckets: builder.buckets.into(),
            ends: moved_ends.into(),
        }
    }

    #[inline(always)]
    fn find(&self, isa: impl VectorOps, key: u32) -> usize {
        let mut at = usize::from(self.networks[(key >> 24) as usize]);
        let range = loop {
            // SAFETY: every network, and every divided bucket, has a node.
            let node = unsafe { self.nodes.get_unchecked(at) };
            let bucket = (key.saturating_sub(node.base) >> (node.shift & 31)).min(node.last);
            // SAFETY: a node has this many buckets.
            let entry = unsafe { *self.buckets.get_unchecked((node.buckets + bucket) as usize) };
            if entry & DIVIDED == 0 {
                break (node.first + u32::from(entry)) as usize;
            }
            at = (node.children + u32::from(entry ^ DIVIDED)) as usize;
        };
        // SAFETY: this is the number of a range, and behind the last one there are sixteen ends
        // more.
        let ends = unsafe { &*self.ends.as_ptr().add(range).cast() };
        range + isa.below_u32(ends, bias(key))
    }

    fn share(&mut self, pool: &mut InternPool) {
        pool.nodes.share(&mut self.nodes);
        pool.buckets.share(&mut self.buckets);
        pool.ends.share(&mut self.ends);
    }
}

/// IPv6 addresses: halving, as many steps for every key.
#[derive(PartialEq, Eq)]
pub(super) struct BinarySearch(Arc<[u128]>);

// SAFETY: what is left to search begins at `at` and never becomes empty.
unsafe impl Search<u128> for BinarySearch {
    fn new(ends: &[u128]) -> BinarySearch {
        assert_eq!(ends.last(), Some(&u128::MAX));
        BinarySearch(ends.into())
    }

    #[inline(always)]
    fn find(&self, _: impl VectorOps, key: u128) -> usize {
        let (mut at, mut len) = (0, self.0.len());
        while len > 1 {
            let half = len / 2;
            at += half & usize::from(self.0[at + half - 1] < key).wrapping_neg();
            len -= half;
        }
        at
    }

    fn share(&mut self, pool: &mut InternPool) {
        pool.keys.share(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{Isa, Work, simd};

    struct Find<'s, K: Address>(&'s K::Search, K);

    impl<K: Address> Work for Find<'_, K> {
        type Output = usize;

        #[inline(always)]
        fn run(self, isa: impl Isa) -> usize {
            self.0.find(isa, self.1)
        }
    }

    fn check<K: Address + std::fmt::Debug>(mut ends: Vec<K>, beside: impl Fn(K) -> [K; 3]) {
        ends.push(K::LAST);
        ends.sort_unstable();
        ends.dedup();
        let search = K::Search::new(&ends);
        for key in ends.iter().flat_map(|end| beside(*end)).chain([K::ZERO, K::LAST]) {
            let expected = ends.partition_point(|end| *end < key);
            for level in simd().levels() {
                let found = level.run_widest(Find(&search, key));
                assert_eq!(found, expected, "key {key:?} of {} ranges, {level:?}", ends.len());
            }
        }
    }

    #[test]
    fn a_key_is_found_in_the_range_that_it_lies_in_however_many_there_are() {
        for count in [0, 1, 2, 15, 16, 17, 100, 255, 256, 257, 4095, 4096, 4097, 70_000] {
            // Spread over all keys; crowded; at both ends; crowded in the midst of others.
            for (step, from) in [
                (u32::MAX / (count + 1), 0),
                (1, 0),
                (3, 0x7FFF_0000),
                (1, u32::MAX - count),
                (61_000, 5),
                (0x0100_0100, 77),
            ] {
                let mut ends: Vec<u32> =
                    (0..count).map(|n| from.wrapping_add(n.wrapping_mul(step))).collect();
                check(ends.iter().map(|end| u128::from(*end) << 90).collect(), |e: u128| {
                    [e.wrapping_sub(1), e, e.wrapping_add(1)]
                });
                check(ends.clone(), |e: u32| [e.wrapping_sub(1), e, e.wrapping_add(1)]);
                ends.extend((0..40).map(|n| 0x4321_0000 + n));
                check(ends, |e: u32| [e.wrapping_sub(1), e, e.wrapping_add(1)]);
            }
        }
    }
}
