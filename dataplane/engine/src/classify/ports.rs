//! Which rules fit a protocol and a port.

use super::Rule;
use super::rows::{Row, RowBuilder, RowLayout, RuleSets, Span};
use crate::cpu::{LANES, VectorOps};

/// Sets of rules by protocol and port, or ICMP type and code.
///
/// The ranges of all protocols lie one after the other. Protocol and top byte lead to the range
/// that their first key lies in, and the next ranges are compared with at once.
#[derive(PartialEq, Eq)]
pub(super) struct Ports {
    /// By protocol which of the rows of `first` is its own; 0 is that of the protocols that no rule
    /// names.
    by_protocol: Box<[u8; 256]>,
    first: Box<[[u32; 256]]>,
    /// Last keys of ranges, filled up so that there are [`LANES`] from any on.
    ends: Box<[u16]>,
    /// By range.
    places: Box<[u32]>,
    sets: RuleSets,
}

impl Ports {
    /// Of rules in the order in which they win; those of `always` fit everywhere.
    pub fn new(rules: &[&Rule], shape: RowLayout, always: &[u64]) -> Ports {
        let mut protocols: Vec<u8> = rules.iter().filter_map(|r| r.protocol).collect();
        protocols.sort_unstable();
        protocols.dedup();
        let mut by_protocol = Box::new([0; 256]);
        // With all 256 named, the last one stands for the unnamed, of which there are none.
        let unnamed = if protocols.len() == 256 { protocols.pop() } else { None };
        for (number, protocol) in (1..).zip(&protocols) {
            by_protocol[usize::from(*protocol)] = number;
        }
        let mut rows = RowBuilder::new(shape, rules.len());
        let (mut first, mut ends, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for protocol in std::iter::once(unnamed).chain(protocols.into_iter().map(Some)) {
            let (everywhere, spans) = fits(rules, protocol, always);
            let (its_ends, its_places) = rows.sweep(&everywhere, &spans);
            first.push(by_top_byte(&its_ends, ends.len()));
            ends.extend(its_ends);
            places.extend(its_places);
        }
        ends.resize(ends.len() + LANES, u16::MAX);
        Ports {
            by_protocol,
            first: first.into(),
            ends: ends.into(),
            places: places.into(),
            sets: rows.done(),
        }
    }

    /// The rules that fit.
    #[inline(always)]
    pub fn find(&self, isa: impl VectorOps, protocol: u8, port: u16) -> Row<'_> {
        let number = usize::from(self.by_protocol[usize::from(protocol)]);
        // SAFETY: a protocol's number is that of a row.
        let first = unsafe { self.first.get_unchecked(number) };
        let mut at = first[usize::from(port >> 8)] as usize;
        loop {
            // SAFETY: `at` is the number of a range, and behind the last one there are as many ends
            // as are compared with.
            let ends = unsafe { &*self.ends.as_ptr().add(at).cast() };
            let below = isa.below_u16(ends, port);
            at += below;
            // More than sixteen ranges begin under one top byte only where somebody has listed port
            // by port. The walk ends at the latest at the protocol's last range, as no port is
            // above its end.
            if below < LANES {
                break;
            }
        }
        // SAFETY: every range has a place that was told.
        unsafe { self.sets.at(*self.places.get_unchecked(at)) }
    }

    /// The rules that fit some port of a protocol.
    pub fn of_protocol(&self, protocol: u8) -> impl Iterator<Item = Row<'_>> + Clone {
        let number = usize::from(self.by_protocol[usize::from(protocol)]);
        let begin = self.first[number][0] as usize;
        let behind = self.first.get(number + 1).map_or(self.places.len(), |next| next[0] as usize);
        // SAFETY: places were told.
        self.places[begin..behind].iter().map(|place| unsafe { self.sets.at(*place) })
    }
}

/// The rules that fit every port of a protocol, and where others do.
fn fits(rules: &[&Rule], protocol: Option<u8>, always: &[u64]) -> (Vec<u64>, Vec<Span<u16>>) {
    let mut everywhere = always.to_vec();
    let mut spans = Vec::new();
    for (rule, r) in rules.iter().enumerate() {
        if r.protocol.is_some() && r.protocol != protocol {
            continue;
        }
        let (first, last) = r.ports;
        if (first, last) == (0, u16::MAX) {
            everywhere[rule / 64] |= 1 << (rule % 64);
        } else {
            spans.push(Span { first, behind: last.checked_add(1), rule });
        }
    }
    (everywhere, spans)
}

/// By top byte the range that its first port lies in, counted from `from`.
fn by_top_byte(ends: &[u16], from: usize) -> [u32; 256] {
    let mut at = 0;
    std::array::from_fn(|top| {
        while usize::from(ends[at]) < top << 8 {
            at += 1;
        }
        (from + at) as u32
    })
}
