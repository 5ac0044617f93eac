//! The keychain for real: GNOME Keyring on a bus of the test's own, unlocked, locked, stopped, and not there.

use crate::adoption::{ID, gateway, planted, supervisor};
use crate::harness::{Daemon, program};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const VALUE: &str = "sk-ant-api03-the-real-key-of-this-test-0123";
const LIMIT: Duration = Duration::from_secs(20);

/// Where `./dev test` unpacks what is not installed.
fn unpacked() -> PathBuf {
    let target = program()
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .to_owned();
    let place = target.join("clients");
    assert!(
        place.join("complete").is_file(),
        "{} is not there: run ./dev test once",
        place.display()
    );
    place.join("debian")
}

/// A session bus that starts nothing by itself, and perhaps a keyring on it.
struct Session {
    folder: PathBuf,
    address: String,
    bus: Child,
    keyring: Option<Child>,
}

impl Session {
    fn new(folder: &Path) -> Self {
        let folder = folder.join("session");
        fs::create_dir_all(folder.join("run")).unwrap();
        let config = folder.join("bus.conf");
        let text = format!(
            "<busconfig><type>session</type><listen>unix:dir={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\
             <allow own=\"*\"/></policy></busconfig>",
            folder.display()
        );
        fs::write(&config, text).unwrap();
        let mut bus = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address=1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(bus.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        Self {
            folder,
            address: address.trim().to_owned(),
            bus,
            keyring: None,
        }
    }

    /// Starts a keyring with this password and waits for it.
    fn unlocked(mut self) -> Self {
        let libraries = unpacked().join("usr/lib/x86_64-linux-gnu");
        let mut keyring = Command::new(unpacked().join("usr/bin/gnome-keyring-daemon"))
            .args(["--foreground", "--unlock", "--components=secrets"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.folder)
            .env("XDG_RUNTIME_DIR", self.folder.join("run"))
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
            .env("LD_LIBRARY_PATH", libraries)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut password = keyring.stdin.take().unwrap();
        password.write_all(b"password").unwrap();
        drop(password);
        self.keyring = Some(keyring);
        let begun = Instant::now();
        while !self
            .says("ReadAlias", "string:default")
            .contains("collection/")
        {
            assert!(begun.elapsed() < LIMIT, "there is no keyring");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        self
    }

    /// What the service answers.
    fn says(&self, method: &str, argument: &str) -> String {
        let output = Command::new("dbus-send")
            .args(["--print-reply", "--dest=org.freedesktop.secrets"])
            .arg("/org/freedesktop/secrets")
            .arg(format!("org.freedesktop.Secret.Service.{method}"))
            .arg(argument)
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn lock(&self) {
        let said = self.says(
            "Lock",
            "array:objpath:/org/freedesktop/secrets/collection/login",
        );
        assert!(said.contains("collection/login"), "{said}");
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = self.keyring.as_ref().unwrap().id();
        let id = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    fn restart(&self, daemon: &mut Daemon) {
        daemon.restart_as(&program(), |command| {
            command.env("DBUS_SESSION_BUS_ADDRESS", &self.address)
        });
    }

    /// How many of ours the keyring has.
    fn entries(&self) -> usize {
        let argument = "dict:string:string:service,sbx";
        self.says("SearchItems", argument)
            .matches("object path")
            .count()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for child in self.keyring.iter_mut().chain([&mut self.bus]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn set(service: &str, value: &str) -> Value {
    json!({"service": service, "value": value, "force": true})
}

#[test]
fn secrets_go_to_the_keychain_where_there_is_one_and_come_back_after_a_restart() {
    let mut daemon = planted();
    let session = Session::new(daemon.folder.path()).unlocked();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway(&runtime);
    session.restart(&mut daemon);
    let stored = daemon.post("/v1/secrets", &set("anthropic", VALUE)).ok();
    assert_eq!(stored["store"], "keychain");
    assert!(stored["notices"][0].as_str().unwrap().contains("keychain"));
    assert_eq!(session.entries(), 1);
    // Said once.
    let stored = daemon.post("/v1/secrets", &set("xai", "an-x-key")).ok();
    assert_eq!(stored.get("notices"), None);
    let listed = daemon.get("/v1/secrets").ok();
    assert_eq!(listed["store"], "keychain");
    assert_eq!(listed["secrets"][0]["secret"], "sk-ant****...****0123");
    assert_eq!(listed["secrets"][0]["store"], "keychain");
    // The encrypted file does not have it either.
    let state = daemon.state().join("secrets");
    let identity = fs::read_to_string(state.join("identity")).unwrap();
    let identity: age::x25519::Identity = identity.parse().unwrap();
    let sealed = fs::read(state.join("secrets.age")).unwrap();
    let text = String::from_utf8(age::decrypt(&identity, &sealed).unwrap()).unwrap();
    assert!(
        text.contains("anthropic") && !text.contains(VALUE),
        "{text}"
    );

    while configured.try_recv().is_ok() {}
    session.restart(&mut daemon);
    let begun = Instant::now();
    loop {
        let (value, _) = configured.recv_timeout(LIMIT).unwrap();
        let all = value["credentials"].as_array().unwrap();
        if all
            .iter()
            .any(|one| one["service"] == "anthropic" && one["value"] == VALUE)
        {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{all:?}");
    }
    // Replaced: the old entry goes. Removed: so does the new one.
    daemon
        .post("/v1/secrets", &set("anthropic", "another-key"))
        .ok();
    assert_eq!(session.entries(), 2);
    daemon
        .post("/v1/secrets/remove", &json!({"all": true}))
        .ok();
    assert_eq!(session.entries(), 0);
}

#[test]
fn attack_61_a_locked_keychain_is_an_error_within_its_time_and_never_a_file() {
    let mut daemon = planted();
    let session = Session::new(daemon.folder.path()).unlocked();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway(&runtime);
    session.restart(&mut daemon);
    daemon.post("/v1/secrets", &set("anthropic", VALUE)).ok();
    session.lock();
    let begun = Instant::now();
    let refused = daemon.post("/v1/secrets", &set("xai", "an-x-key"));
    assert_eq!(refused.code(), "keychain");
    assert!(refused.body.to_string().contains("locked"), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let listed = daemon.get("/v1/secrets").ok();
    assert_eq!(listed["secrets"].as_array().unwrap().len(), 1, "{listed}");
    // A daemon that cannot read it says why, and the gateway refuses.
    while configured.try_recv().is_ok() {}
    session.restart(&mut daemon);
    let begun = Instant::now();
    loop {
        let (value, _) = configured.recv_timeout(LIMIT).unwrap();
        if value["credentials"][0]["unavailable"] == "the keychain is locked" {
            assert_eq!(value["credentials"][0]["value"], "");
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{value}");
    }
    // What is removed is withdrawn at once, also where the entry has to wait.
    let removed = daemon
        .post("/v1/secrets/remove", &json!({"service": "anthropic"}))
        .ok();
    assert!(
        removed["notices"][0]
            .as_str()
            .unwrap()
            .contains("still in the keychain")
    );
    let (value, _) = configured.try_iter().last().unwrap();
    assert_eq!(value["credentials"], json!([]));
}

#[test]
fn attack_61_a_keychain_that_does_not_answer_holds_nothing_up() {
    let mut daemon = planted();
    let session = Session::new(daemon.folder.path()).unlocked();
    session.restart(&mut daemon);
    daemon.post("/v1/secrets", &set("anthropic", VALUE)).ok();
    session.signal(rustix::process::Signal::STOP);
    let begun = Instant::now();
    let refused = daemon.post("/v1/secrets", &set("xai", "an-x-key"));
    assert_eq!(refused.code(), "keychain");
    assert!(
        refused.body.to_string().contains("does not answer"),
        "{refused:?}"
    );
    // Everything else goes on meanwhile.
    daemon.get("/v1/secrets").ok();
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    session.signal(rustix::process::Signal::CONT);
    daemon.post("/v1/secrets", &set("xai", "an-x-key")).ok();
}

#[test]
fn without_a_keychain_secrets_go_to_the_file_which_is_said_once_and_can_be_chosen() {
    let mut daemon = planted();
    let session = Session::new(daemon.folder.path());
    session.restart(&mut daemon);
    let stored = daemon.post("/v1/secrets", &set("anthropic", VALUE)).ok();
    assert_eq!(stored["store"], "encrypted file");
    let notice = stored["notices"][0].as_str().unwrap();
    assert!(notice.starts_with("No keychain detected"), "{notice}");
    let stored = daemon.post("/v1/secrets", &set("anthropic", VALUE)).ok();
    assert_eq!(stored.get("notices"), None);
    // Whoever chose the keychain is not given the file instead.
    let store = |value: &str| {
        daemon
            .post(
                "/v1/settings",
                &json!({"key": "secrets.store", "value": value}),
            )
            .ok();
    };
    store("keychain");
    let refused = daemon.post("/v1/secrets", &set("xai", "an-x-key"));
    assert_eq!(refused.code(), "keychain");
    assert_eq!(daemon.get("/v1/secrets").ok()["store"], "keychain");
    // A keychain that came later is found when it is looked for again.
    let session = session.unlocked();
    store("auto");
    let stored = daemon.post("/v1/secrets", &set("xai", "an-x-key")).ok();
    assert_eq!(stored["store"], "keychain");
    let stores: Vec<Value> = daemon.get("/v1/secrets").ok()["secrets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["store"].clone())
        .collect();
    assert_eq!(stores, ["encrypted file", "keychain"]);
    store("file");
    let stored = daemon.post("/v1/secrets", &set("xai", "an-x-key")).ok();
    assert_eq!(stored["store"], "encrypted file");
    assert_eq!(session.entries(), 0);
}
