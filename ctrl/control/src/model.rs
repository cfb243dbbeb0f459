//! The validated policy.
//!
//! A [`Policy`] built by [`crate::document`] holds only what semantics.md allows: every name resolves, every address
//! has one owner, every quota is kept. Nothing in it remembers where in a file it stood.

mod address;
mod objects;
mod rule;

pub use crate::name::Key;
pub use address::{Mac, Prefix, ipv4_form};
pub use objects::Objects;
pub use rule::{Action, Direction, Ethertypes, Identity, MAX_PRIORITY, Meaning, Remote, Rule, protocol};

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A whole policy: what one document says, no more and no less. The default is the empty one.
///
/// Objects are shared: the policy after an edit has those of the one before, so that what did not change is told by where it
/// lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The VPCs by name; they belong to no project.
    pub vpcs: Objects<Arc<str>, Vpc>,
    /// The address groups.
    pub address_groups: Objects<Key, AddressGroup>,
    /// The security groups, with the `default` of every project that has or uses one.
    pub security_groups: Objects<Key, SecurityGroup>,
    /// The NICs.
    pub nics: Objects<Key, Nic>,
}

impl Policy {
    /// Takes the objects of another policy in place of equal ones.
    pub fn share_with(&mut self, other: &Policy) {
        self.vpcs.share_with(&other.vpcs);
        self.address_groups.share_with(&other.address_groups);
        self.security_groups.share_with(&other.security_groups);
        self.nics.share_with(&other.nics);
    }
}

/// What tells a VPC's frames apart on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Segment {
    /// No tag (or the priority tag, VLAN 0).
    Untagged,
    /// One 802.1Q tag, 1–4094.
    Vlan(u16),
    /// The VNI of a VXLAN or Geneve tunnel, 24 bits.
    Vni(u32),
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Segment::Untagged => f.write_str("untagged"),
            Segment::Vlan(id) => write!(f, "VLAN {id}"),
            Segment::Vni(id) => write!(f, "VNI {id}"),
        }
    }
}

/// An isolated address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vpc {
    /// Its name, unique in the policy.
    pub name: Arc<str>,
    /// Its mark on the wire, unique in the policy.
    pub segment: Segment,
    /// The VPCs in reach, one hop. Symmetric: if this names another, the other's set names this one.
    pub peers: BTreeSet<Arc<str>>,
}

/// A named list of prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressGroup {
    /// Project and name.
    pub key: Key,
    /// Free text.
    pub description: String,
    /// In the document's order, without repetition; both families may stand together.
    pub prefixes: Vec<Prefix>,
}

/// A named set of rules and, through its NICs, a named set of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// Project and name.
    pub key: Key,
    /// Free text.
    pub description: String,
    /// In the document's order: a rule is named by its position here.
    pub rules: Vec<Rule>,
    /// Whether this is a project's group `default` that no document defines (semantics 3.7).
    pub implied: bool,
    /// On trial as a whole: all of its rules are staged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub staged: bool,
}

impl SecurityGroup {
    /// The group `default` of a project that defines none: inbound from its own members, outbound to everyone.
    pub fn implied_default(project: &Arc<str>) -> SecurityGroup {
        let key = Key::default_group_of(project);
        let any = |direction, remote| Rule {
            direction,
            ethertypes: Ethertypes::BOTH,
            protocol: None,
            ports: None,
            icmp: None,
            remote,
            action: Action::Allow,
            priority: MAX_PRIORITY,
            description: String::new(),
            staged: false,
        };
        SecurityGroup {
            description: String::new(),
            rules: vec![
                any(Direction::Inbound, Remote::Group(key.clone())),
                any(Direction::Outbound, Remote::Any),
            ],
            implied: true,
            staged: false,
            key,
        }
    }

    /// What the group's rules match, as a set: two groups that differ only in order, descriptions or spelling have
    /// equal sets (semantics 5.1).
    pub fn meaning(&self) -> BTreeSet<Meaning> {
        self.rules.iter().map(Rule::meaning).collect()
    }
}

/// Whether a NIC's drops are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Drops drop.
    Enforce,
    /// Drops are counted and reported, and the frame passes all the same.
    Observe,
}

/// A virtual address that a NIC may use beside its own; several NICs of a VPC may list the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AllowedAddress {
    /// The address.
    pub address: IpAddr,
    /// The MAC that comes with it, where it is not the NIC's own.
    pub mac: Option<Mac>,
}

/// The network interface of one protected instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Project and name.
    pub key: Key,
    /// Free text.
    pub description: String,
    /// The VPC it is in, by name.
    pub vpc: Arc<str>,
    /// Its MAC; without one, no source MAC is checked.
    pub mac: Option<Mac>,
    /// Its fixed addresses, each its own alone in the VPC.
    pub addresses: Vec<IpAddr>,
    /// Its virtual addresses, each once.
    pub allowed_addresses: Vec<AllowedAddress>,
    /// Its groups, in the document's order (which breaks ties between rules), each once.
    pub security_groups: Vec<Key>,
    /// The most connections and tombstones that it may hold; 0 lets none open.
    pub max_connections: Option<u32>,
    /// Its own mode; `None` follows the configuration.
    pub mode: Option<Mode>,
}

impl Nic {
    /// Every address of the NIC, fixed ones first. One that is both fixed and allowed comes twice.
    pub fn all_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().copied().chain(self.allowed_addresses.iter().map(|a| a.address))
    }
}
