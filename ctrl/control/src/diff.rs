//! What a change of policy changes, object by object.
//!
//! A [`Diff`] is about what an operator wrote: it lists every object whose document differs in more than spelling, and
//! says of each whether it also *means* something else. A new description or another order of rules is a change
//! (listings and the numbers of rules follow it) that means nothing: it flushes and re-judges nothing.

mod lines;

use crate::delta::{Before, Delta};
use crate::model::{AddressGroup, Key, Nic, Objects, Policy, SecurityGroup, Vpc};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

pub use lines::{MAX_LINES, lines};

/// An object of a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// A VPC, by name.
    Vpc(Arc<str>),
    /// An address group.
    AddressGroup(Key),
    /// A security group.
    SecurityGroup(Key),
    /// A NIC.
    Nic(Key),
}

/// The plain name, as receipts show it: `name`, or `project/name`.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Vpc(name) => f.write_str(name),
            Object::AddressGroup(key) | Object::SecurityGroup(key) | Object::Nic(key) => key.fmt(f),
        }
    }
}

/// How an object differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is new.
    Added,
    /// It is there before and after.
    Changed {
        /// Whether it means something else, and is not only described, ordered or spelled anew.
        meaning: bool,
    },
    /// It is gone.
    Removed,
}

/// The differences between two policies, by name and by object. Both in the order VPCs, address groups, security
/// groups, NICs, each by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Names of what is new.
    pub added: Vec<String>,
    /// Names of what is there before and after, and differs.
    pub changed: Vec<String>,
    /// Names of what is gone.
    pub removed: Vec<String>,
    /// The same with kinds.
    pub objects: Vec<(Object, Kind)>,
}

impl Diff {
    /// Whether nothing differs: to apply the new policy changes nothing (semantics 5.6).
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Whether anything differs in what is enforced.
    pub fn changes_meaning(&self) -> bool {
        self.objects.iter().any(|(_, kind)| *kind != Kind::Changed { meaning: false })
    }

    fn add(&mut self, object: Object, kind: Kind) {
        let names = match kind {
            Kind::Added => &mut self.added,
            Kind::Changed { .. } => &mut self.changed,
            Kind::Removed => &mut self.removed,
        };
        names.push(object.to_string());
        self.objects.push((object, kind));
    }

    fn compare<K: Ord + Clone, V: Compare + Eq>(
        &mut self,
        before: &Before<K, Arc<V>>,
        new: &Objects<K, V>,
        object: fn(K) -> Object,
    ) {
        for (key, old) in before {
            let kind = match (old, new.get(key)) {
                (Some(old), Some(new)) => match old.compare(new) {
                    Similarity::Same => continue,
                    Similarity::SameMeaning => Kind::Changed { meaning: false },
                    Similarity::Different => Kind::Changed { meaning: true },
                },
                (Some(old), None) if old.is_written() => Kind::Removed,
                (None, Some(new)) if new.is_written() => Kind::Added,
                _ => continue,
            };
            self.add(object(key.clone()), kind);
        }
    }
}

/// What turns `old` into `new`.
pub fn diff(old: &Policy, new: &Policy) -> Diff {
    diff_of(&Delta::between(old, new), new)
}

/// What a delta turns into `new`.
pub fn diff_of(delta: &Delta, new: &Policy) -> Diff {
    let mut diff = Diff::default();
    diff.compare(&delta.vpcs, &new.vpcs, Object::Vpc);
    diff.compare(&delta.address_groups, &new.address_groups, Object::AddressGroup);
    diff.compare(&delta.security_groups, &new.security_groups, Object::SecurityGroup);
    diff.compare(&delta.nics, &new.nics, Object::Nic);
    diff
}

enum Similarity {
    /// But for spelling.
    Same,
    /// Described or ordered differently.
    SameMeaning,
    Different,
}

fn likeness(same_meaning: bool, same_text: bool) -> Similarity {
    match (same_meaning, same_text) {
        (false, _) => Similarity::Different,
        (true, false) => Similarity::SameMeaning,
        (true, true) => Similarity::Same,
    }
}

trait Compare {
    fn compare(&self, new: &Self) -> Similarity;

    /// Whether a document defines it. What comes and goes by itself is nobody's change.
    fn is_written(&self) -> bool {
        true
    }
}

impl Compare for Vpc {
    fn compare(&self, new: &Vpc) -> Similarity {
        likeness(self == new, true)
    }
}

impl Compare for AddressGroup {
    fn compare(&self, new: &AddressGroup) -> Similarity {
        let prefixes = |group: &AddressGroup| group.prefixes.iter().copied().collect::<BTreeSet<_>>();
        likeness(prefixes(self) == prefixes(new), self == new)
    }
}

impl Compare for SecurityGroup {
    /// A document that defines `default` as it was implied changes nothing; `implied` is not compared.
    fn compare(&self, new: &SecurityGroup) -> Similarity {
        let rules = self.rules.iter().zip(&new.rules);
        let same_text = self.description == new.description
            && self.staged == new.staged
            && self.rules.len() == new.rules.len()
            && rules.into_iter().all(|(a, b)| a.meaning() == b.meaning() && a.description == b.description);
        likeness(same_text || self.meaning() == new.meaning(), same_text)
    }

    fn is_written(&self) -> bool {
        !self.implied
    }
}

impl Compare for Nic {
    fn compare(&self, new: &Nic) -> Similarity {
        // The order of groups is none of the spelling: it decides which of two equal rules a verdict names. It changes
        // no verdict, though, and no membership.
        fn meaning(nic: &Nic) -> Nic {
            let mut nic = nic.clone();
            nic.description.clear();
            nic.addresses.sort_unstable();
            nic.allowed_addresses.sort_unstable();
            nic.security_groups.sort_unstable();
            nic
        }
        let same = self == new;
        likeness(same || meaning(self) == meaning(new), same)
    }
}
