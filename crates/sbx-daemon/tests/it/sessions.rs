//! What the daemon shows of sessions, and the removal of sandboxes that were run to be removed.

use crate::adoption::{ID, planted, supervisor, supervisor_of_any_age};
use crate::harness::Daemon;
use sbx_wire::frame::encode;
use sbx_wire::session::Request;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

fn shown(daemon: &Daemon) -> Value {
    daemon.get("/v1/sandboxes/one").ok()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The supervisor ends by itself.
fn end_supervisor(daemon: &Daemon) {
    let socket = daemon.runtime().join(ID).join("supervisor.sock");
    let mut stream = UnixStream::connect(socket).unwrap();
    let stop = encode(0, &Request::Stop { grace_ms: 0 }).unwrap();
    stream.write_all(&stop).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn what_keeps_a_sandbox_and_when_it_stops_is_shown() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    daemon.restart();
    eventually("the time", || {
        shown(&daemon)["stops_at"] == "2027-01-15T08:00:00Z"
    });
    assert_eq!(shown(&daemon)["kept_by"], Value::Null);
    end_supervisor(&daemon);
    eventually("stopped", || shown(&daemon)["status"] == "stopped");
    assert_eq!(shown(&daemon)["stops_at"], Value::Null);

    let _watchers = supervisor(&runtime, 3);
    daemon.restart();
    eventually("the agent", || shown(&daemon)["agent_running"] == true);
    let now = shown(&daemon);
    assert_eq!(
        (&now["attached"], &now["kept_by"]),
        (&json!(3), &json!("sessions"))
    );
    let stopped = daemon.post("/v1/sandboxes/one/stop", &json!(null)).ok();
    let ended = json!({"sessions": 3, "agent_running": true, "attached": 3, "removed": false});
    assert_eq!(stopped, ended);
}

#[test]
fn supervisor_from_before_an_upgrade_is_followed_all_the_same() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor_of_any_age(&runtime, 2, false);
    daemon.restart();
    eventually("running", || shown(&daemon)["status"] == "running");
    assert_eq!(
        (
            &shown(&daemon)["sessions"],
            &shown(&daemon)["agent_running"]
        ),
        (&json!(2), &json!(false))
    );
    assert_eq!(shown(&daemon)["kept_by"], Value::Null);
}

#[test]
fn sandbox_run_to_be_removed_is_gone_when_it_has_ended_and_after_a_killed_daemon() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let dir = daemon.state().join("sandboxes").join(ID);
    daemon.restart();
    daemon.init("deny-all");
    for how in ["it ends", "it ends without a daemon", "it is stopped"] {
        if !dir.exists() {
            daemon.kill();
            daemon.plant(ID, "one");
            std::fs::create_dir_all(&runtime).unwrap();
        }
        let _watchers = supervisor(&runtime, 0);
        daemon.restart();
        daemon
            .post("/v1/sandboxes/one/start", &json!({"remove": true}))
            .ok();
        assert_eq!(shown(&daemon)["remove_when_ended"], true);
        assert!(dir.is_dir(), "{how}: removed too early");
        match how {
            "it ends" => end_supervisor(&daemon),
            "it ends without a daemon" => {
                daemon.kill();
                end_supervisor(&daemon);
                daemon.restart();
            }
            _ => {
                let stopped = daemon.post("/v1/sandboxes/one/stop", &json!(null)).ok();
                assert_eq!(stopped["removed"], true);
            }
        }
        eventually(how, || {
            daemon.get("/v1/sandboxes").ok()["sandboxes"] == json!([])
        });
        eventually(how, || !dir.exists() && !runtime.exists());
    }
}

/// The planted sandbox, with a workspace, and its folder.
fn planted_with_workspace() -> (Daemon, std::path::PathBuf) {
    let mut daemon = planted();
    let dir = daemon.state().join("sandboxes").join(ID);
    let document = dir.join("sandbox.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&document).unwrap()).unwrap();
    record["workspaces"] = json!([{"path": "/work/project", "read_only": false}]);
    std::fs::write(&document, record.to_string()).unwrap();
    daemon.restart();
    daemon.init("deny-all");
    (daemon, dir)
}

/// A line of a share's file of events.
fn event(unix_ms: u64, path: &str) -> String {
    let event = json!({
        "unix_ms": unix_ms, "path": path, "action": "create", "mode": "block", "why": "protected: x",
    });
    format!("{event}\n")
}

#[test]
fn what_somebody_was_told_is_marked_and_what_comes_later_is_not() {
    let (mut daemon, dir) = planted_with_workspace();
    let events = dir.join("share0.events");
    let asked = |daemon: &Daemon| daemon.get("/v1/sandboxes/one/guard").ok();
    let told = |daemon: &Daemon, id: &str, counted: &Value| {
        let body = json!({"id": id, "counted": counted});
        daemon.post("/v1/sandboxes/one/guard/told", &body).ok();
    };
    let marks = |answer: &Value| -> Vec<bool> {
        let events = answer["events"].as_array().unwrap();
        let told = |event: &Value| event["told"].as_bool().unwrap();
        events.iter().map(told).collect()
    };
    // The second one is not whole yet.
    let (first, second) = (event(5, "a"), event(6, "b"));
    std::fs::write(&events, format!("{first}{}", &second[..9])).unwrap();
    let answer = asked(&daemon);
    assert_eq!(marks(&answer), [false]);
    told(&daemon, "another", &answer["counted"]);
    assert_eq!(marks(&asked(&daemon)), [false]);
    told(&daemon, ID, &answer["counted"]);
    assert_eq!(marks(&asked(&daemon)), [true]);
    // Also when the clock was set back, and with another daemon.
    std::fs::write(&events, format!("{first}{second}{}", event(1, "c"))).unwrap();
    daemon.restart();
    let answer = asked(&daemon);
    let paths = |at: usize| answer["events"][at]["path"].clone();
    assert_eq!([paths(0), paths(1), paths(2)], ["c", "a", "b"]);
    assert_eq!(marks(&answer), [false, true, false]);
}

#[test]
fn what_was_tried_in_a_sandbox_that_went_at_its_end_can_be_asked_for() {
    let (mut daemon, dir) = planted_with_workspace();
    let _watchers = supervisor(&daemon.runtime().join(ID), 0);
    daemon.restart();
    daemon
        .post("/v1/sandboxes/one/start", &json!({"remove": true}))
        .ok();
    std::fs::write(dir.join("share0.events"), event(5, ".git/hooks/x")).unwrap();
    let asked = || daemon.get("/v1/sandboxes/one/guard").ok();
    let before = asked();
    assert_eq!(before["events"][0]["path"], ".git/hooks/x", "{before}");
    end_supervisor(&daemon);
    // At any moment on the way as well.
    while dir.exists()
        || !daemon.get("/v1/sandboxes").ok()["sandboxes"]
            .as_array()
            .unwrap()
            .is_empty()
    {
        assert_eq!(asked(), before);
    }
    assert_eq!(asked(), before);
    let other = daemon.get("/v1/sandboxes/two/guard");
    assert_eq!(other.code(), "sandbox-not-found");
}

#[test]
fn sandbox_that_nobody_marked_stays_when_it_has_ended() {
    let mut daemon = planted();
    daemon.restart();
    daemon.init("deny-all");
    let _watchers = supervisor(&daemon.runtime().join(ID), 0);
    daemon.restart();
    daemon.post("/v1/sandboxes/one/start", &json!({})).ok();
    end_supervisor(&daemon);
    eventually("stopped", || shown(&daemon)["status"] == "stopped");
    daemon.restart();
    assert_eq!(shown(&daemon)["status"], "stopped");
}
