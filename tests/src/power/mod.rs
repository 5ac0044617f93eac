//! Power cuts of a sandbox's disk: what it was asked to do is logged, and the disk made again as it would be after a
//! cut at any point.
//!
//! | module | what it knows |
//! |---|---|
//! | [`run`] | a sandbox whose disk is logged, at work until its machine is killed |
//! | [`disk`] | the disk after a cut: its file system and the files on it |
//! | [`promise`] | what has to be there and whole |

pub mod disk;
pub mod promise;
pub mod run;

use crate::Installation;
use disk::{Layer, Replay};
use run::Logged;
use std::fs;

/// Checks up to `count` cuts on each side of the qcow2 layer; `each` is told about every one. Returns what was seen, for
/// people.
///
/// # Errors
/// The first promise that was broken, with the cut.
pub fn check(
    logged: &Logged,
    installation: &Installation,
    count: usize,
    mut each: impl FnMut(&str),
) -> Result<String, String> {
    let mut report = format!("{} items confirmed", logged.confirmed + 1);
    for (layer, side) in [
        (Layer::Guest, "the guest's requests"),
        (Layer::File, "QEMU's requests to the qcow2 file"),
    ] {
        let mut replay = Replay::open(&logged.logs, layer)?;
        let cuts = replay.cuts(count);
        let mut latest = None;
        for cut in &cuts {
            let what = format!("{side}, {cut:?}");
            let to = logged.logs.join("after");
            let broken = |why: String| format!("after a power cut ({what}): {why}");
            let after = replay.after(*cut, &to).map_err(broken)?;
            promise::files(&after).map_err(broken)?;
            let elsewhere = installation.elsewhere(&after.files);
            promise::store(&after, &elsewhere, logged.planted).map_err(broken)?;
            each(&format!(
                "{what}: everything up to item {:?}",
                after.confirmed
            ));
            latest = after.confirmed;
            fs::remove_dir_all(&to).map_err(|e| e.to_string())?;
        }
        // The last flush is one that the guest had before it said the last item.
        if latest.is_none_or(|item| item + 1 < logged.confirmed) {
            return Err(format!(
                "{side}: the log ends at item {latest:?} of {}",
                logged.confirmed
            ));
        }
        let all = replay.flushes();
        report.push_str(&format!(
            "; {side}: {} of {all} flushes cut at, half of them torn",
            cuts.len()
        ));
    }
    Ok(report)
}
