//! Edits: objects put into a policy that is in force, taken out of it, rules one by one.
//!
//! What is put in is read and checked as in a whole document, together with whatever of the policy it could clash with, and no
//! more: the rules of other groups, say, do not matter to a NIC. What is valid by itself and with those is valid in the
//! whole, since the rest was before.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::NO_TEXT;
use super::read::{
    self, UnresolvedAddressGroup, UnresolvedNic, UnresolvedPolicy, UnresolvedSecurityGroup, UnresolvedVpc,
};
use super::resolve::{resolve, settle_implied_defaults};
use super::rule::{UnresolvedRule, rule};
use super::{Limits, Parsed, told, warnings};
use crate::model::{Identity, Key, Nic, Objects, Policy, Remote, SecurityGroup, Vpc};
use crate::similar_names::{listed, nearest_of};
use crate::source::{Diagnostic, Faults, Node, Value, parse_yaml};

/// An object of a policy, by kind and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectKey {
    /// A VPC.
    Vpc(Arc<str>),
    /// An address group.
    AddressGroup(Key),
    /// A security group.
    SecurityGroup(Key),
    /// A NIC.
    Nic(Key),
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ObjectKey::Vpc(name) => write!(f, "VPC {name:?}"),
            ObjectKey::AddressGroup(key) => write!(f, "address group {:?}", key.to_string()),
            ObjectKey::SecurityGroup(key) => write!(f, "security group {:?}", key.to_string()),
            ObjectKey::Nic(key) => write!(f, "NIC {:?}", key.to_string()),
        }
    }
}

/// An object that is not there, with those of its kind that have names near its own.
pub fn absent(policy: &Policy, key: &ObjectKey) -> String {
    let near = match key {
        ObjectKey::Vpc(name) => nearest_of(&policy.vpcs, name),
        ObjectKey::AddressGroup(key) => nearest_of(&policy.address_groups, key),
        ObjectKey::SecurityGroup(key) => nearest_of(&policy.security_groups, key),
        ObjectKey::Nic(key) => nearest_of(&policy.nics, key),
    };
    format!("{key}; {}", listed(&near))
}

/// Why an edit is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditError {
    /// What was given makes no sense, here.
    Bad(Diagnostic),
    /// What it is about is not there.
    NotFound(String),
    /// Others need what it would take away.
    InUse(String),
}

impl From<Diagnostic> for EditError {
    fn from(diagnostic: Diagnostic) -> EditError {
        EditError::Bad(diagnostic)
    }
}

/// The policy with the objects of a partial document in it: new ones added, those of the same name replaced, nothing taken
/// away. `file` is how diagnostics name the text.
pub fn merge(present: &Policy, text: &str, file: &str, limits: &Limits) -> Result<Parsed, EditError> {
    let root = parse_yaml(text).map_err(|fault| fault.in_file(file))?;
    let mut faults = Faults::default();
    let draft = match root.value {
        Value::Null => UnresolvedPolicy::default(),
        _ => read::read(&root, &mut faults),
    };
    merged(present, draft, faults, &EditSource { root: &root, file }, limits)
}

/// The same for one object, which is given as it would stand in its section and must bear this name.
pub fn put(present: &Policy, key: &ObjectKey, text: &str, limits: &Limits) -> Result<Parsed, EditError> {
    let file = &key.to_string();
    let root = parse_yaml(text).map_err(|fault| fault.in_file(file))?;
    let (mut draft, mut faults) = (UnresolvedPolicy::default(), Faults::default());
    match key {
        ObjectKey::Vpc(_) => draft.vpcs.extend(read::vpc(&root, &mut faults)),
        ObjectKey::AddressGroup(_) => draft.address_groups.extend(read::address_group(&root, &mut faults)),
        ObjectKey::SecurityGroup(_) => {
            draft.security_groups.extend(read::security_group(&root, &mut faults));
        }
        ObjectKey::Nic(_) => draft.nics.extend(read::nic(&root, &mut faults)),
    }
    let found = None
        .or(draft.vpcs.first().map(|vpc| ObjectKey::Vpc(vpc.name.clone())))
        .or(draft.address_groups.first().map(|list| ObjectKey::AddressGroup(list.key.clone())))
        .or(draft.security_groups.first().map(|group| ObjectKey::SecurityGroup(group.key.clone())))
        .or(draft.nics.first().map(|nic| ObjectKey::Nic(nic.key.clone())));
    if let Some(found) = found.filter(|found| found != key && faults.is_empty()) {
        let message = format!("the object is the {found}; allowed: the one that is asked for");
        return Err(Diagnostic::whole_file(file, message).into());
    }
    merged(present, draft, faults, &EditSource { root: &root, file }, limits)
}

