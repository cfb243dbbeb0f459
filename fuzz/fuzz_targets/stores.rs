#![no_main]
//! See [`fuzz::stores`].

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::stores::run(bytes));
