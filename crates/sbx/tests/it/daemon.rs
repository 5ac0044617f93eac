//! `sbx daemon` at the command line.

use crate::stranger;
use crate::world::World;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

#[test]
fn commands_start_the_daemon_and_stop_ends_it() {
    let world = World::new();
    let status = world.sbx(&["daemon", "status", "--json"]);
    assert_eq!(status.code, 1);
    assert!(status.stdout.contains("stopped"), "{status:?}");
    assert_eq!(
        world.sbx(&["ls", "--json"]).json()["sandboxes"]
            .as_array()
            .map(Vec::len),
        Some(0)
    );
    let status = world.sbx(&["daemon", "status", "--json"]).json();
    assert_eq!(status["status"], "running");
    assert!(status["pid"].as_u64().unwrap() > 1);
    let version = world.sbx(&["version", "--json"]).json();
    assert_eq!(version["server"]["state"], "running");
    world.sbx(&["daemon", "restart"]).ok();
    let again = world.sbx(&["daemon", "status", "--json"]).json();
    assert_ne!(again["pid"], status["pid"]);
    world.sbx(&["daemon", "stop"]).ok();
    assert_eq!(world.sbx(&["daemon", "status"]).code, 1);
    assert_eq!(
        world.sbx(&["version", "--json"]).json()["server"]["state"],
        "unavailable"
    );
}

#[test]
fn a_daemon_keeps_nothing_open_of_the_script_that_started_it() {
    let world = World::new();
    let sbx = world.command(&["daemon", "start", "-d"]);
    let lock = world.folder("script").join("lock");
    let mut script = Command::new("sh");
    script
        .arg("-c")
        .arg("exec 9>\"$1\" && shift && exec \"$@\"")
        .arg("sh")
        .arg(&lock)
        .arg(sbx.get_program())
        .args(sbx.get_args());
    for (name, value) in sbx.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    assert!(script.status().unwrap().success());
    let status = world.sbx(&["daemon", "status", "--json"]).json();
    let open = std::fs::read_dir(format!("/proc/{}/fd", status["pid"])).unwrap();
    let open: Vec<_> = open
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .collect();
    assert!(open.len() > 3, "{open:?}");
    assert!(!open.contains(&lock), "{open:?}");
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused() {
    let world = World::new();
    world.sbx(&["daemon", "start", "-d"]).ok();
    let second = world.sbx(&["daemon", "start"]);
    assert_ne!(second.code, 0);
    assert!(second.stderr.contains("error: "), "{second:?}");
    assert!(second.stderr.contains("try: "), "{second:?}");
    assert_eq!(world.sbx(&["ls", "-q"]).ok(), "");
}

#[test]
fn many_commands_at_once_share_one_daemon() {
    let world = World::new();
    let children: Vec<_> = (0..8)
        .map(|_| world.command(&["ls", "-q"]).spawn().unwrap())
        .collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
}

#[test]
fn a_corrupt_store_is_set_aside_and_nothing_is_lost() {
    let world = World::with_policy();
    world
        .sbx(&["policy", "allow", "network", "kept.example.com"])
        .ok();
    world.sbx(&["daemon", "stop"]).ok();
    let store = world.home().join("state/sbx.db");
    std::fs::write(
        &store,
        b"this is not a database, and long enough to be read as one",
    )
    .unwrap();
    for suffix in ["-wal", "-shm"] {
        let _absent = std::fs::remove_file(format!("{}{suffix}", store.display()));
    }
    assert_eq!(
        world
            .sbx(&["policy", "check", "network", "kept.example.com"])
            .code,
        0
    );
    let names = std::fs::read_dir(world.home().join("state"))
        .unwrap()
        .flatten();
    let aside = names
        .filter(|e| e.file_name().to_string_lossy().contains("corrupt"))
        .count();
    assert!(aside >= 1);
    let status = world.sbx(&["daemon", "status"]).ok();
    assert!(
        status.contains("\nNotice: ") && status.contains(".corrupt-"),
        "{status}"
    );
}

#[test]
fn state_folder_is_the_users_alone_from_the_first_moment() {
    let world = World::new();
    world.sbx(&["daemon", "start", "-d"]).ok();
    for below in ["", "state"] {
        let mode = world
            .home()
            .join(below)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700, "{below}");
    }
}

#[test]
fn other_users_are_refused_at_the_socket() {
    if !stranger::possible() {
        return;
    }
    let mut world = World::new();
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    let runtime = world.folder("runtime");
    open(world.root.path(), 0o755);
    world.runtime = Some(runtime.clone());
    world.sbx(&["daemon", "start", "-d"]).ok();
    let socket = world.sbx(&["daemon", "status", "--json"]).json()["socket"].clone();
    let socket = std::path::PathBuf::from(socket.as_str().unwrap());
    assert!(socket.starts_with(&runtime));
    let ask = |socket: &std::path::Path| {
        let mut stream = UnixStream::connect(socket)?;
        // It may be closed already.
        let _sent =
            stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: sbx\r\nConnection: close\r\n\r\n");
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        std::io::Result::Ok(String::from_utf8(answer).unwrap())
    };
    let theirs = || {
        let socket = socket.clone();
        stranger::as_nobody(move || ask(&socket))
    };
    // The folder is closed: there is no daemon for others.
    let closed = theirs().unwrap_err();
    assert_eq!(closed.kind(), std::io::ErrorKind::PermissionDenied);
    // Were it open, the daemon looks at who comes.
    open(socket.parent().unwrap(), 0o755);
    open(&socket, 0o777);
    assert_eq!(theirs().unwrap(), "");
    let ours = ask(&socket).unwrap();
    assert!(ours.starts_with("HTTP/1.1 200 "), "{ours}");
}
