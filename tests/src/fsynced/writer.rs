//! A program on one side of the workspace that writes, and says what is safe.

use crate::Installation;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const PROGRAM: &str = include_str!("writer.py");
/// The host's own, not one that a version manager of the caller puts in front.
const HOST_PYTHON: &str = "/usr/bin/python3";
/// Longest until it says something: a cold start under emulation on busy cores.
const PATIENCE: Duration = Duration::from_mins(4);

/// Dropped, its input ends.
#[derive(Debug)]
pub(super) struct Writer {
    process: Child,
    to: Option<ChildStdin>,
    said: Receiver<String>,
}

impl Writer {
    /// In the workspace of a sandbox, which is started if it does not run.
    pub(super) fn inside(installation: &Installation, sandbox: &str) -> Result<Self, String> {
        let words = [
            "exec", "-i", sandbox, "python3", "-c", PROGRAM, "guest", "git",
        ];
        Self::start(installation.command(words))
    }

    /// In the workspace's folder on the host.
    pub(super) fn outside(installation: &Installation, folder: &Path) -> Result<Self, String> {
        let mut command = installation.program(HOST_PYTHON, ["-c", PROGRAM, "host"]);
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
        let (saying, said) = channel();
        // Ends with the output; what was said stays in the channel.
        std::thread::spawn(move || {
            for line in from.lines().map_while(Result::ok) {
                let _nobody_asks = saying.send(line);
            }
        });
        Ok(Self { process, to, said })
    }

    /// The next line that it says.
    pub(super) fn next(&mut self) -> Result<String, String> {
        self.said.recv_timeout(PATIENCE).map_err(|error| {
            let what = match error {
                RecvTimeoutError::Timeout => "says nothing",
                RecvTimeoutError::Disconnected => "ended",
            };
            format!("a writer {what} ({:?})", self.process.try_wait())
        })
    }

    /// What it sees before it begins.
    pub(super) fn seen(&mut self) -> Result<String, String> {
        let line = self.next()?;
        let digest = line.strip_prefix("seen ");
        digest.map(str::to_owned).ok_or(line.clone())
    }

    /// Has it begin.
    pub(super) fn go(&mut self) -> Result<(), String> {
        let to = self.to.as_mut().ok_or("it was ended")?;
        to.write_all(b"go\n").map_err(|e| e.to_string())
    }

    /// What it has said since it was last asked.
    pub(super) fn so_far(&mut self) -> Vec<String> {
        self.said.try_iter().collect()
    }

    /// Ends its input and waits for it; the rest of what it said, and whether it ended well.
    pub(super) fn finish(mut self) -> Result<(Vec<String>, bool), String> {
        self.to = None;
        let deadline = Instant::now() + PATIENCE;
        let mut rest = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(line) => rest.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return Err("a writer does not end".to_owned()),
            }
        }
        let status = self.process.wait().map_err(|e| e.to_string())?;
        Ok((rest, status.success()))
    }
}
