//! A daemon that finds sandboxes running: supervisor and gateway are played by the test.

use crate::harness::Daemon;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sbx_wire::frame::{Decoder, encode};
use sbx_wire::gateway::{Answer, Command, PublicKey};
use sbx_wire::guest::DockerState;
use sbx_wire::session::{Phase, Processes, Reply, Request, Sessions, Status, Stay};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

pub(crate) const ID: &str = "00000000000a";
/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

fn status(phase: Phase, sessions: u32) -> Reply {
    Reply::Status(Status {
        id: ID.to_owned(),
        phase,
        docker: DockerState::Ready { uptime_ms: 7 },
        sessions,
        processes: Processes {
            supervisor: 11,
            spawner: 12,
            machine: Some(13),
            ..Processes::default()
        },
        ready_ms: Some(900),
        uptime_s: 5,
    })
}

fn about(sessions: u32) -> Reply {
    Reply::Sessions(Sessions {
        agent: sessions > 0,
        attached: sessions,
        stay: if sessions > 0 {
            Stay::Sessions
        } else {
            Stay::Until {
                unix_ms: 1_800_000_000_000,
            }
        },
    })
}

fn request(stream: &mut UnixStream) -> Option<Request> {
    let mut decoder = Decoder::new(0);
    loop {
        if let Some(request) = decoder.next().unwrap() {
            return Some(request);
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).ok()? {
            0 => return None,
            count => decoder.push(&piece[..count]),
        }
    }
}

/// Listens as a supervisor, whose agent runs when there are sessions. Each watcher's connection is handed out
/// after the first status.
pub(crate) fn supervisor(runtime: &Path, sessions: u32) -> mpsc::Receiver<UnixStream> {
    supervisor_of_any_age(runtime, sessions, true)
}

/// `knows_follow`: false for one from before sessions were followed.
pub(crate) fn supervisor_of_any_age(
    runtime: &Path,
    sessions: u32,
    knows_follow: bool,
) -> mpsc::Receiver<UnixStream> {
    let listener = UnixListener::bind(runtime.join("supervisor.sock")).unwrap();
    let path = runtime.join("supervisor.sock");
    let (watchers, received) = mpsc::channel();
    thread::spawn(move || {
        let mut open: Vec<UnixStream> = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            match request(&mut stream) {
                // What it does not know does not decode, and it hangs up.
                Some(Request::Follow) if !knows_follow => {}
                Some(asked @ (Request::Watch | Request::Follow)) => {
                    let mut first = encode(0, &status(Phase::Running, sessions)).unwrap();
                    if matches!(asked, Request::Follow) {
                        first.extend(encode(0, &about(sessions)).unwrap());
                    }
                    stream.write_all(&first).unwrap();
                    open.push(stream.try_clone().unwrap());
                    let _ = watchers.send(stream);
                }
                Some(Request::Stop { .. }) => {
                    std::fs::remove_file(&path).unwrap();
                    stream
                        .write_all(&encode(0, &Reply::Stopped).unwrap())
                        .unwrap();
                    for watcher in &open {
                        let _ = watcher.shutdown(std::net::Shutdown::Both);
                    }
                    return;
                }
                _ => {}
            }
        }
    });
    received
}

/// The key that the gateway of the test names.
fn point() -> PublicKey {
    let mut point = [9; PublicKey::LENGTH];
    point[0] = 4;
    PublicKey::try_from(&point[..]).unwrap()
}

/// A configuration that a gateway was given, and the connection it came on.
pub(crate) type Configured = mpsc::Receiver<(Value, UnixStream)>;
/// Why a configuration is not taken.
pub(crate) type Refuses = fn(&Value) -> Option<String>;

/// Listens as a gateway and hands out each configuration once it has been answered. It never has a page for
/// the browser.
pub(crate) fn gateway(runtime: &Path) -> Configured {
    gateway_that_refuses(runtime, |_| None)
}

/// The same, but what `refuses` has a reason for is not taken.
pub(crate) fn gateway_that_refuses(runtime: &Path, refuses: Refuses) -> Configured {
    gateway_with_pages(runtime, refuses, hold)
}

/// Keeps a connection on which there is nothing to say.
fn hold(mut lines: BufReader<UnixStream>, _: UnixStream) {
    let _until_closed = lines.read_line(&mut String::new());
}

