//! What became of single packets, told to the control side as it happens: records of a fixed size,
//! by bounded rings of one producer, a worker, and one consumer. A full ring loses the record,
//! counted; nobody ever waits.
//!
//! Two kinds are told, each by a ring of its own, so that neither keeps the other out:
//!
//! * *decisions*, for the history that `why` and flow logs read: every verdict but `established`,
//!   so many a second at most;
//! * *what somebody watches*: packets that fit one of the [`Watch`]es of a [`WatchSet`], which the
//!   control side pushes down to the worker ([`crate::worker::RequestKind::Watch`]) with the rings
//!   for it. With their bytes, where a watch captures.
//!
//! A worker that is told nothing to record asks one flag a burst. With decisions alone, it asks
//! another: a burst of established packets is not looked through.

mod filter;
mod record;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::burst::{Batch, Firewall};
use crate::io::Frame;
use crate::packet::PacketMeta;
use crate::ring::{Consumer, Producer, ring};
use crate::snapshot::Snapshot;
use crate::verdict::StagedVerdict;
use crate::verdict::Verdict;
use crate::{NicSlot, Reason, RuleId};
pub use filter::{Addresses, Filter};
pub use record::Record;

/// Watches that a watch set has at most: a bit of [`Record::wanted`] each.
pub const MAX_WATCHES: usize = 16;
/// Bytes of a piece of a captured frame.
pub const CHUNK_LEN: usize = 64;
/// Bytes of a frame that are captured at most.
pub const MAX_SNAPLEN: u32 = 65_535;
/// Nanoseconds of the second that decisions are bounded by.
const SECOND: u64 = 1_000_000_000;

/// A piece of a captured frame: a frame takes as many as it needs, one behind the other.
pub type Chunk = [u8; CHUNK_LEN];

/// Pieces that so many bytes take.
pub fn chunks_for(bytes: u32) -> usize {
    (bytes as usize).div_ceil(CHUNK_LEN)
}

/// Records told and lost: one writer, read by anybody.
#[derive(Debug, Default)]
pub struct RingCounts {
    told: AtomicU64,
    lost: AtomicU64,
}

impl RingCounts {
    fn add(word: &AtomicU64) {
        word.store(word.load(Relaxed) + 1, Relaxed);
    }

    /// Records that went into the ring.
    pub fn told(&self) -> u64 {
        self.told.load(Relaxed)
    }

    /// Records that were due and did not: the ring was full, or the second's share was spent.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

/// Where decisions go, and how many.
pub struct DecisionWriter {
    records: Producer<Record>,
    counts: Arc<RingCounts>,
    /// So many a second at most.
    per_second: u32,
    /// When the present second began, and what it has told.
    second: u64,
    spent: u32,
}

/// The other end.
pub struct DecisionReader {
    /// The ring.
    pub records: Consumer<Record>,
    /// What went into it.
    pub counts: Arc<RingCounts>,
}

/// A ring for `size` decisions, of which a worker tells `per_second` a second at most.
pub fn decisions(size: usize, per_second: u32) -> (DecisionWriter, DecisionReader) {
    let (mut records, read) = ring(size);
    records.touch();
    let counts = Arc::new(RingCounts::default());
    let told = DecisionWriter { records, counts: counts.clone(), per_second, second: 0, spent: 0 };
    (told, DecisionReader { records: read, counts })
}

impl DecisionWriter {
    /// True if this second has room for one more.
    fn admit(&mut self, now_ns: u64) -> bool {
        if now_ns.saturating_sub(self.second) >= SECOND {
            (self.second, self.spent) = (now_ns, 0);
        }
        let has_room = self.spent < self.per_second;
        self.spent += u32::from(has_room);
        has_room
    }

