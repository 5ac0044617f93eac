//! The memory that stands for the guest's.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::MemfdFlags;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

/// Where the guest's memory begins. Not at 0, so that small addresses are outside.
pub const GUEST_BASE: u64 = 0x10_0000;
/// Bytes of it.
pub const MEMORY: u64 = 64 << 20;

/// Memory in a file without a name, seen by both sides. Addresses are the guest's.
#[derive(Debug)]
pub struct Memory {
    file: Arc<File>,
    seen: GuestMemoryMmap,
}

impl Memory {
    /// Zeros.
    pub fn new() -> io::Result<Self> {
        let file = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, MEMORY)?;
        let file = Arc::new(File::from(file));
        let size = usize::try_from(MEMORY).map_err(io::Error::other)?;
        let part = Some(FileOffset::from_arc(file.clone(), 0));
        let seen =
            GuestMemoryMmap::from_ranges_with_files([(GuestAddress(GUEST_BASE), size, part)])
                .map_err(io::Error::other)?;
        Ok(Self { file, seen })
    }

    /// The file, for the server.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Writes bytes.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.seen
            .write_slice(bytes, GuestAddress(at))
            .map_err(io::Error::other)
    }

    /// Reads bytes.
    pub fn read(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.seen
            .read_slice(&mut bytes, GuestAddress(at))
            .map_err(io::Error::other)?;
        Ok(bytes)
    }

    /// Writes a number after everything that was written before.
    pub fn publish(&self, at: u64, number: u16) -> io::Result<()> {
        self.seen
            .store(number.to_le(), GuestAddress(at), Ordering::Release)
            .map_err(io::Error::other)
    }

    /// Reads a number before everything that is read after.
    pub fn observe(&self, at: u64) -> io::Result<u16> {
        self.seen
            .load(GuestAddress(at), Ordering::Acquire)
            .map(u16::from_le)
            .map_err(io::Error::other)
    }
}
