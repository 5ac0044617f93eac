//! Peer `srt`: Anthropic's sandbox runtime, which starts a program under bubblewrap behind a proxy.

use crate::tool::{need, output, seconds};
use std::path::{Path, PathBuf};

const PACKAGE: &str = "@anthropic-ai/sandbox-runtime";

/// An installed srt.
#[derive(Debug)]
pub(crate) struct Srt {
    program: PathBuf,
}

impl Srt {
    /// Installs it below `folder` unless it is there.
    pub(crate) fn prepare(folder: &Path) -> Result<Self, String> {
        need("bwrap", &["bubblewrap"])?;
        need("socat", &["socat"])?;
        need("rg", &["ripgrep"])?;
        let program = folder.join("node_modules/.bin/srt");
        if !program.exists() {
            let prefix = folder.display().to_string();
            let words = [
                "install",
                "--no-audit",
                "--no-fund",
                "--prefix",
                &prefix,
                PACKAGE,
            ];
            output("npm", &words)?;
        }
        Ok(Self { program })
    }

    /// Seconds from nothing until a program in it has ended.
    pub(crate) fn run(&self) -> Result<f64, String> {
        seconds(&self.program.display().to_string(), &["true"])
    }
}
