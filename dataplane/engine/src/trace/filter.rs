//! Which packets somebody wants to be told of, as numbers that are compared and nothing else.

use crate::packet::{Fragment, PacketKind, PacketMeta};
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
pub(super) fn has_addresses(pkt: &PacketMeta) -> bool {
    pkt.kind > PacketKind::Arp && (pkt.src != 0 || pkt.dst != 0)
}

/// True if it has read ports.
pub(super) fn has_ports(pkt: &PacketMeta) -> bool {
    let is_of_ports = matches!(
        pkt.kind,
        PacketKind::Tcp | PacketKind::WithPorts | PacketKind::DhcpClient | PacketKind::DhcpServer
    );
    is_of_ports && pkt.fragment != Fragment::Later
}

impl Filter {
    /// True if a packet with this verdict, about which this staged rule would decide, fits.
    #[inline]
    pub fn fits(&self, pkt: &PacketMeta, verdict: &Verdict, staged: Option<RuleId>) -> bool {
        let within = |range: &Addresses, addr: u128| {
            has_addresses(pkt) && range.v6 == pkt.v6 && range.first <= addr && addr <= range.last
        };
        self.side.is_none_or(|side| side == pkt.side)
            && self.passes.is_none_or(|passes| passes == verdict.passes())
            && self.reasons.is_none_or(|reasons| reasons >> verdict.reason as u32 & 1 != 0)
            && self.nic.is_none_or(|nic| nic == verdict.nic)
            && self
                .direction
                .is_none_or(|direction| verdict.nic != NicSlot::NONE && pkt.side.direction() == direction)
            && self.protocol.is_none_or(|protocol| has_addresses(pkt) && protocol == pkt.proto)
            && self.port.is_none_or(|port| has_ports(pkt) && (port == pkt.sport || port == pkt.dport))
            && self.local.as_ref().is_none_or(|local| within(local, pkt.local()))
            && self.remote.as_ref().is_none_or(|remote| within(remote, pkt.remote()))
            && self.rules.as_ref().is_none_or(|rules| {
                let is_one = |rule: RuleId| rules.binary_search(&rule).is_ok();
                is_one(verdict.rule) || staged.is_some_and(is_one)
            })
    }
}
