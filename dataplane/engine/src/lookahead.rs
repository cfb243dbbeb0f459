//! What is known of a burst's packets before they are judged: their NICs, their keys, and where
//! their entries probably lie.
//!
//! Cache lines are prefetched one per packet, while other packets are in hand: a core stalls when a
//! loop prefetches dozens at once.

use crate::SegmentKey;
use crate::conntrack::hash::NO_HASH;
use crate::conntrack::{EntryKey, FREE, FlowHash, required_state_bits};
use crate::io::BURST;
use crate::packet::PacketMeta;
use crate::snapshot::{Binding, BindingHint, UniqueAddresses};

/// A packet's NIC, key and hash.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct Resolved<'s> {
    /// Its key, as it would lie in an entry.
    pub key: EntryKey,
    /// Its key's hash.
    pub hash: FlowHash,
    /// Its NIC; `None` if the packet has its verdict already.
    pub nic: Option<&'s Binding>,
}

impl Resolved<'_> {
    /// Of a packet that needs no connection.
    pub const NONE: Resolved<'static> =
        Resolved { key: EntryKey::new(FREE, 0, 0, required_state_bits(None)), hash: NO_HASH, nic: None };
}

/// Hints where the bindings of a burst's packets lie, looked up and prefetched some packets ahead.
/// In a loop this short no look-up waits for the one before. With 1,000 NICs and 10,000 connections
/// a packet takes 0.90 of the cycles that it took when each binding was looked up as its packet was
/// resolved.
pub struct BindingPrefetch {
    /// The segment whose addresses the hints are for.
    segment: SegmentKey,
    /// Hints are there for the packets before this index, except those of another segment.
    until: usize,
    hints: [BindingHint; BURST],
}

impl Default for BindingPrefetch {
    /// No hints yet.
    fn default() -> BindingPrefetch {
        BindingPrefetch { segment: SegmentKey::UNTAGGED, until: 0, hints: [BindingHint::default(); BURST] }
    }
}

impl BindingPrefetch {
    /// Packets that are looked up at a time. Where segments alternate, most of these look-ups are
    /// wasted.
    const STRIDE: usize = 16;

    /// Packets from here on belong to this segment.
    #[inline(always)]
    pub fn begin(&mut self, segment: SegmentKey) {
        if self.segment != segment {
            (self.segment, self.until) = (segment, 0);
        }
    }

    /// The segment that was begun last.
    #[inline(always)]
    pub fn segment(&self) -> SegmentKey {
        self.segment
    }

    /// Looks up the next hints, if the packet at `at` has none; returns the index up to which there
    /// are hints then.
    #[inline(always)]
    pub fn look_ahead(&mut self, unique: &UniqueAddresses<'_>, at: usize, pkts: &[PacketMeta]) -> usize {
        if self.until <= at {
            self.until = at + Self::STRIDE;
            for (hint, pkt) in self.hints[at..].iter_mut().zip(&pkts[at..]).take(Self::STRIDE) {
                *hint = unique.hint(pkt.tuple.local);
            }
        }
        self.until
    }

    /// The hint for the packet at an index below that.
    #[inline(always)]
    pub fn hint(&self, at: usize) -> BindingHint {
        self.hints[at % BURST]
    }
}

/// How many packets ahead of the one that is judged entries are prefetched. Judging one takes about
/// 25 cycles. Measured with 100,000 connections and with a million: all of a burst in a pass before
/// took 1.35 and 1.1 times as long, 40 ahead 1.09 and 1.08, 12 ahead 1.01 and 1.05.
pub const ENTRY_PREFETCH_DISTANCE: usize = 24;

/// The packets of a burst with what the passes before judging have found.
#[derive(Clone, Copy)]
pub struct ResolvedBurst<'b, 's> {
    /// What was read of their frames.
    pub pkts: &'b [PacketMeta],
    /// As many, and then [`Resolved::NONE`].
    pub resolved: &'b [Resolved<'s>; BURST],
    /// Where their entries probably lie. Those of the first [`ENTRY_PREFETCH_DISTANCE`] are
    /// prefetched.
    pub hints: &'b [u32; BURST],
    /// Some of the packets are IPv6.
    pub is_any_v6: bool,
}

impl ResolvedBurst<'_, '_> {
    /// Prefetches the entry of a packet that is judged soon, while the one at `at` is judged.
    #[inline(always)]
    pub fn prefetch_ahead(&self, at: usize, prefetch: impl Fn(u32)) {
        if let Some(hint) = self.hints.get(at + ENTRY_PREFETCH_DISTANCE) {
            prefetch(*hint);
        }
    }
}
