//! Where state, cache, configuration and sockets live.
//!
//! `SBX_HOME` relocates everything below one folder (`state/`, `cache/`, `config/`); otherwise the XDG base
//! directories are used, each with `sbx` below. Sockets live in a short runtime folder, because a socket's
//! path is limited to 108 bytes (`unix(7)`): `$XDG_RUNTIME_DIR/sbx-<tag>` or `/tmp/sbx-<uid>-<tag>`, where
//! the tag is derived from the state folder, so that two homes never share a daemon.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Why no home can be determined.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Neither `SBX_HOME` nor `HOME` is set.
    #[error("neither SBX_HOME nor HOME is set")]
    NoHome,
    /// A folder variable holds a relative path (the XDG specification says to ignore it; we say so).
    #[error("{0} must be an absolute path, not {1:?}")]
    Relative(&'static str, PathBuf),
}

/// The folders of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Sandboxes, store, secrets, logs.
    pub state: PathBuf,
    /// Images and probe verdicts: can be deleted.
    pub cache: PathBuf,
    /// What the user may edit.
    pub config: PathBuf,
    /// Sockets.
    pub runtime: PathBuf,
}

impl Home {
    /// Reads the folders from environment variables (`lookup`) for the user `uid`.
    ///
    /// # Errors
    /// [`HomeError`] when no folder can be determined.
    pub fn from_env(
        lookup: impl Fn(&str) -> Option<OsString>,
        uid: u32,
    ) -> Result<Self, HomeError> {
        let path = |name: &'static str| -> Result<Option<PathBuf>, HomeError> {
            match lookup(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
            {
                Some(path) if path.is_relative() => Err(HomeError::Relative(name, path)),
                other => Ok(other),
            }
        };
        let (state, cache, config) = if let Some(root) = path("SBX_HOME")? {
            (root.join("state"), root.join("cache"), root.join("config"))
        } else {
            let home = path("HOME")?;
            let xdg = |name: &'static str, below: &str| -> Result<PathBuf, HomeError> {
                let base = match path(name)? {
                    Some(base) => base,
                    None => home.as_ref().ok_or(HomeError::NoHome)?.join(below),
                };
                Ok(base.join("sbx"))
            };
            (
                xdg("XDG_STATE_HOME", ".local/state")?,
                xdg("XDG_CACHE_HOME", ".cache")?,
                xdg("XDG_CONFIG_HOME", ".config")?,
            )
        };
        let tag = tag(&state);
        let runtime = match path("XDG_RUNTIME_DIR")? {
            Some(base) if base.as_os_str().len() <= 40 && base.is_dir() => {
                base.join(format!("sbx-{tag}"))
            }
            _ => PathBuf::from(format!("/tmp/sbx-{uid}-{tag}")),
        };
        Ok(Self {
            state,
            cache,
            config,
            runtime,
        })
    }

    /// The daemon's socket.
    pub fn daemon_socket(&self) -> PathBuf {
        self.runtime.join("daemon.sock")
    }

    /// The daemon's log.
    pub fn daemon_log(&self) -> PathBuf {
        self.state.join("daemon.log")
    }

    /// Held by the one daemon of this home.
    pub fn daemon_lock(&self) -> PathBuf {
        self.state.join("daemon.lock")
    }

    /// All sandboxes' directories.
    pub fn sandboxes(&self) -> PathBuf {
        self.state.join("sandboxes")
    }

    /// Directory of one sandbox.
    pub fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.sandboxes().join(id)
    }

    /// Runtime directory (sockets) of one sandbox.
    pub fn sandbox_runtime(&self, id: &str) -> PathBuf {
        self.runtime.join(id)
    }
}

/// Eight hex digits of a path: FNV-1a, 64 bit, folded. Not a security measure: the runtime folder's owner and
/// mode are checked by whoever makes it, and whoever connects to a socket in it looks at who listens.
fn tag(path: &Path) -> String {
    let hash = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(vars: &[(&str, &str)]) -> Result<Home, HomeError> {
        let vars: Vec<(String, OsString)> = vars
            .iter()
            .map(|(k, v)| ((*k).to_owned(), OsString::from(v)))
            .collect();
        Home::from_env(
            |name| vars.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()),
            1000,
        )
    }

    #[test]
    fn sbx_home_relocates_everything_and_two_homes_share_no_socket() {
        let a = home(&[("SBX_HOME", "/a"), ("HOME", "/home/u")]).unwrap();
        let b = home(&[("SBX_HOME", "/b"), ("HOME", "/home/u")]).unwrap();
        assert_eq!(a.state, Path::new("/a/state"));
        assert_eq!(a.config, Path::new("/a/config"));
        assert_ne!(a.runtime, b.runtime);
    }

    #[test]
    fn socket_paths_stay_below_the_limit_however_long_the_home_is() {
        let long = format!("/{}", "x".repeat(900));
        let home = home(&[("SBX_HOME", &long)]).unwrap();
        let longest = home.sandbox_runtime("0123456789ab").join("supervisor.sock");
        assert!(longest.as_os_str().len() < 100, "{}", longest.display());
    }

    #[test]
    fn xdg_folders_are_used_and_relative_ones_refused() {
        let home_dir = home(&[("HOME", "/home/u"), ("XDG_CACHE_HOME", "/c")]).unwrap();
        assert_eq!(home_dir.cache, Path::new("/c/sbx"));
        assert_eq!(home_dir.state, Path::new("/home/u/.local/state/sbx"));
        assert!(home(&[("SBX_HOME", "x")]).is_err());
        assert!(home(&[]).is_err());
    }
}
