//! Frames that no rule judges: ARP, neighbour discovery, DHCP, IGMP, MLD (semantics 2.6). What
//! instances send of them is held to their own addresses, what claims to be a router or a server is
//! stopped.

use crate::packet::{PacketKind, PacketMeta, mac_bits};
use crate::snapshot::{Binding, Snapshot};
use crate::verdict::Verdict;
use crate::{NicSlot, Reason, Side, VpcId};

const LINK_LOCAL: u128 = 0xFE80 << 112;

fn is_link_local(addr: u128, v6: bool) -> bool {
    v6 && addr >> 118 == LINK_LOCAL >> 118
}

/// Judges by a claim: an address and the MACs that come with it.
struct Claim<'a> {
    snapshot: &'a Snapshot,
    vpc: VpcId,
    v6: bool,
    /// Ethernet source.
    mac: u64,
}

impl<'a> Claim<'a> {
    fn owner(&self, addr: u128) -> Option<&'a Binding> {
        self.snapshot.binding_for(self.vpc, addr, self.v6, self.mac)
    }

    fn nic(&self, addr: u128) -> NicSlot {
        self.owner(addr).map_or(NicSlot::NONE, |b| b.nic)
    }

    /// Passes for the owner of `addr` if the Ethernet source is its own, and `also` holds of it.
    fn own(&self, addr: u128, also: impl FnOnce(&Binding) -> bool) -> Verdict {
        match self.owner(addr) {
            Some(owner) if self.snapshot.mac_matches(owner, self.mac) && also(owner) => {
                Verdict::of(Reason::Control, owner.nic)
            }
            Some(owner) => Verdict::of(Reason::Spoofed, owner.nic),
            // Nobody's address: on day one, where not every NIC is known yet, it passes like any
            // other frame of it.
            None if self.snapshot.settings.pass_unknown_nic => Verdict::nobody(Reason::Control),
            None => Verdict::nobody(Reason::Spoofed),
        }
    }
}

/// The verdict on an ARP frame of this VPC.
pub fn arp(snapshot: &Snapshot, vpc: VpcId, pkt: &PacketMeta, frame: &[u8]) -> Verdict {
    let at = pkt.l3 as usize;
    let Some(arp) = frame.get(at..).and_then(|d| d.first_chunk::<28>()) else {
        return Verdict::nobody(Reason::Malformed);
    };
    // Ethernet (1), IPv4, addresses of 6 and 4 bytes (RFC 826).
    if arp[..6] != [0, 1, 8, 0, 6, 4] || at + 28 > pkt.end as usize {
        return Verdict::nobody(Reason::Malformed);
    }
    let word = |at: usize| u128::from(u32::from_be_bytes([arp[at], arp[at + 1], arp[at + 2], arp[at + 3]]));
    let (sender, target) = (word(14), word(24));
    if pkt.side == Side::Outside {
        let nic = snapshot.binding_for(vpc, target, false, pkt.dst_mac).map_or(NicSlot::NONE, |b| b.nic);
        return Verdict::of(Reason::Control, nic);
    }
    let sender_mac = mac_bits([arp[8], arp[9], arp[10], arp[11], arp[12], arp[13]]);
    let claim = Claim { snapshot, vpc, v6: false, mac: pkt.src_mac };
    if sender == 0 {
        // A probe (RFC 5227) asks for the address that its sender would have.
        return anonymous(claim.own(target, |owner| snapshot.mac_matches(owner, sender_mac)));
    }
    claim.own(sender, |owner| snapshot.mac_matches(owner, sender_mac))
}

/// A frame without a sender's address names no NIC when it passes.
fn anonymous(verdict: Verdict) -> Verdict {
    if verdict.reason == Reason::Control { Verdict::nobody(Reason::Control) } else { verdict }
}

/// Shortest message of ICMPv6 types 133–137 (RFC 4861 §4).
const ND_LENGTHS: [u32; 5] = [8, 16, 24, 24, 40];
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// True if a neighbour discovery packet is whole and of this link.
pub fn nd_is_sound(pkt: &PacketMeta, frame: &[u8]) -> bool {
    let kind = (pkt.dport >> 8) as u8;
    let needed = ND_LENGTHS[usize::from(kind - 133)];
    let captured = (frame.len() as u32).min(pkt.end);
    pkt.ttl == 255 && !pkt.fragment_header && u32::from(pkt.l4) + needed <= captured
}

fn nd(claim: &Claim, pkt: &PacketMeta, frame: &[u8]) -> Verdict {
    let kind = (pkt.dport >> 8) as u8;
    if kind == ROUTER_ADVERTISEMENT || kind == REDIRECT {
        return Verdict::of(Reason::Rogue, claim.nic(pkt.src));
    }
    let nobodys = pkt.src == 0 || is_link_local(pkt.src, true);
    if kind == NEIGHBOUR_ADVERTISEMENT {
        let target = frame
            .get(pkt.l4 as usize + 8..)
            .and_then(|d| d.first_chunk())
            .map_or(0, |bytes: &[u8; 16]| u128::from_be_bytes(*bytes));
        let target_is_local = is_link_local(target, true);
        if !nobodys {
            return claim.own(pkt.src, |owner| {
                target_is_local || claim.owner(target).is_some_and(|of_target| of_target.nic == owner.nic)
            });
        }
        if !target_is_local {
            let verdict = claim.own(target, |_| true);
            return if pkt.src == 0 { anonymous(verdict) } else { verdict };
        }
    }
    if nobodys { Verdict::nobody(Reason::Control) } else { claim.own(pkt.src, |_| true) }
}

/// The verdict on a well-formed ND, DHCP, IGMP or MLD packet of this VPC; `None` if the rules
/// decide.
pub fn ip(snapshot: &Snapshot, vpc: VpcId, pkt: &PacketMeta, frame: &[u8]) -> Option<Verdict> {
    if pkt.side == Side::Outside {
        let reason = match pkt.kind {
            PacketKind::DhcpClient => return None,
            PacketKind::Nd if (pkt.dport >> 8) as u8 == REDIRECT => Reason::Rogue,
            _ => Reason::Control,
        };
        let nic = snapshot.binding_for(vpc, pkt.dst, pkt.v6, pkt.dst_mac).map_or(NicSlot::NONE, |b| b.nic);
        return Some(Verdict::of(reason, nic));
    }
    let claim = Claim { snapshot, vpc, v6: pkt.v6, mac: pkt.src_mac };
    Some(match pkt.kind {
        PacketKind::Nd => nd(&claim, pkt, frame),
        PacketKind::DhcpServer => Verdict::of(Reason::Rogue, claim.nic(pkt.src)),
        // A client without an address yet: 0.0.0.0 or, in IPv6, link-local.
        PacketKind::DhcpClient if is_link_local(pkt.src, pkt.v6) || !pkt.v6 && pkt.src == 0 => {
            Verdict::nobody(Reason::Control)
        }
        PacketKind::Multicast if pkt.src == 0 || is_link_local(pkt.src, pkt.v6) => {
            Verdict::nobody(Reason::Control)
        }
        _ => claim.own(pkt.src, |_| true),
    })
}
