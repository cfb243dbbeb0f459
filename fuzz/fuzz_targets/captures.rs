#![no_main]
//! See [`fuzz::captures`].

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::captures::run(bytes));
