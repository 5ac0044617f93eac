//! One function a request: its arguments, what the share does, its answer. Here those about the mount, names and
//! attributes.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use virtiofsd::filesystem::{Context, Entry, Extensions, FileSystem as _, SetattrValid};
use virtiofsd::fuse::{
    AccessIn, Attr, AttrOut, BatchForgetIn, EntryOut, FATTR_FH, ForgetIn, ForgetOne, FsOptions,
    GETATTR_FH, GetattrIn, InHeader, InitInCompat, InitInExt, InitOut, KERNEL_MINOR_VERSION,
    KERNEL_VERSION, Kstatfs, LinkIn, MIN_KERNEL_MINOR_VERSION, MkdirIn, MknodIn, Opcode, OpenOut,
    Rename2In, RenameIn, SetattrIn, WriteOut,
};

use super::Done;
use super::args::{Answer, Args};
use super::buffers::Buffers;
use super::later::Waits;
use crate::limits::MAX_CONTENT;
use crate::share::Share;

/// Bytes of a guest's page, in which it is told how much one request may carry.
const PAGE: u32 = 4096;

/// What the guest's kernel may do beyond what the share itself wants.
const SUPPORTED: FsOptions = FsOptions::ASYNC_READ
    .union(FsOptions::PARALLEL_DIROPS)
    .union(FsOptions::BIG_WRITES)
    .union(FsOptions::AUTO_INVAL_DATA)
    .union(FsOptions::ASYNC_DIO)
    .union(FsOptions::ATOMIC_O_TRUNC)
    .union(FsOptions::MAX_PAGES)
    .union(FsOptions::INIT_EXT)
    .union(FsOptions::ALLOW_IDMAP);

/// A request that is being carried out.
pub(super) struct Call<'a, 'm> {
    pub(super) share: &'a Share,
    pub(super) head: InHeader,
    pub(super) args: Args<'a>,
    pub(super) answer: &'a mut Answer,
    pub(super) buffers: &'a Buffers<'m>,
}

impl Call<'_, '_> {
    pub(super) fn carry_out(mut self, op: Opcode) -> io::Result<Done> {
        match op {
            Opcode::Lookup => self.lookup(),
            Opcode::Forget => self.forget(),
            Opcode::BatchForget => self.batch_forget(),
            Opcode::Getattr => self.getattr(),
            Opcode::Setattr => self.setattr(),
            Opcode::Readlink => self.readlink(),
            Opcode::Symlink => self.symlink(),
            Opcode::Mknod => self.mknod(),
            Opcode::Mkdir => self.mkdir(),
            Opcode::Unlink => self.unlink(),
            Opcode::Rmdir => self.rmdir(),
            Opcode::Rename => self.rename(),
            Opcode::Rename2 => self.rename2(),
            Opcode::Link => self.link(),
            Opcode::Open => self.open(),
            Opcode::Create => self.create(),
            Opcode::Read => self.read(),
            Opcode::Write => self.write(),
            Opcode::Statfs => self.statfs(),
            Opcode::Release => self.release(),
            Opcode::Fsync => self.fsync(),
            Opcode::Init => self.init(),
            Opcode::Destroy => {
                self.share.destroy();
                Ok(Done::Silently)
            }
            Opcode::Interrupt => Ok(Done::Silently), // what runs is over before it could be
            Opcode::Opendir => self.opendir(),
            Opcode::Readdir => self.names(),
            Opcode::Readdirplus => self.nodes(),
            Opcode::Releasedir => self.releasedir(),
            Opcode::Fsyncdir => self.fsyncdir(),
            Opcode::Access => self.access(),
            Opcode::Fallocate => self.fallocate(),
            Opcode::Lseek => self.lseek(),
            Opcode::CopyFileRange => self.copy_file_range(),
            _ => Err(Errno::NOSYS.into()),
        }
    }

    pub(super) fn node(&self) -> u64 {
        self.head.nodeid
    }

    pub(super) fn context(&self) -> Context {
        Context::from(self.head)
    }

    pub(super) fn entry(&mut self, entry: Entry) -> Done {
        self.answer.push(&EntryOut::from(entry));
        Done::Answer
    }

    fn attributes(&mut self, (attr, valid): (Attr, Duration)) -> Done {
        self.answer.push(&AttrOut {
            attr_valid: valid.as_secs(),
            attr_valid_nsec: valid.subsec_nanos(),
            dummy: 0,
            attr,
        });
        Done::Answer
    }

    pub(super) fn opened(&mut self, handle: Option<u64>, flags: u32) -> Done {
        self.answer.push(&OpenOut {
            fh: handle.unwrap_or_default(),
            open_flags: flags,
            padding: 0,
        });
        Done::Answer
    }

    pub(super) fn count(&mut self, count: usize) -> Done {
        self.answer.push(&WriteOut {
            size: u32::try_from(count).expect("no more than was asked for, in 32 bits"),
            padding: 0,
        });
        Done::Answer
    }
}

