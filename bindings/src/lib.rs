//! Raw declarations of the system's libdpdk (>= 22.11), made by bindgen at build time, and of the
//! shim over its static inlines. Declarations only: the safe wrapper is the package `pmd`.
//!
//! `shim_mbuf` is `struct rte_mbuf` with plain names for the fields that we use; `shim.c` asserts
//! at compile time that the two have the same size, alignment and offsets, and the constants below
//! that Rust sees them so too.

#![allow(non_camel_case_types, non_upper_case_globals, non_snake_case, missing_docs)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks, unsafe_op_in_unsafe_fn)]

use std::mem::{align_of, offset_of, size_of};

include!(concat!(env!("OUT_DIR"), "/dpdk.rs"));

const _: () = {
    assert!(size_of::<rte_mbuf>() == 128 && align_of::<rte_mbuf>() == 64);
    assert!(size_of::<shim_mbuf>() == 128 && align_of::<shim_mbuf>() == 64);
    assert!(offset_of!(shim_mbuf, buf_addr) == 0);
    assert!(offset_of!(shim_mbuf, data_off) == 16);
    assert!(offset_of!(shim_mbuf, nb_segs) == 20);
    assert!(offset_of!(shim_mbuf, ol_flags) == 24);
    assert!(offset_of!(shim_mbuf, pkt_len) == 36);
    assert!(offset_of!(shim_mbuf, data_len) == 40);
    assert!(offset_of!(shim_mbuf, vlan_tci) == 42);
    assert!(offset_of!(shim_mbuf, pool) == 56);
    assert!(offset_of!(shim_mbuf, next) == 64);
};
