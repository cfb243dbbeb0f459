//! Counters: a cell per NIC and worker, written by that worker alone, read by anybody.
//!
//! The memory is reserved for the most NICs there may be and stays unbacked until touched, so that
//! no worker ever waits for it to grow and no counter moves. Writes are a plain load and store: a
//! cell has one writer.
//!
//! The same word of all NICs lies together: of a thousand busy NICs the words that count, of
//! `established` packets and their bytes, are then 32 kB instead of a thousand lines 512 bytes
//! apart (measured with 1,000 NICs and 10,000 flows: about a tenth of the packet's cycles). These
//! four of a NIC stand side by side, so that a packet needs one line of them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use crate::pages::zeroed;
use crate::reason::{REASONS, Reason};
use crate::worker_totals::{RuleCounters, WorkerTotals};
use crate::{Direction, FlushEpoch, NicSlot, Side};

/// NICs that one appliance holds at most, those deleted within the longest timeout included.
pub const MAX_NICS: usize = 1 << 17;

/// Words of one kind. Nine cache lines beyond a power of two: counts of one NIC that lie a multiple
/// of 4 kB apart would share a set of the first-level cache, and a load of one wait for the store
/// to another.
const ROW: usize = MAX_NICS + 9 * 8;

/// Where the words of each kind begin, and by which power of two those of neighbouring NICs lie
/// apart.
const PLACES: [(usize, u32); WORDS] = {
    let mut places = [(0, 0); WORDS];
    let mut word = 0;
    while word < WORDS {
        places[word] = match word {
            ESTABLISHED => (0, 2),
            PASSED => (1, 2),
            ESTABLISHED_OUT => (2, 2),
            PASSED_OUT => (3, 2),
            // The rows of those four stay empty, and without memory.
            _ => ((4 + word) * ROW, 0),
        };
        word += 1;
    }
    places
};

/// Words of one cell: the reasons of both directions, then the live inbound connections, then what
/// was observed; in the cell of no NIC also what re-judging disconnected.
const WORDS: usize = 64;
const ESTABLISHED: usize = Reason::Established as usize * 2;
const ESTABLISHED_OUT: usize = ESTABLISHED + Direction::Outbound as usize;
const EPOCH: usize = 48;
const LIVE: usize = 49;
const BEFORE: usize = 50;
const BEFORE_EPOCH: usize = 51;
const OBSERVED: usize = 52;
const KILLED: usize = 54;
const DISPLACED: usize = 55;
/// Of no NIC: frames by the way they came and went.
const RECEIVED: usize = 56;
const HANDED_OVER: usize = 57;
const TAKEN_OVER: usize = 58;
/// Bytes of what passed, inbound and outbound, and of what dropped.
const PASSED: usize = 59;
const PASSED_OUT: usize = PASSED + Direction::Outbound as usize;
const DROPPED: usize = 61;

/// The counters of one worker.
pub struct EngineCounters {
    words: Box<[AtomicU64]>,
    /// Of the worker as a whole.
    pub worker: WorkerTotals,
    /// Of each rule.
    pub rules: RuleCounters,
}

impl Default for EngineCounters {
    fn default() -> Self {
        Self::new()
    }
}

impl EngineCounters {
    /// All zero.
    pub fn new() -> EngineCounters {
        EngineCounters {
            words: zeroed(ROW * (4 + WORDS)),
            worker: WorkerTotals::default(),
            rules: RuleCounters::default(),
        }
    }

    /// Has the memory of the first so many NICs backed. Others may count meanwhile.
    pub fn touch(&self, nics: u32) {
        let nics = (nics as usize).min(MAX_NICS);
        crate::pages::touch_shared(&self.words[..4 * nics]);
        for (first, _) in PLACES.into_iter().filter(|(_, apart)| *apart == 0) {
            crate::pages::touch_shared(&self.words[first..][..nics]);
        }
    }

    #[inline]
    fn word(&self, nic: NicSlot, word: usize) -> &AtomicU64 {
        let (first, apart) = PLACES[word];
        &self.words[first + ((nic.0 as usize) << apart)]
    }

