//! Our machine with further devices of a peer: in one guest at the same time, so that nothing else differs.
//!
//! `sbx` finds QEMU by the search path. There it finds this program under QEMU's name, which adds the devices to the
//! arguments of a machine and becomes the real QEMU.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sbx_e2e::Installation;
use sbx_e2e::installation::run as run_command;
use serde::{Deserialize, Serialize};

/// QEMU's name, and that of this program in front of it.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// What the program under that name works from; beside it.
const NOTES: &str = "front.json";

#[derive(Debug, Serialize, Deserialize)]
struct Front {
    qemu: PathBuf,
    more: Vec<String>,
}

/// Puts this program into a folder below this one, under QEMU's name, to add these arguments. Returns the folder.
pub(crate) fn put(folder: &Path, more: Vec<String>) -> Result<PathBuf, String> {
    let place = folder.join("front");
    std::fs::create_dir_all(&place).map_err(|e| e.to_string())?;
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    std::fs::copy(own, place.join(QEMU)).map_err(|e| e.to_string())?;
    let front = Front {
        qemu: find(QEMU)?,
        more,
    };
    let text = serde_json::to_vec(&front).map_err(|e| e.to_string())?;
    std::fs::write(place.join(NOTES), text).map_err(|e| e.to_string())?;
    Ok(place)
}

/// Starts the installation's daemon, which hands its search path on to whatever starts machines, with `front` first in it.
/// Machines boot: one that is made ready in the background would take its share of the processors.
pub(crate) fn start_daemon(installation: &Installation, front: &Path) -> Result<(), String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", front.display());
    let mut first = installation.command(["policy", "init", "deny-all"]);
    first.env("PATH", path);
    run_command(first, &[]).success()?;
    // This program reads its notes, and the peers' devices connect to the host: neither is for a confined QEMU.
    for key in ["sandbox.warmStart", "machine.confine"] {
        let off = ["settings", "set", key, "false"];
        installation.sbx(off).success()?;
    }
    Ok(())
}

fn find(program: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("there is no {program}"))
}

/// The program under QEMU's name. Comes back only when it cannot become QEMU.
pub(crate) fn become_qemu(arguments: &[String]) -> String {
    let front = || {
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        let folder = own.parent().unwrap_or(Path::new("."));
        let text = std::fs::read(folder.join(NOTES)).map_err(|e| e.to_string())?;
        serde_json::from_slice::<Front>(&text).map_err(|e| e.to_string())
    };
    let front: Front = match front() {
        Ok(front) => front,
        Err(error) => return error,
    };
    let mut command = Command::new(front.qemu);
    command.args(arguments);
    // Questions for the version and the probe's machine have no card.
    if arguments.iter().any(|word| word == "-netdev") {
        command.args(front.more);
    }
    format!("cannot become QEMU: {}", command.exec())
}
