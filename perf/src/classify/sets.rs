//! Sets of rules after the manner of ClassBench's access lists (Taylor and Turner, "ClassBench: a
//! packet classification benchmark", 2007), projected to what a security group's rule knows: remote
//! prefix, destination ports, protocol. And headers that hit and miss.
//!
//! Protocols and classes of ports come in the shares of ClassBench's seed `acl1` (TCP 87 %, any 8.5
//! %, ICMP 3 %, UDP 1.5 %; of TCP's ports 65 % exact, 13 % ranges, 22 % all), remotes too (84 %
//! hosts, 10 % /23, few in between, 1 % short ones), and like there they crowd into few networks.
//! Its lists of ports and its tree of addresses are our own.

use std::collections::HashSet;
use std::fmt::Write;
use std::net::Ipv4Addr;

use control::document::Limits;
use testkit::rng::Rng;

/// What no more rules than the configuration allows can be in a group.
const RULES_PER_GROUP: usize = 1000;
/// The quotas that the largest set needs, and the configuration allows.
pub const LIMITS: Limits = Limits { rules_per_group: RULES_PER_GROUP, groups_per_nic: 100 };
/// Different exact ports and port ranges in a set.
const EXACT_PORTS: usize = 88;
const PORT_RANGES: usize = 34;

const ALL_PORTS: (u16, u16) = (0, u16::MAX);

/// A rule of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The remote's first address and how many bits of it count.
    pub remote: (u32, u8),
    /// First and last destination port.
    pub ports: (u16, u16),
    /// IP protocol; `None` for any.
    pub protocol: Option<u8>,
}

impl Rule {
    fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.remote.1)).unwrap_or(0)
    }

    /// As in a policy document: the keys that say what it matches.
    pub fn written(&self) -> String {
        let mut text = match self.protocol {
            None => "protocol: any".to_owned(),
            Some(number) => format!("protocol: {number}"),
        };
        if self.ports != ALL_PORTS {
            text += &format!(", ports: {}-{}", self.ports.0, self.ports.1);
        }
        text + &format!(", remote: {}/{}", Ipv4Addr::from(self.remote.0), self.remote.1)
    }

    /// What a rule means, said plainly.
    pub fn matches(&self, header: &Header) -> bool {
        header.remote & self.mask() == self.remote.0
            && (self.ports.0..=self.ports.1).contains(&header.port)
            && self.protocol.is_none_or(|protocol| protocol == header.protocol)
    }
}

/// What is classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The other side's address.
    pub remote: u32,
    /// Destination port.
    pub port: u16,
    /// IP protocol.
    pub protocol: u8,
}

/// Rules, the first to win first.
pub struct Set {
    /// The rules.
    pub rules: Vec<Rule>,
    rng: Rng,
    networks: Vec<u32>,
}

/// A random choice of which the first are the likeliest by far, as with ports and networks in use.
fn skewed(rng: &mut Rng, len: usize) -> usize {
    let (a, b) = (rng.below(len), rng.below(len));
    a.min(b)
}

impl Set {
    /// `count` different rules, the same for the same seed.
    pub fn new(count: usize, seed: u64) -> Set {
        let mut rng = Rng::new(seed);
        // Networks of 512 addresses, which lie in a few large ones.
        let sites: Vec<u32> =
            (0..8).map(|_| (1 + rng.u32() % 223) << 24 | u32::from(rng.u8()) << 16).collect();
        let networks: Vec<u32> =
            (0..(count / 16).max(4)).map(|_| rng.pick(&sites) | (rng.u32() & 0xFE00)).collect();
        let exact: Vec<u16> = (0..EXACT_PORTS)
            .map(|n| if n % 3 == 0 { 1 + rng.u16() % 1024 } else { 1024 + rng.u16() % 31_000 })
            .collect();
        let mut range = |n: usize| {
            let first = 1024 + rng.u16() % 60_000;
            let wide = [9, 19, 49, 99, u16::MAX][if n < 2 { 4 } else { n % 4 }];
            (first, first.saturating_add(wide))
        };
        let ranges: Vec<(u16, u16)> = (0..PORT_RANGES).map(&mut range).collect();
        let mut seen = HashSet::new();
        let mut set = Set { rules: Vec::with_capacity(count), rng, networks };
        while set.rules.len() < count {
            let rule = set.rule(&exact, &ranges);
            if seen.insert(rule) {
                set.rules.push(rule);
            }
        }
        // An access list names what is special first: or else what is behind a wide rule would
        // never win.
        set.rules.sort_by_key(|rule| std::cmp::Reverse((rule.remote.1, rule.protocol.is_some())));
        set
    }

