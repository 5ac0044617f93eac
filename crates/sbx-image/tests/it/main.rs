//! Tests at the crate's outer edge: the worker as a process, the initramfs as a file.

mod initramfs;
mod worker;
