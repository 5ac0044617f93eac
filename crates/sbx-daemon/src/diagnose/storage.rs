//! Folders, space, database, images.

use super::Finding;
use super::fix::Fix;
use super::installation::failed;
use crate::create;
use crate::files::{self, Found};
use crate::reconcile::{self, REMOVING};
use crate::store::health::{self, Health};
use crate::store::{DATABASE, POLICY, Policy};
use rustix::fs::statvfs;
use sbx_image::Store;
use sbx_wire::diagnosis::{Check, Group, Outcome};
use sbx_wire::home::Home;
use sbx_wire::launch;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Free space below which it is worth saying, MiB.
const LITTLE_MIB: u64 = 4096;
/// Longest path of a Unix socket (`unix(7)`), without the final NUL.
const LONGEST_SOCKET: usize = 107;

fn check(name: &str, status: Outcome, message: impl Into<String>) -> Check {
    Check::new(Group::Storage, name, status, message)
}

pub(super) fn look(home: &Home) -> Vec<Finding> {
    vec![
        folders(home),
        runtime(home),
        space("state-space", &home.state).into(),
        space("cache-space", &home.cache).into(),
        database(home),
        leftovers(home),
        images(home).into(),
    ]
}

/// Ours, and closed to others: what lies in them is secret.
fn folders(home: &Home) -> Finding {
    let name = "folders";
    let mut fixes = Vec::new();
    let secrets = home.state.join("secrets");
    for path in [&home.state, &home.cache, &home.config, &secrets] {
        let meta = match path.symlink_metadata() {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                let message = format!("{}: {error}", path.display());
                return check(name, Outcome::Fail, message)
                    .hint("make it readable for you")
                    .into();
            }
        };
        if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() {
            let message = format!("{} is no folder of yours", path.display());
            return check(name, Outcome::Fail, message)
                .hint("find out who made it, or point SBX_HOME at another folder")
                .into();
        }
        if meta.mode() & 0o077 != 0 {
            fixes.push(Fix::Private(path.clone()));
        }
    }
    let check = match fixes.first() {
        None => check(
            name,
            Outcome::Pass,
            "state, cache and configuration are yours alone",
        ),
        Some(Fix::Private(path)) => {
            let message = format!("{} is open to other users", path.display());
            check(name, Outcome::Warn, message).hint("sbx diagnose --repair")
        }
        Some(_) => check(name, Outcome::Skip, "not looked at"),
    };
    Finding { check, fixes }
}

fn runtime(home: &Home) -> Finding {
    let name = "runtime-folder";
    let path = &home.runtime;
    let longest = home
        .sandbox_runtime("000000000000")
        .join(launch::sockets::SUPERVISOR);
    if longest.as_os_str().len() > LONGEST_SOCKET {
        let message = format!("{} is too long for a socket", longest.display());
        return check(name, Outcome::Fail, message)
            .hint("set XDG_RUNTIME_DIR to a short path")
            .into();
    }
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return check(name, Outcome::Pass, "made when the daemon starts").into();
        }
        Err(error) => return check(name, Outcome::Fail, error.to_string()).into(),
    };
    let ours = meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw();
    let closed = meta.mode().trailing_zeros() >= 6;
    if ours && closed {
        return check(name, Outcome::Pass, path.display().to_string()).into();
    }
    let message = format!("{} is not yours alone", path.display());
    let found = check(name, Outcome::Fail, message);
    if ours && super::sandboxes::nothing_runs(home) {
        // Nobody listens in there, so whatever others may have put there is not needed.
        return Finding::with(
            found.hint("sbx diagnose --repair"),
            Fix::Sockets(path.clone()),
        );
    }
    found
        .hint(format!(
            "find out who made {}, then remove it",
            path.display()
        ))
        .into()
}

fn space(name: &str, path: &Path) -> Check {
    // The next folder above one that is not there yet.
    let Some(there) = path.ancestors().find(|folder| folder.exists()) else {
        return check(name, Outcome::Skip, "there is no such folder");
    };
    let stat = match statvfs(there) {
        Ok(stat) => stat,
        Err(error) => return check(name, Outcome::Skip, error.to_string()),
    };
    let mib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    let message = format!("{mib} MiB are free for {}", path.display());
    let advice =
        "free space on that disk; sbx prune --dry-run names sandboxes that are not running";
    if stat.f_files > 0 && stat.f_favail == 0 {
        let message = format!(
            "no more files can be made on the disk of {}",
            path.display()
        );
        return check(name, Outcome::Fail, message).hint(advice);
    }
    match mib {
        0..create::MIN_FREE_MIB => check(name, Outcome::Fail, message).hint(advice),
        create::MIN_FREE_MIB..LITTLE_MIB => check(name, Outcome::Warn, message).hint(advice),
        _ => check(name, Outcome::Pass, message),
    }
}