/// The policy without an object that nothing else needs.
pub fn remove(present: &Policy, key: &ObjectKey) -> Result<Policy, EditError> {
    let mut policy = present.clone();
    let was_there = match key {
        ObjectKey::Vpc(name) => policy.vpcs.remove(name).is_some(),
        ObjectKey::AddressGroup(key) => policy.address_groups.remove(key).is_some(),
        // An implied group is nobody's to take away.
        ObjectKey::SecurityGroup(key) => {
            policy.security_groups.remove(key).is_some_and(|group| !group.implied)
        }
        ObjectKey::Nic(key) => policy.nics.remove(key).is_some(),
    };
    if !was_there {
        return Err(EditError::NotFound(absent(present, key)));
    }
    if let ObjectKey::Vpc(name) = key {
        let peers: Vec<_> = policy.vpcs.values().filter(|vpc| vpc.peers.contains(name)).cloned().collect();
        for mut vpc in peers {
            Arc::make_mut(&mut vpc).peers.remove(name);
            policy.vpcs.insert(vpc.name.clone(), vpc);
        }
    }
    if let ObjectKey::SecurityGroup(key) | ObjectKey::Nic(key) = key {
        settle_implied_defaults(&mut policy, &BTreeSet::from([key.project.clone()]));
    }
    if let Some(user) = user_of_missing(&policy, key) {
        return Err(EditError::InUse(format!(
            "the {key} is used by the {user}; allowed: one that nothing uses"
        )));
    }
    Ok(policy)
}

/// Who names an object that is not there any more.
fn user_of_missing(policy: &Policy, gone: &ObjectKey) -> Option<ObjectKey> {
    let ruled = |wanted: &Remote| {
        let names = |group: &&Arc<SecurityGroup>| group.rules.iter().any(|rule| rule.remote == *wanted);
        policy.security_groups.values().find(names).map(|group| ObjectKey::SecurityGroup(group.key.clone()))
    };
    match gone {
        ObjectKey::Vpc(name) => {
            policy.nics.values().find(|nic| nic.vpc == *name).map(|nic| ObjectKey::Nic(nic.key.clone()))
        }
        ObjectKey::AddressGroup(key) => ruled(&Remote::AddressGroup(key.clone())),
        // A group `default` that the policy still needs is implied again.
        ObjectKey::SecurityGroup(key) if policy.security_groups.contains_key(key) => None,
        ObjectKey::SecurityGroup(key) => {
            let user = policy.nics.values().find(|nic| nic.security_groups.contains(key));
            user.map(|nic| ObjectKey::Nic(nic.key.clone())).or_else(|| ruled(&Remote::Group(key.clone())))
        }
        ObjectKey::Nic(_) => None,
    }
}

/// Which rule of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleSelector {
    /// The one at this position, from 0.
    Position(usize),
    /// The one of this identity.
    Identity(Identity),
}

impl std::str::FromStr for RuleSelector {
    type Err = ();

    fn from_str(text: &str) -> Result<RuleSelector, ()> {
        match text.parse() {
            Ok(identity) => Ok(RuleSelector::Identity(identity)),
            Err(()) => text.parse().map(RuleSelector::Position).map_err(|_| ()),
        }
    }
}

impl RuleSelector {
    /// Its position in the group, if it is there.
    fn find(self, group: &SecurityGroup) -> Result<usize, EditError> {
        let found = match self {
            RuleSelector::Position(at) => (at < group.rules.len()).then_some(at),
            RuleSelector::Identity(id) => group.rules.iter().position(|rule| rule.meaning().identity() == id),
        };
        found.ok_or_else(|| {
            let key = &group.key;
            let what = match self {
                RuleSelector::Position(at) => format!("rule {key}#{at}"),
                RuleSelector::Identity(id) => format!("rule {id} in {key}"),
            };
            EditError::NotFound(match group.rules.len() {
                0 => format!("{what}; the group has no rules"),
                count => format!("{what}; the group has {key}#0 to {key}#{}", count - 1),
            })
        })
    }
}

/// What is done to a group's list of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleEdit {
    /// A rule at the end of the list.
    Add(String),
    /// A rule in the place of another.
    Set(RuleSelector, String),
    /// No rule in that place; those behind it move up.
    Delete(RuleSelector),
}

