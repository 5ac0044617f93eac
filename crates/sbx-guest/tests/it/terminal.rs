//! Programs with a terminal.

use crate::Agent;
use crate::client::{Client, terminal};
use sbx_wire::guest::{ExitStatus, FromGuest, Stream, TermSize, ToGuest};

/// Collects terminal output until `text` is in it.
fn read_until(client: &mut Client, session: u32, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        match client.receive().unwrap() {
            FromGuest::Output {
                session: from,
                data,
                stream,
            } if from == session => {
                let bytes = u32::try_from(data.len()).unwrap();
                client
                    .send(&ToGuest::Credit {
                        session,
                        stream,
                        bytes,
                    })
                    .unwrap();
                seen.push_str(&String::from_utf8_lossy(&data));
            }
            FromGuest::Exited { status, .. } => panic!("ended with {status:?} after {seen:?}"),
            _ => {}
        }
    }
    seen
}

fn type_in(client: &mut Client, session: u32, text: &[u8]) {
    client
        .send(&ToGuest::Stdin {
            session,
            data: text.to_vec(),
        })
        .unwrap();
}

#[test]
fn a_terminal_is_the_controlling_one_with_the_size_asked_for() {
    let mut agent = Agent::start();
    let mut wanted = terminal(
        "tty; stty size; echo $TERM; echo mine > $(tty); echo own > /dev/tty; ps -o tty= -p $$",
    );
    wanted.terminal = Some(TermSize {
        rows: 33,
        cols: 101,
    });
    let outcome = agent.client.exec(wanted, b"").unwrap();
    let text = outcome.text();
    assert!(text.starts_with("/dev/pts/"), "{text:?}");
    for part in ["33 101\r\n", "xterm-256color\r\n", "mine\r\n", "own\r\n"] {
        assert!(text.contains(part), "{part:?} in {text:?}");
    }
    assert!(outcome.stderr.is_empty());
    assert_eq!(outcome.status, Some(ExitStatus::Code(0)));
}

#[test]
fn resize_reaches_the_program_as_sigwinch() {
    let mut agent = Agent::start();
    let script = "trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.05; done";
    let session = agent.client.begin(terminal(script)).unwrap();
    read_until(&mut agent.client, session, "ready");
    let size = TermSize {
        rows: 50,
        cols: 132,
    };
    agent
        .client
        .send(&ToGuest::Resize { session, size })
        .unwrap();
    read_until(&mut agent.client, session, "50 132");
    let status = agent.client.until(|message| match message {
        FromGuest::Exited { status, .. } => Some(*status),
        _ => None,
    });
    assert_eq!(status.unwrap(), ExitStatus::Code(5));
}

#[test]
fn control_c_interrupts_what_runs_in_the_foreground() {
    // `exec`: a shell that is about to fork may swallow the signal for its child.
    let mut agent = Agent::start();
    let session = agent
        .client
        .begin(terminal("echo ready; exec sleep 1000; echo not reached"))
        .unwrap();
    read_until(&mut agent.client, session, "ready");
    type_in(&mut agent.client, session, b"\x03");
    let outcome = agent
        .client
        .drive(&[(session, b"")])
        .unwrap()
        .remove(&session)
        .unwrap();
    assert_eq!(outcome.status, Some(ExitStatus::Signal(2)));
    assert!(!outcome.text().contains("not reached"));
}

#[test]
fn end_of_input_is_the_end_of_file_character() {
    let mut agent = Agent::start();
    for input in [&b"line\n"[..], b"half a line"] {
        let outcome = agent
            .client
            .exec(terminal("stty -echo; cat; echo over"), input)
            .unwrap();
        assert!(outcome.text().ends_with("over\r\n"), "{:?}", outcome.text());
        assert_eq!(outcome.code(), Some(0));
    }
}

#[test]
fn all_output_of_a_terminal_arrives_before_the_end() {
    let mut agent = Agent::start();
    for _ in 0..20 {
        let outcome = agent
            .client
            .exec(terminal("stty -opost; seq 1 20000"), b"")
            .unwrap();
        let lines = outcome.text();
        assert_eq!(lines.lines().count(), 20_000);
        assert!(lines.ends_with("\n20000\n"));
    }
}

#[test]
fn a_background_process_loses_its_terminal_when_the_session_ends() {
    let mut agent = Agent::start();
    let session = agent
        .client
        .begin(terminal("sleep 1000 & echo started; exit 3"))
        .unwrap();
    let outcome = agent
        .client
        .drive(&[(session, b"")])
        .unwrap()
        .remove(&session)
        .unwrap();
    assert_eq!(outcome.code(), Some(3));
    assert!(outcome.text().contains("started"));
    let late = ToGuest::Credit {
        session,
        stream: Stream::Stdout,
        bytes: 1,
    };
    agent.client.send(&late).unwrap();
    assert_eq!(
        agent.client.exec(terminal("true"), b"").unwrap().code(),
        Some(0)
    );
}