    fn rule(&mut self, exact: &[u16], ranges: &[(u16, u16)]) -> Rule {
        let rng = &mut self.rng;
        let protocol = match rng.below(1000) {
            0..870 => Some(6),
            870..955 => None,
            955..985 => Some(1),
            _ => Some(17),
        };
        let ports = match (protocol, rng.below(1000)) {
            (Some(6 | 17), 0..653) => {
                let port = exact[skewed(rng, exact.len())];
                (port, port)
            }
            (Some(6 | 17), 653..784) => ranges[skewed(rng, ranges.len())],
            _ => ALL_PORTS,
        };
        let length = match rng.below(1000) {
            0..840 => 32,
            840..940 => 23,
            940..990 => 24 + rng.below(8) as u8,
            _ => rng.pick(&[0, 8, 13, 16]),
        };
        let address = self.networks[skewed(&mut self.rng, self.networks.len())] | self.rng.u32() & 0x1FF;
        let mut rule = Rule { remote: (address, length), ports, protocol };
        rule.remote.0 &= rule.mask();
        rule
    }

    /// Headers of which three in four lie in some rule's place, and one somewhere near.
    pub fn headers(&mut self, count: usize) -> Vec<Header> {
        (0..count).map(|_| self.header()).collect()
    }

    fn header(&mut self) -> Header {
        let rng = &mut self.rng;
        if rng.one_in(4) {
            let network = rng.pick(&self.networks);
            let remote = if rng.one_in(2) { network | rng.u32() & 0x1FF } else { rng.u32() };
            return Header { remote, port: rng.u16(), protocol: rng.pick(&[6, 6, 6, 17, 1]) };
        }
        let rule = self.rules[rng.below(self.rules.len())];
        let span = usize::from(rule.ports.1 - rule.ports.0) + 1;
        Header {
            remote: rule.remote.0 | rng.u32() & !rule.mask(),
            port: rule.ports.0 + rng.below(span) as u16,
            protocol: rule.protocol.unwrap_or_else(|| rng.pick(&[6, 17, 1, 47])),
        }
    }

    /// Which rule wins, found the slow way.
    pub fn winner(&self, header: &Header) -> Option<usize> {
        self.rules.iter().position(|rule| rule.matches(header))
    }

    /// As a policy document: a NIC whose groups hold the rules. Where a rule stands in the order is
    /// said by a hundred priorities; inside of one, by position. One rule in ten denies, first of
    /// its priority.
    pub fn document(&self) -> String {
        let mut text = "vpcs: [{name: prod, segment: {untagged: true}}]\nsecurity_groups:\n".to_owned();
        let mut groups = Vec::new();
        for (group, rules) in self.rules.chunks(RULES_PER_GROUP).enumerate() {
            let name = format!("g{group}");
            // Writing to a string does not fail.
            let _ = writeln!(text, "  - name: {name}\n    rules:");
            for (at, rule) in rules.iter().enumerate() {
                let at = group * RULES_PER_GROUP + at;
                let _ = writeln!(text, "      - {{direction: inbound, {}{}}}", rule.written(), self.rank(at));
            }
            groups.push(name);
        }
        let groups = groups.join(", ");
        text + &format!(
            "nics: [{{name: n, vpc: prod, addresses: [10.0.0.1], security_groups: [{groups}]}}]\n"
        )
    }

    fn rank(&self, at: usize) -> String {
        let (priority, first) = self.priority(at);
        let action = if self.denies(at, first) { ", action: deny" } else { "" };
        format!(", priority: {priority}{action}")
    }

    /// A rule's priority, and the first rule that has it.
    fn priority(&self, at: usize) -> (usize, usize) {
        let each = self.rules.len().div_ceil(100);
        (1 + at / each, at / each * each)
    }

    /// The first tenth of each priority, so that the order is the same with and without "deny
    /// first".
    fn denies(&self, at: usize, first: usize) -> bool {
        let each = self.rules.len().div_ceil(100);
        if each < 10 { at.is_multiple_of(10) && at == first } else { at - first < each / 10 }
    }

    /// The rules as `dpdk-test-acl` reads them: sources are remotes, everything else is open.
    pub fn acl_rules(&self) -> String {
        let mut text = String::new();
        for Rule { remote: (address, length), ports: (first, last), protocol } in &self.rules {
            let protocol = protocol.map_or("0x00/0x00".to_owned(), |number| format!("{number:#04x}/0xFF"));
            let address = Ipv4Addr::from(*address);
            // Writing to a string does not fail.
            let _ = writeln!(text, "@{address}/{length} 0.0.0.0/0 0 : 65535 {first} : {last} {protocol}");
        }
        text
    }
}

/// Headers as `dpdk-test-acl` reads them.
pub fn acl_trace(headers: &[Header]) -> String {
    let line =
        |Header { remote, port, protocol }: &Header| format!("{remote} 167772161 40000 {port} {protocol}\n");
    headers.iter().map(line).collect()
}
