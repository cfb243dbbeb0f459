//! The domain: versions, slots, the publisher and its readers. The protocol is told in the crate's
//! documentation.

use std::ptr::{self, NonNull};

use crossbeam::utils::CachePadded;

use crate::sync::{Arc, AtomicPtr, AtomicU64, Fault, Ordering, destroy, fence, planted};

/// The number of a publication; the initial value has the first. Later publications are greater,
/// and no number comes twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of the initial value.
    pub const FIRST: Epoch = Epoch(1);

    /// The number itself.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// A slot that says "coming online, may take any version". Below every epoch, so it acknowledges
/// nothing.
const PINNED: u64 = 0;
/// A slot that says "holds nothing". Above every epoch, so it acknowledges everything.
const OFFLINE: u64 = u64::MAX;

/// One publication. Epoch and value hang on one pointer, so that a reader gets both by one load.
struct Version<T> {
    epoch: u64,
    /// From `Box::into_raw`; owned by the publisher, borrowed by readers.
    value: *mut T,
}

struct Shared<T> {
    /// The newest version; null when the publisher is gone. Alone on its cache line: readers share
    /// it untouched until something is published.
    current: CachePadded<AtomicPtr<Version<T>>>,
    /// One word a reader, each on a cache line of its own: no reader's store disturbs another one.
    slots: Box<[CachePadded<AtomicU64>]>,
}

/// Makes a domain with its first value: one publisher, and `readers` readers numbered from 0.
///
/// The readers are born online and hold `initial`: a reader that nobody runs yet holds up
/// acknowledgements, so take it [offline](Reader::offline) if it will wait for long.
pub fn domain<T: Send + Sync>(initial: Box<T>, readers: usize) -> (Publisher<T>, Vec<Reader<T>>) {
    let version = Version::boxed(Epoch::FIRST, initial);
    let shared = Arc::new(Shared {
        current: CachePadded::new(AtomicPtr::new(version.as_ptr())),
        slots: (0..readers).map(|_| CachePadded::new(AtomicU64::new(Epoch::FIRST.0))).collect(),
    });
    // No ordering is needed between these lines and the first use: whatever carries a `Reader` to
    // its thread (spawn, a channel) orders that.
    let readers =
        (0..readers).map(|slot| Reader { shared: shared.clone(), slot, held: Some(version) }).collect();
    (Publisher { shared, current: version, limbo: Vec::new() }, readers)
}

impl<T> Version<T> {
    fn boxed(epoch: Epoch, value: Box<T>) -> NonNull<Version<T>> {
        NonNull::from(Box::leak(Box::new(Version { epoch: epoch.0, value: Box::into_raw(value) })))
    }

    /// Drops the value and the version.
    ///
    /// # Safety
    /// No reader can hold the version or reach it, and it is not used again.
    unsafe fn free(version: NonNull<Version<T>>) {
        // SAFETY: both boxes were leaked in `boxed`, and by the caller's promise this is their only
        // user.
        unsafe {
            destroy(version.as_ref().value);
            destroy(version.as_ptr());
        }
    }
}

impl<T> Shared<T> {
    /// The oldest epoch that some reader may hold or yet take; `OFFLINE` if there is no such
    /// reader.
    ///
    /// Meaningful for versions that `current` no longer showed at the caller's last SeqCst fence.
    fn oldest_held(&self) -> u64 {
        // Acquire, in `slot()`: see there.
        self.slots.iter().map(|slot| Self::slot(slot)).min().unwrap_or(OFFLINE)
    }

    fn slot(slot: &AtomicU64) -> u64 {
        // Acquire pairs with the Release stores of the slot in `Reader::quiescent`, `offline` and
        // `try_online`: what the reader read of older versions happens before what we do next, and
        // that may be freeing them. With Relaxed a free could overtake the reader's last read on a
        // weakly ordered machine, or in the compiler.
        slot.load(Ordering::Acquire)
    }
}

