//! See `spooky_fuzz::h2_server`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spooky_fuzz::h2_server(data));
