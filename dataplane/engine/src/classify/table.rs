//! The rules of one direction and family, compiled.

use super::ranges::{Ranges, Set, Span, named};
use super::search::{Compare, Plain};
use super::{Field, Judgement, Query, Remote, Rule};
use crate::snapshot::Snapshot;
use crate::{GroupId, RuleId, VpcId};

/// Rules of one direction and family.
#[derive(PartialEq, Eq)]
pub(super) struct Table {
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
    /// From the rules of this direction and family, in the order of groups and positions.
    pub fn compile(mut rules: Vec<&Rule>, v6: bool) -> Table {
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
        let everywhere = set_of(rules, words, |r| r.remote == Remote::Any);
        let ranges = rules
            .iter()
            .enumerate()
            .flat_map(|(rule, r)| r.remote.ranges(v6).map(move |range| (rule, range)));
        if v6 {
            let span = |(rule, (first, last, _)): (usize, &(u128, u128, bool))| Span {
                first: *first,
                behind: last.checked_add(1),
                rule,
            };
            Remotes::V6(Ranges::new(&everywhere, &ranges.map(span).collect::<Vec<_>>()))
        } else {
            let span = |(rule, (first, last, _)): (usize, &(u128, u128, bool))| Span {
                first: *first as u32,
                behind: (*last as u32).checked_add(1),
                rule,
            };
            Remotes::V4(Ranges::new(&everywhere, &ranges.map(span).collect::<Vec<_>>()))
        }
    }

    fn compile_ports(rules: &[&Rule], words: usize) -> (Box<[u8; 256]>, Vec<Ranges<u16>>) {
        let mut protocols: Vec<u8> = rules.iter().filter_map(|r| r.protocol).collect();
        protocols.sort_unstable();
        protocols.dedup();
        let mut by_protocol = Box::new([0; 256]);
        let of = |protocol: Option<u8>| {
            let mut everywhere = vec![0; words];
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
            Ranges::new(&everywhere, &spans)
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

    #[inline(always)]
    fn remote_set<C: Compare>(&self, remote: u128) -> Set<'_> {
        match &self.remotes {
            Remotes::V4(ranges) => ranges.find::<C>(remote as u32),
            Remotes::V6(ranges) => ranges.find::<C>(remote),
        }
    }

    #[inline(always)]
    fn port_set<C: Compare>(&self, protocol: u8, port: u16) -> Set<'_> {
        self.ports[usize::from(self.by_protocol[usize::from(protocol)])].find::<C>(port)
    }

    /// For an opening packet of a NIC in VPC `own`.
    #[inline(always)]
    pub fn judge<C: Compare>(&self, snapshot: &Snapshot, own: VpcId, query: &Query) -> Judgement {
        let remotes = self.remote_set::<C>(query.remote);
        let ports = self.port_set::<C>(query.protocol, query.port);
        if !self.groups.is_empty() {
            return self.judge_with_groups(snapshot, own, query, [remotes, ports]);
        }
        for word in named(remotes.summary & ports.summary, self.words) {
            // SAFETY: both have the table's number of words, and a summary names no others.
            let both = unsafe { remotes.words.get_unchecked(word) & ports.words.get_unchecked(word) };
            if both != 0 {
                return self.judgement(word, both);
            }
        }
        Judgement::NoRule
    }

    /// The first rule of a word.
    #[inline(always)]
    fn judgement(&self, word: usize, rules: u64) -> Judgement {
        let bit = rules.trailing_zeros() as usize;
        let rule = self.rules[word * 64 + bit];
        if self.denies[word] >> bit & 1 != 0 { Judgement::Deny(rule) } else { Judgement::Allow(rule) }
    }

    /// The same where rules name groups as remotes.
    fn judge_with_groups(
        &self,
        snapshot: &Snapshot,
        own: VpcId,
        query: &Query,
        [remotes, ports]: [Set<'_>; 2],
    ) -> Judgement {
        for word in named(ports.summary, self.words) {
            let remote = remotes.words[word] | self.group_word(word, snapshot, own, query);
            let both = remote & ports.words[word];
            if both != 0 {
                return self.judgement(word, both);
            }
        }
        Judgement::NoRule
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

    /// For each rule the fields that do not fit, from the same vectors that judge.
    pub fn mismatches(
        &self,
        snapshot: &Snapshot,
        own: VpcId,
        query: &Query,
    ) -> Vec<(RuleId, bool, Vec<Field>)> {
        let (remotes, ports) =
            (self.remote_set::<Plain>(query.remote), self.port_set::<Plain>(query.protocol, query.port));
        let of_protocol = &self.ports[usize::from(self.by_protocol[usize::from(query.protocol)])];
        self.rules
            .iter()
            .enumerate()
            .map(|(n, id)| {
                let (word, bit) = (n / 64, 1u64 << (n % 64));
                let has_remote =
                    (remotes.words[word] | self.group_word(word, snapshot, own, query)) & bit != 0;
                // A rule of this protocol fits some port of it.
                let has_protocol = of_protocol.sets().any(|set| set[word] & bit != 0);
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
