//! The classifier: a NIC's rules as bit vectors, so that the cost does not grow with the rules.
//!
//! All rules of one direction and family of one ordered list of groups are sorted by (priority, deny first, group,
//! position), and each is a bit. One search over the remote address yields the rules whose remote fits, one over the
//! port (of ICMP: type and code) those whose protocol and port fit; the first bit set in both is the verdict
//! (semantics 3.3). After Lakshman and Stiliadis, "High-speed policy-based packet forwarding using efficient
//! multi-dimensional range matching", 1998. Groups named as remotes are bits per group, asked of the holders of the
//! remote address: a change of members touches no policy.

use crate::snapshot::Snapshot;
use crate::{Direction, GroupId, RuleId, VpcId};

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Remote {
    /// Everyone.
    Any,
    /// Addresses from … to, of IPv6 or not; each bound included.
    Ranges(Vec<(u128, u128, bool)>),
    /// Members of a group.
    Group(GroupId),
}

/// One rule, ready to be compiled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Its name in verdicts.
    pub id: RuleId,
    /// Whose packets it is about.
    pub direction: Direction,
    /// It holds for IPv4, for IPv6.
    pub families: [bool; 2],
    /// IP protocol; `None` for any.
    pub protocol: Option<u8>,
    /// Destination ports, or ICMP type × 256 + code, from … to; 0–65535 where it names none.
    pub ports: (u16, u16),
    /// Whom it is about.
    pub remote: Remote,
    /// It refuses what it matches.
    pub deny: bool,
    /// 1 the highest.
    pub priority: u8,
}

/// What the rules are asked: an opening packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Its direction.
    pub direction: Direction,
    /// IPv6.
    pub v6: bool,
    /// IP protocol.
    pub protocol: u8,
    /// Destination port, or ICMP type × 256 + code; 0 where the protocol has neither.
    pub port: u16,
    /// The other side's address.
    pub remote: u128,
}

/// What the rules answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The winning rule allows it.
    Allow(RuleId),
    /// The winning rule refuses it.
    Deny(RuleId),
    /// No rule matches.
    NoRule,
}

/// A field of a rule that a packet may fail to match, for `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The protocol.
    Protocol,
    /// The port, or the ICMP type and code.
    Ports,
    /// The remote.
    Remote,
}

/// A key whose ranges are looked up: its top byte narrows the search.
trait RangeKey: Copy + Ord {
    fn top_byte(self) -> usize;
}

impl RangeKey for u16 {
    #[inline]
    fn top_byte(self) -> usize {
        usize::from(self >> 8)
    }
}

impl RangeKey for u32 {
    #[inline]
    fn top_byte(self) -> usize {
        (self >> 24) as usize
    }
}

impl RangeKey for u128 {
    #[inline]
    fn top_byte(self) -> usize {
        (self >> 120) as usize
    }
}

/// Bit vectors over the ranges of a key: range `i` begins at `starts[i]`.
#[derive(PartialEq, Eq)]
struct Ranges<K> {
    starts: Box<[K]>,
    sets: Box<[u64]>,
    words: usize,
    /// Of each range, which words of its set hold any rule: see [`summary`].
    summaries: Box<[u64]>,
    /// By top byte, the range that its first key lies in; and one more, of the last range. Most keys so need no search at all:
    /// of a denied packet's cycles in the judge this saved a fifth.
    first: Box<[u16; 257]>,
}

impl<K: RangeKey> Ranges<K> {
    /// `bounds` are the places where some rule begins or has ended; `fits` says which rules fit a key.
    fn new(zero: K, mut bounds: Vec<K>, words: usize, mut fits: impl FnMut(K) -> Vec<u64>) -> Ranges<K> {
        bounds.push(zero);
        bounds.sort_unstable();
        bounds.dedup();
        let sets: Box<[u64]> = bounds.iter().flat_map(|k| fits(*k)).collect();
        let summaries = sets.chunks(words).map(summary).collect();
        Ranges { first: Self::first_by_top_byte(&bounds), starts: bounds.into(), sets, words, summaries }
    }

