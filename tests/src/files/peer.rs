//! A program on one side of a shared folder, which does what it is told.

use crate::Installation;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const PROGRAM: &str = include_str!("peer.py");
/// The host's own, not one that a version manager of the caller puts in front.
const HOST_PYTHON: &str = "/usr/bin/python3";

/// It ends when this is dropped.
#[derive(Debug)]
pub struct Peer {
    process: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Peer {
    /// In the primary workspace of a sandbox, as the agent, or as `root`.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn inside(installation: &Installation, sandbox: &str, user: &str) -> Result<Self, String> {
        let words = ["exec", "-i", "-u", user, sandbox, "python3", "-c", PROGRAM];
        Self::start(installation.command(words))
    }

    /// In a folder of the host, as the installation's user.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn outside(installation: &Installation, folder: &Path) -> Result<Self, String> {
        let mut command = installation.program(HOST_PYTHON, ["-c", PROGRAM]);
        command.current_dir(folder);
        Self::start(command)
    }

    fn start(mut command: Command) -> Result<Self, String> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let to = process.stdin.take();
        let from = BufReader::new(process.stdout.take().ok_or("no output")?);
        let mut this = Self { process, to, from };
        this.ask("1").map(|_| this)
    }

    /// The value of an expression of Python; the functions of `peer.py` can be used in it.
    ///
    /// # Errors
    /// What Python raised, or that the program has ended.
    pub fn ask(&mut self, expression: &str) -> Result<Value, String> {
        let said = |error: std::io::Error| format!("{error} while asking {expression:.200}");
        let to = self.to.as_mut().ok_or("it was ended")?;
        writeln!(to, "{}", Value::from(expression)).map_err(said)?;
        to.flush().map_err(said)?;
        let mut line = String::new();
        if self.from.read_line(&mut line).map_err(said)? == 0 {
            return Err(format!("it ended while asked {expression:.200}"));
        }
        let mut answer: Value =
            serde_json::from_str(&line).map_err(|e| format!("{e} in {line:.200}"))?;
        match answer.get("error") {
            None => Ok(answer["value"].take()),
            Some(error) => Err(format!("{error} from {expression:.200}")),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.to = None; // the end of its input is its end
        let _reaped = self.process.wait();
    }
}
