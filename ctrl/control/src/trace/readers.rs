//! Who watches, and how what workers tell of it reaches him: by a queue of his own, which loses what it has no room for.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use engine::trace::{MAX_WATCHES, Record, WatchReader, chunks_for};
use tokio::sync::mpsc;

use super::{Decision, WatchRequest, locked};

/// Records that wait for a reader.
const QUEUE: usize = 1 << 13;
/// Bytes of captured frames that wait for a reader, about.
const QUEUED_BYTES: usize = 16 << 20;
/// Records that are taken from one ring at once.
const TURN: usize = 1 << 14;

/// A packet that a reader wanted.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its verdict.
    pub decision: Decision,
    /// The captured bytes.
    pub bytes: Arc<[u8]>,
}

/// One reader's end. It stops watching when this is dropped.
pub struct Watcher {
    /// What it wants.
    pub wish: WatchRequest,
    events: mpsc::Receiver<Event>,
    lost: Arc<AtomicU64>,
    told_lost: u64,
}

impl Watcher {
    /// The next packet; `None` once nobody tells any more.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// One that waits already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Records that were lost since this was last asked.
    pub fn newly_lost(&mut self) -> u64 {
        let now = self.lost.load(Relaxed);
        now - std::mem::replace(&mut self.told_lost, now)
    }
}

/// A reader as those who tell know him.
struct Entry {
    id: u64,
    wish: WatchRequest,
    events: mpsc::Sender<Event>,
    lost: Arc<AtomicU64>,
}

/// One watch set of one worker.
struct Read {
    worker: usize,
    read: WatchReader,
    /// Whose each bit is.
    bits: Vec<u64>,
    /// Losses that their readers know of.
    known: Vec<u64>,
    /// The worker tells nothing more by it.
    is_over: bool,
}

#[derive(Default)]
struct Inner {
    entries: Vec<Entry>,
    reads: Vec<Read>,
    next: u64,
}

/// All who watch.
#[derive(Default)]
pub struct Watchers {
    inner: Mutex<Inner>,
    /// Held by whoever tells the workers, from the list of readers to the last worker's answer.
    pub(crate) telling: tokio::sync::Mutex<()>,
}

/// What workers are to be told of: the wishes, and whose they are.
pub(crate) struct WatchPlan {
    pub requests: Vec<WatchRequest>,
    pub ids: Vec<u64>,
    pub snaplen: u32,
}

impl Watchers {
    /// One more; `None` if there are too many.
    pub(crate) fn admit(&self, wish: WatchRequest) -> Option<Watcher> {
        let mut inner = locked(&self.inner);
        inner.entries.retain(|entry| !entry.events.is_closed());
        if inner.entries.len() == MAX_WATCHES {
            return None;
        }
        let room = wish.captures.map_or(QUEUE, |snaplen| {
            // A frame is about as long as that, or as frames are.
            (QUEUED_BYTES / (snaplen as usize).clamp(64, 2048)).min(QUEUE)
        });
        let (send, events) = mpsc::channel(room);
        let (id, lost) = (inner.next, Arc::new(AtomicU64::new(0)));
        inner.next += 1;
        inner.entries.push(Entry { id, wish: wish.clone(), events: send, lost: lost.clone() });
        Some(Watcher { wish, events, lost, told_lost: 0 })
    }

    /// What they all want. Those who have gone do not count.
    pub(crate) fn wanted(&self) -> WatchPlan {
        let mut inner = locked(&self.inner);
        inner.entries.retain(|entry| !entry.events.is_closed());
        WatchPlan {
            requests: inner.entries.iter().map(|entry| entry.wish.clone()).collect(),
            ids: inner.entries.iter().map(|entry| entry.id).collect(),
            snaplen: inner.entries.iter().filter_map(|entry| entry.wish.captures).max().unwrap_or(0),
        }
    }

    /// True if somebody has gone whom workers still tell.
    pub(crate) fn has_gone(&self) -> bool {
        locked(&self.inner).entries.iter().any(|entry| entry.events.is_closed())
    }

    /// True if names that have changed are somebody's wish.
    pub(crate) fn have_names(&self) -> bool {
        locked(&self.inner).entries.iter().any(|entry| entry.wish.has_names())
    }

    /// True if nobody watches, and nothing is left of those who did.
    pub(crate) fn is_idle(&self) -> bool {
        let inner = locked(&self.inner);
        inner.entries.is_empty() && inner.reads.is_empty()
    }

    /// A worker is about to tell by this.
    pub(crate) fn add(&self, worker: usize, read: WatchReader, bits: &[u64]) {
        let known = vec![0; bits.len()];
        locked(&self.inner).reads.push(Read { worker, read, bits: bits.to_vec(), known, is_over: false });
    }

    /// A worker tells by the last one that was added for it, if that `is_told`, else by none; by none before.
    pub(crate) fn settle(&self, worker: usize, is_told: bool) {
        let mut inner = locked(&self.inner);
        let mut of_worker = inner.reads.iter_mut().rev().filter(|read| read.worker == worker);
        if is_told {
            of_worker.next();
        }
        of_worker.for_each(|read| read.is_over = true);
    }

    /// Hands on what was told: how many records reached a reader, and how many were lost.
    pub(super) fn drain(&self, name: impl Fn(&Record, usize) -> Decision) -> (u64, u64) {
        let mut inner = locked(&self.inner);
        let Inner { entries, reads, .. } = &mut *inner;
        let (mut sent, mut lost) = (0, 0);
        let mut told: Vec<(u16, usize, Record, Arc<[u8]>)> = Vec::new();
        for (at, read) in reads.iter_mut().enumerate() {
            let WatchReader { records, pieces, counts } = &mut read.read;
            records.take(TURN, |record| {
                let mut bytes = Vec::with_capacity(record.captured as usize);
                if let Some(pieces) = pieces {
                    pieces.take(chunks_for(record.captured), |piece| bytes.extend_from_slice(&piece));
                }
                bytes.truncate(record.captured as usize);
                told.push((record.wanted, at, record, bytes.into()));
            });
            for ((id, known), counts) in read.bits.iter().zip(&mut read.known).zip(counts.iter()) {
                let now = counts.lost();
                let more = now - std::mem::replace(known, now);
                if let Some(entry) = entries.iter().find(|entry| entry.id == *id) {
                    entry.lost.fetch_add(more, Relaxed);
                }
                lost += more;
            }
        }
        told.sort_by_key(|(_, _, record, _)| record.at_ns);
        for (wanted, at, record, bytes) in told {
            let read = &reads[at];
            let mut decision = None;
            for (_, id) in read.bits.iter().enumerate().filter(|(bit, _)| wanted >> bit & 1 != 0) {
                let Some(entry) = entries.iter().find(|entry| entry.id == *id) else { continue };
                // Named once, for however many want it.
                let decision = decision.get_or_insert_with(|| name(&record, read.worker));
                let bytes = cut(&bytes, entry.wish.captures);
                match entry.events.try_send(Event { decision: decision.clone(), bytes }) {
                    Ok(()) => sent += 1,
                    Err(_) => {
                        entry.lost.fetch_add(1, Relaxed);
                        lost += 1;
                    }
                }
            }
        }
        reads.retain(|read| !(read.is_over && read.read.records.is_empty()));
        (sent, lost)
    }
}

/// As many bytes as this reader wants: another may want more.
fn cut(bytes: &Arc<[u8]>, snaplen: Option<u32>) -> Arc<[u8]> {
    match snaplen {
        None => Arc::default(),
        Some(most) if bytes.len() > most as usize => bytes[..most as usize].into(),
        Some(_) => bytes.clone(),
    }
}
