//! The fuzzer's program for the target `websocket`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sbx_fuzz::run("websocket", bytes));
