//! Which process of sbx a process is, by what it was started as.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

/// A kind of process that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `sbx-daemon`.
    Daemon,
    /// `sbx-supervisor`.
    Supervisor,
    /// `sbx-supervisor --spawner`.
    Spawner,
    /// QEMU, and the supervisor's program on its way to become it.
    Machine,
    /// `sbx-gateway`.
    Gateway,
    /// `sbx-share`.
    Share,
    /// The guest, where a stand-in plays it.
    Guest,
    /// `qemu-img`.
    Tool,
}

/// All of them.
const ROLES: [Role; 8] = [
    Role::Daemon,
    Role::Supervisor,
    Role::Spawner,
    Role::Machine,
    Role::Gateway,
    Role::Share,
    Role::Guest,
    Role::Tool,
];

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Supervisor => "supervisor",
            Self::Spawner => "spawner",
            Self::Machine => "machine",
            Self::Gateway => "gateway",
            Self::Share => "share",
            Self::Guest => "guest",
            Self::Tool => "tool",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = ROLES.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| format!("there is no role {text:?}"))
    }
}

/// A process as it counts: its role, and whether it makes a snapshot instead of running a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) role: Role,
    pub(super) snapshot: bool,
}

/// Argument by which the stand-in knows that it is the guest.
pub const GUEST_FLAG: &str = "--guest";

/// What the process with this id was started as. `None`: nothing that is killed.
pub(super) fn classify(pid: i32) -> Option<Part> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<String> = line
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let has = |flag: &str| words.iter().any(|word| word == flag);
    if has("--version") || has("--diagnose") {
        return None;
    }
    let program = exe.file_name()?.to_string_lossy().into_owned();
    let role = match program.as_str() {
        "sbx-daemon" => Role::Daemon,
        "sbx-supervisor" if has("--spawner") => Role::Spawner,
        "sbx-supervisor" if has("--machine") => Role::Machine,
        "sbx-supervisor" => Role::Supervisor,
        "sbx-gateway" => Role::Gateway,
        "sbx-share" => Role::Share,
        "sbx-held-machine" if has(GUEST_FLAG) => Role::Guest,
        "qemu-img" => Role::Tool,
        name if name.starts_with("qemu-system") => Role::Machine,
        _ => return None,
    };
    let snapshot = words.iter().any(|word| word.contains("/.building-"))
        || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| in_building(&cwd));
    Some(Part { role, snapshot })
}

fn in_building(path: &Path) -> bool {
    path.to_string_lossy().contains("/.building-")
}
