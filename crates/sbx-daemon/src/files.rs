//! Files that are never seen half-written, and never readable by others.

use crate::error::io_report;
use sbx_wire::report::Report;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Largest state file that is read, bytes.
const MAX_FILE: u64 = 64 << 20;

/// Makes a folder and its parents, for the user alone.
pub(crate) fn private_dir(path: &Path) -> Result<(), Report> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| io_report("make", path, &error))
}

/// Replaces a file in one step (mode 0600): after a crash it is the old one or the new one.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), Report> {
    let temporary = beside(path, ".new");
    let write = || -> io::Result<()> {
        // Left by a daemon that was killed; the lock says that nobody else writes here.
        if let Err(error) = fs::remove_file(&temporary)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent()
            .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(|error| {
        // Best effort: the failure itself is what gets reported.
        let _ = fs::remove_file(&temporary);
        io_report("write", path, &error)
    })
}

/// [`replace`] with pretty JSON.
pub(crate) fn replace_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Report> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| {
        Report::bug("json", format!("cannot encode {}: {error}", path.display()))
    })?;
    text.push(b'\n');
    replace(path, &text)
}

/// Reads a bounded file; `None` when there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
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

/// What reading a JSON state file found.
#[derive(Debug)]
pub(crate) enum Found<T> {
    /// The document.
    Good(T),
    /// No file.
    Missing,
    /// A file that is not this document; the text says why.
    Corrupt(String),
}

/// Reads a JSON state file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Found<T> {
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
pub(crate) fn set_aside(path: &Path) -> Result<PathBuf, Report> {
    let target = beside(path, &format!(".corrupt-{}", crate::clock::unix_s()));
    fs::rename(path, &target).map_err(|error| io_report("set aside", path, &error))?;
    Ok(target)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

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
    fn full_disk_is_named_as_such() {
        let error = replace(Path::new("/dev/full/x"), b"").unwrap_err();
        assert_eq!(error.code, "file");
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(io_report("write", Path::new("/x"), &full).code, "disk-full");
    }
}
