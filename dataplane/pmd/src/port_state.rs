//! What a port is to its workers while devices come and go behind it: whether it takes frames, and what was lost there.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// Whether frames can leave by a port. Told by whoever watches its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TxState {
    /// As far as is known; the device decides.
    Open = 0,
    /// The link is down. The device is asked all the same, and what it refuses counts as refused for that.
    Down = 1,
    /// The device would take frames and lose them, or there is none: nothing is handed to it.
    Shut = 2,
}

/// A port's place. It outlives the device that is in it: an interface that was deleted and made anew brings another.
#[derive(Debug)]
pub(crate) struct PortState {
    pub(crate) name: String,
    way: AtomicU8,
    /// By queue.
    pub(crate) counters: Box<[Counters]>,
}

impl PortState {
    pub(crate) fn new(name: &str, queues: u16) -> PortState {
        let counters = (0..queues).map(|_| Counters::default()).collect();
        PortState { name: name.to_owned(), way: AtomicU8::new(TxState::Open as u8), counters }
    }

    pub(crate) fn set(&self, way: TxState) {
        // Relaxed: it stands for itself; a frame more or less that meets the old one makes no difference.
        self.way.store(way as u8, Relaxed);
    }

    #[inline]
    pub(crate) fn is_shut(&self) -> bool {
        // Relaxed: as above.
        self.way.load(Relaxed) == TxState::Shut as u8
    }

    pub(crate) fn is_down(&self) -> bool {
        // Relaxed: as above.
        self.way.load(Relaxed) != TxState::Open as u8
    }

    pub(crate) fn sum(&self, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        self.counters.iter().map(|counters| counter(counters).get()).sum()
    }
}

/// A counter that one thread writes and others read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds by load and store: only the queue's owner writes.
    pub(crate) fn add(&self, n: u64) {
        // Relaxed: a count stands for itself; readers need no order with the frames.
        self.0.store(self.0.load(Relaxed) + n, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        // Relaxed: as above.
        self.0.load(Relaxed)
    }
}

/// What a queue pair counts itself.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) rx_oversize: Counter,
    pub(crate) tx_oversize: Counter,
    pub(crate) tx_full: Counter,
    pub(crate) tx_down: Counter,
}
