//! The real daemon beside the real gateway, with a guest before them and an authorisation server behind. The supervisor is
//! played.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use sbx_testkit::AuthorisationStandIn;
use sbx_testkit::authorisation::Options;
use sbx_wire::frame::{Decoder, encode};
use sbx_wire::gateway::{Answer, Command};
use sbx_wire::guest::DockerState;
use sbx_wire::session::{Phase, Processes, Reply, Request as Asked, Sessions, Status, Stay};
use serde_json::{Map, Value, json};

use crate::lab::{Lab, Setup, h1, h2, send, text};

const ID: &str = "00000000000a";
/// Where requests go that nobody has a token for.
const ELSEWHERE: &str = "web.test";

/// See the module.
pub(crate) struct Host {
    pub(crate) lab: Lab,
    pub(crate) server: AuthorisationStandIn,
    folder: tempfile::TempDir,
    daemon: Option<Child>,
}

/// What the guest was answered.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) location: String,
    pub(crate) text: String,
}

impl Told {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

impl Host {
    /// All `hosts` are the authorisation server.
    pub(crate) fn start(hosts: &[&str], options: Options) -> Self {
        let names: Vec<String> = hosts.iter().map(|name| (*name).to_owned()).collect();
        let server = AuthorisationStandIn::start(Options { names, ..options }).unwrap();
        let folder = tempfile::Builder::new().prefix("sbxh").tempdir_in("/tmp");
        let folder = folder.unwrap();
        std::fs::create_dir(folder.path().join("run")).unwrap();
        plant(&folder.path().join("home/state/sandboxes").join(ID));
        let mut host = Self {
            lab: Setup::new(&[]).start(),
            server,
            folder,
            daemon: None,
        };
        host.start_daemon();
        host.prepare(hosts);
        host.kill_daemon();
        let root = std::fs::read_to_string(host.state().join("ca/root.pem")).unwrap();
        let mut setup = Setup::new(&[]);
        setup.configure = false;
        setup.guest_roots.push(root);
        host.lab = setup.start();
        host.join();
        host.start_daemon();
        host.wait_until_configured();
        host
    }

    fn prepare(&self, hosts: &[&str]) {
        let roots = self.folder.path().join("roots.pem");
        std::fs::write(&roots, self.server.root_pem()).unwrap();
        let target = |host: &&str| {
            (
                format!("{host}:443"),
                json!(self.server.address().to_string()),
            )
        };
        let mut overrides: Map<String, Value> = hosts.iter().map(target).collect();
        let elsewhere = json!(self.server.address().to_string());
        overrides.insert(format!("{ELSEWHERE}:80"), elsewhere);
        let overrides = Value::Object(overrides).to_string();
        for (key, value) in [
            ("upstream.overrides", overrides.as_str()),
            ("upstream.extraRoots", roots.to_str().unwrap()),
            ("secrets.store", "file"),
        ] {
            self.post("/v1/settings", &json!({ "key": key, "value": value }))
                .unwrap();
        }
        let init = json!({ "preset": "allow-all", "replace": false });
        self.post("/v1/policy/init", &init).unwrap();
    }

    /// Lets the daemon find the gateway, and the gateway its file.
    fn join(&self) {
        let runtime = self.runtime().join(ID);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&runtime)
            .unwrap();
        symlink(
            self.lab.path("run/gateway.sock"),
            runtime.join("gateway.sock"),
        )
        .unwrap();
        let file = self.lab.path("run/gateway.json");
        std::fs::remove_file(&file).unwrap();
        symlink(
            self.state().join("sandboxes").join(ID).join("gateway.json"),
            &file,
        )
        .unwrap();
        supervisor(&runtime.join("supervisor.sock"));
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("home/state")
    }

    fn runtime(&self) -> PathBuf {
        let home = sbx_wire::home::Home::from_env(
            |name| match name {
                "SBX_HOME" => Some(self.folder.path().join("home").into()),
                "XDG_RUNTIME_DIR" => Some(self.folder.path().join("run").into()),
                _ => None,
            },
            0,
        );
        home.unwrap().runtime
    }

