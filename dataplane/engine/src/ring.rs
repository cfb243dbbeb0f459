//! A bounded ring between two workers: one producer, one consumer, one index store a burst.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use crossbeam::utils::CachePadded;

struct Shared<T> {
    /// A power of two, so that a place is found without a division.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// Items that it holds: no more than there are slots.
    size: usize,
    /// Items published; counts on without wrapping to the slots.
    head: CachePadded<AtomicUsize>,
    /// Items taken.
    tail: CachePadded<AtomicUsize>,
}

// SAFETY: a slot is touched by the producer alone between `tail + len` and the store to `head`, and
// by the consumer alone between that store and its own to `tail`; the items themselves move between
// threads, hence `T: Send`.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; nothing in it is bound to a thread.
unsafe impl<T: Send> Send for Shared<T> {}

/// The sending end.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// Written so far, published or not.
    head: usize,
    /// The consumer's progress when last looked at.
    tail: usize,
}

/// The receiving end.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
}

impl<T> Shared<T> {
    #[inline]
    fn slot(&self, at: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[at & (self.slots.len() - 1)]
    }
}

/// A ring that holds `size` items.
pub fn ring<T: Send>(size: usize) -> (Producer<T>, Consumer<T>) {
    let size = size.max(1);
    let slots = (0..size.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared { slots, size, head: CachePadded::default(), tail: CachePadded::default() });
    (Producer { shared: shared.clone(), head: 0, tail: 0 }, Consumer { shared, tail: 0 })
}

impl<T> Producer<T> {
    /// Puts an item in; it is seen after [`Producer::publish`]. Gives it back if the ring is full.
    #[inline]
    pub fn push(&mut self, item: T) -> Result<(), T> {
        let size = self.shared.size;
        if self.head - self.tail == size {
            // Acquire: pairs with the consumer's release of `tail`, so that its read of the slot is
            // over.
            self.tail = self.shared.tail.load(Acquire);
            if self.head - self.tail == size {
                return Err(item);
            }
        }
        let slot = self.shared.slot(self.head);
        // SAFETY: the slot is the producer's: the consumer has taken what was in it, and will not
        // look before `publish`.
        unsafe { (*slot.get()).write(item) };
        self.head += 1;
        Ok(())
    }

    /// True if so many items more would go in now.
    #[inline]
    pub fn has_room(&mut self, items: usize) -> bool {
        let size = self.shared.size;
        if self.head - self.tail + items > size {
            // Acquire: as in `push`.
            self.tail = self.shared.tail.load(Acquire);
        }
        self.head - self.tail + items <= size
    }

    /// Has its memory backed, so that no item waits for a page. Whatever is in it stays.
    pub fn touch(&mut self) {
        crate::pages::touch_shared_cells(&self.shared.slots);
    }

    /// Shows all items put in so far; true if there were new ones.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.shared.head.load(Relaxed) == self.head {
            return false;
        }
        // Release: pairs with the consumer's acquire of `head`; without it the consumer could read
        // an unwritten slot.
        self.shared.head.store(self.head, Release);
        true
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        // What was put in and not shown is still to be dropped by the last one out.
        self.publish();
    }
}

impl<T> Consumer<T> {
    /// Takes at most `max` items in order.
    #[inline]
    pub fn take(&mut self, max: usize, mut each: impl FnMut(T)) -> usize {
        let head = self.shared.head.load(Acquire);
        let count = (head - self.tail).min(max);
        for _ in 0..count {
            let slot = self.shared.slot(self.tail);
            // SAFETY: the producer wrote this slot before it stored a `head` beyond it, and leaves
            // it alone until `tail` has passed it; it is read once, since `tail` moves on.
            let item = unsafe { (*slot.get()).assume_init_read() };
            self.tail += 1;
            each(item);
        }
        if count > 0 {
            // Release: pairs with the producer's acquire of `tail`; the reads above are over.
            self.shared.tail.store(self.tail, Release);
        }
        count
    }

    /// True if nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.shared.head.load(Acquire) == self.tail
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (head, tail) = (self.head.load(Acquire), self.tail.load(Acquire));
        for at in tail..head {
            let slot = self.slot(at);
            // SAFETY: both ends are gone; these slots were published and never taken.
            unsafe { (*slot.get()).assume_init_drop() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_out_once_in_order_and_not_before_they_are_published() {
        let (mut tx, mut rx) = ring(4);
        assert!(tx.push(1).is_ok() && tx.push(2).is_ok());
        assert!(rx.is_empty());
        assert!(tx.publish());
        assert!(!tx.publish());
        let mut seen = Vec::new();
        rx.take(1, |i| seen.push(i));
        rx.take(9, |i| seen.push(i));
        assert_eq!(seen, [1, 2]);
        for i in 3..7 {
            assert!(tx.push(i).is_ok());
        }
        assert_eq!(tx.push(7), Err(7));
    }

    #[test]
    fn a_ring_holds_what_it_was_asked_for_and_no_more() {
        for size in [1, 3, 5] {
            let (mut tx, mut rx) = ring(size);
            for lap in 0..7 {
                for i in 0..size {
                    assert_eq!(tx.push(lap * size + i), Ok(()));
                }
                assert_eq!(tx.push(0), Err(0));
                tx.publish();
                let mut seen = Vec::new();
                assert_eq!(rx.take(9, |item| seen.push(item)), size);
                assert_eq!(seen, (lap * size..(lap + 1) * size).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn room_for_several_is_what_the_consumer_has_left() {
        let (mut tx, mut rx) = ring(5);
        tx.touch();
        assert!(tx.has_room(5) && !tx.has_room(6));
        for i in 0..4 {
            assert!(tx.push(i).is_ok());
        }
        assert!(tx.has_room(1) && !tx.has_room(2));
        tx.publish();
        rx.take(3, |_| ());
        assert!(tx.has_room(4) && !tx.has_room(5));
    }

    #[test]
    fn what_is_left_in_a_ring_is_dropped_once() {
        let item = Arc::new(());
        let (mut tx, mut rx) = ring(8);
        for _ in 0..5 {
            let _ = tx.push(item.clone());
        }
        tx.publish();
        rx.take(2, drop);
        assert_eq!(Arc::strong_count(&item), 4);
        drop((tx, rx));
        assert_eq!(Arc::strong_count(&item), 1);
    }

    #[test]
    fn two_threads_lose_and_repeat_nothing() {
        let (mut tx, mut rx) = ring(64);
        let producer = std::thread::spawn(move || {
            for mut i in 0..200_000u64 {
                while let Err(back) = tx.push(i) {
                    i = back;
                    tx.publish();
                    std::thread::yield_now();
                }
                if i % 7 == 0 {
                    tx.publish();
                }
            }
        });
        let mut next = 0;
        while next < 200_000 {
            if rx.take(32, |i| {
                assert_eq!(i, next);
                next += 1;
            }) == 0
            {
                std::thread::yield_now();
            }
        }
        assert!(producer.join().is_ok());
    }
}
