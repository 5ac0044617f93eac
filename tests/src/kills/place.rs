//! An installation whose daemon runs below a tracer.

use super::api::{self, Answer};
use super::role::{Part, Role};
use super::tracer::{Tracer, signal};
use super::traces::{Files, Traces};
use crate::Installation;
use rustix::process::Signal;
use sbx_wire::home::Home;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Time for a daemon to answer.
const READY: Duration = Duration::from_secs(30);
/// Time for a daemon that was told to end.
const FAREWELL: Duration = Duration::from_secs(15);
/// Time for a snapshot to be made.
const SNAPSHOT: Duration = Duration::from_mins(4);
/// Parts of a cache that images consist of.
const IMAGES: [&str; 3] = ["images", "initramfs", "accel.json"];
/// Name of the sandbox that everything is about.
pub(super) const NAME: &str = "box";

/// What plays the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// QEMU at `-S`, and a stand-in for its guest.
    Held,
    /// QEMU with a guest.
    Running,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) installation: Installation,
    pub(super) home: Home,
    pub(super) tracer: Tracer,
    pub(super) machine: Machine,
    root: tempfile::TempDir,
    /// Variables of the daemon.
    environment: Vec<(&'static str, OsString)>,
    /// Its process id.
    daemon: Option<i32>,
    /// The last value that was set: whether new sandboxes begin from snapshots.
    warm: Option<bool>,
    /// What is there when there is no sandbox.
    pub(super) empty: Files,
}

impl Place {
    /// A place with the images that lie in `cache`, which has no sandbox, and in which one was made and removed before.
    pub(super) fn new(cache: &Path, machine: Machine) -> Result<Self, String> {
        let root = tempfile::Builder::new()
            .prefix("sbx-kills-")
            .tempdir_in("/var/tmp");
        let root = root.map_err(|error| error.to_string())?;
        let own = root.path().join("cache");
        link(&cache.join("sbx"), &own.join("sbx"), &IMAGES)?;
        let mut installation = Installation::new(root.path(), &own, None)?;
        if machine == Machine::Held {
            let bin = root.path().join("bin");
            fs::create_dir(&bin).map_err(|error| error.to_string())?;
            let stand_in = installation.built("sbx-held-machine");
            symlink(stand_in, bin.join("qemu-system-x86_64")).map_err(|error| error.to_string())?;
            installation.find_first(&bin);
        }
        let environment = installation.environment();
        let uid = rustix::process::getuid().as_raw();
        let lookup = |name: &str| {
            let mut known = environment.iter().filter(|(other, _)| *other == name);
            known.next().map(|(_, value)| value.clone())
        };
        let home = Home::from_env(lookup, uid).map_err(|error| error.to_string())?;
        let mut place = Self {
            home,
            tracer: Tracer::start().map_err(|error| format!("cannot trace: {error}"))?,
            installation,
            machine,
            root,
            environment,
            daemon: None,
            warm: None,
            empty: Files::default(),
        };
        place.settle_in()?;
        Ok(place)
    }

    /// Makes and removes a sandbox, so that what is made once is there.
    fn settle_in(&mut self) -> Result<(), String> {
        fs::create_dir(self.workspace()).map_err(|error| error.to_string())?;
        self.fresh_daemon()?;
        let preset = json!({"preset": "deny-all", "replace": false});
        self.ask("POST", "/v1/policy/init", &preset).done()?;
        self.set("machine.kernel", "stock")?;
        self.begin_warm(true)?;
        self.create().done()?;
        let warm = self.await_snapshot()?;
        if !warm {
            return Err(format!("no snapshot was made: {}", self.snapshots()?));
        }
        self.remove().done()?;
        self.fresh_daemon()?;
        link(&self.home.cache, &self.kept(), &["snapshots"])?;
        self.empty = Files::of(&self.home).map_err(|error| error.to_string())?;
        Ok(())
    }

    /// The folder that the sandbox works in.
    pub(super) fn workspace(&self) -> PathBuf {
        self.root.path().join("work")
    }

