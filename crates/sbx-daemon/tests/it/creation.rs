//! Requests for sandboxes that cannot be: each gets one clear error and leaves nothing half-made.

use crate::harness::{Daemon, program};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) fn request(change: impl FnOnce(&mut Value)) -> Value {
    let mut request = json!({
        "name": "box", "agent": "shell", "workspaces": [], "cpus": 1, "memory_mib": 512,
        "env": [], "deny_network": [], "accel": null,
    });
    change(&mut request);
    request
}

pub(crate) fn workspace(path: &str) -> Value {
    request(|r| r["workspaces"] = json!([{"path": path, "read_only": false}]))
}

fn nothing_was_made(daemon: &Daemon) {
    assert_eq!(daemon.get("/v1/sandboxes").ok()["sandboxes"], json!([]));
    assert_eq!(
        fs::read_dir(daemon.state().join("sandboxes"))
            .unwrap()
            .count(),
        0
    );
    assert_eq!(daemon.get("/v1/policy").ok()["rules"], json!([]));
    let sockets = fs::read_dir(daemon.runtime()).unwrap().count();
    assert_eq!(sockets, 1, "more than the daemon's socket");
}

#[test]
fn bad_requests_get_one_clear_error_and_leave_nothing_half_made() {
    let daemon = Daemon::start();
    assert_eq!(
        daemon.post("/v1/sandboxes", &request(|_| ())).code(),
        "policy-not-initialized"
    );
    daemon.init("deny-all");
    let file = daemon.path("file");
    fs::write(&file, "").unwrap();
    let state = daemon.state();
    let twice = daemon.path("twice");
    fs::create_dir(&twice).unwrap();
    let twice = json!({"path": twice, "read_only": false});
    let many: Vec<_> = (0..13)
        .map(|index| json!({"path": daemon.path(&format!("{index}")), "read_only": false}))
        .collect();
    let table = [
        (request(|r| r["name"] = json!("a")), "name-invalid"),
        (request(|r| r["name"] = json!("a/b")), "name-invalid"),
        (request(|r| r["name"] = json!("default")), "name-invalid"),
        (request(|r| r["agent"] = json!("nope")), "agent-unknown"),
        (request(|r| r["cpus"] = json!(65)), "cpus-out-of-range"),
        (
            request(|r| r["memory_mib"] = json!(511)),
            "memory-out-of-range",
        ),
        (
            request(|r| r["memory_mib"] = json!(4_000_000_000_u32)),
            "memory-out-of-range",
        ),
        (request(|r| r["env"] = json!([["A B", "x"]])), "env-invalid"),
        (workspace("relative"), "workspace-relative"),
        (workspace("/nonexistent/folder"), "workspace-missing"),
        (
            workspace(file.to_str().unwrap()),
            "workspace-not-a-directory",
        ),
        (workspace("/"), "workspace-refused"),
        (workspace("/usr"), "workspace-refused"),
        (workspace("/etc"), "workspace-refused"),
        (workspace("/var"), "workspace-refused"),
        (workspace("/proc"), "workspace-refused"),
        (workspace("/proc/self/fd"), "workspace-refused"),
        (workspace(state.to_str().unwrap()), "workspace-holds-sbx"),
        (
            workspace(daemon.folder.path().to_str().unwrap()),
            "workspace-holds-sbx",
        ),
        (
            request(|r| r["workspaces"] = json!([twice, twice])),
            "workspace-twice",
        ),
        (
            request(|r| r["workspaces"] = json!(many)),
            "workspace-too-many",
        ),
        (request(|r| r["unknown"] = json!(1)), "bad-request"),
    ];
    for (request, code) in table {
        let answer = daemon.post("/v1/sandboxes", &request);
        assert_eq!(answer.code(), code, "{request}\n{answer:?}");
        assert_eq!(answer.body["blame"], "user");
    }
    nothing_was_made(&daemon);
    assert_eq!(
        daemon.post("/v1/sandboxes/nope/start", &json!({})).code(),
        "sandbox-not-found"
    );
    assert_eq!(
        daemon.post("/v1/sandboxes/nope/stop", &Value::Null).code(),
        "sandbox-not-found"
    );
}

#[test]
fn link_to_a_refused_folder_is_refused_too() {
    let daemon = Daemon::start();
    daemon.init("deny-all");
    let link = daemon.path("link");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    let answer = daemon.post("/v1/sandboxes", &workspace(link.to_str().unwrap()));
    assert_eq!(answer.code(), "workspace-refused");
}

#[test]
fn folder_that_the_user_may_not_read_is_refused() {
    if rustix::process::geteuid().is_root() {
        return; // root may read everything; the suite also runs as an ordinary user
    }
    let daemon = Daemon::start();
    daemon.init("deny-all");
    let closed = daemon.path("closed");
    fs::create_dir(&closed).unwrap();
    for (mode, code) in [
        (0o000, "workspace-unreadable"),
        (0o555, "workspace-not-writable"),
    ] {
        fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).unwrap();
        let answer = daemon.post("/v1/sandboxes", &workspace(closed.to_str().unwrap()));
        assert_eq!(answer.code(), code);
    }
    nothing_was_made(&daemon);
}

