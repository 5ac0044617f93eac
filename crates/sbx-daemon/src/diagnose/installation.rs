//! Programs beside the daemon, QEMU, and what images are built with.

use super::Finding;
use sbx_machine::qemu;
use sbx_wire::diagnosis::{Check, Group, Outcome};
use sbx_wire::report::Report;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Programs that tell their version.
const OURS: [&str; 5] = [
    "sbx",
    "sbx-supervisor",
    "sbx-gateway",
    "sbx-share",
    "sbx-image-worker",
];
/// Time for one of them to tell it.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn look(folder: &Path) -> Vec<Finding> {
    vec![programs(folder).await.into(), qemu_check().await.into()]
}

/// A check that failed with a report.
pub(super) fn failed(group: Group, name: &str, report: Report) -> Check {
    let check = Check::new(group, name, Outcome::Fail, report.message);
    match report.hint {
        Some(hint) => check.hint(hint),
        None => check,
    }
}

async fn programs(folder: &Path) -> Check {
    let name = "programs";
    let ours = env!("CARGO_PKG_VERSION");
    let mut wrong = Vec::new();
    for program in OURS {
        match version(&folder.join(program)).await {
            Ok(version) if version == ours => {}
            Ok(version) => wrong.push(format!("{program} is of version {version}")),
            Err(why) => wrong.push(format!("{program}: {why}")),
        }
    }
    // The guest's program is made to be process 1 of a machine: it is looked at, not run.
    let guest = folder.join("sbx-guest.static");
    if !guest.is_file() {
        wrong.push("sbx-guest.static is not there".to_owned());
    }
    if wrong.is_empty() {
        let message = format!("all of version {ours}");
        return Check::new(Group::Installation, name, Outcome::Pass, message)
            .detail(folder.display().to_string());
    }
    let message = format!("{} do not belong to version {ours}", folder.display());
    Check::new(Group::Installation, name, Outcome::Fail, message)
        .detail(wrong.join("; "))
        .hint("./dev setup, then sbx daemon restart")
}

async fn version(program: &Path) -> Result<String, String> {
    if !program.is_file() {
        return Err("not there".to_owned());
    }
    let mut command = Command::new(program);
    command.arg("--version").env_clear().stdin(Stdio::null());
    let output = command.kill_on_drop(true).output();
    let output = tokio::time::timeout(LIMIT, output)
        .await
        .map_err(|_| "does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.split_whitespace().nth(1) {
        Some(version) if output.status.success() => Ok(version.to_owned()),
        _ => Err("tells no version".to_owned()),
    }
}

async fn qemu_check() -> Check {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = async {
        let program = qemu::find("qemu-system-x86_64", &path)?;
        qemu::find("qemu-img", &path)?;
        let version = qemu::version(&program).await?;
        Ok::<_, qemu::QemuError>((program, version))
    };
    match found.await {
        Ok((program, version)) => Check::new(
            Group::Installation,
            "qemu",
            Outcome::Pass,
            format!("QEMU {version}"),
        )
        .detail(program.display().to_string()),
        Err(error) => failed(Group::Installation, "qemu", error.into()),
    }
}
