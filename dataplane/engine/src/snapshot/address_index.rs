//! (VPC, address) → place of its first holder's binding.
//!
//! Open addressing with linear probes. Tenants choose their addresses, and so the content: the hash
//! is keyed by a secret, and an index that fell into too long a run of filled slots all the same is
//! made again under another key. So a look-up, whether it finds anything or not, looks at no more
//! slots than [`LONGEST_RUN`].

use std::sync::Arc;

use super::{Binding, NOWHERE, unique_key_v4};
use crate::VpcId;
use crate::mix::fold;

/// Up to so many addresses the index is at most an eighth full: a second probe is a branch that no
/// predictor foresees, which with 1,000 NICs at random cost 9 cycles a packet. Beyond, cache lines
/// are dearer than branches.
const SPARSE_BELOW: usize = 1 << 16;
/// Slots that a look-up passes at most. By chance a run of so many is met with hardly one key in a
/// million.
pub const LONGEST_RUN: usize = 192;
/// Keys that are tried. If none did, the last one is taken: it was not chosen by anybody.
const KEYS: usize = 8;

/// The secret that a policy's addresses are hashed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressKey(pub [u64; 2]);

impl AddressKey {
    /// A public one, for those whom nobody attacks: tests, `replay`, `explain`. Their runs are
    /// repeatable.
    pub const PUBLIC: AddressKey = AddressKey([0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93]);

    /// Of an address; an IPv4 one as `unique_key_v4` has it, so that plain packets need no more
    /// than this.
    #[inline(always)]
    pub fn v4(&self, sole: u64) -> usize {
        fold(sole ^ self.0[0], self.0[1] | 1) as usize
    }

    /// Of an IPv6 address in a VPC.
    #[inline(always)]
    pub fn v6(&self, vpc: VpcId, addr: u128) -> usize {
        let folded = fold(addr as u64 ^ self.0[0], (addr >> 64) as u64 ^ self.0[1]);
        fold(folded ^ u64::from(vpc.0), self.0[1] | 1) as usize
    }

    #[inline]
    fn of(&self, vpc: VpcId, addr: u128, v6: bool) -> usize {
        if v6 { self.v6(vpc, addr) } else { self.v4(unique_key_v4(vpc, addr as u32)) }
    }

    /// Another one, as hard to foresee.
    fn next(&self) -> AddressKey {
        let [a, b] = self.0;
        AddressKey([fold(a ^ 0x9E37_79B9_7F4A_7C15, b ^ 0xD6E8_FEB8_6659_FD93) ^ b, a.rotate_left(29) ^ b])
    }
}

/// The index; half full at most.
#[derive(Clone)]
pub struct AddressIndex {
    /// A power of two of them. Shared with other generations as long as no address comes or goes: a
    /// worker that takes up a change finds them in its own cache.
    pub slots: Arc<[u32]>,
    /// Lies beside the slots: who has one has the other.
    pub key: AddressKey,
}

impl AddressIndex {
    /// Without addresses.
    pub fn empty(key: AddressKey) -> AddressIndex {
        AddressIndex { slots: vec![NOWHERE; 16].into(), key }
    }

    /// Of these addresses, none of them twice: each VPC, address, IPv6 or not, and its place.
    pub fn of(firsts: &[(VpcId, u128, bool, u32)], mut key: AddressKey) -> AddressIndex {
        let room = if firsts.len() < SPARSE_BELOW { 8 } else { 2 };
        let size = (firsts.len() * room).next_power_of_two().max(16);
        let mut slots = vec![NOWHERE; size];
        for left in (0..KEYS).rev() {
            for &(vpc, addr, v6, place) in firsts {
                let mut at = key.of(vpc, addr, v6) & (size - 1);
                while slots[at] != NOWHERE {
                    at = (at + 1) & (size - 1);
                }
                slots[at] = place;
            }
            if left == 0 || longest_run(&slots) < LONGEST_RUN {
                break;
            }
            slots.fill(NOWHERE);
            key = key.next();
        }
        AddressIndex { slots: slots.into(), key }
    }

    #[inline(always)]
    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    /// Where the first holder of an address lies.
    #[inline]
    pub fn find(&self, vpc: VpcId, addr: u128, v6: bool, bindings: &[Binding]) -> Option<u32> {
        let mut at = self.key.of(vpc, addr, v6) & self.mask();
        loop {
            let place = self.slots[at];
            let binding = bindings.get(place as usize)?;
            if binding.addr == addr && binding.vpc == vpc && binding.is_v6() == v6 {
                return Some(place);
            }
            at = (at + 1) & self.mask();
        }
    }
}

