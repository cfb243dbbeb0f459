//! Which packets somebody wants to be told of, as numbers that are compared and nothing else.

use crate::lane::{Fragment, Lane, What};
use crate::verdict::Verdict;
use crate::{Direction, NicSlot, RuleId, Side};

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Of IPv6.
    pub v6: bool,
    /// The first.
    pub first: u128,
    /// The last.
    pub last: u128,
}

/// Packets that fit everything it names; the default fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Judged for this NIC.
    pub nic: Option<NicSlot>,
    /// The other side's address.
    pub remote: Option<Addresses>,
    /// The address on the instances' side.
    pub local: Option<Addresses>,
    /// A port of either end.
    pub port: Option<u16>,
    /// The IP protocol.
    pub protocol: Option<u8>,
    /// Passes, observed ones included, or drops.
    pub passes: Option<bool>,
    /// A bit a reason, by its number.
    pub reasons: Option<u32>,
    /// Decided by one of these, in ascending order, or staged ones among them would decide.
    pub rules: Option<Box<[RuleId]>>,
    /// Of a NIC, this way.
    pub direction: Option<Direction>,
    /// From this side of the wire.
    pub side: Option<Side>,
}

/// True if the parser has read IP addresses.
pub(super) fn has_addresses(lane: &Lane) -> bool {
    lane.what > What::Arp && (lane.src != 0 || lane.dst != 0)
}

/// True if it has read ports.
pub(super) fn has_ports(lane: &Lane) -> bool {
    let is_of_ports = matches!(lane.what, What::Tcp | What::Ports | What::DhcpClient | What::DhcpServer);
    is_of_ports && lane.fragment != Fragment::Later
}

impl Filter {
    /// True if a packet with this verdict, about which this staged rule would decide, fits.
    #[inline]
    pub fn fits(&self, lane: &Lane, verdict: &Verdict, staged: Option<RuleId>) -> bool {
        let within = |range: &Addresses, addr: u128| {
            has_addresses(lane) && range.v6 == lane.v6 && range.first <= addr && addr <= range.last
        };
        self.side.is_none_or(|side| side == lane.side)
            && self.passes.is_none_or(|passes| passes == verdict.passes())
            && self.reasons.is_none_or(|reasons| reasons >> verdict.reason as u32 & 1 != 0)
            && self.nic.is_none_or(|nic| nic == verdict.nic)
            && self
                .direction
                .is_none_or(|direction| verdict.nic != NicSlot::NONE && lane.side.direction() == direction)
            && self.protocol.is_none_or(|protocol| has_addresses(lane) && protocol == lane.proto)
            && self.port.is_none_or(|port| has_ports(lane) && (port == lane.sport || port == lane.dport))
            && self.local.as_ref().is_none_or(|local| within(local, lane.local()))
            && self.remote.as_ref().is_none_or(|remote| within(remote, lane.remote()))
            && self.rules.as_ref().is_none_or(|rules| {
                let is_one = |rule: RuleId| rules.binary_search(&rule).is_ok();
                is_one(verdict.rule) || staged.is_some_and(is_one)
            })
    }
}
