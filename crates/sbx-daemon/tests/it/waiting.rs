//! Work that takes its time holds up nobody else.

use crate::creation::{request, restart_with_dummies, workspace};
use crate::harness::{Answer, Daemon, program};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// What the daemon does is held up for so long.
const HELD: Duration = Duration::from_secs(5);

/// The text of a script that runs `program` and holds up its next calls of `calls` on `path`. `when`: which of them.
fn held_up(program: &Path, (calls, when): (&str, &str), path: &Path) -> String {
    format!(
        "#!/bin/sh\nexec strace -D -f -qq -o /dev/null -P '{}' -e trace={calls} -e inject={calls}:delay_enter={}s{when} '{}' \"$@\"\n",
        path.display(),
        HELD.as_secs(),
        program.display()
    )
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// What `request` was answered, and the longest time that another answer took meanwhile.
fn meanwhile(daemon: &Daemon, request: impl FnOnce() -> Answer + Send) -> (Answer, Duration) {
    thread::scope(|scope| {
        let asked = scope.spawn(request);
        let mut longest = Duration::ZERO;
        while !asked.is_finished() {
            let begun = Instant::now();
            // What is in the store: it is not held either.
            daemon.get("/v1/settings").ok();
            longest = longest.max(begun.elapsed());
        }
        (asked.join().unwrap(), longest)
    })
}

#[test]
fn others_are_answered_while_a_workspace_is_searched() {
    let mut daemon = Daemon::stopped();
    let work = daemon.path("work");
    fs::create_dir(&work).unwrap();
    let list = work.join(".sbxignore");
    // An error: nothing is begun after the search.
    fs::write(&list, b"\xff").unwrap();
    let traced = daemon.path("traced");
    script(
        &traced,
        &held_up(&program(), ("open,openat,openat2", ""), &list),
    );
    daemon.restart_as(&traced, |command| command);
    daemon.init("deny-all");

    let request = workspace(work.to_str().unwrap());
    let begun = Instant::now();
    let (answer, longest) = meanwhile(&daemon, || daemon.post("/v1/sandboxes", &request));
    assert_eq!(answer.code(), "sbxignore-invalid");
    assert!(begun.elapsed() >= HELD, "the search was not held up");
    assert!(longest < HELD / 2, "an answer took {longest:?}");
}

#[test]
fn others_are_answered_while_a_sandbox_is_removed_and_its_name_is_free_after_that() {
    let mut daemon = Daemon::stopped();
    daemon.plant("00000000000a", "box");
    let trash = daemon.state().join("sandboxes/.removing-00000000000a");
    restart_with_dummies(&mut daemon, None);
    daemon.init("deny-all");
    let bin = daemon.path("bin");
    let traced = daemon.path("traced");
    let text = held_up(&bin.join("sbx-daemon"), ("unlinkat", ":when=1"), &trash);
    script(&traced, &text);
    daemon.restart_as(&traced, |command| command.env("PATH", "/usr/bin:/bin"));

    let daemon = &daemon;
    let begun = Instant::now();
    let remove = || daemon.request("DELETE", "/v1/sandboxes/box", &Value::Null);
    let (answer, longest) = thread::scope(|scope| {
        let again = scope.spawn(|| {
            while daemon.get("/v1/sandboxes/box").status == 200 {}
            (
                daemon.post("/v1/sandboxes", &request(|_| ())),
                begun.elapsed(),
            )
        });
        let removed = meanwhile(daemon, remove);
        let (made, after) = again.join().unwrap();
        // As far as dummies let it get.
        assert!(made.body["failed"]["code"].is_string(), "{made:?}");
        assert!(
            after >= HELD,
            "made after {after:?}, beside what was being removed"
        );
        removed
    });
    answer.ok();
    assert!(begun.elapsed() >= HELD, "the removal was not held up");
    assert!(longest < HELD / 2, "an answer took {longest:?}");
}
