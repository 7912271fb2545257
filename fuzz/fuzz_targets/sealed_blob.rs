//! Fuzz target: see `sealed_blob` in `src/lib.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sremp_fuzz::sealed_blob(data));