/// The same with pages: `serve` gets the connection that asks for them.
pub(crate) fn gateway_with_pages(
    runtime: &Path,
    refuses: Refuses,
    serve: impl FnOnce(BufReader<UnixStream>, UnixStream) + Clone + Send + 'static,
) -> Configured {
    let pages = |command: &Command| matches!(command, Command::AwaitPage);
    listen(runtime, refuses, pages, serve)
}

/// The same with values that are asked for: `serve` gets each connection that waits for such a question.
pub(crate) fn gateway_with_values(
    runtime: &Path,
    serve: impl FnOnce(BufReader<UnixStream>, UnixStream) + Clone + Send + 'static,
) -> Configured {
    let values = |command: &Command| matches!(command, Command::AwaitValue);
    listen(runtime, |_| None, values, serve)
}

/// The same with programs inside that ask the SSH agent: `serve` gets each connection that waits for one.
pub(crate) fn gateway_with_ssh(
    runtime: &Path,
    serve: impl FnOnce(BufReader<UnixStream>, UnixStream) + Clone + Send + 'static,
) -> Configured {
    let agent = |command: &Command| matches!(command, Command::AwaitAgent);
    listen(runtime, |_| None, agent, serve)
}

/// Whether a connection is one that `serve` gets.
type Which = fn(&Command) -> bool;

fn listen(
    runtime: &Path,
    refuses: Refuses,
    which: Which,
    serve: impl FnOnce(BufReader<UnixStream>, UnixStream) + Clone + Send + 'static,
) -> Configured {
    let listener = UnixListener::bind(runtime.join("gateway.sock")).unwrap();
    let (configurations, received) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, configurations) = (stream.unwrap(), configurations.clone());
            let serve = serve.clone();
            thread::spawn(move || converse(stream, &configurations, refuses, which, serve));
        }
    });
    received
}

fn converse(
    mut stream: UnixStream,
    configurations: &mpsc::Sender<(Value, UnixStream)>,
    refuses: Refuses,
    which: Which,
    serve: impl FnOnce(BufReader<UnixStream>, UnixStream),
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
        let value: Value = serde_json::from_str(&line).unwrap();
        let answer = match serde_json::from_str(&line).unwrap() {
            command if which(&command) => return serve(lines, stream),
            Command::CertificateRequest => Answer::CertificateRequest {
                public_key: point(),
            },
            Command::Configure(config) => match refuses(&value) {
                Some(reason) => Answer::Refused { reason },
                None => Answer::Configured {
                    generation: config.file.policy.generation,
                },
            },
            Command::AwaitPage
            | Command::AwaitValue
            | Command::AwaitAgent
            | Command::AwaitIssued => {
                return hold(lines, stream);
            }
            other => panic!("{other:?}"),
        };
        line.clear();
        let configured = !matches!(answer, Answer::CertificateRequest { .. });
        // Told first: who waits for the answer finds it there. Not every test listens.
        if configured {
            let _ = configurations.send((value, stream.try_clone().unwrap()));
        }
        let text = serde_json::to_string(&answer).unwrap();
        // A test that heard enough may have closed it.
        let _ = stream.write_all(format!("{text}\n").as_bytes());
    }
}

pub(crate) fn planted() -> Daemon {
    let daemon = Daemon::stopped();
    daemon.plant(ID, "one");
    let private = |path: &Path| {
        std::fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(path)
    };
    private(&daemon.runtime().join(ID)).unwrap();
    daemon
}

#[test]
fn running_sandbox_is_adopted_and_its_gateway_gets_everything_again() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let watchers = supervisor(&runtime, 0);
    let configured = gateway(&runtime);
    daemon.restart();
    let shown = daemon.get("/v1/sandboxes/one").ok();
    assert_eq!(
        (&shown["status"], &shown["docker"]),
        (&json!("running"), &json!("ready (7 ms)"))
    );
    assert_eq!(shown["processes"][2], json!(["machine", 13]));
    let (first, _) = configured.recv_timeout(LIMIT).unwrap();
    let certificate = first["authority"]["certificate_pem"].as_str().unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let ours = point();
    assert!(
        certificate
            .windows(PublicKey::LENGTH)
            .any(|part| part == ours.as_bytes()),
        "issued for the key that the gateway named"
    );
    let all = first.to_string();
    assert!(!all.contains("PRIVATE"), "{all}");
    // Killed without a warning: the next one finds everything again, with a fresh authority.
    daemon.restart();
    assert_eq!(daemon.get("/v1/sandboxes/one").ok()["status"], "running");
    let (second, _) = configured.recv_timeout(LIMIT).unwrap();
    assert_ne!(
        first["authority"]["certificate_pem"],
        second["authority"]["certificate_pem"]
    );
    assert_eq!(
        first["authority"]["root_pem"],
        second["authority"]["root_pem"]
    );
    drop(watchers);
}