/// The mount itself.
impl Call<'_, '_> {
    fn init(&mut self) -> io::Result<Done> {
        let asked: InitInCompat = self.args.take()?;
        let capable = FsOptions::from_bits_truncate(asked.flags.into());
        let more = if capable.contains(FsOptions::INIT_EXT) {
            self.args.take::<InitInExt>()?.flags2
        } else {
            0
        };
        let version = InitOut {
            major: KERNEL_VERSION,
            minor: KERNEL_MINOR_VERSION,
            ..InitOut::default()
        };
        if asked.major > KERNEL_VERSION {
            // It comes again with ours.
            self.answer.push(&version);
            return Ok(Done::Answer);
        }
        if asked.major < KERNEL_VERSION || asked.minor < MIN_KERNEL_MINOR_VERSION {
            return Err(Errno::PROTO.into());
        }
        let capable = FsOptions::from_bits_truncate(u64::from(more) << 32) | capable;
        let enabled = (capable & (self.share.init(capable)? | SUPPORTED)).bits();
        let [low, high] = [enabled, enabled >> 32].map(|bits| bits & u64::from(u32::MAX));
        let half = |bits| u32::try_from(bits).expect("32 bits were kept");
        self.answer.push(&InitOut {
            max_readahead: asked.max_readahead,
            flags: half(low),
            flags2: half(high),
            max_background: u16::MAX,
            congestion_threshold: u16::MAX / 4 * 3,
            max_write: MAX_CONTENT,
            time_gran: 1, // nanoseconds
            max_pages: u16::try_from(MAX_CONTENT / PAGE).expect("256"),
            ..version
        });
        Ok(Done::Answer)
    }

    fn statfs(&mut self) -> io::Result<Done> {
        let stat = self.share.statfs(self.context(), self.node())?;
        self.answer.push(&Kstatfs::from(stat));
        Ok(Done::Answer)
    }
}

/// Names.
impl Call<'_, '_> {
    fn lookup(&mut self) -> io::Result<Done> {
        let name = self.args.last_name()?;
        let awaited = self.share.awaited(self.node(), name, self.head.pid);
        let entry = self.share.lookup(self.context(), self.node(), name)?;
        let done = self.entry(entry);
        Ok(awaited.map_or(done, |mask| Done::Later(Waits::Mount(mask))))
    }

    fn forget(&mut self) -> io::Result<Done> {
        let ForgetIn { nlookup } = self.args.take()?;
        self.share.forget(self.context(), self.node(), nlookup);
        Ok(Done::Silently)
    }

    fn batch_forget(&mut self) -> io::Result<Done> {
        let BatchForgetIn { count, .. } = self.args.take()?;
        // One that lies about their number ends with what there is.
        for _ in 0..count {
            let ForgetOne { nodeid, nlookup } = self.args.take()?;
            self.share.forget(self.context(), nodeid, nlookup);
        }
        Ok(Done::Silently)
    }

    fn readlink(&mut self) -> io::Result<Done> {
        let text = self.share.readlink(self.context(), self.node())?;
        self.answer.push_bytes(&text);
        Ok(Done::Answer)
    }

    fn symlink(&mut self) -> io::Result<Done> {
        let (name, text) = (self.args.name()?, self.args.last_name()?);
        let (context, none) = (self.context(), Extensions::default());
        let entry = self.share.symlink(context, text, self.node(), name, none)?;
        Ok(self.entry(entry))
    }

    fn mknod(&mut self) -> io::Result<Done> {
        let asked: MknodIn = self.args.take()?;
        let name = self.args.last_name()?;
        let entry = self.share.mknod(
            self.context(),
            self.node(),
            name,
            asked.mode,
            asked.rdev,
            asked.umask,
            Extensions::default(),
        )?;
        Ok(self.entry(entry))
    }

    fn mkdir(&mut self) -> io::Result<Done> {
        let MkdirIn { mode, umask } = self.args.take()?;
        let name = self.args.last_name()?;
        let (context, none) = (self.context(), Extensions::default());
        let made = self
            .share
            .mkdir(context, self.node(), name, mode, umask, none);
        Ok(self.entry(made?))
    }

    fn unlink(&mut self) -> io::Result<Done> {
        let name = self.args.last_name()?;
        self.share.unlink(self.context(), self.node(), name)?;
        Ok(Done::Answer)
    }

    fn rmdir(&mut self) -> io::Result<Done> {
        let name = self.args.last_name()?;
        self.share.rmdir(self.context(), self.node(), name)?;
        Ok(Done::Answer)
    }

    fn rename(&mut self) -> io::Result<Done> {
        let RenameIn { newdir } = self.args.take()?;
        self.rename_to(newdir, 0)
    }

    fn rename2(&mut self) -> io::Result<Done> {
        let Rename2In { newdir, flags, .. } = self.args.take()?;
        self.rename_to(newdir, flags)
    }

    fn rename_to(&mut self, directory: u64, flags: u32) -> io::Result<Done> {
        let (old, new) = (self.args.name()?, self.args.last_name()?);
        let (context, node) = (self.context(), self.node());
        self.share
            .rename(context, node, old, directory, new, flags)?;
        Ok(Done::Answer)
    }

    fn link(&mut self) -> io::Result<Done> {
        let LinkIn { oldnodeid } = self.args.take()?;
        let name = self.args.last_name()?;
        let (context, node) = (self.context(), self.node());
        let entry = self.share.link(context, oldnodeid, node, name)?;
        Ok(self.entry(entry))
    }
}

/// Attributes.
impl Call<'_, '_> {
    fn getattr(&mut self) -> io::Result<Done> {
        let GetattrIn { flags, fh, .. } = self.args.take()?;
        let handle = (flags & GETATTR_FH != 0).then_some(fh);
        let found = self.share.getattr(self.context(), self.node(), handle)?;
        Ok(self.attributes(found))
    }

    fn setattr(&mut self) -> io::Result<Done> {
        let asked: SetattrIn = self.args.take()?;
        let handle = (asked.valid & FATTR_FH != 0).then_some(asked.fh);
        let valid = SetattrValid::from_bits_truncate(asked.valid);
        let (context, node) = (self.context(), self.node());
        let found = self.share.setattr(context, node, asked, handle, valid)?;
        Ok(self.attributes(found))
    }

    fn access(&mut self) -> io::Result<Done> {
        let AccessIn { mask, .. } = self.args.take()?;
        self.share.access(self.context(), self.node(), mask)?;
        Ok(Done::Answer)
    }
}
