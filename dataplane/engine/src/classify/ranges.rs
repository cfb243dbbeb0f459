//! Bit vectors over the ranges of a key: which rules fit any address, or any port.

use super::search::{Compare, RangeKey, Search};

/// Where a rule fits: from a key to before another one, or to the end of all keys.
pub(super) struct Span<K> {
    pub first: K,
    pub behind: Option<K>,
    pub rule: usize,
}

/// Bit vectors over the ranges of a key.
#[derive(PartialEq, Eq)]
pub(super) struct Ranges<K: RangeKey> {
    search: K::Search,
    /// Of each range a row: its [`summary`], and the words of its set.
    rows: Box<[u64]>,
    words: usize,
}

impl<K: RangeKey> Ranges<K> {
    /// Of rules that fit everywhere, as a set, and of those that fit in some spans. One pass from the smallest key to the largest
    /// turns rules on and off: as many steps as there are spans, not as many as there are ranges times rules.
    pub fn new(everywhere: &[u64], spans: &[Span<K>]) -> Ranges<K> {
        let words = everywhere.len();
        // Where some rule begins to fit, or ceases to.
        let mut edges: Vec<(K, u32)> = Vec::with_capacity(2 * spans.len());
        for Span { first, behind, rule } in spans {
            edges.push((*first, (*rule as u32) << 1 | 1));
            edges.extend(behind.map(|behind| (behind, (*rule as u32) << 1)));
        }
        edges.sort_unstable();
        // A rule whose spans overlap ends with the last of them.
        let mut depths = vec![0u32; words * 64];
        let mut set = everywhere.to_vec();
        let ranges = edges.len() + 1;
        let (mut ends, mut rows) = (Vec::with_capacity(ranges), Vec::with_capacity(ranges * (words + 1)));
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
                }
                left = rest;
            }
            rows.push(summary(&set));
            rows.extend_from_slice(&set);
            let Some((next, _)) = left.first() else { break };
            ends.push(next.before());
            start = *next;
        }
        ends.push(K::LAST);
        Ranges { search: K::Search::new(&ends), rows: rows.into(), words }
    }

    #[inline(always)]
    pub fn find<C: Compare>(&self, key: K) -> Set<'_> {
        let stride = self.words + 1;
        let at = self.search.find::<C>(key) * stride;
        // SAFETY: the search promises the number of a range, and every range has a row.
        let row = unsafe { self.rows.get_unchecked(at..at + stride) };
        Set { summary: row[0], words: &row[1..] }
    }

    /// All sets, one after the other.
    pub fn sets(&self) -> impl Iterator<Item = &[u64]> {
        self.rows.chunks(self.words + 1).map(|row| &row[1..])
    }
}

/// The rules that fit a key.
#[derive(Clone, Copy)]
pub(super) struct Set<'a> {
    pub words: &'a [u64],
    pub summary: u64,
}

/// A bit for each word that holds any rule; the last one is for all words from the 64th on. Two sets without a common bit have no
/// common rule, so that a thousand rules cost a denied packet what fifty do.
fn summary(set: &[u64]) -> u64 {
    set.iter().enumerate().fold(0, |bits, (word, rules)| bits | u64::from(*rules != 0) << word.min(63))
}

/// The words that a summary names, of so many.
#[inline(always)]
pub(super) fn named(mut summary: u64, words: usize) -> impl Iterator<Item = usize> {
    let mut beyond = if summary >> 63 != 0 { 64..words } else { 0..0 };
    std::iter::from_fn(move || {
        if summary == 0 {
            return beyond.next();
        }
        let word = summary.trailing_zeros() as usize;
        summary &= summary - 1;
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::super::search::Plain;
    use super::*;

    #[test]
    fn a_rule_whose_spans_overlap_or_touch_fits_wherever_one_of_them_does() {
        let span = |first, behind| Span { first, behind, rule: 65 };
        let spans = [
            span(10u16, Some(20)),
            span(15, Some(17)),
            span(20, Some(30)),
            span(40, None),
            span(50, Some(60)),
            span(0, Some(1)),
        ];
        let ranges = Ranges::new(&[1, 0], &spans);
        for key in 0..100 {
            let fits = key == 0 || (10..30).contains(&key) || key >= 40;
            assert_eq!(ranges.find::<Plain>(key).words, [1, u64::from(fits) << 1], "key {key}");
        }
    }

    #[test]
    fn a_summary_names_every_word_that_holds_a_rule() {
        for words in [1, 2, 63, 64, 65, 100] {
            for held in 0..words {
                let mut set = vec![0; words];
                set[held] = 1;
                assert!(named(summary(&set), words).any(|word| word == held), "{held} of {words}");
            }
            assert_eq!(
                named(summary(&vec![!0; words]), words).collect::<Vec<_>>(),
                (0..words).collect::<Vec<_>>()
            );
        }
    }
}
