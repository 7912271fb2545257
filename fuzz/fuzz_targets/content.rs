//! Fuzz target: see `content` in `src/lib.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sremp_fuzz::content(data));
