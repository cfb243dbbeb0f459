//! The rules of one direction and family, compiled.

use std::sync::Arc;

use super::pool::InternPool;
use super::ports::Ports;
use super::rows::{Row, RowBuilder, RowLayout, RuleSets, Span};
use super::search::{Address, Search};
use super::{Field, Query, Remote, Rule, RuleVerdict};
use crate::cpu::{Baseline, VectorOps};
use crate::groups::{Groups, Membership};
use crate::{GroupId, RuleId, VpcId};

/// Rules of one direction and family.
#[derive(PartialEq, Eq)]
pub(super) struct Table<K: Address> {
    search: K::Search,
    /// By range of addresses.
    places: Arc<[u32]>,
    sets: RuleSets,
    ports: Ports,
    rules: Rules,
}

/// What a table says of the rules of a set.
///
/// Behind them is one more, which fits everything and says that no rule does: so whoever looks for
/// the first rule finds one.
#[derive(PartialEq, Eq)]
struct Rules {
    shape: RowLayout,
    verdicts: Box<[RuleVerdict]>,
    /// Sorted by group.
    groups: Box<[(GroupId, Box<[u64]>)]>,
}

/// What was looked up for a packet: the rules that fit its remote, and those that fit its protocol
/// and port. The first one of both is the verdict.
#[derive(Clone, Copy)]
pub(super) struct MatchRows<'t> {
    remote: Row<'t>,
    ports: Row<'t>,
    rules: &'t Rules,
}

/// The rules that are in a set.
fn set_of(rules: &[&Rule], shape: RowLayout, mut is_in: impl FnMut(&Rule) -> bool) -> Vec<u64> {
    let mut set = vec![0; shape.words()];
    for (n, rule) in rules.iter().enumerate() {
        if is_in(rule) {
            set[n / 64] |= 1 << (n % 64);
        }
    }
    set
}

impl<K: Address> Table<K> {
    /// From the rules of this direction and family, in the order of groups and positions.
    pub fn compile(mut rules: Vec<&Rule>) -> Table<K> {
        // Stable: among equals the order of groups and positions stays.
        rules.sort_by_key(|r| (r.priority, !r.deny));
        let shape = RowLayout::new(rules.len() + 1);
        let mut groups: Vec<GroupId> = rules.iter().filter_map(|r| r.remote.group()).collect();
        groups.sort_unstable();
        groups.dedup();
        let groups = groups
            .into_iter()
            .map(|g| (g, set_of(&rules, shape, |r| r.remote.group() == Some(g)).into()))
            .collect();
        let verdict = |r: &&Rule| if r.deny { RuleVerdict::Deny(r.id) } else { RuleVerdict::Allow(r.id) };
        let mut always = set_of(&[], shape, |_| false);
        always[rules.len() / 64] |= 1 << (rules.len() % 64);
        let (search, places, sets) = Self::compile_remotes(&rules, shape, &always);
        let verdicts = rules.iter().map(verdict).chain([RuleVerdict::NoRule]).collect();
        let ports = Ports::new(&rules, shape, &always);
        Table { search, places, sets, ports, rules: Rules { shape, verdicts, groups } }
    }

    fn compile_remotes(
        rules: &[&Rule],
        shape: RowLayout,
        always: &[u64],
    ) -> (K::Search, Arc<[u32]>, RuleSets) {
        let mut everywhere = set_of(rules, shape, |r| r.remote == Remote::Any);
        everywhere.iter_mut().zip(always).for_each(|(word, always)| *word |= always);
        let mut spans = Vec::with_capacity(rules.len());
        for (rule, r) in rules.iter().enumerate() {
            for (first, last, _) in r.remote.ranges(K::V6) {
                let (first, last) = (K::of(*first), K::of(*last));
                spans.push(Span { first, behind: last.next(), rule });
            }
        }
        let mut rows = RowBuilder::new(shape, spans.len());
        let (ends, places) = rows.sweep(&everywhere, &spans);
        (K::Search::new(&ends), places.into(), rows.done())
    }

    /// Takes known parts in the place of equal ones.
    pub fn share(&mut self, pool: &mut InternPool) {
        self.search.share(pool);
        pool.places.share(&mut self.places);
    }

