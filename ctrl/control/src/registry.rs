//! Who holds which place in the engine's tables, and since when: NICs, their addresses, their flush epochs.
//!
//! A place that is given back is not handed out again before every connection that may still name it has run out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use engine::cells::MAX_NICS;
use engine::{AddrId, Generation, NicSlot};

use crate::model::Key;

/// Flushes of a NIC that are remembered.
const KEPT_FLUSHES: usize = 64;

/// One NIC, from its creation to its deletion.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its place.
    pub slot: NicSlot,
    /// The last generations that flushed it, the newest last; its creation is one.
    pub flushes: Vec<Generation>,
    /// The last generation after which its inbound connections are judged again.
    pub rejudge: Generation,
    /// What rollbacks took back.
    pub undone: Vec<(Generation, Generation)>,
    /// Its addresses.
    pub addresses: BTreeMap<IpAddr, AddrId>,
}

impl Identity {
    /// Notes a flush. Older ones matter to a rollback alone, and to none beyond the last few.
    pub fn flush_at(&mut self, generation: Generation) {
        if self.flushes.len() == KEPT_FLUSHES {
            self.flushes.remove(0);
        }
        self.flushes.push(generation);
    }

    /// Its flush epoch.
    pub fn flush(&self) -> Generation {
        self.flushes.last().copied().unwrap_or_default()
    }
}

/// An address that was taken away, whose connections may still lie in the tables.
#[derive(Clone, Copy, Debug)]
pub struct Gone {
    /// Which it was.
    pub id: AddrId,
    /// Whose it was.
    pub nic: NicSlot,
    since_ns: u64,
}

/// All of them.
pub struct Registry {
    /// NICs of the present generation.
    pub nics: HashMap<Key, Identity>,
    /// Names by place, of NICs there and gone.
    pub names: Vec<Option<Arc<str>>>,
    /// Addresses by place, of those there and gone.
    pub addresses: Vec<IpAddr>,
    gone: VecDeque<Gone>,
    gone_nics: VecDeque<(NicSlot, u64)>,
    free_addresses: Vec<AddrId>,
    free_nics: Vec<NicSlot>,
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
            names: vec![None],
            addresses: Vec::new(),
            gone: VecDeque::new(),
            gone_nics: VecDeque::new(),
            free_addresses: Vec::new(),
            free_nics: Vec::new(),
            longest_ns,
        }
    }

    /// Gives back the places whose last connection has run out by `now_ns`.
    pub fn recycle(&mut self, now_ns: u64) {
        // Twice the longest timeout: workers find what has expired a little later.
        let is_over = |since: u64| now_ns.saturating_sub(since) > 2 * self.longest_ns;
        while let Some(gone) = self.gone.front().filter(|gone| is_over(gone.since_ns)) {
            let (slot, incarnation) = (gone.id.slot() as u32, gone.id.0 >> AddrId::SLOT_BITS);
            self.free_addresses.push(AddrId::new(slot, (incarnation + 1) & 0xFFF));
            self.gone.pop_front();
        }
        while let Some((slot, _)) = self.gone_nics.front().copied().filter(|(_, since)| is_over(*since)) {
            self.free_nics.push(slot);
            self.gone_nics.pop_front();
        }
    }

    /// A new NIC, created by `generation`.
    pub fn create(&mut self, key: &Key, generation: Generation) -> Result<&mut Identity, Exhausted> {
        let slot = match self.free_nics.pop() {
            Some(slot) => slot,
            None if self.names.len() < MAX_NICS => {
                self.names.push(None);
                NicSlot(self.names.len() as u32 - 1)
            }
            None => return Err(Exhausted),
        };
        self.names[slot.0 as usize] = Some(key.to_string().into());
        let identity = Identity {
            slot,
            flushes: vec![generation],
            rejudge: Generation(0),
            undone: Vec::new(),
            addresses: BTreeMap::new(),
        };
        Ok(self.nics.entry(key.clone()).insert_entry(identity).into_mut())
    }

    /// Ends a NIC with all its addresses.
    pub fn delete(&mut self, key: &Key, now_ns: u64) {
        let Some(identity) = self.nics.remove(key) else { return };
        for id in identity.addresses.into_values() {
            self.gone.push_back(Gone { id, nic: identity.slot, since_ns: now_ns });
        }
        self.gone_nics.push_back((identity.slot, now_ns));
    }

    /// Gives a NIC exactly these addresses; what it keeps stays what it was. True if one was taken away.
    pub fn readdress(&mut self, key: &Key, addresses: &[IpAddr], now_ns: u64) -> Result<bool, Exhausted> {
        let Some(identity) = self.nics.get_mut(key) else { return Ok(false) };
        let (slot, before) = (identity.slot, identity.addresses.len());
        let gone = &mut self.gone;
        identity.addresses.retain(|address, id| {
            let stays = addresses.contains(address);
            if !stays {
                gone.push_back(Gone { id: *id, nic: slot, since_ns: now_ns });
            }
            stays
        });
        let taken_away = identity.addresses.len() < before;
        for address in addresses {
            if identity.addresses.contains_key(address) {
                continue;
            }
            let id = match self.free_addresses.pop() {
                Some(id) => id,
                // The last place of all stays free: see `engine::conntrack::FREE`.
                None if self.addresses.len() + 1 < 1 << AddrId::SLOT_BITS => {
                    self.addresses.push(*address);
                    AddrId::new(self.addresses.len() as u32 - 1, 0)
                }
                None => return Err(Exhausted),
            };
            self.addresses[id.slot()] = *address;
            identity.addresses.insert(*address, id);
        }
        Ok(taken_away)
    }

    /// Addresses taken away whose connections may still lie in the tables.
    pub fn gone(&self) -> impl Iterator<Item = &Gone> {
        self.gone.iter()
    }

    /// A NIC's name by its place.
    pub fn name(&self, slot: NicSlot) -> Option<Arc<str>> {
        self.names.get(slot.0 as usize).cloned().flatten()
    }
}
