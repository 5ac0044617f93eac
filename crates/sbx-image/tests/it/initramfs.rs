//! The initramfs, read back with the crate's reader.
