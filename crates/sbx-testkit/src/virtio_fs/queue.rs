//! A split virtqueue, the driver's side (VIRTIO 1.2, section 2.7). Every field can be written, also with nonsense.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::EventfdFlags;
use rustix::io::Errno;

use super::memory::Memory;

/// Descriptors of a queue.
pub const SIZE: u16 = 256;
/// The chain goes on (`VIRTQ_DESC_F_NEXT`).
pub const NEXT: u16 = 1;
/// The device writes here (`VIRTQ_DESC_F_WRITE`).
pub const WRITE: u16 = 2;
/// The bytes are descriptors themselves (`VIRTQ_DESC_F_INDIRECT`).
pub const INDIRECT: u16 = 4;

/// Bytes of one descriptor.
const DESCRIPTOR: u64 = 16;
/// Where the rings are, from the queue's beginning: 4 KiB of descriptors are before the first.
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Bytes that a queue takes.
pub(super) const ROOM: u64 = 0x4000;

/// One descriptor, with whatever in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Where, in the guest's memory.
    pub at: u64,
    /// Bytes.
    pub length: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// Which descriptor is next.
    pub next: u16,
}

impl Descriptor {
    /// As it lies in memory.
    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.at.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// A chain that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Its first descriptor.
    pub head: u32,
    /// Bytes that the device says it has written.
    pub length: u32,
}

/// A queue at a place of the guest's memory.
#[derive(Debug)]
pub struct Queue {
    base: u64,
    offered: u16,
    seen: u16,
    kick: OwnedFd,
    call: OwnedFd,
}

impl Queue {
    /// Empty, in zeroed memory.
    pub fn new(base: u64) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            base,
            offered: 0,
            seen: 0,
            kick: rustix::event::eventfd(0, flags)?,
            call: rustix::event::eventfd(0, flags)?,
        })
    }

    /// Places of descriptors, used ring and available ring.
    pub fn places(&self) -> [u64; 3] {
        [self.base, self.base + USED, self.base + AVAILABLE]
    }

    /// What the driver wakes the device with.
    pub fn kick_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    /// What the device wakes the driver with.
    pub fn call_fd(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Writes a descriptor into the table.
    pub fn put(&self, memory: &Memory, index: u16, descriptor: &Descriptor) -> io::Result<()> {
        let at = self.base + u64::from(index) * DESCRIPTOR;
        memory.write(at, &descriptor.bytes())
    }

    /// Offers the chain that begins at this descriptor, which need not exist.
    pub fn offer(&mut self, memory: &Memory, head: u16) -> io::Result<()> {
        let place = self.base + AVAILABLE;
        let entry = place + 4 + u64::from(self.offered % SIZE) * 2;
        memory.write(entry, &head.to_le_bytes())?;
        self.offered = self.offered.wrapping_add(1);
        memory.publish(place + 2, self.offered)
    }

    /// Wakes the device.
    pub fn kick(&self) -> io::Result<()> {
        rustix::io::write(&self.kick, &1_u64.to_ne_bytes())?;
        Ok(())
    }

    /// Forgets that the device has woken us.
    pub fn quiet(&self) -> io::Result<()> {
        match rustix::io::read(&self.call, &mut [0; 8]) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next chain that came back.
    pub fn used(&mut self, memory: &Memory) -> io::Result<Option<Used>> {
        let place = self.base + USED;
        if memory.observe(place + 2)? == self.seen {
            return Ok(None);
        }
        let entry = memory.read(place + 4 + u64::from(self.seen % SIZE) * 8, 8)?;
        self.seen = self.seen.wrapping_add(1);
        let field = |at: usize| {
            u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
        };
        Ok(Some(Used {
            head: field(0),
            length: field(4),
        }))
    }
}
