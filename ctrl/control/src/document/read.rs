//! The first pass: each object by itself, in the order of the document.

use super::fields::{description_of, name_of, prefix_of, reference_of};
use super::rule::{UnresolvedRule, rule};
use crate::model::{AllowedAddress, Key, Mac, Mode, Prefix, Segment};
use crate::name::DEFAULT_PROJECT;
use crate::source::{Fault, Faults, Fields, Node};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// What a document says, before anybody asked whether its parts fit together. Nodes are kept for the positions of
/// what the second pass may refuse.
#[derive(Default)]
pub(super) struct UnresolvedPolicy<'t> {
    pub vpcs: Vec<UnresolvedVpc<'t>>,
    pub address_groups: Vec<UnresolvedAddressGroup<'t>>,
    pub security_groups: Vec<UnresolvedSecurityGroup<'t>>,
    pub nics: Vec<UnresolvedNic<'t>>,
    /// Whether something could not be read that others may refer to.
    pub lacks_names: bool,
}

impl UnresolvedPolicy<'_> {
    pub fn is_empty(&self) -> bool {
        self.vpcs.is_empty()
            && self.address_groups.is_empty()
            && self.security_groups.is_empty()
            && self.nics.is_empty()
    }
}

pub(super) struct UnresolvedVpc<'t> {
    pub at: &'t Node,
    pub name: Arc<str>,
    /// `None` where it could not be read, and the draft is good for faults alone.
    pub segment: Option<(&'t Node, Segment)>,
    pub peers: Vec<(&'t Node, Arc<str>)>,
}

pub(super) struct UnresolvedAddressGroup<'t> {
    pub at: &'t Node,
    pub key: Key,
    pub description: String,
    pub prefixes: Vec<(&'t Node, Prefix)>,
}

pub(super) struct UnresolvedSecurityGroup<'t> {
    pub at: &'t Node,
    pub key: Key,
    pub description: String,
    pub staged: bool,
    pub rules: Vec<UnresolvedRule<'t>>,
}

pub(super) struct UnresolvedNic<'t> {
    pub at: &'t Node,
    pub key: Key,
    pub description: String,
    pub vpc: (&'t Node, Arc<str>),
    pub mac: Option<Mac>,
    pub addresses: Vec<(&'t Node, IpAddr)>,
    pub allowed_addresses: Vec<(&'t Node, AllowedAddress)>,
    /// `None` if left out: `[default]`.
    pub security_groups: Option<Vec<(&'t Node, Key)>>,
    pub max_connections: Option<u32>,
    pub mode: Option<Mode>,
}

/// What can be read of it; what cannot is noted.
pub(super) fn read<'t>(node: &'t Node, faults: &mut Faults) -> UnresolvedPolicy<'t> {
    let mut draft = UnresolvedPolicy::default();
    let known = ["vpcs", "address_groups", "security_groups", "nics"];
    let Some(sections) = node.keys(&known, faults) else { return draft };
    for (section, node) in sections.in_order() {
        let before = faults.len();
        let is_whole = match section {
            "vpcs" => all(node, "VPCs", &mut draft.vpcs, faults, vpc),
            "address_groups" => all(node, "address groups", &mut draft.address_groups, faults, address_group),
            "security_groups" => {
                all(node, "security groups", &mut draft.security_groups, faults, security_group)
            }
            "nics" => all(node, "NICs", &mut draft.nics, faults, nic) || before < faults.len(),
            // A section that is misspelled.
            _ => false,
        };
        draft.lacks_names |= !is_whole;
    }
    draft
}

/// Every item of the list that `node` must be, as far as it can be read; false if one is missing.
fn all<'t, T>(
    node: &'t Node,
    what: &str,
    into: &mut Vec<T>,
    faults: &mut Faults,
    read: impl Fn(&'t Node, &mut Faults) -> Option<T>,
) -> bool {
    let Some(items) = faults.take(node.list(what)) else { return false };
    into.extend(items.iter().filter_map(|item| read(item, faults)));
    into.len() == items.len()
}

/// Every item of the list at `key`, as far as it can be read.
fn each<'t, T>(
    fields: &Fields<'t>,
    key: &str,
    what: &str,
    faults: &mut Faults,
    read: impl Fn(&'t Node) -> Result<T, Fault>,
) -> Vec<(&'t Node, T)> {
    let items = faults.take(fields.items(key, what)).unwrap_or_default();
    items.iter().filter_map(|item| Some((item, faults.take(read(item))?))).collect()
}

pub(super) fn vpc<'t>(node: &'t Node, faults: &mut Faults) -> Option<UnresolvedVpc<'t>> {
    let fields = node.keys(&["name", "segment", "peers"], faults)?;
    let at = fields.needed("name", faults);
    let name = at.and_then(|at| faults.take(name_of(at)));
    let segment = fields.needed("segment", faults);
    let segment = segment.and_then(|node| Some((node, faults.take(segment_of(node))?)));
    let peers = each(&fields, "peers", "names of VPCs", faults, name_of);
    Some(UnresolvedVpc { at: at?, name: name?, segment, peers })
}