/// The writing end: it alone changes the value, and it alone drops values.
///
/// Not `Clone` and not `Sync`: one thread at a time, which need not be always the same.
///
/// # Dropping it
///
/// Drop the publisher when every reader is gone or offline: then every value is dropped here and
/// now. If a reader is still online, what it may hold is *leaked* (and stays valid for it): waiting
/// could hang a shutdown on a stuck worker, and leaving the value to the last reader would run its
/// destructor on a worker. A reader cannot come online again ([`Reader::try_online`] says so).
///
/// ```compile_fail
/// fn shared_between_threads(publisher: &(impl Sync + ?Sized)) {}
/// shared_between_threads(&rcu::domain(Box::new(1), 0).0);
/// ```
pub struct Publisher<T: Send + Sync> {
    shared: Arc<Shared<T>>,
    /// What `shared.current` shows. Only this thread stores there, so it need not load.
    current: NonNull<Version<T>>,
    /// Replaced versions that some reader may still hold, oldest first.
    limbo: Vec<NonNull<Version<T>>>,
}

// SAFETY: the publisher owns its versions; moving it moves the right to drop `T`s (T: Send) and to
// read one that readers on other threads read too (T: Sync). Nothing in it depends on a thread.
unsafe impl<T: Send + Sync> Send for Publisher<T> {}

impl<T: Send + Sync> Publisher<T> {
    /// The newest value.
    pub fn current(&self) -> &T {
        // SAFETY: the current version is freed only by `drop`, or by `reclaim` after `publish`
        // replaced it; all take `&mut self`, which ends this borrow. Nobody ever makes a `&mut T`
        // of it before.
        unsafe { &*self.current.as_ref().value }
    }

    /// The epoch of the newest value.
    pub fn epoch(&self) -> Epoch {
        // SAFETY: as in `current`.
        Epoch(unsafe { self.current.as_ref() }.epoch)
    }

    /// Makes `next` the value that readers take at their next quiescent state. The old one goes to
    /// limbo until [`reclaim`](Self::reclaim) finds that nobody holds it. Never waits.
    pub fn publish(&mut self, next: Box<T>) -> Epoch {
        let epoch = Epoch(self.epoch().0 + 1);
        let next = Version::boxed(epoch, next);
        // Release pairs with the Acquire loads of `current` in `Reader::quiescent` and
        // `try_online`: who gets the pointer finds the version and the value complete. With Relaxed
        // a reader could see the pointer before the bytes behind it. A store does, for a swap would
        // tell us only what we know: nobody else writes here.
        self.shared.current.store(next.as_ptr(), Ordering::Release);
        self.limbo.push(std::mem::replace(&mut self.current, next));
        // SeqCst pairs with the fence in `Reader::try_online`, and stands between our store above
        // and every later look at a slot (`acknowledged`, `reclaim`). Without it we could see a
        // slot OFFLINE whose reader is about to take the old version: it would be acknowledged
        // wrongly, and freed in its hands.
        if !planted(Fault::PublishWithoutFence) {
            fence(Ordering::SeqCst);
        }
        epoch
    }

    /// How many readers the domain has, offline and dropped ones included.
    pub fn readers(&self) -> usize {
        self.shared.slots.len()
    }

    /// Whether `reader` has passed a quiescent state on the value of `epoch` or a newer one, or is
    /// offline: nothing that it does from now on is judged by an older value.
    ///
    /// # Panics
    /// If there is no such reader.
    pub fn acknowledged(&self, reader: usize, epoch: Epoch) -> bool {
        Shared::<T>::slot(&self.shared.slots[reader]) >= epoch.0
    }

    /// The epoch of what `reader` holds; `None` while it is offline or about to come online, and
    /// will take the newest.
    ///
    /// # Panics
    /// If there is no such reader.
    pub fn held(&self, reader: usize) -> Option<Epoch> {
        match Shared::<T>::slot(&self.shared.slots[reader]) {
            PINNED | OFFLINE => None,
            epoch => Some(Epoch(epoch)),
        }
    }