    pub(crate) fn start_daemon(&mut self) {
        let program = Path::new(env!("CARGO_BIN_EXE_sbx-gateway")).with_file_name("sbx-daemon");
        let path = |below: &str| self.folder.path().join(below);
        let mut child = Process::new(program)
            .arg("--foreground")
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", path("user"))
            .env("SBX_HOME", path("home"))
            .env("XDG_RUNTIME_DIR", path("run"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        self.daemon = Some(child);
        assert_eq!(line, "ready\n");
    }

    /// Kills the daemon without a warning.
    pub(crate) fn kill_daemon(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Kills the gateway, and waits until the next one has its configuration.
    pub(crate) fn restart_gateway(&mut self) {
        self.lab.reboot();
        self.wait_until_configured();
    }

    fn wait_until_configured(&self) {
        let begun = Instant::now();
        loop {
            let answer = self.lab.ask(&Command::Status);
            if matches!(
                answer,
                Answer::Status {
                    configured: true,
                    ..
                }
            ) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{answer:?}");
            std::thread::yield_now();
        }
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.ask("GET", path, &Value::Null).unwrap()
    }

    /// The error is what the daemon says.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, Value> {
        self.ask("POST", path, body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let mut stream = UnixStream::connect(self.runtime().join("daemon.sock")).unwrap();
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: sbx\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        if head.starts_with("HTTP/1.1 200") {
            Ok(body)
        } else {
            Err(body)
        }
    }

    /// Rows of `secret ls`.
    pub(crate) fn sign_ins(&self) -> Vec<Value> {
        let secrets = self.get("/v1/secrets")["secrets"]
            .as_array()
            .unwrap()
            .clone();
        secrets
            .into_iter()
            .filter(|row| row["type"] == "oauth")
            .collect()
    }

    /// What the daemon has written down of the sandbox.
    pub(crate) fn record(&self) -> Value {
        let file = self.state().join("sandboxes").join(ID).join("sandbox.json");
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    }

    /// Whether the text stands in any file below the home.
    pub(crate) fn is_on_disk(&self, wanted: &str) -> bool {
        is_below(self.folder.path(), wanted.as_bytes())
    }

    /// One request of the guest, over HTTP/1.1.
    pub(crate) async fn request(&self, host: &str, request: Request<Full<Bytes>>) -> Told {
        let stream = self.lab.connect(&format!("{host}:443")).await.unwrap();
        let stream = self.lab.tls(stream, host, &[b"http/1.1"]).await.unwrap();
        let answer = send(&mut h1(stream).await, request).await.unwrap();
        told(answer).await
    }

    /// The same over HTTP/2.
    pub(crate) async fn request_h2(&self, host: &str, request: Request<Full<Bytes>>) -> Told {
        let stream = self.lab.connect(&format!("{host}:443")).await.unwrap();
        let stream = self.lab.tls(stream, host, &[b"h2"]).await.unwrap();
        told(h2(stream).await.send_request(request).await.unwrap()).await
    }

    pub(crate) async fn post_json(&self, host: &str, path: &str, body: &Value) -> Told {
        let request = Request::post(path)
            .header("host", host)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())));
        self.request(host, request.unwrap()).await
    }

    /// A request with a token to a host that it is not for.
    pub(crate) async fn call_elsewhere(&self, token: &str) -> Told {
        let request = Request::get(format!("http://{ELSEWHERE}/"))
            .header("host", ELSEWHERE)
            .header("authorization", format!("Bearer {token}"))
            .body(Full::default());
        let mut proxy = h1(self.lab.proxy().await).await;
        told(send(&mut proxy, request.unwrap()).await.unwrap()).await
    }

    /// A request with a token, as a bearer's.
    pub(crate) async fn call(&self, host: &str, token: &str) -> Told {
        let request = Request::get("/v1/models")
            .header("host", host)
            .header("authorization", format!("Bearer {token}"))
            .body(Full::default());
        self.request(host, request.unwrap()).await
    }
}

async fn told(answer: hyper::Response<hyper::body::Incoming>) -> Told {
    let header = |name| {
        let value = answer.headers().get(name);
        value
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    let (reason, location) = (header("x-sbx-reason"), header("location"));
    let (status, text) = text(answer).await;
    Told {
        status,
        reason,
        location,
        text,
    }
}

impl Drop for Host {
    #[expect(clippy::print_stdout, reason = "shown with the failure")]
    fn drop(&mut self) {
        self.kill_daemon();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.state().join("daemon.log"));
            println!("--- daemon log\n{}", log.unwrap_or_default());
        }
    }
}

fn is_below(folder: &Path, wanted: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            return is_below(&entry.path(), wanted);
        }
        let content = if kind.is_file() {
            std::fs::read(entry.path()).unwrap_or_default()
        } else {
            Vec::new()
        };
        content.windows(wanted.len()).any(|part| part == wanted)
    })
}

/// A sandbox on the disk.
fn plant(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let record = json!({
        "schema": 1, "id": ID, "name": "box", "agent": "shell", "workspaces": [], "env": [],
        "cpus": 1, "memory_mib": 512, "accel_wanted": null, "accel": "tcg", "image": "base-0",
        "agent_command": ["bash", "-l"], "workdir": "/home/agent", "machine_id": "0".repeat(32),
        "placeholders": {}, "created_at": "2026-01-01T00:00:00Z", "last_used_at": null,
    });
    std::fs::write(folder.join("sandbox.json"), record.to_string()).unwrap();
}

/// Listens as the supervisor of a machine that runs.
fn supervisor(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let mut open: Vec<UnixStream> = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let asked = asked(&mut stream);
            if matches!(asked, Some(Asked::Watch | Asked::Follow)) {
                let mut first = encode(0, &status()).unwrap();
                if matches!(asked, Some(Asked::Follow)) {
                    first.extend(encode(0, &sessions()).unwrap());
                }
                let _ = stream.write_all(&first);
                open.push(stream);
            }
        }
    });
}

fn asked(stream: &mut UnixStream) -> Option<Asked> {
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

fn status() -> Reply {
    Reply::Status(Status {
        id: ID.to_owned(),
        phase: Phase::Running,
        docker: DockerState::Ready { uptime_ms: 7 },
        sessions: 0,
        processes: Processes::default(),
        ready_ms: Some(900),
        uptime_s: 5,
    })
}

fn sessions() -> Reply {
    Reply::Sessions(Sessions {
        agent: true,
        attached: 1,
        stay: Stay::Sessions,
    })
}