#[test]
fn missing_programs_are_named_with_the_step_that_brings_them() {
    let mut daemon = Daemon::stopped();
    let lonely = daemon.path("bin");
    fs::create_dir(&lonely).unwrap();
    let copy = lonely.join("sbx-daemon");
    fs::copy(program(), &copy).unwrap();
    daemon.restart_as(&copy, |command| command.env("PATH", &lonely));
    daemon.init("deny-all");
    let answer = daemon.post("/v1/sandboxes", &request(|_| ()));
    assert_eq!((answer.status, answer.code()), (503, "qemu-missing"));
    for name in ["qemu-system-x86_64", "qemu-img"] {
        fs::copy("/bin/true", lonely.join(name)).unwrap();
    }
    let answer = daemon.post("/v1/sandboxes", &request(|_| ()));
    assert_eq!(answer.code(), "installation");
    assert!(answer.body["try"].as_str().unwrap().contains("./dev setup"));
    nothing_was_made(&daemon);
}

#[test]
fn name_in_use_is_refused() {
    let mut daemon = Daemon::stopped();
    daemon.plant("00000000000a", "box");
    // Programs are looked for before the name is taken.
    restart_with_dummies(&mut daemon, None);
    daemon.init("deny-all");
    let answer = daemon.post("/v1/sandboxes", &request(|_| ()));
    assert_eq!((answer.status, answer.code()), (409, "name-in-use"));
    // A worker that dies without a word: the error arrives in the stream and nothing is left.
    let answer = daemon.post("/v1/sandboxes", &request(|r| r["name"] = json!("other")));
    assert_eq!(answer.status, 200);
    assert!(answer.body["failed"]["code"].is_string(), "{answer:?}");
    let sandboxes = daemon.get("/v1/sandboxes").ok();
    assert_eq!(sandboxes["sandboxes"].as_array().unwrap().len(), 1);
}

