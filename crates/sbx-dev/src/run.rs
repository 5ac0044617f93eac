//! Running other programs, with failures that say what was run.

use std::process::Command;

/// Why a task failed, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }
}

/// Outcome of a task.
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

/// Runs cargo.
pub(crate) fn cargo(arguments: &[&str]) -> Result {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    program(&cargo, arguments)
}

/// Runs a program to its end with our terminal.
pub(crate) fn program(name: &str, arguments: &[&str]) -> Result {
    finish(
        Command::new(name).args(arguments),
        &format!("{name} {}", arguments.join(" ")),
    )
}

/// Runs a prepared command to its end.
pub(crate) fn finish(command: &mut Command, shown: &str) -> Result {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure {
            message: format!("`{shown}` ended with {status}"),
            hint: None,
        }),
        Err(error) => Err(Failure {
            message: format!("cannot run `{shown}`: {error}"),
            hint: None,
        }),
    }
}

/// Where a program is, looked up as a shell would; the administrator's folders count too.
pub(crate) fn which(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(Into::into))
        .collect();
    folders
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}
