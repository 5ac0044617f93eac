//! Runs what gives a value.

use crate::recipe::{Origin, Recipe, region};
use rustix::process::{Pid, Signal, kill_process_group};
use sbx_wire::secret::SecretText;
use serde::de::IgnoredAny;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// Time for a value. Signing in to a password manager takes some seconds.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Longest value, bytes.
const MAX_VALUE: usize = 64 << 10;
/// Kept of what is written to standard error, bytes.
const MAX_ERROR: usize = 4096;

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A sentence that the guest may read.
    pub sentence: String,
    /// What was written to standard error, for the user alone.
    pub error_output: String,
}

impl Failure {
    /// One with nothing but its sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            error_output: String::new(),
        }
    }
}

/// Fetches the value: standard output without the white space around it.
///
/// # Errors
/// What gives it cannot be started, fails, takes longer than `limit`, or says too much or nothing.
pub async fn fetch(recipe: &Recipe, limit: Duration) -> Result<SecretText, Failure> {
    let name = recipe.origin.name();
    let folder = tempfile::Builder::new().prefix("sbx-secret-").tempdir();
    let folder =
        folder.map_err(|error| Failure::new(format!("{name}: no temporary folder: {error}")))?;
    let mut child = command(&recipe.origin, folder.path())
        .spawn()
        .map_err(|error| Failure::new(format!("{name}: cannot be started: {error}")))?;
    let leader = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let outcome = tokio::time::timeout(limit, run(&mut child)).await;
    let Ok(Some(output)) = outcome else {
        // The group is there: else its output would have ended.
        if let Some(leader) = leader {
            let _gone = kill_process_group(leader, Signal::KILL);
        }
        return Err(Failure::new(match outcome {
            Err(_) => format!("{name}: no value within {} s", limit.as_secs()),
            Ok(_) => format!("{name}: more than 64 KiB came"),
        }));
    };
    let failed = |sentence: String| Failure {
        sentence,
        error_output: output.error.clone(),
    };
    let status = output
        .status
        .ok_or_else(|| failed(format!("{name}: its end is not known")))?;
    if !status.success() {
        return Err(failed(format!("{name}: failed ({status})")));
    }
    let value = one_line(output.value.expose().trim());
    let value = value.expose();
    let in_header = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if value.is_empty() || !in_header {
        return Err(failed(format!(
            "{name}: what came is empty or cannot stand in a header"
        )));
    }
    Ok(SecretText::new(value.to_owned()))
}

/// JSON that was written over several lines on one: between its parts line ends mean nothing, and inside of them there are
/// none.
fn one_line(value: &str) -> SecretText {
    let is_json = || serde_json::from_str::<IgnoredAny>(value).is_ok();
    if value.starts_with('{') && is_json() {
        return SecretText::new(value.replace(['\n', '\r', '\t'], " "));
    }
    SecretText::new(value.to_owned())
}

struct Output {
    value: SecretText,
    error: String,
    status: Option<ExitStatus>,
}

fn command(origin: &Origin, folder: &Path) -> Command {
    let mut command = match origin {
        Origin::Command(line) => {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", line]);
            command
        }
        Origin::OnePassword { reference, account } => {
            let mut command = Command::new("op");
            command.args(["read", "--no-newline", reference]);
            if let Some(account) = account {
                command.env("OP_ACCOUNT", account);
            }
            command
        }
        Origin::AwsSecretsManager { arn, profile } => {
            let mut command = Command::new("aws");
            command.args(["secretsmanager", "get-secret-value", "--secret-id", arn]);
            command.args(["--query", "SecretString", "--output", "text"]);
            command.args(["--region", region(arn).unwrap_or_default()]);
            if let Some(profile) = profile {
                command.env("AWS_PROFILE", profile);
            }
            command
        }
    };
    command
        .current_dir(folder)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Everything that comes until the program and its output have ended; `None` if it is too much.
async fn run(child: &mut Child) -> Option<Output> {
    let (out, error) = (child.stdout.take()?, child.stderr.take()?);
    let value = async {
        let mut bytes = Vec::with_capacity(MAX_VALUE + 1);
        let mut bounded = out.take(MAX_VALUE as u64 + 1);
        let _ended = bounded.read_to_end(&mut bytes).await;
        // What is no text is no value.
        (bytes.len() <= MAX_VALUE)
            .then(|| SecretText::new(String::from_utf8(bytes).unwrap_or_default()))
    };
    let beside = async {
        let (error, status) = tokio::join!(beginning(error), child.wait());
        (error, status.ok())
    };
    let (value, (error, status)) = tokio::try_join!(async { value.await.ok_or(()) }, async {
        Ok::<_, ()>(beside.await)
    })
    .ok()?;
    Some(Output {
        value,
        error,
        status,
    })
}

/// Reads everything and keeps the beginning, without what would reach into a terminal.
async fn beginning(mut from: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut piece = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        let room = MAX_ERROR - kept.len();
        kept.extend_from_slice(&piece[..count.min(room)]);
    }
    let text = String::from_utf8_lossy(&kept);
    let clean = text
        .chars()
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c });
    clean.collect::<String>().trim().to_owned()
}
