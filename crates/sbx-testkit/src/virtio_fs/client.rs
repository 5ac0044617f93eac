//! The calls of a guest's kernel.

use std::path::Path;

use rustix::io::Errno;

use super::attr::{ATTR_OUT, Attr, ENTRY_OUT, Entry, Listed, SetAttr};
use super::device::{Answer, Device, Which};
use super::wire::{Data, Fields, Request, op};
use super::{Error, MOST, Result};

/// `fuse_open_out`.
const OPEN_OUT: u32 = 16;
/// What a guest's kernel can do: asynchronous reads, truncating opens, large writes, listings with files, many pages.
const ABLE: u32 = 1 | 1 << 3 | 1 << 5 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 15 | 1 << 18 | 1 << 22;

/// A mounted file system. Names and modes are sent as they are given, whatever is in them.
#[derive(Debug)]
pub struct Client {
    device: Device,
    /// Longest write that the server takes, in bytes.
    pub max_write: u32,
    /// What the server can do (`FUSE_INIT` flags).
    pub flags: u32,
}

impl Client {
    /// Connects to a server that listens, and mounts.
    pub fn connect(path: &Path) -> Result<Self> {
        Self::connect_with(path, 0)
    }

    /// The same with features of the device beyond what is needed.
    pub fn connect_with(path: &Path, features: u64) -> Result<Self> {
        let mut client = Self {
            device: Device::connect_with(path, features)?,
            max_write: 0,
            flags: 0,
        };
        client.init()?;
        Ok(client)
    }

    /// The device below, for whatever is not a call.
    pub fn device(&mut self) -> &mut Device {
        &mut self.device
    }

    /// Asks anything.
    pub fn call(&mut self, request: &Request<'_>) -> Result<Vec<u8>> {
        let answer = self.ask(request)?;
        self.device.body(&answer)
    }

    /// As [`Client::call`], where the answer's bytes do not matter.
    pub fn ask(&mut self, request: &Request<'_>) -> Result<Answer> {
        done(self.device.ask(Which::Requests, request)?)
    }

    /// The bytes of an answer that came last.
    pub fn bytes(&self, answer: &Answer) -> Result<Vec<u8>> {
        self.device.body(answer)
    }

    /// Asks several things at once, at most 32.
    pub fn ask_all(&mut self, requests: &[Request<'_>]) -> Result<Vec<Answer>> {
        let answers = self.device.ask_all(Which::Requests, requests)?;
        answers.into_iter().map(done).collect()
    }

    /// `FUSE_INIT`, which also begins anew: no node and no handle of before is known any more.
    pub fn init(&mut self) -> Result<()> {
        let request = Request::new(op::INIT, 0);
        let request = request.u32(7).u32(31).u32(MOST).u32(ABLE);
        let answer = self.call(&request.bytes(&[0; 48]).room(64))?;
        let mut fields = Fields(&answer);
        let (major, _minor, _ahead) = (fields.u32()?, fields.u32()?, fields.u32()?);
        if major != 7 {
            return Err(Error::Wrong(format!("FUSE {major}")));
        }
        self.flags = fields.u32()?;
        let _background = fields.u32()?;
        self.max_write = fields.u32()?;
        Ok(())
    }

    /// The file of a name. `ENOENT` also where the answer says that there is none.
    pub fn lookup(&mut self, parent: u64, name: impl AsRef<[u8]>) -> Result<Entry> {
        self.entry(&lookup(parent, name))
    }

    /// Attributes.
    pub fn getattr(&mut self, node: u64) -> Result<Attr> {
        Attr::answer(&self.call(&getattr(node))?)
    }

    /// Sets attributes.
    pub fn setattr(&mut self, node: u64, set: &SetAttr) -> Result<Attr> {
        let request = set.request(Request::new(op::SETATTR, node));
        Attr::answer(&self.call(&request)?)
    }

    /// Opens a file and returns its handle.
    pub fn open(&mut self, node: u64, flags: u32) -> Result<u64> {
        handle(&self.call(&open(node, flags))?)
    }

    /// Makes and opens a file.
    pub fn create(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
        mode: u32,
        flags: u32,
    ) -> Result<(Entry, u64)> {
        let answer = self.call(&create(parent, name, mode, flags))?;
        created(&answer)
    }

    /// Reads at most this much.
    pub fn read(&mut self, node: u64, handle: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
        self.call(&read(node, handle, offset, size))
    }

    /// Writes and returns how much.
    pub fn write(&mut self, node: u64, handle: u64, offset: u64, bytes: &[u8]) -> Result<u32> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let request = write(node, handle, offset, length, Data::Bytes(bytes));
        let answer = self.call(&request)?;
        Fields(&answer).u32()
    }

