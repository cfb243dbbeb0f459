#![no_main]
//! See [`fuzz::documents`].

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::documents::run(bytes));
