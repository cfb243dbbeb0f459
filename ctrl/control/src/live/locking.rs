//! Who may hold up whom: a change of a hundred thousand NICs takes seconds, and health, signals and deadlines wait for nobody.

use std::sync::{MutexGuard, PoisonError, TryLockError};

use engine::counters::ConnectionCounts;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::{Inner, Live};
use crate::commit::Committer;

/// What health says of the workers, as it was when it could last be looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct HealthSnapshot {
    pub generation: u32,
    pub lagging: Vec<usize>,
}

/// Does what takes long: others that this thread serves are served by another one meanwhile, where the runtime has more.
pub(super) fn block_in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl Live {
    /// Waits for whoever holds it: a change that is worked out, at the longest.
    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner_now().unwrap_or_else(|| {
            block_in_place(|| self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    /// Names of what workers tell by number, when a change that is worked out is done.
    pub fn with_names<R>(&self, look: impl FnOnce(&Committer) -> R) -> R {
        look(&self.inner().committer)
    }

    /// The same now, if no change is being worked out.
    pub fn names_now<R>(&self, look: impl FnOnce(&Committer) -> R) -> Option<R> {
        self.inner_now().map(|inner| look(&inner.committer))
    }

    /// The same, if nobody holds it.
    pub(super) fn inner_now(&self) -> Option<MutexGuard<'_, Inner>> {
        match self.shared.inner.try_lock() {
            Ok(inner) => Some(inner),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The present generation and who does not follow yet; of a moment ago, while a change is worked out.
    pub(super) fn health_snapshot(&self) -> HealthSnapshot {
        let mut last = self.shared.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inner) = self.inner_now() {
            *last = inner.pulse();
        }
        last.clone()
    }

    /// Frees old snapshots that a worker held too long at the time of their change.
    pub fn reclaim(&self) {
        if let Some(mut inner) = self.inner_now()
            && inner.publisher.in_limbo() > 0
        {
            inner.publisher.reclaim();
        }
    }

    /// Connections of all NICs, tombstones included, and the NICs that have more than their fair share (semantics
    /// 6.1), those with most first. `None` while a change is worked out.
    pub fn connections_held(&self) -> Option<(u64, Vec<(String, u32)>)> {
        let inner = self.inner_now()?;
        let (mut all, mut above, share) = (0, Vec::new(), inner.fair_share());
        let connection_counts: &ConnectionCounts = &inner.connection_counts;
        for key in inner.committer.policy().nics.keys() {
            let Some(slot) = inner.committer.nic_slot(key) else { continue };
            let held = connection_counts.get(slot);
            all += u64::from(held);
            if held > share {
                above.push((key.to_string(), held));
            }
        }
        above.sort_by_key(|(_, held)| std::cmp::Reverse(*held));
        Some((all, above))
    }
}

impl Inner {
    pub(super) fn pulse(&self) -> HealthSnapshot {
        let epoch = self.publisher.epoch();
        let lagging = (0..self.workers.len()).filter(|id| !self.publisher.acknowledged(*id, epoch)).collect();
        HealthSnapshot { generation: self.committer.generation().0, lagging }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use crate::live::faults::Rig;

    /// Everything that every answer bears, included.
    #[test]
    fn health_and_signals_wait_for_no_change_that_is_worked_out() {
        let rig = Rig::new();
        let (live, worked_out) = (rig.live.clone(), rig.live.inner());
        let (told, answer) = channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let asked = Request::get("/healthz").body(Body::empty()).unwrap();
            let answered = runtime.block_on(crate::api::router(live.clone()).oneshot(asked)).unwrap();
            live.reclaim();
            told.send((answered.status(), live.connections_held().is_some())).unwrap();
        });
        let (status, is_counted) = answer.recv_timeout(Duration::from_secs(20)).expect("it waits");
        drop(worked_out);
        assert_eq!((status.as_u16(), is_counted), (200, false));
    }
}
