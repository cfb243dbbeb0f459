//! Quiescent-state RCU: one publisher, N readers, and a worker's way to sleep.
//!
//! A control thread owns the [`Publisher`]; every worker owns one [`Reader`]. A worker takes
//! `reader.read()` once a burst and says `reader.quiescent()` when the burst is done. That is all
//! it pays: one load of a cache line that changes only when something is published, and one store
//! after each change. In return
//!
//! * everything between two quiescent states is of ONE generation, since the reader looks at the
//!   shared pointer at quiescent states only;
//! * the publisher learns, per reader, when nothing will ever be judged by an older value again
//!   ([`Publisher::acknowledged`]);
//! * old values are dropped by [`Publisher::reclaim`], on the publisher's thread. A worker never
//!   runs a destructor and never frees a snapshot.
//!
//! A worker without work [parks](Parker::park): it goes offline, so that no change waits for a
//! sleeper, and is woken by an eventfd.
//!
//! # The protocol, and why it is right
//!
//! Shared are one pointer `current` to the newest version `{epoch, value}`, and one word a reader,
//! its `slot`:
//!
//! | slot | means | so the publisher may free |
//! | --- | --- | --- |
//! | `e` | "I hold version `e`, and nothing older" | versions before `e`, as far as I am concerned |
//! | `PINNED` (0) | "I am coming online and may take any version" | nothing |
//! | `OFFLINE` (max) | "I hold nothing" | anything |
//!
//! Version `v` may be freed when every slot is above `v`. With the two special values at the ends
//! of the range, that is one comparison. Two questions decide whether it is true:
//!
//! **1. Are the reader's last uses of `v` over when the publisher frees it?** The reader writes its
//! slot *after* those uses, with Release; the publisher reads the slot with Acquire.
//! Release/Acquire on one variable is exactly this promise: what came before the store is visible
//! as done to whoever read the stored value. (Models: `a_reader_never_sees_a_dropped_value`,
//! planted fault `relaxed-ack`.)
//!
//! **2. May a reader take `v` after the publisher looked at its slot?** An online reader may not:
//! its slot says what it holds, and it moves forward only. An *offline* reader is the hard case:
//! the publisher sees `OFFLINE` and frees `v`, while the reader comes online and loads `v`. Each
//! side writes one variable and then reads the other's:
//!
//! ```text
//!   reader.online()                    publisher.publish(), reclaim()
//!   slot    = PINNED                   current = v+1
//!   ------- SeqCst fence               ------- SeqCst fence
//!   take      current                  look at slot
//! ```
//!
//! This is Dekker's pattern. Without the fences either side's store may still sit in its store
//! buffer when its own load is done (even x86 does this, and neither Release nor Acquire forbids
//! it): the reader takes `v`, the publisher sees `OFFLINE`, and `v` is freed under the reader. The
//! two fences have one order that all threads agree on. If the reader's is first, the publisher's
//! look sees `PINNED` (or what the reader wrote later) and frees nothing; if the publisher's is
//! first, the reader's load sees `v+1` or newer. (Model:
//! `a_reader_that_comes_online_during_a_publish_is_safe`, planted fault `online-without-fence`.)
//!
//! The same pattern keeps a [`Parker`] from sleeping over work; see the `park` module.
//!
//! Epochs are 64 bits wide and never wrap: a publication every nanosecond would take 584 years.
//!
//! # Shutdown
//!
//! Stop and join the workers, then drop the publisher. A publisher that is dropped earlier frees
//! what no reader holds and *leaks* the rest, see [`Publisher`]: it neither blocks nor lets a
//! worker run a destructor.

mod domain;
mod park;
mod sync;

pub use domain::{Epoch, Publisher, Reader, domain};
pub use park::{Event, EventFd, Parked, Parker, Waker, parker, parker_on};
