//! A policy back into a document.

use crate::document::ObjectKey;
use crate::model::{
    Action, AddressGroup, AllowedAddress, Direction, Ethertypes, Key, MAX_PRIORITY, Mode, Nic, Policy,
    Remote, Rule, SecurityGroup, Segment, Vpc, protocol,
};
use crate::name::DEFAULT_PROJECT;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_saphyr::{FlowMap, FlowSeq};

/// The whole policy as a YAML document that parses back to an equal one. What no document defines (the implied groups
/// `default`) is left out, so that it stays implied.
///
/// # Panics
/// Never: the serialiser refuses only kinds of values that a policy has not got.
pub fn export(policy: &Policy) -> String {
    let document = Document {
        vpcs: policy.vpcs.values().map(|object| VpcDoc::from(&**object)).collect(),
        address_groups: policy
            .address_groups
            .values()
            .map(|object| AddressGroupDoc::from(&**object))
            .collect(),
        security_groups: policy
            .security_groups
            .values()
            .filter(|group| !group.implied)
            .map(|object| SecurityGroupDoc::from(&**object))
            .collect(),
        nics: policy.nics.values().map(|object| NicDoc::from(&**object)).collect(),
    };
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(&document, options)
        .expect("texts, numbers, lists and mappings serialise")
}

/// One object as it stands in its section; `None` if it is not there.
///
/// # Panics
/// Never, as [`export`].
pub fn export_object(policy: &Policy, object: &ObjectKey) -> Option<String> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let text = match object {
        ObjectKey::Vpc(name) => {
            serde_saphyr::to_string_with_options(&VpcDoc::from(&**policy.vpcs.get(name)?), options)
        }
        ObjectKey::AddressGroup(key) => {
            let group = AddressGroupDoc::from(&**policy.address_groups.get(key)?);
            serde_saphyr::to_string_with_options(&group, options)
        }
        ObjectKey::SecurityGroup(key) => {
            let group = SecurityGroupDoc::from(&**policy.security_groups.get(key)?);
            serde_saphyr::to_string_with_options(&group, options)
        }
        ObjectKey::Nic(key) => {
            serde_saphyr::to_string_with_options(&NicDoc::from(&**policy.nics.get(key)?), options)
        }
    };
    Some(text.expect("texts, numbers, lists and mappings serialise"))
}

/// A rule as it stands in a list of rules, as JSON in one line, which a document takes, too.
///
/// # Panics
/// Never, as [`export`].
pub fn export_rule(rule: &Rule) -> String {
    serde_json::to_string(&RuleDoc::from(rule)).expect("texts and numbers serialise")
}

/// A security group as it stands in its section, as JSON.
///
/// # Panics
/// Never, as [`export`].
pub fn export_group(group: &SecurityGroup) -> serde_json::Value {
    serde_json::to_value(SecurityGroupDoc::from(group)).expect("texts, numbers, lists and mappings serialise")
}

#[derive(Serialize)]
struct Document<'p> {
    vpcs: Vec<VpcDoc<'p>>,
    address_groups: Vec<AddressGroupDoc<'p>>,
    security_groups: Vec<SecurityGroupDoc<'p>>,
    nics: Vec<NicDoc<'p>>,
}

#[derive(Serialize)]
struct VpcDoc<'p> {
    name: &'p str,
    segment: FlowMap<SegmentDoc>,
    #[serde(skip_serializing_if = "is_empty")]
    peers: FlowSeq<Vec<&'p str>>,
}

/// A mapping of one key.
struct SegmentDoc(Segment);

impl Serialize for SegmentDoc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self.0 {
            Segment::Untagged => map.serialize_entry("untagged", &true)?,
            Segment::Vlan(id) => map.serialize_entry("vlan", &id)?,
            Segment::Vni(id) => map.serialize_entry("vni", &id)?,
        }
        map.end()
    }
}

/// What the objects of projects have in common.
#[derive(Serialize)]
struct Head<'p> {
    name: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'p str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'p str,
}

#[derive(Serialize)]
struct AddressGroupDoc<'p> {
    #[serde(flatten)]
    head: Head<'p>,
    addresses: FlowSeq<Vec<String>>,
}

#[derive(Serialize)]
struct SecurityGroupDoc<'p> {
    #[serde(flatten)]
    head: Head<'p>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    staged: bool,
    rules: Vec<FlowMap<RuleDoc<'p>>>,
}

#[derive(Serialize)]
struct RuleDoc<'p> {
    direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ethertype: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<ProtocolDoc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<PortsDoc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_group: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_address_group: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'p str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    staged: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ProtocolDoc {
    Name(&'static str),
    Number(u8),
}

#[derive(Serialize)]
#[serde(untagged)]
enum PortsDoc {
    One(u16),
    Range(String),
}

