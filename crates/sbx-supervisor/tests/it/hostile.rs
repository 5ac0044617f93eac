//! The test plays QEMU's monitor and the guest. The guest lies.

use crate::lab::{Client, LIMIT, Lab, eventually, kill};
use sbx_wire::frame::{CHUNK, MAX_BODY};
use sbx_wire::guest::{
    DockerState, ExecError, ExecRequest, ExitStatus, FromGuest, Preamble, Stream, ToGuest, WINDOW,
};
use sbx_wire::launch::{files, sockets};
use sbx_wire::session::{FromClient, Phase, Reply, Request, ToClient};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

pub(crate) struct Sandbox {
    pub(crate) lab: Lab,
    pub(crate) guest: Client,
    pub(crate) monitor: UnixStream,
}

/// Plays QEMU up to the monitor's capabilities, and accepts the guest channel.
fn qemu(lab: &Lab) -> (UnixStream, UnixStream) {
    let qmp = UnixListener::bind(lab.socket(sockets::QMP)).unwrap();
    let channel = UnixListener::bind(lab.socket(sockets::GUEST)).unwrap();
    let (mut monitor, _) = qmp.accept().unwrap();
    monitor.write_all(b"{\"QMP\": {}}\n").unwrap();
    let mut line = String::new();
    BufReader::new(&monitor).read_line(&mut line).unwrap();
    monitor.write_all(b"{\"return\": {}, \"id\": 0}\n").unwrap();
    (monitor, channel.accept().unwrap().0)
}

/// Filters that the kernel asks at each of the process's system calls.
fn filters(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp_filters:"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn it_gives_up_connecting_before_it_listens_to_the_guest_and_still_restarts_the_gateway() {
    let lab = Lab::new("exec sleep 600").start();
    let (_monitor, mut channel) = qemu(&lab);
    // The preamble is sent before anything is read.
    channel.read_exact(&mut [0; Preamble::LEN]).unwrap();
    // The jail's two (no clone3, and its list), and the seal.
    assert_eq!(filters(lab.pid()), 3, "not sealed");
    let status = lab.until("a gateway", |status| status.processes.gateway.is_some());
    let gateway = status.processes.gateway.unwrap();
    kill(gateway);
    eventually("a new gateway", || {
        let now = lab.status().processes.gateway;
        now.is_some_and(|pid| pid != gateway)
    });
}

/// Answers the preamble, behind some stale bytes.
fn answer(mut channel: UnixStream) -> Client {
    channel.set_read_timeout(Some(LIMIT)).unwrap();
    let mut bytes = [0; Preamble::LEN];
    channel.read_exact(&mut bytes).unwrap();
    let (host, _) = Preamble::find_host(&bytes).unwrap();
    channel
        .write_all(
            &Preamble {
                nonce: [0; 16],
                ..host
            }
            .encode_guest(),
        )
        .unwrap();
    channel.write_all(&host.encode_guest()).unwrap();
    Client::new(channel, host.epoch)
}

/// A running sandbox whose guest is the test.
pub(crate) fn sandbox() -> Sandbox {
    run(Lab::new("exec sleep 600"))
}

/// One that stops when it had no session for a second.
fn short_lived() -> Sandbox {
    let mut lab = Lab::new("exec sleep 600");
    lab.launch.auto_stop_s = Some(1);
    run(lab)
}

fn run(lab: Lab) -> Sandbox {
    let lab = lab.start();
    let (monitor, channel) = qemu(&lab);
    let mut guest = answer(channel);
    let Some(ToGuest::Personalise(what)) = guest.next() else {
        panic!("no personalise")
    };
    assert!(what.entropy.iter().any(|byte| *byte != 0) && what.entropy.len() == 64);
    assert!(what.unix_ns > 1_700_000_000_000_000_000);
    guest.send(&FromGuest::Booted {
        kernel: "6.12\x1b[2J".into(),
        version: "0".into(),
        uptime_ms: 1,
    });
    guest.send(&FromGuest::Personalised(Ok(())));
    lab.until("running", |status| status.phase == Phase::Running);
    Sandbox {
        lab,
        guest,
        monitor,
    }
}

impl Sandbox {
    /// The next message that is about a session.
    pub(crate) fn next(&mut self) -> ToGuest {
        loop {
            match self.guest.next().expect("the channel is open") {
                ToGuest::Ping { token } => self.guest.send(&FromGuest::Pong { token }),
                ToGuest::SetClock { .. } => {}
                other => return other,
            }
        }
    }

