//! A sandbox whose Docker data disk is logged, at work until its machine is killed.

use crate::Installation;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The logged disk, by its name on QEMU's command line.
const DISK: &str = "docker";
/// Where the work is done: on that disk.
pub const INSIDE: &str = "/var/lib/docker/power";
const WORKLOAD: &str = include_str!("workload.py");
const QEMU: &str = "qemu-system-x86_64";

/// What was logged.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Folder with the logs and with the disk as it was before.
    pub logs: PathBuf,
    /// Items that the guest said are safe, when its machine was killed.
    pub confirmed: u64,
    /// Sandboxes that there were in the beginning.
    pub planted: u64,
}

/// Has machines that `installation` starts from now on log their disk into a folder below `root`.
///
/// # Errors
/// What could not be prepared.
pub fn prepare(installation: &mut Installation, root: &Path) -> Result<PathBuf, String> {
    let text = |error: std::io::Error| error.to_string();
    let logs = root.join("logs");
    let programs = root.join("logged-qemu");
    for folder in [&logs, &programs] {
        fs::create_dir_all(folder).map_err(text)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(text)?;
    }
    installation.own(&logs)?;
    let real = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&real).map(|folder| folder.join(QEMU));
    let qemu = found
        .find(|path| path.is_file())
        .ok_or("there is no QEMU")?;
    let stand_in = programs.join(QEMU);
    let built = crate::installation::built_programs()?.join("sbx-logged-qemu");
    fs::copy(&built, &stand_in).map_err(|error| format!("{}: {error}", built.display()))?;
    let plan = serde_json::json!({"qemu": qemu, "disk": DISK, "logs": logs});
    fs::write(programs.join("logged.json"), plan.to_string()).map_err(text)?;
    installation.find_first(&programs);
    // Started anew, the daemon looks there too; a snapshot's machine would log as well.
    installation.sbx(["daemon", "stop"]).success()?;
    for (key, value) in [
        // It writes logs.
        ("machine.confine", "off"),
        ("sandbox.warmStart", "off"),
        ("sandbox.disk.dockerVolume", "1g"),
    ] {
        installation
            .sbx(["settings", "set", key, value])
            .success()?;
    }
    Ok(logs)
}

/// Has the sandbox `name`, whose workspace on the host is `workspace`, confirm `items` items, and kills its machine
/// while it goes on.
///
/// # Errors
/// What did not work.
pub fn work(
    installation: &Installation,
    (name, workspace): (&str, &Path),
    items: u64,
    logs: &Path,
) -> Result<Logged, String> {
    installation.write(&workspace.join("workload.py"), WORKLOAD.as_bytes())?;
    for program in ["sbx", "sbx-daemon"] {
        let to = workspace.join(program);
        fs::copy(installation.built(program), &to).map_err(|e| format!("{program}: {e}"))?;
        installation.own(&to)?;
    }
    // It is killed before it runs out of them.
    let planted = items + 10;
    let line = format!("exec sudo python3 workload.py {INSIDE} \"$PWD\" {planted}");
    let mut command = installation.command(["exec", name, "bash", "-c", &line]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let machine = machine(installation, name)?;
    let mut confirmed = None;
    for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
        confirmed = line
            .map_err(|e| e.to_string())?
            .parse::<u64>()
            .ok()
            .or(confirmed);
        if confirmed.is_some_and(|item| item + 1 >= items) {
            rustix::process::kill_process(machine, rustix::process::Signal::KILL)
                .map_err(|e| e.to_string())?;
            break;
        }
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    confirmed
        .filter(|item| item + 1 >= items)
        .map(|confirmed| Logged {
            logs: logs.into(),
            confirmed,
            planted,
        })
        .ok_or_else(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("the work inside ended after {confirmed:?}: {said}")
        })
}

fn machine(installation: &Installation, name: &str) -> Result<rustix::process::Pid, String> {
    let inspect = installation.sbx(["inspect", name, "--json"]).json()?;
    let pid = inspect["processes"]["machine"].as_i64();
    pid.and_then(|pid| i32::try_from(pid).ok())
        .and_then(rustix::process::Pid::from_raw)
        .ok_or_else(|| format!("no machine in {inspect:#}"))
}