    /// Opens a directory.
    pub fn opendir(&mut self, node: u64) -> Result<u64> {
        let request = Request::new(op::OPENDIR, node).u32(0).u32(0);
        handle(&self.call(&request.room(OPEN_OUT))?)
    }

    /// Names from an offset on, as many as there is room for.
    pub fn readdir(
        &mut self,
        node: u64,
        handle: u64,
        offset: u64,
        room: u32,
    ) -> Result<Vec<Listed>> {
        let request = list(op::READDIR, node, handle, offset, room);
        Listed::all(&self.call(&request)?, false)
    }

    /// Names and their files. Each file is one look-up.
    pub fn readdirplus(
        &mut self,
        node: u64,
        handle: u64,
        offset: u64,
        room: u32,
    ) -> Result<Vec<Listed>> {
        let request = list(op::READDIRPLUS, node, handle, offset, room);
        Listed::all(&self.call(&request)?, true)
    }

    /// Closes a directory.
    pub fn releasedir(&mut self, node: u64, handle: u64) -> Result<()> {
        self.ask(&release(op::RELEASEDIR, node, handle)).map(drop)
    }

    /// Closes a file.
    pub fn release(&mut self, node: u64, handle: u64) -> Result<()> {
        self.ask(&release(op::RELEASE, node, handle)).map(drop)
    }

    /// Removes a name.
    pub fn unlink(&mut self, parent: u64, name: impl AsRef<[u8]>) -> Result<()> {
        self.ask(&Request::new(op::UNLINK, parent).name(name))
            .map(drop)
    }

    /// Removes a directory.
    pub fn rmdir(&mut self, parent: u64, name: impl AsRef<[u8]>) -> Result<()> {
        self.ask(&Request::new(op::RMDIR, parent).name(name))
            .map(drop)
    }

    /// Makes a directory.
    pub fn mkdir(&mut self, parent: u64, name: impl AsRef<[u8]>, mode: u32) -> Result<Entry> {
        let request = Request::new(op::MKDIR, parent).u32(mode).u32(0);
        self.entry(&request.name(name).room(ENTRY_OUT))
    }

    /// Makes a file of any kind.
    pub fn mknod(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
        mode: u32,
        device: u32,
    ) -> Result<Entry> {
        let request = Request::new(op::MKNOD, parent).u32(mode).u32(device);
        self.entry(&request.u64(0).name(name).room(ENTRY_OUT))
    }

    /// Renames, with flags as of renameat2(2).
    pub fn rename2(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) -> Result<()> {
        let request = Request::new(op::RENAME2, from.0).u64(to.0).u32(flags);
        self.ask(&request.u32(0).name(from.1).name(to.1)).map(drop)
    }

    /// One name more for a file.
    pub fn link(&mut self, node: u64, parent: u64, name: impl AsRef<[u8]>) -> Result<Entry> {
        let request = Request::new(op::LINK, parent).u64(node).name(name);
        self.entry(&request.room(ENTRY_OUT))
    }

    /// Makes a symbolic link.
    pub fn symlink(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
        text: impl AsRef<[u8]>,
    ) -> Result<Entry> {
        let request = Request::new(op::SYMLINK, parent).name(name).name(text);
        self.entry(&request.room(ENTRY_OUT))
    }

    /// The text of a symbolic link.
    pub fn readlink(&mut self, node: u64) -> Result<Vec<u8>> {
        self.call(&Request::new(op::READLINK, node).data_room(4096))
    }

    /// Brings a file to the disk.
    pub fn fsync(&mut self, node: u64, handle: u64, data_only: bool) -> Result<()> {
        let request = Request::new(op::FSYNC, node).u64(handle);
        self.ask(&request.u32(data_only.into()).u32(0)).map(drop)
    }

