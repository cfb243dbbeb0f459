//! Rules and what they mean.

use serde::{Deserialize, Serialize};

use super::{Key, Prefix};

/// The weakest priority, and the default one.
pub const MAX_PRIORITY: u8 = 100;

/// Protocols by name, and what kind of detail a rule may give with one.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;

    /// Every name that a document may use, with its number.
    pub const NAMES: [(&str, u8); 12] = [
        ("tcp", 6),
        ("udp", 17),
        ("icmp", ICMP),
        ("icmpv6", ICMPV6),
        ("sctp", 132),
        ("gre", 47),
        ("esp", 50),
        ("ah", 51),
        ("ipip", 4),
        ("dccp", 33),
        ("udplite", 136),
        ("vrrp", 112),
    ];

    /// The number that `name` stands for.
    pub fn by_name(name: &str) -> Option<u8> {
        NAMES.iter().find(|(n, _)| *n == name).map(|&(_, number)| number)
    }

    /// The name of `number`, where it has one.
    pub fn name(number: u8) -> Option<&'static str> {
        NAMES.iter().find(|(_, n)| *n == number).map(|&(name, _)| name)
    }

    /// Whether a rule for it may name ports.
    pub fn has_ports(number: u8) -> bool {
        matches!(number, 6 | 17 | 33 | 132 | 136)
    }

    /// Whether a rule for it may name an ICMP type and code.
    pub fn is_icmp(number: u8) -> bool {
        matches!(number, ICMP | ICMPV6)
    }
}

/// Relative to the NIC: inbound enters the instance, outbound leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// From outside to the instance.
    Inbound,
    /// From the instance to outside.
    Outbound,
}

/// The families that a rule is about; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ethertypes {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Ethertypes {
    /// IPv4 and IPv6.
    pub const BOTH: Ethertypes = Ethertypes { v4: true, v6: true };
    /// IPv4 alone.
    pub const V4: Ethertypes = Ethertypes { v4: true, v6: false };
    /// IPv6 alone.
    pub const V6: Ethertypes = Ethertypes { v4: false, v6: true };

    /// The family of a prefix.
    pub fn of(prefix: &Prefix) -> Ethertypes {
        if prefix.is_ipv4() { Ethertypes::V4 } else { Ethertypes::V6 }
    }
}

/// Whom a rule is about, on the far side of the connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Remote {
    /// Everyone of the rule's families.
    Any,
    /// Addresses of one prefix, whose family is the rule's.
    Prefix(Prefix),
    /// The addresses of a group's NICs in reach (semantics 3.5).
    Group(Key),
    /// The prefixes of an address group.
    AddressGroup(Key),
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Let it open a connection.
    Allow,
    /// Drop it.
    Deny,
}

/// One rule of a security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Of whose opening packets.
    pub direction: Direction,
    /// Which families. With [`Remote::Prefix`] exactly the prefix's.
    pub ethertypes: Ethertypes,
    /// The protocol number; `None` is any. A number means the same in both families: 1 is ICMP's number under IPv6 too.
    pub protocol: Option<u8>,
    /// The destination ports, both ends included, 1–65535; `None` is any, port 0 too.
    pub ports: Option<(u16, u16)>,
    /// The ICMP type and, with it, code.
    pub icmp: Option<(u8, Option<u8>)>,
    /// The far side.
    pub remote: Remote,
    /// What to do.
    pub action: Action,
    /// 1, the strongest, to [`MAX_PRIORITY`].
    pub priority: u8,
    /// Free text.
    pub description: String,
}

/// What a rule matches and does, in one spelling: two rules mean the same exactly if these are equal.
///
/// One rule for both families and two rules for one each are *not* the same meaning, though together they match the
/// same packets: they are one rule and two, with places of their own in counters and verdicts. Telling them apart errs
/// to the side of flushing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Meaning {
    /// See [`Rule::direction`].
    pub direction: Direction,
    /// See [`Rule::ethertypes`].
    pub ethertypes: Ethertypes,
    /// See [`Rule::protocol`].
    pub protocol: Option<u8>,
    /// See [`Rule::ports`].
    pub ports: Option<(u16, u16)>,
    /// See [`Rule::icmp`].
    pub icmp: Option<(u8, Option<u8>)>,
    /// Never a prefix of length 0: that is [`Remote::Any`].
    pub remote: Remote,
    /// See [`Rule::action`].
    pub action: Action,
    /// See [`Rule::priority`].
    pub priority: u8,
}

impl Rule {
    /// The rule without its spelling: `0.0.0.0/0` is everyone of IPv4, and descriptions don't count.
    pub fn meaning(&self) -> Meaning {
        let (ethertypes, remote) = match &self.remote {
            Remote::Prefix(p) if p.is_everything() => (Ethertypes::of(p), Remote::Any),
            Remote::Prefix(p) => (Ethertypes::of(p), self.remote.clone()),
            other => (self.ethertypes, other.clone()),
        };
        Meaning {
            direction: self.direction,
            ethertypes,
            protocol: self.protocol,
            ports: self.ports,
            icmp: self.icmp,
            remote,
            action: self.action,
            priority: self.priority,
        }
    }
}
