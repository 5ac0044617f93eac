//! Real client programs at native speed, in a namespace whose frames go to the real gateway process, against
//! stand-ins: each through the proxy variables and without them, to a host that is tunnelled unread and to one that
//! is opened, and to two that are denied.

mod aws;
mod images;
mod packages;
mod registries;
mod web;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sbx_gateway::addresses::{GATEWAY, GATEWAY_NAME, GUEST, MTU, PREFIX};
use sbx_testkit::netns::{Namespace, Options};
use sbx_testkit::{EchoUpstream, FileServer, Recorder};
use sbx_wire::gateway::{EgressRecord, PROXY_PORT, ProxyKind};
use sbx_wire::trust::{BUNDLE, BUNDLE_VARIABLES};

use crate::lab::{Lab, SECRET, Setup};

/// Allowed, and left unread.
pub(crate) const UNREAD: &str = "unread.test";
/// Allowed, and opened: a credential is bound to it.
pub(crate) const OPENED: &str = "opened.test";
/// Resolves, because port 80 is allowed; everything else of it is denied.
pub(crate) const SHUT: &str = "shut.test";
/// No rule allows it, so it does not even resolve.
pub(crate) const DENIED: &str = "denied.test";
/// The names that stand-ins have certificates for.
pub(crate) const NAMES: [&str; 3] = [UNREAD, OPENED, SHUT];

/// A client that takes longer than this hangs, in seconds.
const PATIENCE_S: &str = "60";

/// How a client gets out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Its environment names the proxy.
    Forward,
    /// It knows of nothing.
    Transparent,
}

/// A stand-in as the gateway is told of it.
pub(crate) struct Standin {
    address: SocketAddr,
    port: u16,
    root_pem: Option<String>,
    recorder: Option<Recorder>,
}

impl From<&FileServer> for Standin {
    fn from(server: &FileServer) -> Self {
        Self {
            address: server.address(),
            port: if server.root_pem().is_some() { 443 } else { 80 },
            root_pem: server.root_pem().map(str::to_owned),
            recorder: Some(server.recorder().clone()),
        }
    }
}

impl From<&EchoUpstream> for Standin {
    fn from(server: &EchoUpstream) -> Self {
        Self {
            address: server.address(),
            port: 443,
            root_pem: server.root_pem().map(str::to_owned),
            recorder: Some(server.recorder().clone()),
        }
    }
}

impl Standin {
    /// A server that is another program.
    pub(crate) fn program(address: SocketAddr, root_pem: String) -> Self {
        Self {
            address,
            port: 443,
            root_pem: Some(root_pem),
            recorder: None,
        }
    }
}

/// What a client does and what is to be seen of it.
pub(crate) struct Job<'a> {
    /// A shell script; `$1` is the host.
    pub(crate) script: &'a str,
    /// In its output when it has got through.
    pub(crate) wants: &'a str,
    /// In its output when the gateway has denied it, the host being known.
    pub(crate) refusal: &'a str,
    /// In its output when the name does not resolve.
    pub(crate) nowhere: &'a str,
}

/// What became of a client.
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) output: String,
}

/// A gateway with a namespace before it and a stand-in behind it.
pub(crate) struct Town {
    pub(crate) lab: Lab,
    namespace: Namespace,
    standin: Standin,
    runs: std::cell::Cell<u32>,
}

impl Town {
    pub(crate) fn of(standin: impl Into<Standin>) -> Self {
        let standin = standin.into();
        let rules = [
            "allow unread.test",
            "allow opened.test",
            "allow shut.test:80",
        ];
        let mut setup = Setup::new(&rules);
        for name in NAMES {
            setup = setup.send_to(&format!("{name}:{}", standin.port), standin.address);
        }
        // Known because of its other port, whatever the stand-in serves.
        setup = setup.send_to(&format!("{SHUT}:80"), standin.address);
        let roots = &mut setup.file.upstream.extra_roots_pem;
        roots.extend(standin.root_pem.clone());
        Self::start(setup.credential(OPENED), standin)
    }

