//! What a command did.

use serde_json::Value;
use std::process::Output;
use std::time::Duration;

/// Exit code, output and duration of a command.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command as typed.
    pub command: String,
    /// Exit code; -1 when killed by a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Wall time.
    pub took: Duration,
}

impl Outcome {
    pub(crate) fn new(command: String, output: &Output, took: Duration) -> Self {
        Self {
            command,
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took,
        }
    }

    /// Whether the exit code is 0.
    pub fn ok(&self) -> bool {
        self.code == 0
    }

    /// Standard output, when the command succeeded.
    ///
    /// # Errors
    /// Everything that is known about the failed command.
    pub fn success(self) -> Result<String, String> {
        if self.ok() {
            Ok(self.stdout)
        } else {
            Err(self.to_string())
        }
    }

    /// Standard output as JSON, when the command succeeded.
    ///
    /// # Errors
    /// As [`Outcome::success`], or why the text is not JSON.
    pub fn json(self) -> Result<Value, String> {
        let command = self.command.clone();
        serde_json::from_str(&self.success()?).map_err(|error| format!("{command}: {error}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` exit code {} after {:.1} s\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.code,
            self.took.as_secs_f64(),
            self.stdout,
            self.stderr
        )
    }
}
