//! A saved machine: its memory as a sparse file, everything else as QEMU's migration stream.
//!
//! QEMU gets both as descriptors that it inherits (see [`crate::args::Life`]): the memory as a file in memory
//! (`memfd_create(2)`), which the shares can map too, the state as a pipe that holds all of it, so that neither
//! side has to be served while the other works.

use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::io::Errno;
use sbx_wire::launch::MAX_STATE;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Bytes that are looked at at once when memory is saved.
const PIECE: usize = 1 << 20;
/// A pipe that holds [`MAX_STATE`]: the next power of two (`fcntl(2)`).
const PIPE: usize = 1 << 20;
const _: () = assert!(MAX_STATE as usize <= PIPE);
/// A hole has at least this size: a page.
const PAGE: usize = 4096;

/// A file in memory of `bytes` bytes, all zero.
///
/// # Errors
/// Those of the system.
pub fn memory(bytes: u64) -> io::Result<File> {
    let fd = rustix::fs::memfd_create("sbx-memory", MemfdFlags::CLOEXEC)?;
    let file = File::from(fd);
    file.set_len(bytes)?;
    Ok(file)
}

/// Memory with the content of the file `from`, which must have exactly `bytes` bytes.
///
/// # Errors
/// Those of the system; [`io::ErrorKind::InvalidData`] for another size.
pub fn load_memory(from: &Path, bytes: u64) -> io::Result<File> {
    let source = File::open(from)?;
    let length = source.metadata()?.len();
    if length != bytes {
        let text = format!("{} has {length} bytes, the machine {bytes}", from.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let memory = memory(bytes)?;
    for_each_extent(&source, |start, end| copy(&source, &memory, start, end))?;
    Ok(memory)
}

/// Calls `each` with begin and end of every part of the file that may hold something other than zero.
fn for_each_extent(
    file: &File,
    mut each: impl FnMut(u64, u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole up to the end (`lseek(2)`).
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        each(start, end)?;
        at = end;
    }
}

/// Copies a part inside the kernel.
fn copy(source: &File, target: &File, start: u64, end: u64) -> io::Result<()> {
    rustix::fs::seek(target, SeekFrom::Start(start))?;
    let mut offset = start;
    while offset < end {
        let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let count = rustix::fs::sendfile(target, source, Some(&mut offset), wanted)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Writes memory into the new file `to`, with holes where it is zero. Returns the bytes that are no hole.
///
/// # Errors
/// Those of the system.
pub fn save_memory(memory: &File, to: &Path) -> io::Result<u64> {
    let file = new_file(to)?;
    file.set_len(memory.metadata()?.len())?;
    let mut written = 0;
    let mut buffer = vec![0; PIECE];
    for_each_extent(memory, |start, end| {
        let mut at = start;
        while at < end {
            let length = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
            let piece = &mut buffer[..length];
            memory.read_exact_at(piece, at)?;
            written += write_pages(&file, piece, at)?;
            at += length as u64;
        }
        Ok(())
    })?;
    file.sync_all()?;
    Ok(written)
}

/// Writes the pages of a piece that are not zero, neighbours together.
fn write_pages(file: &File, piece: &[u8], at: u64) -> io::Result<u64> {
    const ZERO: [u8; PAGE] = [0; PAGE];
    let is_zero = |page: &[u8]| *page == ZERO[..page.len()];
    let mut written = 0;
    let mut start = 0;
    while start < piece.len() {
        let mut end = start;
        while end < piece.len() && !is_zero(&piece[end..piece.len().min(end + PAGE)]) {
            end = piece.len().min(end + PAGE);
        }
        if end > start {
            file.write_all_at(&piece[start..end], at + start as u64)?;
            written += (end - start) as u64;
        }
        start = end + PAGE;
    }
    Ok(written)
}

/// A pipe that the whole state in the file `from` waits in; its write end is closed.
///
/// # Errors
/// Those of the system; [`io::ErrorKind::InvalidData`] for a file that does not fit.
pub fn load_state(from: &Path) -> io::Result<OwnedFd> {
    let file = File::open(from)?;
    let length = file.metadata()?.len();
    if length == 0 || length > u64::from(MAX_STATE) {
        let text = format!("{} has {length} bytes, no state", from.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut state = Vec::new();
    file.take(MAX_STATE.into()).read_to_end(&mut state)?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // An ordinary user may have this much (`pipe(7)`, `/proc/sys/fs/pipe-max-size`).
    rustix::pipe::fcntl_setpipe_size(&write, PIPE)?;
    rustix::io::ioctl_fionbio(&write, true)?;
    File::from(write).write_all(&state)?;
    Ok(read)
}

/// Writes a state into the new file `to`.
///
/// # Errors
/// Those of the system.
pub fn save_state(state: &[u8], to: &Path) -> io::Result<()> {
    let mut file = new_file(to)?;
    file.write_all(state)?;
    file.sync_all()
}

/// Copies the file `from` to the new file `to`, holes and all.
///
/// # Errors
/// Those of the system.
pub fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = new_file(to)?;
    target.set_len(source.metadata()?.len())?;
    for_each_extent(&source, |start, end| copy(&source, &target, start, end))
}

fn new_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// Gives a descriptor the number that the command line names, to be inherited by the next program. Dropped, it
/// is inherited no more.
///
/// # Errors
/// Those of the system, and when the number is taken.
pub fn inherit_as(fd: BorrowedFd<'_>, number: i32) -> io::Result<OwnedFd> {
    let fd = rustix::io::fcntl_dupfd_cloexec(fd, number)?;
    if std::os::fd::AsRawFd::as_raw_fd(&fd) != number {
        return Err(io::Error::other(format!("descriptor {number} is taken")));
    }
    rustix::io::fcntl_setfd(fd.as_fd(), rustix::io::FdFlags::empty())?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn memory_comes_back_as_it_was_and_zeros_take_no_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let size = 8 << 20;
        let before = memory(size).unwrap();
        before.write_all_at(&[7; 5000], 3 * 4096 + 100).unwrap();
        before.write_all_at(&vec![0; 1 << 20], 4 << 20).unwrap();
        before.write_all_at(b"end", size - 3).unwrap();
        assert_eq!(save_memory(&before, &path).unwrap(), 3 * 4096);
        let blocks = std::fs::metadata(&path).unwrap().blocks();
        assert!(blocks * 512 < 100 << 10, "{blocks} blocks");
        let after = load_memory(&path, size).unwrap();
        let read = |file: &File| {
            let mut bytes = vec![0; usize::try_from(size).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        assert!(read(&before) == read(&after));
        let error = load_memory(&path, size + 4096).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn state_of_the_largest_size_waits_in_its_pipe_and_a_larger_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        for size in [1, MAX_STATE] {
            save_state(&vec![5; size as usize], &path).unwrap();
            let mut read = Vec::new();
            File::from(load_state(&path).unwrap())
                .read_to_end(&mut read)
                .unwrap();
            assert!(read == vec![5; size as usize], "{size}");
            std::fs::remove_file(&path).unwrap();
        }
        for size in [0, MAX_STATE + 1] {
            save_state(&vec![5; size as usize], &path).unwrap();
            let error = load_state(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_copy_has_the_content_and_the_holes_and_never_replaces_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"middle", 32 << 20).unwrap();
        copy_sparse(&from, &to).unwrap();
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap());
        assert!(std::fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
        assert!(copy_sparse(&from, &to).is_err());
    }
}