    #[inline(always)]
    fn remote_row(&self, isa: impl VectorOps, remote: u128) -> Row<'_> {
        let range = self.search.find(isa, K::of(remote));
        // SAFETY: the search promises the number of a range, and every range has a place that was
        // told.
        unsafe { self.sets.at(*self.places.get_unchecked(range)) }
    }

    /// Looks up the two sets of an opening packet.
    #[inline(always)]
    pub fn find(&self, isa: impl VectorOps, query: &Query) -> MatchRows<'_> {
        let remote = self.remote_row(isa, query.remote);
        let ports = self.ports.find(isa, query.protocol, query.port);
        MatchRows { remote, ports, rules: &self.rules }
    }

    /// For each rule the fields that do not fit, from the same sets that judge.
    pub fn mismatches(&self, groups: &Groups, own: VpcId, query: &Query) -> Vec<(RuleId, bool, Vec<Field>)> {
        let Rules { shape, verdicts, .. } = &self.rules;
        // SAFETY: the table's rows are of its shape.
        let words = |row: Row<'_>| unsafe { row.words(*shape) }.collect::<Vec<_>>();
        let mut remotes = words(self.remote_row(Baseline, query.remote));
        let members = groups.members.of(query.remote, query.v6);
        for (word, rules) in remotes.iter_mut().enumerate() {
            *rules |= self.rules.group_word(word, groups, own, members);
        }
        let ports = words(self.ports.find(Baseline, query.protocol, query.port));
        // A rule of this protocol fits some port of it.
        let mut protocol = vec![0; shape.words()];
        for row in self.ports.of_protocol(query.protocol) {
            protocol.iter_mut().zip(words(row)).for_each(|(all, word)| *all |= word);
        }
        let has = |set: &[u64], rule: usize| set[rule / 64] >> (rule % 64) & 1 != 0;
        let fields_of = |rule: usize| {
            let fields = [
                (!has(&protocol, rule), Field::Protocol),
                (has(&protocol, rule) && !has(&ports, rule), Field::Ports),
                (!has(&remotes, rule), Field::Remote),
            ];
            fields.into_iter().filter_map(|(fails, field)| fails.then_some(field)).collect()
        };
        let mut all = Vec::with_capacity(verdicts.len());
        for (rule, verdict) in verdicts.iter().enumerate() {
            match *verdict {
                RuleVerdict::Allow(id) => all.push((id, false, fields_of(rule))),
                RuleVerdict::Deny(id) => all.push((id, true, fields_of(rule))),
                RuleVerdict::NoRule => {}
            }
        }
        all
    }
}

impl MatchRows<'_> {
    /// The verdict on the packet, of a NIC in VPC `own`, that this was looked up for.
    #[inline(always)]
    pub fn judge(self, isa: impl VectorOps, groups: &Groups, own: VpcId, query: &Query) -> RuleVerdict {
        let MatchRows { remote, ports, rules } = self;
        if !rules.groups.is_empty() {
            return rules.judge_with_groups(remote, ports, groups, own, query.remote, query.v6);
        }
        // SAFETY: both are of the table's shape, both have the rule that fits everything, and no
        // rule is behind it.
        unsafe { *rules.verdicts.get_unchecked(remote.first_common(isa, ports, rules.shape)) }
    }
}

impl Rules {
    /// The verdict where rules name groups as remotes. Everything in registers, so that nothing is
    /// laid down for it where none do.
    #[inline(never)]
    fn judge_with_groups(
        &self,
        remote: Row<'_>,
        ports: Row<'_>,
        groups: &Groups,
        own: VpcId,
        address: u128,
        v6: bool,
    ) -> RuleVerdict {
        let members = groups.members.of(address, v6);
        // SAFETY: both are of the table's shape.
        let (remote, ports) = unsafe { (remote.words(self.shape), ports.words(self.shape)) };
        for (word, (remote, ports)) in remote.zip(ports).enumerate().filter(|(_, (_, ports))| *ports != 0) {
            let both = (remote | self.group_word(word, groups, own, members)) & ports;
            if both != 0 {
                return self.verdicts[word * 64 + both.trailing_zeros() as usize];
            }
        }
        RuleVerdict::NoRule
    }

    /// One word of the rules whose remote group these holders of the address are in.
    fn group_word(&self, word: usize, groups: &Groups, own: VpcId, members: &[Membership]) -> u64 {
        let mut bits = 0;
        for member in members {
            if !groups.reaches(own, member.vpc) {
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
}
