//! The roots that an image trusts by itself.

use crate::files;
use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where distributions keep their bundle: Debian and Alpine, Red Hat, SUSE, Alpine's other name.
const BUNDLES: [&str; 5] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/ca-bundle.pem",
    "etc/ssl/cert.pem",
];
/// A larger file is no bundle, bytes; Mozilla's roots are 220 KB.
const MAX_BUNDLE: u64 = 2 << 20;
/// Bundles of images with our roots in them. Images share a few.
const FOLDER: &str = "/run/sbx/bundles";
/// Most of them: they lie in memory. Further images get the machine's bundle.
const MAX_BUNDLES: usize = 64;

/// The bundle that a container finds: of what is mounted in it from the machine (where, what), or of its image below
/// `rootfs`. No link leads out of either.
pub(super) fn bundle(rootfs: &Path, binds: &[(PathBuf, PathBuf)]) -> Option<Vec<u8>> {
    let mounted = BUNDLES.iter().find_map(|path| {
        // What is mounted last is on top.
        let (source, rest) = binds.iter().rev().find_map(|(destination, source)| {
            let inside = Path::new("/").join(path);
            let rest = inside.strip_prefix(destination).ok()?;
            Some((source, rest.to_owned()))
        })?;
        if rest.as_os_str().is_empty() {
            read(rustix::fs::CWD, source, ResolveFlags::empty())
        } else {
            below(source, &rest)
        }
    });
    mounted.or_else(|| {
        let mut all = BUNDLES.iter();
        all.find_map(|path| below(rootfs, Path::new(path)))
    })
}

/// The bundle at a path whose links stay below `root`.
fn below(root: &Path, path: &Path) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
    let root = rustix::fs::open(root, flags, Mode::empty()).ok()?;
    read(root, path, ResolveFlags::IN_ROOT)
}

fn read(root: impl AsFd, path: &Path, inside: ResolveFlags) -> Option<Vec<u8>> {
    // A pipe in its place does not hold us up, and a device is not read.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let inside = inside | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&root, path, flags, Mode::empty(), inside).ok()?;
    let file = fs::File::from(file);
    let size = file.metadata().ok().filter(fs::Metadata::is_file)?.len();
    if size > MAX_BUNDLE {
        return None;
    }
    // Text around the certificates may be in any encoding.
    let mut bundle = Vec::new();
    file.take(MAX_BUNDLE).read_to_end(&mut bundle).ok()?;
    String::from_utf8_lossy(&bundle)
        .contains("-----BEGIN CERTIFICATE-----")
        .then_some(bundle)
}

/// A file that holds `own` and `ours`.
pub(super) fn merged(own: &[u8], ours: &[u8]) -> io::Result<PathBuf> {
    merged_in(Path::new(FOLDER), own, ours)
}

