#![no_main]
//! See [`fuzz::frames`].

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::frames::run(bytes));
