//! Files and directories that are made on behalf of the sandbox, and made again at each boot: the upper
//! disk persists, so everything here leaves an unchanged file alone.

use rustix::fs::{Gid, Uid};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

/// Writes a file atomically, unless it has this content already: whenever the machine ends, the file is missing, as it
/// was, or whole. `owner` is user and group.
///
/// # Errors
/// Those of the file system, with the path.
pub fn write(path: &Path, content: &[u8], mode: u32, owner: u32) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return set_identity(path, mode, owner).map_err(|error| at(path, &error));
    }
    replace(path, content, mode, owner).map_err(|error| at(path, &error))
}

fn replace(path: &Path, content: &[u8], mode: u32, owner: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".sbx-new");
    let new = path.with_file_name(name);
    let _ = fs::remove_file(&new);
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        io::Write::write_all(&mut file, content)?;
        set_identity(&new, mode, owner)?;
        // Without this a machine that is killed soon may keep the new name and not the bytes: ext4 writes them first
        // only where the name replaces another. A file that is made once and then left alone would stay spoilt for good.
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().inspect_err(|_| {
        // A full disk needs the room.
        let _ = fs::remove_file(&new);
    })
}

fn set_identity(path: &Path, mode: u32, owner: u32) -> io::Result<()> {
    let now = fs::metadata(path)?;
    if (now.uid(), now.gid()) != (owner, owner) {
        chown(path, Some(owner), Some(owner))?;
    }
    if now.mode() & 0o7777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Adds the path to an error: the host reads nothing but the text.
pub fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Makes the missing directories of an absolute path. Each one is owned by `owner`, or (`None`) by whoever
/// owns the directory it is made in, so that scaffolds below a home belong to its user. Directories on the
/// way that other users cannot pass get the execute bit for them and nothing more: a workspace below
/// `/root` is reachable, its neighbours stay unlisted.
///
/// # Errors
/// Those of the file system, or the path is not a plain absolute one.
pub fn scaffold(path: &Path, owner: Option<u32>) -> io::Result<()> {
    let parts = plain_parts(path).ok_or_else(|| {
        at(
            path,
            &io::Error::new(
                io::ErrorKind::InvalidInput,
                "not an absolute path without `.` and `..`",
            ),
        )
    })?;
    let mut current = PathBuf::from("/");
    for (index, part) in parts.iter().enumerate() {
        let parent = fs::metadata(&current).map_err(|error| at(&current, &error))?;
        current.push(part);
        match fs::metadata(&current) {
            Ok(found) if !found.is_dir() => {
                return Err(at(&current, &io::ErrorKind::NotADirectory.into()));
            }
            Ok(found) => {
                let on_the_way = index + 1 < parts.len();
                if on_the_way && found.mode() & 0o001 == 0 {
                    let mode = (found.mode() & 0o7777) | 0o001;
                    fs::set_permissions(&current, fs::Permissions::from_mode(mode))
                        .map_err(|error| at(&current, &error))?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(
                    &current,
                    owner.unwrap_or(parent.uid()),
                    owner.unwrap_or(parent.gid()),
                )
                .map_err(|error| at(&current, &error))?;
            }
            Err(error) => return Err(at(&current, &error)),
        }
    }
    Ok(())
}

fn make(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    let me = (rustix::process::geteuid(), rustix::process::getegid());
    if me != (Uid::from_raw(uid), Gid::from_raw(gid)) {
        chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// The components of an absolute path without `.`, `..` or repeated slashes in its meaning.
fn plain_parts(path: &Path) -> Option<Vec<&std::ffi::OsStr>> {
    use std::path::Component;
    let mut parts = Vec::new();
    let mut components = path.components();
    if components.next() != Some(Component::RootDir) {
        return None;
    }
    for component in components {
        match component {
            Component::Normal(part) => parts.push(part),
            _ => return None,
        }
    }
    Some(parts)
}

/// Replaces the block between our two marker lines, or appends it; what others wrote stays.
/// `block` holds whole lines; an empty one removes the markers as well.
/// Others may write what is no UTF-8.
pub fn managed(old: &[u8], block: &str) -> Vec<u8> {
    const BEGIN: &str = "# sbx: begin (rewritten at each start)";
    const END: &str = "# sbx: end";
    let mut kept = Vec::with_capacity(old.len() + block.len() + 64);
    let mut inside = false;
    for line in old.split_inclusive(|byte| *byte == b'\n') {
        let text = line.trim_ascii_end();
        if text == BEGIN.as_bytes() {
            inside = true;
        } else if inside {
            inside = text != END.as_bytes();
        } else {
            kept.extend_from_slice(line);
        }
    }
    if kept.last().is_some_and(|last| *last != b'\n') {
        kept.push(b'\n');
    }
    if !block.is_empty() {
        let block = format!("{BEGIN}\n{}\n{END}\n", block.trim_end());
        kept.extend_from_slice(block.as_bytes());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn scaffolds_make_what_is_missing_and_open_the_way_without_a_view() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
        let target = root.join("a/b");
        scaffold(&target, None).unwrap();
        assert!(target.is_dir());
        assert_eq!((mode(&root), mode(&root.join("a"))), (0o701, 0o755));
        scaffold(&target, None).unwrap();
    }

    #[test]
    fn scaffolds_leave_the_last_directory_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("private");
        fs::create_dir(&target).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).unwrap();
        scaffold(&target, None).unwrap();
        assert_eq!(mode(&target), 0o700);
    }

    #[test]
    fn scaffolds_refuse_files_on_the_way_and_paths_that_are_not_plain() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(scaffold(&dir.path().join("file/x"), None).is_err());
        assert!(scaffold(&dir.path().join("x/../y"), None).is_err());
        assert!(scaffold(Path::new("relative"), None).is_err());
    }

    #[test]
    fn managed_block_is_replaced_not_repeated() {
        let mine = b"127.0.0.1 localhost # caf\xe9\n10.0.0.9 mine\n";
        let once = managed(mine, "10.0.0.1 gateway\n");
        let twice = managed(&once, "10.0.0.2 gateway\n");
        assert!(twice.starts_with(mine));
        let text = String::from_utf8_lossy(&twice);
        assert_eq!(text.matches("gateway").count(), 1);
        assert!(text.contains("10.0.0.2 gateway\n"));
        assert_eq!(managed(&twice, ""), mine);
        assert!(managed(b"no end", "block").starts_with(b"no end\n"));
    }

    #[test]
    fn written_files_have_their_mode_and_an_unchanged_one_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let me = rustix::process::geteuid().as_raw();
        if rustix::process::getegid().as_raw() != me {
            return; // owner and group are one number here
        }
        write(&path, b"one", 0o640, me).unwrap();
        let first = fs::metadata(&path).unwrap().ino();
        write(&path, b"one", 0o600, me).unwrap();
        assert_eq!(
            (fs::metadata(&path).unwrap().ino(), mode(&path)),
            (first, 0o600)
        );
        write(&path, b"two", 0o600, me).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let folder = dir.path().join("folder");
        fs::create_dir_all(folder.join("in it")).unwrap();
        assert!(write(&folder, b"three", 0o600, me).is_err());
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            2,
            "what was begun is gone"
        );
    }
}