    /// The words that count packets of established connections, and the bytes of what passes.
    #[inline]
    pub fn established(&self) -> Option<EstablishedCounters<'_>> {
        let (pairs, _) = self.words.as_chunks();
        Some(EstablishedCounters { pairs: pairs.first_chunk()? })
    }

    /// Counts so many bytes of what passes or drops.
    #[inline]
    pub fn count_bytes(&self, nic: NicSlot, direction: Direction, passes: bool, bytes: u32) {
        let word = self.word(nic, if passes { PASSED } else { DROPPED } + direction as usize);
        word.store(word.load(Relaxed).wrapping_add(u64::from(bytes)), Relaxed);
    }

    /// What was counted as passed was dropped after all.
    pub fn drop_bytes(&self, nic: NicSlot, direction: Direction, bytes: u32) {
        let word = self.word(nic, PASSED + direction as usize);
        word.store(word.load(Relaxed).wrapping_sub(u64::from(bytes)), Relaxed);
        self.count_bytes(nic, direction, false, bytes);
    }

    /// Bytes that passed or dropped: of whole frames, without the check sequence (FCS).
    pub fn bytes(&self, nic: NicSlot, direction: Direction, passed: bool) -> u64 {
        self.word(nic, if passed { PASSED } else { DROPPED } + direction as usize).load(Relaxed)
    }

    /// Counts one packet.
    #[inline]
    pub fn count(&self, nic: NicSlot, direction: Direction, reason: Reason) {
        self.add(nic, direction, reason, 1);
    }

    /// Counts `n` packets; the total wraps, so that `-1` as u64 takes one back.
    #[inline]
    pub fn add(&self, nic: NicSlot, direction: Direction, reason: Reason, n: u64) {
        let word = self.word(nic, reason as usize * 2 + direction as usize);
        word.store(word.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// What was counted.
    pub fn get(&self, nic: NicSlot, direction: Direction, reason: Reason) -> u64 {
        self.word(nic, reason as usize * 2 + direction as usize).load(Relaxed)
    }

    /// Counts a packet that went on although its reason is to drop; `-1` takes one back. It is
    /// counted under that reason too: packets dropped are those with such a reason, less these.
    #[inline]
    pub fn observe(&self, nic: NicSlot, direction: Direction, reason: Reason, by: i64) {
        let word = self.word(nic, OBSERVED + direction as usize);
        word.store(word.load(Relaxed).wrapping_add_signed(by), Relaxed);
        self.worker.observe(direction, reason, by);
    }

    /// Packets that went on although their reason is to drop.
    pub fn observed(&self, nic: NicSlot, direction: Direction) -> u64 {
        self.word(nic, OBSERVED + direction as usize).load(Relaxed)
    }

    /// An inbound connection opened (`+1`) or ended (`-1`) under the NIC's present flush epoch.
    #[inline]
    pub fn live_inbound(&self, nic: NicSlot, epoch: FlushEpoch, by: i64) {
        if self.word(nic, EPOCH).load(Relaxed) != u64::from(epoch.0) {
            self.flush(nic, epoch);
        }
        let live = self.word(nic, LIVE);
        live.store(live.load(Relaxed).wrapping_add_signed(by), Relaxed);
    }

    /// A new epoch: what was live is set aside for the receipt. The order lets
    /// [`EngineCounters::live_under`] find it either way: who sees the new epoch sees what was
    /// before it.
    #[cold]
    fn flush(&self, nic: NicSlot, epoch: FlushEpoch) {
        let (live, before) = (self.word(nic, LIVE).load(Relaxed), self.word(nic, EPOCH).load(Relaxed));
        self.word(nic, BEFORE).store(live, Relaxed);
        self.word(nic, BEFORE_EPOCH).store(before, Relaxed);
        // Pairs with the acquire loads in `live_under`: without it a reader could take the new
        // epoch with the old `BEFORE`.
        self.word(nic, EPOCH).store(u64::from(epoch.0), Release);
        // A reader that saw the old epoch looks again after `LIVE`; this store must not be seen
        // before the new epoch.
        self.word(nic, LIVE).store(0, Release);
    }

    /// How many live inbound connections the NIC has under its flush epoch `epoch`, or had when
    /// that ended: what a flush ends, if asked with the epoch before it, by the time the worker has
    /// adopted the flush and until the next one.
    pub fn live_under(&self, nic: NicSlot, epoch: FlushEpoch) -> u64 {
        let epoch = u64::from(epoch.0);
        let is_present = || self.word(nic, EPOCH).load(Acquire) == epoch;
        if is_present() {
            let live = self.word(nic, LIVE).load(Acquire);
            if is_present() {
                return live;
            }
        }
        // Else nothing opened or ended under that epoch: it found the NIC without connections and
        // left it so.
        if self.word(nic, BEFORE_EPOCH).load(Relaxed) == epoch {
            self.word(nic, BEFORE).load(Relaxed)
        } else {
            0
        }
    }

    /// Re-judging has disconnected a connection.
    #[inline]
    pub fn count_killed(&self) {
        let word = self.word(NicSlot::NONE, KILLED);
        word.store(word.load(Relaxed) + 1, Relaxed);
    }

    /// Connections that re-judging has disconnected.
    pub fn killed(&self) -> u64 {
        self.word(NicSlot::NONE, KILLED).load(Relaxed)
    }

    /// A confirmed connection of this NIC has given way to one of a NIC below its share.
    pub fn count_displaced(&self, nic: NicSlot) {
        let word = self.word(nic, DISPLACED);
        word.store(word.load(Relaxed) + 1, Relaxed);
    }

    /// Confirmed connections of a NIC that have given way so.
    pub fn displaced(&self, nic: NicSlot) -> u64 {
        self.word(nic, DISPLACED).load(Relaxed)
    }

    #[inline]
    fn add_frames(&self, word: usize, frames: usize) {
        let word = self.word(NicSlot::NONE, word);
        word.store(word.load(Relaxed).wrapping_add(frames as u64), Relaxed);
    }

    /// Counts frames that the worker's queues brought.
    #[inline]
    pub fn count_received(&self, frames: usize) {
        self.add_frames(RECEIVED, frames);
    }

    /// Counts frames for other workers, whether their rings had room or not.
    #[inline]
    pub fn count_handed_over(&self, frames: usize) {
        self.add_frames(HANDED_OVER, frames);
    }

    /// Counts frames from other workers.
    #[inline]
    pub fn count_taken_over(&self, frames: usize) {
        self.add_frames(TAKEN_OVER, frames);
    }

    /// Frames that the worker's queues brought.
    pub fn received(&self) -> u64 {
        self.word(NicSlot::NONE, RECEIVED).load(Relaxed)
    }

    /// Frames for other workers.
    pub fn handed_over(&self) -> u64 {
        self.word(NicSlot::NONE, HANDED_OVER).load(Relaxed)
    }

    /// Frames from other workers.
    pub fn taken_over(&self) -> u64 {
        self.word(NicSlot::NONE, TAKEN_OVER).load(Relaxed)
    }

    /// The packets of one reason and direction of each NIC below `nics`, in order.
    pub fn packets(&self, nics: u32, direction: Direction, reason: Reason) -> impl Iterator<Item = u64> + '_ {
        self.column(nics, reason as usize * 2 + direction as usize)
    }

    /// The same of [`EngineCounters::observed`].
    pub fn all_observed(&self, nics: u32, direction: Direction) -> impl Iterator<Item = u64> + '_ {
        self.column(nics, OBSERVED + direction as usize)
    }

    /// The same of [`EngineCounters::bytes`].
    pub fn all_bytes(&self, nics: u32, direction: Direction, passed: bool) -> impl Iterator<Item = u64> + '_ {
        self.column(nics, if passed { PASSED } else { DROPPED } + direction as usize)
    }

    fn column(&self, nics: u32, word: usize) -> impl Iterator<Item = u64> + '_ {
        let nics = nics.min(MAX_NICS as u32);
        (0..nics).map(move |nic| self.word(NicSlot(nic), word).load(Relaxed))
    }

    /// Passed and dropped packets of a reason, over all NICs below `nics` and both directions.
    pub fn total(&self, nics: u32, reason: Reason) -> u64 {
        (0..nics)
            .map(|nic| {
                let nic = NicSlot(nic);
                self.get(nic, Direction::Inbound, reason) + self.get(nic, Direction::Outbound, reason)
            })
            .fold(0, u64::wrapping_add)
    }
}

