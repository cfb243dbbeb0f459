//! Rules and what they mean.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Key, Prefix};

/// The weakest priority, and the default one.
pub const MAX_PRIORITY: u8 = 100;

/// Protocols by name, and what kind of detail a rule may give with one.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// The ICMP types that open a connection (semantics 4.1).
    pub const ICMP_REQUESTS: [u8; 5] = [8, 13, 15, 17, 42];
    /// Those of ICMPv6.
    pub const ICMPV6_REQUESTS: [u8; 2] = [128, 160];

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
    /// On trial: what it would decide is told, and it decides nothing (semantics 3.9). Of every rule of a staged group.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub staged: bool,
}

/// What a rule matches and does, in one spelling: two rules mean the same exactly if these are equal.
///
/// One rule for both families and two rules for one each are *not* the same meaning, though together they match the
/// same packets: they are one rule and two, with places of their own in counters and verdicts. Telling them apart errs
/// to the side of flushing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// See [`Rule::staged`]: a rule that is promoted is another one, with counters of its own.
    pub staged: bool,
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
            staged: self.staged,
        }
    }
}

/// Hexadecimal digits of an [`Identity`].
const DIGITS: usize = 10;

/// What a rule is told by wherever it stands: a hash of its [`Meaning`]. Rules of one meaning in two
/// groups have the same. Written `r-` and 10 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity(u64);

impl Identity {
    /// Its digits as a number of 40 bits.
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r-{:0DIGITS$x}", self.0)
    }
}

impl FromStr for Identity {
    type Err = ();

    fn from_str(text: &str) -> Result<Identity, ()> {
        let digits = text.strip_prefix("r-").ok_or(())?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != DIGITS || !digits.bytes().all(is_digit) {
            return Err(());
        }
        u64::from_str_radix(digits, 16).map(Identity).map_err(|_| ())
    }
}

impl Meaning {
    /// The identity of rules that mean this: equal on every appliance and in every release, so the text
    /// that is hashed must never change for a rule that can be written today.
    pub fn identity(&self) -> Identity {
        let direction = match self.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        let families = match self.ethertypes {
            Ethertypes { v4: true, v6: true } => "46",
            Ethertypes { v6: true, .. } => "6",
            Ethertypes { .. } => "4",
        };
        let or_any = |text: Option<String>| text.unwrap_or_else(|| "any".to_owned());
        let protocol = or_any(self.protocol.map(|number| number.to_string()));
        let ports = or_any(self.ports.map(|(low, high)| format!("{low}-{high}")));
        let icmp = or_any(
            self.icmp.map(|(kind, code)| format!("{kind}/{}", or_any(code.map(|code| code.to_string())))),
        );
        let remote = match &self.remote {
            Remote::Any => "any".to_owned(),
            Remote::Prefix(prefix) => prefix.to_string(),
            // Always with the project, which short names leave out.
            Remote::Group(Key { project, name }) => format!("group:{project}/{name}"),
            Remote::AddressGroup(Key { project, name }) => format!("address-group:{project}/{name}"),
        };
        let action = match self.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
        };
        let priority = self.priority;
        let staged = if self.staged { "|staged" } else { "" };
        let text =
            format!("{direction}|{families}|{protocol}|{ports}|{icmp}|{remote}|{action}|{priority}{staged}");
        Identity(xxh3_64(text.as_bytes()) >> (u64::BITS as usize - 4 * DIGITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule {
            direction: Direction::Inbound,
            ethertypes: Ethertypes::V4,
            protocol: Some(6),
            ports: Some((22, 22)),
            icmp: None,
            remote: Remote::Any,
            action: Action::Allow,
            priority: MAX_PRIORITY,
            description: String::new(),
            staged: false,
        }
    }

    #[test]
    fn an_identity_is_of_what_a_rule_matches_and_does_and_of_nothing_else() {
        let plain = rule().meaning().identity();
        // Written down: it must be the same on every appliance and in every release.
        assert_eq!(plain.to_string(), "r-893349e713");
        assert_eq!(Rule { description: "ssh".to_owned(), ..rule() }.meaning().identity(), plain);
        let everyone = Remote::Prefix("0.0.0.0/0".parse().unwrap());
        assert_eq!(Rule { remote: everyone, ..rule() }.meaning().identity(), plain);
        let key = Key::new("p", "g");
        let others = [
            Rule { direction: Direction::Outbound, ..rule() },
            Rule { ethertypes: Ethertypes::BOTH, ..rule() },
            Rule { ethertypes: Ethertypes::V6, ..rule() },
            Rule { protocol: None, ..rule() },
            Rule { protocol: Some(17), ..rule() },
            Rule { ports: None, ..rule() },
            Rule { ports: Some((22, 23)), ..rule() },
            Rule { icmp: Some((8, None)), ..rule() },
            Rule { icmp: Some((8, Some(0))), ..rule() },
            Rule { remote: Remote::Prefix("10.0.0.0/8".parse().unwrap()), ..rule() },
            Rule { remote: Remote::Group(key.clone()), ..rule() },
            Rule { remote: Remote::AddressGroup(key), ..rule() },
            Rule { action: Action::Deny, ..rule() },
            Rule { priority: 1, ..rule() },
            Rule { staged: true, ..rule() },
        ];
        let mut seen: Vec<_> = others.iter().map(|rule| rule.meaning().identity()).collect();
        seen.push(plain);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), others.len() + 1);
    }

    #[test]
    fn an_identity_is_read_as_it_is_written_and_in_no_other_way() {
        let identity = rule().meaning().identity();
        assert_eq!(identity.to_string().parse(), Ok(identity));
        for bad in ["", "r-", "r-012345678", "r-01234567890", "r-01234567AB", "r-+123456789", "0123456789"] {
            assert_eq!(bad.parse::<Identity>(), Err(()), "{bad}");
        }
    }
}