#[test]
fn change_is_in_force_before_its_request_is_answered() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway(&runtime);
    daemon.restart();
    configured.recv_timeout(LIMIT).unwrap();
    daemon.init("deny-all");
    let secret =
        json!({"service": "anthropic", "value": "the-real-key", "sandbox": "one", "force": false});
    daemon.post("/v1/secrets", &secret).ok();
    // Answered only after the gateway had answered: nothing has to be waited for here.
    let all: Vec<Value> = configured.try_iter().map(|(value, _)| value).collect();
    let last = &all.last().unwrap()["credentials"][0];
    assert_eq!(last["value"], "the-real-key");
    assert_eq!(last["header"], "x-api-key");
    assert_eq!(last["placeholder"], "sk-ant-api03-placeholder-of-the-test");
    let rule = json!({"allow": true, "resources": ["x.example"], "sandbox": null, "protocols": []});
    daemon.post("/v1/policy/rules", &rule).ok();
    let (value, stream) = configured.try_iter().last().unwrap();
    assert_eq!(
        value["file"]["policy"]["rules"][0]["resources"][0],
        "x.example"
    );
    // A gateway that was restarted gets the same again.
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    let (again, _) = configured.recv_timeout(LIMIT).unwrap();
    assert_eq!(again["file"], value["file"]);
    assert_eq!(again["credentials"], value["credentials"]);
}

#[test]
fn what_a_gateway_refuses_is_said_with_its_reason_and_stays_visible_until_it_is_mended() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway_that_refuses(&runtime, |value| {
        let bad = value.to_string().contains("bad.example");
        bad.then(|| "a pattern that I do not know".to_owned())
    });
    daemon.restart();
    configured.recv_timeout(LIMIT).unwrap();
    daemon.init("deny-all");
    assert!(daemon.get("/v1/policy").ok().get("unconfirmed").is_none());
    let rule = |resource: &str| json!({"allow": true, "resources": [resource]});
    let refused = daemon.post("/v1/policy/rules", &rule("bad.example"));
    assert_eq!(refused.code(), "gateway-refused");
    let message = refused.body["message"].as_str().unwrap();
    for part in [
        "is stored",
        "'one'",
        "keeps the last good policy",
        "a pattern that I do not know",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(
        refused.body["try"]
            .as_str()
            .unwrap()
            .contains("sbx stop one")
    );
    let listed = daemon.get("/v1/policy").ok();
    assert_eq!(listed["unconfirmed"][0]["sandbox"], "one");
    // Another rule does not hide it, and taking the bad one back mends it.
    let again = daemon.post("/v1/policy/rules", &rule("good.example"));
    assert_eq!(again.code(), "gateway-refused");
    let bad = json!({"resource": "bad.example"});
    daemon.post("/v1/policy/rules/remove", &bad).ok();
    assert!(daemon.get("/v1/policy").ok().get("unconfirmed").is_none());
    let (last, _) = configured.try_iter().last().unwrap();
    assert_eq!(
        last["file"]["policy"]["rules"][0]["resources"][0],
        "good.example"
    );
}

