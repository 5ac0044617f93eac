//! Tests at the crate's outer edge: the store and the initramfs as files, the worker as a process.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

mod initramfs;
mod prune;
mod sample;
mod small;
mod store;
mod worker;
