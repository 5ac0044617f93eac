//! What is mounted, as the kernel lists it (`proc_pid_mounts(5)`).

use std::fs;
use std::path::PathBuf;

/// Where something of this kind is mounted.
pub fn of_kind(kind: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    listed(&mounts, kind)
}

fn listed(mounts: &str, kind: &str) -> Vec<PathBuf> {
    let points = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, found) = (fields.next()?, fields.next()?);
        (found == kind).then(|| PathBuf::from(unescape(point)))
    });
    points.collect()
}

/// Undoes the octal escapes of space, tab, line end and backslash.
pub fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, escape)) = rest.split_once('\\') {
        out.push_str(before);
        let code = escape
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &escape[3..];
            }
            None => {
                out.push('\\');
                rest = escape;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_spaces_and_backslashes_are_read_back() {
        assert_eq!(unescape(r"/tmp/a\040b\134c"), r"/tmp/a b\c");
        assert_eq!(unescape(r"/plain"), "/plain");
        assert_eq!(unescape(r"/odd\9"), r"/odd\9");
        let mounts = "share0 /w/a\\040b virtiofs rw 0 0\n/dev/vda /w ext4 rw 0 0\n\nshare1 /x virtiofs ro 0 0\n";
        assert_eq!(
            listed(mounts, "virtiofs"),
            [PathBuf::from("/w/a b"), PathBuf::from("/x")]
        );
    }
}
