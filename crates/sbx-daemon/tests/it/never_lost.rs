//! The state survives: a lost or foreign database, damaged documents, another version of sbx, a host that went down, a
//! clock that jumps.

use crate::harness::{Daemon, program};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

const FIRST: &str = "00000000000a";
const SECOND: &str = "00000000000b";

/// Does something to a file.
type Spoil<'a> = &'a dyn Fn(&Path);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A home with the state that version 0.1.0 left: two sandboxes, a policy with a rule for all and one for the first,
/// a setting, a secret for all and one for the second.
fn of_version_1() -> Daemon {
    let daemon = Daemon::stopped();
    copy(&fixture("state-v1"), &daemon.state());
    daemon
}

/// Everything that a user would miss.
fn everything(daemon: &Daemon) -> Value {
    let mut policy = daemon.get("/v1/policy").ok();
    policy.as_object_mut().unwrap().remove("generation");
    let rules = policy["rules"].as_array_mut().unwrap();
    rules.sort_by_key(|rule| rule["id"].to_string());
    let mut sandboxes = daemon.get("/v1/sandboxes").ok();
    for sandbox in sandboxes["sandboxes"].as_array_mut().unwrap() {
        let sandbox = sandbox.as_object_mut().unwrap();
        // Where and when the fixture was copied.
        sandbox.retain(|key, _| !["dir", "stopped_at"].contains(&key.as_str()));
    }
    let settings = daemon.get("/v1/settings").ok()["settings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|setting| setting["source"] == "user")
        .cloned()
        .collect::<Vec<_>>();
    json!({
        "policy": policy, "sandboxes": sandboxes, "settings": settings,
        "secrets": daemon.get("/v1/secrets").ok(),
    })
}

fn notices(daemon: &Daemon) -> String {
    daemon.get("/v1/status").ok()["notices"].to_string()
}

fn sandbox(daemon: &Daemon, name: &str) -> Value {
    daemon.get(&format!("/v1/sandboxes/{name}")).ok()
}

fn named(folder: &Path, part: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains(part))
        .collect()
}

