//! The registry as it is written down for the next process, and read again: who holds which place, and since when.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use engine::counters::MAX_NICS;
use engine::{AddrId, Generation, NicSlot};
use serde::{Deserialize, Serialize};

use super::identity::PersistedIdentity as WrittenIdentity;
use super::{Identity, MOST_ADDRESSES, NicNames, Registry, RetiredAddress, RetiredNic};
use crate::model::Key;

/// All of it.
#[derive(Serialize, Deserialize)]
pub struct PersistedRegistry {
    nics: Vec<(Key, WrittenIdentity)>,
    /// Those deleted, the oldest first.
    ended: Vec<(Key, WrittenIdentity)>,
    /// Places of addresses that were taken away, with the NICs' places, the oldest first.
    gone: Vec<(u32, u32)>,
    addresses: Vec<IpAddr>,
    free_addresses: Vec<u32>,
    /// How many places of NICs there have been.
    slots: usize,
}

impl Registry {
    /// What the next process must know of it. Moments are left out: they are counted anew from its start, so that places are kept
    /// longer rather than shorter.
    pub fn to_persisted(&self) -> PersistedRegistry {
        let mut nics: Vec<_> = self.nics.iter().map(|(key, nic)| (key.clone(), nic.to_persisted())).collect();
        nics.sort_by(|(one, _), (other, _)| one.cmp(other));
        PersistedRegistry {
            nics,
            ended: self
                .ended
                .keyed()
                .map(|(key, ended)| (key.clone(), ended.identity.to_persisted()))
                .collect(),
            gone: self.retired_addresses().map(|gone| (gone.id.0, gone.nic.0)).collect(),
            addresses: self.addresses.clone(),
            free_addresses: self.free_addresses.iter().map(|id| id.0).collect(),
            slots: self.names.len(),
        }
    }

    /// What was written, if it makes sense: each place is held once.
    pub fn from_persisted(written: PersistedRegistry, longest_ns: u64) -> Result<Registry, String> {
        let PersistedRegistry { nics, ended, gone, addresses, free_addresses, slots } = written;
        if slots == 0 || slots > MAX_NICS || addresses.len() > MOST_ADDRESSES {
            return Err("it has more places than there are".to_owned());
        }
        let mut registry = Registry::new(longest_ns);
        registry.names = NicNames::from_iter((0..slots).map(|_| None));
        let (mut held, mut ids) = (BTreeSet::new(), HashSet::new());
        let mut hold = |identity: &Identity| {
            let slot = identity.slot.0 as usize;
            slot != 0 && slot < slots && held.insert(slot)
        };
        let mut hold_address = |id: AddrId| id.slot() < addresses.len() && ids.insert(id.slot());
        for (key, written) in nics {
            let identity = Identity::from_persisted(written);
            let is_sound = hold(&identity) && identity.addresses.values().all(|held| hold_address(held.id));
            if !is_sound || registry.nics.contains_key(&key) {
                return Err(format!("{key} holds what another holds"));
            }
            registry.names.set(identity.slot.0 as usize, Some(key.to_string().into()));
            registry.nics.insert(key, identity);
        }
        for (key, written) in ended {
            let identity = Identity::from_persisted(written);
            if !hold(&identity) {
                return Err(format!("{key} holds what another holds"));
            }
            registry.names.set(identity.slot.0 as usize, Some(key.to_string().into()));
            registry.ended.put(key, RetiredNic { identity, since_ns: 0 });
        }
        for (id, nic) in gone {
            let (id, nic) = (AddrId(id), NicSlot(nic));
            if !hold_address(id) || nic.0 as usize >= slots {
                return Err("an address that was taken away has another's place".to_owned());
            }
            registry.gone.put(id, RetiredAddress { id, nic, since_ns: 0 });
        }
        for id in free_addresses {
            if !hold_address(AddrId(id)) {
                return Err("a free place of an address is held".to_owned());
            }
            registry.free_addresses.push(AddrId(id));
        }
        if ids.len() != addresses.len() {
            return Err("a place of an address is lost".to_owned());
        }
        registry.free_nics =
            (1..slots).filter(|slot| !held.contains(slot)).map(|n| NicSlot(n as u32)).collect();
        // Nothing is counted there yet.
        registry.addresses = addresses;
        let mut moved: BTreeMap<Generation, BTreeSet<Key>> = BTreeMap::new();
        for (key, identity) in &registry.nics {
            moved.entry(identity.moved).or_default().insert(key.clone());
        }
        let mut nics: HashMap<Key, Identity> = std::mem::take(&mut registry.nics);
        for (generation, keys) in moved {
            registry.moves.note(generation, &keys, &mut nics);
        }
        registry.nics = nics;
        Ok(registry)
    }
}
