//! The fuzzer's program for the target `sigv4`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sbx_fuzz::run("sigv4", bytes));
