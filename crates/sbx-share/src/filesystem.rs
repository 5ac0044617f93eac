//! The requests as `fuse` hands them over.
//!
//! The caller's ids (`Context`) are ignored throughout: the guest kernel checks permissions against the owners it is
//! shown (virtiofs mounts with `default_permissions`), and on the host everything is done by the host user.
//!
//! Not here, hence `ENOSYS`, after which the guest stops asking: extended attributes; locks (they hold among the
//! guest's own processes); FLUSH (the server writes through, so closing has nothing to write); SYNCFS (it would flush the host's
//! whole file system for the guest); ioctl; bmap; unnamed temporary files.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::OFlags;
use virtiofsd::filesystem::{
    Context, Entry, Extensions, FileSystem, FsOptions, OpenOptions, SerializableFileSystem,
    SetattrValid, ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse::{Attr, SetattrIn};

use crate::directory::Entries;
use crate::limits::MAX_STATE;
use crate::share::Share;

impl SerializableFileSystem for Share {
    fn serialize(&self, mut state_pipe: File) -> io::Result<()> {
        state_pipe.write_all(&self.saved()?)
    }

    fn deserialize_and_apply(&self, state_pipe: File) -> io::Result<()> {
        let mut state = Vec::new();
        state_pipe.take(MAX_STATE + 1).read_to_end(&mut state)?;
        self.take_over(&state)
    }
}

impl FileSystem for Share {
    type Inode = u64;
    type Handle = u64;
    type DirIter = Entries;

    fn init(&self, _capable: FsOptions) -> io::Result<FsOptions> {
        self.reset();
        tracing::info!("the guest has mounted the share");
        Ok(FsOptions::DO_READDIRPLUS | FsOptions::READDIRPLUS_AUTO)
    }

    fn destroy(&self) {
        self.reset();
    }

    fn lookup(&self, _: Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.look_up(parent, name)
    }

    fn forget(&self, _: Context, inode: u64, count: u64) {
        if self.nodes().forget(inode, count) {
            self.descriptors().remove(inode);
        }
    }

    fn getattr(&self, _: Context, inode: u64, handle: Option<u64>) -> io::Result<(Attr, Duration)> {
        self.get_attributes(inode, handle)
    }

    fn setattr(
        &self,
        _: Context,
        inode: u64,
        attr: SetattrIn,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(Attr, Duration)> {
        self.set_attributes(inode, &attr, handle, valid)
    }

    fn readlink(&self, _: Context, inode: u64) -> io::Result<Vec<u8>> {
        if let Some(text) = self.virtual_text(inode) {
            return text;
        }
        let (link, _) = self.reach(inode)?;
        Ok(rustix::fs::readlinkat(link, c"", Vec::new())?.into_bytes())
    }

    fn symlink(
        &self,
        _: Context,
        text: &CStr,
        parent: u64,
        name: &CStr,
        _: Extensions,
    ) -> io::Result<Entry> {
        self.make_link(text, parent, name)
    }

    fn mknod(
        &self,
        _: Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        _rdev: u32,
        umask: u32,
        _: Extensions,
    ) -> io::Result<Entry> {
        self.make_node(parent, name, mode, umask)
    }

    fn mkdir(
        &self,
        _: Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        umask: u32,
        _: Extensions,
    ) -> io::Result<Entry> {
        self.make_directory(parent, name, mode, umask)
    }

    fn unlink(&self, _: Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.remove(parent, name, false)
    }

    fn rmdir(&self, _: Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.remove(parent, name, true)
    }

    fn rename(
        &self,
        _: Context,
        from: u64,
        old: &CStr,
        to: u64,
        new: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        self.rename_entry((from, old), (to, new), flags)
    }

    fn link(&self, _: Context, inode: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.add_name(inode, parent, name)
    }

    fn open(
        &self,
        _: Context,
        inode: u64,
        _kill: bool,
        flags: u32,
    ) -> io::Result<(Option<u64>, OpenOptions)> {
        // What the agent reads is not what it read before.
        let options = if self.is_control(inode) {
            self.opened_control();
            OpenOptions::DIRECT_IO
        } else {
            OpenOptions::empty()
        };
        Ok((Some(self.open_handle(inode, flags)?), options))
    }

    fn create(
        &self,
        _: Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        _kill: bool,
        flags: u32,
        umask: u32,
        _: Extensions,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions)> {
        self.handles().check_room()?;
        let flags = OFlags::from_bits_retain(flags);
        let (entry, file) = self.make_file(parent, name, mode & !umask, flags)?;
        let open = crate::handles::Open::File(Rc::new(file), flags - OFlags::CREATE);
        let handle = self.handles().insert(entry.inode, open)?;
        Ok((entry, Some(handle), OpenOptions::empty()))
    }

    fn read<W: ZeroCopyWriter>(
        &self,
        _: Context,
        inode: u64,
        handle: u64,
        to: W,
        size: u32,
        offset: u64,
        _owner: Option<u64>,
        _flags: u32,
    ) -> io::Result<usize> {
        self.read_file((inode, handle), to, size, offset)
    }

    fn write<R: ZeroCopyReader>(
        &self,
        _: Context,
        inode: u64,
        handle: u64,
        from: R,
        size: u32,
        offset: u64,
        _owner: Option<u64>,
        delayed: bool,
        _kill: bool,
        flags: u32,
    ) -> io::Result<usize> {
        let append = !delayed && OFlags::from_bits_retain(flags).contains(OFlags::APPEND);
        self.write_file((inode, handle), from, size, offset, append)
    }

    fn fsync(&self, _: Context, inode: u64, data_only: bool, handle: u64) -> io::Result<()> {
        self.sync_handle(inode, handle, data_only)
    }

    fn fallocate(
        &self,
        _: Context,
        inode: u64,
        handle: u64,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        self.allocate((inode, handle), mode, offset, length)
    }

    fn release(
        &self,
        _: Context,
        inode: u64,
        _flags: u32,
        handle: u64,
        _flush: bool,
        _unlock: bool,
        _owner: Option<u64>,
    ) -> io::Result<()> {
        self.handles().remove(inode, handle)?;
        self.closed_control(handle);
        Ok(())
    }

    fn statfs(&self, _: Context, _inode: u64) -> io::Result<libc::statvfs64> {
        crate::sys::statvfs64(self.tree.root())
    }

    fn opendir(
        &self,
        _: Context,
        inode: u64,
        _flags: u32,
    ) -> io::Result<(Option<u64>, OpenOptions)> {
        Ok((Some(self.open_directory(inode)?), OpenOptions::empty()))
    }

    fn readdir(
        &self,
        _: Context,
        inode: u64,
        handle: u64,
        _size: u32,
        offset: u64,
    ) -> io::Result<Entries> {
        let directory = self.handles().directory(inode, handle)?;
        directory.entries(offset, &self.guard)
    }

    fn fsyncdir(&self, _: Context, inode: u64, data_only: bool, handle: u64) -> io::Result<()> {
        self.sync_handle(inode, handle, data_only)
    }

    fn releasedir(&self, _: Context, inode: u64, _flags: u32, handle: u64) -> io::Result<()> {
        self.handles().remove(inode, handle)
    }

    fn access(&self, _: Context, inode: u64, mask: u32) -> io::Result<()> {
        let access = rustix::fs::Access::from_bits(mask).ok_or(rustix::io::Errno::INVAL)?;
        if access.contains(rustix::fs::Access::WRITE_OK) {
            self.check_writable()?;
        }
        let writes = access.contains(rustix::fs::Access::WRITE_OK);
        if let Some(allowed) = self.virtual_access(inode, writes) {
            return allowed;
        }
        let (file, _) = self.reach(inode)?;
        self.tree.access(file, access)
    }

    fn lseek(
        &self,
        _: Context,
        inode: u64,
        handle: u64,
        offset: u64,
        whence: u32,
    ) -> io::Result<u64> {
        self.seek(inode, handle, offset, whence)
    }

    fn copyfilerange(
        &self,
        _: Context,
        inode_in: u64,
        handle_in: u64,
        offset_in: u64,
        inode_out: u64,
        handle_out: u64,
        offset_out: u64,
        len: u64,
        _flags: u64,
    ) -> io::Result<usize> {
        self.check_unseen(inode_out)?;
        let from = self.handles().file(inode_in, handle_in)?;
        let to = self.handles().file(inode_out, handle_out)?;
        self.check_open((inode_out, handle_out), &to)?;
        self.copy_range((&from, offset_in), (&to, offset_out), len)
    }
}