    pub(super) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(super) fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        api::request(&self.home.daemon_socket(), method, path, body)
    }

    fn set(&self, key: &str, value: &str) -> Result<(), String> {
        let setting = json!({"key": key, "value": value});
        self.ask("POST", "/v1/settings", &setting).done().map(drop)
    }

    /// Whether sandboxes that are made from now on begin from snapshots.
    pub(super) fn begin_warm(&mut self, warm: bool) -> Result<(), String> {
        if self.warm != Some(warm) {
            self.warm = None;
            self.set("sandbox.warmStart", if warm { "true" } else { "false" })?;
            self.warm = Some(warm);
        }
        Ok(())
    }

    /// Makes the sandbox: with a workspace, and a rule of its own.
    pub(super) fn create(&self) -> Answer {
        let (memory, cpus) = match self.machine {
            Machine::Held => (512, 1),
            Machine::Running => (1024, 2),
        };
        let request = json!({
            "name": NAME, "agent": "shell", "cpus": cpus, "memory_mib": memory, "env": [],
            "workspaces": [{"path": self.workspace(), "read_only": false}],
            "deny_network": ["denied.example"],
            "accel": if self.machine == Machine::Held { json!("tcg") } else { Value::Null },
        });
        self.ask("POST", "/v1/sandboxes", &request)
    }

    pub(super) fn start(&self) -> Answer {
        self.ask("POST", &format!("/v1/sandboxes/{NAME}/start"), &json!({}))
    }

    pub(super) fn stop(&self) -> Answer {
        self.ask("POST", &format!("/v1/sandboxes/{NAME}/stop"), &Value::Null)
    }

    pub(super) fn remove(&self) -> Answer {
        let path = format!("/v1/sandboxes/{NAME}?force=true");
        self.ask("DELETE", &path, &Value::Null)
    }

    /// The sandboxes as the daemon shows them.
    pub(super) fn list(&self) -> Result<Vec<Value>, String> {
        let answer = self.ask("GET", "/v1/sandboxes", &Value::Null).done()?;
        let list = answer["sandboxes"].as_array();
        list.cloned()
            .ok_or_else(|| format!("no list of sandboxes: {answer}"))
    }

    /// Keys of the snapshots that are there.
    fn snapshots(&self) -> Result<Value, String> {
        let mut status = self.ask("GET", "/v1/status", &Value::Null).done()?;
        Ok(status["snapshots"].take())
    }

    /// Waits until none is being made. True: there is one.
    pub(super) fn await_snapshot(&self) -> Result<bool, String> {
        let deadline = Instant::now() + SNAPSHOT;
        loop {
            let snapshots = self.snapshots()?;
            if snapshots["pending"] == json!([]) {
                return Ok(snapshots["ready"] != json!([]));
            }
            if Instant::now() > deadline {
                return Err(format!("a snapshot takes too long: {snapshots}"));
            }
            pause();
        }
    }

    /// Puts the snapshot back that was made first, if it was given up: a restored machine that is killed counts as one that
    /// does not start.
    pub(super) fn put_snapshot_back(&self) -> Result<(), String> {
        if self.snapshots()?["ready"] != json!([]) {
            return Ok(());
        }
        self.forget_snapshots()?;
        link(&self.kept(), &self.home.cache, &["snapshots"])
    }

    fn kept(&self) -> PathBuf {
        self.root.path().join("kept")
    }

    /// Removes all snapshots.
    pub(super) fn forget_snapshots(&self) -> Result<(), String> {
        let forget = || -> std::io::Result<()> {
            for entry in fs::read_dir(self.home.cache.join("snapshots"))? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                }
            }
            Ok(())
        };
        forget().map_err(|error| format!("snapshots: {error}"))
    }

    /// Ends the daemon in order if it runs, and starts another one.
    pub(super) fn fresh_daemon(&mut self) -> Result<(), String> {
        self.end_daemon()?;
        let mut command = Command::new(self.installation.built("sbx-daemon"));
        command.arg("--foreground").env_clear().current_dir("/");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let spawned = self.tracer.spawn(command);
        let (pid, out) = spawned.map_err(|error| format!("no daemon: {error}"))?;
        self.daemon = Some(pid);
        let (ready, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            if let Some(out) = out {
                let _read = BufReader::new(out).read_line(&mut line);
            }
            let _heard = ready.send(line);
        });
        match told.recv_timeout(READY) {
            Ok(line) if line.trim() == "ready" => Ok(()),
            Ok(line) => Err(format!("the daemon does not start: {line:?}")),
            Err(_) => Err("the daemon does not get ready".to_owned()),
        }
    }

    fn end_daemon(&mut self) -> Result<(), String> {
        let Some(pid) = self.daemon.take() else {
            return Ok(());
        };
        signal(pid, Signal::TERM);
        if self.tracer.await_end(pid, FAREWELL) {
            return Ok(());
        }
        signal(pid, Signal::KILL);
        Err("the daemon does not end when it is told to".to_owned())
    }

    /// Kills one process of this role, if there is one.
    pub(super) fn kill(&self, role: Role, snapshot: bool) -> Option<String> {
        let snapshot = snapshot && role != Role::Daemon;
        let pid = *self.tracer.processes(Part { role, snapshot }).first()?;
        signal(pid, Signal::KILL);
        Some(format!("process {pid}"))
    }

    /// What is there that should not be, when there is no sandbox.
    pub(super) fn traces(&self) -> Traces {
        Traces::look(self, self.daemon.unwrap_or_default())
    }
}

/// Between two looks at something that is about to change.
pub(super) fn pause() {
    std::thread::park_timeout(Duration::from_millis(5));
}

/// Gives `to` parts of the cache `from` as hard links: files in there are replaced, never changed.
fn link(from: &Path, to: &Path, parts: &[&str]) -> Result<(), String> {
    fs::create_dir_all(to).map_err(|error| error.to_string())?;
    for name in parts {
        let from = from.join(name);
        if !from.exists() {
            continue;
        }
        let done = Command::new("cp").arg("-al").arg(&from).arg(to).status();
        if !done.is_ok_and(|status| status.success()) {
            let to = to.display();
            return Err(format!("cannot link {} to {to}", from.display()));
        }
    }
    Ok(())
}