fn merged_in(folder: &Path, own: &[u8], ours: &[u8]) -> io::Result<PathBuf> {
    let text = [own.trim_ascii_end(), b"\n", ours.trim_ascii_end(), b"\n"].concat();
    let mut hash = DefaultHasher::new();
    text.hash(&mut hash);
    let path = folder.join(format!("{:016x}.pem", hash.finish()));
    match fs::read(&path) {
        Ok(old) if old == text => return Ok(path),
        // Two images with one hash: the one that came first keeps the file.
        Ok(_) => return Err(files::at(&path, &io::ErrorKind::AlreadyExists.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(files::at(&path, &error)),
    }
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    if fs::read_dir(folder)?.count() >= MAX_BUNDLES {
        return Err(io::Error::other(format!(
            "{MAX_BUNDLES} bundles are kept already"
        )));
    }
    // Another container of the same image may be made at this moment.
    let new = folder.join(format!(".{}", std::process::id()));
    fs::write(&new, text)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
    fs::rename(&new, &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const ROOT: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn bundle_is_found_through_links_that_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(bundle(dir.path(), &[]), None);
        let real = dir.path().join("etc/pki/ca-trust/extracted/pem");
        fs::create_dir_all(&real).unwrap();
        fs::create_dir_all(dir.path().join("etc/ssl/certs")).unwrap();
        let link = dir.path().join("etc/ssl/certs/ca-certificates.crt");
        symlink("/etc/pki/ca-trust/extracted/pem/real.pem", &link).unwrap();
        fs::write(real.join("real.pem"), ROOT).unwrap();
        assert_eq!(bundle(dir.path(), &[]).as_deref(), Some(ROOT.as_bytes()));
    }

    #[test]
    fn bundle_with_a_name_in_another_encoding_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("rootfs/etc/ssl/certs");
        fs::create_dir_all(&folder).unwrap();
        let own = [b"# Certificaci\xf3n \xe9\n", ROOT.as_bytes()].concat();
        fs::write(folder.join("ca-certificates.crt"), &own).unwrap();
        let found = bundle(&dir.path().join("rootfs"), &[]).unwrap();
        assert_eq!(found, own);
        let merged = merged_in(&dir.path().join("bundles"), &found, b"ours").unwrap();
        assert_eq!(fs::read(merged).unwrap(), [&own[..], b"ours\n"].concat());
    }

    #[test]
    fn bundle_that_is_mounted_in_the_container_goes_above_that_of_its_image() {
        let dir = tempfile::tempdir().unwrap();
        let (rootfs, own) = (dir.path().join("rootfs"), dir.path().join("own"));
        for (folder, name, text) in [
            (
                &rootfs.join("etc/ssl/certs"),
                "ca-certificates.crt",
                "image",
            ),
            (&own, "corporate.pem", "file"),
            (&own.join("certs"), "ca-certificates.crt", "folder"),
        ] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join(name), format!("{text} {ROOT}")).unwrap();
        }
        let found = |binds: &[(&str, &str)]| {
            let binds: Vec<_> = binds
                .iter()
                .map(|(to, from)| (PathBuf::from(to), own.join(from)))
                .collect();
            let found = String::from_utf8(bundle(&rootfs, &binds).unwrap()).unwrap();
            found.split(' ').next().unwrap().to_owned()
        };
        let file = ("/etc/ssl/certs/ca-certificates.crt", "corporate.pem");
        let folder = ("/etc/ssl/certs", "certs");
        assert_eq!(found(&[]), "image");
        assert_eq!(found(&[("/data", "certs"), file]), "file");
        assert_eq!(found(&[folder]), "folder");
        assert_eq!(found(&[folder, file]), "file", "the last one is on top");
        assert_eq!(found(&[("/etc/ssl/cert.pem", "corporate.pem")]), "file");
        assert_eq!(found(&[("/etc/ssl/certs", "nothing")]), "image");
    }

    #[test]
    fn links_out_of_the_image_pipes_and_other_files_are_no_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside.pem");
        fs::write(&outside, ROOT).unwrap();
        let rootfs = dir.path().join("rootfs");
        fs::create_dir_all(rootfs.join("etc/ssl/certs")).unwrap();
        let at = rootfs.join("etc/ssl/certs/ca-certificates.crt");
        symlink(&outside, &at).unwrap();
        assert_eq!(bundle(&rootfs, &[]), None);
        fs::remove_file(&at).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &at,
            rustix::fs::FileType::Fifo,
            0o644.into(),
            0,
        )
        .unwrap();
        assert_eq!(bundle(&rootfs, &[]), None);
        fs::remove_file(&at).unwrap();
        fs::write(&at, "no certificates").unwrap();
        assert_eq!(bundle(&rootfs, &[]), None);
        let large = format!("{ROOT}{}", " ".repeat(2 << 20));
        fs::write(&at, large).unwrap();
        assert_eq!(bundle(&rootfs, &[]), None);
    }

    #[test]
    fn images_with_the_same_bundle_share_a_file_and_there_is_an_end_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("bundles");
        let first = merged_in(&folder, b"own\n\n", b"ours").unwrap();
        assert_eq!(fs::read_to_string(&first).unwrap(), "own\nours\n");
        assert_eq!(merged_in(&folder, b"own", b"ours").unwrap(), first);
        for number in 1..MAX_BUNDLES {
            merged_in(&folder, number.to_string().as_bytes(), b"ours").unwrap();
        }
        assert!(merged_in(&folder, b"one more", b"ours").is_err());
        assert_eq!(merged_in(&folder, b"own", b"ours").unwrap(), first);
    }
}
