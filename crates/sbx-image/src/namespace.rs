//! Namespaces for a build: the caller becomes root over its own and its subordinate ids, with mounts and
//! process ids of its own. Whatever is mounted or started in there ends with it, and it ends with the worker.

use crate::ImageError;
use crate::run;
use std::fs;
use std::process::Command;

/// Fewest subordinate ids that hold all ids of a Debian system.
const MIN_IDS: u64 = 65_536;

/// True when the build runs as root, which needs no user namespace.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `unshare` up to the program to run: `setpriv` ends it with the process that started it.
pub(crate) fn enter() -> Command {
    let mut command = run::command("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare"]);
    if !is_root() {
        // Our own id becomes root inside, so that what it writes belongs to us outside.
        command.args(["--user", "--map-root-user", "--map-auto"]);
    }
    command.args([
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
    ]);
    command
}

/// Fails with the reason when images cannot be built in a namespace on this machine. Takes a few milliseconds.
pub fn check() -> Result<(), ImageError> {
    let Err(error) = run::output(enter().arg("true"), "trying out namespaces") else {
        return Ok(());
    };
    if is_root() {
        return Err(ImageError::Namespaces {
            who: "root",
            detail: error.to_string(),
        });
    }
    let uid = rustix::process::geteuid().as_raw().to_string();
    let user = run::output(run::command("id").arg("-un"), "looking up the user's name")
        .map_or_else(|_| uid.clone(), |name| name.trim().to_owned());
    let has = |file: &str| {
        fs::read_to_string(file).is_ok_and(|text| has_range(&text, &[user.as_str(), uid.as_str()]))
    };
    if has("/etc/subuid") && has("/etc/subgid") {
        Err(ImageError::Namespaces {
            who: "an ordinary user",
            detail: error.to_string(),
        })
    } else {
        Err(ImageError::NoSubIds { user })
    }
}

/// Whether a subuid(5) file gives one of `owners` a large enough range.
fn has_range(text: &str, owners: &[&str]) -> bool {
    text.lines().any(|line| {
        let mut fields = line.split(':');
        let (owner, _, count) = (fields.next(), fields.next(), fields.next());
        owner.is_some_and(|owner| owners.contains(&owner))
            && count
                .and_then(|count| count.trim().parse::<u64>().ok())
                .is_some_and(|n| n >= MIN_IDS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_range_must_be_the_users_and_large_enough() {
        let text = "alice:100000:65536\n1002:165536:65536\nbob:1:1000\n";
        assert!(has_range(text, &["alice", "1001"]));
        assert!(has_range(text, &["carol", "1002"]));
        assert!(!has_range(text, &["bob", "1003"]));
        assert!(!has_range(text, &["dave", "1004"]));
    }
}
