#![no_main]
//! See [`fuzz::requests`].

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::requests::run(bytes));
