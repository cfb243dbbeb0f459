//! Random policies, and edits of every kind that semantics 5 tells apart.

use std::fmt::Write;
use std::net::IpAddr;

use super::Place;
use crate::{frame::Mac, rng::Rng};

/// How a VPC's frames are wrapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wrap {
    Untagged,
    Vlan(u16),
    Vni(u32),
}

#[derive(Clone, Debug)]
struct Vpc {
    wrap: Wrap,
    /// The octet that tells its addresses from others'; two VPCs may have the same.
    space: u8,
    peers: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Group {
    project: usize,
    description: u8,
    rules: Vec<String>,
    staged: bool,
}

#[derive(Clone, Debug)]
struct Nic {
    project: usize,
    vpc: usize,
    mac: Option<Mac>,
    addresses: Vec<String>,
    allowed: Vec<(String, Option<Mac>)>,
    /// `None`: left out.
    groups: Option<Vec<usize>>,
    limit: Option<u32>,
    observe: Option<bool>,
    description: u8,
}

/// A policy that knows how it was made, so that it can be edited and aimed at.
#[derive(Clone, Debug)]
pub(super) struct PolicyModel {
    vpcs: Vec<Vpc>,
    /// A list a project.
    address_groups: [Vec<String>; 2],
    groups: Vec<Group>,
    nics: Vec<Option<Nic>>,
    /// Inbound rules name groups and address groups, and next to nobody else: what re-judging is
    /// about.
    closed: bool,
}

const PROJECTS: [&str; 2] = ["default", "blue"];
/// What a rule on trial says.
const STAGED: &str = ", staged: true";
/// Hosts that are nobody's NIC, IPv4 first.
pub(super) const STRANGERS: [[&str; 4]; 2] = [
    ["198.51.100.7", "198.51.100.200", "203.0.113.9", "192.0.2.33"],
    ["2001:db8:ff::7", "2001:db8:ff::200", "2001:db8:fe::9", "2001:db8:fd::33"],
];
/// MACs that come with virtual addresses.
pub(super) const VIRTUAL_MACS: [Mac; 2] = [Mac([0, 0, 0x5e, 0, 1, 1]), Mac([2, 0, 0, 0, 2, 7])];
/// Ports that rules and flows like.
pub(super) const PORTS: [u16; 6] = [22, 53, 80, 443, 8000, 8099];

impl PolicyModel {
    pub fn new(rng: &mut Rng) -> PolicyModel {
        let vni = rng.one_in(3);
        let vpcs = (0..1 + rng.below(3))
            .map(|at| Vpc {
                wrap: match at {
                    0 if vni => Wrap::Vni(5001),
                    0 if rng.one_in(2) => Wrap::Untagged,
                    1 if vni && rng.one_in(2) => Wrap::Vni(0xff_ff00),
                    _ => Wrap::Vlan(100 + at as u16),
                },
                space: if rng.one_in(4) { 0 } else { at as u8 },
                peers: (0..at).filter(|_| rng.one_in(3)).collect(),
            })
            .collect();
        let mut draft = PolicyModel {
            vpcs,
            address_groups: [vec![], vec![]],
            groups: vec![],
            nics: vec![],
            closed: rng.one_in(3),
        };
        draft.address_groups = [draft.prefixes(rng), draft.prefixes(rng)];
        for _ in 0..2 + rng.below(3) {
            let group = draft.group(rng);
            draft.groups.push(group);
        }
        // Rules may name groups that come later.
        for at in 0..draft.groups.len() {
            let most = if draft.closed { 2 } else { 7 };
            for _ in 0..most - rng.below(most.min(5)) {
                let rule = draft.rule(rng, draft.groups[at].project);
                draft.groups[at].rules.push(rule);
            }
        }
        for _ in 0..2 + rng.below(5) {
            let nic = draft.nic(rng);
            draft.nics.push(Some(nic));
        }
        draft
    }

