//! The second pass: whether the parts of a draft fit together.

use super::Limits;
use super::read::{UnresolvedNic, UnresolvedPolicy, UnresolvedSecurityGroup, UnresolvedVpc};
use crate::model::{AddressGroup, Key, Nic, Objects, Policy, Remote, SecurityGroup, Segment, Vpc};
use crate::similar_names::{listed, nearest, nearest_of};
use crate::source::{Faults, Node};
use ahash::AHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

/// The policy that the draft means; whatever does not fit together is noted.
pub(super) fn resolve(draft: &UnresolvedPolicy<'_>, limits: &Limits, faults: &mut Faults) -> Policy {
    let mut policy = Policy {
        vpcs: shared(vpcs(&draft.vpcs, draft.lacks_names, faults)),
        address_groups: shared(address_groups(draft, faults)),
        security_groups: shared(security_groups(&draft.security_groups, limits, faults)),
        nics: shared(nics(&draft.nics, limits, faults)),
    };
    add_implied_defaults(&mut policy);
    // What could not be read may be what is referred to.
    if !draft.lacks_names {
        check_references(draft, &policy, faults);
    }
    check_owners(&draft.nics, &policy, faults);
    policy
}

fn shared<K: Ord + Clone, V: Eq>(objects: BTreeMap<K, V>) -> Objects<K, V> {
    objects.into_iter().map(|(key, object)| (key, Arc::new(object))).collect()
}

/// Notes that something stood before.
fn duplicate(faults: &mut Faults, node: &Node, what: impl fmt::Display, earlier: &Node) {
    faults.add(node, format_args!("{what} stands in line {} already; allowed: once", earlier.at.line));
}

/// Reports every value that came before.
fn no_duplicates<'t, T: Eq + Hash>(
    items: impl Iterator<Item = (&'t Node, T)>,
    what: impl Fn(&T) -> String,
    faults: &mut Faults,
) {
    let mut seen: AHashMap<T, &Node> = AHashMap::new();
    for (node, value) in items {
        match seen.get(&value) {
            Some(earlier) => duplicate(faults, node, what(&value), earlier),
            None => {
                seen.insert(value, node);
            }
        }
    }
}

