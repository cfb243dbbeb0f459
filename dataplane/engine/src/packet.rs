//! What the parser reads out of one frame: everything that the later passes need except the frame's
//! bytes.

use std::ops::{Deref, DerefMut};

use crate::flow_key::{EntryKey, State};
use crate::io::BURST;
use crate::time::Now;
use crate::{AddrId, SegmentKey, Side};

/// The kind of a packet, as far as its frame alone tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum PacketKind {
    /// The Ethernet header, a tag, a tunnel's header or its inner Ethernet header is cut, or the
    /// tunnel carries no Ethernet.
    #[default]
    TruncatedLink,
    /// Tags that no VPC can have; with tunnels, an untagged frame that is no tunnel.
    BadSegment,
    /// With tunnels: untagged ARP or neighbour discovery between the tunnel endpoints.
    UnderlayNeighbor,
    /// Neither IP nor ARP; the ethertype is in `dport`.
    NotIp,
    /// ARP, not parsed further; it begins at `l3`.
    Arp,
    /// An IP header, the extension chain or the L4 header is cut or inconsistent.
    Malformed,
    /// ICMPv6 133–137, not parsed further; it begins at `l4`.
    Nd,
    /// UDP 68→67, or 546→547.
    DhcpClient,
    /// UDP 67→68, or 547→546.
    DhcpServer,
    /// IGMP or MLD.
    Multicast,
    /// A fragment other than the first.
    LaterFragment,
    /// TCP.
    Tcp,
    /// UDP, UDP-Lite, SCTP, DCCP.
    WithPorts,
    /// An ICMP request.
    IcmpRequest,
    /// An ICMP reply.
    IcmpReply,
    /// An ICMP error; the packet it quotes begins 8 bytes behind `l4`.
    IcmpError,
    /// Any other ICMP.
    IcmpOther,
    /// Any other protocol.
    OtherProtocol,
}

/// Whether a packet is a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Fragment {
    /// A whole packet.
    #[default]
    Whole,
    /// The first fragment of several.
    First,
    /// A later one.
    Later,
}

/// How far a frame has come on its way to the worker that judges it: see [`crate::handoff`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum HandoffStage {
    /// Just received.
    #[default]
    Received,
    /// A fragment on its way to the worker that knows its packet's first fragment.
    Fragment,
    /// On its way to the worker that judges it.
    Judge,
    /// A held fragment whose first has come: not to be held again.
    Released,
    /// A held fragment whose first did not come in time.
    Expired,
}

/// The TCP flags that matter here.
pub mod flags {
    #![allow(missing_docs)]
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

/// No window scale option, in place of a scale of 0–14.
pub const NO_SCALE: u8 = 15;

/// The metadata of one parsed packet.
///
/// For a tunnelled frame all of it describes the inner packet. `src` and `dst` are IPv4 addresses
/// in the low 32 bits, or IPv6 ones; for ICMP `sport` is the identifier and `dport` is type × 256 +
/// code.
///
/// The fields are ordered so that a fast-path packet's are written with the fewest stores: those
/// that are loaded together side by side, those that are zero in one piece.
#[derive(Clone, Debug, Default)]
#[repr(C, align(64))]
pub struct PacketMeta {
    /// Source address.
    pub src: u128,
    /// Destination address.
    pub dst: u128,
    /// Ethernet source, in the low 48 bits.
    pub src_mac: u64,
    /// Ethernet destination.
    pub dst_mac: u64,
    /// TCP acknowledgment number.
    pub ack: u32,
    /// TCP sequence number.
    pub seq: u32,
    /// Sequence number behind the segment's last: SYN and FIN count one each.
    pub seq_end: u32,
    /// Where the IP packet ends; for other frames, where the frame ends.
    pub end: u32,
    /// Destination port, ICMP type and code, or the ethertype of a frame that is not IP.
    pub dport: u16,
    /// Source port or ICMP identifier.
    pub sport: u16,
    /// TCP window, unscaled.
    pub win: u16,
    /// The wire it came in by.
    pub wire: u16,
    /// When the packet is judged.
    pub now: Now,
    /// Where the IP or ARP header begins in the frame.
    pub l3: u16,
    /// Where the L4 header begins: below 2¹⁵ with every extension header that is walked.
    pub l4: u16,
    /// Bytes of the frame, as it was on the wire without the check sequence (FCS).
    pub len: u32,
    /// The identification that the fragments of a packet share.
    pub frag_id: u32,
    /// For a first fragment: bytes from behind the fragment header to the end of the L4 header. For
    /// a later one: its offset in bytes.
    pub reach: u16,
    /// The window scale that a SYN offers, 0–14, or [`NO_SCALE`].
    pub wscale: u8,
    /// IPv4 time to live or IPv6 hop limit.
    pub ttl: u8,
    /// The segment of the frame.
    pub segment: SegmentKey,
    /// IPv6.
    pub v6: bool,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// IPv6: it has a fragment header, even if it is a whole packet.
    pub fragment_header: bool,
    /// To 01:80:C2:00:00:00–0F, the link-local addresses of bridges.
    pub link_local: bool,
    /// How far it has come between workers.
    pub stage: HandoffStage,
    /// It was parsed under a snapshot with tunnels.
    pub tunnels: bool,
    /// What the fragments of one packet have in common: the IPv4 protocol; 0 in IPv6, where the
    /// headers behind the fragment header belong to the first fragment alone (RFC 8200, 4.5).
    pub frag_proto: u8,
    /// Can take the fast path: a whole IPv4 packet of TCP, or of UDP that is not DHCP, not to a
    /// link-local MAC. The parser without vectors sets it for untagged packets only.
    pub fast_v4: bool,
    /// IP protocol.
    pub proto: u8,
    /// What it is.
    pub kind: PacketKind,
    /// Where it came in.
    pub side: Side,
    /// TCP flags.
    pub flags: u8,
    /// For such a packet: its part of its connection's key.
    pub tuple: V4Tuple,
}

/// Where and when a frame came in, and how it is to be parsed.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The side.
    pub side: Side,
    /// The wire.
    pub wire: u16,
    /// Untagged frames are tunnels.
    pub tunnels: bool,
    /// When it is judged.
    pub now: Now,
}

