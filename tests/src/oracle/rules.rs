//! Who has an address, and what the rules say: linear scans of the policy itself (semantics 2.3,
//! 2.5, 3).

use std::net::IpAddr;

use control::model::{Action, Direction, Key, Nic, Policy, Prefix, Remote, Rule, Segment, Vpc};

/// The packet that opens a connection, as rules look at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Opening {
    pub direction: Direction,
    pub protocol: u8,
    pub remote: IpAddr,
    pub what: What,
}

/// What rules look at behind the addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// "Always the opening packet's destination port" (3.4).
    Port(u16),
    /// Type and code.
    Icmp(u8, u8),
    Nothing,
}

/// What the rules say to an opening packet, and the name of the rule that says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Say {
    Allowed(String),
    Denied(String),
    NoRule,
}

pub(super) fn vpc_of(policy: &Policy, segment: Segment) -> Option<&Vpc> {
    policy.vpcs.values().map(AsRef::as_ref).find(|vpc: &&Vpc| vpc.segment == segment)
}

/// The NIC that has an address in a VPC. Of several that list it, "the one whose MAC (its own or
/// the entry's) the frame bears …: if that names none or several, the first by name" (2.5).
pub(super) fn owner<'p>(policy: &'p Policy, vpc: &str, address: IpAddr, mac: [u8; 6]) -> Option<&'p Nic> {
    let holders: Vec<&Nic> = policy
        .nics
        .values()
        .map(AsRef::as_ref)
        .filter(|nic: &&Nic| &*nic.vpc == vpc && has(nic, address))
        .collect();
    let bears = |nic: &&&Nic| {
        let own = nic.mac.map(|mac| mac.bytes());
        own == Some(mac) || entry_mac(nic, address) == Some(mac)
    };
    let named: Vec<&&Nic> = holders.iter().filter(bears).collect();
    match named[..] {
        [one] => Some(one),
        // The policy keeps its NICs in order of project and name.
        _ => holders.first().copied(),
    }
}

/// Whether the NIC has the address, fixed or allowed.
pub(super) fn has(nic: &Nic, address: IpAddr) -> bool {
    nic.addresses.contains(&address) || nic.allowed_addresses.iter().any(|a| a.address == address)
}

fn entry_mac(nic: &Nic, address: IpAddr) -> Option<[u8; 6]> {
    nic.allowed_addresses.iter().find(|a| a.address == address)?.mac.map(|mac| mac.bytes())
}

/// "The frame's source MAC must be that of the allowed address's entry, or else the NIC's `mac`,
/// where there is one" (2.3). "A NIC may list its own fixed address as allowed with a `mac`, which
/// is then good for it beside the NIC's own" (2.5).
pub(super) fn mac_fits(nic: &Nic, address: IpAddr, mac: [u8; 6]) -> bool {
    let (entry, own) = (entry_mac(nic, address), nic.mac.map(|mac| mac.bytes()));
    let good = match nic.addresses.contains(&address) {
        true => vec![entry, own],
        false => vec![entry.or(own)],
    };
    let listed: Vec<[u8; 6]> = good.into_iter().flatten().collect();
    listed.is_empty() || listed.contains(&mac)
}

/// An advertisement of a virtual router comes from the router's own address with the virtual MAC
/// (RFC 9568, 7.2).
pub(super) fn is_virtual_router(nic: &Nic, protocol: u8, mac: [u8; 6]) -> bool {
    protocol == 112 && nic.allowed_addresses.iter().any(|entry| entry.mac.is_some_and(|it| it.bytes() == mac))
}

/// What all rules of all groups of a NIC say (3.2, 3.3); staged ones have no say (3.9).
pub(super) fn say(policy: &Policy, nic: &Nic, opening: &Opening) -> Say {
    match winner(policy, nic, opening, |rule| !rule.staged) {
        Some((_, true, name, _)) => Say::Allowed(name),
        Some((_, false, name, _)) => Say::Denied(name),
        None => Say::NoRule,
    }
}

