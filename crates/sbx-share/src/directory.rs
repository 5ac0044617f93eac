//! Listing a directory in pieces.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::rc::Rc;

use rustix::fs::{FileType, RawDir, SeekFrom};
use rustix::io::Errno;
use virtiofsd::filesystem::{DirEntry, DirectoryIterator};
use virtiofsd::fuse::Dirent;
use vm_memory::ByteValued as _;

use crate::guard::{Below, Guard};
use crate::limits::DIRECTORY_CHUNK;
use crate::share::is_type;
use crate::tree;
use crate::virtuals::Name;

/// Position of the first name that the host does not have. File systems use positions up to [`END`], which is ext4's
/// for the end, and hashes of names below it: none is likely to be so close.
const VIRTUALS: u64 = END - 0x1_0000;
const END: u64 = i64::MAX.cast_unsigned();

/// Entries begin at multiples of so many bytes (`FUSE_DIRENT_ALIGN`).
const ALIGNED: usize = 8;

/// An open directory. Keeps the entries that were read last: the guest asks for a few at a time and goes on where it
/// stopped.
#[derive(Debug)]
pub(crate) struct Directory {
    file: Rc<File>,
    /// What the rules remember of the way to it, if they hide anything.
    below: Option<Rc<Below>>,
    /// Names in it that the host does not have, or that stand for others.
    virtuals: Rc<Vec<Name>>,
    /// The host has no such directory: there is nothing else in it.
    alone: bool,
    chunk: RefCell<Rc<Chunk>>,
    /// Where the descriptor's own position is, if that is known.
    at: Cell<Option<u64>>,
}

/// Entries that follow one another, beginning at position `start` of the stream, in the form in which the guest is told
/// of them: a head (`fuse_dirent`), the name, zeros up to a multiple of 8 bytes.
#[derive(Debug, Default)]
struct Chunk {
    start: u64,
    bytes: Vec<u8>,
}

/// One of them.
struct Item<'a> {
    head: Dirent,
    name: &'a [u8],
    /// Where the entry after it begins.
    end: usize,
}

impl Directory {
    pub(crate) fn new(file: File, below: Option<Rc<Below>>, virtuals: Rc<Vec<Name>>) -> Self {
        Self {
            file: Rc::new(file),
            below,
            virtuals,
            alone: false,
            chunk: RefCell::default(),
            // Just opened.
            at: Cell::new(Some(0)),
        }
    }

    /// A directory that the host does not have. `file`: some descriptor.
    pub(crate) fn of_virtuals(file: File, names: Rc<Vec<Name>>) -> Self {
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
        if let Some(at) = chunk.place(position) {
            return Ok(Entries::new(&chunk, at));
        }
        // Its room is used again, unless somebody reads it still.
        let mut next = Rc::get_mut(&mut chunk)
            .map(std::mem::take)
            .unwrap_or_default();
        next.start = position;
        next.bytes.clear();
        self.read(&mut next, guard)?;
        *chunk = Rc::new(next);
        Ok(Entries::new(&chunk, 0))
    }

