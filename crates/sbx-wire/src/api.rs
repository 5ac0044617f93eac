//! The local API: HTTP/1.1 with JSON over the daemon's Unix socket.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/status` | | [`DaemonStatus`] |
//! | `POST /v1/shutdown` | [`Shutdown`] | `{}` |
//! | `GET /v1/sandboxes` | | [`Sandboxes`] |
//! | `POST /v1/sandboxes` | [`Create`] | stream of [`Event`], ends with `Done(Attach)` |
//! | `GET /v1/sandboxes/{name}` | | [`Sandbox`] |
//! | `POST /v1/sandboxes/{name}/start` | [`Start`] | stream of [`Event`], ends with `Done(Attach)` |
//! | `POST /v1/sandboxes/{name}/stop` | | [`Stopped`] |
//! | `GET /v1/sandboxes/{name}/guard` | | [`Guarded`] |
//! | `POST /v1/sandboxes/{name}/guard/told` | [`GuardTold`] | `{}` |
//! | `DELETE /v1/sandboxes/{name}?force=true&only_stopped=ID` | | `{}` |
//! | `POST /v1/cache/prune` | [`PruneCache`] | [`PrunedCache`] |
//! | `POST /v1/policy/init` | [`PolicyInit`] | `{}` |
//! | `POST /v1/policy/reset` | `{}` | [`PolicyReset`] |
//! | `GET /v1/policy?sandbox=` | | [`PolicyState`] |
//! | `POST /v1/policy/rules` | [`AddRule`] | [`AddedRule`] |
//! | `POST /v1/policy/rules/remove` | [`RemoveRule`] | [`RemovedRules`] |
//! | `POST /v1/policy/check` | [`Check`] | [`sbx_policy::CheckReport`] |
//! | `GET /v1/policy/log?sandbox=&limit=&decision=&host=&since_ms=` | | [`PolicyLog`] |
//! | `GET /v1/policy/log/follow?sandbox=&decision=&host=&since_ms=` | | stream of [`LogEvent`] |
//! | `GET /v1/secrets` | | [`Secrets`] |
//! | `POST /v1/secrets` | [`SetSecret`] | [`StoredSecret`] |
//! | `POST /v1/secrets/custom` | [`SetCustom`] | [`StoredSecret`] |
//! | `POST /v1/secrets/registry` | [`SetRegistry`] | [`StoredSecret`] |
//! | `POST /v1/secrets/consent` | [`AskConsent`] | [`Consent`] |
//! | `POST /v1/secrets/consent/wait` | [`AwaitConsent`] | [`StoredSecret`] |
//! | `POST /v1/secrets/remove` | [`RemoveSecret`] | [`RemovedSecrets`] |
//! | `GET /v1/settings` | | [`Settings`] |
//! | `POST /v1/settings` | [`SetSetting`] | [`Setting`] |
//! | `POST /v1/settings/unset` | [`UnsetSetting`] | [`Setting`] |
//!
//! Errors: status 4xx (the request) or 5xx with a [`Report`] as
//! body. A stream is one JSON document a line with status 200; a failure after the start is an
//! [`Event::Failed`]. Request bodies are limited to [`MAX_REQUEST`] bytes. Times are RFC 3339, UTC.

mod policy;
mod secrets;

pub use policy::{
    AddRule, AddedRule, Check, LogEvent, LogRow, PolicyInit, PolicyLog, PolicyReset, PolicyState,
    Provenance, RemoveRule, RemovedRules, RuleView, Unconfirmed,
};

pub use secrets::{
    AskConsent, AwaitConsent, AwsEndpoint, Consent, CustomRow, Fetched, HandIn, RemoveSecret,
    RemovedSecret, RemovedSecrets, SecretRow, Secrets, SetCustom, SetRegistry, SetSecret,
    StoredSecret,
};

use crate::report::Report;
use sbx_workspace::{Guarding, Level};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Longest request body, in bytes.
pub const MAX_REQUEST: usize = 4 << 20;

/// The daemon itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// `running`.
    pub status: String,
    /// Its socket.
    pub socket: PathBuf,
    /// Its log.
    pub logs: PathBuf,
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Whether `policy init` has been done.
    pub policy_initialized: bool,
    /// What is known about the small kernel. For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub small_kernel: String,
    /// What had to be mended when the daemon started, e.g. a broken state file. For people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// Snapshots that new sandboxes begin from.
    #[serde(default)]
    pub snapshots: Snapshots,
}

