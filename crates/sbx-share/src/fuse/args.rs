//! A request's arguments, and an answer on its way.

use std::ffi::CStr;
use std::io;

use rustix::io::Errno;
use virtiofsd::fuse::OutHeader;
use vm_memory::ByteValued;

/// What follows a request's head, taken one after the other. What is missing or makes no sense is `EINVAL`.
pub(super) struct Args<'a>(pub(super) &'a [u8]);

impl<'a> Args<'a> {
    pub(super) fn take<T: ByteValued + Default>(&mut self) -> io::Result<T> {
        let taken = self.0.split_at_checked(size_of::<T>());
        let (taken, rest) = taken.ok_or(Errno::INVAL)?;
        self.0 = rest;
        let mut value = T::default();
        value.as_mut_slice().copy_from_slice(taken);
        Ok(value)
    }

    /// A name, or any text that ends with a zero, after which nothing comes.
    pub(super) fn last_name(&mut self) -> io::Result<&'a CStr> {
        let name = self.name()?;
        if self.0.is_empty() {
            Ok(name)
        } else {
            Err(Errno::INVAL.into())
        }
    }

    /// The same, before another one.
    pub(super) fn name(&mut self) -> io::Result<&'a CStr> {
        let name = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = &self.0[name.count_bytes() + 1..];
        Ok(name)
    }
}

/// An answer: its head, which is filled in at the end, and what follows.
#[derive(Debug, Default)]
pub(super) struct Answer(Vec<u8>);

impl Answer {
    /// Bytes of the head.
    pub(super) const HEAD: usize = size_of::<OutHeader>();

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        self.0.clear();
        self.0.resize(Self::HEAD, 0);
    }

    /// Bytes that follow the head so far.
    pub(super) fn length(&self) -> usize {
        self.0.len() - Self::HEAD
    }

    /// What follows the head so far.
    pub(super) fn content(&self) -> &[u8] {
        &self.0[Self::HEAD..]
    }

    pub(super) fn push(&mut self, value: &impl ByteValued) {
        self.0.extend_from_slice(value.as_slice());
    }

    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Zeros up to a multiple of 8 bytes.
    pub(super) fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
    }

    /// The whole answer. `content`: bytes that follow it elsewhere.
    pub(super) fn finish(&mut self, unique: u64, content: usize) -> &[u8] {
        let length = self.0.len() + content;
        self.head(unique, 0, length)
    }

    /// The answer that the request was not carried out.
    pub(super) fn refuse(&mut self, unique: u64, error: &io::Error) -> &[u8] {
        self.0.truncate(Self::HEAD);
        let error = error.raw_os_error().unwrap_or(libc::EIO);
        self.head(unique, -error, Self::HEAD)
    }

    fn head(&mut self, unique: u64, error: i32, length: usize) -> &[u8] {
        let head = OutHeader {
            len: u32::try_from(length).expect("requests are bounded far below 4 GiB"),
            error,
            unique,
        };
        self.0[..Self::HEAD].copy_from_slice(head.as_slice());
        &self.0
    }
}
