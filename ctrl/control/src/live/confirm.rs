//! Changes that roll back by themselves unless somebody confirms them: an operator who has locked himself out says
//! nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::Generation;

use super::{Author, Change, Inner, Live, Origin, Refused};
use crate::api::shape::{Confirmation, Record};
use crate::store::Awaited;

/// The longest time that a change may await its confirmation.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The present generation awaits its confirmation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unconfirmed {
    pub generation: u32,
    /// What it rolls back to.
    before: u32,
    until: SystemTime,
}

impl Unconfirmed {
    pub fn new(generation: u32, before: u32, time: Duration) -> Unconfirmed {
        Unconfirmed { generation, before, until: SystemTime::now() + time }
    }

    /// How long it still waits. By the wall clock, which a restart does not stop; a clock that is set back does not make
    /// it wait longer than a day, which is the longest.
    fn left(&self) -> Duration {
        self.until.duration_since(SystemTime::now()).unwrap_or_default().min(LONGEST)
    }
}

impl From<Unconfirmed> for Awaited {
    fn from(change: Unconfirmed) -> Awaited {
        let until_ms = change.until.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        Awaited { generation: change.generation, before: change.before, until_ms }
    }
}

impl From<Awaited> for Unconfirmed {
    fn from(Awaited { generation, before, until_ms }: Awaited) -> Unconfirmed {
        Unconfirmed { generation, before, until: UNIX_EPOCH + Duration::from_millis(until_ms) }
    }
}

impl Live {
    /// Keeps the change that awaits its confirmation. Nothing does: it is refused.
    pub async fn confirm(&self) -> Result<Record, Refused> {
        let _turn = self.shared.writer.lock().await;
        let Unconfirmed { generation, .. } = self.inner().unconfirmed.ok_or(Refused::NothingToConfirm)?;
        let record = Record { confirmation: Some(Confirmation::Confirmed), ..self.record(generation)? };
        let store = self.inner().store.clone();
        if let Some(store) = store {
            let kept = record.clone();
            let written = tokio::task::spawn_blocking(move || store.settle(&kept)).await;
            written
                .map_err(|error| Refused::Store(error.to_string()))?
                .map_err(|error| Refused::Store(error.to_string()))?;
        }
        {
            let mut inner = self.inner();
            inner.unconfirmed = None;
            inner.journal.settle(generation, Confirmation::Confirmed);
        }
        self.shared.settled.notify_waiters();
        Ok(record)
    }

    /// True if the present generation awaits its confirmation.
    pub fn awaits_confirmation(&self) -> bool {
        self.inner().unconfirmed.is_some()
    }

    /// Waits until no change awaits its confirmation.
    pub async fn settled(&self) {
        loop {
            let told = self.shared.settled.notified();
            if self.inner().unconfirmed.is_none() {
                return;
            }
            told.await;
        }
    }

    /// Rolls the present generation back when its time is over, if it awaits its confirmation. Within a runtime.
    pub fn watch_confirmation(&self) {
        let Some(change) = self.inner().unconfirmed else { return self.shared.settled.notify_waiters() };
        let live = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(change.left()).await;
            live.take_back(change.generation).await;
        });
    }

    async fn take_back(&self, generation: u32) {
        let awaited = self.inner().unconfirmed.filter(|change| change.generation == generation);
        let Some(Unconfirmed { before, .. }) = awaited else { return };
        let author = Author { origin: Origin::Timer, who: "portcullis".to_owned() };
        let change = Change { if_generation: Some(generation), ..Change::back_to(before, author) };
        match self.apply(change).await {
            // It was confirmed in this very moment.
            Err(Refused::NothingToConfirm) => {}
            Ok(receipt) => tracing::warn!(
                "generation {generation} was not confirmed in time: back to {before}, as generation {}",
                receipt.generation
            ),
            Err(reason) => tracing::error!("generation {generation} was not confirmed and stays: {reason}"),
        }
    }
}

impl Inner {
    /// Until a change is confirmed or taken back, nobody may build on it.
    pub(super) fn refuse_while_unconfirmed(&self, is_allowed: bool) -> Result<(), Refused> {
        match &self.unconfirmed {
            Some(change) if !is_allowed => {
                Err(Refused::Unconfirmed { generation: change.generation, seconds: change.left().as_secs() })
            }
            _ => Ok(()),
        }
    }

    /// A change is carried out: a rollback settles what awaited its confirmation, and the change may await its own.
    pub(super) fn note_confirmation(
        &mut self,
        back_to: Option<Generation>,
        unconfirmed: Option<Unconfirmed>,
    ) {
        if let Some(Unconfirmed { generation, .. }) = self.unconfirmed.take().filter(|_| back_to.is_some()) {
            self.journal.settle(generation, Confirmation::TakenBack);
        }
        self.unconfirmed = unconfirmed;
    }
}
