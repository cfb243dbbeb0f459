//! Sets of rules as rows of bits: which rules fit any address, or any port; and the first rule of
//! two of them.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::marker::PhantomData;

use super::search::RangeKey;
use crate::cpu::{CHUNK, Chunk, VectorOps};

/// Up to so many chunks two sets are compared from one end to the other without a branch; with
/// more, each has a summary.
const FEW: usize = 4;
/// Words of a chunk.
const WORDS: usize = CHUNK / 64;

/// How the sets of a table lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowLayout {
    /// Chunks of a set.
    chunks: usize,
}

impl RowLayout {
    /// Of sets of so many rules.
    pub fn new(rules: usize) -> RowLayout {
        RowLayout { chunks: rules.div_ceil(CHUNK).max(1) }
    }

    /// Words of a set.
    pub fn words(self) -> usize {
        self.chunks * WORDS
    }

    /// Chunks before those of the set: its summary.
    #[inline(always)]
    fn head(self) -> usize {
        usize::from(self.chunks > FEW)
    }
}

/// Where a rule fits: from a key to before another one, or to the end of all keys.
pub(super) struct Span<K> {
    pub first: K,
    pub behind: Option<K>,
    pub rule: usize,
}

/// Different sets, each at a place of its own.
pub(super) struct RowBuilder {
    shape: RowLayout,
    chunks: Vec<Chunk>,
    /// By a number that depends on the rules of a set alone.
    places: HashMap<u64, u32, BuildHasherDefault<IdentityHasher>>,
}

/// What tells a set of rules from others, but rarely: the exclusive or of one such number a rule.
fn mark(rule: usize) -> u64 {
    let mixed = (rule as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ mixed >> 32
}

/// Of numbers that are mixed already: no hash.
#[derive(Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

impl RowBuilder {
    /// None yet; about so many are to come.
    pub fn new(shape: RowLayout, about: usize) -> RowBuilder {
        let chunks = Vec::with_capacity(about * (shape.head() + shape.chunks));
        RowBuilder { shape, chunks, places: HashMap::with_capacity_and_hasher(about, Default::default()) }
    }

    /// The ranges of a key: the last key of each, and the place of its set. Of rules that fit
    /// everywhere, as a set, and of those that fit in some spans. One pass from the smallest key to
    /// the largest turns rules on and off: as many steps as there are spans, not as many as there
    /// are ranges times rules.
    pub fn sweep<K: RangeKey>(&mut self, everywhere: &[u64], spans: &[Span<K>]) -> (Vec<K>, Vec<u32>) {
        // Where some rule begins to fit, or ceases to.
        let mut edges: Vec<(K, u32)> = Vec::with_capacity(2 * spans.len());
        for Span { first, behind, rule } in spans {
            edges.push((*first, (*rule as u32) << 1 | 1));
            edges.extend(behind.map(|behind| (behind, (*rule as u32) << 1)));
        }
        edges.sort_unstable();
        // A rule whose spans overlap ends with the last of them.
        let mut depths = vec![0u32; if spans.is_empty() { 0 } else { everywhere.len() * 64 }];
        let mut set = everywhere.to_vec();
        let mut marks = bits(everywhere).fold(0, |marks, rule| marks ^ mark(rule));
        let mut ends = Vec::with_capacity(edges.len() + 1);
        let mut places = Vec::with_capacity(edges.len() + 1);
        let (mut start, mut left) = (K::ZERO, edges.as_slice());
        loop {
            while let [(at, edge), rest @ ..] = left
                && *at == start
            {
                let rule = (edge >> 1) as usize;
                let begins = edge & 1 == 1;
                let depth = &mut depths[rule];
                *depth = if begins { *depth + 1 } else { *depth - 1 };
                if *depth == u32::from(begins) {
                    set[rule / 64] ^= 1 << (rule % 64);
                    marks ^= mark(rule);
                }
                left = rest;
            }
            places.push(self.place(&set, marks));
            let Some((next, _)) = left.first() else { break };
            ends.push(next.before());
            start = *next;
        }
        ends.push(K::LAST);
        (ends, places)
    }

    /// Where a set lies, which is laid down if it is new: between hosts of a network there are
    /// always the same rules, so that half of the ranges share a set with others.
    fn place(&mut self, set: &[u64], marks: u64) -> u32 {
        let head = self.shape.head();
        let next = self.chunks.len() as u32;
        let place = *self.places.entry(marks).or_insert(next);
        if place != next {
            let there = &self.chunks[place as usize + head..][..self.shape.chunks];
            if there.iter().flat_map(|chunk| chunk.0).eq(set.iter().copied()) {
                return place;
            }
        }
        if head > 0 {
            self.chunks.push(summary(set));
        }
        let (chunks, _) = set.as_chunks();
        self.chunks.extend(chunks.iter().map(|words| Chunk(*words)));
        next
    }

    /// All that were laid down.
    pub fn done(self) -> RuleSets {
        RuleSets { chunks: self.chunks.into() }
    }
}

/// The rules of a set.
fn bits(set: &[u64]) -> impl Iterator<Item = usize> {
    set.iter().enumerate().flat_map(|(word, rules)| {
        let mut left = *rules;
        std::iter::from_fn(move || {
            let bit = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            (bit < 64).then_some(word * 64 + bit)
        })
    })
}

/// Sets that are laid down.
#[derive(PartialEq, Eq)]
pub(super) struct RuleSets {
    chunks: Box<[Chunk]>,
}

impl RuleSets {
    /// The set at a place.
    ///
    /// # Safety
    /// The place must be one that [`RowBuilder::sweep`] told.
    #[inline(always)]
    pub unsafe fn at(&self, place: u32) -> Row<'_> {
        // SAFETY: as promised.
        let first = unsafe { self.chunks.as_ptr().add(place as usize) };
        Row { first, of: PhantomData }
    }
}

