//! What a change does to the connections of whom (semantics 5.1, 5.4), from the two policies alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{FlushScope, InboundFlush, OnFlush, PolicySettings};
use crate::delta::Delta;
use crate::diff::{Diff, diff_of};
use crate::index::Index;
use crate::model::{AddressGroup, Direction, Key, Nic, Policy, Remote, Rule, SecurityGroup};

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

/// A NIC that the change touches, before and after.
struct TouchedNic<'c> {
    key: &'c Key,
    old: Option<&'c Nic>,
    new: Option<&'c Nic>,
}

impl<'c> TouchedNic<'c> {
    /// Groups that it joins or leaves.
    fn moves(&self) -> impl Iterator<Item = &'c Key> {
        let groups = |nic: Option<&'c Nic>| nic.map_or(&[][..], |nic| &nic.security_groups);
        let (was, is) = (groups(self.old), groups(self.new));
        // Another NIC of the same name has left all of them, and this one has joined.
        let is_same = self.is_same();
        let left = was.iter().filter(move |group| !is_same || !is.contains(group));
        left.chain(is.iter().filter(move |group| !is_same || !was.contains(group)))
    }

    fn is_same(&self) -> bool {
        matches!((self.old, self.new), (Some(old), Some(new)) if same_nic(old, new))
    }

    /// Groups that it stays in and brings other addresses to.
    fn readdresses(&self) -> impl Iterator<Item = &'c Key> {
        let addresses = |nic: &Nic| nic.all_addresses().collect::<BTreeSet<IpAddr>>();
        let pair = self
            .old
            .zip(self.new)
            .filter(|(old, new)| (&old.vpc, addresses(old)) != (&new.vpc, addresses(new)));
        pair.into_iter().flat_map(|(old, new)| {
            old.security_groups.iter().filter(|group| new.security_groups.contains(group))
        })
    }
}

/// The plan that turns `old`, of which the index is, into `new`, whose differences are these. What did not change and is not touched
/// is not looked at.
pub(crate) fn plan(
    old: &Policy,
    new: &Policy,
    delta: &Delta,
    index: &Index,
    settings: &PolicySettings,
) -> Plan {
    let mut plan = Plan { diff: diff_of(delta, new), ..Plan::default() };
    if plan.diff.is_empty() {
        return plan;
    }
    let touched: Vec<TouchedNic<'_>> = delta
        .nics
        .iter()
        .map(|(key, _)| TouchedNic {
            key,
            old: old.nics.get(key).map(Arc::as_ref),
            new: new.nics.get(key).map(Arc::as_ref),
        })
        .collect();
    plan.ended = touched.iter().filter(|t| t.old.is_some() && !t.is_same()).map(|t| t.key.clone()).collect();
    // Groups all of whose members are flushed.
    let mut flushing: BTreeSet<&Key> = delta
        .security_groups
        .iter()
        .map(|(key, _)| key)
        .filter(|key| rules_changed(old.security_groups.get(*key), new.security_groups.get(*key), settings))
        .collect();
    // Groups whose addresses, as others' remotes, are not what they were.
    let mut moved: BTreeSet<&Key> = BTreeSet::new();
    for nic in &touched {
        moved.extend(nic.moves());
        moved.extend(nic.readdresses());
        // Where a group is staged, before and after, nothing was let in because of it.
        let enforced = |key: &&Key| {
            let mut groups = [old, new].into_iter().filter_map(|policy| policy.security_groups.get(*key));
            groups.any(|group| !group.staged)
        };
        let mut moves = nic.moves().filter(enforced).peekable();
        match settings.flush_scope {
            FlushScope::Group => flushing.extend(moves),
            FlushScope::Joined if moves.peek().is_some() && nic.new.is_some() => {
                plan.flushed.insert(nic.key.clone());
            }
            FlushScope::Joined => {}
        }
    }
    if !flushing.is_empty() {
        let is_in = |nic: &Nic| nic.security_groups.iter().any(|group| flushing.contains(group));
        let is_touched = |key: &Key| delta.nics.binary_search_by(|(touched, _)| touched.cmp(key)).is_ok();
        let stay = flushing.iter().flat_map(|group| index.members(group)).filter(|key| !is_touched(key));
        let come = touched.iter().filter(|t| t.new.is_some_and(is_in)).map(|t| t.key);
        let leave = touched.iter().filter(|t| t.new.is_some() && t.old.is_some_and(is_in)).map(|t| t.key);
        plan.flushed.extend(stay.chain(come).chain(leave).cloned());
    }
    plan.rejudged = rejudged(old, new, delta, index, &moved);
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
    old: Option<&Arc<SecurityGroup>>,
    new: Option<&Arc<SecurityGroup>>,
    settings: &PolicySettings,
) -> bool {
    let relevant = |group: Option<&Arc<SecurityGroup>>| {
        let mut rules = group.map(|group| group.meaning()).unwrap_or_default();
        // Nothing was let in by rules that are not enforced.
        rules.retain(|rule| !rule.staged);
        if settings.inbound_flush == InboundFlush::InboundRules {
            rules.retain(|rule| rule.direction == Direction::Inbound);
        }
        rules
    };
    relevant(old) != relevant(new)
}

