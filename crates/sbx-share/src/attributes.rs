//! Requests about attributes: mode, owner, size, times.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, OFlags, Statx, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;
use virtiofsd::fuse::{Attr, SetattrIn, SetattrValid};
use virtiofsd::soft_idmap::Id as _;

use crate::share::{Share, is_type, safe_mode};
use crate::tree::{self, Reached};

impl Share {
    pub(crate) fn get_attributes(
        &self,
        id: u64,
        handle: Option<u64>,
    ) -> io::Result<(Attr, Duration)> {
        if let Some(found) = self.virtual_attributes(id) {
            self.check_mounted(id)?;
            return Ok(found);
        }
        let stat = match handle {
            Some(handle) => tree::stat(self.handles().any(id, handle)?)?,
            None if let Some(stat) = self.stat_by_name(id) => stat,
            None => match self.reach(id) {
                Ok((_, stat)) => stat,
                // Looking is allowed at whatever the guest has open: fstat(2) arrives without a handle.
                Err(error) if error.raw_os_error() == Some(libc::ESTALE) => {
                    tree::stat(self.handles().of_node(id).ok_or(error)?)?
                }
                Err(error) => return Err(error),
            },
        };
        Ok(self.attributes(&stat))
    }

    /// Changes what the guest asks for, all of it checked before any of it is done.
    pub(crate) fn set_attributes(
        &self,
        id: u64,
        wanted: &SetattrIn,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(Attr, Duration)> {
        self.check_writable()?;
        if self.virtual_attributes(id).is_some() {
            self.check_mounted(id)?;
            return Err(Errno::ACCESS.into());
        }
        let (file, stat) = match handle {
            Some(handle) => {
                let file = self.handles().any(id, handle)?;
                self.check_open((id, handle), &file)?;
                let stat = tree::stat(&file)?;
                (Reached::Open(file), stat)
            }
            None => self.reach(id)?,
        };
        self.check_owner(&stat, wanted, valid)?;
        let size = valid.contains(SetattrValid::SIZE).then_some(wanted.size);
        self.check_change(id, &stat, size)?;
        if valid.contains(SetattrValid::SIZE) {
            self.set_size(id, &stat, wanted.size, handle)?;
        }
        if valid.contains(SetattrValid::MODE) {
            if is_type(&stat, FileType::Symlink) {
                return Err(Errno::OPNOTSUPP.into());
            }
            self.tree.chmod(&file, safe_mode(wanted.mode, 0))?;
        }
        set_times(&file, wanted, valid)?;
        Ok(self.attributes(&tree::stat(&file)?))
    }

    /// Owners never change. Naming the one that is shown, or guest root for the host user's own files, succeeds:
    /// archives unpacked by root do that.
    fn check_owner(&self, stat: &Statx, wanted: &SetattrIn, valid: SetattrValid) -> io::Result<()> {
        let uid = !valid.contains(SetattrValid::UID)
            || self.owners.accepts_uid(stat, wanted.uid.into_inner());
        let gid = !valid.contains(SetattrValid::GID)
            || self.owners.accepts_gid(stat, wanted.gid.into_inner());
        if uid && gid {
            Ok(())
        } else {
            Err(Errno::PERM.into())
        }
    }

    fn set_size(&self, id: u64, stat: &Statx, size: u64, handle: Option<u64>) -> io::Result<()> {
        if i64::try_from(size).is_err() {
            return Err(Errno::FBIG.into());
        }
        if let Some(handle) = handle {
            let file = self.handles().file(id, handle)?;
            return Ok(rustix::fs::ftruncate(&file, size)?);
        }
        if !is_type(stat, FileType::RegularFile) {
            return Err(Errno::INVAL.into());
        }
        Ok(rustix::fs::ftruncate(
            self.open_file(id, OFlags::WRONLY)?,
            size,
        )?)
    }
}

fn set_times(file: impl AsFd, wanted: &SetattrIn, valid: SetattrValid) -> io::Result<()> {
    let time = |set, now, seconds: u64, nanoseconds: u32| match () {
        () if valid.contains(now) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        () if valid.contains(set) => Timespec {
            tv_sec: seconds.cast_signed(),
            tv_nsec: nanoseconds.into(),
        },
        () => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
    };
    let any = SetattrValid::ATIME
        | SetattrValid::ATIME_NOW
        | SetattrValid::MTIME
        | SetattrValid::MTIME_NOW;
    if !valid.intersects(any) {
        return Ok(());
    }
    let times = Timestamps {
        last_access: time(
            SetattrValid::ATIME,
            SetattrValid::ATIME_NOW,
            wanted.atime,
            wanted.atimensec,
        ),
        last_modification: time(
            SetattrValid::MTIME,
            SetattrValid::MTIME_NOW,
            wanted.mtime,
            wanted.mtimensec,
        ),
    };
    Ok(rustix::fs::utimensat(
        file,
        c"",
        &times,
        AtFlags::EMPTY_PATH,
    )?)
}
