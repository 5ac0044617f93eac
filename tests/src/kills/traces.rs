//! The invariant: what is left of a sandbox that is gone. Nothing may be.

use super::place::Place;
use sbx_wire::home::Home;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What is expected to come and go: logs, what the last failed start left for people to read, and SQLite's journal, which
/// stays after a crash until the next change if there was nothing in it to take back.
const LOGS: [&str; 3] = [
    "state/daemon.log",
    "state/failed-start",
    "state/sbx.db-journal",
];
/// Parts of a snapshot that counts.
const SNAPSHOT: [&str; 5] = [
    "snapshot.json",
    "memory",
    "state",
    "upper.qcow2",
    "docker.qcow2",
];

/// Paths below the folders of an installation, with what is expected left out.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Files(BTreeSet<PathBuf>);

impl Files {
    pub(super) fn of(home: &Home) -> io::Result<Self> {
        let mut found = BTreeSet::new();
        let folders = [
            ("state", &home.state),
            ("cache", &home.cache),
            ("config", &home.config),
            ("runtime", &home.runtime),
        ];
        for (name, folder) in folders {
            walk(folder, Path::new(name), &mut found)?;
        }
        Ok(Self(found))
    }
}

fn walk(folder: &Path, shown: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let shown = shown.join(entry.file_name());
        let text = shown.to_string_lossy();
        if LOGS.iter().any(|log| text.starts_with(log)) || is_kept(&shown, &entry.path()) {
            continue;
        }
        // It may go away while we look.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), &shown, found)?;
        }
        found.insert(shown);
    }
    Ok(())
}

/// What stays for the next sandbox, whenever it is made: whether this machine can virtualise, a whole snapshot, or the lock
/// that is held while one is made.
fn is_kept(shown: &Path, path: &Path) -> bool {
    if shown == Path::new("cache/accel.json") {
        return true;
    }
    let Some(name) = shown
        .strip_prefix("cache/snapshots")
        .ok()
        .and_then(Path::to_str)
    else {
        return false;
    };
    let key = name.strip_suffix(".lock").unwrap_or(name);
    let is_key = key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_key && (name != key || SNAPSHOT.iter().all(|part| path.join(part).is_file()))
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Traces(pub(super) Vec<String>);

impl Traces {
    /// Looks at everything but the diagnosis, which takes longest. `daemon`: the process that may be there.
    pub(super) fn look(place: &Place, daemon: i32) -> Self {
        let mut found = Vec::new();
        match Files::of(&place.home) {
            Ok(files) => {
                let (before, now) = (&place.empty.0, &files.0);
                found.extend(
                    now.difference(before)
                        .map(|p| format!("left: {}", p.display())),
                );
                found.extend(
                    before
                        .difference(now)
                        .map(|p| format!("gone: {}", p.display())),
                );
            }
            Err(error) => found.push(format!("cannot look at the files: {error}")),
        }
        found.extend(sockets(&place.home));
        found.extend(processes(place, daemon));
        Self(found)
    }
}

/// Sockets in the runtime folder that somebody still has, also where the file is gone.
fn sockets(home: &Home) -> Vec<String> {
    let list = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let daemon = home.daemon_socket().display().to_string();
    let runtime = home.runtime.display().to_string();
    let paths = list
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7));
    let ours = paths.filter(|path| path.starts_with(&runtime) && **path != daemon);
    ours.map(|path| format!("socket: {path}")).collect()
}

/// Processes that have anything to do with the place.
fn processes(place: &Place, daemon: i32) -> Vec<String> {
    let mut found = Vec::new();
    let own = std::process::id().cast_signed();
    for pid in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = pid
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        if pid == own || pid == daemon {
            continue;
        }
        if let Some(why) = concerns(pid, &[place.root(), &place.home.runtime]) {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let line: String = line.chars().take(120).collect();
            found.push(format!("process {pid} ({why}): {line}"));
        }
    }
    found
}

/// How a process has to do with one of the folders.
fn concerns(pid: i32, folders: &[&Path]) -> Option<&'static str> {
    let file = |name: &str| format!("/proc/{pid}/{name}");
    let names = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        let mut all = folders.iter().filter_map(|folder| folder.to_str());
        all.any(|folder| text.contains(folder))
    };
    for (name, why) in [("cmdline", "arguments"), ("environ", "environment")] {
        if fs::read(file(name)).is_ok_and(|text| names(&text)) {
            return Some(why);
        }
    }
    let leads = |path: PathBuf| {
        fs::read_link(path).is_ok_and(|to| names(to.as_os_str().as_encoded_bytes()))
    };
    if leads(file("cwd").into()) || leads(file("root").into()) {
        return Some("folder");
    }
    let open = fs::read_dir(file("fd")).into_iter().flatten().flatten();
    open.map(|entry| entry.path())
        .any(leads)
        .then_some("descriptor")
}