    /// With a gateway set up otherwise. `standin`: what it sends clients to.
    pub(crate) fn start(setup: Setup, standin: Standin) -> Self {
        let mut lab = setup.start();
        let files = guest_files(&lab, standin.root_pem.as_deref());
        let namespace = lab.hand_over(|frames| {
            let options = Options {
                frames: frames.to_owned(),
                address: GUEST,
                prefix: PREFIX,
                more: Vec::new(),
                gateway: GATEWAY,
                mac: crate::guest::MAC.0,
                mtu: u16::try_from(MTU).unwrap(),
                files,
            };
            Namespace::start(&options).unwrap()
        });
        let runs = std::cell::Cell::new(0);
        Self {
            lab,
            namespace,
            standin,
            runs,
        }
    }

    /// Runs a script inside with the environment that programs in a sandbox have.
    pub(crate) fn run(&self, way: Way, script: &str, arguments: &[&str]) -> Outcome {
        self.runs.set(self.runs.get() + 1);
        let home = self.lab.path(&format!("home{}", self.runs.get()));
        std::fs::create_dir(&home).unwrap();
        let mut command = self.namespace.command("timeout");
        command
            .args(["--kill-after=5", PATIENCE_S, "bash", "-c"])
            // One output, in the order in which it was written.
            .arg(format!("exec 2>&1\n{script}"))
            .arg("client")
            .args(arguments)
            .current_dir(&home)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &home)
            .env("LANG", "C.UTF-8")
            .env("CLIENTS", installed())
            .env("SCRIPTS", scripts())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("NODE_USE_ENV_PROXY", "1");
        // Rust's and Python's version managers find their programs by these.
        for name in ["RUSTUP_HOME", "PYENV_ROOT"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        let own_home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
        if std::env::var_os("RUSTUP_HOME").is_none() {
            command.env("RUSTUP_HOME", own_home.join(".rustup"));
        }
        command.envs(BUNDLE_VARIABLES.map(|name| (name, BUNDLE)));
        if way == Way::Forward {
            let proxy = format!("http://{GATEWAY_NAME}:{PROXY_PORT}");
            for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
                command.env(name, &proxy);
            }
            let direct = format!("localhost,127.0.0.1,::1,{GATEWAY_NAME}");
            command.env("no_proxy", &direct).env("NO_PROXY", &direct);
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !matches!(output.status.code(), Some(124 | 125) | None),
            "{way:?} {arguments:?}: {} (124: it hung)\n{text}{complaint}",
            output.status
        );
        Outcome {
            success: output.status.success(),
            output: text,
        }
    }

    /// Whether something was let through this way.
    pub(crate) fn passed(&self, way: ProxyKind) -> bool {
        let records = self.lab.records();
        records
            .iter()
            .any(|record| record.allowed && record.proxy == way)
    }

    /// Waits for a record of the host among those after the first `seen`, and gives all of them.
    fn records_of(&self, host: &str, seen: usize) -> Vec<EgressRecord> {
        let started = Instant::now();
        loop {
            let records = self.lab.records();
            let of = |record: &EgressRecord| record.host == host;
            let found: Vec<_> = records.into_iter().skip(seen).filter(of).collect();
            if !found.is_empty() {
                return found;
            }
            let waited = started.elapsed();
            assert!(waited < Duration::from_secs(10), "no record of {host}");
            std::thread::yield_now();
        }
    }

    /// A client gets through both ways, unread and opened, and is refused clearly where it is denied.
    #[track_caller]
    pub(crate) fn do_job(&self, job: &Job<'_>) {
        for way in [Way::Forward, Way::Transparent] {
            for host in [UNREAD, OPENED] {
                self.gets_through(way, host, job);
            }
            self.is_refused(way, SHUT, job.refusal, job);
            let known = way == Way::Forward;
            let denied = if known { job.refusal } else { job.nowhere };
            self.is_refused(way, DENIED, denied, job);
        }
    }

    #[track_caller]
    fn gets_through(&self, way: Way, host: &str, job: &Job<'_>) {
        let seen = self.lab.records().len();
        let before = self.requests().len();
        let outcome = self.run(way, job.script, &[host]);
        let shown = format!("{way:?} to {host}: {}", outcome.output);
        assert!(
            outcome.success && outcome.output.contains(job.wants),
            "{shown}"
        );
        let clear = self.standin.port == 80;
        let expected = match (way, host) {
            (Way::Transparent, _) => ProxyKind::Transparent,
            (Way::Forward, UNREAD) if !clear => ProxyKind::ForwardBypass,
            (Way::Forward, _) => ProxyKind::Forward,
        };
        let read = clear || host == OPENED;
        for record in self.records_of(host, seen) {
            assert!(record.allowed, "{shown}{record:?}");
            assert_eq!(record.proxy, expected, "{shown}{record:?}");
            assert_eq!(record.port, self.standin.port, "{shown}");
            assert_eq!(record.path.is_some(), read, "{shown}{record:?}");
            let credential = (read && !clear).then_some("anthropic");
            assert_eq!(record.credential.as_deref(), credential, "{shown}");
        }
        let requests = self.requests();
        if self.standin.recorder.is_some() {
            assert!(requests.len() > before, "nothing arrived: {shown}");
        }
        for request in &requests[before..] {
            let key = (host == OPENED && !clear).then_some(SECRET);
            assert_eq!(request.header("x-api-key"), key, "{shown}{request:?}");
        }
    }

    #[track_caller]
    fn is_refused(&self, way: Way, host: &str, text: &str, job: &Job<'_>) {
        if host == SHUT && self.standin.port == 80 {
            return;
        }
        let seen = self.lab.records().len();
        let before = self.requests().len();
        let outcome = self.run(way, job.script, &[host]);
        let shown = format!("{way:?} to {host}: {}", outcome.output);
        assert!(!outcome.success, "{shown}");
        assert!(outcome.output.contains(text), "no {text:?} in {shown}");
        for record in self.records_of(host, seen) {
            assert!(!record.allowed, "{shown}{record:?}");
        }
        assert_eq!(self.requests().len(), before, "something arrived: {shown}");
    }

    fn requests(&self) -> Vec<sbx_testkit::recorder::Request> {
        let recorder = self.standin.recorder.as_ref();
        recorder.map(Recorder::requests).unwrap_or_default()
    }
}