    fn group(&self, rng: &mut Rng) -> Group {
        let mut rules = vec![];
        if !rng.one_in(4) {
            rules.push("{ direction: outbound }".to_owned());
        }
        if self.closed {
            // Whoever comes in does so on somebody's membership.
            let at = rng.below(self.groups.len() + 1);
            rules.push(format!("{{ direction: inbound, remote_group: g{at} }}"));
            if rng.one_in(2) {
                rules.push("{ direction: inbound, remote_address_group: a }".to_owned());
            }
            return Group { project: 0, description: 0, rules, staged: false };
        }
        if !rng.one_in(3) {
            rules.push("{ direction: inbound, protocol: tcp, ports: 22-443 }".to_owned());
        }
        if rng.one_in(2) {
            rules.push("{ direction: inbound, priority: 99 }".to_owned());
        }
        Group { project: usize::from(rng.one_in(4)), description: 0, rules, staged: rng.one_in(12) }
    }

    fn nic(&self, rng: &mut Rng) -> Nic {
        let (at, vpc) = (self.nics.len(), rng.below(self.vpcs.len()));
        let project = usize::from(!self.closed && rng.one_in(4));
        let space = self.vpcs[vpc].space;
        let mut addresses = vec![];
        if !rng.one_in(6) {
            addresses.push(format!("10.5.{space}.{}", 10 + at));
        }
        if rng.one_in(2) || addresses.is_empty() {
            addresses.push(format!("2001:db8:{space}::{}", 10 + at));
        }
        let mac = Mac([2, 0, 0, 0, 1, at as u8]);
        let mut nic = Nic {
            project,
            vpc,
            mac: (!rng.one_in(4)).then_some(mac),
            addresses,
            allowed: vec![],
            groups: None,
            limit: None,
            observe: match rng.below(12) {
                0 => Some(true),
                1 => Some(false),
                _ => None,
            },
            description: 0,
        };
        if rng.one_in(3) {
            nic.allowed.push(self.virtual_address(rng, vpc));
        }
        if rng.one_in(6) {
            // Its own address with a second MAC.
            let own = nic.addresses[rng.below(nic.addresses.len())].clone();
            nic.allowed.push((own, Some(rng.pick(&VIRTUAL_MACS))));
        }
        nic.groups = self.groups_for(rng, project);
        nic.limit = rng.one_in(8).then(|| rng.below(6) as u32);
        nic
    }

    fn virtual_address(&self, rng: &mut Rng, vpc: usize) -> (String, Option<Mac>) {
        let space = self.vpcs[vpc].space;
        let address = rng.pick(&["10.5.S.100", "10.5.S.101", "2001:db8:S::100"]);
        let mac = rng.one_in(2).then(|| rng.pick(&VIRTUAL_MACS));
        (address.replace('S', &space.to_string()), mac)
    }

    fn groups_for(&self, rng: &mut Rng, project: usize) -> Option<Vec<usize>> {
        if rng.one_in(10) {
            return None;
        }
        let of_project = (0..self.groups.len()).filter(|at| self.groups[*at].project == project);
        let mut groups: Vec<usize> = of_project.filter(|_| !rng.one_in(3)).collect();
        if rng.one_in(2) {
            groups.reverse();
        }
        groups.truncate(5);
        Some(groups)
    }

    fn prefixes(&self, rng: &mut Rng) -> Vec<String> {
        let all = ["198.51.100.0/24", "203.0.113.9", "2001:db8:ff::/48", "10.5.0.0/16", "192.0.2.33/32"];
        all.iter().filter(|_| rng.one_in(2)).map(|prefix| (*prefix).to_owned()).collect()
    }

