//! Who holds which place in the engine's tables, and since when: NICs, their addresses, their flush epochs.
//!
//! A place that is given back is not handed out again before every connection that may still name it has run out. Until
//! then a rollback may bring its holder back, with the connections that it had (semantics 5.7).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use engine::cells::MAX_NICS;
use engine::{AddrId, Generation, NicSlot};

use crate::model::Key;

mod identity;
mod moves;

pub use identity::{Address, Identity};
use moves::Moves;

/// An address that was taken away, whose connections may still lie in the tables.
#[derive(Clone, Copy, Debug)]
pub struct Gone {
    /// Which it was.
    pub id: AddrId,
    /// Whose it was.
    pub nic: NicSlot,
    since_ns: u64,
}

/// A NIC that was deleted, whose connections may still lie in the tables.
#[derive(Clone)]
struct Ended {
    key: Key,
    identity: Identity,
    since_ns: u64,
}

/// All of them.
#[derive(Clone)]
pub struct Registry {
    /// NICs of the present generation. Whatever writes to one notes it in `moved`.
    nics: HashMap<Key, Identity>,
    /// NICs that are not what they were when [`Registry::take_moved`] was last asked: come, gone, another of the same name, with
    /// other places for their addresses or other epochs.
    moved: BTreeSet<Key>,
    /// NICs that were so at earlier generations, the newest last.
    moves: Moves,
    /// Names by place, of NICs there and gone.
    pub names: Vec<Option<Arc<str>>>,
    /// Addresses by place, of those there and gone.
    pub addresses: Vec<IpAddr>,
    gone: VecDeque<Gone>,
    ended: VecDeque<Ended>,
    free_addresses: Vec<AddrId>,
    free_nics: Vec<NicSlot>,
    /// Places of NICs that were given out again and not asked for since.
    reused: Vec<NicSlot>,
    /// How long a connection can outlive the last change that touched it.
    longest_ns: u64,
}

/// No place is left for another NIC or address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "too many NICs or addresses; allowed: {} NICs, {} addresses",
            MAX_NICS - 1,
            (1 << AddrId::SLOT_BITS) - 1
        )
    }
}

impl std::error::Error for Exhausted {}

impl Registry {
    /// Empty; connections live at most `longest_ns` without a packet.
    pub fn new(longest_ns: u64) -> Registry {
        Registry {
            nics: HashMap::new(),
            moved: BTreeSet::new(),
            moves: Moves::default(),
            names: vec![None],
            addresses: Vec::new(),
            gone: VecDeque::new(),
            ended: VecDeque::new(),
            free_addresses: Vec::new(),
            free_nics: Vec::new(),
            reused: Vec::new(),
            longest_ns,
        }
    }

    /// True if no connection can be left of what was so at `since_ns` and is not any more. Twice the longest timeout:
    /// workers find what has expired a little later.
    fn is_over(&self, since_ns: u64, now_ns: u64) -> bool {
        now_ns.saturating_sub(since_ns) > 2 * self.longest_ns
    }

    /// Gives back the places whose last connection has run out by `now_ns`, and forgets whom no
    /// connection minds any more.
    pub fn recycle(&mut self, now_ns: u64) {
        while let Some(gone) = self.gone.front().copied().filter(|gone| self.is_over(gone.since_ns, now_ns)) {
            let (slot, incarnation) = (gone.id.slot() as u32, gone.id.0 >> AddrId::SLOT_BITS);
            self.free_addresses.push(AddrId::new(slot, (incarnation + 1) & 0xFFF));
            self.gone.pop_front();
        }
        while let Some(slot) =
            self.ended.front().filter(|ended| self.is_over(ended.since_ns, now_ns)).map(|e| e.identity.slot)
        {
            self.free_nics.push(slot);
            self.ended.pop_front();
        }
    }

