//! What a commit changed, as it was before: enough to take the policy back a generation, and small where little changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{AddressGroup, Key, Nic, Objects, Policy, SecurityGroup, Vpc};

/// Objects by name as they were before a commit; `None` for one that it added.
pub type Before<K, V> = Vec<(K, Option<V>)>;

/// What a commit replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// VPCs.
    pub vpcs: Before<Arc<str>, Arc<Vpc>>,
    /// Address groups.
    pub address_groups: Before<Key, Arc<AddressGroup>>,
    /// Security groups.
    pub security_groups: Before<Key, Arc<SecurityGroup>>,
    /// NICs.
    pub nics: Before<Key, Arc<Nic>>,
}

/// What becoming `new` replaces, where only objects of these names can differ.
fn before_among<K: Ord + Clone, V: Eq>(
    names: BTreeSet<&K>,
    old: &Objects<K, V>,
    new: &Objects<K, V>,
) -> Before<K, Arc<V>> {
    let pairs = names.into_iter().map(|key| (key, old.get(key), new.get(key)));
    pairs.filter(|(_, old, new)| old != new).map(|(key, old, _)| (key.clone(), old.cloned())).collect()
}

fn restore<K: Ord + Clone, V: Eq>(objects: &mut Objects<K, V>, before: &Before<K, Arc<V>>) {
    for (key, value) in before {
        match value {
            Some(value) => objects.insert(key.clone(), value.clone()),
            None => objects.remove(key),
        };
    }
}

impl Delta {
    /// What turning `old` into `new` replaces.
    pub fn between(old: &Policy, new: &Policy) -> Delta {
        Delta {
            vpcs: old.vpcs.replaced_by(&new.vpcs),
            address_groups: old.address_groups.replaced_by(&new.address_groups),
            security_groups: old.security_groups.replaced_by(&new.security_groups),
            nics: old.nics.replaced_by(&new.nics),
        }
    }

    /// What turning `old` into `new` replaces, where `old` came of `new` by the commits that replaced these.
    pub fn composed<'d>(
        commits: impl Iterator<Item = &'d Delta> + Clone,
        old: &Policy,
        new: &Policy,
    ) -> Delta {
        fn names<K: Ord, V>(before: &Before<K, V>) -> impl Iterator<Item = &K> {
            before.iter().map(|(name, _)| name)
        }
        let vpcs = commits.clone().flat_map(|delta| names(&delta.vpcs)).collect();
        let address_groups = commits.clone().flat_map(|delta| names(&delta.address_groups)).collect();
        let security_groups = commits.clone().flat_map(|delta| names(&delta.security_groups)).collect();
        let nics = commits.flat_map(|delta| names(&delta.nics)).collect();
        let delta = Delta {
            vpcs: before_among(vpcs, &old.vpcs, &new.vpcs),
            address_groups: before_among(address_groups, &old.address_groups, &new.address_groups),
            security_groups: before_among(security_groups, &old.security_groups, &new.security_groups),
            nics: before_among(nics, &old.nics, &new.nics),
        };
        debug_assert!(
            delta == Delta::between(old, new),
            "differences by what was replaced, and by a look at everything"
        );
        delta
    }

    /// About how many bytes of memory it keeps from being freed, its record's names included.
    pub fn weight(&self) -> usize {
        /// An entry and its key.
        const ENTRY: usize = 128;
        /// The object's own fields.
        const OBJECT: usize = 384;
        const ADDRESS: usize = 64;
        const RULE: usize = 192;
        const PREFIX: usize = 24;
        const GROUP: usize = 64;
        let nic = |nic: &Nic| {
            (nic.addresses.len() + nic.allowed_addresses.len()) * ADDRESS
                + nic.security_groups.len() * GROUP
                + nic.description.len()
        };
        let group = |group: &SecurityGroup| {
            let texts: usize = group.rules.iter().map(|rule| rule.description.len()).sum();
            group.rules.len() * RULE + group.description.len() + texts
        };
        let list = |list: &AddressGroup| list.prefixes.len() * PREFIX + list.description.len();
        fn of<K, V>(before: &Before<K, Arc<V>>, own: impl Fn(&V) -> usize) -> usize {
            let object = |value: &Arc<V>| OBJECT + own(value);
            before.iter().map(|(_, value)| ENTRY + value.as_ref().map_or(0, object)).sum()
        }
        of(&self.nics, nic)
            + of(&self.security_groups, group)
            + of(&self.address_groups, list)
            + of(&self.vpcs, |vpc: &Vpc| vpc.peers.len() * GROUP)
    }

    /// Turns the policy after the commit into the one before it.
    pub fn revert(&self, policy: &mut Policy) {
        restore(&mut policy.vpcs, &self.vpcs);
        restore(&mut policy.address_groups, &self.address_groups);
        restore(&mut policy.security_groups, &self.security_groups);
        restore(&mut policy.nics, &self.nics);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Limits, parse_policy};

    fn policy(text: &str) -> Policy {
        parse_policy(text, "test", &Limits::default()).unwrap().policy
    }

    #[test]
    fn a_delta_leads_back_over_additions_changes_and_removals() {
        let vpcs = "vpcs: [{ name: prod, segment: { untagged: true } }]\n";
        let one = policy(&format!(
            "{vpcs}security_groups: [{{ name: a, rules: [{{ direction: inbound }}] }}, {{ name: b }}]
nics: [{{ name: x, vpc: prod, addresses: [10.0.0.1], security_groups: [a, b] }}, {{ name: y, vpc: prod }}]"
        ));
        let two = policy(&format!(
            "{vpcs}address_groups: [{{ name: o, addresses: [10.9.0.0/16] }}]
security_groups: [{{ name: a }}]
nics: [{{ name: x, vpc: prod, addresses: [10.0.0.2], security_groups: [a] }}, {{ name: z, vpc: prod }}]"
        ));
        let mut back = two.clone();
        Delta::between(&one, &two).revert(&mut back);
        assert_eq!(back, one);
        assert_eq!(Delta::between(&one, &one), Delta::default());
    }
}
