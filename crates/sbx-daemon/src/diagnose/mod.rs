//! `sbx-daemon --diagnose [--repair]`: looks at everything that a sandbox needs, without a daemon and beside one.
//!
//! | module | looks at |
//! |---|---|
//! | [`installation`] | programs and their versions |
//! | [`platform`] | QEMU, accelerator, namespaces, jail, memory, clock |
//! | [`storage`] | folders, space, database, images |
//! | [`sandboxes`] | each sandbox's folder and disks |
//! | [`strays`] | processes and sockets without an owner |
//! | [`connection`] | supervisors and gateways |
//!
//! What is wrong and can be mended without losing what a user made is a [`Fix`]. Most of the state is mended by the
//! daemon when it starts: a broken database is rebuilt, what was half made is removed. That is one implementation, so
//! the fix for those is a fresh daemon, and the command sees to it.

mod connection;
mod fix;
mod installation;
mod platform;
mod sandboxes;
mod storage;
mod strays;

use crate::clock;
use fix::Fix;
use sbx_wire::diagnosis::{Check, Diagnosis, Repair};
use sbx_wire::home::Home;
use std::path::Path;

/// A check, and what would mend what it found.
#[derive(Debug)]
struct Finding {
    check: Check,
    fixes: Vec<Fix>,
}

impl From<Check> for Finding {
    fn from(check: Check) -> Self {
        Self {
            check,
            fixes: Vec::new(),
        }
    }
}

impl Finding {
    fn with(check: Check, fix: Fix) -> Self {
        Self {
            check,
            fixes: vec![fix],
        }
    }
}

/// Looks at everything. `repair`: also mends what can be mended, and looks again.
pub async fn diagnose(home: &Home, programs: &Path, repair: bool) -> Diagnosis {
    let mut findings = look(home, programs).await;
    let mut repairs = Vec::new();
    for finding in &findings {
        for fix in &finding.fixes {
            let done = repair.then(|| fix.apply());
            repairs.push(Repair {
                check: finding.check.name.clone(),
                action: fix.to_string(),
                done: matches!(done, Some(Ok(()))) && *fix != Fix::FreshDaemon,
                problem: done.and_then(Result::err).map(|error| error.to_string()),
            });
        }
    }
    let mut diagnosis = Diagnosis::new(clock::now(), env!("CARGO_PKG_VERSION"));
    let fresh = findings.iter().flat_map(|finding| &finding.fixes);
    diagnosis.needs_fresh_daemon = fresh.clone().any(|fix| *fix == Fix::FreshDaemon);
    if repairs.iter().any(|repair| repair.done) {
        findings = look(home, programs).await;
    }
    diagnosis.extend(findings.into_iter().map(|finding| finding.check));
    diagnosis.repairs = repairs;
    diagnosis
}

async fn look(home: &Home, programs: &Path) -> Vec<Finding> {
    let mut found = installation::look(programs).await;
    found.extend(platform::look(home).await);
    found.extend(storage::look(home));
    found.extend(sandboxes::look(home).await);
    found.extend(strays::look(home));
    found.extend(connection::look(home).await);
    found
}
