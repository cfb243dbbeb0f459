//! Changes that roll back by themselves unless somebody confirms them: an operator who has locked himself out says
//! nothing.

use std::time::{Duration, Instant};

use engine::Generation;

use super::{Author, Change, Inner, Live, Origin, Refused};
use crate::api::shape::{Confirmation, Record};

/// The present generation awaits its confirmation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unconfirmed {
    pub generation: u32,
    /// What it rolls back to.
    before: u32,
    until: Instant,
}

impl Live {
    /// Keeps the change that awaits its confirmation. Nothing does: it is refused.
    pub async fn confirm(&self) -> Result<Record, Refused> {
        let _turn = self.shared.writer.lock().await;
        let generation = {
            let mut inner = self.inner();
            let Unconfirmed { generation, .. } = inner.unconfirmed.take().ok_or(Refused::NothingToConfirm)?;
            inner.journal.settle(generation, Confirmation::Confirmed);
            generation
        };
        self.shared.settled.notify_waiters();
        self.record(generation)
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

    /// Rolls `generation` back when its time is over.
    pub(super) fn watch_confirmation(&self, generation: u32, confirm: Option<Duration>) {
        if self.inner().unconfirmed.is_none() {
            self.shared.settled.notify_waiters();
        }
        let Some(confirm) = confirm else { return };
        let live = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(confirm).await;
            live.take_back(generation).await;
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
            Some(Unconfirmed { generation, until, .. }) if !is_allowed => {
                let seconds = until.saturating_duration_since(Instant::now()).as_secs();
                Err(Refused::Unconfirmed { generation: *generation, seconds })
            }
            _ => Ok(()),
        }
    }

    /// A change is carried out: a rollback settles what awaited its confirmation, and the change may await its own.
    pub(super) fn note_confirmation(
        &mut self,
        back_to: Option<Generation>,
        before: u32,
        confirm: Option<Duration>,
    ) {
        if let Some(Unconfirmed { generation, .. }) = self.unconfirmed.take().filter(|_| back_to.is_some()) {
            self.journal.settle(generation, Confirmation::TakenBack);
        }
        self.unconfirmed = confirm.map(|time| Unconfirmed {
            generation: self.committer.generation().0,
            before,
            until: Instant::now() + time,
        });
    }
}
