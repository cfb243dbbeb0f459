//! One compiled generation of the whole policy, as workers read it: immutable, shared, swapped as
//! one.
//!
//! A packet costs one probe and one dependent load: [`Snapshot::lookup`] finds the slot of (VPC,
//! address), whose [`Binding`] holds in one cache line all that an established packet needs of its
//! NIC.

use std::collections::HashMap;
use std::sync::Arc;

mod address_index;
mod builder;
mod compare;

use crate::classify::{Policy, Query, RuleVerdict};
use crate::{AddrId, FlushEpoch, Generation, NicSlot, PolicyId, SegmentKey, VpcId};

pub use crate::groups::{Groups, Members, Membership, VpcRecord};
use address_index::AddressIndex;
pub use address_index::{AddressKey, LONGEST_RUN};
pub use builder::SnapshotBuilder;

/// Any MAC is accepted.
pub const ANY_MAC: u64 = u64::MAX;
const NOWHERE: u32 = u32::MAX;

mod flag {
    pub const V6: u32 = 1;
    pub const GONE: u32 = 2;
    pub const OBSERVE: u32 = 4;
    pub const ALLOWED: u32 = 8;
    pub const LIMITED: u32 = 16;
    pub const ROLLED_BACK: u32 = 32;
    /// The bits from here on are the slot of the next binding of a shared address.
    pub const NEXT: u32 = 8;
}

/// An address's bit in the 32-bit filter that every binding has of all addresses of its NIC: most
/// sources from outside are known not to be the NIC's own in a few cycles, without a second
/// look-up.
#[inline(always)]
fn filter_bit(addr: u128) -> u32 {
    ((addr as u64 ^ (addr >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 59) as u32
}

/// [`Binding::unique_key`] for an IPv4 address.
#[inline(always)]
fn unique_key_v4(vpc: VpcId, addr: u32) -> u64 {
    u64::from(vpc.0) << 32 | u64::from(addr)
}

/// One address of one NIC: a cache line.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Binding {
    /// The address.
    pub addr: u128,
    /// The MAC of frames from it: its own entry's, else the NIC's, but for a fixed address the
    /// NIC's first; [`ANY_MAC`] if neither has one. Another MAC may be valid, too: see
    /// [`Snapshot::mac_matches`].
    pub mac: u64,
    /// VPC × 2³² + address if this is an IPv4 address that no other NIC has; [`NOT_UNIQUE`]
    /// otherwise. The fast path compares this alone.
    unique_key: u64,
    /// The number of this address of this NIC.
    pub id: AddrId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its NIC.
    pub nic: NicSlot,
    /// The NIC's flush epoch: inbound connections opened before it are disconnected.
    pub flush: FlushEpoch,
    /// Inbound connections last found live before this generation are re-judged.
    pub rejudge: Generation,
    /// The NIC's rules.
    pub policy: PolicyId,
    /// Flags, and above them the slot of the next binding of a shared address, in the order of the
    /// NICs' names, or [`LAST`].
    flags: u32,
    /// A bit for each of the NIC's addresses: see [`filter_bit`].
    filter: u32,
}

const _: () = assert!(size_of::<Binding>() == 64);
/// No VPC has this number.
const NOT_UNIQUE: u64 = u64::MAX;
/// The end of the list of bindings.
const LAST: u32 = u32::MAX >> flag::NEXT;
const _: () = assert!(1 << AddrId::SLOT_BITS < LAST);

impl Binding {
    /// The slot of the next binding of a shared address, or [`LAST`].
    fn next(&self) -> u32 {
        self.flags >> flag::NEXT
    }

    fn set_next(&mut self, place: u32) {
        self.flags = self.flags & !(LAST << flag::NEXT) | place << flag::NEXT;
    }

    /// False if an address is certainly not its NIC's; true is inconclusive.
    #[inline(always)]
    pub fn may_own(&self, addr: u128) -> bool {
        self.filter >> filter_bit(addr) & 1 != 0
    }

    /// True if the address was removed; its connections have ended.
    #[inline]
    pub fn is_gone(&self) -> bool {
        self.flags & flag::GONE != 0
    }

    /// True if the NIC is only observed.
    #[inline]
    pub fn observes(&self) -> bool {
        self.flags & flag::OBSERVE != 0
    }

    /// True if the NIC has a limit of connections.
    #[inline]
    pub fn is_limited(&self) -> bool {
        self.flags & flag::LIMITED != 0
    }

    /// True if the address may be shared (an allowed address, not a fixed one).
    pub fn is_allowed(&self) -> bool {
        self.flags & flag::ALLOWED != 0
    }

    /// IPv6.
    pub fn is_v6(&self) -> bool {
        self.flags & flag::V6 != 0
    }

    /// An unused slot.
    pub fn empty() -> Binding {
        Binding {
            addr: 0,
            mac: ANY_MAC,
            unique_key: NOT_UNIQUE,
            id: AddrId(u32::MAX),
            vpc: VpcId(u32::MAX),
            nic: NicSlot::NONE,
            flush: Generation(0),
            rejudge: Generation(0),
            policy: PolicyId(0),
            flags: flag::GONE | LAST << flag::NEXT,
            filter: 0,
        }
    }
}

/// What is known of a NIC beyond its bindings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicRecord {
    /// Its VPC.
    pub vpc: VpcId,
    /// Its own MAC, or [`ANY_MAC`]: distinguishes the NICs that share an address.
    pub mac: u64,
    /// The MACs of its allowed addresses' entries, each with the address and whether that is IPv6,
    /// in order.
    pub entry_macs: Vec<(u64, u128, bool)>,
    /// Connections at most; `u32::MAX` for no limit.
    pub max_connections: u32,
    /// Observed, not enforced.
    pub observe: bool,
    /// The rollbacks that reverted what changes did to its connections, the newest last.
    pub rollbacks: Vec<RollbackSpan>,
}

