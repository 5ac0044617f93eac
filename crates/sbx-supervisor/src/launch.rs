//! Reading and checking the launch document.

use rustix::process::geteuid;
use sbx_wire::launch::{FILE, Launch, SCHEMA, sockets};
use sbx_wire::report::Report;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Largest launch document. It carries files for the guest, and one guest frame (1 MiB) must hold those.
pub const MAX_BYTES: u64 = 8 << 20;
/// Longest path of a Unix socket, without the final NUL (`unix(7)`).
const MAX_SOCKET_PATH: usize = 107;
/// Longest virtio-fs tag (VIRTIO 1.2, 5.11.4).
const MAX_TAG: usize = 36;

/// Why a sandbox cannot be started from its document. All but the first are the daemon's mistakes.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The document cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The document.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no launch document.
    #[error("{path}: {source}")]
    Parse {
        /// The document.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// It asks for something that cannot be.
    #[error("launch document: {0}")]
    Invalid(String),
}

impl From<LaunchError> for Report {
    fn from(error: LaunchError) -> Self {
        Self::environment(
            "launch-document",
            error.to_string(),
            "start the sandbox again; if that does not help, sbx rm it and create it anew",
        )
    }
}

/// Reads `launch.json` in `dir` (a canonical path) and checks it.
///
/// # Errors
/// See [`LaunchError`].
pub fn load(dir: &Path) -> Result<Launch, LaunchError> {
    let path = dir.join(FILE);
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| LaunchError::Read {
            path: path.clone(),
            source,
        })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(LaunchError::Invalid(format!(
            "larger than {MAX_BYTES} bytes"
        )));
    }
    let launch: Launch =
        serde_json::from_slice(&bytes).map_err(|source| LaunchError::Parse { path, source })?;
    check(&launch, dir).map_err(LaunchError::Invalid)?;
    Ok(launch)
}

fn check(launch: &Launch, dir: &Path) -> Result<(), String> {
    let machine = &launch.machine;
    if launch.schema != SCHEMA {
        return Err(format!(
            "schema {} where this version reads {SCHEMA}",
            launch.schema
        ));
    }
    if launch.id.len() != 12
        || !launch
            .id
            .bytes()
            .all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Err(format!("{:?} is no sandbox id", launch.id));
    }
    if launch.dir.canonicalize().ok().as_deref() != Some(dir) {
        return Err(format!(
            "it is for {} but lies in {}",
            launch.dir.display(),
            dir.display()
        ));
    }
    if !(1..=64).contains(&machine.cpus) {
        return Err(format!("{} CPUs, where 1 to 64 are possible", machine.cpus));
    }
    if machine.memory_mib < 512 {
        return Err(format!(
            "{} MiB of memory, where 512 are needed",
            machine.memory_mib
        ));
    }
    let programs = [
        &launch.programs.qemu,
        &launch.programs.gateway,
        &launch.programs.share,
    ];
    let inputs = [
        &machine.kernel,
        &machine.initramfs,
        &machine.upper,
        &machine.docker,
    ];
    let shared = machine.lowers.iter().chain(&machine.bases);
    for path in programs.into_iter().chain(inputs).chain(shared) {
        if !path.is_absolute() {
            return Err(format!("{} is not an absolute path", path.display()));
        }
        if !path.is_file() {
            return Err(format!("{} is not there", path.display()));
        }
    }
    check_shares(launch)?;
    check_runtime(&launch.runtime)
}

fn check_shares(launch: &Launch) -> Result<(), String> {
    let mut tags = BTreeSet::new();
    for share in &launch.shares {
        if share.tag.is_empty() || share.tag.len() > MAX_TAG || !tags.insert(&share.tag) {
            return Err(format!(
                "{:?} cannot be a share's tag, or is there twice",
                share.tag
            ));
        }
        if !share.host.is_absolute() || !share.host.is_dir() {
            return Err(format!("{} is not a directory", share.host.display()));
        }
    }
    Ok(())
}

fn check_runtime(runtime: &Path) -> Result<(), String> {
    let shown = runtime.display();
    let longest = runtime.join(sockets::SUPERVISOR).as_os_str().len();
    if !runtime.is_absolute() || longest > MAX_SOCKET_PATH {
        return Err(format!("{shown} is relative or too long for a socket"));
    }
    let found = std::fs::symlink_metadata(runtime).map_err(|error| format!("{shown}: {error}"))?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() || found.mode() & 0o077 != 0 {
        return Err(format!(
            "{shown} is not a directory of this user with mode 0700"
        ));
    }
    Ok(())
}
