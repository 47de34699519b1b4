//! See `spooky_fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spooky_fuzz::config(data));
