//! Builds the next snapshot: the present one, changed where it differs.

use crate::groups::Groups;
use std::collections::HashMap;
use std::sync::Arc;

use super::{
    AddressIndex, AddressKey, Binding, LAST, Members, NOT_UNIQUE, NOWHERE, NewBinding, NicRecord, Settings,
    Snapshot, VpcRecord, filter_bit, flag, unique_key_v4,
};
use crate::classify::Policy;
use crate::{AddrId, Generation, NicSlot, PolicyId, SegmentKey, VpcId};

/// The tables of a snapshot, kept up to date by the control side. A commit costs what it changes,
/// and a copy of a few flat tables.
#[derive(Clone)]
pub struct SnapshotBuilder {
    snapshot: Snapshot,
    key: AddressKey,
    /// An address was bound or unbound since the index was built.
    is_index_stale: bool,
    /// Policies with staged rules.
    staged: usize,
}

impl SnapshotBuilder {
    /// An empty policy without VPCs. Addresses are hashed by `key`.
    pub fn new(settings: Settings, key: AddressKey) -> SnapshotBuilder {
        let snapshot = Snapshot {
            generation: Generation(0),
            last_ending: Generation(0),
            settings,
            tunnels: false,
            has_staged: false,
            policy_nics: 0,
            vlans: vec![NOWHERE; 4096].into_boxed_slice(),
            vnis: super::HashMap::default(),
            address_index: AddressIndex::empty(key),
            bindings: Vec::new(),
            nics: vec![NicRecord::empty()],
            policies: Vec::new(),
            groups: Groups::default(),
        };
        SnapshotBuilder { snapshot, key, is_index_stale: false, staged: 0 }
    }

