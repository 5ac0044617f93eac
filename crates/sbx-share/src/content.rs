//! Requests about the content of open files.

use std::fs::File;
use std::io;
use std::rc::Rc;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;
use virtiofsd::filesystem::{ZeroCopyReader, ZeroCopyWriter};
use virtiofsd::oslib::WritevFlags;

use crate::directory::Directory;
use crate::guard::Writing;
use crate::handles::Open;
use crate::limits::MAX_COPY;
use crate::share::Share;

/// Flags of the guest's open that change how the host file is opened. `O_DIRECT` is not among them: the guest has
/// bypassed its own cache with it, and buffers of a guest need not suit the host's device. `O_APPEND` neither: each
/// write says it, see [`Share::write_file`]. `O_NOATIME` would need the owner.
const OPEN_FLAGS: OFlags = OFlags::RWMODE
    .union(OFlags::TRUNC)
    .union(OFlags::SYNC)
    .union(OFlags::DSYNC);

impl Share {
    pub(crate) fn open_handle(&self, id: u64, flags: u32) -> io::Result<u64> {
        let flags = OFlags::from_bits_retain(flags) & OPEN_FLAGS;
        if flags & OFlags::RWMODE != OFlags::RDONLY || flags.contains(OFlags::TRUNC) {
            self.check_writable()?;
        }
        self.handles().check_room()?;
        let file = self.open_file(id, flags)?;
        self.handles().insert(id, Open::File(Rc::new(file), flags))
    }

    pub(crate) fn open_directory(&self, id: u64) -> io::Result<u64> {
        self.handles().check_room()?;
        let directory = Rc::new(self.opened_directory(id)?);
        self.handles().insert(id, Open::Directory(directory))
    }

    /// A directory, opened to be listed.
    pub(crate) fn opened_directory(&self, id: u64) -> io::Result<Directory> {
        if self.is_virtual_directory(id) {
            self.check_mounted(id)?;
            let names = self.virtuals().names(&self.path_of(id)?);
            let root = self.tree.root().try_clone_to_owned()?;
            return Ok(Directory::of_virtuals(root.into(), names));
        }
        let directory = self.reach_directory(id)?;
        let virtuals = if self.virtuals().is_empty() {
            Rc::default()
        } else {
            self.virtuals().names(&self.path_of(id)?)
        };
        let hides = self.guard.hides_anything();
        let below = hides.then(|| self.below(id)).transpose()?;
        let file = self
            .tree
            .reopen(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Directory::new(file.into(), below, virtuals))
    }

    pub(crate) fn read_file(
        &self,
        (id, handle): (u64, u64),
        mut to: impl ZeroCopyWriter,
        size: u32,
        offset: u64,
    ) -> io::Result<usize> {
        let file = self.handles().file(id, handle)?;
        check_range(offset, size.into())?;
        to.read_from_file_at(&file, to_usize(size), offset, None)
    }

    /// A write that the guest makes through `O_APPEND` goes to the end as the host sees it, for its own idea of the
    /// end may be half a second old. What its page cache writes back later (`delayed`: shared mappings) has a place.
    pub(crate) fn write_file(
        &self,
        (id, handle): (u64, u64),
        mut from: impl ZeroCopyReader,
        size: u32,
        offset: u64,
        append: bool,
    ) -> io::Result<usize> {
        self.check_writable()?;
        let file = self.handles().file(id, handle)?;
        check_range(offset, size.into())?;
        let writing = self.check_write(id)?;
        self.check_open((id, handle), &file)?;
        if writing == Writing::Link {
            return self.write_git_link(id, &file, from, (to_usize(size), offset));
        }
        let flags = append.then_some(WritevFlags::RWF_APPEND);
        from.write_to_file_at(&file, to_usize(size), offset, flags)
    }

    /// Reaches fsync(2) or fdatasync(2) on the host before it answers.
    pub(crate) fn sync_handle(&self, id: u64, handle: u64, data_only: bool) -> io::Result<()> {
        let file = self.handles().any(id, handle)?;
        if data_only {
            file.sync_data()
        } else {
            file.sync_all()
        }
    }

    pub(crate) fn allocate(
        &self,
        file: (u64, u64),
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        self.check_writable()?;
        self.check_unseen(file.0)?;
        let open = self.handles().file(file.0, file.1)?;
        self.check_open(file, &open)?;
        check_range(offset, length)?;
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
        Ok(rustix::fs::fallocate(&*open, mode, offset, length)?)
    }

    /// Only `SEEK_DATA` and `SEEK_HOLE` come here; the guest answers the others itself.
    pub(crate) fn seek(&self, id: u64, handle: u64, offset: u64, whence: u32) -> io::Result<u64> {
        let file = self.handles().file(id, handle)?;
        check_range(offset, 0)?;
        let to = match whence.cast_signed() {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL.into()),
        };
        Ok(rustix::fs::seek(&*file, to)?)
    }

    pub(crate) fn copy_range(
        &self,
        (from, mut from_offset): (&Rc<File>, u64),
        (to, mut to_offset): (&Rc<File>, u64),
        length: u64,
    ) -> io::Result<usize> {
        self.check_writable()?;
        check_range(from_offset, length)?;
        check_range(to_offset, length)?;
        let length = usize::try_from(length.min(MAX_COPY)).expect("bounded to 16 MiB");
        Ok(rustix::fs::copy_file_range(
            from,
            Some(&mut from_offset),
            to,
            Some(&mut to_offset),
            length,
        )?)
    }
}

/// Offsets are signed on the host. Beyond: `EINVAL`.
fn check_range(offset: u64, length: u64) -> io::Result<()> {
    let end = offset.checked_add(length).ok_or(Errno::INVAL)?;
    i64::try_from(end).map_err(|_| Errno::INVAL)?;
    Ok(())
}

fn to_usize(size: u32) -> usize {
    usize::try_from(size).expect("the host has pointers of at least 32 bits")
}
