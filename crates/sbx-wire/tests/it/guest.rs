//! The guest protocol, version 1.

use crate::frozen::{self, Row};
use sbx_wire::frame;
use sbx_wire::guest::{
    DockerState, ExecError, ExecRequest, ExitStatus, FromGuest, GuestFile, Mount, NetworkIdentity,
    Personalise, Preamble, Prepare, Stream, TermSize, ToGuest, VERSION,
};

const FILE: &str = "guest-v1.txt";

pub(crate) fn personalise() -> Personalise {
    Personalise {
        hostname: "box".into(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        entropy: vec![1, 2, 3],
        unix_ns: 1_700_000_000_123_456_789,
        network: NetworkIdentity {
            address: [192, 168, 127, 2].into(),
            prefix: 24,
            gateway: [192, 168, 127, 1].into(),
            mtu: 65_520,
            hosts: vec![([192, 168, 127, 1].into(), "gateway.sbx.internal".into())],
        },
        ca_pem: "pem".into(),
        mounts: vec![Mount {
            tag: "fs0".into(),
            path: "/work".into(),
            read_only: true,
        }],
        env: vec![("A".into(), "1".into())],
        files: vec![GuestFile {
            path: "/home/agent/x".into(),
            content: vec![0, 255],
            mode: 0o600,
            owner: 1000,
            only_if_missing: true,
        }],
        workdir: "/work".into(),
        docker: true,
    }
}

pub(crate) fn exec() -> ExecRequest {
    ExecRequest {
        argv: vec![b"sh".to_vec(), vec![0xff]],
        env: vec![("B".into(), "2".into())],
        workdir: Some("/work".into()),
        user: Some("root".into()),
        terminal: Some(TermSize { rows: 24, cols: 80 }),
        stdin: true,
    }
}

/// One line a variant. Without a wildcard: a new variant does not compile until it has a line.
fn name_of(message: &ToGuest) -> &'static str {
    match message {
        ToGuest::Personalise(_) => "personalise",
        ToGuest::Exec { .. } => "exec",
        ToGuest::Stdin { .. } => "stdin",
        ToGuest::StdinEof { .. } => "stdin-eof",
        ToGuest::Resize { .. } => "resize",
        ToGuest::Signal { .. } => "signal",
        ToGuest::Hangup { .. } => "hangup",
        ToGuest::Credit { .. } => "credit",
        ToGuest::SetClock { .. } => "set-clock",
        ToGuest::Ping { .. } => "ping",
        ToGuest::Shutdown { .. } => "shutdown",
        ToGuest::Prepare(_) => "prepare",
    }
}

#[test]
fn what_the_host_says_is_encoded_as_in_version_1() {
    let session = 300;
    let all = vec![
        ToGuest::Personalise(Box::new(personalise())),
        ToGuest::Exec {
            session,
            request: exec(),
        },
        ToGuest::Stdin {
            session,
            data: vec![9; 3],
        },
        ToGuest::StdinEof { session },
        ToGuest::Resize {
            session,
            size: TermSize { rows: 1, cols: 2 },
        },
        ToGuest::Signal {
            session,
            signal: 15,
        },
        ToGuest::Hangup { session },
        ToGuest::Credit {
            session,
            stream: Stream::Stderr,
            bytes: 65_536,
        },
        ToGuest::SetClock { unix_ns: 5 },
        ToGuest::Ping { token: 6 },
        ToGuest::Shutdown { grace_ms: 10_000 },
        ToGuest::Prepare(Box::new(Prepare {
            ca_pem: "pem".into(),
            mtu: 1500,
            env: vec![("A".into(), "1".into())],
            unix_ns: 5,
        })),
    ];
    let table: Vec<Row<ToGuest>> = all.into_iter().map(|m| (name_of(&m), m)).collect();
    frozen::bytes(FILE, "to-guest.", &table);
}