    /// Whether every reader has [acknowledged](Self::acknowledged) `epoch`.
    pub fn all_acknowledged(&self, epoch: Epoch) -> bool {
        self.shared.oldest_held() >= epoch.0
    }

    /// Drops, here and now, every old value that no reader can still hold; says how many that were.
    pub fn reclaim(&mut self) -> usize {
        let oldest = self.shared.oldest_held();
        let freed = self.limbo.partition_point(|version| {
            // SAFETY: versions in limbo are not freed yet.
            let epoch = unsafe { version.as_ref() }.epoch;
            epoch < oldest || (planted(Fault::ReclaimEarly) && epoch == oldest)
        });
        for version in self.limbo.drain(..freed) {
            // SAFETY: every slot is above the version's epoch. So each reader has written, after
            // its last use of this version, that it holds a newer one or none (the Acquire in
            // `slot` makes those uses happen before this); and none can take it any more: `current`
            // moved on before the fence in `publish`, and a reader that comes online either had its
            // PINNED seen by us (then `oldest` is 0) or sees what `current` moved on to.
            unsafe { Version::free(version) };
        }
        freed
    }

    /// How many old values wait for [`reclaim`](Self::reclaim).
    pub fn in_limbo(&self) -> usize {
        self.limbo.len()
    }
}

impl<T: Send + Sync> Drop for Publisher<T> {
    fn drop(&mut self) {
        // The end is a publication of nothing, so it is ordered like one: the store before the
        // fence, the look at the slots after it. Relaxed: null leads to no bytes that Release would
        // have to complete.
        self.shared.current.store(ptr::null_mut(), Ordering::Relaxed);
        self.limbo.push(self.current);
        fence(Ordering::SeqCst);
        // What is left in limbo now is leaked, on purpose.
        self.reclaim();
    }
}

/// The reading end, one for each worker.
///
/// `Send` to move it to its thread; neither `Sync` nor `Clone`, for a quiescent state is one
/// thread's. Dropping it takes it offline.
///
/// A borrow of the value cannot outlive the next quiescent state:
///
/// ```compile_fail
/// let (_publisher, mut readers) = rcu::domain(Box::new(1), 1);
/// let value = readers[0].read();
/// readers[0].quiescent();
/// println!("{value}");
/// ```
///
/// ```compile_fail
/// fn shared_between_threads(reader: &(impl Sync + ?Sized)) {}
/// shared_between_threads(&rcu::domain(Box::new(1), 1).1[0]);
/// ```
pub struct Reader<T: Send + Sync> {
    shared: Arc<Shared<T>>,
    slot: usize,
    /// The version taken at the last quiescent state; `None` offline. It changes nowhere else: that
    /// is what makes all reads of a burst reads of one generation.
    held: Option<NonNull<Version<T>>>,
}

// SAFETY: a reader reads a `T` that other threads read too (T: Sync) and never drops one. Its slot
// is written by whatever thread owns the reader, and moving it between threads orders those writes.
unsafe impl<T: Send + Sync> Send for Reader<T> {}

impl<T: Send + Sync> Reader<T> {
    /// The value of this burst: the same from one quiescent state to the next, whatever is
    /// published meanwhile.
    ///
    /// # Panics
    /// If the reader is offline.
    #[inline]
    pub fn read(&self) -> &T {
        let held = self.held.expect("an RCU reader is read only online");
        // SAFETY: our slot has said since the last quiescent state that we hold this version, so it
        // is not freed before the next one; that takes `&mut self` and so ends this borrow.
        unsafe { &*held.as_ref().value }
    }

    /// The epoch of what [`read`](Self::read) gives; `None` offline.
    pub fn epoch(&self) -> Option<Epoch> {
        // SAFETY: as in `read`.
        self.held.map(|held| Epoch(unsafe { held.as_ref() }.epoch))
    }

