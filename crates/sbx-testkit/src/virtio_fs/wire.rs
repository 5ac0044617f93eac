//! FUSE messages (`include/uapi/linux/fuse.h`, version 7.31), as bytes.

use super::{Error, Result};

/// Bytes of a request's head (`fuse_in_header`).
pub const HEAD: usize = 40;
/// Bytes of an answer's head (`fuse_out_header`).
pub(super) const ANSWER_HEAD: u32 = 16;

/// Numbers of the requests.
pub mod op {
    #![expect(missing_docs, reason = "named as in the kernel's header")]
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SETUPMAPPING: u32 = 48;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
}

/// Data of a request, behind its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data<'a> {
    /// None.
    None,
    /// These.
    Bytes(&'a [u8]),
    /// So many bytes of what lies there from an earlier request: what is in them does not matter.
    Stale(u32),
}

/// A request, and how much room there is for its answer.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// What is asked, of [`op`] or not.
    pub op: u32,
    /// Of which node.
    pub node: u64,
    /// By which thread of the guest's.
    pub thread: u32,
    /// Whether the head tells a length of its own instead of the true one.
    pub length: Option<u32>,
    /// Arguments.
    pub args: Vec<u8>,
    /// Data.
    pub data: Data<'a>,
    /// Room for the answer's arguments, in bytes.
    pub room: u32,
    /// Room for the answer's data, in bytes.
    pub data_room: u32,
}

impl<'a> Request<'a> {
    /// A request without arguments, and no room but for the answer's head.
    pub fn new(op: u32, node: u64) -> Self {
        Self {
            op,
            node,
            thread: 42,
            length: None,
            args: Vec::new(),
            data: Data::None,
            room: 0,
            data_room: 0,
        }
    }

    /// One argument of 4 bytes more.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// One argument of 8 bytes more.
    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Bytes more, as they are.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.args.extend_from_slice(bytes);
        self
    }

    /// A name more, with its end.
    #[must_use]
    pub fn name(self, name: impl AsRef<[u8]>) -> Self {
        self.bytes(name.as_ref()).bytes(&[0])
    }

    /// With data.
    #[must_use]
    pub fn data(mut self, data: Data<'a>) -> Self {
        self.data = data;
        self
    }

    /// With room for an answer of this length.
    #[must_use]
    pub fn room(mut self, bytes: u32) -> Self {
        self.room = bytes;
        self
    }

    /// With room for data in the answer.
    #[must_use]
    pub fn data_room(mut self, bytes: u32) -> Self {
        self.data_room = bytes;
        self
    }

    /// By another thread of the guest's than 42.
    #[must_use]
    pub fn by(mut self, thread: u32) -> Self {
        self.thread = thread;
        self
    }

    /// With a head that tells this length.
    #[must_use]
    pub fn claiming(mut self, bytes: u32) -> Self {
        self.length = Some(bytes);
        self
    }

    /// Bytes of the data.
    pub(super) fn data_length(&self) -> u32 {
        match self.data {
            Data::None => 0,
            Data::Bytes(bytes) => u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            Data::Stale(length) => length,
        }
    }

    /// The head, from the agent of a guest: user and group 1000.
    pub(super) fn head(&self, unique: u64) -> Vec<u8> {
        let args = u32::try_from(HEAD + self.args.len()).unwrap_or(u32::MAX);
        let length = self
            .length
            .unwrap_or(args.saturating_add(self.data_length()));
        let mut bytes = [length, self.op].map(u32::to_le_bytes).concat();
        bytes.extend([unique, self.node].map(u64::to_le_bytes).concat());
        bytes.extend(
            [1000_u32, 1000, self.thread, 0]
                .map(u32::to_le_bytes)
                .concat(),
        );
        bytes
    }
}

/// Fields of an answer, read one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// So many bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let short = || Error::Wrong(format!("{length} bytes more were expected"));
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// 4 bytes.
    pub fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4)?.first_chunk().copied().unwrap_or_default();
        Ok(u32::from_le_bytes(bytes))
    }

    /// 8 bytes.
    pub fn u64(&mut self) -> Result<u64> {
        let bytes = self.take(8)?.first_chunk().copied().unwrap_or_default();
        Ok(u64::from_le_bytes(bytes))
    }
}
