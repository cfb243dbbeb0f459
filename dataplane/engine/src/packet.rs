//! What the parser reads out of one frame: everything that the later passes need but the frame's bytes.

use std::ops::{Deref, DerefMut};

use crate::conntrack::{EntryKey, State};
use crate::io::BURST;
use crate::time::Now;
use crate::{AddrId, SegmentKey, Side};

/// What kind of packet it is, as far as the frame alone tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum PacketKind {
    /// The Ethernet header, a tag, a tunnel's header or the Ethernet header inside is cut, or the tunnel's is none
    /// that carries Ethernet.
    #[default]
    TruncatedLink,
    /// Tags that no VPC can have, or (with tunnels) something untagged that is no tunnel.
    BadSegment,
    /// With tunnels: untagged ARP or neighbour discovery between the tunnels' ends.
    UnderlayNeighbor,
    /// Neither IP nor ARP; the ethertype is in `dport`.
    NotIp,
    /// ARP, unread; it begins at `l3`.
    Arp,
    /// An IP header, the extension chain or the L4 header is cut or lies.
    Malformed,
    /// ICMPv6 133–137, unread; it begins at `l4`.
    Nd,
    /// UDP 68→67, or 546→547.
    DhcpClient,
    /// UDP 67→68, or 547→546.
    DhcpServer,
    /// IGMP or MLD.
    Multicast,
    /// A fragment behind the first.
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

/// Whether it is a fragment.
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
    /// A fragment that was held until its first came: not to be held again.
    Released,
    /// A fragment that was held in vain.
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

/// No window scale option, where a scale of 0–14 stands otherwise.
pub const NO_SCALE: u8 = 15;

/// One packet of a burst, read.
///
/// Of a tunnelled frame all of it is of the inner packet. `src` and `dst` are IPv4 addresses in the low 32 bits,
/// or IPv6 ones; of ICMP `sport` is the identifier and `dport` is type × 256 + code.
///
/// The order of the fields is that in which a plain packet's are written with the fewest stores: what is read together beside
/// each other, what is zero in one piece.
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
    /// Where the IP packet ends; of what is not IP, the frame.
    pub end: u32,
    /// Destination port, ICMP type and code, or the ethertype of what is not IP.
    pub dport: u16,
    /// Source port or ICMP identifier.
    pub sport: u16,
    /// TCP window, unscaled.
    pub win: u16,
    /// Which wire it came in by.
    pub wire: u16,
    /// When the packet is judged.
    pub now: Now,
    /// Where the IP or ARP header begins in the frame.
    pub l3: u16,
    /// Where the L4 header begins: with every extension header that is walked below 2¹⁵.
    pub l4: u16,
    /// Bytes of the frame, as it was on the wire without the check sequence.
    pub len: u32,
    /// The fragments' common identification.
    pub frag_id: u32,
    /// Of a first fragment: bytes from behind the fragment header to the end of the L4 header. Of a later one: its
    /// offset in bytes.
    pub reach: u16,
    /// Window scale that a SYN offers, 0–14, or [`NO_SCALE`].
    pub wscale: u8,
    /// IPv4 time to live or IPv6 hop limit.
    pub ttl: u8,
    /// Segment as the frame bears it.
    pub segment: SegmentKey,
    /// IPv6.
    pub v6: bool,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// IPv6: it has a fragment header, be it of a whole packet.
    pub fragment_header: bool,
    /// To 01:80:C2:00:00:00–0F, what bridges keep to themselves.
    pub link_local: bool,
    /// Where it is on its way between workers.
    pub stage: HandoffStage,
    /// It was read with tunnels in mind.
    pub tunnels: bool,
    /// What the fragments of one packet have in common: the IPv4 protocol; 0 in IPv6, where the headers behind the fragment header are
    /// the first fragment's alone (RFC 8200, 4.5).
    pub frag_proto: u8,
    /// A whole IPv4 packet of TCP, or of UDP that is not DHCP, not to a link-local MAC: what nearly every packet is, and what has short ways all along. (Not every one:
    /// whoever reads without vectors takes untagged ones for it alone.)
    pub fast_v4: bool,
    /// IP protocol.
    pub proto: u8,
    /// What it is.
    pub kind: PacketKind,
    /// Where it came in.
    pub side: Side,
    /// TCP flags.
    pub flags: u8,
    /// Of a plain packet: what of it belongs to its connection's key.
    pub tuple: V4Tuple,
}