/// A set, behind its summary if it has one. Its shape is the table's: who has the row has that as
/// well.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    /// There are as many chunks as the shape tells.
    first: *const Chunk,
    of: PhantomData<&'a [Chunk]>,
}

impl<'a> Row<'a> {
    /// A chunk of the row.
    ///
    /// # Safety
    /// The row must have it.
    #[inline(always)]
    unsafe fn chunk(self, at: usize) -> &'a Chunk {
        // SAFETY: as promised.
        unsafe { &*self.first.add(at) }
    }

    /// A word of the row.
    ///
    /// # Safety
    /// The row must have it.
    #[inline(always)]
    unsafe fn word(self, at: usize) -> u64 {
        // SAFETY: chunks are words one after the other.
        unsafe { *self.first.cast::<u64>().add(at) }
    }

    /// The words of the set.
    ///
    /// # Safety
    /// The row must be of this shape.
    pub unsafe fn words(self, shape: RowLayout) -> impl Iterator<Item = u64> {
        let head = shape.head() * WORDS;
        // SAFETY: the set has these words.
        (head..head + shape.words()).map(move |word| unsafe { self.word(word) })
    }

    /// The first rule that this set and another one of the same table have in common.
    ///
    /// Up to 1,023 rules there is no branch but those that are the same for every packet.
    ///
    /// # Safety
    /// They must have one, and be of this shape.
    #[inline(always)]
    pub unsafe fn first_common(self, isa: impl VectorOps, other: Row<'_>, shape: RowLayout) -> usize {
        let chunks = shape.chunks;
        if chunks > FEW {
            // SAFETY: as promised.
            return unsafe { self.first_by_summary(other, shape) };
        }
        let apart = |chunk| {
            // SAFETY: rows have the shape's number of chunks.
            let (one, other) = unsafe { (self.chunk(chunk), other.chunk(chunk)) };
            isa.disjoint_words(one, other) << (chunk * WORDS)
        };
        let apart = (1..chunks).fold(apart(0), |all, chunk| all | apart(chunk));
        let word = (!apart).trailing_zeros() as usize;
        // SAFETY: in this word they have a rule in common, as promised.
        let both = unsafe { self.word(word) & other.word(word) };
        word * 64 + both.trailing_zeros() as usize
    }

    /// The same by the rows' summaries.
    ///
    /// # Safety
    /// Both must be of this shape.
    unsafe fn first_by_summary(self, other: Row<'_>, shape: RowLayout) -> usize {
        // SAFETY: no more words are asked for than rows of this shape have.
        let both = |word: usize| unsafe { self.word(WORDS + word) & other.word(WORDS + word) };
        let found = |word: usize, both: u64| word * 64 + both.trailing_zeros() as usize;
        for at in 0..WORDS {
            // SAFETY: the summary is a chunk.
            let mut named = unsafe { self.word(at) & other.word(at) };
            while named != 0 {
                let word = at * 64 + named.trailing_zeros() as usize;
                if both(word) != 0 {
                    return found(word, both(word));
                }
                named &= named - 1;
            }
        }
        let word = (CHUNK..shape.words()).find(|word| both(*word) != 0).unwrap_or(0);
        found(word, both(word))
    }
}