/// The most filled slots in a row, the one behind the last being the first.
fn longest_run(slots: &[u32]) -> usize {
    let (mut longest, mut run) = (0, 0);
    // Twice around, so that a run over the end counts whole.
    for slot in slots.iter().chain(slots) {
        run = if *slot == NOWHERE { 0 } else { run + 1 };
        longest = longest.max(run.min(slots.len()));
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random() -> impl FnMut() -> u64 {
        let mut state = 0x5EED_5EED_5EED_5EEDu64;
        move || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let a = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let b = (a ^ a >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            b ^ b >> 31
        }
    }

    /// The public hashes that the index once had.
    fn public(vpc: VpcId, addr: u128, v6: bool) -> usize {
        if !v6 {
            return (unique_key_v4(vpc, addr as u32).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize;
        }
        let a = addr as u64 ^ u64::from(vpc.0) << 33;
        let product =
            u128::from(a ^ 0x9E37_79B9_7F4A_7C15) * u128::from((addr >> 64) as u64 ^ 0xD6E8_FEB8_6659_FD93);
        (product as u64 ^ (product >> 64) as u64) as usize
    }

    fn longest_under(key: AddressKey, chosen: &[(VpcId, u128, bool, u32)]) -> usize {
        longest_run(&AddressIndex::of(chosen, key).slots)
    }

    #[test]
    fn addresses_chosen_to_collide_under_a_public_hash_lie_apart_under_a_secret_one() {
        const HOW_MANY: usize = 2000;
        let (size, vpc, mut next) = ((HOW_MANY * 8).next_power_of_two(), VpcId(3), random());
        for v6 in [false, true] {
            // All of a tenant's own network of 2²⁴ addresses, or of its /64.
            let base = if v6 { 0x2001_0db8_0000_0001_0000_0000_0000_0000 } else { 0x0A00_0000 };
            let chosen: Vec<_> = (0..1 << 26)
                .map(|n| base + n)
                .filter(|addr| public(vpc, *addr, v6) & (size - 1) < 8)
                .take(HOW_MANY)
                .zip(0..)
                .map(|(addr, place)| (vpc, addr, v6, place))
                .collect();
            assert_eq!(chosen.len(), HOW_MANY);
            for _ in 0..20 {
                let longest = longest_under(AddressKey([next(), next()]), &chosen);
                assert_eq!((v6, longest.max(40)), (v6, 40), "slots in a row");
            }
        }
    }

    #[test]
    fn no_look_up_passes_more_slots_than_the_bound_whatever_the_addresses() {
        let mut next = random();
        let networks: [fn(u64) -> u128; 4] = [
            |n| u128::from(0x0A00_0000 + n),
            |n| u128::from(n << 16 & 0xFFFF_FFFF | n >> 16),
            |n| u128::from(n.wrapping_mul(0x9E37_79B1) & 0xFFFF_FFFF),
            |n| 0xfd00 << 112 | u128::from(n) << 64 | 1,
        ];
        for (which, address) in networks.into_iter().enumerate() {
            for count in [1000u64, 60_000, 120_000] {
                let addresses: Vec<_> =
                    (0..count).map(|n| (VpcId(0), address(n), which == 3, n as u32)).collect();
                let longest = longest_under(AddressKey([next(), next()]), &addresses);
                assert!(longest < LONGEST_RUN, "network {which}, {count}: {longest}");
            }
        }
    }

    #[test]
    fn a_key_under_which_a_run_grows_too_long_is_given_up_for_another() {
        // The worst there is: under it nothing but the lowest bits counts.
        let weak = AddressKey([0, 0]);
        let chosen: Vec<_> = (0..1000u32).map(|n| (VpcId(0), u128::from(n), false, n)).collect();
        let index = AddressIndex::of(&chosen, weak);
        assert_ne!(index.key, weak);
        assert_eq!(longest_run(&index.slots).max(LONGEST_RUN), LONGEST_RUN);
    }

    #[test]
    fn every_bit_of_vpc_and_address_turns_half_of_the_bits_that_choose_the_slot() {
        const KEYS: u32 = 4000;
        let mut next = random();
        for (v6, bits) in [(false, 32u32), (true, 128)] {
            for bit in 0..bits + 20 {
                let mut turned = 0;
                for _ in 0..KEYS {
                    let key = AddressKey([next(), next()]);
                    let mut addr = u128::from(next()) << 64 | u128::from(next());
                    addr = if v6 { addr } else { addr & 0xFFFF_FFFF };
                    let mut vpc = VpcId(next() as u32 & 0xF_FFFF);
                    let before = key.of(vpc, addr, v6);
                    if bit < bits {
                        addr ^= 1 << bit;
                    } else {
                        vpc.0 ^= 1 << (bit - bits);
                    }
                    turned += ((before ^ key.of(vpc, addr, v6)) as u32 & 0xF_FFFF).count_ones();
                }
                let share = f64::from(turned) / f64::from(KEYS * 20);
                assert!((0.45..=0.55).contains(&share), "IPv6: {v6}, bit {bit}: {share:.3}");
            }
        }
    }

    #[test]
    fn a_run_over_the_end_counts_whole() {
        let mut slots = vec![NOWHERE; 16];
        for at in [14, 15, 0, 1, 2, 7] {
            slots[at] = 1;
        }
        assert_eq!(longest_run(&slots), 5);
        assert_eq!(longest_run(&[NOWHERE; 16]), 0);
    }
}
