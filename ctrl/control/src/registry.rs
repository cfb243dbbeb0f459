//! Who holds which place in the engine's tables, and since when: NICs, their addresses, their flush epochs.
//!
//! A place that is given back is not handed out again before every connection that may still name it has run out. Until
//! then a rollback may bring its holder back, with the connections that it had (semantics 5.7).

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use engine::{AddrId, Generation, NicSlot};

use crate::model::Key;

mod identity;
mod nic_changes;
mod persisted;
mod retired;
mod slots;

pub use identity::{Address, Identity};
use nic_changes::NicChanges;
pub use persisted::PersistedRegistry;
use retired::{RetiredAt, RetiredStore};
pub use slots::{MOST_ADDRESSES, MOST_NICS, OutOfSlots, SlotCount};

/// An address that was taken away, whose connections may still lie in the tables.
#[derive(Clone, Copy, Debug)]
pub struct RetiredAddress {
    /// Which it was.
    pub id: AddrId,
    /// Whose it was.
    pub nic: NicSlot,
    since_ns: u64,
}

/// A NIC that was deleted, whose connections may still lie in the tables.
#[derive(Clone)]
struct RetiredNic {
    identity: Identity,
    since_ns: u64,
}

/// NICs' names by [`NicSlot`]: a copy costs nothing.
pub type NicNames = imbl::Vector<Option<Arc<str>>>;

/// All of them.
#[derive(Clone)]
pub struct Registry {
    /// NICs of the present generation. Whatever writes to one notes it in `moved`.
    nics: HashMap<Key, Identity>,
    /// NICs that are not what they were when [`Registry::take_moved`] was last asked: come, gone, another of the same name, with
    /// other places for their addresses or other epochs.
    moved: BTreeSet<Key>,
    /// NICs that were so at earlier generations, the newest last.
    moves: NicChanges,
    /// Names by place, of NICs there and gone.
    pub names: NicNames,
    /// Addresses by place, of those there and gone.
    pub addresses: Vec<IpAddr>,
    gone: RetiredStore<AddrId, RetiredAddress>,
    ended: RetiredStore<Key, RetiredNic>,
    taken: SlotCount,
    free_addresses: Vec<AddrId>,
    free_nics: Vec<NicSlot>,
    /// Places of NICs that were given out again and not asked for since.
    reused: Vec<NicSlot>,
    /// How long a connection can outlive the last change that touched it.
    longest_ns: u64,
}

impl Registry {
    /// Empty; connections live at most `longest_ns` without a packet.
    pub fn new(longest_ns: u64) -> Registry {
        Registry {
            nics: HashMap::new(),
            moved: BTreeSet::new(),
            moves: NicChanges::default(),
            names: NicNames::unit(None),
            addresses: Vec::new(),
            gone: RetiredStore::new(),
            ended: RetiredStore::new(),
            taken: SlotCount::default(),
            free_addresses: Vec::new(),
            free_nics: Vec::new(),
            reused: Vec::new(),
            longest_ns,
        }
    }

    /// A NIC.
    pub fn nic(&self, key: &Key) -> Option<&Identity> {
        self.nics.get(key)
    }

    /// NICs of the present generation, in no order.
    pub fn nics(&self) -> impl Iterator<Item = (&Key, &Identity)> {
        self.nics.iter()
    }

    /// A NIC that is to become another: the engine will be told of it.
    pub fn nic_mut(&mut self, key: &Key) -> Option<&mut Identity> {
        let identity = self.nics.get_mut(key)?;
        self.moved.insert(key.clone());
        Some(identity)
    }

    /// NICs that the engine is to be told of since this was last asked, which `generation` did it to.
    pub fn take_moved(&mut self, generation: Generation) -> BTreeSet<Key> {
        let moved = std::mem::take(&mut self.moved);
        self.moves.note(generation, &moved, &mut self.nics);
        moved
    }

    /// Places of NICs that were given out again since this was last asked: what was counted there is not their new holders'.
    pub fn take_reused(&mut self) -> Vec<NicSlot> {
        std::mem::take(&mut self.reused)
    }