    fn first_by_top_byte(starts: &[K]) -> Box<[u16; 257]> {
        let mut first = Box::new([0; 257]);
        for (top, first) in first.iter_mut().enumerate() {
            // The last range that begins below this top byte: a search from there on finds every key of it.
            let below = starts.partition_point(|start| start.top_byte() < top);
            *first = below.saturating_sub(1).min(usize::from(u16::MAX)) as u16;
        }
        first
    }

    #[inline]
    fn find(&self, key: K) -> Set<'_> {
        let top = key.top_byte();
        let mut at = usize::from(self.first[top]);
        let mut len = usize::from(self.first[top + 1]) + 1 - at;
        // More ranges than the narrowing can number: the rest is searched, too.
        if usize::from(self.first[top + 1]) == usize::from(u16::MAX) {
            len = self.starts.len() - at;
        }
        // Branch-free halving: the remote address is anybody's, so no branch on it could be foretold.
        while len > 1 {
            let half = len / 2;
            at += usize::from(self.starts[at + half] <= key) * half;
            len -= half;
        }
        Set { words: &self.sets[at * self.words..(at + 1) * self.words], summary: self.summaries[at] }
    }
}

/// The rules that fit a key.
#[derive(Clone, Copy)]
struct Set<'a> {
    words: &'a [u64],
    summary: u64,
}

/// A bit for each word that holds any rule; the last one is for all words from the 64th on. Two sets without a common bit have no
/// common rule, so that a thousand rules cost a denied packet what fifty do.
fn summary(set: &[u64]) -> u64 {
    set.iter().enumerate().fold(0, |bits, (word, rules)| bits | u64::from(*rules != 0) << word.min(63))
}