/// The generations whose effect on a NIC's connections a rollback reverts: those after `after` and
/// before `by` (semantics 5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollbackSpan {
    /// The generation that was rolled back to.
    pub after: Generation,
    /// The rollback itself. Connections re-judged under it stay so, therefore it is not part of the
    /// interval; a later rollback that goes back behind it has an interval that contains it.
    pub by: Generation,
}

impl RollbackSpan {
    /// True if the effect of `generation` is reverted.
    pub fn holds(&self, generation: Generation) -> bool {
        self.after < generation && generation < self.by
    }
}

impl NicRecord {
    /// An unused slot.
    pub fn empty() -> NicRecord {
        NicRecord {
            vpc: VpcId(u32::MAX),
            mac: ANY_MAC,
            entry_macs: Vec::new(),
            max_connections: u32::MAX,
            observe: false,
            rollbacks: Vec::new(),
        }
    }

    fn is_in_use(&self) -> bool {
        self.vpc != VpcId(u32::MAX)
    }

    /// The last rollback that reverted something; 0 without any.
    pub fn rolled_back(&self) -> Generation {
        self.rollbacks.last().map_or(Generation(0), |undone| undone.by)
    }
}

/// Settings that change what passes (semantics 2.8, 2.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Frames of nobody's VPC pass.
    pub pass_unknown_segment: bool,
    /// Frames of nobody's NIC pass.
    pub pass_unknown_nic: bool,
    /// Frames that bridges keep to themselves pass.
    pub pass_link_local: bool,
    /// All would-be drops pass.
    pub observe: bool,
    /// Ethertypes that pass.
    pub pass_ethertypes: Vec<u16>,
    /// Multicast prefixes that pass from outside: first and last address, IPv6 or not.
    pub pass_multicast: Vec<(u128, u128, bool)>,
    /// A mid-stream TCP segment may open a connection.
    pub loose_pickup: bool,
    /// TCP windows are not checked.
    pub no_window_check: bool,
}

/// The whole policy of one generation.
#[derive(Clone)]
pub struct Snapshot {
    /// Its number.
    pub generation: Generation,
    /// The last generation that ended or disconnected anything that the one before it let live.
    pub last_ending: Generation,
    /// Settings.
    pub settings: Settings,
    /// True if some VPC has a VNI: untagged frames are tunnels.
    pub tunnels: bool,
    /// False if no rule of any policy is staged.
    pub has_staged: bool,
    vlans: Box<[u32]>,
    vnis: HashMap<u32, VpcId, ahash::RandomState>,
    policy_nics: u32,
    address_index: AddressIndex,
    bindings: Vec<Binding>,
    nics: Vec<NicRecord>,
    /// Policies by [`PolicyId`], shared with other generations.
    pub policies: Vec<Arc<Policy>>,
    /// Members of groups, and which VPCs reach each other.
    pub groups: Groups,
}