/// Files that a sandbox has in place of the host's.
fn guest_files(lab: &Lab, root_pem: Option<&str>) -> Vec<(PathBuf, PathBuf)> {
    let mut bundle = std::fs::read_to_string(BUNDLE).unwrap();
    for pem in [Some(lab.authority.root_pem().as_str()), root_pem] {
        bundle.push_str(pem.unwrap_or_default());
    }
    let names = sbx_policy::HOST_SERVICE_NAMES[1..].join(" ");
    let files = [
        ("bundle", BUNDLE, bundle),
        (
            "resolv.conf",
            "/etc/resolv.conf",
            format!("nameserver {GATEWAY}\n"),
        ),
        (
            "hosts",
            "/etc/hosts",
            format!("127.0.0.1 localhost\n{GATEWAY} {names}\n"),
        ),
        // The host may have other ways to resolve names.
        (
            "nsswitch.conf",
            "/etc/nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n".to_owned(),
        ),
    ];
    let place = |(name, place, content): (&str, &str, String)| {
        let source = lab.path(name);
        std::fs::write(&source, content).unwrap();
        (source, PathBuf::from(place))
    };
    files.into_iter().map(place).collect()
}

/// Where `./dev` installs the clients that are no packages of the distribution: `target/clients`.
pub(crate) fn installed() -> PathBuf {
    let gateway = Path::new(env!("CARGO_BIN_EXE_sbx-gateway"));
    let target = gateway.parent().and_then(Path::parent).unwrap();
    let place = target.join("clients");
    assert!(
        place.join("complete").is_file(),
        "{} is not there: run ./dev test once",
        place.display()
    );
    place
}

/// Where the clients' programs lie: the folder of this file.
fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients")
}
