//! `sbx policy log`, over records as gateways write them.

use crate::world::{World, finish};
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Stdio};

/// The planted sandbox's file of records.
fn records(world: &World) -> PathBuf {
    let folder = world.home().join("state/sandboxes/00000000000a/egress");
    fs::create_dir_all(&folder).unwrap();
    folder.join("egress.jsonl")
}

fn write(world: &World, time_ms: u64, host: &str, allowed: bool) {
    let record = json!({
        "time_ms": time_ms, "sandbox": "a liar", "type": "network", "host": host, "port": 443, "proxy": "forward",
        "allowed": allowed, "rule": null, "rule_text": null, "method": "GET", "path": "/x\u{1b}[2J",
        "reason": if allowed { "allow_rule" } else { "default_deny" }, "generation": 1,
    });
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(records(world));
    file.unwrap()
        .write_all(format!("{record}\n").as_bytes())
        .unwrap();
}

fn planted() -> World {
    let world = World::new();
    world.plant("box");
    world.sbx(&["policy", "init", "deny-all"]).ok();
    world
}

/// A time far enough in the future to be after the start of anything here.
const LATER: u64 = 4_000_000_000_000;

#[test]
fn the_log_is_filtered_by_decision_host_and_time() {
    let world = planted();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let now = u64::try_from(now).unwrap();
    write(&world, 1_000, "old.example", true);
    write(&world, now - 120_000, "a.example", false);
    write(&world, now, "b.a.example", false);
    write(&world, now, "c.example", true);
    let hosts = |filter: &[&str]| {
        world
            .sbx(&[&["policy", "log", "-q"], filter].concat())
            .ok()
            .replace(":443\n", " ")
    };
    assert_eq!(hosts(&[]), "b.a.example a.example c.example old.example ");
    assert_eq!(hosts(&["--blocked"]), "b.a.example a.example ");
    assert_eq!(hosts(&["--decision", "deny"]), "b.a.example a.example ");
    assert_eq!(hosts(&["--allowed", "box"]), "c.example old.example ");
    assert_eq!(
        hosts(&["--host", "**.a.example,c.example:443"]),
        "b.a.example c.example "
    );
    assert_eq!(hosts(&["--since", "1m"]), "b.a.example c.example ");
    assert_eq!(
        hosts(&["--since", "5m", "--blocked"]),
        "b.a.example a.example "
    );
    assert_eq!(hosts(&["--since", "2020-01-01", "--allowed"]), "c.example ");
    assert_eq!(
        hosts(&["--type", "network", "--allowed"]),
        "c.example old.example "
    );
    assert_eq!(hosts(&["--type", "filesystem"]), "");
    assert_eq!(hosts(&["--limit", "1"]), "b.a.example c.example ");
    let json = world
        .sbx(&[
            "policy",
            "log",
            "--json",
            "--blocked",
            "--host",
            "a.example",
        ])
        .json();
    assert_eq!(json["blocked_hosts"][0]["host"], "a.example:443");
    assert_eq!(json["blocked_hosts"][0]["vm_name"], "box");
    assert_eq!(json["allowed_hosts"], json!([]));
    let text = world.sbx(&["policy", "log"]).ok();
    assert!(
        text.starts_with("Blocked requests:\nSANDBOX") && text.contains("\nAllowed requests:\n"),
        "{text}"
    );
    world
        .sbx(&["policy", "log", "--host", "a..b"])
        .refused("empty label");
    world
        .sbx(&["policy", "log", "nobody"])
        .refused("sandbox 'nobody' not found");
    assert_eq!(
        world.sbx(&["policy", "log", "--since", "yesterday"]).code,
        2
    );
    assert_eq!(
        world.sbx(&["policy", "log", "--blocked", "--allowed"]).code,
        2
    );
}

/// A log that is followed.
struct Followed {
    child: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

impl Followed {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let arguments = [&["policy", "log", "--follow"], arguments].concat();
        let mut child = world
            .command(&arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = BufReader::new(child.stderr.take().unwrap());
        Self { child, out, err }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    fn notice(&mut self) -> String {
        let mut line = String::new();
        self.err.read_line(&mut line).unwrap();
        line
    }

    /// Ctrl-C. Returns the exit code and everything that was not read yet.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        self.err.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

#[test]
fn a_followed_log_shows_each_record_once_over_rotations_and_daemons() {
    let world = planted();
    write(&world, 1_000, "before.example", false);
    write(&world, LATER, "a.example", false);
    let mut log = Followed::start(&world, &["--json", "--blocked", "--since", "2001-01-01"]);
    let host = |line: &str| {
        serde_json::from_str::<Value>(line).unwrap()["host"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let first = log.line();
    assert_eq!(host(&first), "a.example");
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(
        (&first["sandbox"], &first["time"]),
        (&json!("box"), &json!("2096-10-02T07:06:40Z"))
    );
    write(&world, LATER + 1, "passed.example", true);
    write(&world, LATER + 1, "b.example", false);
    assert_eq!(host(&log.line()), "b.example");
    fs::rename(records(&world), records(&world).with_extension("jsonl.1")).unwrap();
    write(&world, LATER + 2, "c.example", false);
    assert_eq!(host(&log.line()), "c.example");
    // The next daemon reads everything again; what was shown is not shown twice.
    world.sbx(&["daemon", "stop"]).ok();
    assert!(log.notice().contains("the daemon ended"));
    write(&world, LATER + 3, "d.example", false);
    world.sbx(&["ls"]).ok();
    assert!(log.notice().contains("connected again"));
    assert_eq!(host(&log.line()), "d.example");
    write(&world, LATER + 4, "e.example", false);
    assert_eq!(host(&log.line()), "e.example");
    assert_eq!(log.interrupt(), (Some(0), String::new()));
}

#[test]
fn a_followed_log_begins_now_carries_no_escapes_and_ends_with_its_sandbox() {
    let world = planted();
    write(&world, LATER, "before.example", true);
    let mut log = Followed::start(&world, &["box", "--debug"]);
    while !log.notice().contains("following") {}
    write(&world, LATER, "now.example", true);
    let line = log.line();
    assert_eq!(
        line,
        "2096-10-02T07:06:40Z  box  allowed  now.example:443  forward  -  allow_rule  GET /x?[2J\n"
    );
    world.sbx(&["rm", "--force", "box"]).ok();
    assert!(log.notice().contains("sandbox 'box' not found"));
    let mut rest = String::new();
    log.out.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("before.example"), "{rest}");
    assert_eq!(log.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_followed_log_ends_when_nobody_reads_it_any_more() {
    let world = planted();
    write(&world, LATER, "a.example", true);
    let Followed { mut child, out, .. } = Followed::start(&world, &["-q", "--since", "1d"]);
    drop(out);
    while child.try_wait().unwrap().is_none() {
        write(&world, LATER, "a.example", true);
        world.sbx(&["policy", "ls"]).ok();
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_followed_log_that_finds_no_room_ends_with_the_reason() {
    let world = planted();
    write(&world, LATER, "a.example", true);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = world.command(&["policy", "log", "--follow", "--since", "1d"]);
    let done = finish(command.stdout(full).spawn().unwrap());
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.stderr.contains("error: the output cannot be written"),
        "{done:?}"
    );
}