/// Where the binding of an address may lie.
#[derive(Clone, Copy, Default)]
pub struct BindingHint(u32);

/// Looks up the bindings of addresses that one NIC alone has, in one VPC. In a struct of its own,
/// so that a loop keeps it in registers.
#[derive(Clone, Copy)]
pub struct UniqueAddresses<'s> {
    slots: &'s [u32],
    key: AddressKey,
    bindings: &'s [Binding],
    vpc: VpcId,
}

impl<'s> UniqueAddresses<'s> {
    /// A hint to this address's binding, if it lies in its first slot; prefetched, so that
    /// [`UniqueAddresses::find`] does not wait.
    #[inline(always)]
    pub fn hint(&self, addr: u32) -> BindingHint {
        let at = self.key.v4(unique_key_v4(self.vpc, addr)) & self.mask();
        let place = self.slots.get(at).copied().unwrap_or(NOWHERE);
        crate::cpu::prefetch(self.bindings.as_ptr().wrapping_add(place as usize));
        BindingHint(place)
    }

    /// The binding of this address; mostly by a single comparison.
    #[inline(always)]
    pub fn find(&self, addr: u32, guess: BindingHint) -> Option<&'s Binding> {
        let sole = unique_key_v4(self.vpc, addr);
        let binding = self.bindings.get(guess.0 as usize)?;
        if binding.unique_key == sole { Some(binding) } else { self.find_behind(sole) }
    }

    /// A hint to an IPv6 address's binding, as [`UniqueAddresses::hint`].
    #[inline(always)]
    pub fn hint_v6(&self, addr: u128) -> BindingHint {
        let at = self.key.v6(self.vpc, addr) & self.mask();
        let place = self.slots.get(at).copied().unwrap_or(NOWHERE);
        crate::cpu::prefetch(self.bindings.as_ptr().wrapping_add(place as usize));
        BindingHint(place)
    }

    /// The only binding of an IPv6 address, if it lies where the hint says.
    #[inline(always)]
    pub fn find_v6(&self, addr: u128, guess: BindingHint) -> Option<&'s Binding> {
        let binding = self.bindings.get(guess.0 as usize)?;
        let is_it = binding.addr == addr && binding.vpc == self.vpc && binding.is_v6();
        (is_it && binding.next() == LAST).then_some(binding)
    }

    /// Not inlined, so that the first probe is not compiled as one of many.
    #[inline(never)]
    fn find_behind(&self, sole: u64) -> Option<&'s Binding> {
        let mut at = self.key.v4(sole) & self.mask();
        loop {
            at = (at + 1) & self.mask();
            let binding = self.bindings.get(*self.slots.get(at)? as usize)?;
            if binding.unique_key == sole {
                return Some(binding);
            }
        }
    }

    #[inline(always)]
    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }
}

impl Snapshot {
    /// The VPC that has a segment.
    #[inline]
    pub fn vpc_of(&self, segment: SegmentKey) -> Option<VpcId> {
        if segment.is_vni() {
            return self.vnis.get(&segment.0).copied();
        }
        let vpc = self.vlans[segment.0 as usize];
        (vpc != NOWHERE).then_some(VpcId(vpc))
    }

    /// The binding of an address in a VPC; of a shared one, the first by the NICs' names.
    #[inline]
    pub fn lookup(&self, vpc: VpcId, addr: u128, v6: bool) -> Option<&Binding> {
        self.address_index.find(vpc, addr, v6, &self.bindings).map(|place| &self.bindings[place as usize])
    }

    /// The binding of an address in a VPC; of a shared one, the only one whose MAC (its entry's or
    /// its NIC's) is `mac`, else the first by name (semantics 2.5).
    #[inline]
    pub fn binding_for(&self, vpc: VpcId, addr: u128, v6: bool, mac: u64) -> Option<&Binding> {
        let first = self.lookup(vpc, addr, v6)?;
        if first.next() == LAST {
            return Some(first);
        }
        let mut bearers =
            self.bindings_of_address(first).filter(|b| b.mac == mac || self.nic(b.nic).mac == mac);
        match (bearers.next(), bearers.next()) {
            (Some(only), None) => Some(only),
            _ => Some(first),
        }
    }

