//! Proxies as processes: start, readiness, processor time, memory, end.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::tree::tree;

/// A proxy has to listen after this.
const READY: Duration = Duration::from_secs(30);

/// A proxy that runs. It ends with the value.
pub(crate) struct Proxy {
    /// Name in the figures.
    pub(crate) name: &'static str,
    /// Where clients find it.
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for pid in tree(self.child.id()).into_iter().rev() {
            if let Some(pid) = i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw)
            {
                // It may be gone already.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

impl Proxy {
    /// Starts a program whose output goes to a file.
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        address: SocketAddr,
        output: &Path,
    ) -> Result<Self, String> {
        let file = std::fs::File::create(output).map_err(|e| e.to_string())?;
        let errors = file.try_clone().map_err(|e| e.to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok(Self {
            name,
            address,
            child,
        })
    }

    /// Waits until it accepts connections.
    pub(crate) fn listening(mut self, output: &Path) -> Result<Self, String> {
        let started = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait().map_err(|e| e.to_string())?;
            if ended.is_some() || started.elapsed() > READY {
                let said = std::fs::read_to_string(output).unwrap_or_default();
                return Err(format!("{} does not listen: {said}", self.name));
            }
            // Nothing announces it.
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(self)
    }

    /// Seconds of processor time used so far, helpers included.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let ticks: u64 = tree(self.child.id()).into_iter().map(ticks).sum();
        #[expect(clippy::cast_precision_loss, reason = "ticks are few")]
        let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        seconds
    }

    /// Resident memory in MiB, helpers included.
    pub(crate) fn resident_mib(&self) -> f64 {
        let kib: u32 = tree(self.child.id()).into_iter().map(resident_kib).sum();
        f64::from(kib) / 1024.0
    }
}

/// User and system time in clock ticks, fields 14 and 15 of `/proc/PID/stat`.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before may hold spaces; after its bracket comes field 3.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = rest.split_whitespace().collect();
    [11, 12]
        .into_iter()
        .filter_map(|at| fields.get(at).and_then(|field| field.parse::<u64>().ok()))
        .sum()
}

fn resident_kib(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0)
}
