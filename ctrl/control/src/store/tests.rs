//! Faults of a store, for the tests of those who write to it.

use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What happens at a step.
pub type Act = Box<dyn Fn() -> Result<(), ErrorKind> + Send>;

/// Steps are counted, and something happens at one of them.
#[derive(Default)]
pub struct Faults {
    seen: AtomicUsize,
    at: AtomicUsize,
    act: Mutex<Option<Act>>,
}

impl Faults {
    /// From now on, `act` is done at the step of this number, the first being 1.
    pub fn plant(&self, at: usize, act: Act) {
        self.seen.store(0, Relaxed);
        self.at.store(at, Relaxed);
        *self.act.lock().unwrap() = Some(act);
    }

    /// Nothing happens any more. True if something did.
    pub fn remove(&self) -> bool {
        let at = self.at.swap(0, Relaxed);
        at != 0 && self.seen.load(Relaxed) >= at
    }

    pub fn step(&self) -> Result<(), redb::Error> {
        let seen = self.seen.fetch_add(1, Relaxed) + 1;
        if seen != self.at.load(Relaxed) {
            return Ok(());
        }
        // Taken out: a panic must not poison the lock.
        let act = self.act.lock().unwrap().take();
        act.map_or(Ok(()), |act| act()).map_err(|kind| redb::Error::Io(kind.into()))
    }
}
