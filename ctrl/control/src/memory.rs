//! Allocations that may fail. A program may have an allocator that waits for memory rather than end (as the appliance's does):
//! where waiting would hold others up, and a refusal does as well, that is said here.

use std::cell::Cell;
use std::collections::TryReserveError;

thread_local! {
    static MAY_FAIL: Cell<bool> = const { Cell::new(false) };
}

/// Room for `more` bytes, or the reason why there is none, at once.
pub fn reserve(bytes: &mut Vec<u8>, more: usize) -> Result<(), TryReserveError> {
    MAY_FAIL.set(true);
    let reserved = bytes.try_reserve(more);
    MAY_FAIL.set(false);
    reserved
}

/// True while this thread asks for memory whose want it answers by itself. An allocator may call this.
pub fn may_fail() -> bool {
    // A thread that ends has no such value any more.
    MAY_FAIL.try_with(Cell::get).unwrap_or(false)
}