/// Snapshots by their keys.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Snapshots {
    /// There, the one used last first.
    pub ready: Vec<String>,
    /// Being made, or waiting for it.
    pub pending: Vec<String>,
    /// Given up, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

/// End the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shutdown {
    /// Also stop every running sandbox (`daemon stop`); `daemon restart` leaves them running.
    pub stop_sandboxes: bool,
    /// Seconds that programs inside get between SIGTERM and SIGKILL; `None`: the usual time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u32>,
}

/// Remove images and snapshots that no sandbox needs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneCache {
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What was, or would be, removed from the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedCache {
    /// Keys of images.
    pub images: Vec<String>,
    /// Keys of snapshots.
    pub snapshots: Vec<String>,
    /// Interrupted builds, kernels and initial RAM disks that nobody can use any more, by their names in the cache folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<String>,
}

/// What `sbx reset` took away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// Names of sandboxes.
    pub sandboxes: Vec<String>,
    /// Whether stored secrets were kept.
    pub secrets_kept: bool,
    /// Folders that were emptied.
    pub emptied: Vec<PathBuf>,
}

/// A host directory in the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// Absolute path, the same inside.
    pub path: PathBuf,
    /// Read-only inside.
    pub read_only: bool,
}

/// Make a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Wanted name; without one it is made from agent and workspace.
    pub name: Option<String>,
    /// Name of the agent, such as `claude` or `shell`.
    pub agent: String,
    /// Primary workspace first; empty: none.
    pub workspaces: Vec<Workspace>,
    /// Virtual CPUs; 0: as many as the host has.
    pub cpus: u16,
    /// Memory in MiB; `None`: half of the host's, 512 MiB to 32 GiB.
    pub memory_mib: Option<u32>,
    /// Variables kept with the sandbox.
    pub env: Vec<(String, String)>,
    /// Sandbox-scoped deny rules to start with.
    pub deny_network: Vec<String>,
    /// Accelerator; `None`: probed.
    pub accel: Option<crate::launch::Accel>,
    /// What is protected and hidden in its workspaces.
    #[serde(default, skip_serializing_if = "Guarding::is_default")]
    pub guarding: Guarding,
    /// `run --rm`: it is removed once it has ended, however it ends.
    #[serde(default)]
    pub remove: bool,
}

/// Make sure that a sandbox runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// `run --rm`: it is removed once it has ended, however it ends.
    #[serde(default)]
    pub remove: bool,
}

/// What ended with a sandbox that was stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Sessions, the agent among them.
    #[serde(default)]
    pub sessions: u32,
    /// Whether its agent ran on a terminal of its own.
    #[serde(default)]
    pub agent_running: bool,
    /// Terminals attached to the agent.
    #[serde(default)]
    pub attached: u32,
    /// Whether the sandbox was removed (`run --rm`).
    #[serde(default)]
    pub removed: bool,
}

/// How to reach a running sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The sandbox.
    pub sandbox: Sandbox,
    /// Its supervisor's socket ([`crate::session`]).
    pub socket: PathBuf,
    /// The agent's command line with its default flags.
    pub agent_command: Vec<String>,
    /// Further default arguments when no terminal is used is up to the command; this is the workdir.
    pub workdir: String,
    /// Variables for new sessions, under those that the user gives: placeholders of the secrets that are
    /// stored now, which may be others than at the machine's start.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Keys that detach a terminal, as the user set them ([`crate::keys::DetachKeys`]).
    #[serde(default)]
    pub detach_keys: String,
    /// True when this call made or (re)started the machine.
    pub started: bool,
}

/// One line of a streamed answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Work goes on.
    Progress(Progress),
    /// Something the user should know; goes to standard error.
    Notice(String),
    /// Last line.
    Done(Box<Attach>),
    /// Last line.
    Failed(Report),
}

/// Progress of long work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, e.g. `building base image`.
    pub step: String,
    /// Steps or units done.
    pub done: u64,
    /// Of so many; 0: unknown.
    pub total: u64,
    /// Detail that changes quickly, e.g. the package being unpacked.
    pub detail: String,
}