/// The policy with a group's rules edited.
pub fn edit_rule(present: &Policy, key: &Key, edit: &RuleEdit, limits: &Limits) -> Result<Parsed, EditError> {
    let object = ObjectKey::SecurityGroup(key.clone());
    let group =
        present.security_groups.get(key).ok_or_else(|| EditError::NotFound(absent(present, &object)))?;
    let text = match edit {
        RuleEdit::Add(text) | RuleEdit::Set(_, text) => text,
        RuleEdit::Delete(_) => "",
    };
    let file = &format!("rule of {key}");
    let root = parse_yaml(text).map_err(|fault| fault.in_file(file))?;
    let (mut draft, mut faults) = (group_draft(group), Faults::default());
    match edit {
        RuleEdit::Add(_) => draft.rules.extend(rule(&root, key, group.staged, &mut faults)),
        RuleEdit::Set(place, _) => {
            let place = place.find(group)?;
            draft.rules.splice(place..=place, rule(&root, key, group.staged, &mut faults));
        }
        RuleEdit::Delete(place) => drop(draft.rules.remove(place.find(group)?)),
    }
    let draft = UnresolvedPolicy { security_groups: vec![draft], ..UnresolvedPolicy::default() };
    merged(present, draft, faults, &EditSource { root: &root, file }, limits)
}

/// What an edit was read from.
struct EditSource<'t> {
    root: &'t Node,
    file: &'t str,
}

/// The policy with the objects of the draft in it. `faults` are those of reading it.
fn merged(
    present: &Policy,
    draft: UnresolvedPolicy<'_>,
    mut faults: Faults,
    text: &EditSource<'_>,
    limits: &Limits,
) -> Result<Parsed, EditError> {
    let vpcs: Vec<Arc<str>> = draft.vpcs.iter().map(|d| d.name.clone()).collect();
    let address_groups: Vec<Key> = draft.address_groups.iter().map(|d| d.key.clone()).collect();
    let security_groups: Vec<Key> = draft.security_groups.iter().map(|d| d.key.clone()).collect();
    let nics: Vec<Key> = draft.nics.iter().map(|d| d.key.clone()).collect();
    let projects = security_groups.iter().chain(&nics).map(|key| key.project.clone()).collect();
    let draft = with_context(present, draft);
    let mut found = resolve(&draft, limits, &mut faults);
    faults.first().map_err(|fault| fault.in_tree(text.root, text.file))?;
    let mut policy = present.clone();
    if !vpcs.is_empty() {
        // All of them: a peering has two ends.
        policy.vpcs = found.vpcs;
    }
    take(&mut policy.address_groups, &mut found.address_groups, &address_groups);
    take(&mut policy.security_groups, &mut found.security_groups, &security_groups);
    take(&mut policy.nics, &mut found.nics, &nics);
    settle_implied_defaults(&mut policy, &projects);
    let warnings = told(warnings::of(&draft, &policy), text.root, text.file);
    Ok(Parsed { warnings, ..policy.into() })
}

fn take<K: Ord + Clone, V: Eq>(into: &mut Objects<K, V>, from: &mut Objects<K, V>, keys: &[K]) {
    for key in keys {
        if let Some(value) = from.remove(key) {
            into.insert(key.clone(), value);
        }
    }
}

/// The draft with what it may clash with or refer to.
fn with_context<'t>(present: &Policy, mut draft: UnresolvedPolicy<'t>) -> UnresolvedPolicy<'t> {
    if !draft.vpcs.is_empty() || !draft.nics.is_empty() {
        draft.nics.extend(nics_beside(present, &draft).map(|nic| nic_draft(nic)).collect::<Vec<_>>());
        let edited: Vec<Arc<str>> = draft.vpcs.iter().map(|d| d.name.clone()).collect();
        let vpcs = present.vpcs.values().filter(|vpc| !edited.contains(&vpc.name));
        draft.vpcs.extend(vpcs.map(|vpc| vpc_draft(vpc, &edited)));
    }
    let rules = draft.security_groups.iter().flat_map(|group| &group.rules);
    let mut groups: BTreeSet<Key> = BTreeSet::new();
    let mut lists: BTreeSet<Key> = BTreeSet::new();
    for rule in rules {
        match &rule.rule.remote {
            Remote::Group(key) => drop(groups.insert(key.clone())),
            Remote::AddressGroup(key) => drop(lists.insert(key.clone())),
            Remote::Any | Remote::Prefix(_) => {}
        }
    }
    groups.extend(
        draft.nics.iter().flat_map(|nic| nic.security_groups.iter().flatten()).map(|(_, key)| key.clone()),
    );
    let edited: BTreeSet<Key> = draft.security_groups.iter().map(|d| d.key.clone()).collect();
    let groups = named(&present.security_groups, groups, &edited);
    draft.security_groups.extend(groups.filter(|group| !group.implied).map(|group| group_head(group)));
    let edited: BTreeSet<Key> = draft.address_groups.iter().map(|d| d.key.clone()).collect();
    let lists = named(&present.address_groups, lists, &edited);
    draft.address_groups.extend(lists.map(|list| UnresolvedAddressGroup {
        at: &NO_TEXT,
        key: list.key.clone(),
        description: String::new(),
        prefixes: Vec::new(),
    }));
    draft
}