/// NICs, there before and after, with an inbound rule that rests on something that is not what it was.
fn rejudged(
    old: &Policy,
    new: &Policy,
    delta: &Delta,
    index: &Index,
    moved: &BTreeSet<&Key>,
) -> BTreeSet<Key> {
    let prefixes = |group: &Arc<AddressGroup>| group.prefixes.iter().copied().collect::<BTreeSet<_>>();
    let lists_changed: BTreeSet<&Key> = delta
        .address_groups
        .iter()
        .map(|(key, _)| key)
        .filter(|key| {
            old.address_groups.get(*key).map(prefixes) != new.address_groups.get(*key).map(prefixes)
        })
        .collect();
    let peers_changed: BTreeSet<&Arc<str>> = delta
        .vpcs
        .iter()
        .map(|(name, _)| name)
        .filter(|name| {
            let peers = |policy: &Policy| policy.vpcs.get(*name).map(|vpc| vpc.peers.clone());
            peers(old) != peers(new)
        })
        .collect();
    if moved.is_empty() && lists_changed.is_empty() && peers_changed.is_empty() {
        return BTreeSet::new();
    }
    // Groups that may rest on what is not what it was: as they were, or as they are written now.
    let mut groups: BTreeSet<&Key> = delta.security_groups.iter().map(|(key, _)| key).collect();
    if peers_changed.is_empty() {
        groups.extend(moved.iter().flat_map(|key| index.referrers(&Remote::Group((*key).clone()))));
        let lists = lists_changed.iter().map(|key| Remote::AddressGroup((*key).clone()));
        groups.extend(lists.flat_map(|list| index.referrers(&list)));
    } else {
        groups.extend(new.security_groups.keys());
    }
    // What the inbound rules of each group rest on, once for all of its members.
    let mut rests_on: BTreeMap<&Key, Dependence> = BTreeMap::new();
    for (key, group) in groups.into_iter().filter_map(|key| new.security_groups.get_key_value(key)) {
        let mut rests = Dependence::default();
        let enforced = |rule: &&Rule| rule.direction == Direction::Inbound && !rule.staged;
        for rule in group.rules.iter().filter(enforced) {
            match &rule.remote {
                Remote::Group(key) => {
                    rests.on_groups = true;
                    rests.on_change |= moved.contains(key);
                }
                Remote::AddressGroup(key) => rests.on_change |= lists_changed.contains(key),
                Remote::Any | Remote::Prefix(_) => {}
            }
        }
        if rests.on_groups || rests.on_change {
            rests_on.insert(key, rests);
        }
    }
    let rests_on_change = |nic: &Nic| {
        let is_peering_changed = peers_changed.contains(&nic.vpc);
        let groups = nic.security_groups.iter().filter_map(|group| rests_on.get(group));
        groups.into_iter().any(|rests| rests.on_change || is_peering_changed && rests.on_groups)
    };
    let stays = |key: &Key, nic: &Nic| old.nics.get(key).is_some_and(|before| same_nic(before, nic));
    let members = rests_on.keys().flat_map(|group| index.members(group));
    let nics = members.chain(delta.nics.iter().map(|(key, _)| key));
    let resting =
        nics.filter(|key| new.nics.get(*key).is_some_and(|nic| rests_on_change(nic) && stays(key, nic)));
    resting.cloned().collect()
}

#[derive(Clone, Copy, Default)]
struct Dependence {
    /// On the members of some group.
    on_groups: bool,
    /// On something that is not what it was.
    on_change: bool,
}
