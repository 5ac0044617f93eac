//! Listing a directory in pieces.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::rc::Rc;

use rustix::fs::{FileType, RawDir, SeekFrom};
use rustix::io::Errno;
use virtiofsd::filesystem::{DirEntry, DirectoryIterator};

use crate::guard::{Below, Guard};
use crate::limits::DIRECTORY_CHUNK;
use crate::share::is_type;
use crate::tree;
use crate::virtuals::Name;

/// Position of the first name that the host does not have. File systems use positions up to [`END`], which is ext4's
/// for the end, and hashes of names below it: none is likely to be so close.
const VIRTUALS: u64 = END - 0x1_0000;
const END: u64 = i64::MAX.cast_unsigned();

/// An open directory. Keeps the entries that were read last: the guest asks for a few at a time and goes on where it
/// stopped.
#[derive(Debug)]
pub(crate) struct Directory {
    file: Rc<File>,
    /// What the rules remember of the way to it, if they hide anything.
    below: Option<Rc<Below>>,
    /// Names in it that the host does not have, or that stand for others.
    virtuals: Vec<Name>,
    /// The host has no such directory: there is nothing else in it.
    alone: bool,
    chunk: RefCell<Rc<Chunk>>,
    /// Where the descriptor's own position is, if that is known.
    at: Cell<Option<u64>>,
}

/// Entries that follow one another, beginning at position `start` of the stream.
#[derive(Debug, Default)]
struct Chunk {
    start: u64,
    entries: Vec<Item>,
    /// Their names, each with its NUL, one after the other.
    names: Vec<u8>,
}

#[derive(Debug)]
struct Item {
    inode: u64,
    /// Position of the entry after this one, in the file system's own terms.
    next: u64,
    kind: u32,
    /// Where its name is.
    name: Range<usize>,
}

impl Directory {
    pub(crate) fn new(file: File, below: Option<Rc<Below>>, virtuals: Vec<Name>) -> Self {
        Self {
            file: Rc::new(file),
            below,
            virtuals,
            alone: false,
            chunk: RefCell::default(),
            at: Cell::new(None),
        }
    }

    /// A directory that the host does not have. `file`: some descriptor.
    pub(crate) fn of_virtuals(file: File, names: Vec<Name>) -> Self {
        Self {
            alone: true,
            ..Self::new(file, None, names)
        }
    }

    pub(crate) fn file(&self) -> Rc<File> {
        Rc::clone(&self.file)
    }

    /// The entries from a position on, as many as are at hand; none only at the end. Position 0 reads anew.
    pub(crate) fn entries(&self, position: u64, guard: &Guard) -> io::Result<Entries> {
        let mut chunk = self.chunk.borrow_mut();
        if let Some(index) = chunk.index(position) {
            return Ok(Entries {
                chunk: Rc::clone(&chunk),
                index,
            });
        }
        // Its room is used again, unless somebody reads it still.
        let before = Rc::get_mut(&mut chunk).map(std::mem::take);
        *chunk = Rc::new(self.read(position, guard, before.unwrap_or_default())?);
        Ok(Entries {
            chunk: Rc::clone(&chunk),
            index: 0,
        })
    }