/// Where and when a frame came in, and how it is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// By which side.
    pub side: Side,
    /// By which wire.
    pub wire: u16,
    /// Untagged frames are tunnels.
    pub tunnels: bool,
    /// When it is judged.
    pub now: Now,
}

/// A plain packet's part of its connection's key, as the NIC sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct V4Tuple {
    /// The NIC's address.
    pub local: u32,
    /// The other side's.
    pub remote: u32,
    /// The key's flags, with the state of its connection in which it has a short way ([`crate::conntrack::required_state_bits`]) × 2³²; local port ×
    /// 65536 + remote port.
    pub rest: u64,
}

impl V4Tuple {
    /// Of a packet that came in by this side.
    #[inline]
    pub fn new(side: Side, src: (u32, u16), dst: (u32, u16), meta: u32) -> V4Tuple {
        let (local, remote) = if side == Side::Inside { (src, dst) } else { (dst, src) };
        let ports = u32::from(local.1) << 16 | u32::from(remote.1);
        V4Tuple { local: local.0, remote: remote.0, rest: u64::from(meta) << 32 | u64::from(ports) }
    }

    /// The key with the NIC's address by its number.
    #[inline(always)]
    pub fn key(&self, addr: AddrId) -> EntryKey {
        EntryKey::of_packet(addr, self.remote, self.rest)
    }
}

const _: () = assert!(size_of::<PacketMeta>() == 128);

/// The packet metadata of a burst, in memory that is used again without being cleared: packet metadata is 128 bytes, and whoever takes a new one
/// writes all of it.
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
    /// `more` packet metadata more, holding whatever they held before; none beyond [`BURST`].
    #[inline]
    pub fn grow(&mut self, more: usize) -> &mut [PacketMeta] {
        let first = self.len;
        self.len = BURST.min(first + more);
        &mut self.pkts[first..self.len]
    }

    /// Writes the packet metadata at `from` to `to`, before it or the same.
    #[inline]
    pub fn move_up(&mut self, from: usize, to: usize) {
        if from != to {
            self.pkts[to] = self.pkts[from].clone();
        }
    }

    /// Keeps none.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Keeps the first `len` at most.
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
    /// Of a frame of which nothing is read yet.
    #[inline(always)]
    pub fn of(arrival: &Arrival) -> PacketMeta {
        let Arrival { side, wire, tunnels, now } = *arrival;
        PacketMeta { side, wire, tunnels, now, ..PacketMeta::default() }
    }

    /// The state in which its connection must be for the packet to do no more than move windows and deadline.
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

    /// A whole IPv6 packet of TCP, or of UDP and its like that is not DHCP, not to a link-local MAC.
    #[inline(always)]
    pub fn is_fast_v6(&self) -> bool {
        self.v6
            && matches!(self.kind, PacketKind::Tcp | PacketKind::WithPorts)
            && self.fragment == Fragment::Whole
            && !self.link_local
    }

    /// Local address of the judged NIC, by the side it came from.
    #[inline]
    pub fn local(&self) -> u128 {
        match self.side {
            Side::Inside => self.src,
            Side::Outside => self.dst,
        }
    }

    /// The other side's address.
    #[inline]
    pub fn remote(&self) -> u128 {
        match self.side {
            Side::Inside => self.dst,
            Side::Outside => self.src,
        }
    }
}

/// Ethernet address from its six bytes.
#[inline]
pub fn mac_bits(bytes: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = bytes;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}
