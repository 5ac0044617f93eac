//! A home of its own for each test, with the daemon that the first command starts.

use sbx_wire::home::Home;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// Standard output of a command that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// The JSON on standard output.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// Asserts a clear refusal: exit code 1, one `error:` line that contains `text`, one `try:` line, and
    /// nothing on standard output.
    #[track_caller]
    pub(crate) fn refused(self, text: &str) {
        assert_eq!(self.code, 1, "{self:?}");
        let lines: Vec<&str> = self.stderr.lines().collect();
        let error = lines
            .iter()
            .find(|line| line.starts_with("error: "))
            .unwrap_or(&"");
        assert!(error.contains(text), "{text:?} is not in {self:?}");
        assert!(
            lines
                .iter()
                .any(|line| line.trim_start().starts_with("try: ")),
            "{self:?}"
        );
        assert_eq!(self.stdout, "", "data on a refused command");
    }
}

/// A home.
pub(crate) struct World {
    pub(crate) root: tempfile::TempDir,
    /// Folders that `PATH` consists of; the system's own unless a test says otherwise.
    pub(crate) path: String,
    /// `XDG_RUNTIME_DIR`; none unless a test says otherwise.
    pub(crate) runtime: Option<PathBuf>,
}

impl World {
    pub(crate) fn new() -> Self {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
        Self {
            root: tempfile::tempdir().unwrap(),
            path,
            runtime: None,
        }
    }

    /// With the policy initialised.
    pub(crate) fn with_policy() -> Self {
        let world = Self::new();
        world.sbx(&["policy", "init", "deny-all"]).ok();
        world
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    /// Its folders, as the command finds them.
    pub(crate) fn folders(&self) -> Home {
        let lookup = |name: &str| match name {
            "SBX_HOME" => Some(self.home().into()),
            "XDG_RUNTIME_DIR" => self.runtime.clone().map(Into::into),
            _ => None,
        };
        Home::from_env(lookup, rustix::process::geteuid().as_raw()).unwrap()
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.root.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sbx"));
        command.args(arguments).current_dir(self.root.path());
        command
            .env_clear()
            .env("SBX_HOME", self.home())
            .env("HOME", self.root.path());
        command.env("PATH", &self.path);
        if let Some(runtime) = &self.runtime {
            command.env("XDG_RUNTIME_DIR", runtime);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn sbx(&self, arguments: &[&str]) -> Done {
        finish(self.command(arguments).spawn().unwrap())
    }

    pub(crate) fn sbx_with_input(&self, arguments: &[&str], input: &str) -> Done {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        finish(child)
    }

    /// A PATH in which everything is found but the programs whose name begins with `missing`.
    pub(crate) fn path_without(&self, missing: &str) -> String {
        let bin = self.folder("bin");
        for folder in ["/usr/sbin", "/usr/bin", "/sbin", "/bin"] {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if !name.to_string_lossy().starts_with(missing) {
                    // The same program stands in several of these folders.
                    let _already_there = std::os::unix::fs::symlink(entry.path(), bin.join(name));
                }
            }
        }
        bin.display().to_string()
    }

    /// Puts a sandbox that never ran onto the disk. The next daemon finds it.
    pub(crate) fn plant(&self, name: &str) {
        let dir = self.home().join("state/sandboxes/00000000000a");
        std::fs::create_dir_all(&dir).unwrap();
        let record = serde_json::json!({
            "schema": 1, "id": "00000000000a", "name": name, "agent": "shell", "workspaces": [],
            "env": [], "cpus": 1, "memory_mib": 512, "accel_wanted": null, "accel": "tcg",
            "image": "base-0", "agent_command": ["bash", "-l"], "workdir": "/home/agent",
            "machine_id": "0".repeat(32), "placeholders": {}, "created_at": "2026-01-01T00:00:00Z",
            "last_used_at": null,
        });
        std::fs::write(dir.join("sandbox.json"), record.to_string()).unwrap();
    }

    /// Names of the sandboxes' directories on disk: what a refused command must leave empty.
    pub(crate) fn sandbox_dirs(&self) -> Vec<PathBuf> {
        list(&self.home().join("state/sandboxes"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.sbx(&["daemon", "stop"]);
    }
}

pub(crate) fn finish(child: std::process::Child) -> Done {
    done(child.wait_with_output().unwrap())
}

pub(crate) fn done(output: std::process::Output) -> Done {
    Done {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn list(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}
