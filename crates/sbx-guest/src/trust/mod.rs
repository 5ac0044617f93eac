//! The roots that programs of this machine trust: those of the image and those of the sandbox.
//!
//! Everything is in place before the first program starts. The Docker Engine reads the system's roots once
//! in its life, so it is started after this.

mod jks;

use crate::files::{self, at, managed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbx_wire::trust::{BUNDLE, JAVA_STORE, ROOT_HASH};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

/// The sandbox's roots, where `update-ca-certificates` takes them from when it rebuilds the bundle.
pub(crate) const ROOTS: &str = "/usr/local/share/ca-certificates/sbx.crt";
/// The same, for programs that look into the folder of the bundle.
const LINK: &str = "/etc/ssl/certs/sbx.pem";
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Adds the sandbox's roots to those of the image, in place of those of an earlier time.
///
/// # Errors
/// Those of the file system, with the path.
pub(crate) fn install(pem: &str) -> io::Result<()> {
    if pem.trim().is_empty() {
        return Ok(());
    }
    let bundle = Path::new(BUNDLE);
    if is_installed(pem) {
        return Ok(());
    }
    for path in [Path::new(ROOTS), bundle] {
        if let Some(parent) = path.parent() {
            files::scaffold(parent, Some(0))?;
        }
    }
    files::write(Path::new(ROOTS), pem.as_bytes(), 0o644, 0)?;
    // The names that `update-ca-certificates` would give it. OpenSSL finds roots in a folder by such a hash.
    link(ROOTS, Path::new(LINK))?;
    link(
        "sbx.pem",
        &Path::new(LINK).with_file_name(format!("{ROOT_HASH}.0")),
    )?;
    // Text around the certificates may be in any encoding.
    let old = match fs::read(bundle) {
        Ok(old) => old,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(at(bundle, &error)),
    };
    let new = merged(&old, pem);
    if let Some(new) = &new {
        files::write(bundle, new, 0o644, 0)?;
    }
    let store = Path::new(JAVA_STORE);
    if let Some(parent) = store.parent() {
        files::scaffold(parent, Some(0))?;
    }
    let roots = certificates(new.as_deref().unwrap_or(&old));
    files::write(store, &jks::store(&roots), 0o644, 0)
}

/// Whether an earlier call did all of it, and nobody has touched it since: making the key store takes a while.
fn is_installed(pem: &str) -> bool {
    let changed = |path: &str| fs::metadata(path).and_then(|found| found.modified()).ok();
    fs::read(ROOTS).is_ok_and(|roots| roots == pem.as_bytes())
        && fs::read_link(LINK).is_ok_and(|target| target == Path::new(ROOTS))
        && fs::read(BUNDLE).is_ok_and(|bundle| holds(&bundle, pem))
        && matches!((changed(JAVA_STORE), changed(BUNDLE)), (Some(store), Some(bundle)) if store >= bundle)
}

/// The bundle with `pem` in it; `None` when it is in there already, put by us or by a rebuild.
fn merged(old: &[u8], pem: &str) -> Option<Vec<u8>> {
    (!holds(old, pem)).then(|| managed(old, pem))
}

/// Whether `pem`, which is ASCII, stands in a bundle.
fn holds(bundle: &[u8], pem: &str) -> bool {
    String::from_utf8_lossy(bundle).contains(pem.trim())
}

fn link(target: &str, path: &Path) -> io::Result<()> {
    if fs::read_link(path).is_ok_and(|old| old == Path::new(target)) {
        return Ok(());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(path, &error)),
        _ => {}
    }
    symlink(target, path).map_err(|error| at(path, &error))
}

/// The certificates of a bundle (RFC 7468, section 5) as DER. What cannot be decoded is left out, as OpenSSL
/// does.
fn certificates(bundle: &[u8]) -> Vec<Vec<u8>> {
    let pem = String::from_utf8_lossy(bundle);
    let blocks = pem.split(BEGIN).skip(1);
    blocks
        .filter_map(|block| {
            let text: Vec<u8> = block
                .split_once(END)?
                .0
                .bytes()
                .filter(|byte| !byte.is_ascii_whitespace())
                .collect();
            STANDARD.decode(text).ok().filter(|der| !der.is_empty())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const OURS: &str = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n";
    const NEXT: &str = "-----BEGIN CERTIFICATE-----\nCCCC\n-----END CERTIFICATE-----\n";

    #[test]
    fn our_root_is_added_once_and_replaced_by_the_next_one() {
        let text = |bundle: &[u8]| String::from_utf8(bundle.to_vec()).unwrap();
        let first = merged(ROOT.as_bytes(), OURS).unwrap();
        assert!(text(&first).starts_with(ROOT) && text(&first).contains(OURS));
        assert_eq!(merged(&first, OURS), None);
        let second = text(&merged(&first, NEXT).unwrap());
        assert!(second.starts_with(ROOT) && second.contains(NEXT) && !second.contains(OURS));
    }

    #[test]
    fn a_bundle_rebuilt_with_our_root_is_left_alone() {
        assert_eq!(merged(format!("{ROOT}{OURS}").as_bytes(), OURS), None);
    }

    #[test]
    fn names_in_another_encoding_beside_the_certificates_stay_as_they_are() {
        let old = [b"# Autoridad de Certificaci\xf3n, \xe9\n", ROOT.as_bytes()].concat();
        let new = merged(&old, OURS).unwrap();
        assert!(new.starts_with(&old) && holds(&new, OURS));
        assert_eq!(merged(&new, OURS), None);
        assert_eq!(certificates(&new).len(), 2);
    }

    #[test]
    fn certificates_are_decoded_and_broken_ones_left_out() {
        let text =
            format!("text\n{ROOT}{BEGIN}\n?\n{END}\n{BEGIN}\nAA\r\nAA\r\n{END}\n{BEGIN}\nAAAA");
        assert_eq!(certificates(text.as_bytes()), [[0, 0, 0], [0, 0, 0]]);
    }
}