#[test]
fn a_gateway_of_an_earlier_version_gets_what_it_understands() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway_that_refuses(&runtime, |value| {
        let text = value.to_string();
        let newer = ["withdrawn", "conversation", "basic_user", "unavailable"];
        let unknown = newer.iter().find(|field| text.contains(*field));
        unknown.map(|field| format!("unknown field `{field}`"))
    });
    daemon.restart();
    daemon.init("deny-all");
    let set = |service: &str| {
        let secret = json!({"service": service, "value": "the-real-key"});
        daemon.post("/v1/secrets", &secret)
    };
    set("anthropic").ok();
    let (last, _) = configured.try_iter().last().unwrap();
    assert_eq!(last["credentials"][0]["value"], "the-real-key");
    assert!(last.get("withdrawn").is_none());
    // What it cannot do is said, and the policy is in force all the same.
    let partly = set("github");
    assert_eq!(partly.code(), "gateway-refused");
    let rule = json!({"allow": true, "resources": ["x.example"]});
    assert_eq!(
        daemon.post("/v1/policy/rules", &rule).code(),
        "gateway-refused"
    );
    let (last, _) = configured.try_iter().last().unwrap();
    assert_eq!(
        last["file"]["policy"]["rules"][0]["resources"][0],
        "x.example"
    );
    assert!(!last["credentials"].to_string().contains("basic_user"));
    // Where it would let a placeholder pass, it lets nothing pass.
    let closed = &last["file"]["policy"]["rules"][1];
    assert_eq!(
        (&closed["decision"], &closed["scope"]),
        (&json!("deny"), &json!("global"))
    );
    assert_eq!(
        closed["resources"],
        json!(["github.com", "gist.github.com"])
    );
    assert!(
        closed["name"]
            .as_str()
            .unwrap()
            .contains("stop the sandbox")
    );
    // A value that cannot be had now, too.
    let fetched = json!({"command": "exit 1", "unverified": true});
    let secret = json!({"service": "xai", "fetched": fetched});
    assert_eq!(
        daemon.post("/v1/secrets", &secret).code(),
        "gateway-refused"
    );
    let closed = json!(["github.com", "gist.github.com", "api.x.ai"]);
    loop {
        let (value, _) = configured.recv_timeout(LIMIT).unwrap();
        if value["file"]["policy"]["rules"][1]["resources"] == closed {
            break;
        }
    }
}

#[test]
fn status_follows_what_the_supervisor_says_until_it_ends() {
    let mut daemon = planted();
    let watchers = supervisor(&daemon.runtime().join(ID), 0);
    daemon.restart();
    let mut watcher = watchers.recv_timeout(LIMIT).unwrap();
    let why = "share 0 ended".to_owned();
    watcher
        .write_all(&encode(0, &status(Phase::Unresponsive(why), 0)).unwrap())
        .unwrap();
    let wait_for = |wanted: &str| {
        for _ in 0..2000 {
            let shown = daemon.get("/v1/sandboxes/one").ok();
            if shown["status"] == wanted {
                return shown;
            }
        }
        panic!("never {wanted}");
    };
    assert_eq!(wait_for("unresponsive")["status_reason"], "share 0 ended");
    std::fs::write(
        daemon.state().join("sandboxes").join(ID).join("last-exit"),
        "QEMU was killed",
    )
    .unwrap();
    std::fs::remove_file(daemon.runtime().join(ID).join("supervisor.sock")).unwrap();
    watcher.shutdown(std::net::Shutdown::Both).unwrap();
    let stopped = wait_for("stopped");
    assert_eq!(stopped["status_reason"], "QEMU was killed");
    assert!(stopped.get("processes").is_none());
}

