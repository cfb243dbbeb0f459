//! Who is in which group, and whose rules name what: so that a change finds whom it touches without looking at all others.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use crate::delta::Delta;
use crate::model::{Key, Nic, Policy, Remote, SecurityGroup};

/// Of one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    members: HashMap<Key, BTreeSet<Key>>,
    referrers: HashMap<Remote, BTreeSet<Key>>,
    /// Addresses of all NICs.
    addresses: usize,
}

impl Index {
    /// Of this policy.
    pub fn of(policy: &Policy) -> Index {
        let mut index = Index::default();
        index.update(&Delta::between(&Policy::default(), policy), policy);
        index
    }

    /// The NICs of a group.
    pub fn members<'i>(&'i self, group: &Key) -> impl Iterator<Item = &'i Key> + use<'i> {
        self.members.get(group).into_iter().flatten()
    }

    /// The groups with a rule about this remote, which is a group or an address group.
    pub fn referrers<'i>(&'i self, remote: &Remote) -> impl Iterator<Item = &'i Key> + use<'i> {
        self.referrers.get(remote).into_iter().flatten()
    }

    /// How many addresses the NICs would have after a change.
    pub fn addresses_after(&self, delta: &Delta, new: &Policy) -> usize {
        let of = |nic: &Nic| nic.all_addresses().count();
        let before: usize = delta.nics.iter().filter_map(|(_, nic)| nic.as_deref()).map(of).sum();
        let after = delta.nics.iter().filter_map(|(key, _)| new.nics.get(key));
        self.addresses - before + after.map(|nic| of(nic)).sum::<usize>()
    }

    /// Follows a change to `new`.
    pub fn update(&mut self, delta: &Delta, new: &Policy) {
        self.addresses = self.addresses_after(delta, new);
        for (key, before) in &delta.nics {
            for group in before.iter().flat_map(|nic| &nic.security_groups) {
                remove(&mut self.members, group, key);
            }
            for group in new.nics.get(key).into_iter().flat_map(|nic| &nic.security_groups) {
                self.members.entry(group.clone()).or_default().insert(key.clone());
            }
        }
        for (key, before) in &delta.security_groups {
            for remote in before.iter().flat_map(|group| remotes(group)) {
                remove(&mut self.referrers, remote, key);
            }
            for remote in new.security_groups.get(key).into_iter().flat_map(|group| remotes(group)) {
                self.referrers.entry(remote.clone()).or_default().insert(key.clone());
            }
        }
    }
}

/// Remotes that are objects of the policy.
fn remotes(group: &SecurityGroup) -> impl Iterator<Item = &Remote> {
    let remotes = group.rules.iter().map(|rule| &rule.remote);
    remotes.filter(|remote| matches!(remote, Remote::Group(_) | Remote::AddressGroup(_)))
}

fn remove<K: Hash + Eq>(sets: &mut HashMap<K, BTreeSet<Key>>, of: &K, key: &Key) {
    if let Some(set) = sets.get_mut(of) {
        set.remove(key);
        if set.is_empty() {
            sets.remove(of);
        }
    }
}