    fn read(&self, position: u64, guard: &Guard, before: Chunk) -> io::Result<Chunk> {
        // A position the guest made up is the file system's to judge; it must only fit the kernel's signed offset.
        if i64::try_from(position).is_err() {
            return Err(Errno::INVAL.into());
        }
        if let Some(index) = position.checked_sub(VIRTUALS).filter(|_| position < END) {
            return Ok(self.virtual_chunk(position, index));
        }
        if self.alone {
            return Ok(self.virtual_chunk(position, 0));
        }
        if self.at.replace(None) != Some(position) {
            rustix::fs::seek(&self.file, SeekFrom::Start(position))?;
        }
        let mut buffer = [MaybeUninit::<u8>::uninit(); DIRECTORY_CHUNK];
        let mut raw = RawDir::new(&self.file, &mut buffer);
        let Chunk {
            mut entries,
            mut names,
            ..
        } = before;
        entries.clear();
        names.clear();
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let next = entry.next_entry_cookie();
            let stands = self
                .virtuals
                .iter()
                .any(|name| name.bytes == entry.file_name().to_bytes());
            if !stands && !self.hides(guard, entry.file_name(), entry.file_type()) {
                let name = entry.file_name().to_bytes_with_nul();
                entries.push(Item {
                    inode: entry.ino(),
                    next,
                    kind: kind(entry.file_type()),
                    name: names.len()..names.len() + name.len(),
                });
                names.extend_from_slice(name);
            }
            // None means the end, so what is hidden must not look like it.
            if raw.is_buffer_empty() && !entries.is_empty() {
                // getdents64(2) leaves the position at the last entry's.
                self.at.set(Some(next));
                break;
            }
        }
        if entries.is_empty() {
            return Ok(self.virtual_chunk(position, 0));
        }
        Ok(Chunk {
            start: position,
            entries,
            names,
        })
    }

    /// The names that the host does not have, from this one on; they come after all others.
    fn virtual_chunk(&self, position: u64, first: u64) -> Chunk {
        let (mut entries, mut names) = (Vec::new(), Vec::new());
        for (index, name) in (0_u64..)
            .zip(&self.virtuals)
            .filter(|(index, _)| *index >= first)
        {
            entries.push(Item {
                inode: u64::MAX - index,
                next: VIRTUALS + index + 1,
                kind: kind(name.kind),
                name: names.len()..names.len() + name.bytes.len() + 1,
            });
            names.extend_from_slice(&name.bytes);
            names.push(0);
        }
        Chunk {
            start: position,
            entries,
            names,
        }
    }

    fn hides(&self, guard: &Guard, name: &CStr, kind: FileType) -> bool {
        let Some(below) = &self.below else {
            return false;
        };
        let directory = match kind {
            FileType::Directory => true,
            // The file system does not say.
            FileType::Unknown => tree::stat_name(&self.file, name)
                .is_ok_and(|stat| is_type(&stat, FileType::Directory)),
            _ => false,
        };
        guard.hides(below, name.to_bytes(), directory)
    }
}

impl Chunk {
    /// Where the entry at this position is, if it is here. Position 0 never is, so that a rewind sees new files; nor is
    /// the position after the last one.
    fn index(&self, position: u64) -> Option<usize> {
        if position == 0 || self.entries.is_empty() {
            return None;
        }
        if position == self.start {
            return Some(0);
        }
        let before = self
            .entries
            .iter()
            .position(|entry| entry.next == position)?;
        (before + 1 < self.entries.len()).then_some(before + 1)
    }
}

/// The `DT_*` number of a type (`include/linux/fs_types.h`).
fn kind(file_type: FileType) -> u32 {
    u32::from(match file_type {
        FileType::Fifo => libc::DT_FIFO,
        FileType::CharacterDevice => libc::DT_CHR,
        FileType::Directory => libc::DT_DIR,
        FileType::BlockDevice => libc::DT_BLK,
        FileType::RegularFile => libc::DT_REG,
        FileType::Symlink => libc::DT_LNK,
        FileType::Socket => libc::DT_SOCK,
        FileType::Unknown => libc::DT_UNKNOWN,
    })
}

/// Entries on their way to the guest.
#[derive(Debug)]
pub struct Entries {
    chunk: Rc<Chunk>,
    index: usize,
}

impl DirectoryIterator for Entries {
    fn next(&mut self) -> Option<DirEntry<'_>> {
        let item = self.chunk.entries.get(self.index)?;
        let name = self.chunk.names.get(item.name.clone())?;
        let name = CStr::from_bytes_with_nul(name).ok()?;
        self.index += 1;
        Some(DirEntry {
            ino: item.inode,
            offset: item.next,
            type_: item.kind,
            name,
        })
    }
}
