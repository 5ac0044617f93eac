//! One sandbox as the daemon knows it: its record, what its supervisor last said, and who is busy with it.

use crate::files::{Found, read_json};
use crate::gateway_link::Link;
use crate::host;
use crate::record::Record;
use sbx_wire::api;
use sbx_wire::guest::DockerState;
use sbx_wire::home::Home;
use sbx_wire::launch::{self, Origin, files, sockets};
use sbx_wire::report::Report;
use sbx_wire::session::{Phase, Sessions, Status, Stay};
use sbx_wire::time::rfc3339;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, UNIX_EPOCH};
use tokio::sync::watch;

/// Longest reason that is read from `last-exit`, bytes.
const MAX_REASON: u64 = 4096;

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Live {
    /// No supervisor. The text says why the last run ended, where that is worth saying.
    Stopped(Option<String>),
    /// A supervisor that has not said anything yet.
    Silent,
    /// What the supervisor last said, and when.
    Up(Box<Status>, Instant),
}

/// What there is to know about sessions when nobody says.
const NO_SESSIONS: Sessions = Sessions {
    agent: false,
    attached: 0,
    stay: Stay::Unsettled,
};

/// Why a sandbox cannot be started: its document is not readable by this version. Its files are left as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// What is wrong, one line.
    pub(crate) reason: String,
    /// Whether a newer version of sbx can read it.
    pub(crate) newer: bool,
    /// The agent as the document names it; this version may not know it.
    pub(crate) agent: String,
    /// Its real name is not known or is another's, so neither are its rules: nothing may leave it.
    pub(crate) nameless: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Disks and logs.
    pub(crate) dir: PathBuf,
    /// Sockets.
    pub(crate) runtime: PathBuf,
    /// Held by whoever starts, stops or removes it.
    pub(crate) gate: tokio::sync::Mutex<()>,
    /// What runs.
    pub(crate) live: watch::Sender<Live>,
    /// What its supervisor last said about sessions. Means something while it is up.
    pub(crate) sessions: watch::Sender<Sessions>,
    /// The way to its gateway.
    pub(crate) gateway: Link,
    /// `Some`: it can be stopped and removed, and nothing else. Its record is what could be made out.
    pub(crate) damage: Option<Damage>,
    record: Mutex<Record>,
}

impl Sandbox {
    /// A sandbox that does not run, as far as is known yet.
    pub(crate) fn new(home: &Home, record: Record) -> Self {
        let dir = home.sandbox_dir(&record.id);
        Self {
            id: record.id.clone(),
            name: record.name.as_str().to_owned(),
            runtime: home.sandbox_runtime(&record.id),
            live: watch::Sender::new(Live::Stopped(last_exit(&dir))),
            sessions: watch::Sender::new(NO_SESSIONS),
            dir,
            gate: tokio::sync::Mutex::new(()),
            gateway: Link::default(),
            damage: None,
            record: Mutex::new(record),
        }
    }

    /// A sandbox whose document cannot be used. It may run all the same. `record`: what could be made out.
    pub(crate) fn damaged(home: &Home, record: Record, damage: Damage) -> Self {
        Self {
            damage: Some(damage),
            ..Self::new(home, record)
        }
    }

    /// Fails for a damaged one.
    pub(crate) fn intact(&self) -> Result<(), Report> {
        let Some(damage) = &self.damage else {
            return Ok(());
        };
        Err(Report::environment(
            "sandbox-damaged",
            format!("sandbox '{}' is damaged: {}", self.name, damage.reason),
            if damage.newer {
                "use that version of sbx; nothing of the sandbox was changed"
            } else {
                "sbx diagnose says what can be done; its files are in the folder that sbx inspect names"
            },
        ))
    }

    /// A copy of the record.
    pub(crate) fn record(&self) -> Record {
        self.record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces the record.
    pub(crate) fn set_record(&self, record: Record) {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
    }

    /// Changes the record in one step, so that no other change is lost; unless `change` fails.
    pub(crate) fn change_record<T>(
        &self,
        change: impl FnOnce(&mut Record) -> Result<T, Report>,
    ) -> Result<T, Report> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = record.clone();
        let outcome = change(&mut changed)?;
        *record = changed;
        Ok(outcome)
    }

    /// What runs now.
    pub(crate) fn live(&self) -> Live {
        self.live.borrow().clone()
    }

    /// Whether programs can be started in it now.
    pub(crate) fn is_running(&self) -> bool {
        matches!(&*self.live.borrow(), Live::Up(status, _) if status.phase == Phase::Running)
    }

    /// What would end with it now.
    pub(crate) fn what_runs(&self) -> api::Stopped {
        match &*self.live.borrow() {
            Live::Up(status, _) => {
                let more = *self.sessions.borrow();
                api::Stopped {
                    sessions: status.sessions,
                    agent_running: more.agent,
                    attached: more.attached,
                    removed: false,
                }
            }
            _ => api::Stopped::default(),
        }
    }

    /// Forgets what an earlier supervisor said.
    pub(crate) fn forget_sessions(&self) {
        self.sessions.send_replace(NO_SESSIONS);
    }

    /// Where its supervisor listens.
    pub(crate) fn supervisor_socket(&self) -> PathBuf {
        self.runtime.join(sockets::SUPERVISOR)
    }

    /// Makes the folder for its sockets.
    pub(crate) fn make_runtime(&self, home: &Home) -> Result<(), Report> {
        host::sandbox_runtime(home, &self.id).map(drop)
    }