    fn tell(&mut self, record: Record, now_ns: u64) {
        let is_told = self.admit(now_ns) && self.records.push(record).is_ok();
        RingCounts::add(if is_told { &self.counts.told } else { &self.counts.lost });
    }
}

/// One reader's wish.
pub struct Watch {
    /// Which packets.
    pub filter: Filter,
    /// One of so many of them; 0 and 1 are all.
    pub one_in: u32,
    /// With their bytes.
    pub captures: bool,
}

/// What all readers wish, with the rings by which it is told: those of the watch set before it are
/// given back with that.
pub struct WatchSet {
    watches: Vec<(Watch, u32)>,
    /// Bytes of a frame that are captured at most.
    snaplen: u32,
    records: Producer<Record>,
    pieces: Option<Producer<Chunk>>,
    counts: Arc<[RingCounts]>,
}

/// The other ends.
pub struct WatchReader {
    /// Records, each with a bit for every watch that it fits.
    pub records: Consumer<Record>,
    /// Behind each record with captured bytes: their pieces.
    pub pieces: Option<Consumer<Chunk>>,
    /// What went into them, by watch.
    pub counts: Arc<[RingCounts]>,
}

/// A watch set of what these watches want, [`MAX_WATCHES`] of them at most, by a ring of `size`
/// records and, if one captures, one that holds `bytes` of frames.
pub fn watch_set(
    watches: Vec<Watch>,
    snaplen: u32,
    size: usize,
    bytes: usize,
) -> (Box<WatchSet>, WatchReader) {
    let (mut records, read) = ring(size);
    records.touch();
    let captures = watches.iter().any(|watch| watch.captures);
    let (pieces, pieces_read) = captures
        .then(|| {
            let (mut pieces, read) = ring::<Chunk>(bytes.div_ceil(CHUNK_LEN));
            pieces.touch();
            (pieces, read)
        })
        .unzip();
    let counts: Arc<[RingCounts]> = watches.iter().map(|_| RingCounts::default()).collect();
    let watches = watches.into_iter().take(MAX_WATCHES).map(|watch| (watch, 0)).collect();
    let watch_set =
        WatchSet { watches, snaplen: snaplen.min(MAX_SNAPLEN), records, pieces, counts: counts.clone() };
    (Box::new(watch_set), WatchReader { records: read, pieces: pieces_read, counts })
}

impl WatchSet {
    /// A bit for each watch that wants this packet.
    fn wanted(&mut self, pkt: &PacketMeta, verdict: &Verdict, staged: Option<RuleId>) -> u16 {
        let mut wanted = 0;
        for (bit, (watch, skipped)) in self.watches.iter_mut().enumerate() {
            if !watch.filter.fits(pkt, verdict, staged) {
                continue;
            }
            *skipped += 1;
            if *skipped >= watch.one_in {
                *skipped = 0;
                wanted |= 1 << bit;
            }
        }
        wanted
    }

    /// Those of the watches that want the bytes, too.
    fn capturing(&self, wanted: u16) -> u16 {
        let captures = |bit: &usize| self.watches[*bit].0.captures;
        (0..self.watches.len()).filter(captures).fold(0, |bits, bit| bits | 1 << bit) & wanted
    }

    fn tell(&mut self, mut record: Record, bytes: &[u8]) {
        let capturing = self.capturing(record.wanted);
        if capturing != 0
            && let Some(pieces) = &mut self.pieces
        {
            let bytes = &bytes[..bytes.len().min(self.snaplen as usize)];
            // All of a frame or nothing, and no piece without its record.
            if pieces.has_room(chunks_for(bytes.len() as u32)) && self.records.has_room(1) {
                record.captured = bytes.len() as u32;
                for part in bytes.chunks(CHUNK_LEN) {
                    let mut piece = [0; CHUNK_LEN];
                    piece[..part.len()].copy_from_slice(part);
                    // There is room.
                    let _ = pieces.push(piece);
                }
            } else {
                self.count(capturing, false);
                record.wanted &= !capturing;
            }
        }
        if record.wanted != 0 {
            let is_told = self.records.push(record).is_ok();
            self.count(record.wanted, is_told);
        }
    }

    fn count(&self, bits: u16, is_told: bool) {
        for (bit, counts) in self.counts.iter().enumerate() {
            if bits >> bit & 1 != 0 {
                RingCounts::add(if is_told { &counts.told } else { &counts.lost });
            }
        }
    }
}

/// What a worker records, and where that goes. The default records nothing.
#[derive(Default)]
pub struct Recorder {
    is_on: bool,
    decisions: Option<DecisionWriter>,
    watch_set: Option<Box<WatchSet>>,
    /// Packets seen since the start.
    seen: u64,
}

impl Recorder {
    /// That tells decisions, if there is a ring for them.
    pub fn new(decisions: Option<DecisionWriter>) -> Recorder {
        Recorder { is_on: decisions.is_some(), decisions, watch_set: None, seen: 0 }
    }