    fn rule(&self, rng: &mut Rng, project: usize) -> String {
        let mut rule = format!("{{ direction: {}", rng.pick(&["inbound", "inbound", "outbound"]));
        let protocol = rng.pick(&[
            "any", "tcp", "tcp", "udp", "icmp", "icmpv6", "sctp", "gre", "udplite", "dccp", "6", "1", "58",
            "99",
        ]);
        let _ = write!(rule, ", protocol: {protocol}");
        if matches!(protocol, "tcp" | "udp" | "sctp" | "udplite" | "dccp" | "6") && !rng.one_in(3) {
            let ports = rng.pick(&["22", "53", "80", "443", "1-65535", "22-80", "8000-8099", "443-8000"]);
            let _ = write!(rule, ", ports: {ports}");
        }
        if matches!(protocol, "icmp" | "icmpv6" | "1" | "58") && rng.one_in(2) {
            let kind = if matches!(protocol, "icmp" | "1") { rng.pick(&[8, 8, 13]) } else { 128 };
            let _ = write!(rule, ", icmp_type: {kind}");
            if rng.one_in(2) {
                let _ = write!(rule, ", icmp_code: {}", rng.pick(&[0, 0, 1]));
            }
        }
        let groups: Vec<usize> =
            (0..self.groups.len()).filter(|at| self.groups[*at].project == project).collect();
        match rng.below(8) {
            0 | 1 => {
                let prefix =
                    rng.pick(&["0.0.0.0/0", "198.51.100.0/24", "198.51.100.7", "::/0", "2001:db8:ff::/48"]);
                let _ = write!(rule, ", remote: \"{prefix}\"");
            }
            2..=4 if !groups.is_empty() => {
                let _ = write!(rule, ", remote_group: g{}", rng.pick(&groups));
            }
            5 => rule.push_str(", remote_address_group: a"),
            6 => {
                let _ = write!(rule, ", ethertype: {}", rng.pick(&["IPv4", "IPv6"]));
            }
            _ => {}
        }
        if rng.one_in(5) {
            rule.push_str(", action: deny");
        }
        if rng.one_in(3) {
            let _ = write!(rule, ", priority: {}", rng.pick(&[1, 50, 99, 100]));
        }
        if rng.one_in(6) {
            rule.push_str(STAGED);
        }
        rule + " }"
    }

    /// The document.
    pub fn yaml(&self) -> String {
        let mut text = "vpcs:\n".to_owned();
        for (at, vpc) in self.vpcs.iter().enumerate() {
            let segment = match vpc.wrap {
                Wrap::Untagged => "untagged: true".to_owned(),
                Wrap::Vlan(id) => format!("vlan: {id}"),
                Wrap::Vni(id) => format!("vni: {id}"),
            };
            let peers: Vec<String> = vpc.peers.iter().map(|peer| format!("v{peer}")).collect();
            let _ = writeln!(
                text,
                "  - {{ name: v{at}, segment: {{ {segment} }}, peers: [{}] }}",
                peers.join(", ")
            );
        }
        text.push_str("address_groups:\n");
        for (project, prefixes) in PROJECTS.iter().zip(&self.address_groups) {
            let prefixes: Vec<String> = prefixes.iter().map(|prefix| format!("\"{prefix}\"")).collect();
            let _ =
                writeln!(text, "  - {{ name: a, project: {project}, addresses: [{}] }}", prefixes.join(", "));
        }
        text.push_str("security_groups:\n");
        for (at, group) in self.groups.iter().enumerate() {
            let (project, note) = (PROJECTS[group.project], group.description);
            let _ = writeln!(
                text,
                "  - name: g{at}\n    project: {project}\n    description: n{note}\n    staged: {}\n    rules:",
                group.staged
            );
            for rule in &group.rules {
                let _ = writeln!(text, "      - {rule}");
            }
            if group.rules.is_empty() {
                text.truncate(text.len() - "    rules:\n".len());
            }
        }
        text.push_str("nics:\n");
        for (at, nic) in self.nics.iter().enumerate() {
            if let Some(nic) = nic {
                let _ = writeln!(text, "  - {{ name: n{at}{} }}", nic.yaml());
            }
        }
        if !self.nics.iter().any(Option::is_some) {
            text.truncate(text.len() - "nics:\n".len());
        }
        text
    }

