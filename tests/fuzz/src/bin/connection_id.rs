//! See `spooky_fuzz::connection_id`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spooky_fuzz::connection_id(data));
