//! Fuzz target: see `rendezvous_session` in `src/lib.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sremp_fuzz::rendezvous_session(data));
