//! How documents are written, for the description of the API: what [`crate::document`] reads, as a schema. Nothing is read by
//! these types, and `tests/written.rs` holds that they say what the reader accepts.

use serde::Deserialize;
use utoipa::ToSchema;

/// A name: no control characters, no `/`, no `#`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(pattern = r"^[^/#\x00-\x1f\x7f-\x9f]+$", min_length = 1, max_length = 255)]
pub struct Name(pub String);

/// A whole policy: what it lacks is removed. For `PATCH`, some of its objects.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Isolated address spaces.
    #[serde(default)]
    pub vpcs: Vec<Vpc>,
    /// Named lists of prefixes.
    #[serde(default)]
    pub address_groups: Vec<AddressGroup>,
    /// Named sets of rules.
    #[serde(default)]
    pub security_groups: Vec<SecurityGroup>,
    /// Interfaces of the protected instances.
    #[serde(default)]
    pub nics: Vec<NicDocument>,
}

/// A VPC.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Vpc {
    /// Unique.
    pub name: Name,
    /// How it is told apart on the wire.
    pub segment: Segment,
    /// VPCs in reach; naming it on either side is enough.
    #[serde(default)]
    pub peers: Vec<Name>,
}

/// A VPC's segment.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Segment {
    /// Frames without a tag; the value is `true`.
    Untagged(bool),
    /// An 802.1Q VLAN.
    Vlan(VlanId),
    /// A VXLAN or Geneve network.
    Vni(Vni),
}

/// A VLAN's id.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(minimum = 1, maximum = 4094)]
pub struct VlanId(pub u16);

/// A network's VNI.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(minimum = 0, maximum = 16_777_215)]
pub struct Vni(pub u32);

/// An address group.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressGroup {
    /// Unique in its project.
    pub name: Name,
    /// `default` if left out.
    #[serde(default)]
    #[schema(value_type = Name, required = false)]
    pub project: Option<Name>,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Prefixes or addresses, both families.
    pub addresses: Vec<String>,
}

/// A security group.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroup {
    /// Unique in its project.
    pub name: Name,
    /// `default` if left out.
    #[serde(default)]
    #[schema(value_type = Name, required = false)]
    pub project: Option<Name>,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// All of its rules are staged: judged beside the others and told, and not enforced.
    #[serde(default)]
    pub staged: bool,
    /// In this order they are numbered, from 0.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Relative to the NIC.
    pub direction: Direction,
    /// That of the prefix, else both, if left out.
    #[schema(value_type = Ethertype, required = false)]
    pub ethertype: Option<Ethertype>,
    /// Any, if left out.
    #[schema(value_type = Protocol, required = false)]
    pub protocol: Option<Protocol>,
    /// Destination ports, for protocols that have some; all, if left out.
    #[schema(value_type = Ports, required = false)]
    pub ports: Option<Ports>,
    /// For ICMP and ICMPv6; all, if left out.
    #[schema(value_type = u8, required = false, maximum = 255)]
    pub icmp_type: Option<u8>,
    /// Beside a type.
    #[schema(value_type = u8, required = false, maximum = 255)]
    pub icmp_code: Option<u8>,
    /// A prefix or address. At most one of the three remotes; everyone, if none is given.
    #[schema(value_type = String, required = false)]
    pub remote: Option<String>,
    /// A security group of the same project.
    #[schema(value_type = String, required = false)]
    pub remote_group: Option<String>,
    /// An address group of the same project.
    #[schema(value_type = String, required = false)]
    pub remote_address_group: Option<String>,
    /// `allow` if left out.
    #[schema(value_type = Action, required = false)]
    pub action: Option<Action>,
    /// 1, the highest, to 100, the default.
    #[schema(value_type = u8, required = false, minimum = 1, maximum = 100)]
    pub priority: Option<u8>,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Judged beside the others and told, and not enforced.
    #[serde(default)]
    pub staged: bool,
}

/// A rule's direction.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Enters the instance.
    Inbound,
    /// Leaves it.
    Outbound,
}

/// A family.
#[derive(Debug, Deserialize, ToSchema)]
pub enum Ethertype {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

/// A protocol: a number, also as text, or `any`, `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, `gre`, `esp`, `ah`, `ipip`, `dccp`, `udplite`,
/// `vrrp`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Protocol {
    /// By number.
    Number(ProtocolNumber),
    /// By name.
    Name(String),
}

/// A protocol's number.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(minimum = 0, maximum = 255)]
pub struct ProtocolNumber(pub u8);

/// A port, or `LOW-HIGH`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Ports {
    /// One.
    One(Port),
    /// One or a range.
    Text(PortRange),
}

/// A port's number.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(minimum = 1, maximum = 65_535)]
pub struct Port(pub u16);

/// A port or a range of ports as text.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(pattern = "^[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?$")]
pub struct PortRange(pub String);

/// What a rule does.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Lets open.
    Allow,
    /// Refuses.
    Deny,
}

/// A NIC, as a document defines it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NicDocument {
    /// Unique in its project.
    pub name: Name,
    /// `default` if left out.
    #[serde(default)]
    #[schema(value_type = Name, required = false)]
    pub project: Option<Name>,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// The VPC that it is in.
    pub vpc: Name,
    /// Its MAC; without one, none is checked.
    #[schema(value_type = String, required = false)]
    pub mac: Option<String>,
    /// Its own addresses.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Virtual addresses that it may use beside them.
    #[serde(default)]
    pub allowed_addresses: Vec<AllowedAddress>,
    /// `[default]` if left out; `[]` is none.
    #[schema(value_type = Vec<String>, required = false)]
    pub security_groups: Option<Vec<String>>,
    /// Connections that it may have.
    #[schema(value_type = u32, required = false, maximum = 4_294_967_295_u32)]
    pub max_connections: Option<u32>,
    /// That of the configuration, if left out.
    #[schema(value_type = Mode, required = false)]
    pub mode: Option<Mode>,
}

/// A virtual address, with the MAC that comes with it where that is not the NIC's.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum AllowedAddress {
    /// With the NIC's MAC.
    Address(String),
    /// With one of its own.
    With(AddressAndMac),
}

/// A virtual address with its MAC.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressAndMac {
    /// The address.
    pub address: String,
    /// Its MAC.
    #[schema(value_type = String, required = false)]
    pub mac: Option<String>,
}

/// Whether drops are carried out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are.
    Enforce,
    /// They are counted, and the frames pass.
    Observe,
}
