//! Requests about open files and directories, and their content.

use std::io;

use rustix::io::Errno;
use sbx_workspace::late_mask::MAX_WORDS;
use virtiofsd::filesystem::{Extensions, FileSystem as _};
use virtiofsd::fuse::{
    CopyfilerangeIn, CreateIn, FallocateIn, FsyncIn, LseekIn, LseekOut, OpenIn, ReadIn, ReleaseIn,
    WRITE_CACHE, WriteIn,
};

use super::args::Answer;
use super::later::Waits;
use super::requests::Call;
use super::{Done, HEAD};
use crate::limits::MAX_CONTENT;

/// `FSYNC_FDATASYNC`: content alone.
const DATA_ONLY: u32 = 1;

/// Open files and directories.
impl Call<'_, '_> {
    pub(super) fn open(&mut self) -> io::Result<Done> {
        let OpenIn { flags, .. } = self.args.take()?;
        let (context, node) = (self.context(), self.node());
        let (handle, options) = self.share.open(context, node, false, flags)?;
        Ok(self.opened(handle, options.bits()))
    }

    pub(super) fn create(&mut self) -> io::Result<Done> {
        let asked: CreateIn = self.args.take()?;
        let name = self.args.last_name()?;
        let (entry, handle, options) = self.share.create(
            self.context(),
            self.node(),
            name,
            asked.mode,
            false,
            asked.flags,
            asked.umask,
            Extensions::default(),
        )?;
        self.entry(entry);
        Ok(self.opened(handle, options.bits()))
    }

    pub(super) fn release(&mut self) -> io::Result<Done> {
        let ReleaseIn { fh, flags, .. } = self.args.take()?;
        let (context, node) = (self.context(), self.node());
        self.share
            .release(context, node, flags, fh, false, false, None)?;
        Ok(Done::Answer)
    }

    pub(super) fn opendir(&mut self) -> io::Result<Done> {
        let OpenIn { flags, .. } = self.args.take()?;
        let (handle, options) = self.share.opendir(self.context(), self.node(), flags)?;
        Ok(self.opened(handle, options.bits()))
    }

    pub(super) fn releasedir(&mut self) -> io::Result<Done> {
        let ReleaseIn { fh, flags, .. } = self.args.take()?;
        self.share
            .releasedir(self.context(), self.node(), flags, fh)?;
        Ok(Done::Answer)
    }
}

/// Content.
impl Call<'_, '_> {
    pub(super) fn read(&mut self) -> io::Result<Done> {
        let asked: ReadIn = self.args.take()?;
        if self.share.is_control(self.node()) {
            return self.read_control(&asked);
        }
        let count = self.share.read(
            self.context(),
            self.node(),
            asked.fh,
            self.buffers.content_room(Answer::HEAD),
            asked.size.min(MAX_CONTENT),
            asked.offset,
            None,
            asked.flags,
        )?;
        Ok(Done::Content(count))
    }

    pub(super) fn write(&mut self) -> io::Result<Done> {
        let asked: WriteIn = self.args.take()?;
        if self.share.is_control(self.node()) {
            return self.write_control(&asked);
        }
        let count = self.share.write(
            self.context(),
            self.node(),
            asked.fh,
            self.buffers.content(HEAD + size_of::<WriteIn>()),
            asked.size.min(MAX_CONTENT),
            asked.offset,
            None,
            asked.write_flags & WRITE_CACHE != 0,
            false,
            asked.flags,
        )?;
        Ok(self.count(count))
    }

    pub(super) fn fsync(&mut self) -> io::Result<Done> {
        let asked: FsyncIn = self.args.take()?;
        let data_only = asked.fsync_flags & DATA_ONLY != 0;
        let (context, node) = (self.context(), self.node());
        self.share.fsync(context, node, data_only, asked.fh)?;
        Ok(Done::Answer)
    }

    pub(super) fn fsyncdir(&mut self) -> io::Result<Done> {
        let asked: FsyncIn = self.args.take()?;
        let data_only = asked.fsync_flags & DATA_ONLY != 0;
        let (context, node) = (self.context(), self.node());
        self.share.fsyncdir(context, node, data_only, asked.fh)?;
        Ok(Done::Answer)
    }

    pub(super) fn fallocate(&mut self) -> io::Result<Done> {
        let asked: FallocateIn = self.args.take()?;
        self.share.fallocate(
            self.context(),
            self.node(),
            asked.fh,
            asked.mode,
            asked.offset,
            asked.length,
        )?;
        Ok(Done::Answer)
    }

    pub(super) fn lseek(&mut self) -> io::Result<Done> {
        let asked: LseekIn = self.args.take()?;
        let (context, node) = (self.context(), self.node());
        let offset = self
            .share
            .lseek(context, node, asked.fh, asked.offset, asked.whence)?;
        self.answer.push(&LseekOut { offset });
        Ok(Done::Answer)
    }

    pub(super) fn copy_file_range(&mut self) -> io::Result<Done> {
        let asked: CopyfilerangeIn = self.args.take()?;
        let count = self.share.copyfilerange(
            self.context(),
            self.node(),
            asked.fh_in,
            asked.off_in,
            asked.nodeid_out,
            asked.fh_out,
            asked.off_out,
            asked.len,
            asked.flags,
        )?;
        Ok(self.count(count))
    }
}

/// What the guest's agent reads and writes ([`crate::late`]).
impl Call<'_, '_> {
    fn read_control(&mut self, asked: &ReadIn) -> io::Result<Done> {
        self.share.handles().file(self.node(), asked.fh)?;
        let room = self.buffers.room().saturating_sub(Answer::HEAD);
        let size = usize::try_from(asked.size).unwrap_or(usize::MAX);
        let room = room.min(size).min(MAX_WORDS);
        let unique = self.head.unique;
        self.share.listen(self.head.pid, unique, asked.fh);
        Ok(Done::Later(Waits::News { room }))
    }

    fn write_control(&mut self, asked: &WriteIn) -> io::Result<Done> {
        self.share.handles().file(self.node(), asked.fh)?;
        let size = usize::try_from(asked.size).unwrap_or(usize::MAX);
        let mut words = vec![0; size.min(MAX_WORDS)];
        if !self.buffers.read(HEAD + size_of::<WriteIn>(), &mut words) {
            return Err(Errno::INVAL.into());
        }
        self.share.told(&words, self.head.pid);
        Ok(self.count(words.len()))
    }
}
