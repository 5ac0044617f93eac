//! What programs inside ask the host's SSH agent. The test is the daemon.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use sbx_wire::gateway::{Answer, Command, ProxyKind};
use sbx_wire::ssh_agent::{self, Hash, Hex, Key, Purpose, Reply};

use crate::lab::{Lab, Setup, h1, run, send};

/// `SSH_AGENT_FAILURE`, with its length in front.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

async fn ask(lab: &Lab, message: Vec<u8>) -> (u16, Vec<u8>) {
    let request = Request::post("/ssh-agent")
        .header("host", "gateway.docker.internal:3128")
        .body(Full::new(message.into()))
        .unwrap();
    let mut client = h1(lab.proxy().await).await;
    let response = send(&mut client, request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, body.to_vec())
}

fn say(control: &UnixStream, command: &Command) {
    let line = serde_json::to_string(command).unwrap();
    let mut control = control;
    control.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn asked(control: &UnixStream) -> ssh_agent::Request {
    let mut answer = String::new();
    BufReader::new(control).read_line(&mut answer).unwrap();
    match serde_json::from_str(&answer).unwrap() {
        Answer::AgentAsked { request } => request,
        other => panic!("{other:?}"),
    }
}

fn sign(purpose: Purpose) -> ssh_agent::Request {
    ssh_agent::Request::Sign {
        key: Hex(b"key".to_vec()),
        purpose,
        flags: 0,
    }
}

fn commit() -> ssh_agent::Request {
    sign(Purpose::Message {
        namespace: "git".into(),
        hash: Hash::Sha512,
        digest: Hex(vec![1; 64]),
    })
}

fn login() -> ssh_agent::Request {
    sign(Purpose::Login {
        session: Hex(vec![1; 32]),
        user: "me".into(),
        algorithm: "ssh-ed25519".into(),
        host: None,
    })
}

/// Answers each request with the reply beside it, and returns what was asked.
fn daemon(lab: &Lab, replies: Vec<Reply>) -> std::thread::JoinHandle<Vec<ssh_agent::Request>> {
    let control = lab.control();
    std::thread::spawn(move || {
        say(&control, &Command::AwaitAgent);
        let mut seen = Vec::new();
        for reply in replies {
            seen.push(asked(&control));
            say(&control, &Command::AgentHandled { reply });
        }
        seen
    })
}

#[test]
fn what_the_ssh_agent_is_asked_goes_to_the_daemon_and_signatures_are_recorded() {
    let lab = Setup::new(&[]).start();
    let keys = Reply::Keys {
        keys: vec![Key {
            key: Hex(b"key".to_vec()),
            comment: "mine".into(),
        }],
    };
    let signature = Reply::Signature {
        signature: Hex(b"signature".to_vec()),
    };
    let no = Reply::Refused { why: "no".into() };
    let daemon = daemon(&lab, vec![keys.clone(), signature.clone(), no]);
    run(async {
        let list = ssh_agent::Request::Keys;
        assert_eq!(ask(&lab, list.encode()).await, (200, keys.encode()));
        assert_eq!(
            ask(&lab, commit().encode()).await,
            (200, signature.encode())
        );
        assert_eq!(ask(&lab, login().encode()).await, (200, FAILURE.to_vec()));
        let record = lab.one_record("ssh-signed", "ssh-agent").await;
        assert_eq!((record.proxy, record.allowed), (ProxyKind::SshAgent, true));
        assert_eq!(record.path.as_deref(), Some("signature/git"));
        let record = lab.one_record("ssh-refused", "ssh-agent").await;
        assert_eq!((record.proxy, record.allowed), (ProxyKind::SshAgent, false));
        assert_eq!(record.path.as_deref(), Some("login/me"));
    });
    let list = ssh_agent::Request::Keys;
    assert_eq!(daemon.join().unwrap(), [list, commit(), login()]);
}

/// Attack 50: of the host's agent nothing but keys and signatures of known meaning can be reached.
#[test]
fn attack_50_what_the_ssh_agent_must_not_be_asked_never_reaches_the_daemon() {
    let lab = Setup::new(&[]).start();
    // An answer to something else is none either.
    let keys = Reply::Keys { keys: Vec::new() };
    let daemon = daemon(&lab, vec![keys]);
    run(async {
        for message in [
            // To remove all keys, to lock it, an extension, any bytes to be signed, none at all.
            vec![0, 0, 0, 1, 19],
            vec![0, 0, 0, 5, 22, 0, 0, 0, 0],
            vec![0, 0, 0, 5, 27, 0, 0, 0, 0],
            [
                &[0, 0, 0, 20, 13, 0, 0, 0, 3][..],
                b"key",
                &[0, 0, 0, 4],
                b"data",
                &[0; 4],
            ]
            .concat(),
            vec![],
        ] {
            assert_eq!(ask(&lab, message).await, (200, FAILURE.to_vec()));
        }
        assert_eq!(ask(&lab, vec![0; 20 << 10]).await.0, 400);
        assert_eq!(ask(&lab, commit().encode()).await, (200, FAILURE.to_vec()));
    });
    assert_eq!(daemon.join().unwrap(), [commit()]);
}