/// The words that a summary names, of so many.
#[inline]
fn named(mut summary: u64, words: usize) -> impl Iterator<Item = usize> {
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

/// Rules of one direction and family.
#[derive(PartialEq, Eq)]
struct Table {
    words: usize,
    rules: Box<[RuleId]>,
    denies: Box<[u64]>,
    remotes: Remotes,
    /// Sorted by group.
    groups: Box<[(GroupId, Box<[u64]>)]>,
    /// Which of `ports` a protocol has.
    by_protocol: Box<[u8; 256]>,
    /// 0 is that of the protocols that no rule names.
    ports: Vec<Ranges<u16>>,
}

#[derive(PartialEq, Eq)]
enum Remotes {
    V4(Ranges<u32>),
    V6(Ranges<u128>),
}

fn set_of(rules: &[&Rule], words: usize, mut is_in: impl FnMut(&Rule) -> bool) -> Vec<u64> {
    let mut set = vec![0; words];
    for (n, rule) in rules.iter().enumerate() {
        if is_in(rule) {
            set[n / 64] |= 1 << (n % 64);
        }
    }
    set
}

impl Table {
    fn compile(all: &[Rule], direction: Direction, v6: bool) -> Table {
        let mut rules: Vec<&Rule> =
            all.iter().filter(|r| r.direction == direction && r.families[usize::from(v6)]).collect();
        // Stable: among equals the order of groups and positions stays.
        rules.sort_by_key(|r| (r.priority, !r.deny));
        let words = rules.len().div_ceil(64).max(1);
        let mut groups: Vec<GroupId> = rules.iter().filter_map(|r| r.remote.group()).collect();
        groups.sort_unstable();
        groups.dedup();
        let groups = groups
            .into_iter()
            .map(|g| (g, set_of(&rules, words, |r| r.remote.group() == Some(g)).into()))
            .collect();
        let (by_protocol, ports) = Self::compile_ports(&rules, words);
        Table {
            words,
            rules: rules.iter().map(|r| r.id).collect(),
            denies: set_of(&rules, words, |r| r.deny).into(),
            remotes: Self::compile_remotes(&rules, words, v6),
            groups,
            by_protocol,
            ports,
        }
    }

    fn compile_remotes(rules: &[&Rule], words: usize, v6: bool) -> Remotes {
        let top = if v6 { u128::MAX } else { u128::from(u32::MAX) };
        let mut bounds = Vec::new();
        for rule in rules {
            for &(first, last, _) in rule.remote.ranges(v6) {
                bounds.push(first);
                if last < top {
                    bounds.push(last + 1);
                }
            }
        }
        let fits = |addr: u128| {
            set_of(rules, words, |r| {
                r.remote == Remote::Any
                    || r.remote.ranges(v6).any(|(first, last, _)| (*first..=*last).contains(&addr))
            })
        };
        if v6 {
            Remotes::V6(Ranges::new(0, bounds, words, fits))
        } else {
            let bounds = bounds.into_iter().map(|b| b as u32).collect();
            Remotes::V4(Ranges::new(0, bounds, words, |addr| fits(u128::from(addr))))
        }
    }

    fn compile_ports(rules: &[&Rule], words: usize) -> (Box<[u8; 256]>, Vec<Ranges<u16>>) {
        let mut protocols: Vec<u8> = rules.iter().filter_map(|r| r.protocol).collect();
        protocols.sort_unstable();
        protocols.dedup();
        let mut by_protocol = Box::new([0; 256]);
        let of = |protocol: Option<u8>| {
            let mine: Vec<&&Rule> =
                rules.iter().filter(|r| r.protocol.is_none() || r.protocol == protocol).collect();
            let mut bounds = Vec::new();
            for rule in &mine {
                bounds.push(rule.ports.0);
                bounds.extend(rule.ports.1.checked_add(1));
            }
            Ranges::new(0, bounds, words, |port| {
                set_of(rules, words, |r| {
                    (r.protocol.is_none() || r.protocol == protocol)
                        && (r.ports.0..=r.ports.1).contains(&port)
                })
            })
        };
        let mut ports = vec![of(None)];
        // At most 255 protocols of their own: with all 256 named, the last one stands for the unnamed, of which there
        // are none.
        for protocol in protocols {
            by_protocol[usize::from(protocol)] = if ports.len() < 256 { ports.len() as u8 } else { 0 };
            if ports.len() < 256 {
                ports.push(of(Some(protocol)));
            } else {
                ports[0] = of(Some(protocol));
            }
        }
        (by_protocol, ports)
    }

    #[inline]
    fn remote_set(&self, remote: u128) -> Set<'_> {
        match &self.remotes {
            Remotes::V4(ranges) => ranges.find(remote as u32),
            Remotes::V6(ranges) => ranges.find(remote),
        }
    }

    #[inline]
    fn port_set(&self, protocol: u8, port: u16) -> Set<'_> {
        self.ports[usize::from(self.by_protocol[usize::from(protocol)])].find(port)
    }

    /// One word of the rules whose remote group the address's holders are in.
    fn group_word(&self, word: usize, snapshot: &Snapshot, own: VpcId, query: &Query) -> u64 {
        let mut bits = 0;
        for member in snapshot.members.of(query.remote, query.v6) {
            if !snapshot.reaches(own, member.vpc) {
                continue;
            }
            for group in member.groups.iter() {
                if let Ok(at) = self.groups.binary_search_by_key(group, |(g, _)| *g) {
                    bits |= self.groups[at].1[word];
                }
            }
        }
        bits
    }

    #[inline]
    fn judge(&self, snapshot: &Snapshot, own: VpcId, query: &Query) -> Judgement {
        let (remotes, ports) = (self.remote_set(query.remote), self.port_set(query.protocol, query.port));
        let has_groups = !self.groups.is_empty();
        let candidates = ports.summary & if has_groups { !0 } else { remotes.summary };
        for word in named(candidates, self.words) {
            let mut remote = remotes.words[word];
            if has_groups {
                remote |= self.group_word(word, snapshot, own, query);
            }
            let both = remote & ports.words[word];
            if both != 0 {
                let bit = both.trailing_zeros() as usize;
                let rule = self.rules[word * 64 + bit];
                let denied = self.denies[word] >> bit & 1 != 0;
                return if denied { Judgement::Deny(rule) } else { Judgement::Allow(rule) };
            }
        }
        Judgement::NoRule
    }

    /// For each rule the fields that do not fit, from the same vectors that judge.
    fn mismatches(&self, snapshot: &Snapshot, own: VpcId, query: &Query) -> Vec<(RuleId, bool, Vec<Field>)> {
        let (remotes, ports) = (self.remote_set(query.remote), self.port_set(query.protocol, query.port));
        let of_protocol = &self.ports[usize::from(self.by_protocol[usize::from(query.protocol)])];
        self.rules
            .iter()
            .enumerate()
            .map(|(n, id)| {
                let (word, bit) = (n / 64, 1u64 << (n % 64));
                let has_remote =
                    (remotes.words[word] | self.group_word(word, snapshot, own, query)) & bit != 0;
                // A rule of this protocol fits some port of it.
                let has_protocol = of_protocol.sets.chunks(self.words).any(|set| set[word] & bit != 0);
                let fields = [
                    (!has_protocol, Field::Protocol),
                    (has_protocol && ports.words[word] & bit == 0, Field::Ports),
                    (!has_remote, Field::Remote),
                ];
                let fields = fields.into_iter().filter_map(|(fails, field)| fails.then_some(field)).collect();
                (*id, self.denies[word] & bit != 0, fields)
            })
            .collect()
    }
}

