//! What a change of policy does to connections (semantics 5.1–5.6).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use control::config::{FlushScope, InboundFlush, PolicySettings};
use control::model::{Direction, Key, Nic, Policy, Remote, Rule};

use super::rules;

/// What a change does.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Change {
    /// NICs that are gone, or others under the same name (5.5).
    pub ended: BTreeSet<Key>,
    /// Addresses that NICs which stay have lost (5.5).
    pub lost: BTreeSet<(Key, IpAddr)>,
    /// NICs with a new flush epoch (5.1).
    pub flushed: BTreeSet<Key>,
    /// NICs whose inbound connections are judged again (5.4).
    pub rejudged: BTreeSet<Key>,
}

pub(super) fn change(old: &Policy, new: &Policy, settings: &PolicySettings) -> Change {
    let mut change = Change::default();
    for (key, before) in &old.nics {
        let Some(after) = stays(before, new) else {
            change.ended.insert(key.clone());
            continue;
        };
        // "An address taken away ends its connections" (5.5).
        let lost = before.all_addresses().filter(|address| !rules::has(after, *address));
        change.lost.extend(lost.map(|address| (key.clone(), address)));
        // "When something else that an inbound rule depends on changes …" (5.4).
        if dependencies(old, before).iter().any(|remote| {
            dependencies(new, after).contains(remote) && differs(old, before, new, after, remote)
        }) {
            change.rejudged.insert(key.clone());
        }
    }
    let groups: BTreeSet<&Key> = old.security_groups.keys().chain(new.security_groups.keys()).collect();
    for group in groups {
        let (before, after) = (members(old, group), members(new, group));
        // "When a rule of group G is added, modified or deleted …" (5.1).
        let any = settings.inbound_flush == InboundFlush::AnyRule;
        let rules = rules_of(old, group, any) != rules_of(new, group, any);
        // "… or a NIC joins or leaves G (creation and deletion of a member NIC too)". One made anew
        // did both.
        let stayed = |key: &&Key| {
            before.contains(*key) && after.contains(*key) && stays(&old.nics[*key], new).is_some()
        };
        let everyone: BTreeSet<&Key> = before.union(&after).copied().collect();
        let mut moved: BTreeSet<&Key> = everyone.iter().copied().filter(|key| !stayed(key)).collect();
        // "To join or leave a staged group disconnects nobody" (3.9).
        if [old, new].iter().filter_map(|p| p.security_groups.get(group)).all(|group| group.staged) {
            moved.clear();
        }
        // "… every NIC that is in G before or after the change gets a new flush epoch."
        if rules || !moved.is_empty() && settings.flush_scope == FlushScope::Group {
            change.flushed.extend(everyone.into_iter().cloned());
        } else {
            change.flushed.extend(moved.into_iter().cloned());
        }
    }
    change
}

/// The same NIC in the new policy: "a NIC made anew, … or moved to another VPC, inherits none"
/// (5.5).
fn stays<'p>(nic: &Nic, new: &'p Policy) -> Option<&'p Nic> {
    new.nics.get(&nic.key).map(AsRef::as_ref).filter(|after| after.vpc == nic.vpc)
}

fn members<'p>(policy: &'p Policy, group: &Key) -> BTreeSet<&'p Key> {
    policy.nics.values().filter(|nic| nic.security_groups.contains(group)).map(|nic| &nic.key).collect()
}

/// "Rules are compared by what they match, as a set: order, descriptions and spelling (`0.0.0.0/0`
/// or IPv4 from everyone) are no change" (5.1).
fn rules_of(policy: &Policy, group: &Key, outbound_too: bool) -> BTreeSet<String> {
    let rules = policy.security_groups.get(group).map_or(&[][..], |group| &group.rules);
    rules
        .iter()
        // Staged ones are none of these (3.9).
        .filter(|rule| !rule.staged && (outbound_too || rule.direction == Direction::Inbound))
        .map(|rule| {
            let mut rule = spelled(rule.clone());
            rule.description = String::new();
            format!("{rule:?}")
        })
        .collect()
}

/// True for rules that differ in description and spelling at most.
pub(super) fn means_the_same(one: &Rule, other: &Rule) -> bool {
    let plain = |rule: &Rule| Rule { description: String::new(), ..spelled(rule.clone()) };
    plain(one) == plain(other)
}

/// A rule in one of its spellings.
fn spelled(mut rule: Rule) -> Rule {
    if let Remote::Prefix(prefix) = rule.remote
        && prefix.is_everything()
    {
        rule.remote = Remote::Any;
    }
    rule
}

/// True for policies that differ in the spelling of their rules at most: "applying what is in force
/// changes nothing" (5.6).
pub(super) fn is_in_force(present: &Policy, policy: &Policy) -> bool {
    let in_one_spelling = |policy: &Policy| {
        let mut policy = policy.clone();
        let respelled = policy.security_groups.iter().map(|(key, group)| {
            let mut group = group.clone();
            let rules = &mut Arc::make_mut(&mut group).rules;
            *rules = std::mem::take(rules).into_iter().map(spelled).collect();
            (key.clone(), group)
        });
        policy.security_groups = respelled.collect();
        policy
    };
    present == policy || in_one_spelling(present) == in_one_spelling(policy)
}

/// The remotes of a NIC's inbound rules.
fn dependencies(policy: &Policy, nic: &Nic) -> Vec<Remote> {
    let groups = nic.security_groups.iter().filter_map(|key| policy.security_groups.get(key));
    let inbound = groups
        .flat_map(|group| &group.rules)
        .filter(|rule| rule.direction == Direction::Inbound && !rule.staged);
    inbound.map(|rule| rule.remote.clone()).collect()
}

/// Whether a remote stands for other addresses than before.
fn differs(old: &Policy, before: &Nic, new: &Policy, after: &Nic, remote: &Remote) -> bool {
    let set = |policy, nic| rules::remote(policy, nic, remote).into_iter().collect::<BTreeSet<_>>();
    set(old, before) != set(new, after)
}
