//! Places in the engine's tables: how many there are, how many a change takes, and when one is free again.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use engine::counters::MAX_NICS;
use engine::{AddrId, NicSlot};

use super::Registry;

/// NICs that have places at once, those deleted whose connections may be left included. The first place is nobody's.
pub const MOST_NICS: usize = MAX_NICS - 1;
/// The same of addresses: the last place of all stays free, see `engine::conntrack::FREE`.
pub const MOST_ADDRESSES: usize = (1 << AddrId::SLOT_BITS) - 1;

/// NICs deleted that are kept, whether or not connections are left of them. Beyond, those without go.
const KEPT_ENDED: usize = 8192;
/// Of those beyond, how many are looked at for each change.
const LOOKED_AT: usize = 4096;

/// Places of NICs and of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCount {
    /// Of NICs.
    pub nics: usize,
    /// Of addresses.
    pub addresses: usize,
}

impl SlotCount {
    fn hold(self, other: SlotCount) -> bool {
        other.nics <= self.nics && other.addresses <= self.addresses
    }
}

/// There are not as many places as a change takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfSlots {
    /// What it takes.
    pub wanted: SlotCount,
    /// What is free.
    pub free: SlotCount,
    /// How long those deleted may keep their places at most.
    pub kept: Duration,
}

impl fmt::Display for OutOfSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutOfSlots { wanted, free, kept } = self;
        let (what, wanted, free) = match wanted.nics > free.nics {
            true => ("NICs", wanted.nics, free.nics),
            false => ("addresses", wanted.addresses, free.addresses),
        };
        write!(
            f,
            "it takes {wanted} new places of {what}, and {free} are free; allowed: {MOST_NICS} NICs and {MOST_ADDRESSES} \
             addresses at once, those deleted included until their last connection has ended, {} s at most",
            kept.as_secs()
        )
    }
}

impl std::error::Error for OutOfSlots {}

impl Registry {
    /// Places that nobody has.
    pub fn free(&self) -> SlotCount {
        SlotCount {
            nics: self.free_nics.len() + (MAX_NICS - self.names.len()),
            addresses: self.free_addresses.len() + (MOST_ADDRESSES - self.addresses.len()),
        }
    }

    /// Places taken since the beginning.
    pub fn taken(&self) -> SlotCount {
        self.taken
    }

    /// Refuses what there are no places for. What is admitted finds its places.
    pub fn admit(&self, wanted: SlotCount) -> Result<(), OutOfSlots> {
        let free = self.free();
        if free.hold(wanted) {
            return Ok(());
        }
        Err(OutOfSlots { wanted, free, kept: Duration::from_nanos(2 * self.longest_ns) })
    }

    pub(super) fn take_nic(&mut self) -> NicSlot {
        self.taken.nics += 1;
        if let Some(slot) = self.free_nics.pop() {
            self.reused.push(slot);
            return slot;
        }
        assert!(self.names.len() < MAX_NICS, "whoever takes a place was admitted");
        self.names.push_back(None);
        NicSlot(self.names.len() as u32 - 1)
    }

    pub(super) fn take_address(&mut self) -> AddrId {
        self.taken.addresses += 1;
        if let Some(id) = self.free_addresses.pop() {
            return id;
        }
        assert!(self.addresses.len() < MOST_ADDRESSES, "whoever takes a place was admitted");
        self.addresses.push(std::net::Ipv4Addr::UNSPECIFIED.into());
        AddrId::new(self.addresses.len() as u32 - 1, 0)
    }

    /// True if no connection can be left of what was so at `since_ns` and is not any more. Twice the longest timeout:
    /// workers find what has expired a little later.
    fn is_over(&self, since_ns: u64, now_ns: u64) -> bool {
        now_ns.saturating_sub(since_ns) > 2 * self.longest_ns
    }

    /// Gives back the places whose last connection has run out by `now_ns`, and forgets whom no
    /// connection minds any more.
    pub fn recycle(&mut self, now_ns: u64) {
        while let Some((spot, gone)) = self.gone.oldest()
            && self.is_over(gone.since_ns, now_ns)
        {
            self.free_address(spot);
        }
        while let Some((spot, ended)) = self.ended.oldest()
            && self.is_over(ended.since_ns, now_ns)
        {
            self.free_nic(spot);
        }
    }

    /// Gives back places of NICs deleted, and of addresses taken away, of whose NIC no connection is left: nothing could be
    /// brought back with them. Every worker must judge by the present snapshot already. With `all`, all there are, else no more
    /// than keeps their number within bounds.
    pub fn recycle_idle(&mut self, all: bool, is_idle: impl Fn(NicSlot) -> bool) {
        let surplus = self.ended.len().saturating_sub(KEPT_ENDED).min(LOOKED_AT);
        let looked_at = if all { self.ended.len() } else { surplus };
        let idle = self.ended.iter().take(looked_at).filter(|(_, ended)| is_idle(ended.identity.slot));
        let idle: Vec<_> = idle.map(|(spot, ended)| (spot, ended.identity.slot)).collect();
        let freed: HashSet<NicSlot> = idle.iter().map(|(_, slot)| *slot).collect();
        if all || !freed.is_empty() {
            let gone = self.gone.iter();
            let gone = gone.filter(|(_, gone)| freed.contains(&gone.nic) || all && is_idle(gone.nic));
            let spots: Vec<_> = gone.map(|(spot, _)| spot).collect();
            spots.into_iter().for_each(|spot| self.free_address(spot));
        }
        idle.into_iter().for_each(|(spot, _)| self.free_nic(spot));
    }

    fn free_address(&mut self, spot: super::retired::RetiredAt) {
        let Some(gone) = self.gone.take(spot) else { return };
        let (slot, incarnation) = (gone.id.slot() as u32, gone.id.0 >> AddrId::SLOT_BITS);
        self.free_addresses.push(AddrId::new(slot, (incarnation + 1) & 0xFFF));
    }

    fn free_nic(&mut self, spot: super::retired::RetiredAt) {
        let Some(ended) = self.ended.take(spot) else { return };
        self.names[ended.identity.slot.0 as usize] = None;
        self.free_nics.push(ended.identity.slot);
    }
}
