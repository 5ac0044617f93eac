//! The fuzzer's program for the target `decoding`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sbx_fuzz::run("decoding", bytes));
