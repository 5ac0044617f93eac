//! The fuzzer's program for the target `dns_answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sbx_fuzz::run("dns_answer", bytes));