fn variant_of(message: &FromGuest) -> &'static str {
    match message {
        FromGuest::Booted { .. } => "booted",
        FromGuest::Personalised(Ok(())) => "personalised",
        FromGuest::Personalised(Err(_)) => "not-personalised",
        FromGuest::Started { .. } => "started",
        FromGuest::ExecFailed { error, .. } => match error {
            ExecError::NotFound => "exec-failed.not-found",
            ExecError::NotExecutable(_) => "exec-failed.not-executable",
            ExecError::BadRequest(_) => "exec-failed.bad-request",
        },
        FromGuest::Output { stream, .. } => match stream {
            Stream::Stdout => "output.stdout",
            Stream::Stderr => "output.stderr",
        },
        FromGuest::Exited { status, .. } => match status {
            ExitStatus::Code(_) => "exited.code",
            ExitStatus::Signal(_) => "exited.signal",
        },
        FromGuest::StdinCredit { .. } => "stdin-credit",
        FromGuest::Pong { .. } => "pong",
        FromGuest::Docker(state) => match state {
            DockerState::Starting => "docker.starting",
            DockerState::Ready { .. } => "docker.ready",
            DockerState::Failed(_) => "docker.failed",
        },
        FromGuest::Log(_) => "log",
        FromGuest::Prepared(Ok(())) => "prepared",
        FromGuest::Prepared(Err(_)) => "not-prepared",
    }
}

#[test]
fn what_the_guest_says_is_encoded_as_in_version_1() {
    let session = 300;
    let failed = |error| FromGuest::ExecFailed { session, error };
    let output = |stream| FromGuest::Output {
        session,
        stream,
        data: b"out".to_vec(),
    };
    let exited = |status| FromGuest::Exited { session, status };
    let all = vec![
        FromGuest::Booted {
            kernel: "6.12".into(),
            version: "0.1.0".into(),
            uptime_ms: 900,
        },
        FromGuest::Personalised(Ok(())),
        FromGuest::Personalised(Err("no".into())),
        FromGuest::Started { session, pid: 77 },
        failed(ExecError::NotFound),
        failed(ExecError::NotExecutable("a".into())),
        failed(ExecError::BadRequest("b".into())),
        output(Stream::Stdout),
        output(Stream::Stderr),
        exited(ExitStatus::Code(3)),
        exited(ExitStatus::Signal(9)),
        FromGuest::StdinCredit {
            session,
            bytes: 4096,
        },
        FromGuest::Pong { token: 6 },
        FromGuest::Docker(DockerState::Starting),
        FromGuest::Docker(DockerState::Ready { uptime_ms: 8000 }),
        FromGuest::Docker(DockerState::Failed("c".into())),
        FromGuest::Log("line".into()),
        FromGuest::Prepared(Ok(())),
        FromGuest::Prepared(Err("no".into())),
    ];
    let table: Vec<Row<FromGuest>> = all.into_iter().map(|m| (variant_of(&m), m)).collect();
    frozen::bytes(FILE, "from-guest.", &table);
}

#[test]
fn the_opening_and_the_frame_are_as_in_version_1() {
    assert_eq!(VERSION, 1, "another version needs fixtures of its own");
    let preamble = Preamble {
        version: 1,
        epoch: 0x0102_0304,
        nonce: *b"0123456789abcdef",
    };
    assert_eq!(
        preamble.encode_host(),
        *b"\x00sbxHST\x01\x01\x00\x04\x03\x02\x010123456789abcdef"
    );
    assert_eq!(
        preamble.encode_guest(),
        *b"\x00sbxGST\x01\x01\x00\x04\x03\x02\x010123456789abcdef"
    );
    let frame = frame::encode(5, &ToGuest::Ping { token: 6 }).unwrap();
    assert_eq!(frame, [2, 0, 0, 0, 5, 0, 0, 0, 9, 6]);
}

#[test]
fn a_message_that_this_version_does_not_know_is_refused_and_not_taken_for_another() {
    // Variant 200 (a varint of two bytes), with fields that any other would be content with.
    let mut bytes = vec![0xc8, 0x01];
    bytes.extend([0; 64]);
    assert!(postcard::from_bytes::<ToGuest>(&bytes).is_err());
    assert!(postcard::from_bytes::<FromGuest>(&bytes).is_err());
}

/// Attack 64: what is kept of a machine before it is some sandbox. Nothing else copies a sandbox.
#[test]
fn attack_64_what_a_snapshot_is_prepared_with_holds_no_placeholder_and_no_file() {
    let mut request = personalise();
    let own = [
        ("ANTHROPIC_API_KEY", "sk-ant-placeholder"),
        ("SANDBOX_NAME", "box"),
        ("HTTPS_PROXY", "http://gateway"),
    ];
    request.env = own.map(|(name, value)| (name.into(), value.into())).into();
    let prepared = request.prepare();
    assert_eq!(
        prepared.env,
        [("HTTPS_PROXY".into(), "http://gateway".into())]
    );
    // Whoever adds something has to look here.
    let Prepare {
        ca_pem,
        mtu,
        env: _,
        unix_ns,
    } = prepared;
    assert_eq!((ca_pem, mtu, unix_ns), (request.ca_pem, 65_520, 0));
}
