//! What a change does to the connections of whom (semantics 5.1, 5.4), from the two policies alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{FlushScope, InboundFlush, OnFlush, PolicySettings};
use crate::diff::{Diff, diff};
use crate::model::{Direction, Key, Nic, Policy, Remote, SecurityGroup};

/// The effect of a change.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What an operator sees changed.
    pub diff: Diff,
    /// NICs there after the change whose inbound connections it disconnects.
    pub flushed: BTreeSet<Key>,
    /// NICs whose inbound connections are judged again.
    pub rejudged: BTreeSet<Key>,
    /// NICs that end with the change: deleted, or moved to another VPC.
    pub ended: BTreeSet<Key>,
}

/// True if both are the same NIC: 5.5 makes one that moves to another VPC a new one.
pub fn same_nic(old: &Nic, new: &Nic) -> bool {
    old.vpc == new.vpc
}

/// Members by group.
fn members(policy: &Policy) -> BTreeMap<&Key, BTreeMap<&Key, &Nic>> {
    let mut members: BTreeMap<&Key, BTreeMap<&Key, &Nic>> = BTreeMap::new();
    for (key, nic) in &policy.nics {
        for group in &nic.security_groups {
            members.entry(group).or_default().insert(key, nic);
        }
    }
    members
}

/// What a member brings into a group as a remote.
fn reachable_as(nic: &Nic) -> (&Arc<str>, BTreeSet<IpAddr>) {
    (&nic.vpc, nic.all_addresses().collect())
}

/// The plan that turns `old` into `new`.
pub fn plan(old: &Policy, new: &Policy, settings: &PolicySettings) -> Plan {
    let mut plan = Plan { diff: diff(old, new), ..Plan::default() };
    if plan.diff.is_empty() {
        return plan;
    }
    plan.ended = old
        .nics
        .iter()
        .filter(|(key, nic)| new.nics.get(*key).is_none_or(|now| !same_nic(nic, now)))
        .map(|(key, _)| key.clone())
        .collect();
    let (before, after) = (members(old), members(new));
    let empty = BTreeMap::new();
    let groups: BTreeSet<&Key> = old.security_groups.keys().chain(new.security_groups.keys()).collect();
    // Groups whose addresses, as others' remotes, are not what they were.
    let mut moved = BTreeSet::new();
    for group in groups {
        let (was, is) = (before.get(group).unwrap_or(&empty), after.get(group).unwrap_or(&empty));
        let rules_changed =
            rules_changed(old.security_groups.get(group), new.security_groups.get(group), settings);
        let movers: BTreeSet<&Key> = was
            .keys()
            .chain(is.keys())
            .filter(|key| match (was.get(**key), is.get(**key)) {
                (Some(old), Some(new)) => !same_nic(old, new),
                _ => true,
            })
            .copied()
            .collect();
        let flushed: BTreeSet<&Key> =
            if rules_changed || !movers.is_empty() && settings.flush_scope == FlushScope::Group {
                was.keys().chain(is.keys()).copied().collect()
            } else {
                movers.clone()
            };
        plan.flushed.extend(flushed.into_iter().filter(|key| new.nics.contains_key(*key)).cloned());
        let addresses_moved = was
            .iter()
            .any(|(key, nic)| is.get(key).is_some_and(|now| reachable_as(nic) != reachable_as(now)));
        if !movers.is_empty() || addresses_moved {
            moved.insert(group);
        }
    }
    plan.rejudged = rejudged(old, new, &moved);
    match settings.on_flush {
        OnFlush::Rejudge => plan.rejudged.append(&mut plan.flushed),
        OnFlush::Tombstone => {
            let flushed = &plan.flushed;
            plan.rejudged.retain(|key| !flushed.contains(key));
        }
    }
    plan
}

fn rules_changed(
    old: Option<&SecurityGroup>,
    new: Option<&SecurityGroup>,
    settings: &PolicySettings,
) -> bool {
    let relevant = |group: Option<&SecurityGroup>| {
        let mut rules = group.map(SecurityGroup::meaning).unwrap_or_default();
        if settings.inbound_flush == InboundFlush::InboundRules {
            rules.retain(|rule| rule.direction == Direction::Inbound);
        }
        rules
    };
    relevant(old) != relevant(new)
}

/// NICs, there before and after, with an inbound rule that rests on something that is not what it was.
fn rejudged(old: &Policy, new: &Policy, moved: &BTreeSet<&Key>) -> BTreeSet<Key> {
    let lists_changed: BTreeSet<&Key> = new
        .address_groups
        .iter()
        .filter(|(key, group)| {
            let prefixes =
                |g: &crate::model::AddressGroup| g.prefixes.iter().copied().collect::<BTreeSet<_>>();
            old.address_groups.get(*key).is_none_or(|before| prefixes(before) != prefixes(group))
        })
        .map(|(key, _)| key)
        .collect();
    let peers_changed: BTreeSet<&Arc<str>> = new
        .vpcs
        .iter()
        .filter(|(name, vpc)| old.vpcs.get(*name).is_none_or(|before| before.peers != vpc.peers))
        .map(|(name, _)| name)
        .collect();
    let rests_on_change = |nic: &Nic| {
        nic.security_groups
            .iter()
            .filter_map(|key| new.security_groups.get(key))
            .flat_map(|group| &group.rules)
            .filter(|rule| rule.direction == Direction::Inbound)
            .any(|rule| match &rule.remote {
                Remote::Group(key) => moved.contains(key) || peers_changed.contains(&nic.vpc),
                Remote::AddressGroup(key) => lists_changed.contains(key),
                Remote::Any | Remote::Prefix(_) => false,
            })
    };
    new.nics
        .iter()
        .filter(|(key, nic)| {
            old.nics.get(*key).is_some_and(|before| same_nic(before, nic)) && rests_on_change(nic)
        })
        .map(|(key, _)| key.clone())
        .collect()
}