/// What counts packets of established connections. Whoever counts many keeps it in registers.
#[derive(Clone, Copy)]
pub struct EstablishedCounters<'c> {
    /// Of each NIC inbound and outbound: packets, and bytes of whatever passes.
    pairs: &'c [[AtomicU64; 2]; 2 * MAX_NICS],
}

impl EstablishedCounters<'_> {
    /// Counts one packet of so many bytes that came in by this side, and passes.
    #[inline(always)]
    pub fn count(&self, nic: NicSlot, side: Side, bytes: u32) {
        // Every NIC's number is below `MAX_NICS`; to say so costs less than to look.
        let at = nic.0 as usize % MAX_NICS * 2 + side.direction() as usize;
        let [packets, passed] = &self.pairs[at];
        packets.store(packets.load(Relaxed).wrapping_add(1), Relaxed);
        passed.store(passed.load(Relaxed).wrapping_add(u64::from(bytes)), Relaxed);
    }
}

const _: () =
    assert!(REASONS * 2 <= EPOCH && OBSERVED + 2 <= KILLED && TAKEN_OVER < PASSED && DROPPED + 2 <= WORDS);

/// How many connections each NIC has, tombstones included, over all workers: one atomic a NIC,
/// touched only when a connection opens or ends.
pub struct ConnectionCounts {
    nics: Box<[AtomicU32]>,
    /// One worker alone writes: no other can come between a load and a store.
    is_of_one: bool,
}