    /// Starts a program; returns its client and its session number.
    pub(crate) fn exec(&mut self, stdin: bool) -> (Client, u32) {
        let client = self.lab.ask(&Request::Exec(request(stdin)));
        match self.next() {
            ToGuest::Exec { session, .. } => (client, session),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn request(stdin: bool) -> ExecRequest {
    let argv = vec![b"true".to_vec()];
    ExecRequest {
        argv,
        env: vec![],
        workdir: None,
        user: None,
        terminal: None,
        stdin,
    }
}

#[test]
fn program_runs_with_input_output_and_exit_status() {
    let mut sandbox = sandbox();
    let (mut client, session) = sandbox.exec(true);
    sandbox.guest.send(&FromGuest::Started { session, pid: 7 });
    assert!(matches!(client.next(), Some(ToClient::Started)));
    client.send(&FromClient::Stdin(b"in\0".to_vec()));
    assert!(matches!(sandbox.next(), ToGuest::Stdin { data, .. } if data == b"in\0"));
    client.send(&FromClient::Signal(2));
    assert!(matches!(sandbox.next(), ToGuest::Signal { signal: 2, .. }));
    client.send(&FromClient::StdinEof);
    assert!(matches!(sandbox.next(), ToGuest::StdinEof { .. }));
    let stream = Stream::Stderr;
    sandbox.guest.send(&FromGuest::Output {
        session,
        stream,
        data: vec![0, 255],
    });
    let Some(ToClient::Output(Stream::Stderr, data)) = client.next() else {
        panic!("no output")
    };
    assert_eq!(data, [0, 255]);
    assert!(matches!(
        sandbox.next(),
        ToGuest::Credit {
            bytes: 2,
            stream: Stream::Stderr,
            ..
        }
    ));
    sandbox.guest.send(&FromGuest::Exited {
        session,
        status: ExitStatus::Signal(9),
    });
    assert!(matches!(
        client.next(),
        Some(ToClient::Exited(ExitStatus::Signal(9)))
    ));
    assert!(client.next::<ToClient>().is_none());
    sandbox
        .lab
        .until("no session", |status| status.sessions == 0);
}

#[test]
fn exec_that_comes_too_early_waits_for_the_guest() {
    let lab = Lab::new("exec sleep 600").start();
    let mut early = lab.ask(&Request::Exec(request(false)));
    let (_monitor, channel) = qemu(&lab);
    let mut guest = answer(channel);
    guest.send(&FromGuest::Personalised(Ok(())));
    loop {
        match guest.next() {
            Some(ToGuest::Exec { session, .. }) => {
                let error = ExecError::BadRequest("\x1b]0;evil\x07no".into());
                guest.send(&FromGuest::ExecFailed { session, error });
                break;
            }
            Some(_) => {}
            None => panic!("closed"),
        }
    }
    let Some(ToClient::ExecFailed(ExecError::BadRequest(text))) = early.next() else {
        panic!("no failure")
    };
    assert_eq!(
        text, "]0;evilno",
        "control characters of the guest reached the client"
    );
}

#[test]
fn guest_that_sends_beyond_its_window_is_cut_off() {
    let mut sandbox = sandbox();
    // The client reads nothing, so nothing is passed on once its socket is full.
    let (mut client, session) = sandbox.exec(false);
    let data = vec![0; CHUNK];
    let output = FromGuest::Output {
        session,
        stream: Stream::Stdout,
        data,
    };
    let bytes = sbx_wire::frame::encode(1, &output).unwrap();
    let mut sent = 0;
    // More than the window and everything that a socket may hold.
    while sent < 64 * WINDOW as usize {
        if sandbox.guest.stream.write_all(&bytes).is_err() {
            break;
        }
        sent += CHUNK;
    }
    let why = sandbox.lab.until_unresponsive();
    assert!(why.contains("beyond its window"), "{why}");
    let lost = loop {
        match client.next() {
            Some(ToClient::Lost(why)) => break why,
            Some(_) => {}
            None => panic!("the client was not told"),
        }
    };
    assert_eq!(lost, why);
    let mut late = sandbox.lab.ask(&Request::Exec(request(false)));
    assert!(matches!(late.next(), Some(ToClient::Lost(text)) if text == why));
}

#[test]
fn broken_framing_makes_the_sandbox_unresponsive() {
    for bytes in [
        u32::try_from(MAX_BODY + 1).unwrap().to_le_bytes().to_vec(),
        [&4u32.to_le_bytes()[..], &1u32.to_le_bytes(), &[0xff; 4]].concat(),
    ] {
        let mut sandbox = sandbox();
        sandbox.guest.stream.write_all(&bytes).unwrap();
        // It may have hung up already.
        let _ = sandbox.guest.stream.write_all(&[0; 8]);
        let why = sandbox.lab.until_unresponsive();
        assert!(why.contains("broke the protocol"), "{why}");
    }
}

#[test]
fn messages_about_unknown_sessions_and_stale_epochs_reach_nobody() {
    let mut sandbox = sandbox();
    let (mut client, session) = sandbox.exec(false);
    for session in [0, session + 1, u32::MAX] {
        let data = vec![1; 9];
        sandbox.guest.send(&FromGuest::Output {
            session,
            stream: Stream::Stdout,
            data,
        });
        sandbox.guest.send(&FromGuest::Exited {
            session,
            status: ExitStatus::Code(0),
        });
        sandbox.guest.send(&FromGuest::StdinCredit {
            session,
            bytes: u32::MAX,
        });
    }
    let stale = FromGuest::Exited {
        session,
        status: ExitStatus::Code(1),
    };
    sandbox
        .guest
        .stream
        .write_all(&sbx_wire::frame::encode(77, &stale).unwrap())
        .unwrap();
    sandbox.guest.send(&FromGuest::Exited {
        session,
        status: ExitStatus::Code(5),
    });
    assert!(matches!(
        client.next(),
        Some(ToClient::Exited(ExitStatus::Code(5)))
    ));
    assert_eq!(sandbox.lab.status().phase, Phase::Running);
}

#[test]
fn flood_of_log_lines_neither_fills_the_disk_nor_carries_escapes() {
    let mut sandbox = sandbox();
    let line = FromGuest::Log(format!("\x1b[2J\n{}", "x".repeat(100_000)));
    let bytes = sbx_wire::frame::encode(1, &line).unwrap();
    for _ in 0..10_000 {
        sandbox.guest.stream.write_all(&bytes).unwrap();
    }
    sandbox
        .guest
        .send(&FromGuest::Docker(DockerState::Ready { uptime_ms: 5 }));
    sandbox.lab.until("docker", |status| {
        status.docker == DockerState::Ready { uptime_ms: 5 }
    });
    let log = std::fs::read(sandbox.lab.launch.dir.join(files::SUPERVISOR_LOG)).unwrap();
    assert!(log.len() as u64 <= sbx_supervisor::log::MAX_BYTES);
    assert!(!log.contains(&0x1b));
}

#[test]
fn client_that_vanishes_hangs_its_program_up_even_with_input_waiting() {
    let mut sandbox = sandbox();
    let (client, session) = sandbox.exec(true);
    drop(client);
    assert!(matches!(sandbox.next(), ToGuest::Hangup { session: s } if s == session));
    let (mut client, session) = sandbox.exec(true);
    client.stream.set_nonblocking(true).unwrap();
    // The guest takes none of it: its window, our queue and the socket are full.
    let chunk = sbx_wire::frame::encode(0, &FromClient::Stdin(vec![0; CHUNK])).unwrap();
    while client
        .stream
        .write(&chunk)
        .is_ok_and(|count| count == chunk.len())
    {}
    drop(client);
    loop {
        match sandbox.next() {
            ToGuest::Stdin { .. } => {}
            ToGuest::Hangup { session: s } if s == session => break,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_guest_that_breaks_the_protocol_is_stopped_as_any_other() {
    let mut sandbox = short_lived();
    sandbox.guest.stream.write_all(&[0xff; 8]).unwrap();
    sandbox.lab.until_unresponsive();
    let (orderly, why) = sandbox.lab.ended_within(3 * LIMIT);
    assert!(orderly, "{why}");
    assert_eq!(why, "stopped, because nothing kept it running for 1 s");
}

#[test]
fn a_guest_that_never_ends_what_was_hung_up_keeps_no_session_and_no_sandbox_open() {
    let mut sandbox = short_lived();
    let (client, silent) = sandbox.exec(false);
    drop(client);
    assert!(matches!(sandbox.next(), ToGuest::Hangup { session } if session == silent));
    assert_eq!(sandbox.lab.status().sessions, 1, "it is waited for");
    // And nothing is read any more: not even the hang-up of this one finds room.
    let (mut client, unread) = sandbox.exec(false);
    let limit = Some(Duration::from_millis(500));
    client.stream.set_write_timeout(limit).unwrap();
    let signal = sbx_wire::frame::encode(0, &FromClient::Signal(10)).unwrap();
    while client.stream.write_all(&signal).is_ok() {}
    drop(client);
    sandbox
        .lab
        .until("no session", |status| status.sessions == 0);
    // What comes late reaches nobody, however much it is.
    for session in [silent, unread] {
        for _ in 0..=WINDOW as usize / CHUNK {
            sandbox.guest.send(&FromGuest::Output {
                session,
                stream: Stream::Stdout,
                data: vec![0; CHUNK],
            });
        }
        let status = ExitStatus::Code(0);
        sandbox.guest.send(&FromGuest::Exited { session, status });
    }
    let (orderly, why) = sandbox.lab.ended_within(3 * LIMIT);
    assert!(orderly, "{why}");
    assert_eq!(why, "stopped, because nothing kept it running for 1 s");
}

#[test]
fn a_guest_that_does_not_read_gathers_no_clients_that_have_left() {
    let mut sandbox = sandbox();
    let mut request = request(false);
    request.argv.push(vec![b'x'; 30_000]);
    let ask = |lab: &Lab| lab.ask(&Request::Exec(request.clone()));
    // More than there can be clients. It reads nothing, but knows which numbers it would be told.
    let (batch, mut begun) = (200, 0);
    for _ in 0..3 {
        let mut clients: Vec<Client> = (0..batch).map(|_| ask(&sandbox.lab)).collect();
        let all = |status: &sbx_wire::session::Status| status.sessions == batch;
        sandbox.lab.until("all are waiting", all);
        for session in begun + 1..=begun + batch {
            let status = ExitStatus::Code(5);
            sandbox.guest.send(&FromGuest::Exited { session, status });
        }
        begun += batch;
        // Whoever is still there is told.
        let told = clients.last_mut().unwrap().next();
        let right = matches!(told, Some(ToClient::Exited(ExitStatus::Code(5))));
        assert!(right, "{told:?}");
    }
    // Nor is one waited for that nobody wants any more and the guest says nothing about.
    let waiting: Vec<Client> = (0..3).map(|_| ask(&sandbox.lab)).collect();
    let three = |status: &sbx_wire::session::Status| status.sessions == 3;
    sandbox.lab.until("three are waiting", three);
    drop(waiting);
    let left = Instant::now();
    sandbox.lab.until("none", |status| status.sessions == 0);
    assert!(left.elapsed() < Duration::from_secs(8), "they were hung up");
}

#[test]
fn guest_is_asked_to_shut_down_and_then_forced() {
    let mut sandbox = sandbox();
    let mut stop = sandbox.lab.ask(&Request::Stop { grace_ms: 300 });
    assert!(matches!(sandbox.next(), ToGuest::Shutdown { .. }));
    assert!(matches!(stop.next(), Some(Reply::Stopped)));
    eventually("end", || sandbox.lab.connect().is_none());
}

/// Leaves no room for anything on its way to the guest, which reads nothing.
pub(crate) fn fill(client: &mut Client) {
    let limit = Some(Duration::from_millis(500));
    client.stream.set_write_timeout(limit).unwrap();
    let signal = sbx_wire::frame::encode(0, &FromClient::Signal(10)).unwrap();
    while client.stream.write_all(&signal).is_ok() {}
}

/// Reads until a ping comes, and answers it.
fn ping(sandbox: &mut Sandbox) {
    loop {
        if let ToGuest::Ping { token } = sandbox.guest.next().expect("the channel is open") {
            return sandbox.guest.send(&FromGuest::Pong { token });
        }
    }
}

#[test]
fn a_guest_that_was_slow_to_read_is_pinged_again() {
    let mut sandbox = sandbox();
    let (mut client, _) = sandbox.exec(false);
    ping(&mut sandbox);
    fill(&mut client);
    // For the next one there is no room.
    let full = Instant::now();
    eventually("it was due", || {
        full.elapsed() > Duration::from_millis(1500)
    });
    ping(&mut sandbox);
}

#[test]
fn guest_that_is_slow_to_read_is_asked_to_shut_down_as_well() {
    let mut sandbox = sandbox();
    let (mut client, _) = sandbox.exec(false);
    fill(&mut client);
    let _stop = sandbox.lab.ask(&Request::Stop { grace_ms: 20_000 });
    let stopping = |status: &sbx_wire::session::Status| status.phase == Phase::Stopping;
    sandbox.lab.until("stopping", stopping);
    while !matches!(sandbox.next(), ToGuest::Shutdown { .. }) {}
}

#[test]
fn guest_that_cannot_be_set_up_is_not_used() {
    let mut lab = Lab::new("exec sleep 600").start();
    let (_monitor, channel) = qemu(&lab);
    let mut guest = answer(channel);
    guest.send(&FromGuest::Personalised(Err("no\x1b disk".into())));
    let (orderly, why) = lab.ended();
    assert!(!orderly && why.contains("no disk"), "{why}");
}
