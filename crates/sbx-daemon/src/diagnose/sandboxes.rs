//! Each sandbox's folder: its document, its disks and what those lie on.

use super::Finding;
use super::fix::Fix;
use crate::files;
use crate::lifecycle;
use crate::reconcile;
use crate::record::{Record, Unusable};
use crate::salvage;
use sbx_machine::qemu;
use sbx_wire::diagnosis::{Check, Group, Outcome};
use sbx_wire::home::Home;
use sbx_wire::launch::files::{ALIVE, DOCKER, LOCK, SANDBOX, UPPER};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Time for one look at a disk: only its metadata is read.
const LIMIT: Duration = Duration::from_mins(2);
/// Most that `qemu-img` is listened to, bytes.
const MAX_OUTPUT: usize = 256 << 10;

/// Folders of all sandboxes, with their ids.
pub(super) fn folders(home: &Home) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(home.sandboxes()).into_iter().flatten();
    let mut found: Vec<(String, PathBuf)> = entries
        .flatten()
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            )
        })
        .filter(|(id, _)| reconcile::is_id(id))
        .collect();
    found.sort();
    found
}

/// Whether a process of the sandbox runs.
pub(super) fn runs(dir: &Path) -> bool {
    [LOCK, ALIVE]
        .iter()
        .any(|name| !lifecycle::is_free(&dir.join(name)))
}

/// Whether no sandbox of this home runs.
pub(super) fn nothing_runs(home: &Home) -> bool {
    !folders(home).iter().any(|(_, dir)| runs(dir))
}

fn record(id: &str, dir: &Path) -> Result<Record, Unusable> {
    match files::read(&dir.join(SANDBOX)) {
        Ok(Some(text)) => Record::parse(id, &text),
        Ok(None) => Err(Unusable::Broken("it is missing".to_owned())),
        Err(error) => Err(Unusable::Broken(error.to_string())),
    }
}

/// Names of sandboxes with the keys and builds of their images.
pub(super) fn images_needed(home: &Home) -> Vec<(String, String, String)> {
    let found = folders(home).into_iter();
    found
        .filter_map(|(id, dir)| record(&id, &dir).ok())
        .map(|record| {
            let name = record.name.as_str().to_owned();
            (name, record.image, record.image_build)
        })
        .collect()
}

pub(super) async fn look(home: &Home) -> Vec<Finding> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let qemu_img = qemu::find("qemu-img", &path).ok();
    let mut found = Vec::new();
    for (id, dir) in folders(home) {
        match record(&id, &dir) {
            Ok(record) => {
                let name = format!("sandbox:{}", record.name);
                found.push(disks(&name, &dir, qemu_img.as_deref()).await);
            }
            // Being made, or a leftover.
            Err(_) if !dir.join(SANDBOX).exists() && reconcile::is_half_made(&dir) => {}
            Err(why) => found.push(damaged(&id, &dir, &why)),
        }
    }
    if found.is_empty() {
        found.push(Check::new(Group::Storage, "sandboxes", Outcome::Skip, "there are none").into());
    }
    found
}

/// The daemon mends the document from its database where it can, and lists the sandbox as damaged where it cannot.
fn damaged(id: &str, dir: &Path, why: &Unusable) -> Finding {
    let salvaged = salvage::salvage(dir, id, None).and_then(|salvaged| salvaged.name);
    let name = salvaged.map_or_else(|| format!("damaged-{id}"), |name| name.to_string());
    let path = dir.join(SANDBOX);
    let check = Check::new(
        Group::Storage,
        &format!("sandbox:{name}"),
        Outcome::Fail,
        format!("{}: {why}", path.display()),
    );
    match why {
        Unusable::Newer(_) => check.hint("use that version of sbx").into(),
        Unusable::Other(_) => check
            .hint("it is a copy of another sandbox's folder: move it out of the state folder, or sbx rm it")
            .into(),
        Unusable::Broken(_) => Finding::with(
            check
                .detail("its disks and its policy are not touched")
                .hint("sbx diagnose --repair mends it from the database, if that knows it"),
            Fix::FreshDaemon,
        ),
    }
}