/// The rule that would win if staged ones had a say: its name, whether it allows, whether it is
/// staged (3.9).
pub(super) fn would_say(policy: &Policy, nic: &Nic, opening: &Opening) -> Option<(String, bool, bool)> {
    winner(policy, nic, opening, |_| true).map(|(_, allows, name, staged)| (name, allows, staged))
}

/// Of the rules that are asked the one that wins: priority, whether it allows, name, whether it is
/// staged.
fn winner(
    policy: &Policy,
    nic: &Nic,
    opening: &Opening,
    is_asked: impl Fn(&Rule) -> bool,
) -> Option<(u8, bool, String, bool)> {
    let mut best: Option<(u8, bool, String, bool)> = None;
    // In order of the NIC's groups, then of position: the first of equals stays.
    for key in &nic.security_groups {
        let Some(group) = policy.security_groups.get(key) else { continue };
        for (position, rule) in group.rules.iter().enumerate() {
            if !is_asked(rule) || !matches(policy, nic, rule, opening) {
                continue;
            }
            // "The lowest priority number wins, and deny beats allow at the same number."
            let allows = rule.action == Action::Allow;
            if best.as_ref().is_none_or(|(priority, a, ..)| (rule.priority, allows) < (*priority, *a)) {
                best = Some((rule.priority, allows, format!("{key}#{position}"), rule.staged));
            }
        }
    }
    best
}

fn matches(policy: &Policy, nic: &Nic, rule: &Rule, opening: &Opening) -> bool {
    let v6 = opening.remote.is_ipv6();
    let family = if v6 { rule.ethertypes.v6 } else { rule.ethertypes.v4 };
    let protocol = rule.protocol.is_none_or(|number| number == opening.protocol);
    // "Port 0 is matched only by a rule without ports" (3.4): ports are 1–65535.
    let ports = rule
        .ports
        .is_none_or(|(low, high)| matches!(opening.what, What::Port(port) if (low..=high).contains(&port)));
    let icmp = rule.icmp.is_none_or(|(kind, code)| {
        matches!(opening.what, What::Icmp(k, c) if k == kind && code.is_none_or(|code| code == c))
    });
    rule.direction == opening.direction
        && family
        && protocol
        && ports
        && icmp
        && remote(policy, nic, &rule.remote).iter().any(|prefix| prefix.contains(opening.remote))
}

/// Every prefix that a remote stands for, as seen by a NIC (3.1, 3.5, 3.6).
pub(super) fn remote(policy: &Policy, nic: &Nic, remote: &Remote) -> Vec<Prefix> {
    let everyone =
        [IpAddr::from([0; 4]), IpAddr::from([0u16; 8])].map(|zero| Prefix::new(zero, 0).expect("a prefix"));
    match remote {
        Remote::Any => everyone.to_vec(),
        Remote::Prefix(prefix) => vec![*prefix],
        Remote::AddressGroup(key) => {
            policy.address_groups.get(key).map_or(vec![], |group| group.prefixes.clone())
        }
        Remote::Group(key) => members(policy, key)
            .filter(|member| in_reach(policy, &nic.vpc, &member.vpc))
            .flat_map(Nic::all_addresses)
            .map(Prefix::from)
            .collect(),
    }
}

fn members<'p>(policy: &'p Policy, group: &'p Key) -> impl Iterator<Item = &'p Nic> {
    policy.nics.values().map(AsRef::as_ref).filter(move |nic| nic.security_groups.contains(group))
}

/// "The judged NIC's own or peered with it (one hop)" (3.5).
fn in_reach(policy: &Policy, from: &str, to: &str) -> bool {
    let names = |a: &str, b: &str| policy.vpcs.get(a).is_some_and(|vpc| vpc.peers.contains(b));
    from == to || names(from, to) || names(to, from)
}
