//! What answers say about files.

use std::time::Duration;

use super::wire::{Fields, Request};
use super::{Error, Result};

/// Bytes of an answer with attributes (`fuse_attr_out`).
pub(super) const ATTR_OUT: u32 = 104;
/// Bytes of an answer with a name's file (`fuse_entry_out`).
pub(super) const ENTRY_OUT: u32 = 128;

/// Attributes of a file (`fuse_attr`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attr {
    /// Inode number as a program in the guest sees it.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of the content: seconds and nanoseconds.
    pub mtime: (u64, u32),
    /// Kind and permissions.
    pub mode: u32,
    /// Names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Attr {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self> {
        let (ino, size, _blocks) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (_atime, mtime, _ctime) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (_atime_ns, mtime_ns, _ctime_ns) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (mode, nlink, uid, gid) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let _rdev_block_size_flags = fields.take(12)?;
        Ok(Self {
            ino,
            size,
            mtime: (mtime, mtime_ns),
            mode,
            nlink,
            uid,
            gid,
        })
    }

    /// Of an answer that has them behind how long they hold.
    pub(super) fn answer(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields(bytes);
        let _valid = fields.take(16)?;
        Self::read(&mut fields)
    }
}

/// A name's file (`fuse_entry_out`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its node.
    pub node: u64,
    /// How long the guest may go without asking again, for the name or the attributes, whichever is longer.
    pub kept: Duration,
    /// Its attributes.
    pub attr: Attr,
}

impl Entry {
    /// The next one in an answer.
    pub fn read(fields: &mut Fields<'_>) -> Result<Self> {
        let (node, _generation) = (fields.u64()?, fields.u64()?);
        let (name_s, attr_s) = (fields.u64()?, fields.u64()?);
        let (name_ns, attr_ns) = (fields.u32()?, fields.u32()?);
        let time = |s, ns| Duration::from_secs(s) + Duration::from_nanos(u64::from(ns));
        let attr = Attr::read(fields)?;
        Ok(Self {
            node,
            kept: time(name_s, name_ns).max(time(attr_s, attr_ns)),
            attr,
        })
    }
}

/// One name of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: Vec<u8>,
    /// Where the listing goes on behind it.
    pub offset: u64,
    /// The file, where it was asked for with the names and the server tells; the guest then holds its node.
    pub entry: Option<Entry>,
}

impl Listed {
    /// All names of an answer.
    pub(super) fn all(bytes: &[u8], plus: bool) -> Result<Vec<Self>> {
        let mut fields = Fields(bytes);
        let mut names = Vec::new();
        while !fields.0.is_empty() {
            let entry = if plus {
                Some(Entry::read(&mut fields)?)
            } else {
                None
            };
            let (_ino, offset) = (fields.u64()?, fields.u64()?);
            let (length, _kind) = (fields.u32()?, fields.u32()?);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let name = fields.take(length)?.to_vec();
            let _padding = fields.take((8 - length % 8) % 8)?;
            if name.is_empty() || name.contains(&0) || name.contains(&b'/') {
                return Err(Error::Wrong(format!("{name:?} is no name")));
            }
            names.push(Self {
                name,
                offset,
                entry: entry.filter(|entry| entry.node != 0),
            });
        }
        Ok(names)
    }
}

/// Attributes to set (`fuse_setattr_in`); those left out stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permissions, and more than those where the guest is hostile.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes.
    pub size: Option<u64>,
    /// Last change of the content, in seconds.
    pub mtime: Option<u64>,
    /// Through this handle.
    pub handle: Option<u64>,
}

impl SetAttr {
    pub(super) fn request(&self, request: Request<'static>) -> Request<'static> {
        let bit = |set: bool, bit: u32| if set { 1 << bit } else { 0 };
        let valid = bit(self.mode.is_some(), 0)
            | bit(self.uid.is_some(), 1)
            | bit(self.gid.is_some(), 2)
            | bit(self.size.is_some(), 3)
            | bit(self.mtime.is_some(), 5)
            | bit(self.handle.is_some(), 6);
        request
            .u32(valid)
            .u32(0)
            .u64(self.handle.unwrap_or(0))
            .u64(self.size.unwrap_or(0))
            .u64(0) // owner of locks
            .u64(0) // atime
            .u64(self.mtime.unwrap_or(0))
            .u64(0) // ctime
            .bytes(&[0; 12]) // nanoseconds of the three
            .u32(self.mode.unwrap_or(0))
            .u32(0)
            .u32(self.uid.unwrap_or(0))
            .u32(self.gid.unwrap_or(0))
            .u32(0)
            .room(ATTR_OUT)
    }
}
