//! What passes or drops whatever the rules say: ARP, neighbours, DHCP, groups (semantics 2.6).

use std::net::{IpAddr, Ipv4Addr};

use control::model::{Nic, Policy};
use engine::Side;

use super::Outcome;
use super::read::{Bytes, Fragment, Ip, Link, UDP};
use super::rules;

pub(super) fn arp(policy: &Policy, vpc: &str, side: Side, link: &Link<'_>) -> Outcome {
    let packet = link.payload;
    // "Cut, or not Ethernet/IPv4: `malformed`", from outside too.
    if !is_arp(packet) {
        return Outcome::nobody("malformed");
    }
    let (sender_mac, sender, target) = (packet.mac(8), packet.v4(14), packet.v4(24));
    if side == Side::Outside {
        return Outcome::of("control", rules::owner(policy, vpc, target, link.dst));
    }
    let owner_of = |address| rules::owner(policy, vpc, address, link.src);
    // "The Ethernet source and sender MAC are that NIC's where it lists one."
    let fits = |nic: &Nic, address| {
        rules::mac_fits(nic, address, link.src) && rules::mac_fits(nic, address, sender_mac)
    };
    if let Some(owner) = owner_of(sender) {
        let reason = if fits(owner, sender) { "control" } else { "spoofed" };
        return Outcome::of(reason, Some(owner));
    }
    // "(or 0.0.0.0 and the target is: a probe)"; "else null (an ARP probe …); a `spoofed` names the
    // owner of the address".
    match owner_of(target).filter(|_| sender == Ipv4Addr::UNSPECIFIED) {
        Some(owner) if fits(owner, target) => Outcome::nobody("control"),
        owner => Outcome::of("spoofed", owner),
    }
}

fn is_arp(packet: Bytes<'_>) -> bool {
    packet.holds(28)
        && packet.u16(0) == 1
        && packet.u16(2) == 0x0800
        && packet.data[4] == 6
        && packet.data[5] == 4
}

/// The verdict on IP traffic that no rule judges; `None` for all other.
pub(super) fn ip(policy: &Policy, vpc: &str, side: Side, link: &Link<'_>, ip: &Ip<'_>) -> Option<Outcome> {
    let mac = if side == Side::Inside { link.src } else { link.dst };
    let local = if side == Side::Inside { ip.src } else { ip.dst };
    let owner = rules::owner(policy, vpc, local, mac);
    let traffic = Traffic { policy, vpc, side, mac, ip, owner };
    let kind = ip.l4.data.first().copied().unwrap_or_default();
    match (ip.v6, ip.protocol) {
        // IGMP shows in the IP header; what else a later fragment holds nobody knows: it follows
        // its first (4.6).
        (false, 2) => Some(traffic.groups()),
        _ if matches!(ip.fragment, Fragment::Later(_)) => None,
        (true, 58) if (133..=137).contains(&kind) => Some(traffic.neighbours(kind)),
        (true, 58) if matches!(kind, 130..=132 | 143) => Some(traffic.groups()),
        (_, UDP) => traffic.dhcp(),
        _ => None,
    }
}

struct Traffic<'a> {
    policy: &'a Policy,
    vpc: &'a str,
    side: Side,
    mac: [u8; 6],
    ip: &'a Ip<'a>,
    /// Of the source address from inside, of the destination from outside.
    owner: Option<&'a Nic>,
}

impl Traffic<'_> {
    fn outcome(&self, reason: &'static str) -> Outcome {
        Outcome::of(reason, self.owner)
    }

    /// From inside: the source is a NIC's own, with its MAC, or one that anybody may use.
    fn own_or(&self, anybody: bool) -> Outcome {
        let fits = match self.owner {
            Some(owner) => rules::mac_fits(owner, self.ip.src, self.mac),
            None => anybody,
        };
        self.outcome(if fits { "control" } else { "spoofed" })
    }

    fn neighbours(&self, kind: u8) -> Outcome {
        // RFC 4861: RS, RA, NS, NA, redirect.
        let least = [8, 16, 24, 24, 40][usize::from(kind - 133)];
        // "ND of any kind without hop limit 255, with a fragment header, or too short."
        if self.ip.hop_limit != 255 || self.ip.has_fragment_header || !self.ip.l4.holds(least) {
            return Outcome::nobody("malformed");
        }
        match (kind, self.side) {
            (137, _) | (134, Side::Inside) => self.outcome("rogue"),
            (_, Side::Outside) => self.outcome("control"),
            (136, Side::Inside) => self.advertisement(self.ip.l4.v6(8)),
            _ => self.own_or(self.ip.src.is_unspecified() || is_link_local(self.ip.src)),
        }
    }

    /// "An NA's target is that NIC's address or link-local, and the MAC fits."
    fn advertisement(&self, target: IpAddr) -> Outcome {
        if let Some(owner) = self.owner {
            let fits = rules::mac_fits(owner, self.ip.src, self.mac);
            let own = rules::has(owner, target) || is_link_local(target);
            return self.outcome(if fits && own { "control" } else { "spoofed" });
        }
        let anybody = self.ip.src.is_unspecified() || is_link_local(self.ip.src);
        if !anybody {
            return Outcome::nobody("spoofed");
        }
        // "NA from a link-local source: target"; "ND from `::`: null"; "a `spoofed` names the owner
        // of the address".
        let holder = rules::owner(self.policy, self.vpc, target, self.mac);
        let fits = match holder {
            Some(nic) => rules::mac_fits(nic, target, self.mac),
            None => is_link_local(target),
        };
        match fits {
            true => Outcome::of("control", holder.filter(|_| is_link_local(self.ip.src))),
            false => Outcome::of("spoofed", holder),
        }
    }

    fn groups(&self) -> Outcome {
        match self.side {
            Side::Outside => self.outcome("control"),
            Side::Inside => self.own_or(self.ip.src.is_unspecified() || is_link_local(self.ip.src)),
        }
    }

    fn dhcp(&self) -> Option<Outcome> {
        let ports = self.ip.ports()?;
        let (client, server) = if self.ip.v6 { ((546, 547), (547, 546)) } else { ((68, 67), (67, 68)) };
        if ports == client {
            // "Passes if the source is 0.0.0.0 (v6: link-local) or a NIC's own, with its MAC";
            // "rules decide".
            let anybody = if self.ip.v6 { is_link_local(self.ip.src) } else { self.ip.src.is_unspecified() };
            return (self.side == Side::Inside).then(|| self.own_or(anybody));
        }
        (ports == server).then(|| self.outcome(if self.side == Side::Inside { "rogue" } else { "control" }))
    }
}

/// fe80::/10.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80)
}