fn segment_of(node: &Node) -> Result<Segment, Fault> {
    const ALLOWED: &str = "one of { untagged: true }, { vlan: 1-4094 }, { vni: 0-16777215 }";
    let fields = node.fields(&["untagged", "vlan", "vni"])?;
    let mut given = fields.in_order();
    let (Some((kind, value)), None) = (given.next(), given.next()) else {
        let found = if fields.in_order().next().is_none() { "none" } else { "several" };
        return Err(node.fault(format_args!("{found} of the segment's keys are given; allowed: {ALLOWED}")));
    };
    match kind {
        "vlan" => Ok(Segment::Vlan(value.int("VLAN id", 1..=4094)?)),
        "vni" => Ok(Segment::Vni(value.int("VNI", 0..=0xff_ffff)?)),
        _ if value.bool()? => Ok(Segment::Untagged),
        _ => Err(value.no("segment", ALLOWED)),
    }
}

pub(super) fn address_group<'t>(node: &'t Node, faults: &mut Faults) -> Option<UnresolvedAddressGroup<'t>> {
    let fields = node.keys(&["name", "project", "description", "addresses"], faults)?;
    let key = key_of(&fields, faults);
    let description = description_of(&fields, faults);
    fields.needed("addresses", faults);
    let prefixes = each(&fields, "addresses", "prefixes", faults, prefix_of);
    let (at, key) = key?;
    Some(UnresolvedAddressGroup { at, key, description, prefixes })
}

pub(super) fn security_group<'t>(node: &'t Node, faults: &mut Faults) -> Option<UnresolvedSecurityGroup<'t>> {
    let fields = node.keys(&["name", "project", "description", "staged", "rules"], faults)?;
    let key = key_of(&fields, faults);
    let description = description_of(&fields, faults);
    let staged = fields.optional("staged", faults, Node::bool).unwrap_or_default();
    let owner = owner(key.as_ref());
    let rules = faults.take(fields.items("rules", "rules")).unwrap_or_default();
    let rules = rules.iter().filter_map(|node| rule(node, &owner, staged, faults)).collect();
    let (at, key) = key?;
    Some(UnresolvedSecurityGroup { at, key, description, staged, rules })
}

pub(super) fn nic<'t>(node: &'t Node, faults: &mut Faults) -> Option<UnresolvedNic<'t>> {
    const KEYS: [&str; 10] = [
        "name",
        "project",
        "description",
        "vpc",
        "mac",
        "addresses",
        "allowed_addresses",
        "security_groups",
        "max_connections",
        "mode",
    ];
    let fields = node.keys(&KEYS, faults)?;
    let key = key_of(&fields, faults);
    let owner = owner(key.as_ref());
    let modes = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
    let vpc = fields.needed("vpc", faults);
    let vpc = vpc.and_then(|node| Some((node, faults.take(name_of(node))?)));
    let description = description_of(&fields, faults);
    let mac = fields.optional("mac", faults, mac_of);
    let addresses = each(&fields, "addresses", "addresses", faults, address_of);
    let allowed_addresses = each(&fields, "allowed_addresses", "addresses", faults, allowed_address_of);
    let groups = each(&fields, "security_groups", "names of groups", faults, |n| reference_of(n, &owner));
    let max_connections =
        fields.optional("max_connections", faults, |node| node.int("number of connections", 0..=u32::MAX));
    let mode = fields.optional("mode", faults, |node| node.one_of("mode", &modes));
    let (at, key) = key?;
    Some(UnresolvedNic {
        at,
        key,
        description,
        vpc: vpc?,
        mac,
        addresses,
        allowed_addresses,
        security_groups: fields.get("security_groups").map(|_| groups),
        max_connections,
        mode,
    })
}

fn key_of<'t>(fields: &Fields<'t>, faults: &mut Faults) -> Option<(&'t Node, Key)> {
    let at = fields.needed("name", faults);
    let name = at.and_then(|at| faults.take(name_of(at)));
    let project = match fields.get("project") {
        None => Some(DEFAULT_PROJECT.into()),
        Some(node) => faults.take(name_of(node)),
    };
    Some((at?, Key { project: project?, name: name? }))
}

/// Whose parts are read; those of an object without a name are read for their faults.
fn owner(key: Option<&(&Node, Key)>) -> Key {
    key.map_or_else(|| Key::in_default(""), |(_, key)| key.clone())
}

fn mac_of(node: &Node) -> Result<Mac, Fault> {
    node.parsed("MAC address of a station", "\"xx:xx:xx:xx:xx:xx\", neither zero nor multicast")
}

/// An address that a NIC can have: of one station.
fn address_of(node: &Node) -> Result<IpAddr, Fault> {
    const ALLOWED: &str = "a unicast IPv4 or IPv6 address";
    let address: IpAddr = node.parsed_address("address of a NIC", ALLOWED)?;
    let nobodys =
        address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if nobodys { Err(node.no("address of a NIC", ALLOWED)) } else { Ok(address) }
}

fn allowed_address_of(node: &Node) -> Result<AllowedAddress, Fault> {
    if !matches!(node.value, crate::source::Value::Map(_)) {
        return Ok(AllowedAddress { address: address_of(node)?, mac: None });
    }
    let fields = node.fields(&["address", "mac"])?;
    let address = address_of(fields.required("address")?)?;
    Ok(AllowedAddress { address, mac: fields.get("mac").map(mac_of).transpose()? })
}
