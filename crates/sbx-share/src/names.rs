//! Requests about names: look up, make, remove, rename.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, OFlags, RenameFlags};
use rustix::io::Errno;
use virtiofsd::filesystem::Entry;
use virtiofsd::fuse::Attr;

use crate::guard::{Made, Named};
use crate::nodes::{Identity, Place};
use crate::share::{Share, component, is_type, safe_mode};
use crate::tree;

impl Share {
    /// A name that is not there is an answer, not an error: inside a listing with attributes (READDIRPLUS) an error
    /// would end the listing, and files come and go.
    pub(crate) fn look_up(&self, parent: u64, name: &CStr) -> io::Result<Entry> {
        if let Some(entry) = self.look_up_virtual(parent, component(name)?)? {
            return Ok(entry);
        }
        if self.holds_stand_ins_only(parent) {
            return Ok(absent());
        }
        let directory = self.reach_directory(parent)?;
        match tree::stat_name(directory, component(name)?) {
            Ok(stat) if self.is_hidden(parent, name, is_type(&stat, FileType::Directory))? => {
                Ok(absent())
            }
            Ok(stat) if is_type(&stat, FileType::Directory) && self.begin_mask(parent, name)? => {
                self.look_up_mask(parent, name)
            }
            Ok(stat) => self.entry(parent, name, &stat),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(absent()),
            Err(error) => Err(error),
        }
    }

    /// The answer for one that has just appeared.
    fn look_up_mask(&self, parent: u64, name: &CStr) -> io::Result<Entry> {
        let entry = self.look_up_virtual(parent, name)?;
        Ok(entry.ok_or(Errno::STALE)?)
    }

    pub(crate) fn make_directory(
        &self,
        parent: u64,
        name: &CStr,
        mode: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        self.check_can_make(parent)?;
        self.check_make(parent, component(name)?, Made::Directory)?;
        let directory = self.reach_directory(parent)?;
        if self.begin_made_mask(parent, &directory, name)? {
            return self.look_up_mask(parent, name);
        }
        rustix::fs::mkdirat(&directory, component(name)?, safe_mode(mode, umask))?;
        self.new_entry(parent, directory, name)
    }

    /// Regular files, pipes and sockets. A device node would be one on the host.
    pub(crate) fn make_node(
        &self,
        parent: u64,
        name: &CStr,
        mode: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        self.check_can_make(parent)?;
        let kind = match FileType::from_raw_mode(mode) {
            // mknod(2): type zero means a regular file
            FileType::Unknown if mode & libc::S_IFMT == 0 => FileType::RegularFile,
            kind @ (FileType::RegularFile | FileType::Fifo | FileType::Socket) => kind,
            _ => return Err(Errno::PERM.into()),
        };
        let made = match kind {
            FileType::RegularFile => Made::File,
            _ => Made::Other,
        };
        self.check_make(parent, component(name)?, made)?;
        let directory = self.reach_directory(parent)?;
        rustix::fs::mknodat(
            &directory,
            component(name)?,
            kind,
            safe_mode(mode, umask),
            0,
        )?;
        let stat = tree::stat_name(&directory, name)?;
        if made == Made::File {
            self.note_made(parent, &directory, name, &stat)?;
        }
        self.entry(parent, name, &stat)
    }

    /// The text of the link is the guest's business: only the guest follows it.
    pub(crate) fn make_link(&self, text: &CStr, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.check_can_make(parent)?;
        self.check_make_link(text, parent, component(name)?)?;
        let directory = self.reach_directory(parent)?;
        rustix::fs::symlinkat(text, &directory, component(name)?)?;
        self.new_entry(parent, directory, name)
    }

    /// One more name for a file.
    pub(crate) fn add_name(&self, id: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.check_writable()?;
        let (file, stat) = self.reach(id)?;
        if is_type(&stat, FileType::Directory) {
            return Err(Errno::PERM.into());
        }
        let link = is_type(&stat, FileType::Symlink);
        self.check_virtual_made(parent, component(name)?)?;
        self.check_link(id, parent, component(name)?, link)?;
        let directory = self.reach_directory(parent)?;
        self.tree.link(file, &directory, component(name)?)?;
        self.new_entry(parent, directory, name)
    }

