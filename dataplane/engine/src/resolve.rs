//! Which NIC a packet belongs to, or the verdict that needs none: semantics 2.1–2.6 in their order.

use crate::arp_nd_dhcp;
use crate::packet::{PacketKind, PacketMeta};
use crate::snapshot::{ANY_MAC, Binding, BindingHint, Snapshot, UniqueAddresses};
use crate::verdict::Verdict;
use crate::{Reason, Side, VpcId, proto};

/// The NIC of a packet, or its verdict.
pub enum Resolution<'s> {
    /// The packet is judged already.
    Verdict(Verdict),
    /// The packet is to be judged for this NIC.
    Nic(&'s Binding),
}

/// Finds the packet's NIC (semantics 2.1–2.6). `bytes` are the frame's, for the few that are read
/// again.
#[inline]
pub fn resolve<'s>(snapshot: &'s Snapshot, pkt: &PacketMeta, bytes: &[u8]) -> Resolution<'s> {
    if pkt.kind < PacketKind::LaterFragment || pkt.link_local {
        return resolve_slow(snapshot, pkt, bytes);
    }
    match snapshot.vpc_of(pkt.segment) {
        Some(vpc) => resolve_nic(snapshot, pkt, vpc),
        None => Resolution::Verdict(unknown_segment(snapshot)),
    }
}

/// [`resolve`] for a fast-path packet whose NIC alone has its address, and which is certainly not
/// spoofed. `None` leaves the packet to [`resolve`], which decides the same and more.
#[inline(always)]
pub fn resolve_fast_v4<'s>(
    holders: &UniqueAddresses<'s>,
    pkt: &PacketMeta,
    guess: BindingHint,
) -> Option<&'s Binding> {
    let nic = holders.find(pkt.tuple.local, guess)?;
    is_not_spoofed(nic, pkt, u128::from(pkt.tuple.remote)).then_some(nic)
}

/// The same for an IPv6 packet ([`PacketMeta::is_fast_v6`]).
#[inline(always)]
pub fn resolve_fast_v6<'s>(
    holders: &UniqueAddresses<'s>,
    pkt: &PacketMeta,
    guess: BindingHint,
) -> Option<&'s Binding> {
    let nic = holders.find_v6(pkt.local(), guess)?;
    is_not_spoofed(nic, pkt, pkt.remote()).then_some(nic)
}

/// True if the packet is certainly not spoofed.
#[inline(always)]
fn is_not_spoofed(nic: &Binding, pkt: &PacketMeta, remote: u128) -> bool {
    match pkt.side {
        Side::Inside => nic.mac == pkt.src_mac || nic.mac == ANY_MAC,
        Side::Outside => !nic.may_own(remote),
    }
}

fn unknown_segment(snapshot: &Snapshot) -> Verdict {
    let pass = snapshot.settings.pass_unknown_segment;
    Verdict::nobody(if pass { Reason::Control } else { Reason::UnknownSegment })
}

#[cold]
fn resolve_slow<'s>(snapshot: &'s Snapshot, pkt: &PacketMeta, bytes: &[u8]) -> Resolution<'s> {
    let settings = &snapshot.settings;
    let done = |reason| Resolution::Verdict(Verdict::nobody(reason));
    match pkt.kind {
        _ if pkt.link_local && settings.pass_link_local => return done(Reason::Control),
        PacketKind::TruncatedLink => return done(Reason::Malformed),
        PacketKind::BadSegment => return Resolution::Verdict(unknown_segment(snapshot)),
        PacketKind::UnderlayNeighbor => return done(Reason::Control),
        _ => {}
    }
    let Some(vpc) = snapshot.vpc_of(pkt.segment) else {
        return Resolution::Verdict(unknown_segment(snapshot));
    };
    match pkt.kind {
        PacketKind::NotIp if settings.pass_ethertypes.contains(&pkt.dport) => done(Reason::Control),
        PacketKind::NotIp => done(Reason::NotIp),
        PacketKind::Arp => Resolution::Verdict(arp_nd_dhcp::arp(snapshot, vpc, pkt, bytes)),
        PacketKind::Malformed => done(Reason::Malformed),
        PacketKind::Nd if !arp_nd_dhcp::nd_is_sound(pkt, bytes) => done(Reason::Malformed),
        PacketKind::Nd | PacketKind::DhcpClient | PacketKind::DhcpServer | PacketKind::Multicast => {
            match arp_nd_dhcp::ip(snapshot, vpc, pkt, bytes) {
                Some(verdict) => Resolution::Verdict(verdict),
                None => resolve_nic(snapshot, pkt, vpc),
            }
        }
        _ => resolve_nic(snapshot, pkt, vpc),
    }
}

#[inline]
fn resolve_nic<'s>(snapshot: &'s Snapshot, pkt: &PacketMeta, vpc: VpcId) -> Resolution<'s> {
    match pkt.side {
        Side::Inside => {
            let Some(binding) = snapshot.binding_for(vpc, pkt.src, pkt.v6, pkt.src_mac) else {
                return unknown_nic(snapshot, pkt, Reason::UnknownSource);
            };
            if !snapshot.mac_matches(binding, pkt.src_mac) && !is_vrrp_of(snapshot, binding, pkt) {
                return Resolution::Verdict(Verdict::of(Reason::Spoofed, binding.nic));
            }
            Resolution::Nic(binding)
        }
        Side::Outside => {
            let Some(binding) = snapshot.binding_for(vpc, pkt.dst, pkt.v6, pkt.dst_mac) else {
                return unknown_nic(snapshot, pkt, Reason::UnknownDestination);
            };
            if snapshot.is_own(binding, pkt.src, pkt.v6) {
                return Resolution::Verdict(Verdict::of(Reason::Spoofed, binding.nic));
            }
            Resolution::Nic(binding)
        }
    }
}

/// A VRRP router advertises itself from its own address with the virtual router's MAC (RFC 9568,
/// 7.2).
#[cold]
fn is_vrrp_of(snapshot: &Snapshot, binding: &Binding, pkt: &PacketMeta) -> bool {
    pkt.proto == proto::VRRP && snapshot.is_mac_of_any_entry(binding, pkt.src_mac)
}

#[cold]
fn unknown_nic<'s>(snapshot: &Snapshot, pkt: &PacketMeta, reason: Reason) -> Resolution<'s> {
    let settings = &snapshot.settings;
    let is_passed_multicast = pkt.side == Side::Outside
        && settings
            .pass_multicast
            .iter()
            .any(|&(first, last, v6)| v6 == pkt.v6 && (first..=last).contains(&pkt.dst));
    let pass = settings.pass_unknown_nic || is_passed_multicast;
    Resolution::Verdict(Verdict::nobody(if pass { Reason::Control } else { reason }))
}
