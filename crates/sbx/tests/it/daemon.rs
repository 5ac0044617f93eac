//! `sbx daemon` at the command line.

use crate::world::World;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
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
    if !rustix::process::geteuid().is_root() {
        return; // only root can become somebody else
    }
    let mut world = World::new();
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    let runtime = world.folder("runtime");
    open(world.root.path(), 0o755);
    let program = world.root.path().join("sbx");
    std::fs::copy(env!("CARGO_BIN_EXE_sbx"), &program).unwrap();
    world.runtime = Some(runtime.clone());
    world.sbx(&["daemon", "start", "-d"]).ok();
    let socket = world.sbx(&["daemon", "status", "--json"]).json()["socket"].clone();
    let socket = std::path::PathBuf::from(socket.as_str().unwrap());
    assert!(socket.starts_with(&runtime));
    let stranger = || {
        let mut command = Command::new(&program);
        command
            .args(["daemon", "status"])
            .current_dir("/")
            .env_clear();
        command
            .env("SBX_HOME", world.home())
            .env("XDG_RUNTIME_DIR", &runtime);
        let output = command.uid(65534).gid(65534).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    // The folder is closed: there is no daemon for others.
    assert_eq!(stranger(), (Some(1), "Status: stopped\n".to_owned()));
    // Were it open, the daemon looks at who comes.
    open(socket.parent().unwrap(), 0o755);
    open(&socket, 0o777);
    let (code, text) = stranger();
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("the daemon went away during the request"),
        "{text}"
    );
    world.sbx(&["daemon", "status"]).ok();
}
