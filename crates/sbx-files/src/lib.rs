//! Files that are never seen half-written, and never readable by others; and files that somebody else may have put
//! something in the place of.
#![forbid(unsafe_code)]

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use sbx_wire::report::Report;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Largest state file that is read, bytes.
const MAX_FILE: u64 = 64 << 20;
/// End of the name of a file that is not in its place yet.
pub const NEW: &str = ".new";

/// Makes a folder and its parents, for the user alone.
pub fn private_dir(path: &Path) -> Result<(), Report> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| io_report("make", path, &error))
}

/// Replaces a file in one step (mode 0600): after a crash it is the old one or the new one.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Report> {
    prepare(path, content)?.finish()
}

/// New content of a file, on the disk already but not in its place yet. What still has to be done takes no space, so
/// that a full disk is found before anything is changed. Dropped, it leaves no trace.
#[derive(Debug)]
#[must_use]
pub struct Prepared {
    path: PathBuf,
    temporary: PathBuf,
    finished: bool,
}

/// Writes the new content of a file beside it.
pub fn prepare(path: &Path, content: &[u8]) -> Result<Prepared, Report> {
    let prepared = Prepared {
        path: path.to_owned(),
        temporary: beside(path, NEW),
        finished: false,
    };
    let write = || -> io::Result<()> {
        // Left by a daemon that was killed; the lock says that nobody else writes here.
        if let Err(error) = fs::remove_file(&prepared.temporary)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&prepared.temporary)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|error| io_report("write", path, &error))?;
    Ok(prepared)
}

/// [`prepare`] with pretty JSON.
pub fn prepare_json<T: Serialize>(path: &Path, value: &T) -> Result<Prepared, Report> {
    prepare(path, &pretty(path, value)?)
}

impl Prepared {
    /// Puts the new content in place.
    pub fn finish(mut self) -> Result<(), Report> {
        fs::rename(&self.temporary, &self.path)
            .and_then(|()| {
                self.finished = true;
                self.path
                    .parent()
                    .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
            })
            .map_err(|error| io_report("write", &self.path, &error))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort: whoever gave up has the reason.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Removes what a daemon that was killed had prepared in a folder and not put in its place. Only the holder of the
/// daemon's lock writes there.
pub fn remove_unfinished(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if path
            .as_os_str()
            .as_encoded_bytes()
            .ends_with(NEW.as_bytes())
            && path.is_file()
        {
            // Best effort: it is in nobody's way, and the next change removes it.
            let _ = fs::remove_file(path);
        }
    }
}

/// [`replace`] with pretty JSON.
pub fn replace_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Report> {
    replace(path, &pretty(path, value)?)
}

/// [`replace_json`], but a file that says the same already is left alone: that takes no space.
pub fn ensure_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Report> {
    let text = pretty(path, value)?;
    if read(path).is_ok_and(|old| old.as_ref() == Some(&text)) {
        return Ok(());
    }
    replace(path, &text)
}

fn pretty<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, Report> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| {
        Report::bug("json", format!("cannot encode {}: {error}", path.display()))
    })?;
    text.push(b'\n');
    Ok(text)
}

/// Reads a bounded file; `None` when there is none.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "larger than any state file",
        ));
    }
    Ok(Some(content))
}

/// A regular file of at most so many bytes, where somebody else may have put something: neither followed as a link nor
/// waited for as a pipe. `None`: it is another.
pub fn plain(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    opened(path, OFlags::NOFOLLOW, ResolveFlags::empty(), limit)
}

/// [`plain`], where no folder on the way may be a link either. The working directory, where a relative path begins, is
/// what it is.
pub fn plain_without_links(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    opened(path, OFlags::empty(), ResolveFlags::NO_SYMLINKS, limit)
}

