//! Tests at the crate's outer edge: the store and the initramfs as files, the worker as a process.

mod initramfs;
mod sample;
mod store;
mod worker;
