//! The snapshot builder, kept up to date: each commit changes what it touches, and publishes a
//! copy.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use engine::snapshot::{
    ANY_MAC, AddressKey, Membership, NewBinding, NicRecord, Settings, Snapshot, SnapshotBuilder,
};
use engine::{AddrId, Generation, NicSlot, PolicyId, SegmentKey, VpcId, addr_bits};

use crate::compile::{Compiler, engine_settings};
use crate::config::Config;
use crate::delta::Delta;
use crate::index::Index;
use crate::model::{Key, Mac, Mode, Nic, Policy, Remote, Segment};
use crate::registry::{Identity, Registry};

fn mac_number(mac: Mac) -> u64 {
    engine::packet::mac_bits(mac.bytes())
}

/// The compiled policy of one ordered list of groups, shared by the NICs that have this list.
#[derive(Clone)]
struct SharedPolicy {
    id: PolicyId,
    users: usize,
}

/// What the builder holds for a NIC.
#[derive(Clone)]
struct InstalledNic {
    slot: NicSlot,
    addresses: Vec<InstalledAddress>,
    membership: Membership,
    groups: Vec<Key>,
}

/// An address of an installed NIC.
#[derive(Clone, Copy)]
struct InstalledAddress {
    id: AddrId,
    address: IpAddr,
    is_allowed: bool,
}

/// The engine's snapshot builder, with what is installed in it.
#[derive(Clone)]
pub(crate) struct IncrementalCompiler {
    builder: SnapshotBuilder,
    default_mode: Mode,
    lists: HashMap<Vec<Key>, SharedPolicy>,
    /// Lists by the groups in them.
    lists_of: HashMap<Key, HashSet<Vec<Key>>>,
    free: Vec<PolicyId>,
    policies: u32,
    nics: HashMap<Key, InstalledNic>,
}

/// What a commit gives to the incremental compiler.
pub(crate) struct Change<'c> {
    pub policy: &'c Policy,
    pub delta: &'c Delta,
    pub index: &'c Index,
    pub generation: Generation,
    pub last_ending: Generation,
}

impl IncrementalCompiler {
    /// Of the empty policy; addresses are hashed by `key`.
    pub fn new(config: &Config, key: AddressKey) -> IncrementalCompiler {
        IncrementalCompiler::with(engine_settings(config), config.policy.mode, key)
    }

    fn with(settings: Settings, default_mode: Mode, key: AddressKey) -> IncrementalCompiler {
        IncrementalCompiler {
            builder: SnapshotBuilder::new(settings, key),
            default_mode,
            lists: HashMap::new(),
            lists_of: HashMap::new(),
            free: Vec::new(),
            policies: 0,
            nics: HashMap::new(),
        }
    }

    /// The key that addresses are hashed by.
    pub fn key(&self) -> AddressKey {
        self.builder.key()
    }

    /// The snapshot of the empty policy.
    pub fn initial(&self) -> Snapshot {
        self.builder.clone().build(Generation(0), Generation(0), Vec::new)
    }

    /// Applies a commit to the builder; returns the snapshot to publish.
    pub fn update(
        &mut self,
        change: &Change<'_>,
        compiler: &mut Compiler,
        registry: &mut Registry,
    ) -> Snapshot {
        let Change { policy, delta, .. } = change;
        if !delta.vpcs.is_empty() {
            self.set_vpcs(policy, compiler);
        }
        self.recompile(change, compiler);
        // A NIC's identity may change while its document stays the same, and its document while its
        // identity does.
        let mut keys = registry.take_moved(change.generation);
        keys.extend(delta.nics.iter().map(|(key, _)| key.clone()));
        self.reinstall_nics(&keys, policy, compiler, registry);
        compiler.forget_gone();
        let snapshot = self.build(change);
        #[cfg(debug_assertions)]
        {
            let rebuilt = self.rebuild(change, compiler, registry);
            assert_eq!(snapshot.difference(&rebuilt), None, "a snapshot kept up to date, and one rebuilt");
        }
        snapshot
    }

    /// The result that [`IncrementalCompiler::update`] must have, built from the policy and the
    /// registry alone.
    #[cfg(debug_assertions)]
    fn rebuild(&self, change: &Change<'_>, compiler: &Compiler, registry: &Registry) -> Snapshot {
        let mut fresh =
            IncrementalCompiler::with(self.builder.settings().clone(), self.default_mode, self.builder.key());
        fresh.build_all(change, &mut compiler.without_memory(), registry)
    }