    /// What close(2) sends.
    pub fn flush(&mut self, node: u64, handle: u64) -> Result<()> {
        let request = Request::new(op::FLUSH, node).u64(handle).u64(0).u64(1);
        self.ask(&request).map(drop)
    }

    /// Blocks and free blocks of the file system.
    pub fn statfs(&mut self, node: u64) -> Result<(u64, u64)> {
        let answer = self.call(&Request::new(op::STATFS, node).room(80))?;
        let mut fields = Fields(&answer);
        Ok((fields.u64()?, fields.u64()?))
    }

    /// The guest knows a node so many times less. There is no answer.
    pub fn forget(&mut self, node: u64, times: u64) -> Result<()> {
        self.forget_all(&[forget(node, times)])
    }

    /// Several requests without an answer, at most 32.
    pub fn forget_all(&mut self, requests: &[Request<'_>]) -> Result<()> {
        self.device.ask_all(Which::Urgent, requests).map(drop)
    }

    fn entry(&mut self, request: &Request<'_>) -> Result<Entry> {
        let answer = self.call(request)?;
        match Entry::read(&mut Fields(&answer))? {
            Entry { node: 0, .. } => Err(Error::Refused(Errno::NOENT)),
            entry => Ok(entry),
        }
    }
}

/// `FUSE_LOOKUP`.
pub fn lookup(parent: u64, name: impl AsRef<[u8]>) -> Request<'static> {
    Request::new(op::LOOKUP, parent).name(name).room(ENTRY_OUT)
}

/// `FUSE_GETATTR`.
pub fn getattr(node: u64) -> Request<'static> {
    let request = Request::new(op::GETATTR, node).u64(0).u64(0);
    request.room(ATTR_OUT)
}

/// `FUSE_OPEN`.
pub fn open(node: u64, flags: u32) -> Request<'static> {
    let request = Request::new(op::OPEN, node).u32(flags).u32(0);
    request.room(OPEN_OUT)
}

/// `FUSE_CREATE`.
pub fn create(parent: u64, name: impl AsRef<[u8]>, mode: u32, flags: u32) -> Request<'static> {
    let request = Request::new(op::CREATE, parent).u32(flags).u32(mode);
    request.u64(0).name(name).room(ENTRY_OUT + OPEN_OUT)
}

/// `FUSE_READ`.
pub fn read(node: u64, handle: u64, offset: u64, size: u32) -> Request<'static> {
    list(op::READ, node, handle, offset, size)
}

/// `FUSE_WRITE` that says it has this many bytes.
pub fn write(node: u64, handle: u64, offset: u64, length: u32, data: Data<'_>) -> Request<'_> {
    let request = Request::new(op::WRITE, node).u64(handle).u64(offset);
    let request = request.u32(length).u32(0).u64(0).u64(0);
    request.data(data).room(8)
}

/// `FUSE_FORGET`.
pub fn forget(node: u64, times: u64) -> Request<'static> {
    Request::new(op::FORGET, node).u64(times)
}

/// `FUSE_RELEASE` or `FUSE_RELEASEDIR`.
pub fn release(op: u32, node: u64, handle: u64) -> Request<'static> {
    Request::new(op, node).u64(handle).u64(0).u64(0)
}

/// `FUSE_READ`, `FUSE_READDIR` or `FUSE_READDIRPLUS`: their arguments are the same.
pub fn list(op: u32, node: u64, handle: u64, offset: u64, size: u32) -> Request<'static> {
    let request = Request::new(op, node).u64(handle).u64(offset).u32(size);
    request.u32(0).u64(0).u64(0).data_room(size.min(MOST))
}

/// The handle in the answer to an opening.
pub fn handle(answer: &[u8]) -> Result<u64> {
    Fields(answer).u64()
}

/// File and handle in the answer to `FUSE_CREATE`.
pub fn created(answer: &[u8]) -> Result<(Entry, u64)> {
    let mut fields = Fields(answer);
    Ok((Entry::read(&mut fields)?, fields.u64()?))
}

fn done(answer: Answer) -> Result<Answer> {
    match answer.error {
        0 => Ok(answer),
        error => Err(Error::Refused(Errno::from_raw_os_error(error))),
    }
}