    /// True if anything is to be recorded.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Tells what this watch set wants from now on, or nothing of that kind. What it was before
    /// goes back to who made it: its rings are not freed here.
    pub fn watch(&mut self, watch_set: Option<Box<WatchSet>>) -> Option<Box<WatchSet>> {
        let before = std::mem::replace(&mut self.watch_set, watch_set);
        self.is_on = self.watch_set.is_some() || self.decisions.is_some();
        before
    }

    /// Records what became of a batch that was judged, as far as somebody wants it.
    #[inline(never)]
    pub fn record_burst<F: Frame>(&mut self, firewall: &mut Firewall, snapshot: &Snapshot, batch: &Batch<F>) {
        let first = self.seen;
        self.seen += batch.frames.len() as u64;
        if self.watch_set.is_none() && batch.all_established {
            return;
        }
        let all = batch.frames.iter().zip(batch.pkts.iter().zip(batch.verdicts.iter()));
        let mut staged = batch.staged.iter();
        for (place, (frame, (pkt, verdict))) in all.enumerate() {
            // In the packets' order.
            let staged_verdict =
                staged.as_slice().first().filter(|(at, _)| *at == place).map(|(_, told)| *told);
            if staged_verdict.is_some() {
                staged.next();
            }
            if !verdict.held {
                let index = frame.index().unwrap_or(first + place as u64);
                self.note_one(firewall, snapshot, (frame, index), (pkt, verdict, staged_verdict));
            }
        }
        self.publish();
    }

    /// The same of a frame that had passed and that its port then refused.
    #[cold]
    pub fn record_refused(
        &mut self,
        firewall: &mut Firewall,
        snapshot: &Snapshot,
        pkt: &PacketMeta,
        verdict: &Verdict,
    ) {
        let index = self.seen.saturating_sub(1);
        // Its bytes may be the device's by now.
        self.note_one(firewall, snapshot, (&NoFrame, index), (pkt, verdict, None));
        self.publish();
    }

    #[inline]
    fn note_one<F: Frame>(
        &mut self,
        firewall: &mut Firewall,
        snapshot: &Snapshot,
        (frame, index): (&F, u64),
        (pkt, verdict, staged): (&PacketMeta, &Verdict, Option<StagedVerdict>),
    ) {
        let is_decision = verdict.reason != Reason::Established && self.decisions.is_some();
        let wanted = self
            .watch_set
            .as_mut()
            .map_or(0, |watch_set| watch_set.wanted(pkt, verdict, staged.map(|told| told.rule)));
        if !is_decision && wanted == 0 {
            return;
        }
        let now_ns = firewall.now_ns();
        let mut record = Record::new(pkt, verdict, snapshot.generation);
        (record.index, record.at_ns) = (index, frame.stamp().unwrap_or(now_ns));
        record.staged = staged;
        if verdict.reason == Reason::Tombstone && verdict.nic != NicSlot::NONE {
            record.disconnected = firewall.disconnected(snapshot, pkt);
        }
        if is_decision && let Some(decisions) = &mut self.decisions {
            decisions.tell(record, now_ns);
        }
        if wanted != 0
            && let Some(watch_set) = &mut self.watch_set
        {
            record.wanted = wanted;
            watch_set.tell(record, firewall.bytes(frame));
        }
    }

    /// Shows what was told, bytes before their records.
    fn publish(&mut self) {
        if let Some(decisions) = &mut self.decisions {
            decisions.records.publish();
        }
        if let Some(watch_set) = &mut self.watch_set {
            if let Some(pieces) = &mut watch_set.pieces {
                pieces.publish();
            }
            watch_set.records.publish();
        }
    }
}

/// Stands for a frame that is no longer at hand.
struct NoFrame;

impl Frame for NoFrame {
    fn head(&self) -> &[u8] {
        &[]
    }

    fn captured(&self) -> usize {
        0
    }
}