    /// Builds everything, in an empty builder.
    pub fn build_all(
        &mut self,
        change: &Change<'_>,
        compiler: &mut Compiler,
        registry: &Registry,
    ) -> Snapshot {
        self.set_vpcs(change.policy, compiler);
        for gone in registry.retired_addresses() {
            self.builder.unbind(gone.id, gone.nic);
        }
        let keys: BTreeSet<Key> = change.policy.nics.keys().cloned().collect();
        self.reinstall_nics(&keys, change.policy, compiler, registry);
        self.build(change)
    }

    fn build(&mut self, change: &Change<'_>) -> Snapshot {
        let nics = &self.nics;
        self.builder.build(change.generation, change.last_ending, || binding_order(nics))
    }

    fn set_vpcs(&mut self, policy: &Policy, compiler: &mut Compiler) {
        let vpcs: Vec<(VpcId, SegmentKey, Vec<VpcId>)> = policy
            .vpcs
            .iter()
            .map(|(name, vpc)| {
                let segment = match vpc.segment {
                    Segment::Untagged => SegmentKey::UNTAGGED,
                    Segment::Vlan(vlan) => SegmentKey::vlan(vlan),
                    Segment::Vni(vni) => SegmentKey::vni(vni),
                };
                let reach = vpc.peers.iter().map(|peer| compiler.vpc(peer)).collect();
                (compiler.vpc(name), segment, reach)
            })
            .collect();
        self.builder.vpcs(vpcs);
    }

    /// Compiles the policies of lists with a group whose rules, or the address groups these name,
    /// have changed.
    fn recompile(&mut self, change: &Change<'_>, compiler: &mut Compiler) {
        let Change { policy, delta, index, .. } = change;
        let mut changed: BTreeSet<&Key> = delta.security_groups.iter().map(|(key, _)| key).collect();
        let lists = delta.address_groups.iter().map(|(key, _)| Remote::AddressGroup(key.clone()));
        changed.extend(lists.flat_map(|list| index.referrers(&list)));
        changed.iter().for_each(|key| compiler.forget(key));
        let lists: BTreeSet<&Vec<Key>> =
            changed.iter().filter_map(|key| self.lists_of.get(*key)).flatten().collect();
        let lists = Vec::from_iter(lists);
        for (list, compiled) in lists.iter().zip(compiler.policies(&lists, policy)) {
            self.builder.policy(self.lists[*list].id, compiled);
        }
    }

    /// Removes these NICs and installs them as they are now. Removes every NIC before inserting
    /// any: an address slot may move between NICs in one commit.
    fn reinstall_nics(
        &mut self,
        keys: &BTreeSet<Key>,
        policy: &Policy,
        compiler: &mut Compiler,
        registry: &Registry,
    ) {
        let removed: Vec<InstalledNic> =
            keys.iter().filter_map(|key| self.remove_nic(key, registry.nic(key))).collect();
        let inserted: Vec<(&Key, &Nic, &Identity)> =
            keys.iter().filter_map(|key| Some((key, &**policy.nics.get(key)?, registry.nic(key)?))).collect();
        let lists: BTreeSet<&Vec<Key>> = inserted.iter().map(|(_, nic, _)| &nic.security_groups).collect();
        self.compile_new_lists(lists, policy, compiler);
        for (key, nic, identity) in inserted {
            let installed = self.insert_nic(nic, identity, compiler);
            self.nics.insert(key.clone(), installed);
        }
        // After the new lists have their users, so that a list which stays is not compiled again.
        for InstalledNic { groups, .. } in &removed {
            self.remove_user(groups);
        }
    }

    /// Removes a NIC. What `now` still has stays in its slot until the NIC is inserted again.
    fn remove_nic(&mut self, key: &Key, now: Option<&Identity>) -> Option<InstalledNic> {
        let installed = self.nics.remove(key)?;
        if now.is_none_or(|now| now.slot != installed.slot) {
            self.builder.nic(installed.slot, NicRecord::empty());
        }
        for InstalledAddress { id, address, .. } in &installed.addresses {
            let (addr, v6) = addr_bits(*address);
            self.builder.members().remove(addr, v6, &installed.membership);
            if now.and_then(|now| now.addresses.get(address)).is_none_or(|place| place.id != *id) {
                self.builder.unbind(*id, installed.slot);
            }
        }
        Some(installed)
    }

