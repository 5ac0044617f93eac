//! Asking a person whether a key may sign, by the program that `ssh-agent` uses for that as well (ssh-add(1), `SSH_ASKPASS`).

use crate::browser::has_screen;
use sbx_wire::ssh_agent::Purpose;
use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

const PROGRAM: &str = "ssh-askpass";
/// Time to answer.
const LIMIT: Duration = Duration::from_mins(1);
/// Between two questions: a program must not wear a person out.
const PAUSE: Duration = Duration::from_secs(1);

/// One question at a time, whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Questions(tokio::sync::Mutex<()>);

impl Questions {
    /// Asks.
    ///
    /// # Errors
    /// Why it may not, as a sentence.
    pub(super) async fn ask(
        &self,
        sandbox: &str,
        key: &str,
        purpose: &Purpose,
    ) -> Result<(), String> {
        let one = self.0.try_lock();
        let _one = one.map_err(|_| "another question is open on the host".to_owned())?;
        if !has_screen() {
            return Err("the key needs a person's consent, and the host has no screen".to_owned());
        }
        let program = std::env::var_os("SSH_ASKPASS").filter(|name| !name.is_empty());
        let program = program.unwrap_or_else(|| OsString::from(PROGRAM));
        let child = tokio::process::Command::new(&program)
            .arg(question(sandbox, key, purpose))
            .env("SSH_ASKPASS_PROMPT", "confirm")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(|error| {
            format!(
                "the key needs a person's consent, and {}: {error}",
                program.display()
            )
        })?;
        let answer = tokio::time::timeout(LIMIT, child.wait()).await;
        tokio::time::sleep(PAUSE).await;
        match answer {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(_)) => Err("a person on the host said no".to_owned()),
            Ok(Err(error)) => Err(format!("{}: {error}", program.display())),
            Err(_) => Err("nobody on the host answered in time".to_owned()),
        }
    }
}

/// Every part of it is printable and bounded: the sandbox's name, the key's comment, what the guest wants.
fn question(sandbox: &str, key: &str, purpose: &Purpose) -> String {
    let what = match purpose {
        Purpose::Message { namespace, .. } if namespace == "git" => {
            "a commit or tag of git".to_owned()
        }
        Purpose::Message { namespace, .. } => format!("a file, for {namespace:?}"),
        Purpose::Login { user, .. } => format!("a login as {user:?} on another machine"),
    };
    format!("Sandbox {sandbox} wants to sign {what} with the key {key}. Allow it?")
}
