//! Another process takes the policy over: no change begins, and nobody holds the store, until it is in charge or has failed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{MutexGuard, OwnedMutexGuard};
use tokio::time::timeout;

use super::{ChangeRefused, Live};
use crate::store::Store;

/// How long a change that is under way is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why another process can't take over now.
#[derive(Debug)]
pub enum NoRelief {
    /// A change takes long.
    Busy,
    /// A change awaits its confirmation, and only this process knows.
    Unconfirmed(u32),
    /// The store lacks changes that are in force.
    Behind,
    /// What connections rest on is not written down.
    Unkept,
}

impl fmt::Display for NoRelief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoRelief::Busy => f.write_str("a change is under way and takes long; try again"),
            NoRelief::Unconfirmed(generation) => write!(
                f,
                "generation {generation} awaits its confirmation, which would be forgotten without a store: `confirm` or `rollback` first"
            ),
            NoRelief::Behind => f.write_str("the store lacks the last change: `show health` tells why"),
            NoRelief::Unkept => {
                f.write_str("connections are not kept: [conntrack] keep is \"off\" or has no place")
            }
        }
    }
}

impl std::error::Error for NoRelief {}

/// While this is there the policy stays as it is: changes wait. The store is closed, and another process may open it. Dropped, all goes on
/// as before.
pub struct Standstill {
    live: Live,
    store: Option<Arc<Store>>,
    _turn: OwnedMutexGuard<()>,
}

impl Live {
    /// A change's turn; whoever comes when another process is in charge is refused.
    pub(super) async fn turn(&self) -> Result<MutexGuard<'_, ()>, ChangeRefused> {
        let turn = self.shared.writer.lock().await;
        if self.shared.relieved.load(Relaxed) { Err(ChangeRefused::Relieved) } else { Ok(turn) }
    }

    /// Waits for the change that is under way, and has none begin.
    pub async fn stand_still(&self) -> Result<Standstill, NoRelief> {
        let turn = timeout(PATIENCE, self.shared.writer.clone().lock_owned());
        let turn = turn.await.map_err(|_| NoRelief::Busy)?;
        let store = {
            let inner = self.inner();
            match &inner.unconfirmed {
                Some(change) if inner.store.is_none() => {
                    return Err(NoRelief::Unconfirmed(change.generation));
                }
                _ if !inner.unwritten.is_empty() => return Err(NoRelief::Behind),
                _ if inner.keeper.is_none() => return Err(NoRelief::Unkept),
                _ => inner.store.clone(),
            }
        };
        if store.as_ref().is_some_and(|store| !store.close()) {
            return Err(NoRelief::Behind);
        }
        Ok(Standstill { live: self.clone(), store, _turn: turn })
    }

    /// Writes down what connections rest on, as before each change: somebody else has written there.
    pub fn keep_again(&self) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        if let Some(keeper) = &mut inner.keeper {
            keeper(&inner.committer);
        }
    }
}

impl Standstill {
    /// The other process is in charge: nothing that is still asked of this one changes anything.
    pub fn relieved(mut self) {
        self.live.shared.relieved.store(true, Relaxed);
        self.store = None;
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        let Some(store) = self.store.take() else { return };
        // Where it is held still, health says so, and each change tries again.
        self.live.tell_store(&store, &store.reopen());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    use std::time::Duration;

    use super::super::faults::{Rig, document, run, to};
    use super::*;
    use crate::live::Change;
    use crate::store::{Store, StoreError};

    /// With a change in the store, and connections that are kept.
    fn rig() -> Rig {
        let rig = Rig::new();
        rig.apply(to(document(22, &["web"]))).unwrap();
        rig.live.set_state_writer(Box::new(|_| ()));
        rig
    }

    fn generation(store: Result<(Store, Option<crate::store::Contents>), StoreError>) -> u32 {
        store.unwrap_or_else(|error| panic!("{error}")).1.unwrap().generation
    }

    #[test]
    fn while_it_stands_still_another_process_has_the_store_and_changes_wait() {
        let rig = rig();
        assert!(matches!(Store::open(&rig.path()), Err(StoreError::InUse(_))));
        let still = run(rig.live.stand_still()).unwrap();
        assert_eq!(generation(Store::open(&rig.path())), 1, "another process reads it, and is gone");
        std::thread::scope(|scope| {
            let change = scope.spawn(|| rig.apply(to(document(23, &["web"]))));
            std::thread::sleep(Duration::from_millis(100));
            assert!(!change.is_finished() && rig.live.generation() == 1);
            drop(still);
            assert_eq!(change.join().unwrap().unwrap().generation, 2);
        });
        assert!(matches!(Store::open(&rig.path()), Err(StoreError::InUse(_))), "it has the store again");
        rig.apply(to(document(24, &["web"]))).unwrap();
        let path = rig.path();
        drop(rig.live);
        assert_eq!(generation(Store::open(&path)), 3, "with all that was changed since");
    }

    #[test]
    fn a_store_that_is_not_given_back_is_tried_again_by_each_change() {
        let rig = rig();
        let still = run(rig.live.stand_still()).unwrap();
        let other = Store::open(&rig.path()).unwrap();
        drop(still);
        let problem = |rig: &Rig| rig.live.board().is_raised(("store", "write"));
        assert!(problem(&rig));
        assert!(matches!(rig.apply(to(document(23, &["web"]))), Err(ChangeRefused::Store(_))));
        assert_eq!(rig.live.generation(), 1);
        drop(other);
        assert_eq!(rig.apply(to(document(23, &["web"]))).unwrap().generation, 2);
        run(rig.live.look_after_store());
        assert!(!problem(&rig), "what is over is not told any more");
    }

    #[test]
    fn who_is_relieved_changes_nothing_any_more_and_gives_the_store_away_for_good() {
        let rig = rig();
        let still = run(rig.live.stand_still()).unwrap();
        let other = std::thread::scope(|scope| {
            let change = scope.spawn(|| rig.apply(to(document(23, &["web"]))));
            let other = Store::open(&rig.path()).unwrap();
            still.relieved();
            assert!(matches!(change.join().unwrap(), Err(ChangeRefused::Relieved)));
            other
        });
        assert!(matches!(rig.apply(to(document(24, &["web"]))), Err(ChangeRefused::Relieved)));
        assert!(matches!(run(rig.live.confirm()), Err(ChangeRefused::Relieved)));
        run(rig.live.look_after_store());
        drop(other);
        assert_eq!(generation(Store::open(&rig.path())), 1, "nor has it taken it back");
    }

    #[test]
    fn it_does_not_stand_still_where_something_would_be_lost() {
        let rig = Rig::new();
        assert!(matches!(run(rig.live.stand_still()), Err(NoRelief::Unkept)), "connections are not kept");
        let rig = self::rig();
        let waits = Change { confirm: Some(Duration::from_secs(60)), ..to(document(23, &["web"])) };
        run(async { rig.live.apply(waits).await }).unwrap();
        assert!(run(rig.live.stand_still()).is_ok(), "the store knows of it");
        let held = rig.live.inner().store.take();
        assert!(matches!(run(rig.live.stand_still()), Err(NoRelief::Unconfirmed(2))));
        rig.live.inner().store = held;
    }

    #[test]
    fn what_was_written_by_another_is_written_anew() {
        static TIMES: AtomicU32 = AtomicU32::new(0);
        let rig = Rig::new();
        rig.live.set_state_writer(Box::new(|committer| {
            assert_eq!(committer.generation().0, 0);
            TIMES.fetch_add(1, SeqCst);
        }));
        rig.live.keep_again();
        assert_eq!(TIMES.load(SeqCst), 1);
    }
}