    fn insert_nic(&mut self, nic: &Nic, identity: &Identity, compiler: &mut Compiler) -> InstalledNic {
        let vpc = compiler.vpc(&nic.vpc);
        let record = NicRecord {
            vpc,
            mac: nic.mac.map_or(ANY_MAC, mac_number),
            entry_macs: entry_macs(nic),
            max_connections: nic.max_connections.unwrap_or(u32::MAX),
            observe: nic.mode.unwrap_or(self.default_mode) == Mode::Observe,
            rollbacks: identity.rollbacks(),
        };
        self.builder.nic(identity.slot, record);
        let policy = self.add_user(&nic.security_groups);
        let groups = nic.security_groups.iter().map(|group| compiler.group(group)).collect();
        let membership = Membership { vpc, groups };
        let mut addresses = Vec::with_capacity(identity.addresses.len());
        for (address, place) in &identity.addresses {
            let (addr, v6) = addr_bits(*address);
            let binding = NewBinding {
                id: place.id,
                addr,
                v6,
                allowed: !nic.addresses.contains(address),
                mac: mac_of(nic, address),
                nic: identity.slot,
                flush: identity.flush(),
                rejudge: identity.rejudge,
                policy,
            };
            self.builder.bind(binding);
            self.builder.members().add(addr, v6, membership.clone());
            addresses.push(InstalledAddress { id: place.id, address: *address, is_allowed: binding.allowed });
        }
        InstalledNic { slot: identity.slot, addresses, membership, groups: nic.security_groups.clone() }
    }

    /// Compiles the new ones of these lists, all at once. They have no users yet.
    fn compile_new_lists(
        &mut self,
        mut lists: BTreeSet<&Vec<Key>>,
        policy: &Policy,
        compiler: &mut Compiler,
    ) {
        lists.retain(|list| !self.lists.contains_key(*list));
        let lists = Vec::from_iter(lists);
        for (groups, compiled) in lists.iter().zip(compiler.policies(&lists, policy)) {
            let id = self.free.pop().unwrap_or_else(|| {
                self.policies += 1;
                PolicyId(self.policies - 1)
            });
            self.builder.policy(id, compiled);
            self.lists.insert((*groups).clone(), SharedPolicy { id, users: 0 });
            for group in *groups {
                self.lists_of.entry(group.clone()).or_default().insert((*groups).clone());
            }
        }
    }

    /// Adds a user to a list that is compiled.
    fn add_user(&mut self, groups: &Vec<Key>) -> PolicyId {
        let list = self.lists.get_mut(groups).expect("every list is removed up before it is joined");
        list.users += 1;
        list.id
    }

    fn remove_user(&mut self, groups: &Vec<Key>) {
        let Some(list) = self.lists.get_mut(groups) else { return };
        list.users -= 1;
        if list.users > 0 {
            return;
        }
        self.free.push(list.id);
        self.lists.remove(groups);
        for group in groups {
            if let Some(lists) = self.lists_of.get_mut(group) {
                lists.remove(groups);
                if lists.is_empty() {
                    self.lists_of.remove(group);
                }
            }
        }
    }
}

/// The MAC of an address's entry, if it has precedence over the NIC's: for a fixed address it is a
/// second one.
fn mac_of(nic: &Nic, address: &IpAddr) -> Option<u64> {
    if nic.mac.is_some() && nic.addresses.contains(address) {
        return None;
    }
    let entry = nic.allowed_addresses.iter().find(|entry| entry.address == *address);
    entry.and_then(|entry| entry.mac).map(mac_number)
}

fn entry_macs(nic: &Nic) -> Vec<(u64, u128, bool)> {
    let entries = nic.allowed_addresses.iter().filter_map(|entry| {
        let (addr, v6) = addr_bits(entry.address);
        Some((mac_number(entry.mac?), addr, v6))
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort_unstable();
    entries
}

/// Every address: those that several NICs may have in the order of the NICs' names (semantics 2.5),
/// the others in the order of their slots. Two builds of one policy have the same layout, and so
/// the same cost.
fn binding_order(nics: &HashMap<Key, InstalledNic>) -> Vec<AddrId> {
    let mut order = Vec::with_capacity(nics.len());
    let mut shared = Vec::new();
    for (key, installed) in nics {
        for InstalledAddress { id, is_allowed, .. } in &installed.addresses {
            if *is_allowed { shared.push((key, *id)) } else { order.push(*id) }
        }
    }
    order.sort_unstable_by_key(|id| id.slot());
    shared.sort_unstable();
    order.extend(shared.into_iter().map(|(_, id)| id));
    order
}