impl Remote {
    fn group(&self) -> Option<GroupId> {
        match self {
            Remote::Group(group) => Some(*group),
            _ => None,
        }
    }

    fn ranges(&self, v6: bool) -> impl Iterator<Item = &(u128, u128, bool)> {
        let all: &[_] = match self {
            Remote::Ranges(ranges) => ranges,
            _ => &[],
        };
        all.iter().filter(move |(_, _, family)| *family == v6)
    }
}

/// The rules of one ordered list of groups, compiled: shared by every NIC with that list.
#[derive(PartialEq, Eq)]
pub struct Policy {
    /// By direction, then family.
    tables: [[Table; 2]; 2],
}

impl Policy {
    /// From the rules in the order of groups and positions.
    pub fn compile(rules: &[Rule]) -> Policy {
        let of =
            |direction| [Table::compile(rules, direction, false), Table::compile(rules, direction, true)];
        Policy { tables: [of(Direction::Inbound), of(Direction::Outbound)] }
    }

    #[inline]
    fn table(&self, query: &Query) -> &Table {
        &self.tables[query.direction as usize][usize::from(query.v6)]
    }

    /// The verdict for an opening packet of a NIC in VPC `own`.
    #[inline]
    pub fn judge(&self, snapshot: &Snapshot, own: VpcId, query: &Query) -> Judgement {
        self.table(query).judge(snapshot, own, query)
    }

    /// Every rule of that direction and family in the order in which they would win, whether it denies, and the fields
    /// in which it does not fit.
    pub fn mismatches(
        &self,
        snapshot: &Snapshot,
        own: VpcId,
        query: &Query,
    ) -> Vec<(RuleId, bool, Vec<Field>)> {
        self.table(query).mismatches(snapshot, own, query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_the_range_that_it_lies_in_however_many_there_are() {
        for (count, step) in [(0u32, 1), (1, 7), (300, 1 << 23), (70_000, 61_000)] {
            let bounds: Vec<u32> = (1..=count).map(|n| n.wrapping_mul(step)).collect();
            let ranges = Ranges::new(0, bounds.clone(), 1, |key| vec![u64::from(key)]);
            for key in bounds.iter().flat_map(|b| [b.wrapping_sub(1), *b, b + 1]).chain([0, 1, u32::MAX]) {
                let below = bounds.partition_point(|bound| *bound <= key);
                let expected = below.checked_sub(1).map_or(0, |last| bounds[last]);
                assert_eq!(ranges.find(key).words, [u64::from(expected)], "{count} ranges, key {key}");
            }
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