fn opened(
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
    limit: usize,
) -> io::Result<Option<Vec<u8>>> {
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), resolve) {
        Ok(fd) => whole(File::from(fd), limit),
        Err(Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What an open file holds, if it is a regular one of at most so many bytes.
pub fn whole(file: File, limit: usize) -> io::Result<Option<Vec<u8>>> {
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut content)?;
    Ok((content.len() <= limit).then_some(content))
}

/// What reading a JSON state file found.
#[derive(Debug)]
pub enum Found<T> {
    /// The document.
    Good(T),
    /// No file.
    Missing,
    /// A file that is not this document; the text says why.
    Corrupt(String),
}

/// Reads a JSON state file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Found<T> {
    match read(path) {
        Ok(None) => Found::Missing,
        Ok(Some(content)) => match serde_json::from_slice(&content) {
            Ok(value) => Found::Good(value),
            Err(error) => Found::Corrupt(error.to_string()),
        },
        Err(error) => Found::Corrupt(error.to_string()),
    }
}

/// Renames a broken file to `<name>.corrupt-<unix seconds>` and returns the new path.
pub fn set_aside(path: &Path) -> Result<PathBuf, Report> {
    set_aside_as(path, "corrupt")
}

/// Renames a file to `<name>.<why>-<unix seconds>`, or, where that is taken, to one with a number behind it: what was
/// set aside earlier stays, also when the clock was set back.
pub fn set_aside_as(path: &Path, why: &str) -> Result<PathBuf, Report> {
    let stem = format!(".{why}-{}", unix_s());
    let mut target = beside(path, &stem);
    for number in 2.. {
        if target.symlink_metadata().is_err() {
            break;
        }
        target = beside(path, &format!("{stem}-{number}"));
    }
    fs::rename(path, &target).map_err(|error| io_report("set aside", path, &error))?;
    Ok(target)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Seconds since the Unix epoch; 0 for a clock before it.
fn unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

/// A file operation that failed: a full disk and missing permission get a next step of their own.
pub fn io_report(what: &str, path: &Path, error: &io::Error) -> Report {
    let message = format!("cannot {what} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Report::environment(
            "disk-full",
            message,
            "free space on that disk, or point SBX_HOME at another one",
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Report::environment(
            "no-permission",
            message,
            "make the folder writable for you, or point SBX_HOME at another one",
        ),
        _ => Report::environment(
            "file",
            message,
            "look at the path; the daemon's log may tell more",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FileType, mknodat};
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn replaced_file_is_private_and_a_leftover_of_a_crash_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::write(beside(&path, ".new"), "half").unwrap();
        replace(&path, b"[1]").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(read_json::<Vec<u8>>(&path), Found::Good(v) if v == [1]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_prepared_takes_its_place_or_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        replace_json(&path, &1).unwrap();
        drop(prepare_json(&path, &2).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        prepare_json(&path, &2).unwrap().finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_that_was_set_aside_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        // Three within the same second, or by a clock that goes backwards.
        let mut kept = std::collections::BTreeSet::new();
        for text in ["1", "2", "3"] {
            fs::write(&path, text).unwrap();
            let aside = set_aside(&path).unwrap();
            assert_eq!(fs::read_to_string(&aside).unwrap(), text);
            assert!(kept.insert(aside));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn only_a_regular_file_that_is_no_link_and_not_too_long_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("folder/file"), "text").unwrap();
        symlink("folder/file", at("link")).unwrap();
        symlink("folder", at("way")).unwrap();
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let text = Some(b"text".to_vec());
        for read in [plain, plain_without_links] {
            assert_eq!(read(&at("folder/file"), 4).unwrap(), text);
            assert_eq!(read(&at("folder/file"), 3).unwrap(), None);
            for other in ["folder", "link", "pipe"] {
                assert_eq!(read(&at(other), 9).unwrap(), None, "{other}");
            }
            let missing = read(&at("missing"), 9).unwrap_err();
            assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        }
        assert_eq!(plain(&at("way/file"), 9).unwrap(), text);
        assert_eq!(plain_without_links(&at("way/file"), 9).unwrap(), None);
    }

    #[test]
    fn full_disk_is_named_as_such() {
        let error = replace(Path::new("/dev/full/x"), b"").unwrap_err();
        assert_eq!(error.code, "file");
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(io_report("write", Path::new("/x"), &full).code, "disk-full");
    }
}
