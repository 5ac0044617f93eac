//! The kernel image: the ELF kernel inside a bzImage (Linux, Documentation/arch/x86/boot.rst).
//!
//! Under emulation the decompressor that runs in front of a bzImage costs 0.6 s to 0.7 s of the 2.7 s from
//! the start of QEMU to init (measured with 6.12), so it is done here, once.

use crate::ImageError;
use crate::elf::Elf;
use crate::run::{self, chroot};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A kernel larger than this is not one, bytes.
const MAX_BYTES: u64 = 256 << 20;

/// Writes the kernel of `bzimage` to `dir` in the form that starts fastest and returns the file's name.
/// The programs of the root file system `tree` unpack it; where that fails, the bzImage itself is used.
pub(crate) fn install(bzimage: &Path, tree: &Path, dir: &Path) -> Result<String, ImageError> {
    let bytes = read(bzimage)?;
    if let Some((program, payload)) = payload(&bytes) {
        let name = "vmlinux";
        let path = dir.join(name);
        if unpack(program, payload, tree, dir, &path)? {
            return Ok(name.to_owned());
        }
        fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
    }
    let name = "vmlinuz";
    let path = dir.join(name);
    fs::write(&path, &bytes).map_err(ImageError::io("write", &path))?;
    Ok(name.to_owned())
}

/// Unpacks into `path`; false when the result is no kernel with a PVH entry.
fn unpack(
    program: &str,
    payload: &[u8],
    tree: &Path,
    dir: &Path,
    path: &Path,
) -> Result<bool, ImageError> {
    let packed = dir.join("payload");
    fs::write(&packed, payload).map_err(ImageError::io("write", &packed))?;
    let input = File::open(&packed).map_err(ImageError::io("open", &packed))?;
    let out = File::create(path).map_err(ImageError::io("create", path))?;
    let mut command = chroot(tree, program);
    let status = command
        .arg("-dc")
        .stdin(input)
        .stdout(out)
        .stderr(Stdio::null())
        .status();
    fs::remove_file(&packed).map_err(ImageError::io("remove", &packed))?;
    if !status.is_ok_and(|status| status.success()) {
        return Ok(false);
    }
    Ok(Elf::parse(&read(path)?).is_some_and(|elf| elf.has_pvh_entry()))
}

/// The compressed kernel and the program that unpacks it. `None`: not a bzImage, or packed otherwise.
fn payload(bzimage: &[u8]) -> Option<(&'static str, &[u8])> {
    let word = |at: usize| {
        let bytes = *bzimage.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    // `payload_offset` and `payload_length` exist since protocol 2.08.
    let version = u16::from_le_bytes(*bzimage.get(0x206..)?.first_chunk()?);
    if bzimage.get(0x202..0x206)? != b"HdrS" || version < 0x0208 {
        return None;
    }
    let sectors = match *bzimage.get(0x1f1)? {
        0 => 4, // boot.rst, field setup_sects
        n => usize::from(n),
    };
    let start = ((sectors + 1) * 512).checked_add(word(0x248)?)?;
    let payload = bzimage.get(start..start.checked_add(word(0x24c)?)?)?;
    // All but gzip are followed by the unpacked size, 4 bytes that are not theirs.
    let inner = payload.get(..payload.len().checked_sub(4)?)?;
    if payload.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Some(("zstd", inner))
    } else if payload.starts_with(&[0xfd, b'7', b'z', b'X', b'Z']) {
        Some(("xz", inner))
    } else if payload.starts_with(&[0x1f, 0x8b]) {
        Some(("gzip", payload))
    } else {
        None
    }
}

/// Reads a kernel.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    let size = path.metadata().map_err(ImageError::io("read", path))?.len();
    if size > MAX_BYTES {
        return Err(ImageError::Unexpected {
            what: "the kernel is larger than any kernel",
            detail: format!("{size} bytes"),
        });
    }
    fs::read(path).map_err(ImageError::io("read", path))
}

