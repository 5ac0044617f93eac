//! A daemon that takes connections and says nothing, and a socket that cannot be looked at.

use crate::world::World;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

fn world() -> World {
    let mut world = World::new();
    world.runtime = Some(world.folder("run"));
    world
}

#[test]
fn a_daemon_that_is_silent_is_named_within_seconds_and_no_command_waits_for_it() {
    let world = world();
    let home = world.folders();
    std::fs::create_dir_all(&home.runtime).unwrap();
    let socket = home.daemon_socket();
    let listener = UnixListener::bind(&socket).unwrap();
    let silent = std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().flatten() {
            held.push(stream);
        }
    });
    let named = format!("(pid {}) has not answered within 10 s", std::process::id());
    let begin = Instant::now();
    let report = world.sbx(&["diagnose"]);
    let line = format!("fail  daemon: the daemon {named}");
    assert!(report.stdout.contains(&line), "{report:?}");
    assert!(report.stdout.contains("kill -KILL"), "{report:?}");
    for arguments in [["daemon", "restart"], ["daemon", "stop"]] {
        world.sbx(&arguments).refused(&named);
    }
    // Nothing of ours holds the state.
    let reset = world.sbx(&["reset", "--force"]);
    assert!(reset.stderr.contains(&named), "{reset:?}");
    assert!(reset.ok().ends_with("Reset done\n"));
    let took = begin.elapsed();
    assert!(took < Duration::from_mins(2), "{took:?}");
    std::fs::remove_file(&socket).unwrap();
    assert!(!silent.is_finished());
}

#[test]
fn a_socket_that_cannot_be_looked_at_is_not_taken_for_nobody() {
    let world = world();
    let runtime = world.folders().runtime;
    std::fs::create_dir_all(runtime.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&runtime, &runtime).unwrap();
    for arguments in [&["daemon", "stop"][..], &["daemon", "status"], &["ls"]] {
        world.sbx(arguments).refused("cannot connect to");
    }
    std::fs::remove_file(&runtime).unwrap();
    assert_eq!(
        world.sbx(&["daemon", "stop"]).ok(),
        "Daemon is not running\n"
    );
}