/// All sandboxes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sandboxes {
    /// In order of name.
    pub sandboxes: Vec<Sandbox>,
}

/// What was tried against the rules of a sandbox's workspaces since it was made; the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    /// How much of the list of protected files is protected, and by whose word.
    pub protect: Level,
    /// Each with the workspace that it is about.
    pub events: Vec<GuardedEvent>,
    /// How many lines that is of each workspace, for [`GuardTold`].
    #[serde(default)]
    pub counted: Vec<u64>,
}

/// Somebody was told so much of [`Guarded`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GuardTold {
    /// The sandbox's id: another one may have its name by now.
    pub id: String,
    /// See [`Guarded::counted`].
    pub counted: Vec<u64>,
}

/// One of [`Guarded`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardedEvent {
    /// Host directory.
    pub workspace: PathBuf,
    /// Whether somebody was told of it.
    #[serde(default)]
    pub told: bool,
    /// What was tried.
    #[serde(flatten)]
    pub event: sbx_workspace::event::Event,
}

/// A sandbox (`ls --json`; `inspect --json` prints the same fields and more).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Name.
    pub name: String,
    /// Stable id.
    pub id: String,
    /// Agent.
    pub agent: String,
    /// `running`, `stopped`, `starting`, `unresponsive` or `damaged` (listed, and
    /// not to be started by this version).
    pub status: String,
    /// Why it is in this state, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    /// Supervisor's socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_path: Option<PathBuf>,
    /// Primary first.
    pub workspaces: Vec<Workspace>,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<String>,
    /// RFC 3339, UTC: when the last run ended, where that is known and nothing runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<String>,
    /// Virtual CPUs.
    pub cpus: u16,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Accelerator in use.
    pub accel: crate::launch::Accel,
    /// Template and its key.
    pub image: String,
    /// Kernel of the last start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    /// Seconds since the machine was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_s: Option<u64>,
    /// Milliseconds from start to the first possible `exec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_ms: Option<u64>,
    /// `warm`: its present run began from a snapshot; `cold`: with a boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// `starting`, `ready` (with milliseconds since guest start) or `failed: …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<String>,
    /// Open sessions: programs that run, the agent among them.
    #[serde(default)]
    pub sessions: u32,
    /// Whether its agent runs on a terminal of its own, which `run` attaches to.
    #[serde(default)]
    pub agent_running: bool,
    /// Terminals attached to that agent.
    #[serde(default)]
    pub attached: u32,
    /// Why it runs on: `sessions`, `run -d`, or `setting` (it is never stopped by itself); `None`: nothing, or
    /// it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_by: Option<String>,
    /// RFC 3339, UTC: when it stops unless a session is opened before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stops_at: Option<String>,
    /// `run --rm`: it is removed once it has ended.
    #[serde(default)]
    pub remove_when_ended: bool,
    /// Services whose secret is injected.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Host process ids by role (`supervisor`, `machine`, `gateway`, `share0`, …), while running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<(String, u32)>,
    /// The sandbox's directory on the host (disks, console, logs).
    pub dir: PathBuf,
}

/// A kernel that machines are started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Which of the two.
    pub kind: KernelKind,
    /// Release, as `uname -r` says inside.
    pub version: String,
}

/// The two kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelKind {
    /// The distribution's own, with modules.
    Stock,
    /// Its source, configured for a sandbox's machine and nothing else.
    Small,
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            KernelKind::Stock => "stock",
            KernelKind::Small => "small",
        };
        write!(f, "{kind} {}", self.version)
    }
}

/// `settings list`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// In order of key.
    pub settings: Vec<Setting>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Key, e.g. `upstream.overrides`.
    pub key: String,
    /// Value as text (JSON where the type is `json`).
    pub value: String,
    /// `string`, `bool`, `int`, `json`, `path`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `default` or `user`.
    pub source: String,
    /// Whether a change needs a restart of the sandbox.
    pub restart: bool,
    /// One sentence.
    pub description: String,
    /// Default as text.
    pub default: String,
}

/// `settings set`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetSetting {
    /// Key.
    pub key: String,
    /// Value as typed.
    pub value: String,
}

/// `settings unset`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnsetSetting {
    /// Key.
    pub key: String,
}
