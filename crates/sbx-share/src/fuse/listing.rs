//! Listings of a directory, with attributes or without.

use std::io;

use rustix::io::Errno;
use virtiofsd::filesystem::{DirEntry, DirectoryIterator as _, Entry, FileSystem as _};
use virtiofsd::fuse::{Attr, Dirent, EntryOut, ReadIn};

use super::Done;
use super::args::Answer;
use super::requests::Call;
use crate::directory::Entries;
use crate::limits::MAX_LISTING;

impl Call<'_, '_> {
    /// As many names as there is room for, straight into the guest's memory.
    pub(super) fn names(&mut self) -> io::Result<Done> {
        let (entries, room) = self.entries()?;
        let names = entries.that_fit(room)?;
        let written = self.buffers.write(Answer::HEAD, names);
        written.expect("there is room for it");
        Ok(Done::Content(names.len()))
    }

    /// As many entries as there is room for, each with its node, which the guest knows from then on.
    pub(super) fn nodes(&mut self) -> io::Result<Done> {
        let (mut entries, room) = self.entries()?;
        while let Some(entry) = entries.next() {
            let error = if self.answer.length() + length(&entry) > room {
                // Nothing means the end, which this is not.
                Errno::INVAL.into()
            } else {
                match self.add(&entry) {
                    Ok(()) => continue,
                    Err(error) => error,
                }
            };
            // Entries that are in it must not be lost: the guest would not forget their nodes.
            return match self.answer.length() {
                0 => Err(error),
                _ => Ok(Done::Answer),
            };
        }
        Ok(Done::Answer)
    }

    /// Those from where the guest wants them, and bytes that there is room for.
    fn entries(&mut self) -> io::Result<(Entries, usize)> {
        let asked: ReadIn = self.args.take()?;
        let size = usize::try_from(asked.size).unwrap_or(usize::MAX);
        let room = self.buffers.room().saturating_sub(Answer::HEAD);
        let entries = self.share.readdir(
            self.context(),
            self.node(),
            asked.fh,
            asked.size,
            asked.offset,
        )?;
        Ok((entries, room.min(size).min(MAX_LISTING)))
    }

    fn add(&mut self, entry: &DirEntry<'_>) -> io::Result<()> {
        let found = match entry.name.to_bytes() {
            b"." | b".." => unnamed(entry),
            // One that cannot be looked at ends no list: without a node, the guest asks for it when somebody uses it.
            _ => {
                let found = self.share.lookup(self.context(), self.node(), entry.name);
                found.unwrap_or_else(|_| unnamed(entry))
            }
        };
        self.answer.push(&EntryOut::from(found));
        let name = entry.name.to_bytes();
        self.answer.push(&Dirent {
            ino: entry.ino,
            off: entry.offset,
            namelen: u32::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?,
            type_: entry.type_,
        });
        self.answer.push_bytes(name);
        self.answer.align();
        Ok(())
    }
}

/// Bytes that an entry with its node takes.
fn length(entry: &DirEntry<'_>) -> usize {
    let name = (size_of::<Dirent>() + entry.name.count_bytes()).next_multiple_of(8);
    size_of::<EntryOut>() + name
}

/// The directory itself and the one above are told without a node, and so is what cannot be looked at.
fn unnamed(entry: &DirEntry<'_>) -> Entry {
    Entry {
        inode: 0,
        generation: 0,
        attr: Attr {
            ino: entry.ino,
            mode: entry.type_ << 12,
            ..Attr::default()
        },
        attr_timeout: std::time::Duration::ZERO,
        entry_timeout: std::time::Duration::ZERO,
    }
}