    /// A quiescent state: the worker holds nothing of the old value, and takes the newest. One
    /// load, and one store if something was published since the last time. Does nothing offline.
    #[inline]
    pub fn quiescent(&mut self) {
        let Some(held) = self.held else { return };
        // Acquire pairs with the Release store in `Publisher::publish`: the version behind the
        // pointer is complete.
        let newest = self.shared.current.load(Ordering::Acquire);
        // The same pointer is the same version: the one we hold is not freed, so its address cannot
        // have been used again.
        if newest != held.as_ptr() {
            self.adopt(newest);
        }
    }

    #[cold]
    fn adopt(&mut self, newest: *mut Version<T>) {
        // The publisher is gone: what we hold was leaked for us, and stays the value.
        let Some(newest) = NonNull::new(newest) else { return };
        // SAFETY: we loaded this pointer while our slot named an older version (or PINNED), so it
        // is not freed: a version is freed only when every slot is above it.
        let epoch = unsafe { newest.as_ref() }.epoch;
        self.held = Some(newest);
        // Release pairs with the Acquire of the slot in `Shared::slot`: every read of the version
        // held until now comes before the publisher sees this and frees it. Relaxed would let those
        // reads slip behind the store, and so behind the free.
        let order = if planted(Fault::RelaxedAck) { Ordering::Relaxed } else { Ordering::Release };
        self.shared.slots[self.slot].store(epoch, order);
    }

    /// Lets go of the value: from now on no publication waits for this reader. For whoever is about
    /// to sleep.
    pub fn offline(&mut self) {
        self.held = None;
        // Release pairs with the Acquire in `Shared::slot`, as in `adopt`: our reads of what we
        // held come before its free.
        self.shared.slots[self.slot].store(OFFLINE, Ordering::Release);
    }

    /// Comes online with the newest value; a quiescent state if the reader was online already.
    ///
    /// # Panics
    /// If the publisher is gone: see [`try_online`](Self::try_online).
    pub fn online(&mut self) {
        assert!(self.try_online(), "an RCU reader came online after its publisher was dropped");
    }

    /// Like [`online`](Self::online), but says `false`, and stays offline, if the publisher is
    /// gone. (A reader that was online then keeps what it holds.)
    #[must_use]
    pub fn try_online(&mut self) -> bool {
        if self.held.is_some() {
            self.quiescent();
            return true;
        }
        let slot = &self.shared.slots[self.slot];
        // Relaxed: nothing that we did before matters to who sees it; that it is seen in time is
        // the fence's work.
        slot.store(PINNED, Ordering::Relaxed);
        // SeqCst pairs with the fences in `Publisher::publish` and `drop`: either the publisher
        // sees PINNED and frees nothing, or we see what it published. Without it the announcement
        // could still be in the store buffer when the load below is done, and the publisher would
        // free what we took. The crate's documentation draws it.
        if !planted(Fault::OnlineWithoutFence) {
            fence(Ordering::SeqCst);
        }
        // Acquire: as in `quiescent`. The announcement is replaced by the epoch that we really
        // hold, so that a reader that was just woken does not hold up acknowledgements until its
        // first quiescent state.
        let newest = self.shared.current.load(Ordering::Acquire);
        self.adopt(newest);
        if self.held.is_none() {
            self.offline();
        }
        self.held.is_some()
    }

    /// Whether the reader holds a value.
    pub fn is_online(&self) -> bool {
        self.held.is_some()
    }
}

impl<T: Send + Sync> Drop for Reader<T> {
    fn drop(&mut self) {
        // A worker that ends, or panics, holds up nobody.
        self.offline();
    }
}

/// What may cross threads, asserted where a changed field would break it.
const _: () = {
    const fn sent<T: Send>() {}
    sent::<Publisher<Vec<u8>>>();
    sent::<Reader<Vec<u8>>>();
};
