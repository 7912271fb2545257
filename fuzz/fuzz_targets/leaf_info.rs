//! Fuzz target: see `leaf_info` in `src/lib.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sremp_fuzz::leaf_info(data));
