//! The command line of each helper.

use super::{Role, shares, snapshot};
use crate::{confine, os};
use sbx_machine::args::{Life, Plan, arguments};
use sbx_wire::launch::{Launch, files, sockets};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

/// Variables a helper may inherit: where the host keeps its trusted certificates.
const KEPT: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Builds the command for `role`. QEMU's output, which carries the guest's console, goes to `console`.
pub(super) fn build(launch: &Launch, role: Role, console: &OwnedFd) -> io::Result<Command> {
    let mut command = match role {
        Role::Machine => machine(launch, console)?,
        Role::Gateway => gateway(launch)?,
        Role::Share(index) => share(launch, index)?,
    };
    command.stdin(Stdio::null()).current_dir("/").env_clear();
    command
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LANG", "C.UTF-8");
    command.envs(
        KEPT.iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?))),
    );
    os::tie_to_this_thread(&mut command);
    Ok(command)
}

fn machine(launch: &Launch, console: &OwnedFd) -> io::Result<Command> {
    let life = snapshot::life(launch);
    // A restored machine has the devices of the snapshot; its shares are plugged in when it runs.
    let shares = match life {
        Life::Boot => shares::tags(launch),
        Life::Save | Life::Restore => Vec::new(),
    };
    let args = arguments(&Plan {
        label: &format!("sbx-{}", launch.id),
        spec: &launch.machine,
        qmp: &launch.runtime.join(sockets::QMP),
        guest: &launch.runtime.join(sockets::GUEST),
        frames: &launch.runtime.join(sockets::FRAMES),
        shares: &shares,
        life,
    })
    .map_err(io::Error::other)?;
    let mut command = if launch.unconfined {
        Command::new(&launch.programs.qemu)
    } else {
        let mut command = Command::new("/proc/self/exe");
        command.arg(confine::FLAG).arg(&launch.dir);
        command
    };
    command
        .args(args)
        .stdout(console.try_clone()?)
        .stderr(console.try_clone()?);
    Ok(command)
}

fn gateway(launch: &Launch) -> io::Result<Command> {
    let mut command = Command::new(&launch.programs.gateway);
    command
        .arg("--frames")
        .arg(launch.runtime.join(sockets::FRAMES));
    command
        .arg("--control")
        .arg(launch.runtime.join(sockets::GATEWAY));
    command.arg("--file").arg(launch.dir.join(files::GATEWAY));
    command.arg("--records").arg(launch.dir.join(files::EGRESS));
    let log = launch.dir.join(files::GATEWAY_LOG);
    command.arg("--log").arg(&log);
    output_to(&mut command, &log)?;
    Ok(command)
}

fn share(launch: &Launch, index: u16) -> io::Result<Command> {
    let index = usize::from(index);
    let share = launch
        .shares
        .get(index)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(&launch.programs.share);
    command
        .arg("--socket")
        .arg(launch.runtime.join(sockets::share(index)));
    command.arg("--root").arg(&share.host);
    if share.read_only {
        command.arg("--read-only");
    }
    if !share.rules.is_empty() {
        let rules = serde_json::to_string(&share.rules)?;
        command.arg("--rules").arg(rules);
        let events = launch.dir.join(files::share_events(index));
        command.arg("--events").arg(events);
    }
    let log = launch.dir.join(files::share_log(index));
    command.arg("--log").arg(&log);
    output_to(&mut command, &log)?;
    Ok(command)
}

/// What a helper says past its own log (a panic, a failure before the log opens) goes to the same file.
fn output_to(command: &mut Command, log: &Path) -> io::Result<()> {
    let file = File::options().create(true).append(true).open(log)?;
    command.stdout(file.try_clone()?).stderr(file);
    Ok(())
}
