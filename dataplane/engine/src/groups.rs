//! Who is in which group, by address, and which VPCs reach each other: what rules with a group as
//! remote depend on.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{GroupId, VpcId};

/// Parts that the addresses are spread over: a change copies the parts that it touches, and shares
/// the others with the generations before.
const PARTS: usize = 256;

/// The groups of an address's holder in one VPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The holder's VPC.
    pub vpc: VpcId,
    /// The holder's groups.
    pub groups: Arc<[GroupId]>,
}

type Part = HashMap<(u128, bool), Vec<Membership>, ahash::RandomState>;

/// Memberships by address.
#[derive(Clone)]
pub struct Members {
    parts: Box<[Arc<Part>]>,
}

impl Default for Members {
    fn default() -> Members {
        Members { parts: (0..PARTS).map(|_| Arc::default()).collect() }
    }
}

#[inline]
fn part_of(addr: u128) -> usize {
    let folded = (addr as u64 ^ (addr >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (folded >> 56) as usize % PARTS
}

impl Members {
    /// Notes that a holder of the address is in these groups.
    pub fn add(&mut self, addr: u128, v6: bool, membership: Membership) {
        let part = Arc::make_mut(&mut self.parts[part_of(addr)]);
        part.entry((addr, v6)).or_default().push(membership);
    }

    /// Takes back what was noted of a holder.
    pub fn remove(&mut self, addr: u128, v6: bool, membership: &Membership) {
        let part = Arc::make_mut(&mut self.parts[part_of(addr)]);
        if let Some(all) = part.get_mut(&(addr, v6)) {
            if let Some(at) = all.iter().position(|there| there == membership) {
                all.swap_remove(at);
            }
            if all.is_empty() {
                part.remove(&(addr, v6));
            }
        }
    }

    /// All addresses with their memberships, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&(u128, bool), &Vec<Membership>)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// All memberships of an address.
    #[inline]
    pub fn of(&self, addr: u128, v6: bool) -> &[Membership] {
        self.parts[part_of(addr)].get(&(addr, v6)).map_or(&[], Vec::as_slice)
    }
}

/// What one VPC's NICs reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VpcRecord {
    /// Itself and its peers, sorted.
    pub reach: Vec<VpcId>,
}

/// What rules with a group as remote depend on, over all VPCs.
#[derive(Clone, Default)]
pub struct Groups {
    /// Whose groups an address is in. Shared with other generations where nothing changed.
    pub members: Members,
    /// VPCs by [`VpcId`].
    pub vpcs: Vec<VpcRecord>,
}

impl Groups {
    /// True if `vpc` is `own` or peered with it.
    pub fn reaches(&self, own: VpcId, vpc: VpcId) -> bool {
        own == vpc || self.vpcs[own.0 as usize].reach.binary_search(&vpc).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_does_not_reach_the_generations_before() {
        let one = Membership { vpc: VpcId(1), groups: Arc::from([GroupId(3)]) };
        let two = Membership { vpc: VpcId(2), groups: Arc::from([GroupId(4)]) };
        let mut members = Members::default();
        members.add(7, false, one.clone());
        let before = members.clone();
        members.add(7, false, two.clone());
        members.remove(7, false, &one);
        assert_eq!(before.of(7, false), std::slice::from_ref(&one));
        assert_eq!(members.of(7, false), std::slice::from_ref(&two));
        assert!(members.of(7, true).is_empty());
        members.remove(7, false, &two);
        members.remove(7, false, &two);
        assert!(members.of(7, false).is_empty());
    }
}
