//! Fuzz target: see `group_blob` in `src/lib.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sremp_fuzz::group_blob(data));
