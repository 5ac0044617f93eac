//! May this name be made, given away or removed?

use super::Judgement;
use super::renames::Named;
use crate::share::Share;
use rustix::io::Errno;
use sbx_workspace::What;
use sbx_workspace::event::Action;
use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd as _;

/// What is to be made under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    File,
    Directory,
    Link,
    /// A pipe or a socket.
    Other,
}

/// Whether a link with this text leads to another name in its own directory.
fn is_beside(text: &CStr) -> bool {
    let text = text.to_bytes();
    !matches!(text, b"" | b"." | b"..") && !text.contains(&b'/')
}

impl Share {
    /// What the rules say of a name in a directory; `None` when there are none.
    pub(super) fn judge_name(
        &self,
        parent: u64,
        name: &CStr,
        directory: bool,
    ) -> io::Result<Option<Judgement>> {
        if self.guard.is_idle() {
            return Ok(None);
        }
        let below = self.below(parent)?;
        Ok(Some(self.guard.judge(&below, name.to_bytes(), directory)))
    }

    /// Whether a name reads as absent.
    pub(crate) fn is_hidden(&self, parent: u64, name: &CStr, directory: bool) -> io::Result<bool> {
        if !self.guard.hides_anything() {
            return Ok(false);
        }
        let below = self.below(parent)?;
        Ok(self.guard.hides(&below, name.to_bytes(), directory))
    }

    /// Whether the guest may make something new under a name.
    pub(crate) fn check_make(&self, parent: u64, name: &CStr, made: Made) -> io::Result<()> {
        // It is there already.
        self.check_virtual_made(parent, name).map_err(|error| {
            match Errno::from_io_error(&error) {
                Some(Errno::BUSY | Errno::ACCESS) => Errno::EXIST.into(),
                _ => error,
            }
        })?;
        let Some(judged) = self.judge_name(parent, name, made == Made::Directory)? else {
            return Ok(());
        };
        if let Some(number) = judged.hidden {
            let path = self.shown(parent, name.to_bytes());
            return Err(self.guard.refuse_hidden(number, Action::Create, &path));
        }
        if let Some(number) = judged.protected {
            // Git writes a link to a git directory plainly; what is written is looked at.
            let link = self.guard.what(number) == What::GitLink && made == Made::File;
            if !link {
                let path = self.shown(parent, name.to_bytes());
                self.guard.violation(number, Action::Create, &path)?;
            }
        }
        match judged.lock {
            Some(number) if made == Made::File => self.check_room_for_lock(number),
            Some(number) => {
                let path = self.shown(parent, name.to_bytes());
                self.refuse_lock(number, Action::Create, &path)
            }
            None => Ok(()),
        }
    }

    /// Whether the guest may make a symbolic link with this text.
    pub(crate) fn check_make_link(&self, text: &CStr, parent: u64, name: &CStr) -> io::Result<()> {
        self.check_make(parent, name, Made::Link)?;
        // Where the rules see what it leads to as they see the link's own name, nothing is gained by it. Git makes such
        // a link in a new git directory, to find out whether there are any.
        if is_beside(text)
            && let (Some(link), Some(beside), Some(file)) = (
                self.judge_name(parent, name, true)?,
                self.judge_name(parent, text, true)?,
                self.judge_name(parent, text, false)?,
            )
            && link.below == beside.below
            && file.protected.is_none()
        {
            return Ok(());
        }
        self.check_stand_in(parent, name, Action::Create)
    }

    /// A link in the place of a directory that holds protected files would lead the host to files that are not; one in a
    /// git directory would lead what the host's git writes there elsewhere.
    pub(super) fn check_stand_in(
        &self,
        parent: u64,
        name: &CStr,
        action: Action,
    ) -> io::Result<()> {
        let Some(judged) = self.judge_name(parent, name, true)? else {
            return Ok(());
        };
        let Some(why) = judged.below.against_links() else {
            return Ok(());
        };
        let mode = self.guard.usual_mode();
        let path = self.shown(parent, name.to_bytes());
        self.guard.refuse(mode, action, &path, why.to_owned())
    }

    /// Whether the guest may remove a name. Git's settings may go, so that a repository can; they do not come back
    /// with anything new in them.
    pub(crate) fn check_remove(&self, parent: u64, name: &CStr, directory: bool) -> io::Result<()> {
        let Some(judged) = self.judge_name(parent, name, directory)? else {
            return Ok(());
        };
        if judged.hidden.is_some() {
            return Err(Errno::NOENT.into());
        }
        if judged.lock.is_some() && !directory {
            let directory = self.reach_directory(parent)?;
            let at = Named {
                parent,
                directory: directory.as_fd(),
                name,
            };
            self.check_own_lock(judged.lock, at, Action::Remove)?;
        }
        match judged.protected {
            Some(number) if self.guard.what(number) == What::Everything => {
                let path = self.shown(parent, name.to_bytes());
                self.guard.violation(number, Action::Remove, &path)
            }
            _ => Ok(()),
        }
    }

    /// Whether the guest may give a file one more name. `link`: it is a symbolic link.
    pub(crate) fn check_link(
        &self,
        id: u64,
        parent: u64,
        name: &CStr,
        link: bool,
    ) -> io::Result<()> {
        let from = self.judged(id)?;
        if let Some(number) = from.protected {
            let path = self.shown_node(id);
            self.guard.violation(number, Action::Link, &path)?;
        }
        if let Some(number) = from.lock {
            self.refuse_lock(number, Action::Link, &self.shown_node(id))?;
        }
        let Some(judged) = self.judge_name(parent, name, false)? else {
            return Ok(());
        };
        let path = || self.shown(parent, name.to_bytes());
        if let Some(number) = judged.hidden {
            return Err(self.guard.refuse_hidden(number, Action::Link, &path()));
        }
        if let Some(number) = judged.protected {
            self.guard.violation(number, Action::Link, &path())?;
        }
        if let Some(number) = judged.lock {
            self.refuse_lock(number, Action::Link, &path())?;
        }
        if link {
            self.check_stand_in(parent, name, Action::Link)?;
        }
        Ok(())
    }
}