fn vpcs(drafts: &[UnresolvedVpc<'_>], lacks_names: bool, faults: &mut Faults) -> BTreeMap<Arc<str>, Vpc> {
    no_duplicates(drafts.iter().map(|d| (d.at, &d.name)), |name| format!("the VPC {name:?}"), faults);
    no_duplicates(drafts.iter().filter_map(|d| d.segment), |s| format!("the segment {s}"), faults);
    let first =
        |wanted: fn(&Segment) -> bool| drafts.iter().filter_map(|d| d.segment).find(|(_, s)| wanted(s));
    if let (Some((untagged, _)), Some((vni, _))) =
        (first(|s| *s == Segment::Untagged), first(|s| matches!(s, Segment::Vni(_))))
    {
        let later = if untagged.at > vni.at { untagged } else { vni };
        faults.add(later, "an untagged VPC beside one with a VNI; allowed: one of the two kinds");
    }

    let known: BTreeSet<&str> = drafts.iter().map(|d| &*d.name).collect();
    let mut vpcs = BTreeMap::new();
    for draft in drafts {
        // Without a segment it is a fault, and no policy comes of it.
        let segment = draft.segment.map_or(Segment::Untagged, |(_, segment)| segment);
        let vpc = Vpc { name: draft.name.clone(), segment, peers: BTreeSet::new() };
        vpcs.insert(draft.name.clone(), vpc);
        no_duplicates(draft.peers.iter().map(|(n, p)| (*n, p)), |p| format!("the peer {p:?}"), faults);
    }
    for draft in drafts {
        for (node, peer) in &draft.peers {
            if *peer == draft.name {
                faults.add(node, format_args!("{peer:?} is the VPC itself; allowed: other VPCs"));
            } else if !known.contains(&**peer) && !lacks_names {
                let allowed = || nearest(peer, known.iter().map(|name| (*name).to_owned()));
                let allowed = some_of(known.iter(), known.len(), allowed, faults);
                faults.add(node, format_args!("{peer:?} is no VPC; {allowed}"));
            }
            // To name a peer on either side is enough.
            for (one, other) in [(&draft.name, peer), (peer, &draft.name)] {
                if let Some(vpc) = vpcs.get_mut(one) {
                    vpc.peers.insert(other.clone());
                }
            }
        }
    }
    vpcs
}

fn address_groups(draft: &UnresolvedPolicy<'_>, faults: &mut Faults) -> BTreeMap<Key, AddressGroup> {
    let drafts = &draft.address_groups;
    let what = |key: &&Key| format!("the address group {:?}", key.to_string());
    no_duplicates(drafts.iter().map(|d| (d.at, &d.key)), what, faults);
    let mut groups = BTreeMap::new();
    for draft in drafts {
        no_duplicates(draft.prefixes.iter().copied(), |p| format!("the prefix {p}"), faults);
        let group = AddressGroup {
            key: draft.key.clone(),
            description: draft.description.clone(),
            prefixes: draft.prefixes.iter().map(|(_, prefix)| *prefix).collect(),
        };
        groups.insert(draft.key.clone(), group);
    }
    groups
}

fn security_groups(
    drafts: &[UnresolvedSecurityGroup<'_>],
    limits: &Limits,
    faults: &mut Faults,
) -> BTreeMap<Key, SecurityGroup> {
    let what = |key: &&Key| format!("the security group {:?}", key.to_string());
    no_duplicates(drafts.iter().map(|d| (d.at, &d.key)), what, faults);
    let mut groups = BTreeMap::new();
    for draft in drafts {
        let meanings = draft.rules.iter().map(|r| (r.at, r.rule.meaning()));
        no_duplicates(meanings, |_| "a rule of the same meaning".to_owned(), faults);
        if let Some(beyond) = draft.rules.get(limits.rules_per_group) {
            faults.add(
                beyond.at,
                format_args!(
                    "{} rules in the group {:?}; allowed: {} (policy.rules_per_group)",
                    draft.rules.len(),
                    draft.key.to_string(),
                    limits.rules_per_group
                ),
            );
        }
        let group = SecurityGroup {
            key: draft.key.clone(),
            description: draft.description.clone(),
            rules: draft.rules.iter().map(|r| r.rule.clone()).collect(),
            implied: false,
            staged: draft.staged,
        };
        groups.insert(draft.key.clone(), group);
    }
    groups
}

fn nics(drafts: &[UnresolvedNic<'_>], limits: &Limits, faults: &mut Faults) -> BTreeMap<Key, Nic> {
    let what = |key: &&Key| format!("the NIC {:?}", key.to_string());
    no_duplicates(drafts.iter().map(|d| (d.at, &d.key)), what, faults);
    let mut nics = BTreeMap::new();
    for draft in drafts {
        let addresses = draft.addresses.iter().copied();
        no_duplicates(addresses, |a| format!("the address {a}"), faults);
        // One entry an address: two would leave open which MAC comes with it.
        let allowed = draft.allowed_addresses.iter().map(|(node, a)| (*node, a.address));
        no_duplicates(allowed, |a| format!("the allowed address {a}"), faults);
        let groups = draft.security_groups.as_deref().unwrap_or_default();
        let what = |key: &&Key| format!("the group {:?}", key.to_string());
        no_duplicates(groups.iter().map(|(node, key)| (*node, key)), what, faults);
        if let Some((beyond, _)) = groups.get(limits.groups_per_nic) {
            faults.add(
                beyond,
                format_args!(
                    "{} groups of the NIC {:?}; allowed: {} (policy.groups_per_nic)",
                    groups.len(),
                    draft.key.to_string(),
                    limits.groups_per_nic
                ),
            );
        }
        let nic = Nic {
            key: draft.key.clone(),
            description: draft.description.clone(),
            vpc: draft.vpc.1.clone(),
            mac: draft.mac,
            addresses: draft.addresses.iter().map(|(_, a)| *a).collect(),
            allowed_addresses: draft.allowed_addresses.iter().map(|(_, a)| *a).collect(),
            security_groups: match &draft.security_groups {
                Some(groups) => groups.iter().map(|(_, key)| key.clone()).collect(),
                None => vec![Key::default_group_of(&draft.key.project)],
            },
            max_connections: draft.max_connections,
            mode: draft.mode,
        };
        nics.insert(draft.key.clone(), nic);
    }
    nics
}

/// The group `default` of every project that has a NIC or a rule that refers to it (semantics 3.7).
fn add_implied_defaults(policy: &mut Policy) {
    let of_nics = policy.nics.keys().map(|key| Key::default_group_of(&key.project));
    let remotes = policy.security_groups.values().flat_map(|group| &group.rules).filter_map(|rule| {
        let Remote::Group(key) = &rule.remote else { return None };
        (*key == Key::default_group_of(&key.project)).then(|| key.clone())
    });
    let wanted: BTreeSet<Key> = of_nics.chain(remotes).collect();
    for key in wanted {
        let group = SecurityGroup::implied_default(&key.project);
        policy.security_groups.entry(key).or_insert_with(|| Arc::new(group));
    }
}

/// The same after an edit of objects of these projects: those that nothing needs any more go.
pub(super) fn settle_implied_defaults(policy: &mut Policy, projects: &BTreeSet<Arc<str>>) {
    for project in projects {
        let key = Key::default_group_of(project);
        match policy.security_groups.get(&key).map(|group| group.implied) {
            None if is_default_wanted(policy, &key) => {
                policy.security_groups.insert(key, Arc::new(SecurityGroup::implied_default(project)));
            }
            Some(true) if !is_default_wanted(policy, &key) => {
                policy.security_groups.remove(&key);
            }
            _ => {}
        }
    }
}

/// True if a project has a NIC, or a rule that refers to its group `default`.
fn is_default_wanted(policy: &Policy, default: &Key) -> bool {
    fn of_project<'m, V: Eq>(all: &'m Objects<Key, V>, default: &Key) -> impl Iterator<Item = &'m Arc<V>> {
        let (project, first) = (default.project.clone(), Key::new(default.project.clone(), ""));
        let from_there = all.range(first..).take_while(move |(key, _)| key.project == project);
        from_there.map(|(_, value)| value)
    }
    let names_it = |group: &Arc<SecurityGroup>| {
        let mut remotes = group.rules.iter().map(|rule| &rule.remote);
        !group.implied && remotes.any(|remote| matches!(remote, Remote::Group(key) if key == default))
    };
    of_project(&policy.nics, default).next().is_some()
        || of_project(&policy.security_groups, default).any(names_it)
}

/// Every name that one object uses for another.
fn check_references(draft: &UnresolvedPolicy<'_>, policy: &Policy, faults: &mut Faults) {
    for rule in draft.security_groups.iter().flat_map(|group| &group.rules) {
        match (rule.reference, &rule.rule.remote) {
            (Some(node), Remote::Group(key)) => {
                check_key(node, key, "security group", &policy.security_groups, faults);
            }
            (Some(node), Remote::AddressGroup(key)) => {
                check_key(node, key, "address group", &policy.address_groups, faults);
            }
            _ => {}
        }
    }
    for nic in &draft.nics {
        let (node, vpc) = &nic.vpc;
        if !policy.vpcs.contains_key(vpc) {
            let all = &policy.vpcs;
            let allowed = some_of(all.keys(), all.len(), || nearest_of(all, vpc), faults);
            faults.add(node, format_args!("{vpc:?} is no VPC; {allowed}"));
        }
        for (node, key) in nic.security_groups.iter().flatten() {
            check_key(node, key, "security group", &policy.security_groups, faults);
        }
    }
}

fn check_key<T: Eq>(node: &Node, key: &Key, kind: &str, known: &Objects<Key, T>, faults: &mut Faults) {
    if known.contains_key(key) {
        return;
    }
    let names = || known.keys().filter(|k| k.project == key.project).map(|k| &k.name);
    let allowed = some_of(names(), names().count(), || nearest_of(known, key), faults);
    faults.add(node, format_args!("{:?} is no {kind} of the project {:?}; {allowed}", key.name, key.project));
}

/// Who owns which address: semantics 2.5.
fn check_owners(drafts: &[UnresolvedNic<'_>], policy: &Policy, faults: &mut Faults) {
    struct Claim<'t> {
        node: &'t Node,
        nic: &'t Key,
        fixed: bool,
    }
    // Ordered, so that the same document always gets the same message.
    let mut claims: BTreeMap<(&str, IpAddr), Vec<Claim<'_>>> = BTreeMap::new();
    for draft in drafts {
        let fixed = draft.addresses.iter().map(|&(node, address)| (node, address, true));
        let allowed = draft.allowed_addresses.iter().map(|&(node, a)| (node, a.address, false));
        for (node, address, fixed) in fixed.chain(allowed) {
            let claim = Claim { node, nic: &draft.key, fixed };
            claims.entry((&*draft.vpc.1, address)).or_default().push(claim);
        }
    }
    for (&(vpc, address), here) in &claims {
        // All claims of an address by other NICs clash with a fixed one, and with nothing else.
        if let Some(owner) = here.iter().find(|claim| claim.fixed) {
            for other in here.iter().filter(|claim| claim.nic != owner.nic) {
                let (node, nic) = if other.node.at > owner.node.at {
                    (other.node, owner.nic)
                } else {
                    (owner.node, other.nic)
                };
                faults.add(
                    node,
                    format_args!(
                        "{address} is an address of the NIC {:?} in the VPC {vpc:?} too; allowed: a fixed address is \
                         one NIC's alone",
                        nic.to_string()
                    ),
                );
            }
        }
        for peer in policy.vpcs.get(vpc).into_iter().flat_map(|vpc| &vpc.peers) {
            // Both orders come up; the claim that stands later in the document reports.
            let Some(there) = claims.get(&(&**peer, address)) else { continue };
            if let Some(earlier) = there.first()
                && let Some(later) = here.iter().find(|claim| claim.node.at > earlier.node.at)
            {
                faults.add(
                    later.node,
                    format_args!(
                        "{address} is an address of the NIC {:?} in the peered VPC {peer:?} too; allowed: one of the \
                         two",
                        earlier.nic.to_string()
                    ),
                );
            }
        }
    }
}

/// What a message allows instead of a name that nothing has: all names where they are few, else those near it.
fn some_of(
    names: impl Iterator<Item = impl AsRef<str>>,
    count: usize,
    near: impl FnOnce() -> Vec<String>,
    faults: &Faults,
) -> String {
    const SHOWN: usize = 8;
    /// Near names take milliseconds to find among many, and who has read these has understood.
    const SOUGHT: usize = 64;
    match count {
        0 => "allowed: none is defined".to_owned(),
        1..=SHOWN => {
            let names: Vec<_> = names.collect();
            format!("allowed: {}", names.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", "))
        }
        _ if faults.len() < SOUGHT => format!("allowed: one of {count}; {}", listed(&near())),
        _ => format!("allowed: one of {count}"),
    }
}
