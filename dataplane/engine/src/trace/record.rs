//! One packet's verdict with what was read of the packet, in at most two cache lines.

use crate::lane::{Fragment, Lane, What};
use crate::staged::WouldBe;
use crate::verdict::Verdict;
use crate::{Direction, FlushEpoch, Generation, NicSlot, Reason, RuleId, SegmentKey, Side};

/// How a tombstone came to be one, as far as its worker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnected {
    /// The generation that last found it live; of one that was judged again and refused, the one that refused it; 0 where an operator
    /// disconnected it.
    pub stamp: Generation,
    /// It was marked: by the rules that it was judged by again, or by an operator. Otherwise a flush of its NIC ended it.
    pub is_marked: bool,
    /// The NIC's last flush.
    pub flush: FlushEpoch,
    /// Ticks until it is gone.
    pub expires_in: u32,
}

/// One packet's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Source address, as in [`Lane::src`].
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
    pub disconnected: Option<Disconnected>,
    /// What a staged rule would decide.
    pub staged: Option<WouldBe>,
    /// Source port or ICMP identifier.
    pub sport: u16,
    /// Destination port, ICMP type and code, or ethertype.
    pub dport: u16,
    /// See [`Lane::reach`].
    pub reach: u16,
    /// Which wire it came in by.
    pub wire: u16,
    /// A bit for each watch that it fits.
    pub wanted: u16,
    /// What it is.
    pub what: What,
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
    pub fn new(lane: &Lane, verdict: &Verdict, generation: Generation) -> Record {
        Record {
            src: lane.src,
            dst: lane.dst,
            at_ns: 0,
            index: 0,
            generation,
            nic: verdict.nic,
            rule: verdict.rule,
            segment: lane.segment,
            len: lane.len,
            captured: 0,
            disconnected: None,
            staged: None,
            sport: lane.sport,
            dport: lane.dport,
            reach: lane.reach,
            wire: lane.wire,
            wanted: 0,
            what: lane.what,
            fragment: lane.fragment,
            side: lane.side,
            reason: verdict.reason,
            observed: verdict.observed,
            proto: lane.proto,
            flags: lane.flags,
            v6: lane.v6,
            link_local: lane.link_local,
        }
    }

    /// The verdict.
    pub fn verdict(&self) -> Verdict {
        Verdict { rule: self.rule, observed: self.observed, ..Verdict::of(self.reason, self.nic) }
    }

    /// What was read of the packet, as far as it is kept.
    pub fn lane(&self) -> Lane {
        Lane {
            src: self.src,
            dst: self.dst,
            segment: self.segment,
            len: self.len,
            sport: self.sport,
            dport: self.dport,
            reach: self.reach,
            wire: self.wire,
            what: self.what,
            fragment: self.fragment,
            side: self.side,
            proto: self.proto,
            flags: self.flags,
            v6: self.v6,
            link_local: self.link_local,
            ..Lane::default()
        }
    }

    /// Which way it went; `None` where it was judged for no NIC.
    pub fn direction(&self) -> Option<Direction> {
        (self.nic != NicSlot::NONE).then(|| self.side.direction())
    }

    /// True if the packet has IP addresses that could be read.
    pub fn has_addresses(&self) -> bool {
        super::filter::has_addresses(&self.lane())
    }

    /// True if it has ports.
    pub fn has_ports(&self) -> bool {
        super::filter::has_ports(&self.lane())
    }
}
