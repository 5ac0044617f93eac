//! Git on the host.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// For one call.
const LIMIT: Duration = Duration::from_secs(20);

/// What one call may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    /// Bytes that it prints.
    bytes: u64,
    /// When it is ended.
    until: Instant,
}

impl Most {
    /// So many bytes, and the usual time.
    pub(crate) fn bytes(bytes: u64) -> Self {
        let until = Instant::now() + LIMIT;
        Self { bytes, until }
    }

    /// The same, but ended then at the latest.
    pub(crate) fn until(self, end: Instant) -> Self {
        let until = self.until.min(end);
        Self { until, ..self }
    }
}

/// What git prints; nothing of the repository's settings is run. `None`: it failed, or it took more than it may.
pub(crate) fn git(root: &Path, arguments: &[&str], most: Most) -> Option<Vec<u8>> {
    run(&mut Command::new("git"), root, arguments, most)
}

/// The same about another index than the repository's own.
pub(crate) fn git_of_index(
    root: &Path,
    index: &Path,
    arguments: &[&str],
    most: Most,
) -> Option<Vec<u8>> {
    let mut command = Command::new("git");
    command.env("GIT_INDEX_FILE", index);
    run(&mut command, root, arguments, most)
}

fn run(command: &mut Command, root: &Path, arguments: &[&str], most: Most) -> Option<Vec<u8>> {
    let Most {
        bytes: limit,
        until,
    } = most;
    let mut child = command
        .args([
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.hooksPath=/dev/null",
        ])
        .arg("-C")
        .arg(root)
        .args(arguments)
        .env("GIT_OPTIONAL_LOCKS", "0")
        // The repository may say that what it lacks is to be fetched, and from where.
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_ALLOW_PROTOCOL", "none")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let output = child.stdout.take()?;
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = output.take(limit + 1).read_to_end(&mut bytes);
        read.is_ok().then_some(bytes)
    });
    while !reader.is_finished() && Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(2));
    }
    // Of no effect on one that has ended.
    let _late = child.kill();
    let ended = child.wait();
    let bytes = reader.join().ok()??;
    let whole = bytes.len() as u64 <= limit && ended.is_ok_and(|status| status.success());
    whole.then_some(bytes)
}