    /// NICs of which anything is not what it was at generation `to`. All others there are the same, with the same addresses in the
    /// same places and the same epochs.
    pub fn moved_since(&self, to: Generation) -> BTreeSet<Key> {
        self.moves.since(to).chain(&self.moved).cloned().collect()
    }

    /// Addresses that were taken away, whose connections may still lie in the tables.
    pub fn retired_addresses(&self) -> impl Iterator<Item = &RetiredAddress> {
        self.gone.iter().map(|(_, gone)| gone)
    }

    /// A new NIC, created by `generation`. A place was admitted for it.
    pub fn create(&mut self, key: &Key, generation: Generation) -> &mut Identity {
        let slot = self.take_nic();
        self.names[slot.0 as usize] = Some(key.to_string().into());
        self.moved.insert(key.clone());
        self.nics.entry(key.clone()).insert_entry(Identity::new(slot, generation)).into_mut()
    }

    /// Ends a NIC with all its addresses.
    pub fn delete(&mut self, key: &Key, generation: Generation, now_ns: u64) {
        let Some(mut identity) = self.nics.remove(key) else { return };
        self.moved.insert(key.clone());
        let (nic, ids) = (identity.slot, identity.end(generation));
        ids.into_iter().for_each(|id| self.gone.put(id, RetiredAddress { id, nic, since_ns: now_ns }));
        self.ended.put(key.clone(), RetiredNic { identity, since_ns: now_ns });
    }

    /// Gives a NIC exactly these addresses; what it keeps stays what it was. With `back_to`, an address that was the
    /// NIC's at that generation is that one again, where connections of it may be left. True if one was taken away or
    /// brought back. Places were admitted for those that are new.
    pub fn set_addresses(
        &mut self,
        key: &Key,
        addresses: &[IpAddr],
        back_to: Option<Generation>,
        (generation, now_ns): (Generation, u64),
    ) -> bool {
        // Put in again at the end: places are taken meanwhile.
        let Some(mut identity) = self.nics.remove(key) else { return false };
        let wanted: BTreeSet<&IpAddr> = addresses.iter().collect();
        let before: Vec<IpAddr> = identity.addresses.keys().copied().collect();
        let (mut moved, mut is_other) = (false, false);
        for address in before {
            if wanted.contains(&address) && self.former_address(&identity, &address, back_to).is_none() {
                continue;
            }
            if let Some(id) = identity.remove_address(address, generation) {
                (moved, is_other) = (true, true);
                self.gone.put(id, RetiredAddress { id, nic: identity.slot, since_ns: now_ns });
            }
        }
        for address in addresses {
            if identity.addresses.contains_key(address) {
                continue;
            }
            let returned = self.former_address(&identity, address, back_to);
            let id = match returned.and_then(|spot| self.gone.take(spot)) {
                Some(gone) => {
                    moved = true;
                    gone.id
                }
                None => self.take_address(),
            };
            self.addresses[id.slot()] = *address;
            is_other = true;
            identity.addresses.insert(*address, Address { id, since: generation });
        }
        identity.trim();
        self.nics.insert(key.clone(), identity);
        if is_other {
            self.moved.insert(key.clone());
        }
        moved
    }

    /// Where the former self of an address lies, which a rollback gives back to its NIC.
    fn former_address(
        &self,
        identity: &Identity,
        address: &IpAddr,
        back_to: Option<Generation>,
    ) -> Option<RetiredAt> {
        let id = identity.past_id(*address, back_to?)?;
        // Who had the place later may have the same number: it counts to 4,096.
        self.gone.by_key(&id).find(|(_, gone)| gone.nic == identity.slot).map(|(spot, _)| spot)
    }