/// A bit for each word that holds any rule; the last one is for all words from there on. After
/// Baboescu and Varghese, "Scalable packet classification", 2001: of thousands of rules only few
/// are of one address, so that few words need to be looked at.
fn summary(set: &[u64]) -> Chunk {
    let mut summary = Chunk::default();
    for (word, _) in set.iter().enumerate().filter(|(_, rules)| **rules != 0) {
        let bit = word.min(CHUNK - 1);
        summary.0[bit / 64] |= 1 << (bit % 64);
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::super::search::{BinarySearch, Search};
    use super::*;
    use crate::cpu::Baseline;

    #[test]
    fn a_rule_whose_spans_overlap_or_touch_fits_wherever_one_of_them_does() {
        let span = |first, behind| Span { first, behind, rule: 65 };
        let spans = [
            span(10u128, Some(20)),
            span(15, Some(17)),
            span(20, Some(30)),
            span(40, None),
            span(50, Some(60)),
            span(0, Some(1)),
        ];
        let shape = RowLayout::new(66);
        let mut rows = RowBuilder::new(shape, 1);
        let (ends, places) = rows.sweep(&[1, 0, 0, 0], &spans);
        let (search, sets) = (BinarySearch::new(&ends), rows.done());
        for key in 0..100 {
            let fits = key == 0 || (10..30).contains(&key) || key >= 40;
            // SAFETY: the place is told by the sweep.
            let row = unsafe { sets.at(places[search.find(Baseline, key)]).words(shape) };
            assert!(row.eq([1, u64::from(fits) << 1, 0, 0]), "key {key}");
        }
        assert_eq!(sets.chunks.len(), 2, "of the same sets there is one");
    }

    #[test]
    fn the_first_common_rule_is_found_wherever_it_is() {
        for rules in [1, 64, 255, 256, 257, 1024, 1025, 16_320, 16_321, 20_000] {
            let shape = RowLayout::new(rules);
            let set = |rules: &[usize]| {
                let mut set = vec![0; shape.words()];
                rules.iter().for_each(|rule| set[rule / 64] |= 1 << (rule % 64));
                let mut rows = RowBuilder::new(shape, 1);
                rows.sweep::<u128>(&set, &[]);
                rows.done()
            };
            for first in [0, 1, rules / 3, rules / 2, rules - 1].map(|rule| rule.min(rules - 1)) {
                // Others beside it are of one set only; words with rules of both, of which none is
                // common, lie on the way.
                let others: Vec<usize> = (0..first).step_by(3).collect();
                let (one, other) =
                    (set(&[&others[..], &[first]].concat()), set(&[first, (first + 1).min(rules - 1)]));
                // SAFETY: there is a set at 0, and a common rule.
                let found = unsafe { one.at(0).first_common(Baseline, other.at(0), shape) };
                assert_eq!(found, first, "of {rules}");
            }
        }
    }
}
