//! A project folder for the agent, with something beside it that must stay out of reach.

use crate::Installation;
use std::path::{Path, PathBuf};

/// A project and its surroundings.
#[derive(Debug, Clone)]
pub struct Project {
    /// The workspace.
    pub path: PathBuf,
    /// A file outside it, on the host.
    pub outside: PathBuf,
    /// What the file outside holds.
    pub outside_text: String,
}

impl Project {
    /// Makes a project named `name` with one file, a file beside it, and a link that points out.
    ///
    /// # Errors
    /// Why it could not be made.
    pub fn new(installation: &Installation, name: &str) -> Result<Self, String> {
        let path = installation.folder(name)?;
        let outside = path.with_file_name(format!("{name}-private.txt"));
        let outside_text = format!("private notes beside {name}");
        installation.write(&outside, outside_text.as_bytes())?;
        installation.write(&path.join("README.md"), b"# A project\n")?;
        let link = path.join("link-out");
        if !link.is_symlink() {
            std::os::unix::fs::symlink(&outside, &link).map_err(|e| e.to_string())?;
        }
        Ok(Self {
            path,
            outside,
            outside_text,
        })
    }

    /// Content of a file in the project, as the host sees it.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read(&self, name: impl AsRef<Path>) -> Result<String, String> {
        let path = self.path.join(name);
        std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
    }
}