/// A fast-path packet's part of its connection's key, as its NIC sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct V4Tuple {
    /// The NIC's address.
    pub local: u32,
    /// The other side's.
    pub remote: u32,
    /// The key's flags, with the state that its connection must be in for the fast path
    /// ([`crate::flow_key::required_state_bits`]) × 2³²; local port × 65536 + remote port.
    pub rest: u64,
}

impl V4Tuple {
    /// For a packet that came in by this side.
    #[inline]
    pub fn new(side: Side, src: (u32, u16), dst: (u32, u16), meta: u32) -> V4Tuple {
        let (local, remote) = if side == Side::Inside { (src, dst) } else { (dst, src) };
        let ports = u32::from(local.1) << 16 | u32::from(remote.1);
        V4Tuple { local: local.0, remote: remote.0, rest: u64::from(meta) << 32 | u64::from(ports) }
    }

    /// The key, with the NIC's address by its number.
    #[inline(always)]
    pub fn key(&self, addr: AddrId) -> EntryKey {
        EntryKey::of_packet(addr, self.remote, self.rest)
    }
}

const _: () = assert!(size_of::<PacketMeta>() == 128);

/// The metadata of a burst's packets, in memory that is reused without being cleared: each is 128
/// bytes, and is written as a whole.
pub struct ParsedBurst {
    pkts: Box<[PacketMeta; BURST]>,
    len: usize,
}

impl Default for ParsedBurst {
    fn default() -> Self {
        ParsedBurst { pkts: Box::new(std::array::from_fn(|_| PacketMeta::default())), len: 0 }
    }
}

impl ParsedBurst {
    /// Adds `more` packets, holding whatever they held before; none beyond [`BURST`].
    #[inline]
    pub fn grow(&mut self, more: usize) -> &mut [PacketMeta] {
        let first = self.len;
        self.len = BURST.min(first + more);
        &mut self.pkts[first..self.len]
    }

    /// Copies the packet at `from` to `to`, which lies before it or is the same.
    #[inline]
    pub fn move_up(&mut self, from: usize, to: usize) {
        if from != to {
            self.pkts[to] = self.pkts[from].clone();
        }
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Keeps at most the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for ParsedBurst {
    type Target = [PacketMeta];

    #[inline]
    fn deref(&self) -> &[PacketMeta] {
        &self.pkts[..self.len]
    }
}

impl DerefMut for ParsedBurst {
    #[inline]
    fn deref_mut(&mut self) -> &mut [PacketMeta] {
        &mut self.pkts[..self.len]
    }
}

impl PacketMeta {
    /// For a frame of which nothing is parsed yet.
    #[inline(always)]
    pub fn of(arrival: &Arrival) -> PacketMeta {
        let Arrival { side, wire, tunnels, now } = *arrival;
        PacketMeta { side, wire, tunnels, now, ..PacketMeta::default() }
    }

    /// The state in which its connection must be for the packet to change nothing but windows and
    /// deadline.
    #[inline]
    pub fn fast_path_state(&self) -> Option<State> {
        if self.fragment != Fragment::Whole {
            return None;
        }
        match self.kind {
            PacketKind::Tcp if self.flags == flags::ACK => Some(State::Established),
            PacketKind::WithPorts => Some(State::TwoWay),
            _ => None,
        }
    }

    /// Can take the fast path: a whole IPv6 packet of TCP, or of another protocol with ports that
    /// is not DHCP, not to a link-local MAC.
    #[inline(always)]
    pub fn is_fast_v6(&self) -> bool {
        self.v6
            && matches!(self.kind, PacketKind::Tcp | PacketKind::WithPorts)
            && self.fragment == Fragment::Whole
            && !self.link_local
    }

    /// The local address, by the side it came from.
    #[inline]
    pub fn local(&self) -> u128 {
        match self.side {
            Side::Inside => self.src,
            Side::Outside => self.dst,
        }
    }

    /// The remote address.
    #[inline]
    pub fn remote(&self) -> u128 {
        match self.side {
            Side::Inside => self.dst,
            Side::Outside => self.src,
        }
    }
}

/// An Ethernet address from its six bytes.
#[inline]
pub fn mac_bits(bytes: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = bytes;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}
