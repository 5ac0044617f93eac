//! What is mounted, as the kernel lists it (`proc_pid_mounts(5)`). Names in it are bytes: one that is not UTF-8 hides no
//! other.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted: a device, or the tag of a share.
    pub source: OsString,
    /// Where.
    pub point: PathBuf,
    /// The file system's type, such as `virtiofs`.
    pub kind: OsString,
}

/// All that is mounted, the oldest first. Empty when the kernel does not say.
pub fn all() -> Vec<Mount> {
    listed(&fs::read("/proc/self/mounts").unwrap_or_default())
}

/// Where something of this kind is mounted.
pub fn of_kind(kind: &str) -> Vec<PathBuf> {
    let of_kind = all().into_iter().filter(|mount| mount.kind == kind);
    of_kind.map(|mount| mount.point).collect()
}

/// What is on top of a mount point.
pub fn on_top(point: &Path) -> Option<Mount> {
    all().into_iter().rev().find(|mount| mount.point == point)
}

fn listed(mounts: &[u8]) -> Vec<Mount> {
    let mounts = mounts.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').map(unescape);
        Some(Mount {
            source: fields.next()?,
            point: fields.next()?.into(),
            kind: fields.next()?,
        })
    });
    mounts.collect()
}

/// Undoes the octal escapes of space, tab, line end and backslash.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let escaped = (*byte == b'\\').then(|| octal(after)).flatten();
        out.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() {
            &after[3..]
        } else {
            after
        };
    }
    OsString::from_vec(out)
}

/// The byte that three octal digits at the beginning name.
fn octal(text: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(text.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn mount_points_with_spaces_and_backslashes_are_read_back() {
        assert_eq!(unescape(br"/tmp/a\040b\134c"), r"/tmp/a b\c");
        assert_eq!(unescape(br"/plain"), "/plain");
        assert_eq!(unescape(br"/odd\9"), r"/odd\9");
        assert_eq!(unescape(br"/odd\777"), r"/odd\777");
    }

    #[test]
    fn a_mount_point_that_is_not_text_hides_no_other() {
        let mounts = b"share0 /w/a\\040b virtiofs rw 0 0\ntmpfs /w/\xff tmpfs rw 0 0\n\nshare1 /x virtiofs ro 0 0\n";
        let found = listed(mounts);
        let points: Vec<&Path> = found.iter().map(|mount| mount.point.as_path()).collect();
        let odd = Path::new(OsStr::from_bytes(b"/w/\xff"));
        assert_eq!(points, [Path::new("/w/a b"), odd, Path::new("/x")]);
        assert_eq!(found[2].source, "share1");
        assert_eq!(found[2].kind, "virtiofs");
    }
}
