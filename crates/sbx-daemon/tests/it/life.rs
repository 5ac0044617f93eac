//! Starting, ending, and what survives.

use crate::harness::{Daemon, program};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

#[test]
fn status_names_process_socket_and_log() {
    let mut daemon = Daemon::stopped();
    // As a command with an ordinary umask may have made it.
    fs::create_dir_all(daemon.state()).unwrap();
    daemon.restart();
    let status = daemon.get("/v1/status").ok();
    assert_eq!(status["status"], "running");
    assert_eq!(status["socket"], daemon.socket().to_str().unwrap());
    assert_eq!(status["policy_initialized"], false);
    assert!(
        fs::metadata(status["logs"].as_str().unwrap())
            .unwrap()
            .len()
            > 0
    );
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&daemon.state()), 0o700);
    assert_eq!(mode(&daemon.runtime()), 0o700);
}

#[test]
fn second_daemon_on_the_same_state_is_refused_and_the_first_goes_on() {
    let daemon = Daemon::start();
    let second = daemon
        .command(&program())
        .arg("--foreground")
        .output()
        .unwrap();
    let text = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(2), "{text}");
    assert!(text.starts_with("error: another daemon (pid "), "{text}");
    assert!(
        text.lines()
            .nth(1)
            .is_some_and(|line| line.starts_with("  try: ")),
        "{text}"
    );
    daemon.get("/v1/status").ok();
}

#[test]
fn daemon_that_is_on_its_way_out_is_waited_for() {
    let mut daemon = Daemon::stopped();
    fs::create_dir_all(daemon.state()).unwrap();
    // Its socket is closed and its lock is not free yet.
    let lock = fs::File::create(daemon.state().join("daemon.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut next = daemon.command(&program());
    next.arg("--foreground").stdout(Stdio::null());
    let mut next = next.spawn().unwrap();
    // Far longer than it takes to be refused.
    let seen = std::time::Instant::now();
    while seen.elapsed() < std::time::Duration::from_millis(500) {
        assert!(next.try_wait().unwrap().is_none(), "it gave up");
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    drop(lock);
    while std::os::unix::net::UnixStream::connect(daemon.socket()).is_err() {
        assert!(next.try_wait().unwrap().is_none(), "it gave up");
        std::thread::yield_now();
    }
    daemon.get("/v1/status").ok();
    next.kill().unwrap();
    next.wait().unwrap();
    daemon.kill();
}

#[test]
fn squatted_runtime_folder_is_refused() {
    let daemon = Daemon::stopped();
    fs::create_dir(daemon.runtime()).unwrap();
    fs::set_permissions(daemon.runtime(), fs::Permissions::from_mode(0o777)).unwrap();
    let output = daemon
        .command(&program())
        .arg("--foreground")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("is open to other users"), "{text}");
    assert!(!daemon.socket().exists());
}

#[test]
fn detached_daemon_is_ready_when_its_starter_returns_and_survives_it() {
    let daemon = Daemon::stopped();
    let mut command = daemon.command(&program());
    // As a shell starts it: leading a process group.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let status = command.stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
    daemon.get("/v1/status").ok();
    daemon
        .post("/v1/shutdown", &json!({"stop_sandboxes": false}))
        .ok();
}

#[test]
fn shutdown_ends_the_process_and_removes_the_runtime_folder() {
    let mut daemon = Daemon::stopped();
    daemon.plant("00000000000a", "one");
    daemon.restart();
    // As a sandbox leaves it whose supervisor was killed.
    let left = daemon.runtime().join("00000000000a");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("qmp.sock"), "").unwrap();
    daemon
        .post("/v1/shutdown", &json!({"stop_sandboxes": true}))
        .ok();
    assert!(daemon.wait().success());
    assert!(!daemon.runtime().exists());
}

#[test]
fn ended_sandbox_leaves_no_sockets_and_a_living_one_keeps_them() {
    let mut daemon = Daemon::stopped();
    let dir = daemon.plant("00000000000a", "one");
    daemon.plant("00000000000b", "two");
    daemon.restart();
    let sockets = ["00000000000a", "00000000000b"].map(|id| daemon.runtime().join(id));
    for folder in &sockets {
        fs::create_dir(folder).unwrap();
    }
    // A helper of the first still lives.
    let lock = fs::File::create(dir.join("alive")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    daemon
        .post("/v1/shutdown", &json!({"stop_sandboxes": false}))
        .ok();
    assert!(daemon.wait().success());
    assert_eq!(sockets.map(|folder| folder.exists()), [true, false]);
}

#[test]
fn killed_daemon_loses_nothing() {
    let mut daemon = Daemon::start();
    daemon.init("balanced");
    let rule =
        json!({"allow": true, "resources": ["kept.example"], "sandbox": null, "protocols": []});
    let id = daemon.post("/v1/policy/rules", &rule).ok()["rule"]["id"].clone();
    assert!(id.is_string());
    let setting = json!({"key": "sandbox.disk.dockerVolume", "value": "3g"});
    daemon.post("/v1/settings", &setting).ok();
    // Their order says nothing, and the database has its own.
    let policy = |daemon: &Daemon| {
        let mut policy = daemon.get("/v1/policy").ok();
        let rules = policy["rules"].as_array_mut().unwrap();
        rules.sort_by_key(|rule| rule["id"].to_string());
        policy
    };
    let before = policy(&daemon);
    assert_eq!(before["preset"], "balanced");
    let rules = before["rules"].as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["id"] == id));
    daemon.restart();
    assert_eq!(policy(&daemon), before);
    let settings = daemon.get("/v1/settings").ok();
    assert!(
        settings["settings"]
            .as_array()
            .unwrap()
            .iter()
            .any(|s| s["value"] == "3g")
    );
}

