//! Small types that everything else is made of.

/// The side of the wire that a frame came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Side {
    /// From the instances.
    #[default]
    Inside,
    /// From the network.
    Outside,
}

impl Side {
    /// The side a passing frame leaves by.
    pub fn other(self) -> Side {
        match self {
            Side::Inside => Side::Outside,
            Side::Outside => Side::Inside,
        }
    }

    /// Relative to the instance: what comes from outside is inbound.
    #[inline]
    pub fn direction(self) -> Direction {
        match self {
            Side::Inside => Direction::Outbound,
            Side::Outside => Direction::Inbound,
        }
    }
}

/// Relative to the NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// Enters the instance.
    Inbound = 0,
    /// Leaves the instance.
    Outbound = 1,
}

impl Direction {
    /// The other one.
    pub fn reverse(self) -> Direction {
        match self {
            Direction::Inbound => Direction::Outbound,
            Direction::Outbound => Direction::Inbound,
        }
    }

    /// As documents and output spell it.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }
}

/// One commit's number. Never repeats: a rollback is a new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Generation(pub u32);

/// The generation of the last commit that disconnected a NIC's inbound connections.
pub type FlushEpoch = Generation;

/// A VPC's place in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VpcId(pub u32);

/// A security group's number, the same in every snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// A compiled policy's place in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyId(pub u32);

/// A NIC's place in the tables of records and counters. 0 stands for "no NIC". A place is used
/// again only after its NIC is gone; [`AddrId`] tells the two NICs apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NicSlot(pub u32);

impl NicSlot {
    /// Where frames are counted that no NIC has.
    pub const NONE: NicSlot = NicSlot(0);
}

/// One address of one NIC, for as long as that NIC keeps that address: connections hold it instead
/// of NIC and local address. The low [`AddrId::SLOT_BITS`] are its place in the snapshot's table,
/// the rest tells apart those that have held the place. An address taken away and given back is
/// another `AddrId` (semantics 5.5), while a rollback brings the old one back (5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddrId(pub u32);

impl AddrId {
    /// Bits of the place: 1,048,576 addresses.
    pub const SLOT_BITS: u32 = 20;

    /// From a place and its incarnation.
    pub fn new(slot: u32, incarnation: u32) -> AddrId {
        AddrId(slot | incarnation << Self::SLOT_BITS)
    }

    /// The place in the snapshot's table of bindings.
    #[inline]
    pub fn slot(self) -> usize {
        (self.0 & ((1 << Self::SLOT_BITS) - 1)) as usize
    }
}

/// A rule's number, the same for a group's name and position in every generation; [`RuleId::NONE`]
/// for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

impl RuleId {
    /// No rule. Numbers are below it (30 bits: the entry of a connection packs two more beside).
    pub const NONE: RuleId = RuleId((1 << 30) - 1);

    /// `None` for [`RuleId::NONE`].
    pub fn get(self) -> Option<RuleId> {
        (self != RuleId::NONE).then_some(self)
    }
}

/// A connection's place in its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowIndex(pub u32);

/// How a frame tells its VPC: 0 untagged, 1–4094 a VLAN id, 2²⁴ and above a VNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SegmentKey(pub u32);

impl SegmentKey {
    /// No tag, or a priority tag.
    pub const UNTAGGED: SegmentKey = SegmentKey(0);
    const VNI: u32 = 1 << 24;

    /// By 802.1Q id.
    pub fn vlan(id: u16) -> SegmentKey {
        SegmentKey(u32::from(id))
    }

    /// By VXLAN or Geneve network identifier.
    pub fn vni(id: u32) -> SegmentKey {
        SegmentKey(Self::VNI | id)
    }

    /// True for tunnels.
    pub fn is_vni(self) -> bool {
        self.0 >= Self::VNI
    }
}

/// IP protocol numbers by name (IANA "Assigned Internet Protocol Numbers").
pub mod proto {
    #![allow(missing_docs)]
    pub const ICMP: u8 = 1;
    pub const IGMP: u8 = 2;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const DCCP: u8 = 33;
    pub const ICMPV6: u8 = 58;
    pub const VRRP: u8 = 112;
    pub const SCTP: u8 = 132;
    pub const UDPLITE: u8 = 136;

    /// True for the protocols whose rules may name ports.
    pub const fn has_ports(protocol: u8) -> bool {
        matches!(protocol, TCP | UDP | DCCP | SCTP | UDPLITE)
    }
}

/// An address as the data path holds it: IPv4 in the low 32 bits, with the family beside it.
pub fn addr_bits(addr: std::net::IpAddr) -> (u128, bool) {
    match addr {
        std::net::IpAddr::V4(a) => (u128::from(u32::from(a)), false),
        std::net::IpAddr::V6(a) => (u128::from(a), true),
    }
}

/// The reverse of [`addr_bits`].
pub fn addr_from_bits(bits: u128, v6: bool) -> std::net::IpAddr {
    if v6 { std::net::IpAddr::V6(bits.into()) } else { std::net::IpAddr::V4((bits as u32).into()) }
}
