//! The first pass: each object by itself, in the order of the document.

use super::rule::{DraftRule, rule};
use crate::model::{AllowedAddress, Key, Mac, Mode, Prefix, Segment};
use crate::name::{self, DEFAULT_PROJECT};
use crate::source::{Fault, Fields, Node};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// What a document says, before anybody asked whether its parts fit together. Nodes are kept for the positions of
/// what the second pass may refuse.
#[derive(Default)]
pub(super) struct Draft<'t> {
    pub vpcs: Vec<DraftVpc<'t>>,
    pub address_groups: Vec<DraftAddressGroup<'t>>,
    pub security_groups: Vec<DraftSecurityGroup<'t>>,
    pub nics: Vec<DraftNic<'t>>,
}

impl Draft<'_> {
    pub fn is_empty(&self) -> bool {
        self.vpcs.is_empty()
            && self.address_groups.is_empty()
            && self.security_groups.is_empty()
            && self.nics.is_empty()
    }
}

pub(super) struct DraftVpc<'t> {
    pub at: &'t Node,
    pub name: Arc<str>,
    pub segment: (&'t Node, Segment),
    pub peers: Vec<(&'t Node, Arc<str>)>,
}

pub(super) struct DraftAddressGroup<'t> {
    pub at: &'t Node,
    pub key: Key,
    pub description: String,
    pub prefixes: Vec<(&'t Node, Prefix)>,
}

pub(super) struct DraftSecurityGroup<'t> {
    pub at: &'t Node,
    pub key: Key,
    pub description: String,
    pub rules: Vec<DraftRule<'t>>,
}

pub(super) struct DraftNic<'t> {
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

pub(super) fn read(node: &Node) -> Result<Draft<'_>, Fault> {
    let mut draft = Draft::default();
    let sections = node.fields(&["vpcs", "address_groups", "security_groups", "nics"])?;
    for (section, node) in sections.in_order() {
        match section {
            "vpcs" => draft.vpcs = each(node, "VPCs", vpc)?,
            "address_groups" => draft.address_groups = each(node, "address groups", address_group)?,
            "security_groups" => draft.security_groups = each(node, "security groups", security_group)?,
            _ => draft.nics = each(node, "NICs", nic)?,
        }
    }
    Ok(draft)
}

/// Every item of the list that `node` must be.
fn each<'t, T>(
    node: &'t Node,
    what: &str,
    read: impl Fn(&'t Node) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    node.list(what)?.iter().map(read).collect()
}

pub(super) fn vpc(node: &Node) -> Result<DraftVpc<'_>, Fault> {
    let fields = node.fields(&["name", "segment", "peers"])?;
    let at = fields.required("name")?;
    let name = name_of(at)?;
    let segment = fields.required("segment")?;
    let peer = |node| Ok((node, name_of(node)?));
    let peers = fields.items("peers", "names of VPCs")?.iter().map(peer).collect::<Result<_, _>>()?;
    Ok(DraftVpc { at, name, segment: (segment, segment_of(segment)?), peers })
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

pub(super) fn address_group(node: &Node) -> Result<DraftAddressGroup<'_>, Fault> {
    let fields = node.fields(&["name", "project", "description", "addresses"])?;
    let (at, key) = key_of(&fields)?;
    let description = description_of(&fields)?;
    let prefixes = each(fields.required("addresses")?, "prefixes", |node| Ok((node, prefix_of(node)?)))?;
    Ok(DraftAddressGroup { at, key, description, prefixes })
}

pub(super) fn security_group(node: &Node) -> Result<DraftSecurityGroup<'_>, Fault> {
    let fields = node.fields(&["name", "project", "description", "rules"])?;
    let (at, key) = key_of(&fields)?;
    let description = description_of(&fields)?;
    let rules =
        fields.items("rules", "rules")?.iter().map(|node| rule(node, &key)).collect::<Result<_, _>>()?;
    Ok(DraftSecurityGroup { at, key, description, rules })
}

pub(super) fn nic(node: &Node) -> Result<DraftNic<'_>, Fault> {
    let fields = node.fields(&[
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
    ])?;
    let (at, key) = key_of(&fields)?;
    let vpc = fields.required("vpc")?;
    let modes = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
    let groups = |node| each(node, "names of groups", |node| Ok((node, reference_of(node, &key)?)));
    Ok(DraftNic {
        at,
        description: description_of(&fields)?,
        vpc: (vpc, name_of(vpc)?),
        mac: fields.get("mac").map(mac_of).transpose()?,
        addresses: fields
            .items("addresses", "addresses")?
            .iter()
            .map(|node| Ok((node, address_of(node)?)))
            .collect::<Result<_, _>>()?,
        allowed_addresses: fields
            .items("allowed_addresses", "addresses")?
            .iter()
            .map(|node| Ok((node, allowed_address_of(node)?)))
            .collect::<Result<_, _>>()?,
        security_groups: fields.get("security_groups").map(groups).transpose()?,
        max_connections: fields
            .get("max_connections")
            .map(|node| node.int("number of connections", 0..=u32::MAX))
            .transpose()?,
        mode: fields.get("mode").map(|node| node.one_of("mode", &modes)).transpose()?,
        key,
    })
}

fn key_of<'t>(fields: &Fields<'t>) -> Result<(&'t Node, Key), Fault> {
    let at = fields.required("name")?;
    let name = name_of(at)?;
    let project = fields.get("project").map_or_else(|| Ok(DEFAULT_PROJECT.into()), name_of)?;
    Ok((at, Key { project, name }))
}

fn name_of(node: &Node) -> Result<Arc<str>, Fault> {
    const ALLOWED: &str = "1-255 characters, no control characters, no '/', no '#'";
    let text = node.text("name", ALLOWED)?;
    match name::check(text) {
        Ok(()) => Ok(text.into()),
        Err(why) => Err(node.fault(format_args!("{} {why}; allowed: {ALLOWED}", node.value.describe()))),
    }
}

/// A group or address group that something in `owner`'s project refers to.
pub(super) fn reference_of(node: &Node, owner: &Key) -> Result<Key, Fault> {
    let allowed = "the name of one of the same project";
    let text = node.text("name of a group", allowed)?;
    match text.split_once('/') {
        None => Ok(Key { project: owner.project.clone(), name: name_of(node)? }),
        Some((project, name)) if project == &*owner.project && name::check(name).is_ok() => {
            Ok(Key { project: owner.project.clone(), name: name.into() })
        }
        Some(_) => Err(node.fault(format_args!(
            "{} is of another project than {:?}; allowed: {allowed}",
            node.value.describe(),
            owner.project
        ))),
    }
}

pub(super) fn description_of(fields: &Fields<'_>) -> Result<String, Fault> {
    let text = |node: &Node| Ok(node.text("description", "text")?.to_owned());
    fields.get("description").map_or_else(|| Ok(String::new()), text)
}

pub(super) fn prefix_of(node: &Node) -> Result<Prefix, Fault> {
    node.parsed_address("prefix", "an IPv4 or IPv6 prefix ADDRESS/LENGTH or address")
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
