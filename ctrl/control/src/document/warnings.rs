//! What is accepted and yet likely a mistake: host bits that are masked off, and rules that can match nothing.
//!
//! A rule is shadowed only by rules of its own group: these stand beside it on every NIC. Whether a group of others would
//! decide first hangs on the NIC.

use super::NO_TEXT;
use super::read::{UnresolvedPolicy, UnresolvedSecurityGroup};
use super::rule::UnresolvedRule;
use crate::model::{Action, Ethertypes, Key, Policy, Prefix, Remote, Rule, protocol};
use crate::source::{Faults, Node, Value, quoted};
use ahash::AHashMap;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// Comparisons of prefixes with prefixes that one question takes at most: two long lists are taken for different.
const COMPARED: usize = 1 << 20;

/// Warnings of what the draft's text says, which is part of this policy now.
pub(super) fn of(draft: &UnresolvedPolicy<'_>, policy: &Policy) -> Faults {
    let mut found = Faults::default();
    for (node, prefix) in draft.address_groups.iter().flat_map(|list| &list.prefixes) {
        host_bits(node, prefix, &mut found);
    }
    let mut members = None;
    for group in &draft.security_groups {
        for (at, rule) in group.rules.iter().enumerate().filter(|(_, rule)| is_written(rule.at)) {
            if let (Remote::Prefix(prefix), Some(node)) = (&rule.rule.remote, rule.reference) {
                host_bits(node, prefix, &mut found);
            }
            let idle = matches_nothing(&rule.rule, policy)
                .or_else(|| out_of_reach(&rule.rule, &group.key, policy, &mut members))
                .or_else(|| shadowed(group, at, policy));
            if let Some(why) = idle {
                found.add(rule.at, format_args!("the rule can match nothing: {why}"));
            }
        }
    }
    found
}

/// Whether it stands in the text, and not in the policy before.
fn is_written(node: &Node) -> bool {
    !std::ptr::eq(node, &NO_TEXT)
}

/// Of a prefix that was written with more bits than it has.
pub(crate) fn host_bits(node: &Node, prefix: &Prefix, found: &mut Faults) {
    let Value::Text(text) = &node.value else { return };
    let address = text.split_once('/').and_then(|(address, _)| address.parse::<IpAddr>().ok());
    if address.is_some_and(|address| address != prefix.addr()) {
        found.add(node, format_args!("{} has host bits, which are masked off: it is {prefix}", quoted(text)));
    }
}

/// The families in which the rule's remote has anybody.
pub(crate) fn families(rule: &Rule, policy: &Policy) -> Ethertypes {
    let Remote::AddressGroup(key) = &rule.remote else { return rule.ethertypes };
    let prefixes = policy.address_groups.get(key).map_or(&[][..], |list| &list.prefixes);
    let has = |is_v4: bool| prefixes.iter().any(|prefix| prefix.is_ipv4() == is_v4);
    Ethertypes { v4: rule.ethertypes.v4 && has(true), v6: rule.ethertypes.v6 && has(false) }
}

/// Why no packet that opens a connection is like that, if none is.
fn matches_nothing(rule: &Rule, policy: &Policy) -> Option<String> {
    let families = families(rule, policy);
    if let (Remote::AddressGroup(key), false, false) = (&rule.remote, families.v4, families.v6) {
        let family = match rule.ethertypes {
            Ethertypes::BOTH => "prefixes",
            Ethertypes { v4: true, .. } => "prefixes of IPv4",
            Ethertypes { .. } => "prefixes of IPv6",
        };
        return Some(format!("the address group {:?} has no {family}", key.to_string()));
    }
    let (opening, family, other) = match rule.protocol? {
        protocol::ICMP if !families.v4 => return Some("icmp is IPv4's; that of IPv6 is icmpv6".to_owned()),
        protocol::ICMPV6 if !families.v6 => return Some("icmpv6 is IPv6's; that of IPv4 is icmp".to_owned()),
        protocol::ICMP => (&protocol::ICMP_REQUESTS[..], "ICMP", "0, 14, 16, 18 and 43"),
        protocol::ICMPV6 => (&protocol::ICMPV6_REQUESTS[..], "ICMPv6", "129 and 161"),
        _ => return None,
    };
    let (kind, _) = rule.icmp.filter(|(kind, _)| !opening.contains(kind))?;
    let opening: Vec<String> = opening.iter().map(ToString::to_string).collect();
    Some(format!(
        "{family} type {kind} opens no connection; those that do are {}; replies ({other}) and errors pass with the \
         connection that they belong to",
        opening.join(", ")
    ))
}

/// VPCs in which groups have NICs.
type Members<'p> = AHashMap<&'p Key, BTreeSet<&'p Arc<str>>>;

