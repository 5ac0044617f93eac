//! The initial RAM file system: `/init` is the guest binary, `/modules/NN-name.ko` what it loads first.

use crate::elf::Elf;
use crate::{ImageError, recipe};
use cpio::newc::{Builder, trailer};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Rises with every change to the layout.
const LAYOUT: &[u8] = b"sbx initramfs 1";
/// A larger file does not belong into an initramfs, bytes.
const MAX_BYTES: u64 = 64 << 20;
/// Where they lie, below the cache folder.
pub(crate) const FOLDER: &str = "initramfs";
/// End of the name of a file that is being written.
pub(crate) const UNFINISHED: &str = ".tmp";
/// Mount points that the guest expects.
const FOLDERS: [&str; 4] = ["dev", "proc", "sys", "modules"];

/// Returns the initramfs (an uncompressed newc archive) of `guest_binary` with `modules`, in load order, from
/// `<cache>/initramfs/<hash>.cpio`, which it writes when it is not there yet. Takes a few milliseconds.
///
/// # Errors
/// [`ImageError::GuestBinary`] for a binary that needs a dynamic loader, [`ImageError::Io`] otherwise.
pub fn build_initramfs(
    guest_binary: &Path,
    modules: &[PathBuf],
    cache: &Path,
) -> Result<PathBuf, ImageError> {
    let files = parts(guest_binary, modules)?;
    let refuse = |detail| {
        Err(ImageError::GuestBinary {
            path: guest_binary.to_owned(),
            detail,
        })
    };
    match files.first().and_then(|(_, guest)| Elf::parse(guest)) {
        None => return refuse("it is no x86-64 ELF file"),
        Some(elf) if !elf.is_static() => return refuse("it asks for a dynamic loader"),
        Some(_) => {}
    }
    let (dir, path) = (cache.join(FOLDER), path(&files, cache));
    let archive = archive(&files).map_err(ImageError::io("build", &path))?;
    // Compared: a file that is not what its name says would be booted for good.
    if fs::read(&path).is_ok_and(|there| there == archive) {
        return Ok(path);
    }
    fs::create_dir_all(&dir).map_err(ImageError::io("create", &dir))?;
    write(&dir, &path, &archive).map_err(ImageError::io("write", &path))?;
    Ok(path)
}

/// Where [`build_initramfs`] writes, or has written, the initramfs of these parts.
///
/// # Errors
/// One of them cannot be read.
pub fn initramfs_path(
    guest_binary: &Path,
    modules: &[PathBuf],
    cache: &Path,
) -> Result<PathBuf, ImageError> {
    parts(guest_binary, modules).map(|files| path(&files, cache))
}

/// Its files, the guest binary first.
fn parts(guest_binary: &Path, modules: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>, ImageError> {
    let mut files = vec![("init".to_owned(), read(guest_binary)?)];
    for path in modules {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.push((format!("modules/{name}"), read(path)?));
    }
    Ok(files)
}

fn path(files: &[(String, Vec<u8>)], cache: &Path) -> PathBuf {
    cache.join(FOLDER).join(format!("{}.cpio", hash(files)))
}

/// Writes a file that is whole as soon as it has its name. Each writer has a temporary file of its own: several threads
/// and daemons may be here at once.
fn write(dir: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .suffix(UNFINISHED)
        .tempfile_in(dir)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn archive(files: &[(String, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut inode = 0;
    let mut add = |out: Vec<u8>, name: &str, mode: u32, content: &[u8]| -> io::Result<Vec<u8>> {
        inode += 1;
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut entry = Builder::new(name)
            .ino(inode)
            .nlink(1)
            .mode(mode)
            .write(out, size);
        entry.write_all(content)?;
        entry.finish()
    };
    for name in FOLDERS {
        out = add(out, name, 0o040_755, &[])?;
    }
    for (name, content) in files {
        let mode = if name == "init" { 0o100_755 } else { 0o100_644 };
        out = add(out, name, mode, content)?;
    }
    trailer(out)
}

fn hash(files: &[(String, Vec<u8>)]) -> String {
    let mut hash = Sha256::new();
    hash.update(LAYOUT);
    for (name, content) in files {
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(content.len().to_le_bytes());
        hash.update(content);
    }
    recipe::hex(&hash.finalize()[..16])
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    let size = path.metadata().map_err(ImageError::io("read", path))?.len();
    if size > MAX_BYTES {
        return Err(ImageError::Unexpected {
            what: "a file is too large for an initramfs",
            detail: format!("{}: {size} bytes", path.display()),
        });
    }
    fs::read(path).map_err(ImageError::io("read", path))
}
