//! Rules without which nothing would be decided otherwise, for any NIC that has them: whatever the packet, and whatever was seen.
//!
//! A rule is asked about beside all rules of each list of groups that it stands in. Rules before it, in the order of semantics 3.3, decide
//! what they match before it does. Rules behind it that do the same decide the same in its place, as far as none between them does the
//! opposite: among allowing rules order changes no verdict.

use std::collections::BTreeSet;

use crate::document::{covers_but_ports, families};
use crate::model::{Action, Key, Policy, Remote, Rule};

/// How a rule is superfluous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redundancy {
    /// It never decides at all.
    pub is_shadowed: bool,
    /// Groups and positions of those that decide.
    pub by: BTreeSet<(Key, usize)>,
}

/// A rule with its place in a list of groups.
#[derive(Clone, Copy)]
struct RankedRule<'p> {
    rule: &'p Rule,
    group: &'p Key,
    position: usize,
    /// The order in which rules are asked.
    rank: (u8, bool, usize, usize),
}

/// Why the rule at a position of a group is superfluous in every one of these lists of groups, if it is.
pub fn redundancy(policy: &Policy, group: &Key, position: usize, lists: &[&Vec<Key>]) -> Option<Redundancy> {
    let mut found = Redundancy { is_shadowed: true, by: BTreeSet::new() };
    for list in lists {
        let rules = placed(policy, list);
        let own = rules.iter().find(|placed| placed.group == group && placed.position == position)?;
        let (is_shadowed, by) = superfluous_in(policy, &rules, own)?;
        found.is_shadowed &= is_shadowed;
        found.by.extend(by);
    }
    (!lists.is_empty()).then_some(found)
}

fn placed<'p>(policy: &'p Policy, list: &'p [Key]) -> Vec<RankedRule<'p>> {
    let groups = list.iter().enumerate().filter_map(|(at, key)| Some((at, policy.security_groups.get(key)?)));
    let rules = groups.flat_map(|(at, group)| {
        group.rules.iter().enumerate().map(move |(position, rule)| RankedRule {
            rule,
            group: &group.key,
            position,
            rank: (rule.priority, rule.action != Action::Deny, at, position),
        })
    });
    rules.collect()
}

/// Whether it is shadowed, and by whom.
fn superfluous_in(
    policy: &Policy,
    rules: &[RankedRule<'_>],
    own: &RankedRule<'_>,
) -> Option<(bool, BTreeSet<(Key, usize)>)> {
    let of_rule = families(own.rule, policy);
    let (mut is_shadowed, mut by) = (true, BTreeSet::new());
    let families = [of_rule.v4.then_some(true), of_rule.v6.then_some(false)];
    if families == [None, None] {
        return None;
    }
    for is_v4 in families.into_iter().flatten() {
        // A staged rule decides nothing about an enforced one.
        let others = rules.iter().filter(|other| other.rank != own.rank);
        let others = others.filter(|other| !other.rule.staged || own.rule.staged);
        let opposite = others.clone().filter(|other| {
            other.rank > own.rank
                && other.rule.action != own.rule.action
                && may_meet(other.rule, own.rule, is_v4)
        });
        let end = opposite.map(|other| other.rank).min();
        let covering: Vec<&RankedRule<'_>> =
            others.filter(|other| covers_but_ports(other.rule, own.rule, is_v4, policy)).collect();
        let before = covering.iter().copied().filter(|other| other.rank < own.rank);
        let deciders = match deciders(before.clone(), own.rule) {
            Some(deciders) => deciders,
            // What a staged rule tells would be another's then.
            None if own.rule.staged => return None,
            None => {
                is_shadowed = false;
                let behind = covering.iter().copied().filter(|other| {
                    other.rank > own.rank
                        && other.rule.action == own.rule.action
                        && end.is_none_or(|end| other.rank < end)
                });
                deciders(before.chain(behind), own.rule)?
            }
        };
        by.extend(deciders.into_iter().map(|other| (other.group.clone(), other.position)));
    }
    Some((is_shadowed, by))
}

/// Those of the covering rules that together have all of the rule's ports: one, if one does.
fn deciders<'r, 'p>(
    covering: impl Iterator<Item = &'r RankedRule<'p>>,
    rule: &Rule,
) -> Option<Vec<&'r RankedRule<'p>>> {
    let mut ranges = Vec::new();
    for other in covering {
        match (other.rule.ports, rule.ports) {
            (None, _) => return Some(vec![other]),
            (Some(range), Some((low, high))) if range.0 <= low && high <= range.1 => {
                return Some(vec![other]);
            }
            (Some(range), Some(_)) => ranges.push((range, other)),
            // Of port 0, too.
            (Some(_), None) => {}
        }
    }
    let (low, high) = rule.ports?;
    ranges.sort_unstable_by_key(|(range, other)| (*range, other.rank));
    let (mut next, mut deciders) = (u32::from(low), Vec::new());
    for ((from, to), other) in ranges {
        if u32::from(from) <= next && next <= u32::from(to) {
            next = u32::from(to) + 1;
            deciders.push(other);
        }
    }
    (next > u32::from(high)).then_some(deciders)
}

/// False where no packet of a family matches both, for certain.
fn may_meet(one: &Rule, other: &Rule, is_v4: bool) -> bool {
    let has_family = |rule: &Rule| if is_v4 { rule.ethertypes.v4 } else { rule.ethertypes.v6 };
    let agree = |a: Option<u8>, b: Option<u8>| a.is_none() || b.is_none() || a == b;
    let has_ports = match (one.ports, other.ports) {
        (Some((low, high)), Some((from, to))) => low <= to && from <= high,
        _ => true,
    };
    let has_icmp = match (one.icmp, other.icmp) {
        (Some((kind, code)), Some((its, its_code))) => kind == its && agree(code, its_code),
        _ => true,
    };
    let has_remote = match (&one.remote, &other.remote) {
        (Remote::Prefix(a), Remote::Prefix(b)) => a.contains(b.addr()) || b.contains(a.addr()),
        _ => true,
    };
    one.direction == other.direction
        && has_family(one)
        && has_family(other)
        && agree(one.protocol, other.protocol)
        && has_ports
        && has_icmp
        && has_remote
}