    /// One edit; says what it is. The result may be refused, and is then to be forgotten.
    pub fn edit(&mut self, rng: &mut Rng) -> &'static str {
        // Where rules name groups, what the groups hold changes more than the rules do.
        let first = if self.closed { rng.pick(&[0, 8]) } else { 0 };
        match first + rng.below(24 - first) {
            0..=7 => self.edit_group(rng),
            8..=10 => {
                let gone = (0..self.nics.len()).find(|at| self.nics[*at].is_none());
                self.make_nic(rng, gone);
                "create a NIC"
            }
            11 => "nothing",
            12 | 13 => {
                let project = rng.below(2);
                self.address_groups[project] = self.prefixes(rng);
                "edit an address group"
            }
            14 => {
                let vpc = rng.below(self.vpcs.len());
                self.vpcs[vpc].peers = (0..vpc).filter(|_| rng.one_in(2)).collect();
                "edit peerings"
            }
            15 => {
                let nic = rng.below(self.nics.len());
                self.nics[nic] = None;
                "delete a NIC"
            }
            16 | 17 => {
                let nic = rng.below(self.nics.len());
                self.move_address(rng, nic);
                "take or give an address"
            }
            _ => self.edit_nic(rng),
        }
    }

    fn edit_group(&mut self, rng: &mut Rng) -> &'static str {
        let at = rng.below(self.groups.len());
        let rule = self.rule(rng, self.groups[at].project);
        let Group { rules, description, staged, .. } = &mut self.groups[at];
        match rng.below(11) {
            0..=2 => {
                rules.push(rule);
                "add a rule"
            }
            3 | 4 => {
                if !rules.is_empty() {
                    rules.remove(rng.below(rules.len()));
                }
                "delete a rule"
            }
            5 => {
                let at = rng.below(rules.len() + 1);
                rules.splice(at..rules.len().min(at + 1), [rule]);
                "modify a rule"
            }
            6 => {
                rules.reverse();
                "reorder rules"
            }
            7 => {
                *staged = !*staged;
                "stage or promote a group"
            }
            8 | 9 if !rules.is_empty() => {
                let at = rng.below(rules.len());
                rules[at] = match rules[at].contains(STAGED) {
                    true => rules[at].replace(STAGED, ""),
                    false => rules[at].replace(" }", &format!("{STAGED} }}")),
                };
                "stage or promote a rule"
            }
            _ => {
                *description = rng.u8();
                "describe a group"
            }
        }
    }

    fn edit_nic(&mut self, rng: &mut Rng) -> &'static str {
        let (at, vpc) = (rng.below(self.nics.len()), rng.below(self.vpcs.len()));
        let project = self.nics[at].as_ref().map_or(0, |nic| nic.project);
        let groups = self.groups_for(rng, project);
        let Some(nic) = self.nics[at].as_mut() else { return "nothing" };
        match rng.below(8) {
            0 | 1 => {
                nic.groups = groups;
                "join and leave groups"
            }
            2 | 3 => {
                if let Some(groups) = nic.groups.as_mut() {
                    groups.pop();
                }
                "leave a group"
            }
            4 => {
                nic.mac = rng.pick(&[None, Some(Mac([2, 0, 0, 0, 1, 0xee])), nic.mac]);
                nic.description = rng.u8();
                "change a MAC"
            }
            5 | 6 => {
                nic.limit = rng.pick(&[None, Some(0), Some(2), Some(50)]);
                nic.observe = rng.pick(&[None, None, Some(false), Some(true)]);
                "change a limit and a mode"
            }
            _ => {
                nic.vpc = vpc;
                "move a NIC to another VPC"
            }
        }
    }

    /// A NIC more, or the one back that was deleted.
    fn make_nic(&mut self, rng: &mut Rng, gone: Option<usize>) {
        let Some(at) = gone else {
            if self.nics.len() < 9 {
                let nic = self.nic(rng);
                self.nics.push(Some(nic));
            }
            return;
        };
        // Its number makes its addresses.
        let behind = self.nics.split_off(at);
        let nic = self.nic(rng);
        self.nics.extend(behind);
        self.nics[at] = Some(nic);
    }

    fn move_address(&mut self, rng: &mut Rng, at: usize) {
        let Some(vpc) = self.nics[at].as_ref().map(|nic| nic.vpc) else { return };
        let (space, given) = (self.vpcs[vpc].space, self.virtual_address(rng, vpc));
        let Some(nic) = self.nics[at].as_mut() else { return };
        let v4 = rng.one_in(2);
        let own =
            if v4 { format!("10.5.{space}.{}", 10 + at) } else { format!("2001:db8:{space}::{}", 10 + at) };
        match nic.addresses.iter().position(|address| *address == own) {
            _ if rng.one_in(3) => {
                nic.allowed.clear();
                nic.allowed.extend(rng.one_in(2).then_some(given));
            }
            Some(at) => {
                nic.addresses.remove(at);
            }
            None => nic.addresses.push(own),
        }
    }

    /// Where frames to and from one of the addresses of a NIC go, or of one that is gone.
    pub fn place(&self, rng: &mut Rng) -> Option<Place> {
        let nic = self.nics[rng.below(self.nics.len())].as_ref()?;
        let own = nic.addresses.iter().map(|address| (address, None));
        let all: Vec<(&String, Option<Mac>)> =
            own.chain(nic.allowed.iter().map(|(a, mac)| (a, *mac))).collect();
        if all.is_empty() {
            return None;
        }
        let (address, entry) = rng.pick(&all);
        Some(Place {
            wrap: self.vpcs[nic.vpc].wrap,
            mac: entry.or(nic.mac).unwrap_or(Mac([2, 0, 0, 0, 9, 9])),
            local: address.parse().expect("an address"),
        })
    }

    /// Somebody to talk to: a stranger, or another NIC.
    pub fn remote(&self, rng: &mut Rng, v6: bool) -> IpAddr {
        if rng.one_in(if self.closed { 1 } else { 3 })
            && let Some(other) = self.place(rng)
            && other.local.is_ipv6() == v6
        {
            return other.local;
        }
        rng.pick(&STRANGERS[usize::from(v6)]).parse().expect("an address")
    }
}