    /// A NIC.
    pub fn nic(&self, key: &Key) -> Option<&Identity> {
        self.nics.get(key)
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
    pub fn gone(&self) -> impl Iterator<Item = &Gone> {
        self.gone.iter()
    }

    /// A new NIC, created by `generation`.
    pub fn create(&mut self, key: &Key, generation: Generation) -> Result<&mut Identity, Exhausted> {
        let slot = match self.free_nics.pop() {
            Some(slot) => {
                self.reused.push(slot);
                slot
            }
            None if self.names.len() < MAX_NICS => {
                self.names.push(None);
                NicSlot(self.names.len() as u32 - 1)
            }
            None => return Err(Exhausted),
        };
        self.names[slot.0 as usize] = Some(key.to_string().into());
        self.moved.insert(key.clone());
        Ok(self.nics.entry(key.clone()).insert_entry(Identity::new(slot, generation)).into_mut())
    }

    /// Ends a NIC with all its addresses.
    pub fn delete(&mut self, key: &Key, generation: Generation, now_ns: u64) {
        let Some(mut identity) = self.nics.remove(key) else { return };
        self.moved.insert(key.clone());
        let (nic, ids) = (identity.slot, identity.end(generation));
        self.gone.extend(ids.into_iter().map(|id| Gone { id, nic, since_ns: now_ns }));
        self.ended.push_back(Ended { key: key.clone(), identity, since_ns: now_ns });
    }

    /// Gives a NIC exactly these addresses; what it keeps stays what it was. With `back_to`, an address that was the
    /// NIC's at that generation is that one again, where connections of it may be left. True if one was taken away or
    /// brought back.
    pub fn readdress(
        &mut self,
        key: &Key,
        addresses: &[IpAddr],
        back_to: Option<Generation>,
        (generation, now_ns): (Generation, u64),
    ) -> Result<bool, Exhausted> {
        let Some(identity) = self.nics.get_mut(key) else { return Ok(false) };
        // Where in the list of those gone the former self of an address lies.
        let former = |gone: &VecDeque<Gone>, identity: &Identity, address: &IpAddr| {
            let id = identity.past_id(*address, back_to?)?;
            gone.iter().position(|gone| gone.id == id)
        };
        let before: Vec<IpAddr> = identity.addresses.keys().copied().collect();
        let (mut moved, mut is_other) = (false, false);
        for address in before {
            if addresses.contains(&address) && former(&self.gone, identity, &address).is_none() {
                continue;
            }
            if let Some(id) = identity.take_away(address, generation) {
                (moved, is_other) = (true, true);
                self.gone.push_back(Gone { id, nic: identity.slot, since_ns: now_ns });
            }
        }
        for address in addresses {
            if identity.addresses.contains_key(address) {
                continue;
            }
            let returned = former(&self.gone, identity, address);
            let id = if let Some(gone) = returned.and_then(|at| self.gone.remove(at)) {
                moved = true;
                gone.id
            } else if let Some(id) = self.free_addresses.pop() {
                id
            } else if self.addresses.len() + 1 < 1 << AddrId::SLOT_BITS {
                // The last place of all stays free: see `engine::conntrack::FREE`.
                self.addresses.push(*address);
                AddrId::new(self.addresses.len() as u32 - 1, 0)
            } else {
                return Err(Exhausted);
            };
            self.addresses[id.slot()] = *address;
            is_other = true;
            identity.addresses.insert(*address, Address { id, since: generation });
        }
        identity.trim();
        if is_other {
            self.moved.insert(key.clone());
        }
        Ok(moved)
    }

    /// Makes the NIC that had this name at generation `to` the one that has it again, if connections of it may be left.
    /// True if it is another than has it now.
    pub fn bring_back(&mut self, key: &Key, to: Generation, generation: Generation, now_ns: u64) -> bool {
        let Some(at) = self.former(key, to) else { return false };
        self.delete(key, generation, now_ns);
        let Some(Ended { mut identity, .. }) = self.ended.remove(at) else { return false };
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
        for Ended { identity, .. } in self.ended.iter_mut().filter(|ended| ended.identity.touched_since(to)) {
            identity.roll_back(to, by, now_ns);
        }
    }

    /// Where in the list of those deleted the NIC lies that had this name at generation `to` and does not have it now.
    fn former(&self, key: &Key, to: Generation) -> Option<usize> {
        if self.nics.get(key).is_some_and(|present| present.was_there(to)) {
            return None;
        }
        self.ended.iter().rposition(|ended| ended.key == *key && ended.identity.was_there(to))
    }

    /// True if [`Registry::bring_back`] would bring a deleted NIC back.
    pub fn can_bring_back(&self, key: &Key, to: Generation) -> bool {
        self.former(key, to).is_some()
    }

    /// A NIC's name by its place.
    pub fn name(&self, slot: NicSlot) -> Option<Arc<str>> {
        self.names.get(slot.0 as usize).cloned().flatten()
    }
}
