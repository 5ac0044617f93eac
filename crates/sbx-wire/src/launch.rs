//! The launch document: everything a supervisor needs to start one machine, written by the daemon into the
//! sandbox's directory and read once, before the first guest byte. It holds no secret.
//!
//! Compatibility: it is written anew at each start by the daemon that starts the supervisor, so both are of one version;
//! any other document is refused. Frozen in `tests/fixtures/launch-v1.txt`; a change of meaning is another [`SCHEMA`].

use crate::guest::Personalise;
use sbx_workspace::Rules;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// File name of the document inside a sandbox's directory.
pub const FILE: &str = "launch.json";
/// Version of this document.
pub const SCHEMA: u32 = 1;

/// Most host directories of one sandbox: each takes a process of its own and a port of the machine.
pub const MAX_SHARES: usize = 12;

/// See the module. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Sandbox id: 12 lower-case hex digits.
    pub id: String,
    /// Sandbox name, for logs.
    pub name: String,
    /// The sandbox's directory: disks and logs.
    pub dir: PathBuf,
    /// The sandbox's runtime directory: sockets (see [`sockets`]). Exists, mode 0700.
    pub runtime: PathBuf,
    /// Programs to run.
    pub programs: Programs,
    /// The machine.
    pub machine: MachineSpec,
    /// Host directories to share, in mount order; `personalise.mounts` names the same tags.
    pub shares: Vec<ShareSpec>,
    /// Seconds that the sandbox runs on after its last session has ended; `None`: until it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_stop_s: Option<u64>,
    /// What the guest is told. `entropy` and `unix_ns` are filled in by the supervisor at each start.
    pub personalise: Personalise,
    /// How the machine comes to life.
    #[serde(default, skip_serializing_if = "Origin::is_boot")]
    pub origin: Origin,
    /// QEMU is started as any program is, without a jail (setting `machine.confine`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unconfined: bool,
    /// Time from the start to a guest that takes orders, seconds (setting `machine.startLimit`); without it 120. A
    /// machine from a snapshot has a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_limit_s: Option<u32>,
}

/// Time for a start when the document says none, seconds.
pub const START_LIMIT_S: u32 = 120;

/// How the reason of a start that took too long begins, in `last-exit`: such a machine may come up when it is started
/// again, others will not.
pub const LATE: &str = "the sandbox did not start: not ready after ";

/// How a machine comes to life, and what for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// From its kernel.
    #[default]
    Boot,
    /// From a snapshot of a machine with the same devices, on disks that are copies of those it was taken with.
    Restore(SnapshotFiles),
    /// From its kernel, to be saved as soon as it is ready to become any sandbox: there are no shares and no
    /// network, and the run ends when the snapshot is written.
    Save(SnapshotFiles),
}

impl Origin {
    /// Whether this is an ordinary boot.
    pub fn is_boot(&self) -> bool {
        *self == Self::Boot
    }
}

/// A saved machine, without its disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotFiles {
    /// The guest's memory, as long as the machine's, with holes where it is zero.
    pub memory: PathBuf,
    /// Everything else: QEMU's migration stream, at most [`MAX_STATE`] bytes.
    pub state: PathBuf,
}

/// Most bytes of [`SnapshotFiles::state`]: it goes in one frame, and through a pipe that holds it whole. A machine
/// of 2 CPUs has some 300 KiB.
pub const MAX_STATE: u32 = (1 << 20) - (4 << 10);

/// Programs that a sandbox consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Programs {
    /// `qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// `sbx-gateway`.
    pub gateway: PathBuf,
    /// `sbx-share`.
    pub share: PathBuf,
}

/// The machine to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineSpec {
    /// Accelerator, already probed.
    pub accel: Accel,
    /// Virtual CPUs, 1..=64.
    pub cpus: u16,
    /// Memory, MiB, at least 512.
    pub memory_mib: u32,
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initramfs: PathBuf,
    /// Read-only EROFS layers, lowest first, shared by all sandboxes of a template.
    pub lowers: Vec<PathBuf>,
    /// Writable overlay disk of this sandbox (qcow2).
    pub upper: PathBuf,
    /// Docker data disk of this sandbox (qcow2).
    pub docker: PathBuf,
    /// What those two lie on: read, and named here because what the disks themselves say of it was written by QEMU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<PathBuf>,
}

