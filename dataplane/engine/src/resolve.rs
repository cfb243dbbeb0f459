//! Which NIC a packet belongs to, or the verdict that needs none: semantics 2.1–2.6 in their order.

use crate::control;
use crate::lane::{Lane, What};
use crate::snapshot::{ANY_MAC, Binding, Guess, Snapshot, SoleHolders};
use crate::verdict::Verdict;
use crate::{Reason, Side, VpcId, proto};

/// A packet after its NIC is known, or known not to matter.
pub enum Step<'s> {
    /// Judged already.
    Done(Verdict),
    /// To be judged as a packet of this NIC.
    Nic(&'s Binding),
}

/// Finds the packet's NIC (semantics 2.1–2.6). `bytes` are the frame's, for the few that are read again.
#[inline]
pub fn resolve<'s>(snapshot: &'s Snapshot, lane: &Lane, bytes: &[u8]) -> Step<'s> {
    if lane.what < What::LaterFragment || lane.link_local {
        return resolve_rare(snapshot, lane, bytes);
    }
    match snapshot.vpc_of(lane.segment) {
        Some(vpc) => resolve_nic(snapshot, lane, vpc),
        None => Step::Done(unknown_segment(snapshot)),
    }
}

/// [`resolve`] cut short for a plain packet whose NIC has its address alone, and which is clearly not spoofed. `None`
/// leaves it to the long way, which says the same and more.
#[inline(always)]
pub fn resolve_plain<'s>(holders: &SoleHolders<'s>, lane: &Lane, guess: Guess) -> Option<&'s Binding> {
    let nic = holders.find(lane.ends.local, guess)?;
    is_clean(nic, lane, u128::from(lane.ends.remote)).then_some(nic)
}

/// The same of a whole IPv6 packet ([`Lane::is_plain_v6`]).
#[inline(always)]
pub fn resolve_plain_v6<'s>(holders: &SoleHolders<'s>, lane: &Lane, guess: Guess) -> Option<&'s Binding> {
    let nic = holders.find_v6(lane.local(), guess)?;
    is_clean(nic, lane, lane.remote()).then_some(nic)
}

/// Clearly not spoofed.
#[inline(always)]
fn is_clean(nic: &Binding, lane: &Lane, remote: u128) -> bool {
    match lane.side {
        Side::Inside => nic.mac == lane.src_mac || nic.mac == ANY_MAC,
        Side::Outside => !nic.may_own(remote),
    }
}

fn unknown_segment(snapshot: &Snapshot) -> Verdict {
    let pass = snapshot.settings.pass_unknown_segment;
    Verdict::nobody(if pass { Reason::Control } else { Reason::UnknownSegment })
}

#[cold]
fn resolve_rare<'s>(snapshot: &'s Snapshot, lane: &Lane, bytes: &[u8]) -> Step<'s> {
    let settings = &snapshot.settings;
    let done = |reason| Step::Done(Verdict::nobody(reason));
    match lane.what {
        _ if lane.link_local && settings.pass_link_local => return done(Reason::Control),
        What::LinkCut => return done(Reason::Malformed),
        What::BadSegment => return Step::Done(unknown_segment(snapshot)),
        What::Underlay => return done(Reason::Control),
        _ => {}
    }
    let Some(vpc) = snapshot.vpc_of(lane.segment) else { return Step::Done(unknown_segment(snapshot)) };
    match lane.what {
        What::NotIp if settings.pass_ethertypes.contains(&lane.dport) => done(Reason::Control),
        What::NotIp => done(Reason::NotIp),
        What::Arp => Step::Done(control::arp(snapshot, vpc, lane, bytes)),
        What::Malformed => done(Reason::Malformed),
        What::Nd if !control::nd_is_sound(lane, bytes) => done(Reason::Malformed),
        What::Nd | What::DhcpClient | What::DhcpServer | What::Multicast => {
            match control::ip(snapshot, vpc, lane, bytes) {
                Some(verdict) => Step::Done(verdict),
                None => resolve_nic(snapshot, lane, vpc),
            }
        }
        _ => resolve_nic(snapshot, lane, vpc),
    }
}

#[inline]
fn resolve_nic<'s>(snapshot: &'s Snapshot, lane: &Lane, vpc: VpcId) -> Step<'s> {
    match lane.side {
        Side::Inside => {
            let Some(binding) = snapshot.holder(vpc, lane.src, lane.v6, lane.src_mac) else {
                return unknown_nic(snapshot, lane, Reason::UnknownSource);
            };
            if !snapshot.mac_fits(binding, lane.src_mac) && !is_vrrp_of(snapshot, binding, lane) {
                return Step::Done(Verdict::of(Reason::Spoofed, binding.nic));
            }
            Step::Nic(binding)
        }
        Side::Outside => {
            let Some(binding) = snapshot.holder(vpc, lane.dst, lane.v6, lane.dst_mac) else {
                return unknown_nic(snapshot, lane, Reason::UnknownDestination);
            };
            if snapshot.is_own(binding, lane.src, lane.v6) {
                return Step::Done(Verdict::of(Reason::Spoofed, binding.nic));
            }
            Step::Nic(binding)
        }
    }
}

/// A VRRP router advertises itself from its own address with the MAC of the virtual one (RFC 9568, 7.2).
#[cold]
fn is_vrrp_of(snapshot: &Snapshot, binding: &Binding, lane: &Lane) -> bool {
    lane.proto == proto::VRRP && snapshot.is_mac_of_any_entry(binding, lane.src_mac)
}

#[cold]
fn unknown_nic<'s>(snapshot: &Snapshot, lane: &Lane, reason: Reason) -> Step<'s> {
    let settings = &snapshot.settings;
    let is_passed_multicast = lane.side == Side::Outside
        && settings
            .pass_multicast
            .iter()
            .any(|&(first, last, v6)| v6 == lane.v6 && (first..=last).contains(&lane.dst));
    let pass = settings.pass_unknown_nic || is_passed_multicast;
    Step::Done(Verdict::nobody(if pass { Reason::Control } else { reason }))
}
