//! Changes that roll back by themselves unless somebody confirms them: an operator who has locked himself out says
//! nothing.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::Generation;

use super::durable::written;
use super::{Author, Change, ChangeRefused, Inner, Live, Origin};
use crate::api::types::{Confirmation, Record};
use crate::health::Severity;
use crate::store::Awaited;

/// A change whose time is over and that could not be taken back yet.
const UNCONFIRMED: (&str, &str) = ("policy", "unconfirmed");

/// How often the clock is looked at while a confirmation is awaited.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest time that a change may await its confirmation.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The present generation awaits its confirmation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unconfirmed {
    pub generation: u32,
    /// What it rolls back to.
    before: u32,
    until: Until,
    /// How long it was to wait from the first.
    wait: Duration,
}

/// When its time is over.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// In the run that made it: steps of the clock do not matter.
    Running(Instant),
    /// After a restart there is the wall clock alone. A clock that is wrong then, or put right later, makes it
    /// wait no longer than it was to wait from the first, counted from the start.
    Restarted { wall: SystemTime, latest: Instant },
}

impl Unconfirmed {
    pub fn new(generation: u32, before: u32, time: Duration) -> Unconfirmed {
        Unconfirmed { generation, before, until: Until::Running(Instant::now() + time), wait: time }
    }

    /// The generation that it would go back to.
    pub fn before(&self) -> u32 {
        self.before
    }

    /// How long it still waits, as the clocks stand now.
    pub fn left(&self) -> Duration {
        match self.until {
            Until::Running(until) => until.saturating_duration_since(Instant::now()),
            Until::Restarted { wall, latest } => {
                let by_wall = wall.duration_since(SystemTime::now()).unwrap_or_default();
                by_wall.min(latest.saturating_duration_since(Instant::now()))
            }
        }
    }
}

impl From<Unconfirmed> for Awaited {
    fn from(change: Unconfirmed) -> Awaited {
        let until = SystemTime::now() + change.left();
        let until_ms = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let wait_ms = Some(change.wait.as_millis() as u64);
        Awaited { generation: change.generation, before: change.before, until_ms, wait_ms }
    }
}

impl From<Awaited> for Unconfirmed {
    fn from(Awaited { generation, before, until_ms, wait_ms }: Awaited) -> Unconfirmed {
        let wait = wait_ms.map_or(LONGEST, Duration::from_millis).min(LONGEST);
        let wall = UNIX_EPOCH + Duration::from_millis(until_ms);
        let until = Until::Restarted { wall, latest: Instant::now() + wait };
        Unconfirmed { generation, before, until, wait }
    }
}

impl Live {
    /// Keeps the change that awaits its confirmation. Nothing does: it is refused.
    pub async fn confirm(&self) -> Result<Record, ChangeRefused> {
        let _turn = self.turn().await?;
        let Unconfirmed { generation, .. } =
            self.inner().unconfirmed.ok_or(ChangeRefused::NothingToConfirm)?;
        let record = Record { confirmation: Some(Confirmation::Confirmed), ..self.record(generation)? };
        let store = self.inner().store.clone();
        if let Some(store) = store {
            let (kept, writer) = (record.clone(), store.clone());
            let settled = written(&store, move || writer.settle(&kept)).await;
            self.tell_store(&store, &settled);
            settled.map_err(|error| ChangeRefused::Store(error.to_string()))?;
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
            // Looked at again and again: the wall clock may step.
            while !change.left().is_zero() {
                tokio::time::sleep(change.left().min(LOOK_EVERY)).await;
            }
            live.take_back(change.generation).await;
        });
    }

    /// Goes back, however often it has to be tried: an operator who is locked out waits for it.
    async fn take_back(&self, generation: u32) {
        let board = &self.shared.board;
        loop {
            let awaited = self.inner().unconfirmed.filter(|change| change.generation == generation);
            let Some(Unconfirmed { before, .. }) = awaited else { return board.clear(UNCONFIRMED) };
            let author = Author { origin: Origin::Timer, who: "portcullis".to_owned() };
            let change = Change { if_generation: Some(generation), ..Change::back_to(before, author) };
            match self.apply(change).await {
                // It was confirmed in this very moment.
                Err(ChangeRefused::NothingToConfirm) => return board.clear(UNCONFIRMED),
                Ok(receipt) => {
                    tracing::warn!(
                        "generation {generation} was not confirmed in time: back to {before}, as generation {}",
                        receipt.generation
                    );
                    return board.clear(UNCONFIRMED);
                }
                Err(reason) => board.raise(
                    UNCONFIRMED,
                    Severity::Degraded,
                    format!("generation {generation} was not confirmed and is still in force: {reason}"),
                    "it is tried again each second; `rollback` and `confirm` settle it, too",
                ),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Inner {
    /// Until a change is confirmed or taken back, nobody may build on it.
    pub(super) fn refuse_while_unconfirmed(&self, is_allowed: bool) -> Result<(), ChangeRefused> {
        match &self.unconfirmed {
            Some(change) if !is_allowed => Err(ChangeRefused::Unconfirmed {
                generation: change.generation,
                seconds: change.left().as_secs(),
            }),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Found in a store, with a deadline that lies so many seconds ahead by the wall clock.
    fn found(ahead: i64, wait_ms: Option<u64>) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        let until_ms = (now + ahead * 1000).max(0) as u64;
        Unconfirmed::from(Awaited { generation: 2, before: 1, until_ms, wait_ms }).left()
    }

    #[test]
    fn a_clock_that_is_wrong_at_a_restart_makes_nobody_wait_longer_than_was_asked_for() {
        let near = |left: Duration, seconds: u64| {
            left <= Duration::from_secs(seconds) && left.as_secs() + 1 >= seconds
        };
        assert!(near(found(20, Some(60_000)), 20));
        assert!(near(found(86_400, Some(60_000)), 60), "the clock is a day behind");
        assert_eq!(found(-86_400, Some(60_000)), Duration::ZERO, "a day ahead, or a day went by");
        assert!(near(found(1_000_000, None), 86_400), "written before the wait was kept");
    }

    #[test]
    fn what_is_left_is_kept_for_a_restart() {
        let change = Unconfirmed::new(2, 1, Duration::from_secs(60));
        let again = Unconfirmed::from(Awaited::from(change));
        assert!(again.left() <= Duration::from_secs(60) && again.left() > Duration::from_secs(58));
        assert_eq!((again.generation, again.before, again.wait), (2, 1, Duration::from_secs(60)));
    }
}
