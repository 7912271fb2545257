//! Fuzz target: see `long_frame` in `src/lib.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sremp_fuzz::long_frame(data));
