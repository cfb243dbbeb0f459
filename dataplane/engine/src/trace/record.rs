//! One packet's verdict with what was read of the packet, in at most two cache lines.

use crate::conntrack::TombstoneInfo;
use crate::packet::{Fragment, PacketKind, PacketMeta};
use crate::verdict::StagedVerdict;
use crate::verdict::Verdict;
use crate::{Direction, Generation, NicSlot, Reason, RuleId, SegmentKey, Side};

/// One packet's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Source address, as in [`PacketMeta::src`].
    pub src: u128,
    /// Destination address.
    pub dst: u128,
    /// When: the frame's own stamp, or the worker's clock.
    pub at_ns: u64,
    /// Its place among the packets of its capture or of its worker.
    pub index: u64,
    /// The generation that it was judged by.
    pub generation: Generation,
    /// The NIC it was judged for.
    pub nic: NicSlot,
    /// The rule that decided.
    pub rule: RuleId,
    /// Its segment.
    pub segment: SegmentKey,
    /// Bytes of the frame.
    pub len: u32,
    /// Bytes of it that were captured.
    pub captured: u32,
    /// Of a packet of a tombstone, what that is.
    pub disconnected: Option<TombstoneInfo>,
    /// What a staged rule would decide.
    pub staged: Option<StagedVerdict>,
    /// Source port or ICMP identifier.
    pub sport: u16,
    /// Destination port, ICMP type and code, or ethertype.
    pub dport: u16,
    /// See [`PacketMeta::reach`].
    pub reach: u16,
    /// Which wire it came in by.
    pub wire: u16,
    /// A bit for each watch that it fits.
    pub wanted: u16,
    /// What it is.
    pub what: PacketKind,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// Where it came in.
    pub side: Side,
    /// Why.
    pub reason: Reason,
    /// It passed though its reason is to drop.
    pub observed: bool,
    /// IP protocol.
    pub proto: u8,
    /// TCP flags.
    pub flags: u8,
    /// IPv6.
    pub v6: bool,
    /// To a link-local MAC.
    pub link_local: bool,
}

const _: () = assert!(size_of::<Record>() <= 128);

impl Record {
    /// Of a packet judged by this generation; when and which it was is not known yet.
    #[inline]
    pub fn new(pkt: &PacketMeta, verdict: &Verdict, generation: Generation) -> Record {
        Record {
            src: pkt.src,
            dst: pkt.dst,
            at_ns: 0,
            index: 0,
            generation,
            nic: verdict.nic,
            rule: verdict.rule,
            segment: pkt.segment,
            len: pkt.len,
            captured: 0,
            disconnected: None,
            staged: None,
            sport: pkt.sport,
            dport: pkt.dport,
            reach: pkt.reach,
            wire: pkt.wire,
            wanted: 0,
            what: pkt.kind,
            fragment: pkt.fragment,
            side: pkt.side,
            reason: verdict.reason,
            observed: verdict.observed,
            proto: pkt.proto,
            flags: pkt.flags,
            v6: pkt.v6,
            link_local: pkt.link_local,
        }
    }

    /// The verdict.
    pub fn verdict(&self) -> Verdict {
        Verdict { rule: self.rule, observed: self.observed, ..Verdict::of(self.reason, self.nic) }
    }

    /// What was read of the packet, as far as it is kept.
    pub fn packet(&self) -> PacketMeta {
        PacketMeta {
            src: self.src,
            dst: self.dst,
            segment: self.segment,
            len: self.len,
            sport: self.sport,
            dport: self.dport,
            reach: self.reach,
            wire: self.wire,
            kind: self.what,
            fragment: self.fragment,
            side: self.side,
            proto: self.proto,
            flags: self.flags,
            v6: self.v6,
            link_local: self.link_local,
            ..PacketMeta::default()
        }
    }

    /// Which way it went; `None` where it was judged for no NIC.
    pub fn direction(&self) -> Option<Direction> {
        (self.nic != NicSlot::NONE).then(|| self.side.direction())
    }

    /// True if the packet has IP addresses that could be read.
    pub fn has_addresses(&self) -> bool {
        super::filter::has_addresses(&self.packet())
    }

    /// True if it has ports.
    pub fn has_ports(&self) -> bool {
        super::filter::has_ports(&self.packet())
    }
}
