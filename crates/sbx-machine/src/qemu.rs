//! Finding QEMU and asking it for its version.

use sbx_wire::report::Report;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::process::Command;

/// Oldest version that is known to work: older ones have no `-netdev stream`.
pub const OLDEST: Version = Version {
    major: 7,
    minor: 2,
    micro: 0,
};

/// Time for `--version`.
const LIMIT: Duration = Duration::from_secs(10);

/// A QEMU version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u16,
    /// Second number.
    pub minor: u16,
    /// Third number.
    pub micro: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

impl Version {
    /// Reads the first line of `qemu-system-x86_64 --version`.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("QEMU emulator version ")?;
        let number = rest
            .split(|c: char| !(c.is_ascii_digit() || c == '.'))
            .next()?;
        let mut parts = number.split('.').map(|part| part.parse().ok());
        Some(Self {
            major: parts.next()??,
            minor: parts.next()??,
            micro: parts.next().flatten().unwrap_or(0),
        })
    }
}

/// Why QEMU cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// Not installed.
    #[error("{0} was not found")]
    Missing(String),
    /// There, but does not run.
    #[error("{program} does not run: {source}")]
    Run {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its answer makes no sense to us.
    #[error("{program} --version answered {answer:?}")]
    Answer {
        /// The program.
        program: PathBuf,
        /// First line, shortened.
        answer: String,
    },
    /// Too old.
    #[error("QEMU {found} is too old, at least {OLDEST} is needed")]
    Old {
        /// What is installed.
        found: Version,
    },
}

impl From<QemuError> for Report {
    fn from(error: QemuError) -> Self {
        let code = match error {
            QemuError::Missing(_) => "qemu-missing",
            QemuError::Run { .. } | QemuError::Answer { .. } => "qemu-broken",
            QemuError::Old { .. } => "qemu-too-old",
        };
        Self::environment(
            code,
            error.to_string(),
            "install QEMU (Debian, Ubuntu: apt install qemu-system-x86 qemu-utils)",
        )
    }
}

/// Looks `name` up in `path` (the value of `PATH`).
///
/// # Errors
/// [`QemuError::Missing`] when no folder holds it.
pub fn find(name: &str, path: &std::ffi::OsStr) -> Result<PathBuf, QemuError> {
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|candidate| {
            candidate.is_file()
                && rustix::fs::access(candidate, rustix::fs::Access::EXEC_OK).is_ok()
        })
        .ok_or_else(|| QemuError::Missing(name.to_owned()))
}

/// Asks the program for its version and refuses one that is too old. Asked once per process for as long as the
/// program's file does not change: an answer takes some 20 ms.
///
/// # Errors
/// See [`QemuError`].
pub async fn version(program: &Path) -> Result<Version, QemuError> {
    static KNOWN: Mutex<Vec<(Identity, Version)>> = Mutex::new(Vec::new());
    let identity = Identity::of(program);
    let known = |identity: &Identity| {
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(i, _)| i == identity).map(|(_, v)| *v)
    };
    if let Some(version) = identity.as_ref().and_then(known) {
        return Ok(version);
    }
    let version = ask(program).await?;
    if let Some(identity) = identity {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(other, _)| other.program != identity.program);
        known.push((identity, version));
    }
    Ok(version)
}

/// What a program's file is told from another by.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    program: PathBuf,
    inode: (u64, u64),
    modified: (i64, i64),
    length: u64,
}

impl Identity {
    fn of(program: &Path) -> Option<Self> {
        let found = std::fs::metadata(program).ok()?;
        Some(Self {
            program: program.to_owned(),
            inode: (found.dev(), found.ino()),
            modified: (found.mtime(), found.mtime_nsec()),
            length: found.len(),
        })
    }
}

async fn ask(program: &Path) -> Result<Version, QemuError> {
    let run = |source| match source {
        source if io::Error::kind(&source) == io::ErrorKind::NotFound => {
            QemuError::Missing(program.display().to_string())
        }
        source => QemuError::Run {
            program: program.to_owned(),
            source,
        },
    };
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, output)
        .await
        .map_err(|_| run(io::ErrorKind::TimedOut.into()))?
        .map_err(run)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = Version::parse(&text).ok_or_else(|| QemuError::Answer {
        program: program.to_owned(),
        answer: text.chars().take(80).collect(),
    })?;
    if found < OLDEST {
        Err(QemuError::Old { found })
    } else {
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_distributions_are_read() {
        let debian = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)\nCopyright";
        assert_eq!(
            Version::parse(debian),
            Some(Version {
                major: 10,
                minor: 0,
                micro: 2
            })
        );
        assert_eq!(
            Version::parse("QEMU emulator version 7.2.22 (x)"),
            Some(Version {
                major: 7,
                minor: 2,
                micro: 22
            })
        );
        assert_eq!(
            Version::parse("QEMU emulator version 8.2\n"),
            Some(Version {
                major: 8,
                minor: 2,
                micro: 0
            })
        );
        assert_eq!(Version::parse("qemu-img version 1"), None);
    }

    #[tokio::test]
    async fn missing_program_is_an_environment_error_with_a_next_step() {
        let error = version(Path::new("/nonexistent/qemu")).await.unwrap_err();
        let report = Report::from(error);
        assert_eq!(report.code, "qemu-missing");
        assert!(report.hint.is_some());
    }
}
