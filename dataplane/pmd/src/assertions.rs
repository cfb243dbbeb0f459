//! What may cross threads and what may not, held at compile time.

use crate::{Mbuf, Mempool, Port, Queue, Started, ThreadGuard};

const fn send<T: Send>() {}
const fn sync<T: Sync>() {}

/// Implemented twice for a type that is `Sync`, once for one that is not: naming it is ambiguous in the first case
/// and does not compile.
trait NotSync<A> {
    const HELD: () = ();
}
struct Ambiguous;
impl<T: ?Sized> NotSync<()> for T {}
impl<T: ?Sized + Sync> NotSync<Ambiguous> for T {}

/// As [`NotSync`], for `Send`.
trait NotSend<A> {
    const HELD: () = ();
}
impl<T: ?Sized> NotSend<()> for T {}
impl<T: ?Sized + Send> NotSend<Ambiguous> for T {}

const _: () = {
    send::<Mbuf>();
    send::<Queue>();
    send::<Port<Started>>();
    send::<Mempool>();
    sync::<Mempool>();
    let () = <Mbuf as NotSync<_>>::HELD;
    let () = <Queue as NotSync<_>>::HELD;
    let () = <Port<Started> as NotSync<_>>::HELD;
    let () = <ThreadGuard as NotSend<_>>::HELD;
    // Bursts of `Mbuf` are handed to drivers as arrays of pointers.
    assert!(size_of::<Mbuf>() == size_of::<*mut dpdk_sys::rte_mbuf>());
    assert!(align_of::<Mbuf>() == align_of::<*mut dpdk_sys::rte_mbuf>());
};
