#![no_main]
//! See [`fuzz::configurations`].

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::configurations::run(bytes));