fn database(home: &Home) -> Finding {
    let name = "database";
    let path = home.state.join(DATABASE);
    let rebuilt = "sbx diagnose --repair: it is rebuilt from the sandboxes' folders";
    match health::check(&path) {
        Health::Missing if reconcile::has_sandboxes(home) => Finding::with(
            check(
                name,
                Outcome::Warn,
                "there is none, and there are sandboxes",
            )
            .hint(rebuilt),
            Fix::FreshDaemon,
        ),
        Health::Missing => check(name, Outcome::Skip, "there is none yet").into(),
        Health::Good { sandboxes } => check(
            name,
            Outcome::Pass,
            format!("whole, with {sandboxes} sandboxes"),
        )
        .into(),
        Health::Interrupted => Finding::with(
            check(
                name,
                Outcome::Warn,
                "a change was interrupted and is not taken back yet",
            ),
            Fix::FreshDaemon,
        ),
        Health::Broken(why) => Finding::with(
            check(name, Outcome::Fail, format!("{} is broken", path.display()))
                .detail(why)
                .hint(rebuilt),
            Fix::FreshDaemon,
        ),
        Health::Newer(version) => newer(home, version),
    }
}

fn newer(home: &Home, version: i64) -> Finding {
    let found = check(
        "database",
        Outcome::Fail,
        format!("it was written by a newer sbx (schema {version})"),
    )
    .hint("use that version of sbx, or sbx diagnose --repair: it is kept aside and rebuilt");
    let mut fixes = Vec::new();
    let mirror = home.state.join(POLICY);
    if matches!(files::read_json::<Policy>(&mirror), Found::Corrupt(_)) {
        fixes.push(Fix::PolicyAside(mirror));
    }
    fixes.push(Fix::FreshDaemon);
    Finding {
        check: found,
        fixes,
    }
}

/// What an interrupted creation, removal or change left. The daemon clears it away when it starts.
fn leftovers(home: &Home) -> Finding {
    let name = "leftovers";
    let mut found = Vec::new();
    for entry in fs::read_dir(home.sandboxes())
        .into_iter()
        .flatten()
        .flatten()
    {
        let folder = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let document = path.join(launch::files::SANDBOX);
        if folder.starts_with(REMOVING) {
            found.push(format!("{folder} (half removed)"));
        } else if reconcile::is_id(&folder) && !document.exists() && reconcile::is_half_made(&path)
        {
            // One that is being made just now looks the same.
            if age_s(&path).is_none_or(|age| age > 3600) {
                found.push(format!("{folder} (half made)"));
            }
        } else if !reconcile::is_id(&folder) {
            let message = format!("{} is no sandbox and is left alone", path.display());
            return check(name, Outcome::Warn, message).into();
        }
    }
    if found.is_empty() {
        return check(name, Outcome::Pass, "nothing was left half done").into();
    }
    let message = format!(
        "{} folders were left by something that was interrupted",
        found.len()
    );
    Finding::with(
        check(name, Outcome::Warn, message)
            .detail(found.join(", "))
            .hint("sbx diagnose --repair, or the next start of the daemon"),
        Fix::FreshDaemon,
    )
}

/// Seconds since the folder changed; `None` when that lies in the future.
fn age_s(path: &Path) -> Option<u64> {
    let modified = path.metadata().and_then(|meta| meta.modified()).ok()?;
    modified.elapsed().ok().map(|age| age.as_secs())
}

fn images(home: &Home) -> Check {
    let name = "images";
    let store = Store::new(&home.cache);
    let needed = super::sandboxes::images_needed(home);
    let (mut whole, mut broken) = (0, Vec::new());
    let keys = match store.keys() {
        Ok(keys) => keys,
        Err(error) => return failed(Group::Storage, name, error.report()),
    };
    for key in &keys {
        if store.is_whole(key) {
            whole += 1;
        } else {
            broken.push(key.as_str());
        }
    }
    let mut lost: Vec<String> = Vec::new();
    for (sandbox, key, build) in &needed {
        if store.open_build(key, build).is_none() {
            lost.push(format!("{key}, needed by sandbox '{sandbox}'"));
        }
    }
    if !lost.is_empty() {
        let message = format!(
            "{} images that sandboxes lie on are missing, broken or built anew",
            lost.len()
        );
        return check(name, Outcome::Fail, message)
            .detail(lost.join("; "))
            .hint("put the cache folder back; what was written inside is still in each sandbox's folder");
    }
    if !broken.is_empty() {
        let message = format!("{} are broken, and no sandbox needs them", broken.len());
        return check(name, Outcome::Warn, message)
            .detail(broken.join(", "))
            .hint("sbx prune --images removes them; they are built again when needed");
    }
    check(name, Outcome::Pass, format!("{whole} images are whole"))
}
