#![no_main]
//! See [`fuzz::connections`].

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::connections::run(bytes));