async fn disks(name: &str, dir: &Path, qemu_img: Option<&Path>) -> Finding {
    let check = |status, message: String| Check::new(Group::Storage, name, status, message);
    for disk in [UPPER, DOCKER] {
        let path = dir.join(disk);
        if !path.is_file() {
            return check(Outcome::Fail, format!("{} is missing", path.display()))
                .hint("put it back from a backup; without it the sandbox cannot start")
                .into();
        }
    }
    if runs(dir) {
        return check(
            Outcome::Pass,
            "it runs; disks are looked at while it does not".to_owned(),
        )
        .into();
    }
    let Some(qemu_img) = qemu_img else {
        return check(
            Outcome::Skip,
            "there is no qemu-img to look at its disks".to_owned(),
        )
        .into();
    };
    let mut fixes = Vec::new();
    for disk in [UPPER, DOCKER] {
        let path = dir.join(disk);
        match examine(qemu_img, &path).await {
            Disk::Good => {}
            Disk::Leaks => fixes.push(Fix::Leaks {
                qemu_img: qemu_img.to_owned(),
                dir: dir.to_owned(),
                disk: path,
            }),
            Disk::Backing(missing) => {
                let message = format!("{} lies on {missing}, which is missing", path.display());
                return check(Outcome::Fail, message)
                    .hint("put the cache folder back; what was written inside is still there")
                    .into();
            }
            Disk::Broken(why) => {
                return check(Outcome::Fail, format!("{} is broken", path.display()))
                    .detail(why)
                    .hint(format!(
                        "take a copy of it, then try qemu-img check -r all {}",
                        path.display()
                    ))
                    .into();
            }
        }
    }
    let check = if fixes.is_empty() {
        check(Outcome::Pass, "its document and disks are whole".to_owned())
    } else {
        check(
            Outcome::Warn,
            "a disk holds space that nothing uses".to_owned(),
        )
        .hint("sbx diagnose --repair")
    };
    Finding { check, fixes }
}

enum Disk {
    Good,
    Leaks,
    Backing(String),
    Broken(String),
}

async fn examine(qemu_img: &Path, disk: &Path) -> Disk {
    let info = run(qemu_img, &["info", "--output=json"], disk).await;
    let (_, text, error) = match info {
        Ok(output) => output,
        Err(why) => return Disk::Broken(why),
    };
    let info: Value = serde_json::from_slice(&text).unwrap_or_default();
    if let Some(backing) = info["full-backing-filename"].as_str() {
        if !Path::new(backing).is_file() {
            return Disk::Backing(backing.to_owned());
        }
    } else if info.is_null() {
        return Disk::Broken(error);
    }
    // Exit codes as in qemu-img(1): 2 errors, 3 leaked clusters.
    match run(qemu_img, &["check", "-q", "-f", "qcow2"], disk).await {
        Ok((Some(0), ..)) => Disk::Good,
        Ok((Some(3), ..)) => Disk::Leaks,
        Ok((_, _, error)) => Disk::Broken(error),
        Err(why) => Disk::Broken(why),
    }
}

/// Exit code, standard output, and standard error as text.
async fn run(
    program: &Path,
    arguments: &[&str],
    disk: &Path,
) -> Result<(Option<i32>, Vec<u8>, String), String> {
    let mut command = Command::new(program);
    command.args(arguments).arg(disk).stdin(Stdio::null());
    let output = tokio::time::timeout(LIMIT, command.kill_on_drop(true).output())
        .await
        .map_err(|_| "qemu-img does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let mut said = output.stderr;
    said.truncate(MAX_OUTPUT);
    let said = String::from_utf8_lossy(&said);
    let line: String = said
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    Ok((output.status.code(), output.stdout, line))
}