    pub(crate) fn remove(&self, parent: u64, name: &CStr, directory: bool) -> io::Result<()> {
        self.check_writable()?;
        self.check_virtual(parent, component(name)?)?;
        self.check_remove(parent, component(name)?, directory)?;
        let flags = if directory {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        Ok(rustix::fs::unlinkat(
            self.reach_directory(parent)?,
            component(name)?,
            flags,
        )?)
    }

    pub(crate) fn rename_entry(
        &self,
        from: (u64, &CStr),
        to: (u64, &CStr),
        flags: u32,
    ) -> io::Result<()> {
        self.check_writable()?;
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::INVAL.into()); // makes a device node
        }
        let old_directory = self.reach_directory(from.0)?;
        let new_directory = self.reach_directory(to.0)?;
        let (old_name, new_name) = (component(from.1)?, component(to.1)?);
        let source = Named {
            parent: from.0,
            directory: old_directory.as_fd(),
            name: old_name,
        };
        let target = Named {
            parent: to.0,
            directory: new_directory.as_fd(),
            name: new_name,
        };
        self.check_virtual(from.0, old_name)?;
        if tree::stat_name(&new_directory, new_name).is_ok() {
            self.check_virtual(to.0, new_name)?;
        } else {
            self.check_virtual_made(to.0, new_name)?;
        }
        let plan = self.check_rename(source, target)?;
        // Only now: what is hidden has said that it is not there.
        self.check_renamed_to_mask(
            (old_directory.as_fd(), old_name),
            (to.0, new_directory.as_fd(), new_name),
        )?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        if exchange {
            let back = self.check_rename(target, source)?;
            if plan.install.or(back.install).is_some() {
                return Err(Errno::INVAL.into()); // git does not do that
            }
            if back.rejudge {
                self.guard.forget_marks();
            }
        }
        if plan.rejudge {
            self.guard.forget_marks();
        }
        let before = tree::stat_name(&old_directory, old_name);
        let installed = match plan.install {
            Some(rule) => self.install(rule, source, target)?,
            None => false,
        };
        if installed {
            let after = tree::stat_name(&new_directory, new_name);
            if let (Ok(before), Ok(after)) = (before, after) {
                let (old, new) = (Identity::from(&before), Identity::from(&after));
                self.nodes().replaced(old, new);
            }
        } else {
            rustix::fs::renameat_with(&old_directory, old_name, &new_directory, new_name, flags)?;
        }

        let old = Place {
            parent: from.0,
            name: old_name.to_owned(),
        };
        let new = Place {
            parent: to.0,
            name: new_name.to_owned(),
        };
        self.note_move(&new_directory, &old, &new);
        if exchange {
            self.note_move(&old_directory, &new, &old);
        }
        Ok(())
    }

    /// Tells the node table. If somebody on the host was faster, the place is wrong and will be dropped when used.
    fn note_move(&self, directory: impl std::os::fd::AsFd, from: &Place, to: &Place) {
        if let Ok(stat) = tree::stat_name(directory, &to.name) {
            self.nodes().moved(Identity::from(&stat), from, to);
        }
    }

    /// Makes a regular file and opens it, in one step on the host too.
    pub(crate) fn make_file(
        &self,
        parent: u64,
        name: &CStr,
        mode: u32,
        flags: OFlags,
    ) -> io::Result<(Entry, File)> {
        self.check_can_make(parent)?;
        let directory = self.reach_directory(parent)?;
        let name = component(name)?;
        self.check_virtual_made(parent, name)?;
        let exclusive =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let wanted = flags & (OFlags::RWMODE | OFlags::SYNC | OFlags::DSYNC);
        // What is there already is opened, hence judged, as what it is; and not made, should it go meanwhile.
        let there = !flags.contains(OFlags::EXCL) && tree::stat_name(&directory, name).is_ok();
        let known = there && !self.is_hidden(parent, name, false)?;
        let made = if known {
            Err(Errno::EXIST)
        } else {
            self.check_make(parent, name, Made::File)?;
            rustix::fs::openat(&directory, name, wanted | exclusive, safe_mode(mode, 0))
        };
        match made {
            Ok(fd) => {
                let stat = tree::stat(&fd)?;
                self.note_made(parent, &directory, name, &stat)?;
                Ok((self.entry(parent, name, &stat)?, fd.into()))
            }
            // The host made it since the guest looked. It might be anything: open it as the known file it now is.
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => {
                let entry = self.new_entry(parent, &directory, name)?;
                let opened = self.open_file(entry.inode, flags & !(OFlags::CREATE | OFlags::EXCL));
                let file = opened.inspect_err(|_| {
                    self.nodes().forget(entry.inode, 1);
                })?;
                Ok((entry, file))
            }
            Err(errno) => Err(limit_error(errno)),
        }
    }
}

/// The answer to a look-up of a name that is not there.
fn absent() -> Entry {
    Entry {
        inode: 0,
        generation: 0,
        attr: Attr::default(),
        attr_timeout: Duration::ZERO,
        entry_timeout: Duration::ZERO,
    }
}

/// The server's own limit of descriptors is the whole system's as far as the guest can tell.
pub(crate) fn limit_error(errno: Errno) -> io::Error {
    if errno == Errno::MFILE {
        Errno::NFILE.into()
    } else {
        errno.into()
    }
}
