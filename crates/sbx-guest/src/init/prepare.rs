//! Makes a booted machine ready to be saved, so that every sandbox restored from it has less left to do.
//!
//! Nothing of this may tell one sandbox from another, and nothing secret is known yet. What the kernel makes of
//! chance at its first use must not be used before the snapshot: it would be the same in all of them. So there is
//! no network here, and `boot_id` is not read.

use super::disks::DOCKER_ROOT;
use super::personalise::set_clock;
use crate::console;
use crate::files;
use crate::reaper::Reaper;
use crate::trust;
use sbx_wire::guest::{ExitStatus, Prepare};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Free memory that is made zero, at most: what the boot has used and given back. Zeros are not saved.
const SCRUBBED: u64 = 768 << 20;
/// Share of the free memory that is left alone.
const LEFT: u64 = 4;
/// Where the engine keeps its id, below [`DOCKER_ROOT`].
const ENGINE_ID: &str = "engine-id";
/// For each of [`WARMED`].
const WARM_LIMIT: Duration = Duration::from_secs(30);
/// Programs that are run once, so that the next run finds them in memory: what sandboxes start first.
const WARMED: [&[&str]; 2] = [
    &["/usr/bin/docker", "version"],
    &["/bin/bash", "-c", "true"],
];

/// What comes before the Docker Engine: it reads the trusted roots once in its life.
pub(super) fn begin(request: &Prepare) -> io::Result<()> {
    set_clock(request.unix_ns)?;
    trust::install(&request.ca_pem)
}

/// What comes after it.
pub(super) fn settle(reaper: &Reaper) -> io::Result<()> {
    rustix::fs::sync();
    // Pages of files are read again when they are needed; most of those of the boot never are.
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    for words in WARMED {
        // Only time depends on it.
        if let Err(error) = run(words, reaper) {
            console::say(&format!("{}: {error}", words.join(" ")));
        }
    }
    // The memory of what was dropped still holds it.
    if let Err(error) = scrub(Path::new("/dev/shm/.scrub")) {
        console::say(&format!("free memory was not made zero: {error}"));
    }
    rustix::fs::sync();
    console::debug("prepared");
    Ok(())
}

fn run(words: &[&str], reaper: &Reaper) -> io::Result<()> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_clear().current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let (tell, ended) = mpsc::channel();
    reaper.spawn(&mut command, move |status| {
        // Nobody listens any more when it took too long.
        let _ = tell.send(status);
    })?;
    match ended.recv_timeout(WARM_LIMIT) {
        Ok(ExitStatus::Code(0)) => Ok(()),
        Ok(status) => Err(io::Error::other(format!("{status:?}"))),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Takes from a restored machine what all machines of its snapshot have: what the kernel makes of chance is renewed
/// with its entropy, names are told by the host. The Docker Engine's id is that of the snapshot until the engine
/// starts again; then it is this one.
pub(super) fn part() -> io::Result<()> {
    let path = Path::new(DOCKER_ROOT).join(ENGINE_ID);
    if !path.exists() {
        return Ok(());
    }
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    files::write(&path, id.trim().as_bytes(), 0o600, 0)
}

/// Fills free memory with zeros, through a file in memory, and gives it back.
fn scrub(path: &Path) -> io::Result<()> {
    let free = free_bytes(&fs::read_to_string("/proc/meminfo")?).unwrap_or(0);
    let mut left = SCRUBBED.min(free - free / LEFT);
    let mut file = File::create(path)?;
    fs::remove_file(path)?;
    let zeros = vec![0; 1 << 20];
    while left > 0 {
        let count = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
        file.write_all(&zeros[..count])?;
        left -= count as u64;
    }
    Ok(())
}

/// `MemFree` of `/proc/meminfo` (`proc_meminfo(5)`, KiB).
fn free_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemFree:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_read_in_bytes() {
        let text = "MemTotal:        2027000 kB\nMemFree:         1024 kB\nMemAvailable: 9 kB\n";
        assert_eq!(free_bytes(text), Some(1 << 20));
        assert_eq!(free_bytes("MemFree: many"), None);
    }
}