/// Starts the daemon among programs that do nothing. `worker`: the text of the one that makes images.
pub(crate) fn restart_with_dummies(daemon: &mut Daemon, worker: Option<&str>) {
    let bin = daemon.path("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(program(), bin.join("sbx-daemon")).unwrap();
    let others = [
        "sbx-gateway",
        "sbx-share",
        "sbx-guest.static",
        "sbx-supervisor",
        "sbx-image-worker",
    ];
    for name in others.iter().chain(&["qemu-system-x86_64", "qemu-img"]) {
        fs::copy("/bin/true", bin.join(name)).unwrap();
    }
    if let Some(text) = worker {
        fs::write(bin.join("sbx-image-worker"), text).unwrap();
    }
    daemon.restart_as(&bin.join("sbx-daemon"), |command| command.env("PATH", &bin));
}

#[test]
fn no_image_is_looked_for_while_images_are_being_removed_and_none_removed_meanwhile() {
    let mut daemon = Daemon::stopped();
    let (begun, end) = (daemon.path("begun"), daemon.path("end"));
    let worker = format!(
        "#!/bin/sh\n: >{}\nread line <{}\nexit 1\n",
        begun.display(),
        end.display()
    );
    restart_with_dummies(&mut daemon, Some(&worker));
    daemon.init("deny-all");
    let images = daemon.path("home/cache/images");
    fs::create_dir_all(images.join("base-unused")).unwrap();
    // The removal waits at a lock that is a pipe until somebody reads there.
    let pipe = images.join("base-unused.lock");
    for path in [&pipe, &end] {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    }
    let (daemon, prune) = (&daemon, json!({"dry_run": false}));
    thread::scope(|scope| {
        let pruned = scope.spawn(|| {
            loop {
                let answer = daemon.post("/v1/cache/prune", &prune);
                // Our own look below was in its way.
                if answer.status == 200 || answer.code() != "busy" {
                    return answer;
                }
            }
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        while daemon
            .post("/v1/cache/prune", &json!({"dry_run": true}))
            .status
            == 200
        {
            assert!(Instant::now() < deadline, "nothing is being removed");
            thread::park_timeout(Duration::from_millis(20));
        }
        let made = scope.spawn(|| daemon.post("/v1/sandboxes", &request(|_| ())));
        // It was taken on; long enough for it to get on.
        thread::park_timeout(Duration::from_millis(500));
        let too_early = begun.exists();
        drop(fs::File::open(&pipe).unwrap());
        assert_eq!(
            pruned.join().unwrap().ok()["images"],
            json!(["base-unused"])
        );
        while !begun.exists() {
            assert!(Instant::now() < deadline, "no image is looked for");
            thread::park_timeout(Duration::from_millis(20));
        }
        let meanwhile = daemon.post("/v1/cache/prune", &prune);
        fs::write(&end, "\n").unwrap();
        assert!(made.join().unwrap().body["failed"]["code"].is_string());
        assert_eq!(meanwhile.code(), "busy");
        assert!(!too_early);
    });
}

#[test]
fn home_and_what_programs_keep_in_it_are_no_workspaces_unless_named_and_denials_are_absolute() {
    const PASSED: &str = "cpus-out-of-range";
    let daemon = Daemon::start();
    daemon.init("deny-all");
    let user = daemon.path("user");
    for folder in [
        "user/.ssh",
        "user/.config/app",
        "user/.cargo",
        "user/project",
        "secret",
    ] {
        fs::create_dir_all(daemon.path(folder)).unwrap();
    }
    let path = |below: &str| user.join(below).display().to_string();
    let answer = |path: &str, read_only: bool| {
        // Processors are looked at after workspaces: nothing is made of a request that passes.
        let request = request(|r| {
            r["workspaces"] = json!([{"path": path, "read_only": read_only}]);
            r["cpus"] = json!(65);
        });
        daemon.post("/v1/sandboxes", &request)
    };
    let code = |path: &str, read_only: bool| answer(path, read_only).code().to_owned();
    let refused = |path: &str, read_only: bool, missing: &str| {
        let answer = answer(path, read_only);
        assert_eq!(answer.code(), "workspace-refused", "{path}");
        let message = answer.body["message"].as_str().unwrap();
        let start = format!("mount policy denied {missing} access to {path}: ");
        assert!(message.starts_with(&start), "{message}");
    };
    let set = |key: &str, value: &str| {
        let request = json!({"key": key, "value": value});
        daemon.post("/v1/settings", &request).ok()
    };
    for below in [".ssh", ".config/app", ".cargo"] {
        refused(&path(below), true, "read");
        refused(&path(below), false, "read and write");
    }
    assert_eq!(code(&path(""), true), "workspace-refused");
    assert_eq!(code(&path("project"), false), PASSED);
    set("workspace.mounts.allow", "~/.config/*:ro, ~");
    refused(&path(".config/app"), false, "write");
    assert_eq!(code(&path(".config/app"), true), PASSED);
    assert_eq!(code(&path(""), false), PASSED);
    set(
        "workspace.mounts.deny",
        &daemon.path("secret").display().to_string(),
    );
    let secret = daemon.path("secret").display().to_string();
    refused(&secret, true, "read");
    let bad = json!({"key": "workspace.mounts.allow", "value": "relative"});
    assert_eq!(daemon.post("/v1/settings", &bad).body["blame"], "user");
}

#[test]
fn what_a_sensitive_place_or_a_rule_leads_to_is_meant_and_a_link_opens_nothing() {
    let daemon = Daemon::start();
    daemon.init("deny-all");
    for folder in [
        "user/dot/config/app",
        "user/project",
        "user/.ssh",
        "tool",
        "secret",
    ] {
        fs::create_dir_all(daemon.path(folder)).unwrap();
    }
    for (to, link) in [
        ("dot/config", "user/.config"),
        ("../../tool", "user/.ssh/tool"),
        ("../.ssh", "user/project/data"),
        ("secret", "link"),
    ] {
        std::os::unix::fs::symlink(to, daemon.path(link)).unwrap();
    }
    let code = |path: &str| {
        // As above: nothing is made of a request that passes.
        let request = request(|r| {
            r["workspaces"] = json!([{"path": daemon.path(path), "read_only": false}]);
            r["cpus"] = json!(65);
        });
        daemon.post("/v1/sandboxes", &request).code().to_owned()
    };
    let set = |key: &str, value: String| {
        let request = json!({"key": key, "value": value});
        daemon.post("/v1/settings", &request).ok()
    };
    set(
        "workspace.mounts.deny",
        daemon.path("link").display().to_string(),
    );
    set(
        "workspace.mounts.allow",
        "~/project/**, ~/.config/app".to_owned(),
    );
    for path in [
        "user/.config",
        "user/.config/app",
        "user/dot",
        "user/dot/config/app",
        "user/.ssh/tool",
        "user/project/data",
        "secret",
        "link",
    ] {
        assert_eq!(code(path), "workspace-refused", "{path}");
    }
    // The way up is taken before anything is judged.
    for path in ["user/project", "tool", "user/.ssh/../project"] {
        assert_eq!(code(path), "cpus-out-of-range", "{path}");
    }
    set("workspace.mounts.allow", "~/dot/config/app".to_owned());
    assert_eq!(code("user/.config/app"), "cpus-out-of-range");
}

#[test]
fn a_file_is_shared_read_only_and_never_as_the_first_workspace() {
    let daemon = Daemon::start();
    daemon.init("deny-all");
    let file = daemon.path("file");
    fs::write(&file, "").unwrap();
    let alone = request(|r| r["workspaces"] = json!([{"path": file, "read_only": true}]));
    let answer = daemon.post("/v1/sandboxes", &alone);
    assert_eq!(answer.code(), "workspace-not-a-directory");
    for system in ["/etc/passwd", "/proc/self/environ"] {
        let read_only = request(|r| r["workspaces"] = json!([{"path": system, "read_only": true}]));
        let answer = daemon.post("/v1/sandboxes", &read_only);
        assert_eq!(answer.code(), "workspace-refused", "{system}");
    }
    nothing_was_made(&daemon);
}
