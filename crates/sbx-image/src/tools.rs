//! The programs that a build needs, and where they are.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A program and the Debian package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// Program.
    pub program: &'static str,
    /// Debian package.
    pub package: &'static str,
}

/// What every build needs, grouped by package.
pub(crate) const BASE: &[Tool] = &[
    Tool {
        program: "mmdebstrap",
        package: "mmdebstrap",
    },
    Tool {
        program: "mkfs.erofs",
        package: "erofs-utils",
    },
    Tool {
        program: "mke2fs",
        package: "e2fsprogs",
    },
    Tool {
        program: "unshare",
        package: "util-linux",
    },
    Tool {
        program: "setpriv",
        package: "util-linux",
    },
    Tool {
        program: "apt-get",
        package: "apt",
    },
    Tool {
        program: "dpkg-deb",
        package: "dpkg",
    },
    KEYRING,
];

/// Not a program, but missed in the same way.
pub(crate) const KEYRING: Tool = Tool {
    program: "the keys of the Debian archive",
    package: "debian-archive-keyring",
};

/// What an ordinary user needs on top.
pub(crate) const USER: &[Tool] = &[Tool {
    program: "newuidmap",
    package: "uidmap",
}];

/// Folders with system programs that an ordinary user's `PATH` often lacks.
const SYSTEM: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// The search path for the host's programs: the caller's, then the system's folders.
pub(crate) fn search_path() -> OsString {
    let own = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&own)
        .filter(|dir| dir.is_absolute())
        .chain(SYSTEM.iter().map(PathBuf::from));
    // Folders that came out of a PATH contain no separator, so joining cannot fail.
    env::join_paths(dirs).unwrap_or(own)
}

/// Where `program` is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&search_path())
        .map(|dir| dir.join(program))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
