//! The channel itself: opening, closing, and hosts that follow one another.

use crate::Agent;
use crate::client::{Client, plain, preamble, shell};
use sbx_wire::frame::{FrameError, encode};
use sbx_wire::guest::{ExecError, FromGuest, Stream, ToGuest, WINDOW};
use std::io::{Read as _, Write as _};

#[test]
fn stale_bytes_in_front_of_the_preamble_are_dropped() {
    let (mut child, mut host) = Agent::spawn();
    host.write_all(&[0xa5; 10_000]).unwrap();
    host.write_all(&preamble(3).encode_host()[..20]).unwrap();
    host.write_all(&preamble(3).encode_guest()).unwrap();
    let mut client = Client::open(host, 4).unwrap();
    assert!(matches!(
        client.receive().unwrap(),
        FromGuest::Booted { .. }
    ));
    client.personalise(plain()).unwrap().unwrap();
    assert_eq!(client.exec(shell("echo on"), b"").unwrap().text(), "on\n");
    drop(client);
    assert!(
        child.wait().unwrap().success(),
        "an agent on a socket ends with it"
    );
}

#[test]
fn frames_of_another_epoch_are_dropped() {
    let mut agent = Agent::start();
    let stale = encode(0, &ToGuest::Ping { token: 1 }).unwrap();
    agent.client.stream.write_all(&stale).unwrap();
    agent.client.send(&ToGuest::Ping { token: 2 }).unwrap();
    let token = agent.client.until(|message| match message {
        FromGuest::Pong { token } => Some(*token),
        _ => None,
    });
    assert_eq!(token.unwrap(), 2);
}

#[test]
fn a_new_preamble_ends_the_sessions_of_the_old_life() {
    let mut agent = Agent::start();
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("hung-up");
    let script = format!(
        "trap 'touch {}; exit' HUP; echo ready; while :; do sleep 0.05; done",
        mark.display()
    );
    agent.client.begin(shell(&script)).unwrap();
    agent
        .client
        .until(|message| matches!(message, FromGuest::Output { .. }).then_some(()))
        .unwrap();
    let mut next = Client::open(agent.client.stream.try_clone().unwrap(), 2).unwrap();
    assert!(matches!(next.receive().unwrap(), FromGuest::Booted { .. }));
    let early = next.exec(shell("true"), b"").unwrap();
    assert!(
        matches!(early.error, Some(ExecError::BadRequest(_))),
        "served before it was personalised"
    );
    next.personalise(plain()).unwrap().unwrap();
    let wait = format!(
        "while ! test -e {}; do sleep 0.05; done; echo gone",
        mark.display()
    );
    assert_eq!(next.exec(shell(&wait), b"").unwrap().text(), "gone\n");
}

#[test]
fn a_host_that_overruns_a_window_is_cut_off() {
    let mut agent = Agent::start();
    let session = agent.client.begin(shell("sleep 1000")).unwrap();
    let piece = vec![0; 32 << 10];
    for _ in 0..=2 * WINDOW as usize / piece.len() {
        let data = piece.clone();
        if agent
            .client
            .send(&ToGuest::Stdin { session, data })
            .is_err()
        {
            break;
        }
    }
    // The life is over; a new one is opened on the same stream.
    let mut next = Client::open(agent.client.stream.try_clone().unwrap(), 2).unwrap();
    assert!(matches!(next.receive().unwrap(), FromGuest::Booted { .. }));
}

#[test]
fn a_host_whose_life_is_over_is_told() {
    let ends = |what: &str, bytes: &[u8]| {
        let mut agent = Agent::start();
        agent.client.begin(shell("sleep 1000")).unwrap();
        agent.client.stream.write_all(bytes).unwrap();
        let end = loop {
            if let Err(error) = agent.client.receive() {
                break error;
            }
        };
        let broken = matches!(end.get_ref(), Some(error) if error.is::<FrameError>());
        assert!(broken, "{what}: {end}");
    };
    ends("a frame that cannot be", &[0xff; 64]);
    ends("a frame that is not finished", &[40, 0, 0, 0, 1]);
    let credit = ToGuest::Credit {
        session: 1,
        stream: Stream::Stdout,
        bytes: 1,
    };
    ends("credit for nothing", &encode(1, &credit).unwrap());
}

#[test]
fn an_oversized_frame_ends_the_life_and_not_the_agent() {
    let mut agent = Agent::start();
    agent.client.stream.write_all(&[0xff; 64]).unwrap();
    let mut next = Client::open(agent.client.stream.try_clone().unwrap(), 2).unwrap();
    next.personalise(plain()).unwrap().unwrap();
    assert_eq!(next.exec(shell("echo on"), b"").unwrap().text(), "on\n");
}

#[test]
fn too_many_sessions_are_refused_and_nothing_else_suffers() {
    let mut agent = Agent::start();
    let all: Vec<u32> = (0..sbx_wire::guest::MAX_SESSIONS)
        .map(|_| agent.client.begin(shell("read x")).unwrap())
        .collect();
    let refused = agent.client.exec(shell("true"), b"").unwrap();
    assert!(matches!(refused.error, Some(ExecError::BadRequest(_))));
    let ends: Vec<(u32, &[u8])> = all.iter().map(|session| (*session, &b"\n"[..])).collect();
    let outcomes = agent.client.drive(&ends).unwrap();
    assert!(outcomes.values().all(|outcome| outcome.code() == Some(0)));
}

#[test]
fn the_agent_answers_nothing_before_a_preamble() {
    let (mut child, mut host) = Agent::spawn();
    host.write_all(&encode(1, &ToGuest::Ping { token: 9 }).unwrap())
        .unwrap();
    host.set_read_timeout(Some(std::time::Duration::from_millis(300)))
        .unwrap();
    assert!(host.read(&mut [0; 1]).is_err(), "something was sent");
    drop(host);
    assert!(child.wait().unwrap().success());
}
