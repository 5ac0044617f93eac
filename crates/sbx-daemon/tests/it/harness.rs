//! A daemon, its client, and sandboxes that exist on disk.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A home with a daemon on it.
pub(crate) struct Daemon {
    pub(crate) folder: tempfile::TempDir,
    child: Option<Child>,
}

/// What the daemon answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    /// The error's code, checked to have what every error has.
    pub(crate) fn code(&self) -> &str {
        assert!(self.status >= 400, "{self:?} is no error");
        assert!(
            self.body["message"].as_str().is_some_and(|m| !m.is_empty()),
            "{self:?}"
        );
        if self.body["blame"] != "bug" {
            assert!(
                self.body["try"].as_str().is_some_and(|m| !m.is_empty()),
                "{self:?}"
            );
        }
        self.body["code"].as_str().unwrap()
    }
}

pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_sbx-daemon"))
}

impl Daemon {
    /// A daemon on an empty home.
    pub(crate) fn start() -> Self {
        let mut daemon = Self::stopped();
        daemon.restart();
        daemon
    }

    /// A home without a daemon.
    pub(crate) fn stopped() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("sbxd")
            .tempdir_in("/tmp")
            .unwrap();
        std::fs::create_dir(folder.path().join("run")).unwrap();
        Self {
            folder,
            child: None,
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("home/state")
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// The one folder in the runtime folder.
    pub(crate) fn runtime(&self) -> PathBuf {
        let home = sbx_wire::home::Home::from_env(
            |name| match name {
                "SBX_HOME" => Some(self.path("home").into()),
                "XDG_RUNTIME_DIR" => Some(self.path("run").into()),
                _ => None,
            },
            0,
        );
        home.unwrap().runtime
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime().join("daemon.sock")
    }

    /// A command for this home.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
            .env("HOME", self.path("user"))
            .env("SBX_HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"));
        command
    }

    /// Starts a daemon (again) and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.restart_as(&program(), |command| command);
    }

    pub(crate) fn restart_as(
        &mut self,
        program: &Path,
        change: impl FnOnce(&mut Command) -> &mut Command,
    ) {
        self.kill();
        let mut command = self.command(program);
        command.arg("--foreground").stdout(Stdio::piped());
        let mut child = change(&mut command).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        self.child = Some(child);
        assert_eq!(line, "ready\n");
    }

    /// Kills the daemon without a warning.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Waits for the daemon to end by itself.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.child.take().unwrap().wait().unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &Value::Null)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, body)
    }

    pub(crate) fn request(&self, method: &str, path: &str, body: &Value) -> Answer {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let body = if method == "GET" {
            String::new()
        } else {
            body.to_string()
        };
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: sbx\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        // In one piece: a server that does not care about the body may close after the head.
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let text = if head.contains("chunked") {
            last_line(&unchunk(rest))
        } else {
            rest.to_owned()
        };
        let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text:?}"));
        Answer { status, body }
    }

    /// `policy init`.
    pub(crate) fn init(&self, preset: &str) {
        self.post(
            "/v1/policy/init",
            &json!({"preset": preset, "replace": false}),
        )
        .ok();
    }

    /// Writes a sandbox that does not run onto the disk. Takes effect when the daemon starts.
    pub(crate) fn plant(&self, id: &str, name: &str) -> PathBuf {
        let dir = self.state().join("sandboxes").join(id);
        std::fs::create_dir_all(&dir).unwrap();
        let record = json!({
            "schema": 1, "id": id, "name": name, "agent": "shell", "workspaces": [], "env": [],
            "cpus": 1, "memory_mib": 512, "accel_wanted": null, "accel": "tcg", "image": "base-0",
            "agent_command": ["bash", "-l"], "workdir": "/home/agent", "machine_id": "0".repeat(32),
            "placeholders": {"anthropic": "sk-ant-api03-placeholder-of-the-test"},
            "created_at": "2026-01-01T00:00:00Z", "last_used_at": null,
        });
        std::fs::write(dir.join("sandbox.json"), record.to_string()).unwrap();
        dir
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        // A detached one that a failed test left behind: the lock holds its process id.
        let pid = std::fs::read_to_string(self.state().join("daemon.lock")).unwrap_or_default();
        let pid: i32 = pid.trim().parse().unwrap_or_default();
        // Its `exe` link cannot be read: the daemon is not dumpable.
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if let Some(pid) = rustix::process::Pid::from_raw(pid)
            && name.trim() == "sbx-daemon"
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn unchunk(mut rest: &str) -> String {
    let mut out = String::new();
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        out.push_str(&tail[..size]);
        rest = tail[size..].trim_start_matches("\r\n");
    }
    out
}

fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().to_owned()
}
