//! What another thread sees of a run, and how it ends one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Shared by the run and whoever watches it.
#[derive(Debug, Default)]
pub struct Monitor {
    stop: Arc<AtomicBool>,
    sent: AtomicU64,
    received: AtomicU64,
    admitted_lost: AtomicU64,
    trial: AtomicU64,
}

/// A moment of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Frames sent.
    pub sent: u64,
    /// Frames received.
    pub received: u64,
    /// Frames that are to pass and have not come (yet).
    pub missing: u64,
    /// The trial of a search, from 1; 0 without a search.
    pub trial: u64,
}

// Relaxed everywhere: each number stands for itself, and a stop may be seen a moment later.
impl Monitor {
    /// Asks the run to end: it sends no more, drains, and reports.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// What asks for the end when it is set, for whoever can only set a flag: a signal's handler.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// True once somebody asked.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress {
            sent: self.sent.load(Relaxed),
            received: self.received.load(Relaxed),
            missing: self.admitted_lost.load(Relaxed),
            trial: self.trial.load(Relaxed),
        }
    }

    pub(crate) fn note(&self, sent: u64, received: u64, missing: u64) {
        self.sent.store(sent, Relaxed);
        self.received.store(received, Relaxed);
        self.admitted_lost.store(missing, Relaxed);
    }

    /// Says which trial of a search begins.
    pub fn begin_trial(&self, number: u64) {
        self.trial.store(number, Relaxed);
    }
}