/// How guest instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// Hardware virtualisation by Linux.
    Kvm,
    /// Software emulation, works everywhere.
    Tcg,
}

/// A host directory to share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareSpec {
    /// virtio-fs tag, at most 36 bytes.
    pub tag: String,
    /// Host directory.
    pub host: PathBuf,
    /// The share refuses every write.
    pub read_only: bool,
    /// What is protected and hidden in it.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub rules: Rules,
}

/// Names of the sockets inside a sandbox's runtime directory, short because a Unix socket path is limited
/// to 108 bytes (`unix(7)`).
pub mod sockets {
    /// Command and daemon to supervisor ([`crate::session`]).
    pub const SUPERVISOR: &str = "supervisor.sock";
    /// Daemon to gateway ([`crate::gateway`]).
    pub const GATEWAY: &str = "gateway.sock";
    /// Folder of the sockets on which QEMU listens, and of nothing else: it may make and remove names here and nowhere
    /// else. The supervisor makes it, mode 0700.
    pub const MACHINE_DIR: &str = "m";
    /// Ethernet frames; the gateway connects.
    pub const FRAMES: &str = "m/frames.sock";
    /// QEMU's monitor; the supervisor connects.
    pub const QMP: &str = "m/qmp.sock";
    /// The guest channel; the supervisor connects.
    pub const GUEST: &str = "m/guest.sock";

    /// vhost-user socket of the share with this index; the share listens, and QEMU is given a connection to it.
    pub fn share(index: usize) -> String {
        format!("fs{index}.sock")
    }
}

/// Names of the files inside a sandbox's directory.
pub mod files {
    /// What was asked for: enough to rebuild the daemon's store.
    pub const SANDBOX: &str = "sandbox.json";
    /// The guest's console, bounded.
    pub const CONSOLE: &str = "console.log";
    /// The supervisor's log.
    pub const SUPERVISOR_LOG: &str = "supervisor.log";
    /// Locked (`flock(2)`) by the one supervisor of the sandbox.
    pub const LOCK: &str = "lock";
    /// Locked by every other process of the sandbox, which outlive a killed supervisor by a moment. Nothing
    /// of a sandbox runs when this and [`LOCK`] are free.
    pub const ALIVE: &str = "alive";
    /// Why the last run ended, one line of text.
    pub const LAST_EXIT: &str = "last-exit";
    /// Policy and upstream settings for the gateway, without secrets ([`crate::gateway::GatewayFile`]).
    pub const GATEWAY: &str = "gateway.json";
    /// Folder of the files that the gateway writes, and nothing else: its jail may write in here. The daemon
    /// makes it, mode 0700.
    pub const GATEWAY_DIR: &str = "egress";
    /// The gateway's log, in [`GATEWAY_DIR`].
    pub const GATEWAY_LOG: &str = "egress/gateway.log";
    /// One [`crate::gateway::EgressRecord`] a line, in [`GATEWAY_DIR`]. The older half has the suffix `.1`.
    pub const EGRESS: &str = "egress/egress.jsonl";
    /// Writable overlay disk.
    pub const UPPER: &str = "upper.qcow2";
    /// Docker data disk.
    pub const DOCKER: &str = "docker.qcow2";
    /// What it lies on, if its size is not the image's.
    pub const DOCKER_BASE: &str = "docker.ext4";

    /// What was tried against the rules of the share with this index, a line of JSON each
    /// ([`sbx_workspace::event::Event`]).
    pub fn share_events(index: usize) -> String {
        format!("share{index}.events")
    }

    /// Log of the share with this index.
    pub fn share_log(index: usize) -> String {
        format!("share{index}.log")
    }
}
