//! Two snapshots side by side. One that was kept up to date change by change must be what one made
//! afresh is; nothing on the way of a packet asks.

use std::collections::{BTreeMap, HashSet};

use super::{Binding, LAST, Members, Membership, NOWHERE, NicRecord, Snapshot, flag};
use crate::AddrId;

impl Snapshot {
    /// The first thing in which workers would read this one otherwise than `afresh`, in words. How
    /// policies are numbered is nothing that they read; and of a place that `afresh` does not know
    /// at all it is enough that nobody has it.
    pub fn difference(&self, afresh: &Snapshot) -> Option<String> {
        let heads = |s: &Snapshot| (s.generation, s.last_ending, s.tunnels, s.policy_nics);
        if heads(self) != heads(afresh) {
            return Some(format!("heads: {:?}, afresh {:?}", heads(self), heads(afresh)));
        }
        let is_same_to_segments = (&self.vlans, &self.vnis, &self.groups.vpcs)
            == (&afresh.vlans, &afresh.vnis, &afresh.groups.vpcs);
        if !is_same_to_segments || self.settings != afresh.settings {
            return Some(format!(
                "settings or VPCs: {:?}, afresh {:?}",
                self.groups.vpcs, afresh.groups.vpcs
            ));
        }
        self.difference_of_nics(afresh)
            .or_else(|| self.difference_of_bindings(afresh))
            .or_else(|| self.difference_of_index(afresh))
            .or_else(|| self.groups.members.difference(&afresh.groups.members))
    }

    fn difference_of_nics(&self, afresh: &Snapshot) -> Option<String> {
        let nobody = NicRecord::empty();
        (0..self.nics.len().max(afresh.nics.len())).find_map(|slot| {
            let record = |s: &'_ Snapshot| s.nics.get(slot).unwrap_or(&nobody).clone();
            let (mine, theirs) = (record(self), record(afresh));
            (mine != theirs).then(|| format!("NIC {slot}: {mine:?}, afresh {theirs:?}"))
        })
    }

    fn difference_of_bindings(&self, afresh: &Snapshot) -> Option<String> {
        let empty = Binding::empty();
        let mut same_policies = HashSet::new();
        (0..self.bindings.len().max(afresh.bindings.len())).find_map(|place| {
            let mine = self.bindings.get(place).unwrap_or(&empty);
            let theirs = afresh.bindings.get(place).unwrap_or(&empty);
            let is_same = if theirs.id == empty.id { mine.is_gone() } else { facts(mine) == facts(theirs) };
            if !is_same || self.id_behind(mine) != afresh.id_behind(theirs) {
                return Some(format!("place {place}: {mine:?}, afresh {theirs:?}"));
            }
            // Many NICs share a policy.
            if mine.is_gone() || !same_policies.insert((mine.policy, theirs.policy)) {
                return None;
            }
            (self.policy(mine) != afresh.policy(theirs)).then(|| format!("place {place}: other rules"))
        })
    }

    /// The next holder of the same address.
    fn id_behind(&self, binding: &Binding) -> Option<AddrId> {
        self.bindings.get(binding.next() as usize).map(|next| next.id)
    }

    fn difference_of_index(&self, afresh: &Snapshot) -> Option<String> {
        let firsts = |s: &Snapshot| -> BTreeMap<_, _> {
            let places = s.address_index.slots.iter().filter(|place| **place != NOWHERE);
            let bindings = places.map(|place| &s.bindings[*place as usize]);
            bindings.map(|b| ((b.vpc, b.addr, b.is_v6()), b.id)).collect()
        };
        let (mine, theirs) = (firsts(self), firsts(afresh));
        if mine != theirs {
            return Some(format!("addresses: {mine:?}, afresh {theirs:?}"));
        }
        let lost = mine.iter().find(|((vpc, addr, v6), id)| {
            self.lookup(*vpc, *addr, *v6).is_none_or(|binding| binding.id != **id)
        });
        lost.map(|(address, id)| format!("address {address:?} of {id:?} is not found"))
    }
}

/// All that a binding says but what only its own snapshot understands.
fn facts(b: &Binding) -> impl PartialEq + use<> {
    (
        (b.addr, b.mac, b.unique_key, b.id, b.vpc),
        (b.nic, b.flush, b.rejudge, b.flags & !(LAST << flag::NEXT), b.filter),
    )
}

impl Members {
    fn difference(&self, afresh: &Members) -> Option<String> {
        let sorted = |members: &Members| -> BTreeMap<(u128, bool), Vec<_>> {
            let each = |(address, memberships): (&(u128, bool), &Vec<Membership>)| {
                let mut memberships: Vec<_> = memberships.iter().map(|m| (m.vpc, m.groups.clone())).collect();
                memberships.sort_unstable();
                (*address, memberships)
            };
            members.iter().map(each).collect()
        };
        let (mine, theirs) = (sorted(self), sorted(afresh));
        (mine != theirs).then(|| format!("members: {mine:?}, afresh {theirs:?}"))
    }
}
