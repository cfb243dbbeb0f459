//! The allocator of the program: that of the system, but where memory is wanting the appliance waits for it instead of ending.
//!
//! Rust ends a process whose allocation fails. Here that would close the wire, since the same process forwards: a client's large
//! document would cost every connection. Workers allocate nothing once they run, so that they go on while another thread waits;
//! threads that serve clients refuse what is large ([`control::memory`]), and leave what waits to others.
//! What waits is in health, and what it waits for comes back when the others that hold memory have ended.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicUsize};
use std::thread::sleep;
use std::time::Duration;

use control::memory::may_fail;

/// Bytes that are kept back for allocations below [`LARGE`], such as those of health, when others find nothing more.
const RESERVE: Layout = Layout::new::<[u8; 8 << 20]>();
/// Bytes from which an allocation waits without touching the reserve.
const LARGE: usize = 64 << 10;
/// How often it is tried again.
const EVERY: Duration = Duration::from_millis(50);

/// The system's allocator, waited for.
pub struct Patient {
    /// Not before the appliance forwards: until then a process that ends costs nothing, and says why.
    waits: AtomicBool,
    reserve: AtomicPtr<u8>,
    /// Threads that wait.
    waiting: AtomicUsize,
    /// Bytes that the last of them asked for.
    wanted: AtomicUsize,
}

#[global_allocator]
static ALLOCATOR: Patient = Patient {
    waits: AtomicBool::new(false),
    reserve: AtomicPtr::new(null_mut()),
    waiting: AtomicUsize::new(0),
    wanted: AtomicUsize::new(0),
};

/// From now on allocations that fail wait.
pub fn wait_from_now_on() {
    ALLOCATOR.keep_back();
    ALLOCATOR.waits.store(true, Relaxed);
}

/// The bytes that an allocation waits for, if one does; of several, the last that began to. Otherwise the reserve is filled again.
pub fn wanted() -> Option<usize> {
    if ALLOCATOR.waiting.load(Acquire) > 0 {
        return Some(ALLOCATOR.wanted.load(Relaxed));
    }
    if ALLOCATOR.waits.load(Relaxed) {
        ALLOCATOR.keep_back();
    }
    None
}

impl Patient {
    /// Fills the reserve, if it is empty and there is memory.
    fn keep_back(&self) {
        if !self.reserve.load(Relaxed).is_null() {
            return;
        }
        // SAFETY: the layout is not of size 0.
        let kept = unsafe { System.alloc(RESERVE) };
        if self.reserve.compare_exchange(null_mut(), kept, AcqRel, Relaxed).is_err() && !kept.is_null() {
            // SAFETY: it was just allocated with this layout, and nobody else knows of it.
            unsafe { System.dealloc(kept, RESERVE) };
        }
    }

    /// Gives the reserve back to the system; false if it was given already.
    fn let_go(&self) -> bool {
        let kept = self.reserve.swap(null_mut(), AcqRel);
        if kept.is_null() {
            return false;
        }
        // SAFETY: it was allocated with this layout, and whoever swaps it out has it alone.
        unsafe { System.dealloc(kept, RESERVE) };
        true
    }

    /// Tries again until there is memory.
    #[cold]
    fn wait(&self, size: usize, again: impl Fn() -> *mut u8) -> *mut u8 {
        if !self.waits.load(Relaxed) || may_fail() {
            return null_mut();
        }
        if size < LARGE && self.let_go() {
            let at = again();
            if !at.is_null() {
                return at;
            }
        }
        self.wanted.store(size, Relaxed);
        self.waiting.fetch_add(1, Release);
        loop {
            sleep(EVERY);
            let at = again();
            if !at.is_null() {
                self.waiting.fetch_sub(1, Release);
                return at;
            }
        }
    }
}

// SAFETY: every call goes to the system's allocator as it is, once or several times until it does not fail; a failed call has
// changed nothing, so that the next has the same promises of the caller.
unsafe impl GlobalAlloc for Patient {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the system allocator's.
        let ask = || unsafe { System.alloc(layout) };
        let at = ask();
        if at.is_null() { self.wait(layout.size(), ask) } else { at }
    }

    // Zeroed memory comes unbacked from the system, and is to stay so.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let ask = || unsafe { System.alloc_zeroed(layout) };
        let at = ask();
        if at.is_null() { self.wait(layout.size(), ask) } else { at }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; what fails to grow lies where it lay.
        let ask = || unsafe { System.realloc(at, layout, size) };
        let grown = ask();
        if grown.is_null() { self.wait(size, ask) } else { grown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patient() -> Patient {
        Patient {
            waits: AtomicBool::new(true),
            reserve: AtomicPtr::new(null_mut()),
            waiting: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
        }
    }

    #[test]
    fn small_allocations_live_on_the_reserve_and_large_ones_wait() {
        let here = null_mut::<u8>().wrapping_add(8);
        let patient = patient();
        patient.keep_back();
        assert_eq!(patient.wait(100, || here), here);
        assert!(patient.reserve.load(Relaxed).is_null(), "it was given back for this one");
        assert_eq!((patient.waiting.load(Relaxed), patient.wanted.load(Relaxed)), (0, 0), "nobody waited");
        patient.keep_back();
        let tries = AtomicUsize::new(0);
        let third = || if tries.fetch_add(1, Relaxed) < 2 { null_mut() } else { here };
        assert_eq!(patient.wait(LARGE, third), here);
        assert!(!patient.reserve.load(Relaxed).is_null(), "large ones leave it alone");
        assert_eq!((patient.waiting.load(Relaxed), patient.wanted.load(Relaxed)), (0, LARGE));
        assert!(patient.let_go() && !patient.let_go());
    }

    #[test]
    fn before_the_appliance_forwards_nobody_waits() {
        let patient = Patient { waits: AtomicBool::new(false), ..patient() };
        assert!(patient.wait(LARGE, || unreachable!("it is not tried again")).is_null());
    }
}