#[test]
fn sandbox_with_sessions_is_removed_only_by_force_and_leaves_nothing() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 2);
    daemon.restart();
    let refused = daemon.request("DELETE", "/v1/sandboxes/one", &Value::Null);
    assert_eq!((refused.status, refused.code()), (409, "sessions-attached"));
    let message = refused.body["message"].as_str().unwrap();
    assert!(
        message.contains("2 terminals are attached to its agent") && message.contains("1 session"),
        "{message}"
    );
    assert_eq!(daemon.get("/v1/sandboxes/one").ok()["status"], "running");
    daemon
        .request("DELETE", "/v1/sandboxes/one?force=true", &Value::Null)
        .ok();
    assert_eq!(daemon.get("/v1/sandboxes").ok()["sandboxes"], json!([]));
    assert!(!runtime.exists());
    assert_eq!(
        std::fs::read_dir(daemon.state().join("sandboxes"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn running_sandbox_is_started_by_naming_its_socket() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let _configured = gateway(&runtime);
    daemon.restart();
    daemon.init("deny-all");
    let attach = daemon.post("/v1/sandboxes/one/start", &json!({})).ok()["done"].clone();
    assert_eq!(attach["started"], false);
    assert_eq!(
        attach["socket"],
        runtime.join("supervisor.sock").to_str().unwrap()
    );
    assert_eq!(attach["agent_command"], json!(["bash", "-l"]));
    let about = |attach: &Value| -> Vec<Value> {
        let env = attach["env"].as_array().unwrap().iter();
        env.filter(|row| row.to_string().contains("ANTHROPIC"))
            .cloned()
            .collect()
    };
    assert_eq!(about(&attach), [json!(["SBX_CRED_ANTHROPIC_MODE", "none"])]);
    // Stored now, used by the next session of the machine that runs.
    let secret =
        json!({"service": "anthropic", "value": "the-real-key", "sandbox": null, "force": false});
    daemon.post("/v1/secrets", &secret).ok();
    let attach = daemon.post("/v1/sandboxes/one/start", &json!({})).ok()["done"].clone();
    assert_eq!(
        about(&attach),
        [
            json!(["SBX_CRED_ANTHROPIC_MODE", "apikey"]),
            json!(["ANTHROPIC_API_KEY", "sk-ant-api03-placeholder-of-the-test"])
        ]
    );
    daemon
        .post("/v1/shutdown", &json!({"stop_sandboxes": true}))
        .ok();
    assert!(!runtime.join("supervisor.sock").exists());
}

#[test]
fn nothing_is_removed_or_started_while_a_helper_of_a_killed_supervisor_lives() {
    let mut daemon = Daemon::stopped();
    let names = ["one", "two", "three"];
    let ids = ["00000000000a", "00000000000b", "00000000000c"];
    let dirs = [0, 1, 2].map(|index: usize| daemon.plant(ids[index], names[index]));
    daemon.restart();
    daemon.init("deny-all");
    // As helpers do: they inherit the lock, and whoever took it has gone.
    let locked = dirs.clone().map(|dir| {
        let file = std::fs::File::create(dir.join("alive")).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        file
    });
    let [stdin, stdout, stderr] = locked;
    let mut helper = std::process::Command::new("sleep")
        .arg("600")
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap();
    let daemon = &daemon;
    thread::scope(|scope| {
        let waiting = [
            scope.spawn(|| daemon.request("DELETE", "/v1/sandboxes/one?force=true", &Value::Null)),
            scope.spawn(|| daemon.post("/v1/sandboxes/two/stop", &Value::Null)),
        ];
        let started = scope.spawn(|| daemon.post("/v1/sandboxes/three/start", &json!({})).ok());
        for answer in waiting {
            assert_eq!(answer.join().unwrap().code(), "sandbox-stuck");
        }
        assert_eq!(started.join().unwrap()["failed"]["code"], "sandbox-stuck");
    });
    assert!(dirs[0].join("sandbox.json").exists());
    helper.kill().unwrap();
    helper.wait().unwrap();
    daemon
        .request("DELETE", "/v1/sandboxes/one", &Value::Null)
        .ok();
    assert!(!dirs[0].exists());
    // It gets past the locks now, to the image that is not there.
    let failed = daemon.post("/v1/sandboxes/three/start", &json!({})).ok();
    assert_eq!(failed["failed"]["code"], "image-missing");
}

#[test]
fn sandbox_whose_image_was_built_anew_is_not_started_on_that_one() {
    let mut daemon = Daemon::stopped();
    let dir = daemon.plant("00000000000a", "old");
    plant_image(&daemon.path("home/cache"), "base-0", "two");
    daemon.restart();
    daemon.init("deny-all");
    let start = |daemon: &Daemon| {
        let failed = daemon.post("/v1/sandboxes/old/start", &json!({})).ok();
        (
            failed["failed"]["code"].as_str().unwrap().to_owned(),
            failed["failed"]["message"].as_str().unwrap().to_owned(),
        )
    };
    // Of a version that noted no build, then of another build.
    let (code, message) = start(&daemon);
    assert_eq!(code, "image-missing");
    assert!(message.contains("built anew"), "{message}");
    let path = dir.join("sandbox.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["image_build"] = json!("one");
    std::fs::write(&path, record.to_string()).unwrap();
    daemon.restart();
    assert_eq!(start(&daemon).0, "image-missing");
}

/// A base image without content.
fn plant_image(cache: &Path, key: &str, build: &str) {
    let dir = cache.join("images").join(key);
    std::fs::create_dir_all(&dir).unwrap();
    let manifest = json!({
        "schema": 1, "template": "base", "key": key, "build": build, "base": null, "built_at_unix_s": 0,
        "lower": "rootfs.erofs", "kernel": {"version": "6.12.0", "file": "vmlinux"}, "modules": [],
        "upper": {"file": "upper.ext4", "bytes": 1}, "docker": {"file": "docker.ext4", "bytes": 1},
        "packages": {}, "path": "/usr/bin", "workdir": "/", "agent_command": ["bash"], "finish": [],
        "sizes": {},
    });
    std::fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
}
