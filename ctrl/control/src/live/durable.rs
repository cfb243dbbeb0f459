//! Changes on their way to the disk: before any worker hears of one, the store has it. The one exception is the
//! rollback of a change that nobody confirmed, which comes at its deadline whatever the disk says and is written
//! when it can be.

use super::{Admitted, Live, Origin, Refused, journal};
use crate::health::Severity;
use crate::model::Policy;
use crate::store::{Awaited, Past, Step, Store, StoreError};

const WRITE: (&str, &str) = ("store", "write");
const GONE: (&str, &str) = ("store", "gone");

/// A change as the store keeps it.
pub(super) struct Written {
    policy: Policy,
    past: Past,
    awaited: Option<Awaited>,
}

impl Written {
    /// A record is kept as the change begins: what its workers answer is known to the living alone.
    fn of(admitted: &Admitted) -> Written {
        let mut receipt = admitted.receipt.clone();
        receipt.generation += 1;
        let prepared = &admitted.prepared;
        let record = journal::record(&receipt, prepared.back_to, admitted.unconfirmed.is_some());
        let past = Past { record, delta: prepared.delta.clone() };
        Written { policy: prepared.policy().clone(), past, awaited: admitted.unconfirmed.map(Awaited::from) }
    }

    fn commit(&self, store: &Store) -> Result<(), StoreError> {
        store.commit(&Step { policy: &self.policy, past: &self.past, awaited: self.awaited })
    }
}

impl Live {
    /// Makes a change durable, after those that the store does not have yet. Called by whoever has the turn.
    pub(super) async fn make_durable(&self, admitted: &Admitted) -> Result<(), Refused> {
        let (store, behind) = {
            let inner = self.inner();
            (inner.store.clone(), inner.unwritten.clone())
        };
        let Some(store) = store else { return Ok(()) };
        let change = std::sync::Arc::new(Written::of(admitted));
        let (all, kept) = (behind.into_iter().chain([change.clone()]), store.clone());
        let mut all: Vec<_> = all.collect();
        // The disk takes its time, and others are served meanwhile.
        let written = tokio::task::spawn_blocking(move || {
            let mut done = 0;
            let result = all.iter().try_for_each(|change| change.commit(&store).inspect(|()| done += 1));
            all.drain(..done);
            (all, result)
        });
        let (mut left, result) = written.await.map_err(|error| Refused::Store(error.to_string()))?;
        self.tell_store(&kept, &result);
        let refused = result.map_err(|error| Refused::Store(error.to_string()));
        if refused.is_err() && admitted.author.origin != Origin::Timer {
            left.retain(|other| !std::sync::Arc::ptr_eq(other, &change));
        }
        let is_kept_in_memory = left.iter().any(|other| std::sync::Arc::ptr_eq(other, &change));
        self.inner().unwritten = left;
        match refused {
            Err(reason) if is_kept_in_memory => {
                tracing::error!("the rollback is in force and not durable yet: {reason}");
                Ok(())
            }
            other => other,
        }
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
        if !is_behind && !self.shared.board.lasts(WRITE) && !self.shared.board.lasts(GONE) {
            return;
        }
        let _turn = self.shared.writer.lock().await;
        let behind = self.inner().unwritten.clone();
        let kept = store.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut done = 0;
            let all = behind.iter().try_for_each(|change| change.commit(&store).inspect(|()| done += 1));
            (done, all.and_then(|()| store.probe()))
        });
        let Ok((done, result)) = written.await else { return };
        self.inner().unwritten.drain(..done);
        self.tell_store(&kept, &result);
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
