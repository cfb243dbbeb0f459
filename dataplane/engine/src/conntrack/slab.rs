//! Items of a table side by side, in memory of the process's own or in memory that outlives it.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// As a vector that never grows beyond the room it was made with.
pub struct Slab<T: Copy> {
    start: NonNull<T>,
    len: usize,
    room: usize,
    /// False where the memory is somebody else's, who keeps it for as long as the process runs.
    is_own: bool,
}

// SAFETY: it holds its items as a vector does, and nobody else has a way to them.
unsafe impl<T: Copy + Send> Send for Slab<T> {}
// SAFETY: as above.
unsafe impl<T: Copy + Sync> Sync for Slab<T> {}

impl<T: Copy> Slab<T> {
    /// Of a vector's items, with room for as many as that has.
    pub fn own(items: Vec<T>) -> Slab<T> {
        let mut items = ManuallyDrop::new(items);
        let start = NonNull::new(items.as_mut_ptr()).unwrap_or(NonNull::dangling());
        Slab { start, len: items.len(), room: items.capacity(), is_own: true }
    }

    /// The first `len` of `room` items at `start`.
    ///
    /// # Safety
    /// So many items lie there, aligned, for as long as the process runs; any bytes are an item,
    /// and nobody else has a reference to them.
    pub unsafe fn lent(start: NonNull<T>, len: usize, room: usize) -> Slab<T> {
        Slab { start, len, room, is_own: false }
    }

    /// One more item at the end. There is room.
    #[inline]
    pub fn push(&mut self, item: T) {
        assert!(self.len < self.room, "a place within the table's capacity");
        // SAFETY: the place lies within the room.
        unsafe { self.start.add(self.len).write(item) };
        self.len += 1;
    }

    /// Has the memory of all that there is room for backed.
    pub fn touch(&mut self) {
        crate::pages::touch_raw(self.start.as_ptr().cast(), self.room * size_of::<T>());
    }
}

impl<T: Copy> Deref for Slab<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: so many items lie there, and whoever changes them has this mutably.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Copy> DerefMut for Slab<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: so many items lie there, and nobody else has a reference to them.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Copy> Drop for Slab<T> {
    fn drop(&mut self) {
        if self.is_own {
            // SAFETY: these are the parts of the vector that it was made of.
            drop(unsafe { Vec::from_raw_parts(self.start.as_ptr(), self.len, self.room) });
        }
    }
}
