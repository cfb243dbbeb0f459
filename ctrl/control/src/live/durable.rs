//! Changes on their way to the disk: before any worker hears of one, the store has it. The one exception is the
//! rollback of a change that nobody confirmed, which comes at its deadline whatever the disk says and is written
//! when it can be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{Admitted, ChangeRefused, Live, Origin, journal};
use crate::health::Severity;
use crate::model::Policy;
use crate::store::{Awaited, PastGeneration, Step, Store, StoreError};

const WRITE: (&str, &str) = ("store", "write");
const GONE: (&str, &str) = ("store", "gone");

/// A change as the store keeps it.
pub(super) struct DurableChange {
    policy: Policy,
    past: PastGeneration,
    awaited: Option<Awaited>,
    oldest: u32,
}

impl DurableChange {
    /// A record is kept as the change begins: what its workers answer is known to the living alone.
    fn of(admitted: &Admitted) -> DurableChange {
        let mut receipt = admitted.receipt.clone();
        receipt.generation += 1;
        let prepared = &admitted.prepared;
        let record = journal::record(&receipt, prepared.back_to, admitted.unconfirmed.is_some());
        let past = PastGeneration { record, delta: prepared.delta.clone() };
        let (policy, awaited) = (prepared.policy().clone(), admitted.unconfirmed.map(Awaited::from));
        DurableChange { policy, past, awaited, oldest: prepared.oldest.0 }
    }

    fn commit(&self, store: &Store) -> Result<(), StoreError> {
        let DurableChange { policy, past, awaited, oldest } = self;
        store.commit(&Step { policy, past, awaited: *awaited, oldest: *oldest })
    }
}

/// How far writing changes in their order came.
struct Progress {
    /// Those that the store has not.
    left: Vec<Arc<DurableChange>>,
    result: Result<(), StoreError>,
}

/// Writes these changes, one after the other up to the first that the store refuses, and then, where that is asked for, something
/// that means nothing. Others are served meanwhile: the disk takes its time.
async fn write(store: &Arc<Store>, changes: Vec<Arc<DurableChange>>, probe: bool) -> Progress {
    let (mut left, done) = (changes.clone(), Arc::new(AtomicUsize::new(0)));
    let (writer, count) = (store.clone(), done.clone());
    let write = move || {
        let one = |change: &Arc<DurableChange>| {
            change.commit(&writer).inspect(|()| _ = count.fetch_add(1, Relaxed))
        };
        changes.iter().try_for_each(one)?;
        if probe { writer.probe() } else { Ok(()) }
    };
    let result = written(store, write).await;
    left.drain(..done.load(Relaxed));
    Progress { left, result }
}

/// What writing comes to, on a thread of its own.
pub(super) async fn written(
    store: &Store,
    write: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
) -> Result<(), StoreError> {
    let written = tokio::task::spawn_blocking(write).await;
    written.unwrap_or_else(|error| Err(StoreError::Io(store.path().to_owned(), error.to_string())))
}

impl Live {
    /// Makes a change durable, after those that the store does not have yet. Called by whoever has the turn.
    pub(super) async fn make_durable(&self, admitted: &Admitted) -> Result<(), ChangeRefused> {
        let (store, mut changes) = {
            let inner = self.inner();
            (inner.store.clone(), inner.unwritten.clone())
        };
        let Some(store) = store else { return Ok(()) };
        let change = Arc::new(DurableChange::of(admitted));
        changes.push(change.clone());
        let Progress { mut left, result } = write(&store, changes, false).await;
        self.tell_store(&store, &result);
        let Err(error) = result else {
            self.inner().unwritten = left;
            return Ok(());
        };
        if admitted.author.origin == Origin::Timer {
            self.inner().unwritten = left;
            tracing::error!("the rollback is in force and not durable yet: {error}");
            return Ok(());
        }
        left.retain(|other| !Arc::ptr_eq(other, &change));
        self.inner().unwritten = left;
        Err(ChangeRefused::Store(error.to_string()))
    }

    /// Writes what the store does not have yet, and looks whether it is well. Called every now and then.
    pub async fn look_after_store(&self) {
        let (store, is_behind) = {
            let inner = self.inner();
            (inner.store.clone(), !inner.unwritten.is_empty())
        };
        let Some(store) = store else { return };
        if let Err(error) = store.check() {
            return self.tell_store(&store, &Err(error));
        }
        if !is_behind && !self.shared.board.is_raised(WRITE) && !self.shared.board.is_raised(GONE) {
            return;
        }
        let Ok(_turn) = self.turn().await else { return };
        let behind = self.inner().unwritten.clone();
        let Progress { left, result } = write(&store, behind, true).await;
        self.inner().unwritten = left;
        self.tell_store(&store, &result);
    }

    /// Health says what became of a write.
    pub(super) fn tell_store(&self, store: &Store, result: &Result<(), StoreError>) {
        let board = &self.shared.board;
        let durable = {
            let inner = self.inner();
            let oldest = inner.unwritten.first().map(|change| change.past.record.generation - 1);
            oldest.unwrap_or(inner.committer.generation().0)
        };
        let path = store.path().display();
        match result {
            Ok(()) => {
                board.clear(WRITE);
                board.clear(GONE);
            }
            Err(StoreError::Gone(_)) => board.raise(
                GONE,
                Severity::Degraded,
                format!("{path} is not there any more; generation {durable} was the last that was durable"),
                "put the file back where it was; changes are refused until then",
            ),
            Err(error) => board.raise(
                WRITE,
                Severity::Degraded,
                format!("{error}; generation {durable} is the last that is durable"),
                "free space on its disk, or mend the disk; changes are refused until then",
            ),
        }
    }
}