#[derive(Serialize)]
struct NicDoc<'p> {
    #[serde(flatten)]
    head: Head<'p>,
    vpc: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(skip_serializing_if = "is_empty")]
    addresses: FlowSeq<Vec<String>>,
    #[serde(skip_serializing_if = "is_empty")]
    allowed_addresses: FlowSeq<Vec<AllowedDoc>>,
    /// Always spelled out: left out would be `[default]`, and `[]` none.
    security_groups: FlowSeq<Vec<&'p str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_connections: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum AllowedDoc {
    Address(String),
    WithMac { address: String, mac: String },
}

fn is_empty<T>(list: &FlowSeq<Vec<T>>) -> bool {
    list.0.is_empty()
}

impl<'p> From<&'p Vpc> for VpcDoc<'p> {
    fn from(vpc: &'p Vpc) -> VpcDoc<'p> {
        VpcDoc {
            name: &vpc.name,
            segment: FlowMap(SegmentDoc(vpc.segment)),
            peers: FlowSeq(vpc.peers.iter().map(|peer| &**peer).collect()),
        }
    }
}

impl<'p> Head<'p> {
    fn new(key: &'p Key, description: &'p str) -> Head<'p> {
        let project = (&*key.project != DEFAULT_PROJECT).then_some(&*key.project);
        Head { name: &key.name, project, description }
    }
}

impl<'p> From<&'p AddressGroup> for AddressGroupDoc<'p> {
    fn from(group: &'p AddressGroup) -> AddressGroupDoc<'p> {
        AddressGroupDoc {
            head: Head::new(&group.key, &group.description),
            addresses: FlowSeq(group.prefixes.iter().map(ToString::to_string).collect()),
        }
    }
}

impl<'p> From<&'p SecurityGroup> for SecurityGroupDoc<'p> {
    fn from(group: &'p SecurityGroup) -> SecurityGroupDoc<'p> {
        SecurityGroupDoc {
            head: Head::new(&group.key, &group.description),
            staged: group.staged,
            // What the group says of all of them is said once.
            rules: group
                .rules
                .iter()
                .map(|rule| FlowMap(RuleDoc { staged: rule.staged && !group.staged, ..RuleDoc::from(rule) }))
                .collect(),
        }
    }
}

impl<'p> From<&'p Rule> for RuleDoc<'p> {
    fn from(rule: &'p Rule) -> RuleDoc<'p> {
        let mut doc = RuleDoc {
            direction: match rule.direction {
                Direction::Inbound => "inbound",
                Direction::Outbound => "outbound",
            },
            ethertype: match rule.ethertypes {
                // A prefix says it better.
                _ if matches!(rule.remote, Remote::Prefix(_)) => None,
                Ethertypes { v6: false, .. } => Some("IPv4"),
                Ethertypes { v4: false, .. } => Some("IPv6"),
                Ethertypes::BOTH => None,
            },
            protocol: rule
                .protocol
                .map(|n| protocol::name(n).map_or(ProtocolDoc::Number(n), ProtocolDoc::Name)),
            ports: rule.ports.map(|(low, high)| match low == high {
                true => PortsDoc::One(low),
                false => PortsDoc::Range(format!("{low}-{high}")),
            }),
            icmp_type: rule.icmp.map(|(kind, _)| kind),
            icmp_code: rule.icmp.and_then(|(_, code)| code),
            remote: None,
            remote_group: None,
            remote_address_group: None,
            action: match rule.action {
                Action::Allow => None,
                Action::Deny => Some("deny"),
            },
            priority: (rule.priority != MAX_PRIORITY).then_some(rule.priority),
            description: &rule.description,
            staged: rule.staged,
        };
        match &rule.remote {
            Remote::Any => {}
            Remote::Prefix(prefix) => doc.remote = Some(prefix.to_string()),
            Remote::Group(key) => doc.remote_group = Some(&key.name),
            Remote::AddressGroup(key) => doc.remote_address_group = Some(&key.name),
        }
        doc
    }
}

impl<'p> From<&'p Nic> for NicDoc<'p> {
    fn from(nic: &'p Nic) -> NicDoc<'p> {
        NicDoc {
            head: Head::new(&nic.key, &nic.description),
            vpc: &nic.vpc,
            mac: nic.mac.map(|mac| mac.to_string()),
            addresses: FlowSeq(nic.addresses.iter().map(ToString::to_string).collect()),
            allowed_addresses: FlowSeq(nic.allowed_addresses.iter().map(AllowedDoc::from).collect()),
            security_groups: FlowSeq(nic.security_groups.iter().map(|key| &*key.name).collect()),
            max_connections: nic.max_connections,
            mode: nic.mode.map(|mode| match mode {
                Mode::Enforce => "enforce",
                Mode::Observe => "observe",
            }),
        }
    }
}

impl From<&AllowedAddress> for AllowedDoc {
    fn from(allowed: &AllowedAddress) -> AllowedDoc {
        let address = allowed.address.to_string();
        match allowed.mac {
            None => AllowedDoc::Address(address),
            Some(mac) => AllowedDoc::WithMac { address, mac: mac.to_string() },
        }
    }
}