    /// As it is shown. `secrets`: services whose secret is injected.
    pub(crate) fn show(&self, secrets: Vec<String>) -> api::Sandbox {
        let record = self.record();
        let live = self.live();
        let (status, status_reason) = self.describe(&live);
        let runs = self.what_runs();
        let (kept_by, stops_at) = stay(self.sessions.borrow().stay);
        let (up, age_s) = match &live {
            Live::Up(status, said) => (Some(status.as_ref()), said.elapsed().as_secs()),
            _ => (None, 0),
        };
        api::Sandbox {
            name: self.name.clone(),
            id: self.id.clone(),
            agent: self.damage.as_ref().map_or_else(
                || record.agent.name.to_owned(),
                |damage| damage.agent.clone(),
            ),
            status: status.to_owned(),
            status_reason,
            socket_path: up.map(|_| self.supervisor_socket()),
            workspaces: record.workspaces,
            created_at: record.created_at,
            last_used_at: record.last_used_at,
            stopped_at: stopped_at(&self.dir).filter(|_| matches!(live, Live::Stopped(_))),
            cpus: record.cpus,
            memory_mib: record.memory_mib,
            accel: record.accel,
            image: record.image,
            kernel: record.kernel,
            uptime_s: up.map(|status| status.uptime_s + age_s),
            ready_ms: up.and_then(|status| status.ready_ms),
            start: up.and_then(|_| start(&self.dir)),
            docker: up.map(|status| docker(&status.docker)),
            sessions: runs.sessions,
            agent_running: runs.agent_running,
            attached: runs.attached,
            kept_by: up.and(kept_by),
            stops_at: up.and(stops_at),
            remove_when_ended: record.remove_when_ended,
            secrets,
            processes: up.map(processes).unwrap_or_default(),
            dir: self.dir.clone(),
        }
    }

    /// The status column, and why.
    fn describe(&self, live: &Live) -> (&'static str, Option<String>) {
        let (status, reason) = match live {
            Live::Stopped(why) => ("stopped", why.clone()),
            Live::Silent => (
                "unresponsive",
                Some("its supervisor does not answer".to_owned()),
            ),
            Live::Up(status, _) => match &status.phase {
                Phase::Starting(step) => ("starting", Some(step.clone())),
                Phase::Running => ("running", None),
                Phase::Unresponsive(why) => ("unresponsive", Some(why.clone())),
                Phase::Stopping => ("running", Some("stopping".to_owned())),
            },
        };
        match &self.damage {
            Some(damage) if status == "stopped" => ("damaged", Some(damage.reason.clone())),
            // It runs, and cannot be started again.
            Some(damage) if status == "running" => (status, Some(damage.reason.clone())),
            _ => (status, reason),
        }
    }
}

/// What keeps it, and when it stops.
fn stay(stay: Stay) -> (Option<String>, Option<String>) {
    match stay {
        Stay::Unsettled => (None, None),
        Stay::Sessions => (Some("sessions".to_owned()), None),
        Stay::Held => (Some("run -d".to_owned()), None),
        Stay::Always => (Some("setting".to_owned()), None),
        Stay::Until { unix_ms } => (None, Some(rfc3339(unix_ms / 1000))),
    }
}

/// How the present run began, by its launch document.
fn start(dir: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Document {
        #[serde(default)]
        origin: Origin,
    }
    let Found::Good(document) = read_json::<Document>(&dir.join(launch::FILE)) else {
        return None;
    };
    let start = match document.origin {
        Origin::Restore(_) => "warm",
        Origin::Boot | Origin::Save(_) => "cold",
    };
    Some(start.to_owned())
}

fn docker(state: &DockerState) -> String {
    match state {
        DockerState::Starting => "starting".to_owned(),
        DockerState::Ready { uptime_ms } => format!("ready ({uptime_ms} ms)"),
        DockerState::Failed(why) => format!("failed: {why}"),
    }
}

fn processes(status: &Status) -> Vec<(String, u32)> {
    let running = &status.processes;
    let mut all = vec![
        ("supervisor".to_owned(), running.supervisor),
        ("spawner".to_owned(), running.spawner),
    ];
    let mut add = |role: String, pid: Option<u32>| all.extend(pid.map(|pid| (role, pid)));
    add("machine".to_owned(), running.machine);
    add("gateway".to_owned(), running.gateway);
    for (index, pid) in running.shares.iter().enumerate() {
        add(format!("share{index}"), *pid);
    }
    all
}

/// Why the last run ended, one line; `None`: it never ran.
pub(crate) fn last_exit(dir: &Path) -> Option<String> {
    // Emptied at each start and written at the end.
    let emptied = dir.join(files::LAST_EXIT).exists();
    let silent = || "its supervisor was killed, or the host went down".to_owned();
    last_words(dir).or_else(|| emptied.then(silent))
}

/// When the last run ended, RFC 3339. `None`: it never ran, or was killed together with its supervisor.
pub(crate) fn stopped_at(dir: &Path) -> Option<String> {
    // Emptied at each start and written at the end.
    let meta = dir.join(files::LAST_EXIT).metadata().ok()?;
    let since = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    (meta.len() > 0).then(|| rfc3339(since.as_secs()))
}

/// What the supervisor wrote at its end, one line.
pub(crate) fn last_words(dir: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(dir.join(files::LAST_EXIT)).ok()?;
    file.take(MAX_REASON).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line: String = text
        .lines()
        .next()?
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    Some(line.trim().to_owned()).filter(|line| !line.is_empty())
}