impl Default for ConnectionCounts {
    fn default() -> Self {
        Self::new()
    }
}

impl ConnectionCounts {
    /// Nobody has any. For any number of workers.
    pub fn new() -> ConnectionCounts {
        ConnectionCounts { nics: (0..MAX_NICS).map(|_| AtomicU32::new(0)).collect(), is_of_one: false }
    }

    /// The same for one worker, which is spared the two locked instructions a connection: the
    /// counts may be read by anybody, and written by that worker only.
    pub fn of_one_worker() -> ConnectionCounts {
        ConnectionCounts { is_of_one: true, ..ConnectionCounts::new() }
    }

    /// Adds; what it was.
    #[inline]
    fn add(&self, nic: NicSlot, n: u32) -> u32 {
        let count = &self.nics[nic.0 as usize];
        if !self.is_of_one {
            return count.fetch_add(n, Relaxed);
        }
        let before = count.load(Relaxed);
        count.store(before.wrapping_add(n), Relaxed);
        before
    }

    /// One more; false, and none more, if there are `limit` already. Relaxed: a count, nothing is
    /// read through it.
    #[inline]
    pub fn enter(&self, nic: NicSlot, limit: u32) -> bool {
        let has_room = self.add(nic, 1) < limit;
        if !has_room {
            self.leave(nic);
        }
        has_room
    }

    /// One less.
    #[inline]
    pub fn leave(&self, nic: NicSlot) {
        self.add(nic, 1u32.wrapping_neg());
    }

    /// How many there are.
    pub fn get(&self, nic: NicSlot) -> u32 {
        self.nics[nic.0 as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_sets_the_live_connections_aside_whether_or_not_the_nic_is_seen_again() {
        let counters = EngineCounters::new();
        let nic = NicSlot(3);
        for _ in 0..5 {
            counters.live_inbound(nic, Generation(1), 1);
        }
        assert_eq!(counters.live_under(nic, Generation(1)), 5);
        counters.live_inbound(nic, Generation(2), 1);
        assert_eq!(
            (counters.live_under(nic, Generation(1)), counters.live_under(nic, Generation(2))),
            (5, 1)
        );
        // Flushed twice before the next connection: the second flush ended nothing.
        assert_eq!(counters.live_under(nic, Generation(3)), 0);
        counters.live_inbound(nic, Generation(4), 1);
        assert_eq!(
            (counters.live_under(nic, Generation(2)), counters.live_under(nic, Generation(3))),
            (1, 0)
        );
    }

    #[test]
    fn a_limit_holds_and_a_refused_one_leaves_no_trace() {
        for connection_counts in [ConnectionCounts::new(), ConnectionCounts::of_one_worker()] {
            let nic = NicSlot(9);
            assert!(connection_counts.enter(nic, 2) && connection_counts.enter(nic, 2));
            assert!(!connection_counts.enter(nic, 2));
            connection_counts.leave(nic);
            assert!(connection_counts.enter(nic, 2));
            assert_eq!(connection_counts.get(nic), 2);
        }
    }

    use crate::Generation;
}
