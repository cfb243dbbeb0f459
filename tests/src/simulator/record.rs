//! What workers tell of packets: record by record what they judged, which the oracle judged alike.

use engine::Reason;
use engine::trace::{
    DecisionReader, Filter, Record, Recorder, Watch, WatchReader, chunks_for, decisions, watch_set,
};

use super::world::{Seen, Sent};
use super::{Failure, fail};

/// Records that a poll may bring: all sources' bursts, and what has waited for them.
const ROOM: usize = 1 << 13;
/// Bytes of frames likewise.
const BYTES: usize = 8 << 20;

/// Of every other worker, so that both ways of a burst are gone: with a recorder, and without.
pub(super) struct Recorded {
    decisions: DecisionReader,
    watched: WatchReader,
}

/// A worker's recorder, which tells every decision and every packet, and the other end.
pub(super) fn recorder(worker: usize) -> Option<(Recorder, Recorded)> {
    if !worker.is_multiple_of(2) {
        return None;
    }
    let (told, read) = decisions(ROOM, u32::MAX);
    let all = Watch { filter: Filter::default(), one_in: 1, captures: true };
    let (watch_set, watched) = watch_set(vec![all], u32::MAX, ROOM, BYTES);
    let mut recorder = Recorder::new(Some(told));
    recorder.watch(Some(watch_set));
    Some((recorder, Recorded { decisions: read, watched }))
}

impl Recorded {
    /// Compares what was told since the last look with what was judged, in the same order. Frames
    /// that a port refused are told once more.
    pub(super) fn compare(
        &mut self,
        judged: &[Seen],
        sent: &[Sent],
        generation: u32,
    ) -> Result<(u64, u64), Failure> {
        let is_judged = |record: &Record| !matches!(record.reason, Reason::TxFull | Reason::TxDown);
        let (mut told, mut refused) = (Vec::new(), 0);
        let WatchReader { records, pieces, .. } = &mut self.watched;
        records.take(usize::MAX, |record| {
            let mut bytes = Vec::new();
            if let Some(pieces) = pieces {
                pieces.take(chunks_for(record.captured), |piece| bytes.extend(piece));
            }
            bytes.truncate(record.captured as usize);
            if is_judged(&record) {
                told.push((record, bytes));
            } else {
                refused += 1;
            }
        });
        if told.len() != judged.len() {
            return fail("record", format!("{} of {} packets are told", told.len(), judged.len()));
        }
        for (seen, (record, bytes)) in judged.iter().zip(&told) {
            let Sent { side, bytes: frame, .. } = &sent[seen.id];
            let is_it = record.index == seen.id as u64
                && record.verdict() == seen.verdict
                && record.fragment == seen.fragment
                && record.generation.0 == generation
                && record.side == *side;
            if !is_it {
                return fail(
                    "record",
                    format!("frame {}: {:?} is told as {record:?}", seen.id, seen.verdict),
                );
            }
            if record.len as usize == frame.len() && bytes != frame {
                return fail("record", format!("frame {} is captured otherwise than it came", seen.id));
            }
        }
        let mut decided = Vec::new();
        self.decisions.records.take(usize::MAX, |record| decided.push(record));
        decided.retain(is_judged);
        let expected = judged.iter().filter(|seen| seen.verdict.reason != Reason::Established);
        if !expected.map(|seen| seen.id as u64).eq(decided.iter().map(|record| record.index)) {
            return fail("record", "decisions are not those that were made");
        }
        Ok((told.len() as u64, refused))
    }
}
