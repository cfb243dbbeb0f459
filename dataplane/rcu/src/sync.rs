//! The atomics: those of `std`, or loom's when models are checked (`--cfg loom`), and what only the
//! models need.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc,
    atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence},
};

/// Faults that the models must catch, to show that they can. `scripts/loom` plants one at a time,
/// by the environment variable `RCU_FAULT`; they exist in loom builds only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A reader's acknowledgement carries no Release: its last reads may come after the free.
    RelaxedAck,
    /// A version is freed when readers hold *it*, instead of when they hold a newer one.
    ReclaimEarly,
    /// A reader comes online without the fence between its announcement and its load.
    OnlineWithoutFence,
    /// The publisher looks at the slots without a fence after its store.
    PublishWithoutFence,
    /// A worker looks for work before it announces itself parked, and not again.
    ParkWithoutSecondLook,
    /// A worker's second look may come before its announcement is seen.
    ParkWithoutFence,
    /// A waker looks whether the worker sleeps without a fence after its own store of work.
    WakeWithoutFence,
}

/// Never, outside the models: a constant, so that nothing of it is left in the program.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) const fn planted(_: Fault) -> bool {
    false
}

/// Whether `RCU_FAULT` names this fault.
#[cfg(loom)]
pub(crate) fn planted(fault: Fault) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Fault>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| {
        Some(match std::env::var("RCU_FAULT").ok()?.as_str() {
            "relaxed-ack" => Fault::RelaxedAck,
            "reclaim-early" => Fault::ReclaimEarly,
            "online-without-fence" => Fault::OnlineWithoutFence,
            "publish-without-fence" => Fault::PublishWithoutFence,
            "park-without-fence" => Fault::ParkWithoutFence,
            "park-without-second-look" => Fault::ParkWithoutSecondLook,
            "wake-without-fence" => Fault::WakeWithoutFence,
            unknown => panic!("RCU_FAULT={unknown}: no such fault"),
        })
    });
    *planted == Some(fault)
}

/// Drops and frees a boxed value.
///
/// # Safety
/// `value` came from `Box::into_raw`, and nobody uses it any more.
#[cfg(not(loom))]
pub(crate) unsafe fn destroy<T>(value: *mut T) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(value) });
}

/// Drops a boxed value but leaks its memory: in a model with a planted fault a reader uses what was
/// dropped, and that shall be a failed check of the model and not a crash of the checker.
///
/// # Safety
/// `value` came from `Box::into_raw`, and is dropped once.
#[cfg(loom)]
pub(crate) unsafe fn destroy<T>(value: *mut T) {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::drop_in_place(value) };
}