#[test]
fn the_state_of_version_1_is_read_with_everything_in_it() {
    let mut daemon = of_version_1();
    daemon.restart();
    let found = everything(&daemon);
    let list = found["sandboxes"]["sandboxes"].as_array().unwrap();
    let names: Vec<_> = list.iter().map(|s| (&s["name"], &s["status"])).collect();
    let stopped = json!("stopped");
    assert_eq!(
        names,
        [(&json!("first"), &stopped), (&json!("second"), &stopped)]
    );
    assert_eq!(
        list[0]["workspaces"],
        json!([{"path": "/work/project", "read_only": false}, {"path": "/work/notes", "read_only": true}])
    );
    assert_eq!(
        (&list[1]["agent"], &list[1]["cpus"]),
        (&json!("claude"), &json!(2))
    );
    let policy = &found["policy"];
    assert_eq!(policy["preset"], "balanced");
    let rules = policy["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 8);
    for (resource, scope) in [
        ("api.example.test:8443", "global"),
        ("tracker.example", "sandbox:first"),
    ] {
        let found = rules.iter().any(|rule| {
            let text = rule.to_string();
            text.contains(resource) && text.contains(scope)
        });
        assert!(found, "{resource} {scope}: {policy}");
    }
    assert_eq!(found["settings"][0]["value"], "3g");
    let secrets = found["secrets"]["secrets"].as_array().unwrap();
    let scopes: Vec<_> = secrets.iter().map(|row| &row["scope"]).collect();
    assert_eq!(scopes, ["(global)", "second"]);
    assert_eq!(notices(&daemon), "null");
}

#[test]
fn a_database_that_is_gone_cut_foreign_or_newer_is_rebuilt_and_nothing_is_missing() {
    let mut daemon = of_version_1();
    daemon.restart();
    let before = everything(&daemon);
    let database = daemon.state().join("sbx.db");
    let newer = |path: &Path| {
        let connection = rusqlite::Connection::open(path).unwrap();
        let columns = "ALTER TABLE rules ADD COLUMN weight INTEGER; PRAGMA user_version = 99;";
        connection.execute_batch(columns).unwrap();
    };
    let spoil: [(&str, Spoil<'_>); 6] = [
        ("", &|path| fs::remove_file(path).unwrap()),
        ("", &|path| fs::write(path, "").unwrap()),
        (".corrupt-", &|path| {
            let whole = fs::read(path).unwrap();
            fs::write(path, &whole[..whole.len() / 2]).unwrap();
        }),
        (".corrupt-", &|path| {
            fs::write(path, vec![0x55; 20_000]).unwrap();
        }),
        (".corrupt-", &|path| {
            let mut whole = fs::read(path).unwrap();
            let from = whole.len() - 12_000;
            whole[from..].fill(0xff);
            fs::write(path, whole).unwrap();
        }),
        (".newer-", &newer),
    ];
    for (aside, spoil) in spoil {
        daemon.kill();
        spoil(&database);
        let spoilt = fs::read(&database).ok();
        daemon.restart();
        assert_eq!(everything(&daemon), before, "{aside}");
        if !aside.is_empty() {
            assert!(notices(&daemon).contains(aside), "{}", notices(&daemon));
            let kept = named(&daemon.state(), aside);
            let same = kept.iter().any(|path| fs::read(path).ok() == spoilt);
            assert!(same, "{kept:?}");
        }
    }
    // The mirrors went with it: the sandboxes' own folders still have their policy.
    daemon.kill();
    for name in ["sbx.db", "policy.json"] {
        fs::remove_file(daemon.state().join(name)).unwrap();
    }
    daemon.restart();
    assert_eq!(everything(&daemon), before);
    assert!(notices(&daemon).contains("put together again"));
}

#[test]
fn a_newer_database_whose_policy_is_not_understood_either_is_left_alone() {
    let mut daemon = of_version_1();
    daemon.restart();
    daemon.kill();
    let database = daemon.state().join("sbx.db");
    rusqlite::Connection::open(&database)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let mirror = daemon.state().join("policy.json");
    let text = fs::read_to_string(&mirror).unwrap();
    fs::write(
        &mirror,
        text.replacen('{', "{\"only_on_weekdays\": true,", 1),
    )
    .unwrap();
    let before = (fs::read(&database).unwrap(), fs::read(&mirror).unwrap());
    let mut command = daemon.command(&program());
    let output = command.arg("--foreground").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("newer sbx") && text.contains("  try: use that version"),
        "{text}"
    );
    let after = (fs::read(&database).unwrap(), fs::read(&mirror).unwrap());
    assert_eq!(after, before);
}

#[test]
fn fields_of_a_newer_version_are_without_effect_and_written_back() {
    let mut daemon = Daemon::stopped();
    copy(&fixture("state-newer"), &daemon.state());
    let document = daemon
        .state()
        .join(format!("sandboxes/{FIRST}/sandbox.json"));
    let read = || -> Value { serde_json::from_slice(&fs::read(&document).unwrap()).unwrap() };
    let before = read();
    assert_eq!(before["restarts"], json!({"limit": 3}));
    daemon.restart();
    assert_eq!(sandbox(&daemon, "first")["status"], "stopped");
    // What this version writes: the database's copy, put in place of a broken document.
    daemon.kill();
    fs::write(&document, "{ half").unwrap();
    daemon.restart();
    assert_eq!(sandbox(&daemon, "first")["status"], "stopped");
    // This version may add fields of its own.
    let after = read();
    for (name, value) in before.as_object().unwrap() {
        assert_eq!(&after[name], value, "{name}");
    }
}

#[test]
fn a_document_of_a_newer_schema_is_listed_with_the_reason_and_left_as_it_is() {
    let mut daemon = Daemon::stopped();
    copy(&fixture("state-newer"), &daemon.state());
    let folder = daemon.state().join("sandboxes").join(SECOND);
    let bytes = || fs::read(folder.join("sandbox.json")).unwrap();
    let before = bytes();
    for _ in 0..2 {
        daemon.restart();
        let shown = sandbox(&daemon, "second");
        assert_eq!(
            (&shown["status"], &shown["agent"], &shown["id"]),
            (&json!("damaged"), &json!("codex"), &json!(SECOND))
        );
        let reason = shown["status_reason"].as_str().unwrap();
        assert!(reason.contains("newer sbx (schema 3"), "{reason}");
        assert_eq!(bytes(), before);
    }
    assert_eq!(sandbox(&daemon, "first")["status"], "stopped");
    let failed = daemon.post("/v1/sandboxes/second/start", &json!({})).ok();
    assert_eq!(failed["failed"]["code"], "sandbox-damaged");
    assert!(
        failed["failed"]["try"]
            .as_str()
            .unwrap()
            .contains("that version")
    );
    // It can be stopped, and removed by whoever asks for that.
    daemon.post("/v1/sandboxes/second/stop", &Value::Null).ok();
    assert_eq!(bytes(), before);
    daemon
        .request("DELETE", "/v1/sandboxes/second", &Value::Null)
        .ok();
    assert!(!folder.exists());
}

#[test]
fn a_broken_copied_or_missing_document_is_listed_and_its_rules_and_secrets_are_kept() {
    let mut daemon = of_version_1();
    fs::remove_file(daemon.state().join("sbx.db")).unwrap();
    let parent = daemon.state().join("sandboxes");
    let folder = |id: &str| parent.join(id);
    // Broken: the name is found in another file.
    fs::write(folder(FIRST).join("sandbox.json"), "{ half").unwrap();
    // Missing, but it was started before.
    fs::remove_file(folder(SECOND).join("sandbox.json")).unwrap();
    // A copy of the folder of another one.
    daemon.plant("00000000000c", "third");
    copy(&folder("00000000000c"), &folder("00000000000d"));
    let spoilt = folder(FIRST).join("sandbox.json");
    daemon.restart();
    let list = daemon.get("/v1/sandboxes").ok();
    let status: Vec<_> = list["sandboxes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["name"].as_str().unwrap(), s["status"].as_str().unwrap()))
        .collect();
    assert_eq!(
        status,
        [
            ("damaged-00000000000d", "damaged"),
            ("first", "damaged"),
            ("second", "damaged"),
            ("third", "stopped"),
        ]
    );
    assert_eq!(fs::read_to_string(spoilt).unwrap(), "{ half");
    let kept = everything(&daemon);
    assert!(kept["policy"].to_string().contains("sandbox:first"));
    assert!(kept["secrets"].to_string().contains("\"second\""));
    // Nothing may leave a sandbox whose name, and so whose rules, are another's.
    let file = folder("00000000000d").join("gateway.json");
    let file: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(file["policy"]["rules"], json!([]));
    // A second start finds the same.
    daemon.restart();
    assert_eq!(everything(&daemon), kept);
}

#[test]
fn rules_and_secrets_are_kept_while_there_is_a_sandbox_whose_name_nobody_knows() {
    let mut daemon = of_version_1();
    fs::remove_file(daemon.state().join("sbx.db")).unwrap();
    let folder = daemon.state().join("sandboxes").join(FIRST);
    for name in ["sandbox.json", "gateway.json"] {
        fs::write(folder.join(name), "\0\0\0\0").unwrap();
    }
    daemon.restart();
    let shown = sandbox(&daemon, "damaged-00000000000a");
    assert_eq!(
        (&shown["status"], &shown["agent"]),
        (&json!("damaged"), &json!("unknown"))
    );
    let policy = daemon.get("/v1/policy").ok().to_string();
    assert!(policy.contains("sandbox:first"), "{policy}");
    // Gone for good, so they are too.
    daemon
        .request("DELETE", "/v1/sandboxes/damaged-00000000000a", &Value::Null)
        .ok();
    daemon.restart();
    let policy = daemon.get("/v1/policy").ok().to_string();
    assert!(!policy.contains("sandbox:first"), "{policy}");
}

#[test]
fn a_clock_far_ahead_behind_or_back_changes_nothing() {
    let mut daemon = of_version_1();
    let future = "9999-12-31T23:59:59Z";
    let path = daemon
        .state()
        .join(format!("sandboxes/{FIRST}/sandbox.json"));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("2026-02-01T08:30:00Z", future)).unwrap();
    fs::remove_file(daemon.state().join("sbx.db")).unwrap();
    let stopped = fs::File::open(path.with_file_name("last-exit")).unwrap();
    let late = std::time::UNIX_EPOCH + std::time::Duration::from_hours(3_333_333);
    stopped.set_modified(late).unwrap();
    daemon.restart();
    let shown = sandbox(&daemon, "first");
    assert_eq!(shown["status"], "stopped");
    assert_eq!(shown["last_used_at"], future);
    assert_eq!(shown["stopped_at"], "2350-04-07T21:00:00Z");
}

/// A host that went down and came up again: nothing runs, locks are free, sockets are gone (or lie there without a
/// listener, where the runtime folder is on a disk), and process ids belong to others.
#[test]
fn attack_72_after_the_host_went_down_every_sandbox_is_stopped_and_no_stranger_is_signalled() {
    for sockets_survive in [false, true] {
        let mut daemon = of_version_1();
        let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
        let folder = daemon.state().join("sandboxes").join(FIRST);
        for name in ["lock", "alive", "last-exit", "console.log"] {
            fs::write(folder.join(name), "").unwrap();
        }
        fs::write(
            daemon.state().join("daemon.lock"),
            stranger.id().to_string(),
        )
        .unwrap();
        let socket = daemon.runtime().join(FIRST).join("supervisor.sock");
        if sockets_survive {
            for path in [daemon.runtime(), daemon.runtime().join(FIRST)] {
                fs::DirBuilder::new().mode(0o700).create(path).unwrap();
            }
            drop(UnixListener::bind(&socket).unwrap());
        }
        daemon.restart();
        let shown = sandbox(&daemon, "first");
        assert_eq!(shown["status"], "stopped");
        let reason = shown["status_reason"].as_str().unwrap();
        assert!(reason.contains("the host went down"), "{reason}");
        assert!(shown.get("stopped_at").is_none(), "nobody knows");
        assert_eq!(sandbox(&daemon, "second")["status"], "stopped");
        // It gets past locks and sockets, to its image, which is not in this home.
        let failed = daemon.post("/v1/sandboxes/first/start", &json!({})).ok();
        assert_eq!(failed["failed"]["code"], "workspace-missing", "{failed}");
        daemon.post("/v1/sandboxes/first/stop", &Value::Null).ok();
        daemon
            .request("DELETE", "/v1/sandboxes/first?force=true", &Value::Null)
            .ok();
        assert!(!folder.exists() && !socket.exists());
        daemon
            .post("/v1/shutdown", &json!({"stop_sandboxes": true}))
            .ok();
        assert!(daemon.wait().success());
        assert_eq!(stranger.try_wait().unwrap(), None);
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}

#[test]
fn what_was_listed_as_stopped_is_removed_only_while_it_is() {
    let mut daemon = of_version_1();
    daemon.restart();
    let remove = |daemon: &Daemon, id: &str| {
        let path = format!("/v1/sandboxes/first?only_stopped={id}");
        daemon.request("DELETE", &path, &Value::Null)
    };
    assert_eq!(remove(&daemon, SECOND).code(), "sandbox-not-stopped");
    // A process of it lives.
    let folder = daemon.state().join("sandboxes").join(FIRST);
    let alive = fs::File::create(folder.join("alive")).unwrap();
    rustix::fs::flock(&alive, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(remove(&daemon, FIRST).code(), "sandbox-not-stopped");
    assert!(folder.exists());
    drop(alive);
    remove(&daemon, FIRST).ok();
    assert!(!folder.exists());
}

#[test]
fn what_a_killed_daemon_left_half_made_is_removed_by_the_next_and_what_another_makes_is_not() {
    let mut daemon = Daemon::start();
    daemon.init("deny-all");
    daemon.kill();
    // A change that was prepared, a snapshot with the sockets of its machine, and one that another daemon makes.
    let state = daemon.state();
    let unfinished = [
        state.join("policy.json.new"),
        state.join("secrets/secrets.age.new"),
    ];
    fs::create_dir_all(state.join("secrets")).unwrap();
    for path in &unfinished {
        fs::write(path, "half").unwrap();
    }
    let snapshots = daemon.path("home/cache/snapshots");
    let building = ["a", "b"].map(|key| snapshots.join(format!(".building-{key}")));
    for folder in &building {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("memory"), "half").unwrap();
    }
    let others = fs::File::create(snapshots.join("b.lock")).unwrap();
    rustix::fs::flock(&others, rustix::fs::FlockOperation::LockExclusive).unwrap();
    // Its supervisor sees a moment later that nobody wants it any more.
    let alive = fs::File::create(building[0].join("alive")).unwrap();
    rustix::fs::flock(&alive, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let sockets = daemon.runtime().join("00000000000c");
    fs::create_dir_all(&sockets).unwrap();
    fs::write(sockets.join("qmp.sock"), "").unwrap();

    daemon.restart();
    assert!(unfinished.iter().all(|path| !path.exists()));
    assert!(building[0].exists(), "removed below a machine that runs");
    drop(alive);
    let began = std::time::Instant::now();
    while building[0].exists() || sockets.exists() {
        assert!(began.elapsed().as_secs() < 10, "it stays");
        std::thread::yield_now();
    }
    assert!(building[1].exists());
}
