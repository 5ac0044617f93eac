//! `bench density`: many sandboxes on one machine. 20 are made, 10 of them run at once, each with its Docker
//! Engine ready and nothing to do.

use crate::figure::Figure;
use crate::start::await_snapshot;
use crate::tool::cache;
use sbx_e2e::Installation;
use serde_json::Value;
use std::time::{Duration, Instant};

const MADE: usize = 20;
const RUNNING: usize = 10;
/// For everything to come to rest, and then for the daemon's processor time.
const REST: Duration = Duration::from_secs(20);
/// Ticks of `/proc/PID/stat` in a second (`proc_pid_stat(5)`, `sysconf(_SC_CLK_TCK)`: 100 on every Linux of today).
const TICKS: f64 = 100.0;

pub(crate) fn run() -> Result<Vec<Figure>, String> {
    let cache = cache("")?;
    let root = tempfile::Builder::new()
        .prefix("sbx-bench-")
        .tempdir()
        .map_err(|e| e.to_string())?;
    let installation = Installation::new(root.path(), &cache, None)?;
    installation.sbx(["policy", "init", "deny-all"]).success()?;
    installation
        .sbx(["settings", "set", "machine.kernel", "stock"])
        .success()?;
    create(&installation, "first")?;
    await_snapshot(&installation)?;
    installation.sbx(["rm", "--force", "first"]).success()?;
    let result = measure(&installation);
    installation.tear_down();
    result
}

fn create(installation: &Installation, name: &str) -> Result<f64, String> {
    let create = installation.sbx([
        "create", "shell", "--name", name, "--memory", "2g", "--cpus", "2",
    ]);
    let took = create.took.as_secs_f64();
    create.success().map(|_| took)
}

fn measure(installation: &Installation) -> Result<Vec<Figure>, String> {
    let names: Vec<String> = (0..MADE).map(|n| format!("density-{n}")).collect();
    let mut starts = Vec::new();
    for (index, name) in names.iter().enumerate() {
        starts.push(create(installation, name)?);
        if index < MADE - RUNNING {
            installation.sbx(["stop", name]).success()?;
        }
    }
    let running = &names[MADE - RUNNING..];
    for name in running {
        let engine = installation.sbx(["exec", name, "docker", "version"]);
        engine.success()?;
    }
    std::thread::park_timeout(REST);
    let mut memory = Vec::new();
    for name in running {
        let sandbox = installation.sbx(["inspect", name, "--json"]).json()?;
        memory.push(pss_mib(&sandbox["processes"])?);
    }
    let status = installation.sbx(["daemon", "status", "--json"]).json()?;
    let daemon = status["pid"].as_u64().ok_or("the daemon has no pid")?;
    let (ticks, since) = (processor_ticks(daemon)?, Instant::now());
    std::thread::park_timeout(REST);
    let used = (processor_ticks(daemon)? - ticks) / TICKS;
    let percent = 100.0 * used / since.elapsed().as_secs_f64();
    let listed = installation.sbx(["ls", "--json"]).json()?;
    let count = listed["sandboxes"].as_array().map_or(0, Vec::len);
    if count != MADE {
        return Err(format!("{count} sandboxes are listed, {MADE} were made"));
    }
    Ok(vec![
        Figure::alone("idle_pss_mib", "MiB", &memory),
        Figure::alone("density_create_s", "s", &starts),
        Figure::alone("idle_daemon_cpu_percent", "%", &[percent]),
    ])
}

/// Memory of all processes of a sandbox, each page shared with others counted in parts (`proc_pid_smaps(5)`).
fn pss_mib(processes: &Value) -> Result<f64, String> {
    let processes = processes.as_object().ok_or("no processes")?;
    let mut kib = 0.0;
    for pid in processes.values().filter_map(Value::as_u64) {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let figure = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kib += figure.ok_or(format!("{path} has no Pss"))?;
    }
    Ok(kib / 1024.0)
}

/// User and system time of a process so far.
fn processor_ticks(pid: u64) -> Result<f64, String> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let field = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
    };
    field(11)
        .zip(field(12))
        .map(|(user, system)| user + system)
        .ok_or(format!("{path} is cut"))
}
