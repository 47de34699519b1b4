//! See `spooky_fuzz::h1_response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spooky_fuzz::h1_response(data));
