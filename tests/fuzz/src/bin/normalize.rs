//! See `spooky_fuzz::normalize`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spooky_fuzz::normalize(data));