/// Objects of these names that are not edited; if one is not there at all, every object, for the message to name what is.
fn named<'p, V: Eq>(
    present: &'p Objects<Key, V>,
    mut names: BTreeSet<Key>,
    edited: &BTreeSet<Key>,
) -> impl Iterator<Item = &'p Arc<V>> {
    let is_known = |key: &Key| present.contains_key(key) || edited.contains(key);
    // A project's group `default` is implied where it is named.
    let is_implied = |key: &Key| *key == Key::default_group_of(&key.project);
    if !names.iter().all(|key| is_known(key) || is_implied(key)) {
        names = present.keys().cloned().collect();
    }
    names.retain(|key| !edited.contains(key));
    names.into_iter().filter_map(|key| present.get(&key))
}

/// NICs that are not edited and may own what the draft's NICs claim; where a VPC is edited, whose peers are others then, all.
fn nics_beside<'p>(
    present: &'p Policy,
    draft: &UnresolvedPolicy<'_>,
) -> impl Iterator<Item = &'p Arc<Nic>> + use<'p> {
    let edited: BTreeSet<Key> = draft.nics.iter().map(|d| d.key.clone()).collect();
    let fixed = draft.nics.iter().flat_map(|nic| &nic.addresses).map(|(_, address)| *address);
    let allowed =
        draft.nics.iter().flat_map(|nic| &nic.allowed_addresses).map(|(_, allowed)| allowed.address);
    let claimed: BTreeSet<IpAddr> = fixed.chain(allowed).collect();
    let are_all = !draft.vpcs.is_empty();
    let may_own = move |nic: &Nic| are_all || nic.all_addresses().any(|address| claimed.contains(&address));
    let others = present.nics.iter().filter(move |(key, nic)| may_own(nic) && !edited.contains(*key));
    others.map(|(_, nic)| nic)
}

fn vpc_draft(vpc: &Vpc, edited: &[Arc<str>]) -> UnresolvedVpc<'static> {
    // What an edited VPC says of its peers counts for both ends.
    let peers = vpc.peers.iter().filter(|peer| !edited.contains(peer));
    UnresolvedVpc {
        at: &NO_TEXT,
        name: vpc.name.clone(),
        segment: Some((&NO_TEXT, vpc.segment)),
        peers: peers.map(|peer| (&NO_TEXT, peer.clone())).collect(),
    }
}

fn nic_draft(nic: &Nic) -> UnresolvedNic<'static> {
    UnresolvedNic {
        at: &NO_TEXT,
        key: nic.key.clone(),
        description: String::new(),
        vpc: (&NO_TEXT, nic.vpc.clone()),
        mac: nic.mac,
        addresses: nic.addresses.iter().map(|address| (&NO_TEXT, *address)).collect(),
        allowed_addresses: nic.allowed_addresses.iter().map(|address| (&NO_TEXT, *address)).collect(),
        security_groups: Some(Vec::new()),
        max_connections: None,
        mode: None,
    }
}

fn group_head(group: &SecurityGroup) -> UnresolvedSecurityGroup<'static> {
    UnresolvedSecurityGroup {
        at: &NO_TEXT,
        key: group.key.clone(),
        description: group.description.clone(),
        staged: group.staged,
        rules: Vec::new(),
    }
}

fn group_draft(group: &SecurityGroup) -> UnresolvedSecurityGroup<'static> {
    let rules =
        group.rules.iter().map(|rule| UnresolvedRule { at: &NO_TEXT, rule: rule.clone(), reference: None });
    UnresolvedSecurityGroup { rules: rules.collect(), ..group_head(group) }
}