    /// True if frames from the binding's address may have this MAC (semantics 2.3, 2.5).
    #[inline]
    pub fn mac_matches(&self, binding: &Binding, mac: u64) -> bool {
        binding.mac == ANY_MAC || binding.mac == mac || self.is_entry_mac(binding, mac)
    }

    /// True if the address's own entry has this MAC: that of a fixed address which its NIC also
    /// lists as allowed.
    #[cold]
    fn is_entry_mac(&self, binding: &Binding, mac: u64) -> bool {
        let entry = (mac, binding.addr, binding.is_v6());
        self.nic(binding.nic).entry_macs.binary_search(&entry).is_ok()
    }

    /// True if any entry of the binding's NIC has this MAC.
    #[cold]
    pub fn is_mac_of_any_entry(&self, binding: &Binding, mac: u64) -> bool {
        let entries = &self.nic(binding.nic).entry_macs;
        let at = entries.partition_point(|entry| entry.0 < mac);
        entries.get(at).is_some_and(|entry| entry.0 == mac)
    }

    /// The look-up of addresses that one NIC alone has, in a segment's VPC.
    #[inline(always)]
    pub fn unique_addresses(&self, segment: SegmentKey) -> Option<UniqueAddresses<'_>> {
        let vpc = self.vpc_of(segment)?;
        let AddressIndex { slots, key } = &self.address_index;
        Some(UniqueAddresses { slots, key: *key, bindings: &self.bindings, vpc })
    }

    fn bindings_of_address<'a>(&'a self, first: &'a Binding) -> impl Iterator<Item = &'a Binding> {
        std::iter::successors(Some(first), |b| self.bindings.get(b.next() as usize))
    }

    /// True if an address of the binding's VPC is (also) its NIC's.
    #[inline]
    pub fn is_own(&self, binding: &Binding, addr: u128, v6: bool) -> bool {
        binding.may_own(addr) && self.is_held(binding, addr, v6)
    }

    fn is_held(&self, binding: &Binding, addr: u128, v6: bool) -> bool {
        self.lookup(binding.vpc, addr, v6)
            .is_some_and(|first| self.bindings_of_address(first).any(|b| b.nic == binding.nic))
    }

    /// The binding of an address, gone or not.
    #[inline]
    pub fn binding(&self, id: AddrId) -> &Binding {
        &self.bindings[id.slot()]
    }

    /// All slots.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// The record of a NIC.
    #[inline]
    pub fn nic(&self, nic: NicSlot) -> &NicRecord {
        &self.nics[nic.0 as usize]
    }

    /// The generation since which a NIC's live inbound connections are counted: its flush epoch, or
    /// a later rollback that lowered it.
    #[inline]
    pub fn live_epoch(&self, binding: &Binding) -> Generation {
        if binding.flags & flag::ROLLED_BACK == 0 {
            return binding.flush;
        }
        binding.flush.max(self.nic(binding.nic).rolled_back())
    }

    /// Slots of NICs, including the one for "none".
    pub fn nic_count(&self) -> u32 {
        self.nics.len() as u32
    }

    /// NICs of the policy, which share the table.
    #[inline]
    pub fn policy_nics(&self) -> u32 {
        self.policy_nics
    }

    /// What the rules of a binding's NIC say of an opening packet.
    #[inline(always)]
    pub fn judge(&self, binding: &Binding, query: &Query) -> RuleVerdict {
        self.policy(binding).judge(&self.groups, binding.vpc, query)
    }

    /// The rules of a binding's NIC.
    #[inline]
    pub fn policy(&self, binding: &Binding) -> &Policy {
        &self.policies[binding.policy.0 as usize]
    }
}

/// One address of a NIC, as given to [`SnapshotBuilder::bind`].
#[derive(Clone, Copy, Debug)]
pub struct NewBinding {
    /// Which it is.
    pub id: AddrId,
    /// The address.
    pub addr: u128,
    /// IPv6.
    pub v6: bool,
    /// An allowed address rather than a fixed one.
    pub allowed: bool,
    /// The MAC of the entry, if it has one.
    pub mac: Option<u64>,
    /// Its NIC.
    pub nic: NicSlot,
    /// The NIC's flush epoch.
    pub flush: FlushEpoch,
    /// The last generation after which the NIC's inbound connections are re-judged.
    pub rejudge: Generation,
    /// The NIC's rules.
    pub policy: PolicyId,
}
