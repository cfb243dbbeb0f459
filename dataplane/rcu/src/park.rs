//! How a worker without work sleeps, and how it is woken.
//!
//! The danger is the lost wake-up: the worker looks at its rings, finds nothing, and goes to sleep;
//! between the look and the sleep somebody puts a frame in and sees a worker that is awake. So a
//! worker *announces* first and looks *again* after that, and who gives work puts it down first and
//! looks at the announcement after that:
//!
//! ```text
//!   worker: park()                     giver: ring.push(..); waker.wake()
//!   asleep = true                      work is in the ring
//!   ------- SeqCst fence               ------- SeqCst fence
//!   look at the rings                  look at asleep
//! ```
//!
//! Of two SeqCst fences one is first, for everybody. If the worker's is, the giver sees `asleep`
//! and signals; if the giver's is, the worker sees the work and does not sleep. Without the fences
//! both could miss each other, as each side's store may leave its core after its load. A signal
//! that comes before the sleep is not lost either: an eventfd remembers it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use crossbeam::utils::CachePadded;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

use crate::{
    Reader,
    sync::{Arc, AtomicBool, Fault, Ordering, fence, planted},
};

/// What a parked worker waits on: an eventfd, or a model of one.
pub trait Event: Send + Sync {
    /// Ends the present wait, or the next one if nobody waits.
    fn signal(&self);
    /// Waits for a signal, at most `timeout`; whether one came. Signals that came meanwhile are
    /// used up.
    fn wait(&self, timeout: Duration) -> bool;
}

/// The kernel's eventfd: signals are remembered, and waiting takes a timeout.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Makes one; fails where the process may not open another descriptor.
    pub fn new() -> io::Result<EventFd> {
        Ok(EventFd(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }
}

impl Event for EventFd {
    fn signal(&self) {
        // It fails only if 2^64 - 2 signals wait, and then the sleeper is woken anyway.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    fn wait(&self, timeout: Duration) -> bool {
        // A timeout past what the kernel can say is no timeout.
        let timeout = Timespec::try_from(timeout).ok();
        // An interrupted wait (EINTR) is a spurious wake-up: the worker looks around and parks
        // again.
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref());
        // Reading sets the counter back to 0. Nothing to read (EAGAIN): the time was up.
        rustix::io::read(&self.0, &mut [0u8; 8]) != Err(Errno::AGAIN)
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

struct Shared<E> {
    /// Announced: the worker sleeps, or is about to look a last time.
    asleep: CachePadded<AtomicBool>,
    event: E,
}

/// The worker's end: it sleeps here.
pub struct Parker<E: Event = EventFd> {
    shared: Arc<Shared<E>>,
}

/// The end of all others: they wake the worker here. Cheap to clone.
pub struct Waker<E: Event = EventFd> {
    shared: Arc<Shared<E>>,
}

/// Why [`Parker::park`] came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parked {
    /// The last look found work; the worker did not sleep and the reader stayed online.
    Work,
    /// Somebody woke the worker. May be spurious: a signal that crossed an earlier look is
    /// delivered late.
    Woken,
    /// The time was up.
    TimedOut,
    /// The domain's publisher is gone: the reader is offline for good and the worker should end.
    Closed,
}

/// A parker on an eventfd, and its waker.
pub fn parker() -> io::Result<(Parker, Waker)> {
    Ok(parker_on(EventFd::new()?))
}

/// A parker on another kind of event.
pub fn parker_on<E: Event>(event: E) -> (Parker<E>, Waker<E>) {
    let shared = Arc::new(Shared { asleep: CachePadded::new(AtomicBool::new(false)), event });
    (Parker { shared: shared.clone() }, Waker { shared })
}

impl<E: Event> Parker<E> {
    /// Sleeps until woken or until `timeout`, unless `has_work` finds something to do. Offline in
    /// RCU while it sleeps, so that no change waits for a sleeper; on return the reader holds the
    /// newest value (if it was online before).
    ///
    /// `has_work` must look at *every* source whose givers call [`Waker::wake`]; others are seen at
    /// the timeout.
    pub fn park<T: Send + Sync>(
        &mut self,
        reader: &mut Reader<T>,
        timeout: Duration,
        has_work: impl FnOnce() -> bool,
    ) -> Parked {
        let shared = &*self.shared;
        if planted(Fault::ParkWithoutSecondLook) {
            let work = has_work();
            shared.asleep.swap(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if work {
                return Parked::Work;
            }
        } else {
            // Relaxed: it carries no data, and the fence gives it its place. A swap, here and
            // below, and not a store: the flag's history is then one chain, in which a giver's late
            // swap comes either before this announcement or takes it and signals. (A store would do
            // by the letter of the memory model, but loom does not know that nothing comes between
            // a swap's read and its write, and a worker that parks can afford the swap.)
            shared.asleep.swap(true, Ordering::Relaxed);
            // SeqCst pairs with the fence in `Waker::wake`: without it the look below may be done
            // before others can see the announcement, and a giver who comes in between neither is
            // seen nor signals.
            if !planted(Fault::ParkWithoutFence) {
                fence(Ordering::SeqCst);
            }
            if has_work() {
                // Relaxed: who still reads `true` signals once too often, and the next park returns
                // at once. That is all.
                shared.asleep.swap(false, Ordering::Relaxed);
                return Parked::Work;
            }
        }
        let was_online = reader.is_online();
        reader.offline();
        let woken = shared.event.wait(timeout);
        // Relaxed: as above. What the giver did before its wake-up is seen by the worker through
        // the ring's own Acquire, not through this flag: the next announcement and look come before
        // the next sleep.
        shared.asleep.swap(false, Ordering::Relaxed);
        match (was_online && !reader.try_online(), woken) {
            (true, _) => Parked::Closed,
            (false, true) => Parked::Woken,
            (false, false) => Parked::TimedOut,
        }
    }
}

impl<E: Event> Waker<E> {
    /// Wakes the worker if it sleeps. Call it *after* the work is where the worker looks, once a
    /// burst: a fence and one load when nobody sleeps, a system call when somebody does.
    #[inline]
    pub fn wake(&self) {
        // SeqCst pairs with the fence in `Parker::park`, and stands between the caller's store of
        // the work and the load below. Without it the load may be done while the work is still in
        // our store buffer: we see a worker awake, it sees no work, and sleeps over it.
        if !planted(Fault::WakeWithoutFence) {
            fence(Ordering::SeqCst);
        }
        // Relaxed: the fence orders it.
        if self.shared.asleep.load(Ordering::Relaxed) {
            self.signal();
        }
    }

    #[cold]
    fn signal(&self) {
        // Of many givers one makes the system call. Relaxed: whoever finds `false` here or above
        // leaves the signal to another, who has yet to send it or has sent it; the worker then
        // looks at all its sources, and this giver's fence decides as before whether that look, or
        // the one after the next announcement, sees its work.
        if self.shared.asleep.swap(false, Ordering::Relaxed) {
            self.shared.event.signal();
        }
    }
}

impl<E: Event> Clone for Waker<E> {
    fn clone(&self) -> Self {
        Waker { shared: self.shared.clone() }
    }
}

impl<E: Event + AsFd> AsFd for Parker<E> {
    /// For whoever waits for more than one thing.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}