/// Why the rule's group stands for nobody whom the NICs of the rule's owner could meet, if it does.
fn out_of_reach<'p>(
    rule: &Rule,
    owner: &Key,
    policy: &'p Policy,
    members: &mut Option<Members<'p>>,
) -> Option<String> {
    let Remote::Group(remote) = &rule.remote else { return None };
    let members = members.get_or_insert_with(|| {
        let mut members = Members::new();
        for nic in policy.nics.values() {
            for group in &nic.security_groups {
                members.entry(group).or_default().insert(&nic.vpc);
            }
        }
        members
    });
    let Some(there) = members.get(remote) else {
        // A group that nobody has yet may name itself.
        return (remote != owner).then(|| format!("the group {:?} has no NICs", remote.to_string()));
    };
    let here = members.get(owner)?;
    let meets = |vpc: &&Arc<str>| {
        let mut peers = policy.vpcs.get(*vpc).into_iter().flat_map(|vpc| &vpc.peers);
        there.contains(*vpc) || peers.any(|peer| there.contains(peer))
    };
    let is_met = here.iter().any(meets);
    (!is_met).then(|| format!("no NIC of the group {:?} is in reach", remote.to_string()))
}

/// Which earlier rules of the group decide all that the rule at `at` could match, if they do.
fn shadowed(group: &UnresolvedSecurityGroup<'_>, at: usize, policy: &Policy) -> Option<String> {
    let rule = &group.rules[at].rule;
    let families = families(rule, policy);
    let mut deciders = BTreeSet::new();
    for is_v4 in [families.v4.then_some(true), families.v6.then_some(false)].into_iter().flatten() {
        deciders.extend(deciders_of(group, at, is_v4, policy)?);
    }
    let named = deciders.iter().map(|place| {
        let UnresolvedRule { at, .. } = &group.rules[*place];
        let line = if is_written(at) { format!(" in line {}", at.at.line) } else { String::new() };
        format!("{}#{place}{line}", group.key)
    });
    Some(format!("shadowed by {}, decided first", named.collect::<Vec<_>>().join(" and ")))
}

/// The same in one family, by their places.
fn deciders_of(
    group: &UnresolvedSecurityGroup<'_>,
    at: usize,
    is_v4: bool,
    policy: &Policy,
) -> Option<BTreeSet<usize>> {
    // In this order rules are asked (semantics 3.3).
    let rank = |place: usize, rule: &Rule| (rule.priority, rule.action != Action::Deny, place);
    let rule = &group.rules[at].rule;
    // A staged rule decides nothing about an enforced one; once it is promoted, both stand in its way.
    let is_asked = |other: &Rule| !other.staged || rule.staged;
    let earlier = group.rules.iter().enumerate().map(|(place, draft)| (place, &draft.rule)).filter(
        |&(place, other)| {
            is_asked(other)
                && rank(place, other) < rank(at, rule)
                && covers_but_ports(other, rule, is_v4, policy)
        },
    );
    let mut ranges = Vec::new();
    for (place, other) in earlier {
        match (other.ports, rule.ports) {
            (None, _) => return Some(BTreeSet::from([place])),
            (Some(range), Some(_)) => ranges.push((range, place)),
            // Of port 0, too.
            (Some(_), None) => {}
        }
    }
    let (low, high) = rule.ports?;
    ranges.sort_unstable();
    let (mut next, mut deciders) = (u32::from(low), BTreeSet::new());
    for ((from, to), place) in ranges {
        if u32::from(from) <= next && next <= u32::from(to) {
            next = u32::from(to) + 1;
            deciders.insert(place);
        }
    }
    (next > u32::from(high)).then_some(deciders)
}

/// Whether `rule` matches whatever `other` does in a family, ports aside.
pub(crate) fn covers_but_ports(rule: &Rule, other: &Rule, is_v4: bool, policy: &Policy) -> bool {
    let has_family = if is_v4 { rule.ethertypes.v4 } else { rule.ethertypes.v6 };
    let has_icmp = match (rule.icmp, other.icmp) {
        (None, _) => true,
        (Some((kind, None)), Some((its, _))) => kind == its,
        (rules, others) => rules == others,
    };
    rule.direction == other.direction
        && has_family
        && (rule.protocol.is_none() || rule.protocol == other.protocol)
        && has_icmp
        && covers(&rule.remote, &other.remote, is_v4, policy)
}

/// Whether one remote has all addresses of another in a family.
fn covers(remote: &Remote, other: &Remote, is_v4: bool, policy: &Policy) -> bool {
    if remote == other || *remote == Remote::Any {
        return true;
    }
    let Some(these) = prefixes(remote, is_v4, policy) else { return false };
    if these.iter().any(Prefix::is_everything) {
        return true;
    }
    let Some(those) = prefixes(other, is_v4, policy) else { return false };
    these.len().saturating_mul(those.len()) <= COMPARED
        && those
            .iter()
            .all(|inner| these.iter().any(|outer| outer.len() <= inner.len() && outer.contains(inner.addr())))
}

/// The remote as prefixes of a family, where it is some.
fn prefixes<'p>(remote: &'p Remote, is_v4: bool, policy: &'p Policy) -> Option<Cow<'p, [Prefix]>> {
    match remote {
        Remote::Any | Remote::Group(_) => None,
        Remote::Prefix(prefix) => Some(Cow::Borrowed(std::slice::from_ref(prefix))),
        Remote::AddressGroup(key) => {
            let list = policy.address_groups.get(key)?;
            Some(list.prefixes.iter().filter(|prefix| prefix.is_ipv4() == is_v4).copied().collect())
        }
    }
}
