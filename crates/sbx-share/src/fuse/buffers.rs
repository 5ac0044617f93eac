//! One request's buffers in the guest's memory.
//!
//! Everything in them may change at any time, so what decides is copied out once, and content goes between the memory
//! and a file without being looked at.

use std::fs::File;
use std::io;

use smallvec::SmallVec;
use virtio_queue::DescriptorChain;
use virtiofsd::file_traits::FileReadWriteAtVolatile as _;
use virtiofsd::filesystem::{ZeroCopyReader, ZeroCopyWriter};
use virtiofsd::oslib::{ReadvFlags, WritevFlags};
use vm_memory::{GuestMemory as _, GuestMemoryError, GuestMemoryMmap, VolatileSlice};

/// Most buffers that one system call takes (`UIO_MAXIOV`).
const MAX_PARTS: usize = 1024;

/// Why a request cannot be taken from its chain of descriptors, or not be answered into it. Only a guest without our
/// kernel gets there.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// A buffer lies outside of the guest's memory.
    #[error("a buffer lies outside of the memory: {0}")]
    Outside(#[from] GuestMemoryError),
    /// There is not even a head.
    #[error("a request of {0} bytes")]
    Short(usize),
    /// The answer has no place.
    #[error("room of {room} bytes for an answer of {answer}")]
    Room {
        /// Bytes that there are.
        room: usize,
        /// Bytes that it takes.
        answer: usize,
    },
}

/// Buffers in their order. A request has three of a kind at most (head, arguments, content), unless its content lies in
/// many pages.
type Parts<'m> = SmallVec<[VolatileSlice<'m>; 4]>;

/// What the guest has written, and where it wants the answer.
pub(super) struct Buffers<'m> {
    asked: Parts<'m>,
    room: Parts<'m>,
}

impl<'m> Buffers<'m> {
    /// The buffers of a chain. A chain in circles ends after as many descriptors as its table has.
    pub(super) fn new(
        memory: &'m GuestMemoryMmap,
        chain: DescriptorChain<&'m GuestMemoryMmap>,
    ) -> Result<Self, ChainError> {
        let mut buffers = Self {
            asked: Parts::new(),
            room: Parts::new(),
        };
        for descriptor in chain.filter(|descriptor| descriptor.len() > 0) {
            let buffer = memory.get_slice(descriptor.addr(), to_usize(descriptor.len()))?;
            if descriptor.is_write_only() {
                buffers.room.push(buffer);
            } else {
                buffers.asked.push(buffer);
            }
        }
        Ok(buffers)
    }

    /// Bytes that the guest has written.
    pub(super) fn length(&self) -> usize {
        self.asked.iter().map(VolatileSlice::len).sum()
    }

    /// Bytes that an answer can have.
    pub(super) fn room(&self) -> usize {
        self.room.iter().map(VolatileSlice::len).sum()
    }

    /// Copies what was written from this place on. False: there is less.
    pub(super) fn read(&self, mut from: usize, to: &mut [u8]) -> bool {
        let mut left = to;
        for buffer in &self.asked {
            if left.is_empty() {
                break;
            }
            let Ok(rest) = buffer.offset(from) else {
                from -= buffer.len();
                continue;
            };
            from = 0;
            let count = rest.copy_to(left);
            left = &mut left[count..];
        }
        left.is_empty()
    }

    /// Writes a part of the answer, from this place on.
    pub(super) fn write(&self, mut from: usize, bytes: &[u8]) -> Result<(), ChainError> {
        let mut left = bytes;
        for buffer in &self.room {
            if left.is_empty() {
                break;
            }
            let Ok(rest) = buffer.offset(from) else {
                from -= buffer.len();
                continue;
            };
            from = 0;
            let (now, later) = left.split_at(left.len().min(rest.len()));
            rest.copy_from(now);
            left = later;
        }
        if left.is_empty() {
            return Ok(());
        }
        Err(ChainError::Room {
            room: self.room(),
            answer: bytes.len(),
        })
    }

    /// What was written from this place on, for a file.
    pub(super) fn content(&self, from: usize) -> Content<'m> {
        Content::new(&self.asked, from)
    }

    /// Room for an answer from this place on, to be filled from a file.
    pub(super) fn content_room(&self, from: usize) -> Content<'m> {
        Content::new(&self.room, from)
    }
}

/// A file's bytes in the guest's memory.
pub(super) struct Content<'m> {
    parts: Parts<'m>,
    /// The part that is next, which begins where the last transfer has ended.
    next: usize,
}

impl<'m> Content<'m> {
    fn new(buffers: &[VolatileSlice<'m>], mut from: usize) -> Self {
        let mut parts = Parts::new();
        for buffer in buffers {
            // None of them is empty, which would look like the end.
            if let Ok(rest) = buffer.offset(from)
                && !rest.is_empty()
            {
                from = 0;
                parts.push(rest);
            } else {
                from -= buffer.len();
            }
        }
        Self { parts, next: 0 }
    }

    /// The next bytes, at most so many.
    fn first(&self, most: usize) -> Parts<'m> {
        let mut left = most;
        let parts = self.parts.iter().skip(self.next).take(MAX_PARTS);
        parts
            .map_while(|part| {
                let part = part.subslice(0, part.len().min(left)).ok()?;
                left -= part.len();
                (!part.is_empty()).then_some(part)
            })
            .collect()
    }

    /// So many were transferred.
    fn advance(&mut self, mut count: usize) {
        while let Some(part) = self.parts.get_mut(self.next) {
            if let Ok(rest) = part.offset(count)
                && !rest.is_empty()
            {
                *part = rest;
                return;
            }
            count -= part.len();
            self.next += 1;
        }
    }

    /// Transfers at most so many bytes by as many calls as it takes; less where one transfers nothing.
    fn transfer(
        &mut self,
        most: usize,
        mut call: impl FnMut(&[&VolatileSlice<'m>], u64) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut done = 0;
        loop {
            let parts = self.first(most - done);
            if parts.is_empty() {
                return Ok(done);
            }
            let parts: SmallVec<[&VolatileSlice<'m>; 4]> = parts.iter().collect();
            match call(&parts, done as u64) {
                Ok(0) => return Ok(done),
                Ok(count) => {
                    done += count;
                    self.advance(count);
                }
                // What came before it is told; it comes again.
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
        }
    }
}

impl ZeroCopyReader for Content<'_> {
    fn write_to_file_at(
        &mut self,
        file: &File,
        count: usize,
        offset: u64,
        flags: Option<WritevFlags>,
    ) -> io::Result<usize> {
        self.transfer(count, |parts, done| {
            file.write_vectored_at_volatile(parts, offset + done, flags)
        })
    }
}

impl ZeroCopyWriter for Content<'_> {
    fn read_from_file_at(
        &mut self,
        file: &File,
        count: usize,
        offset: u64,
        flags: Option<ReadvFlags>,
    ) -> io::Result<usize> {
        self.transfer(count, |parts, done| {
            file.read_vectored_at_volatile(parts, offset + done, flags)
        })
    }
}

fn to_usize(size: u32) -> usize {
    usize::try_from(size).expect("the host has pointers of at least 32 bits")
}