#[test]
fn broken_database_is_set_aside_and_rebuilt_from_folders_and_mirrors() {
    let mut daemon = Daemon::start();
    daemon.init("deny-all");
    daemon.kill();
    daemon.plant("0123456789ab", "planted");
    let database = daemon.state().join("sbx.db");
    fs::write(&database, vec![0x55; 20_000]).unwrap();
    daemon.restart();
    let status = daemon.get("/v1/status").ok();
    assert_eq!(status["policy_initialized"], true);
    assert!(
        status["notices"][0].as_str().unwrap().contains(".corrupt-"),
        "{status}"
    );
    assert_eq!(
        daemon.get("/v1/sandboxes").ok()["sandboxes"][0]["name"],
        "planted"
    );
    assert_eq!(daemon.get("/v1/policy").ok()["preset"], "deny-all");
    daemon.restart();
    assert!(daemon.get("/v1/status").ok().get("notices").is_none());
}

#[test]
fn half_made_sandbox_is_removed_and_a_mended_one_is_kept() {
    let mut daemon = Daemon::stopped();
    let half = daemon.state().join("sandboxes/ffffffffffff");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("upper.qcow2"), "x").unwrap();
    let removing = daemon.state().join("sandboxes/.removing-eeeeeeeeeeee");
    fs::create_dir_all(&removing).unwrap();
    let kept = daemon.plant("0123456789ab", "kept");
    daemon.restart();
    assert!(!half.exists());
    assert!(!removing.exists());
    daemon.kill();
    fs::write(kept.join("sandbox.json"), "{ half").unwrap();
    daemon.restart();
    assert_eq!(daemon.get("/v1/sandboxes/kept").ok()["id"], "0123456789ab");
    let text = fs::read_to_string(kept.join("sandbox.json")).unwrap();
    assert!(text.contains("\"kept\""), "{text}");
}

#[test]
fn unknown_requests_and_nonsense_get_an_error_with_a_next_step() {
    let daemon = Daemon::start();
    assert_eq!(daemon.get("/v1/nothing").code(), "no-such-request");
    assert_eq!(
        daemon.post("/v1/policy/rules", &json!({"x": 1})).code(),
        "bad-request"
    );
    assert_eq!(
        daemon.get("/v1/policy/log?limit=many").code(),
        "bad-request"
    );
    let missing = daemon.get("/v1/sandboxes/nope");
    assert_eq!((missing.status, missing.code()), (404, "sandbox-not-found"));
    assert_eq!(missing.body["message"], "sandbox 'nope' not found");
}

#[test]
fn folders_that_somebody_made_open_are_closed_at_the_start() {
    let mut daemon = Daemon::stopped();
    let folders = ["home/state", "home/cache", "home/config"].map(|below| daemon.path(below));
    for folder in &folders {
        fs::create_dir_all(folder).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    daemon.restart();
    for folder in &folders {
        let mode = fs::metadata(folder).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", folder.display());
    }
}
