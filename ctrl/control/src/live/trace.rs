//! Trace: what readers want is told to the workers, and what workers tell reaches the readers.

use std::time::Duration;

use engine::trace::watch_set;
use engine::worker::{RequestKind, WorkerRequest};
use engine::{Generation, NicSlot};

use super::locking::block_in_place;
use super::{Inner, Live, WorkerTimeout};
use crate::api::types::Receipt;
use crate::trace::{Change, NameTable, Trace, WatchRequest, Watcher};

/// Records that a worker's ring for readers holds: 1.75 MiB.
const RING: usize = 1 << 14;
/// Bytes of frames that a worker's ring for captures holds.
const BYTES: usize = 16 << 20;
/// How often the rings are emptied while somebody watches, and while nobody does.
const PACE: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(10)];

/// Why nobody is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchRefused {
    /// There are as many readers as there may be.
    TooMany,
    /// A worker does not answer.
    NoAnswer(WorkerTimeout),
}

impl std::fmt::Display for WatchRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WatchRefused::TooMany => {
                write!(f, "there are {} readers already; allowed: no more", engine::trace::MAX_WATCHES)
            }
            WatchRefused::NoAnswer(error) => error.fmt(f),
        }
    }
}

impl Live {
    /// What workers tell of packets.
    pub fn trace(&self) -> &Trace {
        &self.shared.trace
    }

    /// Has the workers tell of what this wish is about, from when this returns until the reader is dropped.
    pub async fn watch(&self, wish: WatchRequest) -> Result<Watcher, WatchRefused> {
        let reader = self.trace().readers.admit(wish).ok_or(WatchRefused::TooMany)?;
        self.update_workers().await.map_err(WatchRefused::NoAnswer)?;
        Ok(reader)
    }

    /// Tells every worker what all readers together want; nothing, if there are none.
    async fn update_workers(&self) -> Result<(), WorkerTimeout> {
        let readers = &self.trace().readers;
        let _turn = readers.telling.lock().await;
        let wanted = readers.wanted();
        let workers = self.inner().workers.len();
        for worker in 0..workers {
            let asked = (!wanted.requests.is_empty()).then(|| {
                block_in_place(|| {
                    let inner = self.inner();
                    let watches = wanted.requests.iter().map(|wish| wish.watch(&inner.committer)).collect();
                    drop(inner);
                    watch_set(watches, wanted.snaplen, RING, BYTES)
                })
            });
            let is_told = asked.is_some();
            let asked = asked.map(|(watch_set, read)| {
                // Whatever the worker tells by it is read from its first record on.
                readers.add(worker, read, &wanted.ids);
                watch_set
            });
            let interview = self.worker_query(worker);
            let answer = interview.answer.0.clone();
            let question = WorkerRequest {
                kind: RequestKind::Watch,
                from: 0,
                connections: Vec::new(),
                watch_set: asked,
                reply: answer,
            };
            // The rings of before come back with the answer, and are freed here.
            drop(interview.send(question).await?);
            readers.settle(worker, is_told);
        }
        Ok(())
    }

    /// Hands on what workers tell, for as long as the appliance runs; has them stop where a reader has gone, and look for other numbers
    /// where names have changed.
    pub async fn serve_trace(self) {
        let mut generation = self.generation();
        let mut telling: Option<tokio::task::JoinHandle<()>> = None;
        loop {
            block_in_place(|| self.trace().drain());
            let readers = &self.trace().readers;
            let present = self.health_snapshot().generation;
            let is_stale = readers.has_gone() || present != generation && readers.have_names();
            if is_stale && telling.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
                generation = present;
                let live = self.clone();
                telling = Some(tokio::spawn(async move {
                    if let Err(error) = live.update_workers().await {
                        tracing::warn!("trace: {error}");
                    }
                }));
            }
            tokio::time::sleep(PACE[usize::from(readers.is_idle())]).await;
        }
    }
}

impl Inner {
    /// A change is about to be published: with the names of its generation, since workers may tell of it from then on.
    pub(super) fn tell_trace(
        &self,
        receipt: &Receipt,
        back_to: Option<Generation>,
        ended_epochs: &[(NicSlot, Generation)],
    ) {
        let mut flushed: Box<[_]> = ended_epochs.iter().map(|(slot, _)| *slot).collect();
        flushed.sort_unstable();
        let (generation, by) = (self.committer.generation(), format!("{} ({})", receipt.who, receipt.origin));
        self.trace
            .begin(NameTable::of(&self.committer), Change { generation, by: by.into(), back_to, flushed });
    }
}