    /// The places that [`Registry::set_addresses`] takes for a NIC that is to be who it is, or who `back_to` brings back; with
    /// `is_new`, for one that is created.
    pub fn slots_needed(
        &self,
        key: &Key,
        addresses: impl Iterator<Item = IpAddr>,
        back_to: Option<Generation>,
        is_new: bool,
    ) -> SlotCount {
        let addresses: BTreeSet<IpAddr> = addresses.collect();
        let former = back_to.and_then(|to| self.former(key, to)).map(|(_, ended)| &ended.identity);
        let identity = former.or_else(|| self.nic(key).filter(|_| !is_new));
        let Some(identity) = identity else { return SlotCount { nics: 1, addresses: addresses.len() } };
        let is_wanted = |address: &&IpAddr| {
            !identity.addresses.contains_key(address)
                && self.former_address(identity, address, back_to).is_none()
        };
        SlotCount { nics: 0, addresses: addresses.iter().filter(is_wanted).count() }
    }

    /// Makes the NIC that had this name at generation `to` the one that has it again, if connections of it may be left.
    /// True if it is another than has it now.
    pub fn restore_nic(&mut self, key: &Key, to: Generation, generation: Generation, now_ns: u64) -> bool {
        let Some((spot, _)) = self.former(key, to) else { return false };
        self.delete(key, generation, now_ns);
        let Some(RetiredNic { mut identity, .. }) = self.ended.take(spot) else { return false };
        identity.begin(generation);
        self.moved.insert(key.clone());
        self.nics.insert(key.clone(), identity);
        true
    }

    /// Takes back what changes after `to` did to the connections of a NIC.
    pub fn roll_back(&mut self, key: &Key, to: Generation, by: Generation, now_ns: u64) {
        let oldest_ns = now_ns.saturating_sub(2 * self.longest_ns);
        if let Some(identity) = self.nic_mut(key) {
            identity.forget_before(oldest_ns);
            identity.roll_back(to, by, now_ns);
        }
    }

    /// The same for NICs that are not there: a later rollback may bring them back.
    pub fn roll_back_ended(&mut self, to: Generation, by: Generation, now_ns: u64) {
        for RetiredNic { identity, .. } in
            self.ended.iter_mut().filter(|ended| ended.identity.touched_since(to))
        {
            identity.roll_back(to, by, now_ns);
        }
    }

    /// The NIC among those deleted that had this name at generation `to` and does not have it now.
    fn former(&self, key: &Key, to: Generation) -> Option<(RetiredAt, &RetiredNic)> {
        if self.nics.get(key).is_some_and(|present| present.was_there(to)) {
            return None;
        }
        self.ended.by_key(key).find(|(_, ended)| ended.identity.was_there(to))
    }

    /// True if [`Registry::restore_nic`] would bring a deleted NIC back.
    pub fn can_restore_nic(&self, key: &Key, to: Generation) -> bool {
        self.former(key, to).is_some()
    }

    /// A NIC's name by its place.
    pub fn name(&self, slot: NicSlot) -> Option<Arc<str>> {
        self.names.get(slot.0 as usize).cloned().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Things looked at on the way back of so many NICs that were deleted.
    fn looked_at_to_bring_back(count: usize) -> usize {
        let mut registry = Registry::new(1);
        let keys: Vec<Key> = (0..count).map(|n| Key::new("p", format!("n{n}"))).collect();
        let address = |n: usize| IpAddr::from((n as u32).to_be_bytes());
        for (n, key) in keys.iter().enumerate() {
            registry.create(key, Generation(1));
            registry.set_addresses(key, &[address(n)], None, (Generation(1), 0));
        }
        keys.iter().for_each(|key| registry.delete(key, Generation(2), 0));
        retired::LOOKED_AT.set(0);
        for (n, key) in keys.iter().enumerate() {
            assert!(registry.can_restore_nic(key, Generation(1)));
            let address = [address(n)];
            let wanted = registry.slots_needed(key, address.into_iter(), Some(Generation(1)), true);
            assert_eq!(wanted, SlotCount::default());
            assert!(registry.restore_nic(key, Generation(1), Generation(3), 0));
            assert!(registry.set_addresses(key, &address, Some(Generation(1)), (Generation(3), 0)));
        }
        assert_eq!((registry.ended.len(), registry.gone.len()), (0, 0));
        retired::LOOKED_AT.get()
    }

    #[test]
    fn bringing_back_takes_steps_by_the_nic() {
        let few = looked_at_to_bring_back(100);
        assert_eq!(looked_at_to_bring_back(1000), 10 * few);
    }
}