    /// The key it was made with.
    pub fn key(&self) -> AddressKey {
        self.key
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &Settings {
        &self.snapshot.settings
    }

    /// Replaces all VPCs, each with its segment and its peers.
    pub fn vpcs(&mut self, vpcs: impl IntoIterator<Item = (VpcId, SegmentKey, Vec<VpcId>)>) {
        let s = &mut self.snapshot;
        s.vlans.fill(NOWHERE);
        s.vnis.clear();
        s.groups.vpcs.clear();
        s.tunnels = false;
        for (id, segment, mut reach) in vpcs {
            if s.groups.vpcs.len() <= id.0 as usize {
                s.groups.vpcs.resize_with(id.0 as usize + 1, VpcRecord::default);
            }
            reach.push(id);
            reach.sort_unstable();
            s.groups.vpcs[id.0 as usize] = VpcRecord { reach };
            if segment.is_vni() {
                s.tunnels = true;
                s.vnis.insert(segment.0, id);
            } else {
                s.vlans[segment.0 as usize] = id.0;
            }
        }
    }

    /// Sets the policy of a number. Numbers are dense.
    pub fn policy(&mut self, id: PolicyId, policy: Arc<Policy>) {
        let policies = &mut self.snapshot.policies;
        self.staged += usize::from(policy.staged().is_some());
        match policies.get_mut(id.0 as usize) {
            Some(place) => {
                self.staged -= usize::from(place.staged().is_some());
                *place = policy;
            }
            None => policies.push(policy),
        }
        self.snapshot.has_staged = self.staged > 0;
    }

    /// Sets a NIC's record.
    pub fn nic(&mut self, slot: NicSlot, record: NicRecord) {
        let nics = &mut self.snapshot.nics;
        if nics.len() <= slot.0 as usize {
            nics.resize_with(slot.0 as usize + 1, NicRecord::empty);
        }
        let place = &mut nics[slot.0 as usize];
        self.snapshot.policy_nics += u32::from(record.is_in_use());
        self.snapshot.policy_nics -= u32::from(place.is_in_use());
        *place = record;
    }

    fn place(&mut self, id: AddrId) -> &mut Binding {
        let bindings = &mut self.snapshot.bindings;
        if bindings.len() <= id.slot() {
            bindings.resize_with(id.slot() + 1, Binding::empty);
        }
        &mut bindings[id.slot()]
    }

    /// Binds an address to a NIC, whose record is set already.
    pub fn bind(&mut self, new: NewBinding) {
        let record = self.snapshot.nic(new.nic);
        let (vpc, nic_mac) = (record.vpc, record.mac);
        let (observe, limited) = (record.observe, record.max_connections != u32::MAX);
        let rolled_back = !record.rollbacks.is_empty();
        let flags = [
            (new.v6, flag::V6),
            (observe, flag::OBSERVE),
            (new.allowed, flag::ALLOWED),
            (limited, flag::LIMITED),
            (rolled_back, flag::ROLLED_BACK),
        ]
        .into_iter()
        .fold(0, |all, (on, bit)| if on { all | bit } else { all });
        let place = self.place(new.id);
        let is_there = place.id == new.id
            && !place.is_gone()
            && (place.vpc, place.addr, place.is_allowed()) == (vpc, new.addr, new.allowed);
        // What depends on all addresses and not on this binding alone is set with the index.
        let (next, sole, filter) =
            if is_there { (place.next(), place.unique_key, place.filter) } else { (LAST, NOT_UNIQUE, 0) };
        *place = Binding {
            addr: new.addr,
            mac: new.mac.unwrap_or(nic_mac),
            unique_key: sole,
            id: new.id,
            vpc,
            nic: new.nic,
            flush: new.flush,
            rejudge: new.rejudge,
            policy: new.policy,
            flags: flags | next << flag::NEXT,
            filter,
        };
        self.is_index_stale |= !is_there;
    }

    /// Unbinds an address from a NIC: connections of it may still be in the tables.
    pub fn unbind(&mut self, id: AddrId, nic: NicSlot) {
        *self.place(id) = Binding { id, nic, ..Binding::empty() };
        self.is_index_stale = true;
    }

    /// The group memberships of all addresses.
    pub fn members(&mut self) -> &mut Members {
        &mut self.snapshot.groups.members
    }

    /// Builds a generation's snapshot. `last_ending` is the last generation that ended connections:
    /// workers that have adopted it need not sweep again. `order` yields every bound address, those
    /// that share one in the order in which they are tried.
    pub fn build(
        &mut self,
        generation: Generation,
        last_ending: Generation,
        order: impl FnOnce() -> Vec<AddrId>,
    ) -> Snapshot {
        if self.is_index_stale {
            self.index(&order());
            self.is_index_stale = false;
        }
        (self.snapshot.generation, self.snapshot.last_ending) = (generation, last_ending);
        self.snapshot.clone()
    }

    fn index(&mut self, order: &[AddrId]) {
        let s = &mut self.snapshot;
        let mut filters = vec![0; s.nics.len()];
        for id in order {
            let b = &mut s.bindings[id.slot()];
            b.set_next(LAST);
            filters[b.nic.0 as usize] |= 1 << filter_bit(b.addr);
        }
        // The first binding of every address, and the others of a shared one in their order.
        let mut firsts: Vec<(VpcId, u128, bool, u32)> = Vec::with_capacity(order.len());
        let mut ends: HashMap<(VpcId, u128, bool), (u32, u32), ahash::RandomState> =
            HashMap::with_capacity_and_hasher(order.len(), Default::default());
        for id in order {
            let place = id.slot() as u32;
            let b = &mut s.bindings[id.slot()];
            b.filter = filters[b.nic.0 as usize];
            b.unique_key = if b.is_v6() { NOT_UNIQUE } else { unique_key_v4(b.vpc, b.addr as u32) };
            let address = (b.vpc, b.addr, b.is_v6());
            let Some((first, last)) = ends.get_mut(&address) else {
                ends.insert(address, (place, place));
                firsts.push((address.0, address.1, address.2, place));
                continue;
            };
            s.bindings[*last as usize].set_next(place);
            for shared in [*first, place] {
                s.bindings[shared as usize].unique_key = NOT_UNIQUE;
            }
            *last = place;
        }
        s.address_index = AddressIndex::of(&firsts, self.key);
    }
}