    /// Reads what follows its start into an empty chunk.
    fn read(&self, chunk: &mut Chunk, guard: &Guard) -> io::Result<()> {
        let position = chunk.start;
        // A position the guest made up is the file system's to judge; it must only fit the kernel's signed offset.
        if i64::try_from(position).is_err() {
            return Err(Errno::INVAL.into());
        }
        if let Some(index) = position.checked_sub(VIRTUALS).filter(|_| position < END) {
            return self.add_virtuals(chunk, index);
        }
        if self.alone {
            return self.add_virtuals(chunk, 0);
        }
        if self.at.replace(None) != Some(position) {
            rustix::fs::seek(&self.file, SeekFrom::Start(position))?;
        }
        let mut buffer = [MaybeUninit::<u8>::uninit(); DIRECTORY_CHUNK];
        let mut raw = RawDir::new(&self.file, &mut buffer);
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let (name, next) = (entry.file_name(), entry.next_entry_cookie());
            let stands = |known: &Name| known.bytes == name.to_bytes();
            if !self.virtuals.iter().any(stands) && !self.hides(guard, name, entry.file_type()) {
                chunk.add(entry.ino(), next, entry.file_type(), name.to_bytes())?;
            }
            // None means the end, so what is hidden must not look like it.
            if raw.is_buffer_empty() && !chunk.bytes.is_empty() {
                // getdents64(2) leaves the position at the last entry's.
                self.at.set(Some(next));
                return Ok(());
            }
        }
        self.add_virtuals(chunk, 0)
    }

    /// The names that the host does not have, from this one on; they come after all others.
    fn add_virtuals(&self, chunk: &mut Chunk, first: u64) -> io::Result<()> {
        for (index, name) in (0_u64..).zip(self.virtuals.iter()) {
            if index >= first {
                let next = VIRTUALS + index + 1;
                chunk.add(u64::MAX - index, next, name.kind, &name.bytes)?;
            }
        }
        Ok(())
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
    fn add(&mut self, inode: u64, next: u64, kind: FileType, name: &[u8]) -> io::Result<()> {
        let head = Dirent {
            ino: inode,
            off: next,
            namelen: u32::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?,
            type_: kind_number(kind),
        };
        self.bytes.extend_from_slice(head.as_slice());
        self.bytes.extend_from_slice(name);
        let end = self.bytes.len().next_multiple_of(ALIGNED);
        self.bytes.resize(end, 0);
        Ok(())
    }

    /// The entry that begins here, if one does.
    fn item(&self, at: usize) -> Option<Item<'_>> {
        let (head, rest) = self
            .bytes
            .get(at..)?
            .split_at_checked(size_of::<Dirent>())?;
        let mut value = Dirent::default();
        value.as_mut_slice().copy_from_slice(head);
        let name = rest.get(..usize::try_from(value.namelen).ok()?)?;
        let length = size_of::<Dirent>() + name.len();
        Some(Item {
            head: value,
            name,
            end: at + length.next_multiple_of(ALIGNED),
        })
    }

    /// Where the entry at this position is, if it is here. Position 0 never is, so that a rewind sees new files; nor is
    /// the position after the last one.
    fn place(&self, position: u64) -> Option<usize> {
        if position == 0 || self.bytes.is_empty() {
            return None;
        }
        let (mut at, mut here) = (0, self.start);
        while here != position {
            let item = self.item(at)?;
            (at, here) = (item.end, item.head.off);
        }
        (at < self.bytes.len()).then_some(at)
    }
}

/// The `DT_*` number of a type (`include/linux/fs_types.h`).
fn kind_number(file_type: FileType) -> u32 {
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
    at: usize,
    /// The last name that was asked for one by one, with its NUL.
    name: Vec<u8>,
}

impl Entries {
    fn new(chunk: &Rc<Chunk>, at: usize) -> Self {
        Self {
            chunk: Rc::clone(chunk),
            at,
            name: Vec::new(),
        }
    }

    /// As many as fit into so many bytes, in the form in which the guest is told of them. `EINVAL`: there are some, and
    /// not even one fits.
    pub(crate) fn that_fit(&self, room: usize) -> io::Result<&[u8]> {
        let all = &self.chunk.bytes[self.at..];
        if all.len() <= room {
            return Ok(all);
        }
        let mut end = self.at;
        while let Some(item) = self.chunk.item(end)
            && item.end - self.at <= room
        {
            end = item.end;
        }
        match end - self.at {
            // Nothing means the end, which this is not.
            0 => Err(Errno::INVAL.into()),
            length => Ok(&all[..length]),
        }
    }
}

impl DirectoryIterator for Entries {
    fn next(&mut self) -> Option<DirEntry<'_>> {
        let item = self.chunk.item(self.at)?;
        self.at = item.end;
        self.name.clear();
        self.name.extend_from_slice(item.name);
        self.name.push(0);
        Some(DirEntry {
            ino: item.head.ino,
            offset: item.head.off,
            type_: item.head.type_,
            name: CStr::from_bytes_with_nul(&self.name).ok()?,
        })
    }
}
