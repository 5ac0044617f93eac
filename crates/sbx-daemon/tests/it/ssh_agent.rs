//! What programs inside ask the host's SSH agent, with the real one.

use crate::adoption::{ID, gateway_with_ssh, planted, supervisor};
use crate::harness::{Daemon, program};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sbx_wire::gateway::{Answer, Command};
use sbx_wire::ssh_agent::{Hash, Hex, Key, Purpose, Reply, Request};
use serde_json::json;
use sha2::{Digest, Sha512};
use std::io::{BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, mpsc};

/// The host's agent with two keys, a daemon that knows it, and a gateway that asks.
struct Stage {
    daemon: Daemon,
    agent: Child,
    questions: mpsc::Sender<Request>,
    replies: mpsc::Receiver<Reply>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.agent.kill().unwrap();
        self.agent.wait().unwrap();
    }
}

fn ssh(name: &str, socket: &Path, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(name);
    command.args(arguments).env("SSH_AUTH_SOCK", socket);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

impl Stage {
    fn new() -> Self {
        let mut daemon = planted();
        let socket = daemon.path("agent.sock");
        let mut agent = std::process::Command::new("ssh-agent");
        agent.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null());
        let agent = agent.spawn().unwrap();
        while !socket.exists() {
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        for name in ["one", "two"] {
            let file = daemon.path(name).display().to_string();
            let new = ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", &file];
            ssh("ssh-keygen", &socket, &new);
            ssh("ssh-add", &socket, &["-q", &file]);
        }
        let (questions, asked) = mpsc::channel::<Request>();
        let (told, replies) = mpsc::channel();
        let asked = Arc::new(Mutex::new(asked));
        let runtime = daemon.runtime().join(ID);
        supervisor(&runtime, 0);
        gateway_with_ssh(&runtime, move |mut lines, mut stream| {
            for request in asked.lock().unwrap().iter() {
                let text = serde_json::to_string(&Answer::AgentAsked { request }).unwrap();
                stream.write_all(format!("{text}\n").as_bytes()).unwrap();
                let mut line = String::new();
                lines.read_line(&mut line).unwrap();
                match serde_json::from_str(&line).unwrap() {
                    Command::AgentHandled { reply } => told.send(reply).unwrap(),
                    other => panic!("{other:?}"),
                }
            }
        });
        // Who is asked: a program that writes the question down and answers as a file says.
        let script = "#!/bin/sh\necho \"$SSH_ASKPASS_PROMPT: $1\" >> \"$0.asked\"; exit $(cat \"$0.answer\")\n";
        let askpass = daemon.path("askpass");
        std::fs::write(&askpass, script).unwrap();
        std::fs::set_permissions(&askpass, PermissionsExt::from_mode(0o755)).unwrap();
        daemon.restart_as(&program(), |command| {
            command
                .env("SSH_AUTH_SOCK", &socket)
                .env("SSH_ASKPASS", &askpass)
                .env("DISPLAY", ":0")
        });
        Self {
            daemon,
            agent,
            questions,
            replies,
        }
    }

    fn ask(&self, request: Request) -> Reply {
        self.questions.send(request).unwrap();
        self.replies.recv().unwrap()
    }

    fn keys(&self) -> Vec<Key> {
        match self.ask(Request::Keys) {
            Reply::Keys { keys } => keys,
            other => panic!("{other:?}"),
        }
    }

    fn set(&self, key: &str, value: &str) {
        let body = json!({ "key": key, "value": value });
        self.daemon.post("/v1/settings", &body).ok();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.daemon.path(name)
    }

    /// As `ssh-add -l` prints it.
    fn fingerprint(&self, name: &str) -> String {
        let file = self.path(&format!("{name}.pub")).display().to_string();
        let printed = ssh("ssh-keygen", Path::new(""), &["-lf", &file]);
        printed.split(' ').nth(1).unwrap().to_owned()
    }
}

fn why(reply: Reply) -> String {
    match reply {
        Reply::Refused { why } => why,
        other => panic!("{other:?}"),
    }
}

const MESSAGE: &[u8] = b"what git signs";

fn commit(key: &Key) -> Request {
    let purpose = Purpose::Message {
        namespace: "git".into(),
        hash: Hash::Sha512,
        digest: Hex(Sha512::digest(MESSAGE).to_vec()),
    };
    Request::Sign {
        key: key.key.clone(),
        purpose,
        flags: 0,
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length[..], bytes].concat()
}

/// Whether OpenSSH takes it for a signature of [`MESSAGE`] (PROTOCOL.sshsig).
fn verify(folder: &Path, key: &Key, signature: &Hex) {
    let blob = [
        b"SSHSIG".to_vec(),
        1_u32.to_be_bytes().to_vec(),
        string(&key.key.0),
        string(b"git"),
        string(b""),
        string(b"sha512"),
        string(&signature.0),
    ];
    let text = STANDARD.encode(blob.concat());
    let armored = format!("-----BEGIN SSH SIGNATURE-----\n{text}\n-----END SSH SIGNATURE-----\n");
    let (file, message) = (folder.join("message.sig"), folder.join("message"));
    std::fs::write(&file, armored).unwrap();
    std::fs::write(&message, MESSAGE).unwrap();
    let mut command = std::process::Command::new("ssh-keygen");
    command.args(["-Y", "check-novalidate", "-n", "git", "-s"]);
    command
        .arg(&file)
        .stdin(std::fs::File::open(&message).unwrap());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn keys_are_listed_and_sign_once_forwarding_is_on_and_only_those_that_are_named() {
    let stage = Stage::new();
    assert!(why(stage.ask(Request::Keys)).contains("ssh.agentForwardingEnabled"));
    stage.set("ssh.agentForwardingEnabled", "true");
    let keys = stage.keys();
    let comments: Vec<&str> = keys.iter().map(|key| key.comment.as_str()).collect();
    assert_eq!(comments, ["one", "two"]);
    for key in &keys {
        match stage.ask(commit(key)) {
            Reply::Signature { signature } => verify(&stage.path(""), key, &signature),
            other => panic!("{other:?}"),
        }
    }
    // One key only: the other is neither shown nor used.
    let one = format!(r#"{{"{}":"allow"}}"#, stage.fingerprint("one"));
    stage.set("ssh.agentKeys", &one);
    assert_eq!(stage.keys(), keys[..1]);
    assert!(matches!(
        stage.ask(commit(&keys[0])),
        Reply::Signature { .. }
    ));
    assert!(why(stage.ask(commit(&keys[1]))).contains("none that sandboxes may use"));
    stage.set("ssh.agentForwardingEnabled", "false");
    assert!(why(stage.ask(commit(&keys[0]))).contains("ssh.agentForwardingEnabled"));
    let bad = json!({ "key": "ssh.agentKeys", "value": r#"{"mine":"allow"}"# });
    assert_eq!(
        stage.daemon.post("/v1/settings", &bad).code(),
        "setting-invalid"
    );
}

#[test]
fn a_key_that_needs_consent_signs_only_when_a_person_says_so() {
    let stage = Stage::new();
    stage.set("ssh.agentForwardingEnabled", "true");
    stage.set("ssh.agentKeys", r#"{"*":"confirm"}"#);
    let key = stage.keys().remove(0);
    let answer = |code: &str| std::fs::write(stage.path("askpass.answer"), code).unwrap();
    answer("1");
    assert!(why(stage.ask(commit(&key))).contains("said no"));
    answer("0");
    assert!(matches!(stage.ask(commit(&key)), Reply::Signature { .. }));
    let asked = std::fs::read_to_string(stage.path("askpass.asked")).unwrap();
    let expected = format!(
        "confirm: Sandbox one wants to sign a commit or tag of git with the key {} (one). Allow it?\n",
        stage.fingerprint("one")
    );
    assert_eq!(asked, expected.repeat(2));
    std::fs::remove_file(stage.path("askpass")).unwrap();
    assert!(why(stage.ask(commit(&key))).contains("consent"));
}