impl Nic {
    fn yaml(&self) -> String {
        let mut text = format!(", project: {}, vpc: v{}", PROJECTS[self.project], self.vpc);
        let mac = |mac: Mac| mac.0.map(|byte| format!("{byte:02x}")).join(":");
        if let Some(own) = self.mac {
            let _ = write!(text, ", mac: \"{}\"", mac(own));
        }
        let quoted: Vec<String> = self.addresses.iter().map(|address| format!("\"{address}\"")).collect();
        let _ = write!(text, ", addresses: [{}]", quoted.join(", "));
        let allowed = self.allowed.iter().map(|(address, entry)| match entry {
            Some(entry) => format!("{{ address: \"{address}\", mac: \"{}\" }}", mac(*entry)),
            None => format!("\"{address}\""),
        });
        let _ = write!(text, ", allowed_addresses: [{}]", allowed.collect::<Vec<_>>().join(", "));
        if let Some(groups) = &self.groups {
            let names: Vec<String> = groups.iter().map(|group| format!("g{group}")).collect();
            let _ = write!(text, ", security_groups: [{}]", names.join(", "));
        }
        if let Some(limit) = self.limit {
            let _ = write!(text, ", max_connections: {limit}");
        }
        if let Some(observe) = self.observe {
            let _ = write!(text, ", mode: {}", if observe { "observe" } else { "enforce" });
        }
        let _ = write!(text, ", description: n{}", self.description);
        text
    }
}
