#![no_main]
//! See [`fuzz::kept`].

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::kept::run(bytes));