/// The kernel's package in Debian, unpacked: where its files are.
pub(crate) struct Unpacked {
    /// Release.
    pub(crate) version: String,
    /// `boot/vmlinuz-…`.
    pub(crate) bzimage: PathBuf,
    /// `usr/lib/modules/<version>`.
    pub(crate) modules: PathBuf,
}

/// Downloads the kernel package that `meta` depends on, with the package lists of `tree`, and unpacks it
/// below `dir`. It is not installed: its maintainer scripts would build an initramfs of their own.
pub(crate) fn fetch(apt_config: &Path, meta: &str, dir: &Path) -> Result<Unpacked, ImageError> {
    fs::create_dir(dir).map_err(ImageError::io("create", dir))?;
    let deb = download(apt_config, meta, "linux-image-", dir)?;
    let tree = dir.join("tree");
    run::output(
        run::command("dpkg-deb").arg("-x").arg(&deb).arg(&tree),
        "unpacking the kernel",
    )?;
    let modules = only_entry(&tree.join("usr/lib/modules"))?;
    let version = modules
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| ImageError::Unexpected {
            what: "the kernel has no usable release name",
            detail: modules.display().to_string(),
        })?
        .to_owned();
    let bzimage = tree.join(format!("boot/vmlinuz-{version}"));
    Ok(Unpacked {
        version,
        bzimage,
        modules,
    })
}

/// Downloads the package that `meta` depends on and whose name begins with `prefix` into the empty folder `dir`.
pub(crate) fn download(
    apt_config: &Path,
    meta: &str,
    prefix: &str,
    dir: &Path,
) -> Result<PathBuf, ImageError> {
    let apt = |program: &str| {
        let mut command = run::command(program);
        command.env("APT_CONFIG", apt_config).current_dir(dir);
        command
    };
    let depends = run::output(
        apt("apt-cache").args(["depends", meta]),
        "looking for the kernel",
    )?;
    let package = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends:"))
        .map(str::trim)
        .find(|name| name.starts_with(prefix))
        .ok_or_else(|| ImageError::Unexpected {
            what: "the archive names no kernel",
            detail: meta.to_owned(),
        })?;
    run::output(
        apt("apt-get").args(["download", package]),
        "downloading the kernel",
    )?;
    only_entry(dir)
}

/// The one entry of a folder that must have exactly one.
fn only_entry(dir: &Path) -> Result<PathBuf, ImageError> {
    only_entry_with(dir, "")
}

/// The one entry of a folder with a name that ends in `suffix`; there must be exactly one.
pub(crate) fn only_entry_with(dir: &Path, suffix: &str) -> Result<PathBuf, ImageError> {
    let mut entries = fs::read_dir(dir)
        .map_err(ImageError::io("read", dir))?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(suffix));
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry.path()),
        _ => Err(ImageError::Unexpected {
            what: "a package does not have the one file that it should",
            detail: dir.display().to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x600];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&0x100_u32.to_le_bytes());
        let len = u32::try_from(payload.len()).unwrap();
        image[0x24c..0x250].copy_from_slice(&len.to_le_bytes());
        image.truncate(0x500);
        image.extend(payload);
        image
    }

    #[test]
    fn payload_is_found_and_loses_the_size_behind_it() {
        let image = bzimage(b"\x28\xb5\x2f\xfdbodySIZE");
        assert_eq!(
            payload(&image),
            Some(("zstd", &b"\x28\xb5\x2f\xfdbody"[..]))
        );
    }

    #[test]
    fn cut_or_foreign_image_gives_nothing() {
        let image = bzimage(b"\x28\xb5\x2f\xfdbodySIZE");
        for len in 0..image.len() {
            assert_eq!(payload(&image[..len]), None, "{len}");
        }
        assert_eq!(payload(&bzimage(b"unknown")), None);
        assert_eq!(payload(&vec![0; 4096]), None);
    }
}
