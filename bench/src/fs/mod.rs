//! `bench fs`: the share beside the two other servers of virtio-fs, the Rust `virtiofsd` and QEMU's in C, asked over
//! vhost-user by a client on the host: no guest and no emulation between. Each gets a fresh tree and a fresh process in
//! every round; all serve on one thread, with the same features of the device and the caching that lets a guest keep
//! what it knows for a while (`cache=auto`).
//!
//! Client and server share one processor: waking somebody on another one that sleeps costs the waker an interrupt and, on
//! a machine that is itself virtual, an exit, by chance. The tree is in memory where the host has room for that: what
//! is compared is the servers, and on a disk most of the time is the disk's file system's.
//!
//! `req_per_cpu_s` is requests by the processor time of the server's process, user and system: a request waits for the
//! one before, or (`_q32`) 32 are handed over at once.

pub(crate) mod guest;
mod server;
mod work;

use std::collections::BTreeMap;
use std::path::Path;

use rustix::thread::CpuSet;

use crate::figure::Figure;
use server::{Kind, Server};

/// Turns of each server.
const ROUNDS: usize = 9;
/// A change on the host is seen within this, in milliseconds.
const VISIBLE_MS: f64 = 1000.0;

/// Where files are in memory.
const MEMORY: &str = "/dev/shm";
/// User and group of the guest's agent, who asks.
const AGENT: u32 = 1000;

/// Measurements of one server, by metric.
type Measured = BTreeMap<String, Vec<f64>>;

pub(crate) fn run() -> Result<Vec<Figure>, String> {
    let kinds = server::available()?;
    let memory = Path::new(MEMORY);
    let place = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let root = tempfile::Builder::new()
        .prefix("sbx-bench-")
        .tempdir_in(place);
    let root = root.map_err(|error| error.to_string())?;
    share_a_processor()?;
    let mut all: Vec<Measured> = kinds.iter().map(|_| Measured::new()).collect();
    for round in 0..ROUNDS {
        // Whoever is first finds a tidier machine than the others: they take turns in it.
        for later in 0..kinds.len() {
            let place = (round + later) % kinds.len();
            let (kind, measured) = (&kinds[place], &mut all[place]);
            let folder = root.path().join(format!("{round}-{}", kind.name));
            let turn = turn(kind, &folder, measured);
            turn.map_err(|error| format!("{}: {error}", kind.name))?;
            std::fs::remove_dir_all(&folder).map_err(|error| error.to_string())?;
        }
    }
    let figures = beside(&kinds, &all);
    let late = all[0].get("visible_ms").into_iter().flatten();
    if late.clone().any(|ms| *ms > VISIBLE_MS) {
        let late: Vec<_> = late.collect();
        return Err(format!("a change on the host was seen after {late:?} ms"));
    }
    Ok(figures)
}

/// Keeps this process and all that it starts to one processor, the last that it may use.
fn share_a_processor() -> Result<(), String> {
    let may = rustix::thread::sched_getaffinity(None).map_err(|error| error.to_string())?;
    let last = (0..CpuSet::MAX_CPU).rfind(|cpu| may.is_set(*cpu));
    let mut only = CpuSet::new();
    only.set(last.unwrap_or(0));
    rustix::thread::sched_setaffinity(None, &only).map_err(|error| error.to_string())
}

/// One server's turn in a round.
fn turn(kind: &Kind, folder: &Path, measured: &mut Measured) -> Result<(), String> {
    let tree = folder.join("tree");
    std::fs::create_dir_all(&tree).map_err(|error| error.to_string())?;
    if rustix::process::getuid().is_root() {
        // The peers act as the guest's user, which must be one who may write here.
        std::os::unix::fs::chown(&tree, Some(AGENT), Some(AGENT)).map_err(|e| e.to_string())?;
    }
    let server = Server::start(kind, folder)?;
    work::all(&server, &tree, |metric, value| {
        measured.entry(metric).or_default().push(value);
    })
}

/// Every metric of ours, the first, beside every peer's.
fn beside(kinds: &[Kind], all: &[Measured]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (metric, ours) in &all[0] {
        let unit = match metric {
            name if name.starts_with("req") => "1/s",
            name if name.starts_with("seq") => "MB/s",
            _ => "ms",
        };
        if kinds.len() == 1 {
            figures.push(Figure::alone(metric, unit, ours));
        }
        for (kind, peer) in kinds.iter().zip(all).skip(1) {
            figures.push(Figure::new(metric, unit, ours, &peer[metric], kind.name));
        }
    }
    figures
}
