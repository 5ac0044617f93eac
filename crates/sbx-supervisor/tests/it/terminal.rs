//! The agent on a terminal of its own: clients come, go, die, type, and are slow. The test plays the guest.

use crate::hostile::{Sandbox, fill, request, sandbox};
use crate::lab::{Client, LIMIT, eventually, kill};
use sbx_wire::frame::CHUNK;
use sbx_wire::guest::{ExecError, ExitStatus, FromGuest, Stream, TermSize, ToGuest, WINDOW};
use sbx_wire::session::{FromClient, Reply, Request, RunRequest, Sessions, Stay, ToClient};
use std::time::{Duration, Instant};

const SMALL: TermSize = TermSize { rows: 10, cols: 40 };
const LARGE: TermSize = TermSize { rows: 20, cols: 60 };

/// `sbx run` on a terminal of this size.
fn run(size: TermSize) -> RunRequest {
    RunRequest {
        start: sbx_wire::guest::ExecRequest {
            terminal: Some(size),
            ..request(true)
        },
        join: true,
        attach: true,
        hold: false,
        last: false,
    }
}

fn ask(sandbox: &Sandbox, request: RunRequest) -> Client {
    sandbox.lab.ask(&Request::Run(Box::new(request)))
}

/// A running agent, its first client, and its session's number.
fn agent(sandbox: &mut Sandbox, size: TermSize) -> (Viewer, u32) {
    let client = ask(sandbox, run(size));
    let ToGuest::Exec { session, request } = sandbox.next() else {
        panic!("no program")
    };
    assert_eq!(request.terminal, Some(size));
    sandbox.guest.send(&FromGuest::Started { session, pid: 7 });
    let mut viewer = Viewer::new(client, size);
    assert!(matches!(viewer.client.next(), Some(ToClient::Started)));
    (viewer, session)
}

fn join(sandbox: &Sandbox, size: TermSize) -> Viewer {
    Viewer::new(ask(sandbox, run(size)), size)
}

fn say(sandbox: &mut Sandbox, session: u32, text: &str) {
    let (stream, data) = (Stream::Stdout, text.as_bytes().to_vec());
    sandbox.guest.send(&FromGuest::Output {
        session,
        stream,
        data,
    });
}

/// A client with a terminal that shows what it gets.
struct Viewer {
    client: Client,
    terminal: vt100::Parser,
}

impl Viewer {
    fn new(client: Client, size: TermSize) -> Self {
        let whole = |number| std::num::NonZero::new(number).unwrap();
        Self {
            client,
            terminal: vt100::Parser::new(whole(size.rows), whole(size.cols), 0),
        }
    }

    fn shown(&self) -> String {
        let text = self.terminal.screen().contents();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        lines.join("\n")
    }

    /// What is seen: each letter with how it looks, and what keys and pastes do.
    fn picture(&self) -> String {
        let screen = self.terminal.screen();
        let (rows, cols) = screen.size();
        let mut all = screen.input_mode_formatted();
        for (row, col) in (0..rows.get()).flat_map(|row| (0..cols.get()).map(move |col| (row, col)))
        {
            let cell = screen.cell(row, col).unwrap();
            if !cell.contents().trim().is_empty() {
                let (text, ink) = (cell.contents(), (cell.fgcolor(), cell.inverse()));
                all.push_str(&format!("{row} {col} {text} {ink:?}\n"));
            }
        }
        all
    }

    /// Reads until the terminal shows this.
    fn until(&mut self, text: &str) {
        while !self.shown().contains(text) {
            match self.client.next() {
                Some(ToClient::Output(Stream::Stdout, data)) => self.terminal.process(&data),
                Some(ToClient::Started) => {}
                other => panic!("{other:?} in place of {text:?}; shown: {}", self.shown()),
            }
        }
    }

    /// Reads to the last frame.
    fn last(&mut self) -> ToClient {
        loop {
            match self.client.next().expect("a last frame") {
                ToClient::Output(_, data) => self.terminal.process(&data),
                ToClient::Started => {}
                last => return last,
            }
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.client.send(&FromClient::Stdin(keys.into()));
    }
}

/// What was typed, from as many messages as it takes. Windows and sizes may come in between.
fn typed(sandbox: &mut Sandbox, expected: &str) {
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        match sandbox.next() {
            ToGuest::Stdin { data, .. } => seen.extend(data),
            ToGuest::Credit { .. } | ToGuest::Resize { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(String::from_utf8(seen).unwrap(), expected);
}

fn sizes_until(sandbox: &mut Sandbox, wanted: TermSize) {
    loop {
        match sandbox.next() {
            ToGuest::Resize { size, .. } if size == wanted => return,
            ToGuest::Resize { .. } | ToGuest::Credit { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn sessions(sandbox: &Sandbox) -> Sessions {
    let mut follower = sandbox.lab.ask(&Request::Follow);
    assert!(matches!(follower.next(), Some(Reply::Status(_))));
    match follower.next() {
        Some(Reply::Sessions(sessions)) => sessions,
        other => panic!("{other:?}"),
    }
}

#[test]
fn agent_outlives_a_client_that_vanishes_and_the_next_one_sees_the_same_screen() {
    let mut sandbox = sandbox();
    let (mut first, session) = agent(&mut sandbox, SMALL);
    say(
        &mut sandbox,
        session,
        "before\r\n\x1b[?1049h\x1b[?2004h\x1b[?1h\x1b[3;5H\x1b[7mdrawn",
    );
    first.until("drawn");
    let before = first.picture();
    drop(first);
    eventually("nobody is attached", || sessions(&sandbox).attached == 0);
    // Not all of this sequence is there when the next one comes.
    say(&mut sandbox, session, "\x1b[6;");
    eventually("it runs on", || {
        let sessions = sessions(&sandbox);
        sessions.agent && sessions.stay == Stay::Sessions
    });
    let mut next = join(&sandbox, SMALL);
    next.until("drawn");
    assert_eq!(next.picture(), before);
    assert_eq!(next.terminal.screen().cursor_position(), (2, 9));
    say(&mut sandbox, session, "2Hmore");
    next.until("more");
    assert_eq!(next.terminal.screen().cursor_position(), (5, 5));
    // Typing goes to the same program, and its end comes to whoever is there.
    next.type_in("q");
    typed(&mut sandbox, "q");
    let status = ExitStatus::Code(3);
    sandbox.guest.send(&FromGuest::Exited { session, status });
    assert!(matches!(next.last(), ToClient::Exited(ExitStatus::Code(3))));
    assert!(
        !next.terminal.screen().alternate_screen() && !next.terminal.screen().bracketed_paste()
    );
    eventually("no agent", || !sessions(&sandbox).agent);
}

#[test]
fn several_clients_see_and_type_and_the_smallest_one_gives_the_size() {
    let mut sandbox = sandbox();
    let (mut large, session) = agent(&mut sandbox, LARGE);
    say(&mut sandbox, session, "\x1b[2J\x1b[H\x1b[1;31mred\x1b[m ");
    large.until("red");
    let mut small = join(&sandbox, SMALL);
    sizes_until(&mut sandbox, SMALL);
    small.until("red");
    say(&mut sandbox, session, "for both");
    small.until("red for both");
    large.until("red for both");
    let red = large.terminal.screen().cell(0, 0).unwrap().fgcolor();
    assert_eq!(red, vt100::Color::Idx(1));
    large.type_in("a");
    typed(&mut sandbox, "a");
    small.type_in("b");
    typed(&mut sandbox, "b");
    eventually("two", || sessions(&sandbox).attached == 2);
    // A question gets one answer: from the terminal that leads, whose answers come from it.
    say(&mut sandbox, session, "\x1b[6n?");
    small.until("?");
    small.type_in("\x1b[1;13R");
    typed(&mut sandbox, "\x1b[1;13R");
    drop(small);
    sizes_until(&mut sandbox, LARGE);
    large
        .client
        .send(&FromClient::Resize(TermSize { rows: 7, cols: 30 }));
    sizes_until(&mut sandbox, TermSize { rows: 7, cols: 30 });
}

#[test]
fn there_is_an_end_to_how_many_can_look() {
    let mut sandbox = sandbox();
    let (first, _) = agent(&mut sandbox, SMALL);
    let mut all = vec![first];
    for _ in 1..16 {
        let mut one = join(&sandbox, SMALL);
        assert!(matches!(one.client.next(), Some(ToClient::Started)));
        all.push(one);
    }
    let last = join(&sandbox, SMALL).last();
    assert!(
        matches!(&last, ToClient::Lost(why) if why.contains("too many")),
        "{last:?}"
    );
    all.pop();
    eventually("one less", || sessions(&sandbox).attached == 15);
    assert!(matches!(
        join(&sandbox, SMALL).client.next(),
        Some(ToClient::Started)
    ));
}

/// Sends so many bytes as a guest that keeps to its window, and waits until all of it is taken.
fn flood(sandbox: &mut Sandbox, session: u32, bytes: usize) {
    let line = "the quick brown fox jumps\r\n".repeat(CHUNK / 27 + 1);
    let (full, mut sent) = (WINDOW as usize, 0);
    let mut window = full;
    while sent < bytes || window < full {
        if sent < bytes && window >= CHUNK {
            say(sandbox, session, &line[..CHUNK]);
            window -= CHUNK;
            sent += CHUNK;
            continue;
        }
        match sandbox.next() {
            ToGuest::Credit { bytes, .. } => window += bytes as usize,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn client_that_does_not_read_holds_up_neither_the_agent_nor_the_others_and_catches_up() {
    let mut sandbox = sandbox();
    let (mut other, session) = agent(&mut sandbox, SMALL);
    // It leads, for it came last; and it reads nothing.
    let mut stuck = join(&sandbox, SMALL);
    eventually("both", || sessions(&sandbox).attached == 2);
    let start = Instant::now();
    flood(&mut sandbox, session, 8 << 20);
    say(&mut sandbox, session, "\r\nthe last line");
    other.until("the last line");
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    stuck.until("the last line");
    assert_eq!(stuck.shown(), other.shown());
    // It is no longer behind.
    say(&mut sandbox, session, " and one more");
    stuck.until("the last line and one more");
}

#[test]
fn client_that_leaves_gets_its_terminal_back_and_the_agent_goes_on() {
    let mut sandbox = sandbox();
    let (mut first, session) = agent(&mut sandbox, SMALL);
    say(
        &mut sandbox,
        session,
        "\x1b[?1049h\x1b[?1000h\x1b[?25l\x1b[>1umenu",
    );
    first.until("menu");
    first.client.send(&FromClient::Detach);
    assert!(matches!(first.last(), ToClient::Detached));
    let screen = first.terminal.screen();
    assert!(!screen.alternate_screen() && !screen.hide_cursor());
    assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
    assert!(first.client.next::<ToClient>().is_none());
    // A terminal that hangs up is the same as one that leaves.
    let mut second = join(&sandbox, SMALL);
    second.until("menu");
    second.client.send(&FromClient::StdinEof);
    assert!(second.client.next::<ToClient>().is_none());
    // Nobody is there, so the supervisor answers for the terminal.
    eventually("nobody", || sessions(&sandbox).attached == 0);
    say(&mut sandbox, session, "\x1b[2;3H\x1b[6n");
    typed(&mut sandbox, "\x1b[2;3R");
    assert!(sessions(&sandbox).agent);
}

#[test]
fn agent_started_without_a_terminal_holds_the_sandbox_and_can_be_joined() {
    let mut sandbox = sandbox();
    let detached = || RunRequest {
        attach: false,
        hold: true,
        ..run(SMALL)
    };
    let mut starter = ask(&sandbox, detached());
    let ToGuest::Exec { session, .. } = sandbox.next() else {
        panic!("no program")
    };
    let error = ExecError::NotFound;
    sandbox
        .guest
        .send(&FromGuest::ExecFailed { session, error });
    let failed = starter.next();
    assert!(
        matches!(failed, Some(ToClient::ExecFailed(ExecError::NotFound))),
        "{failed:?}"
    );
    assert_eq!(
        sessions(&sandbox).stay,
        Stay::Always,
        "what did not start holds nothing"
    );

    let mut starter = ask(&sandbox, detached());
    let ToGuest::Exec { session, .. } = sandbox.next() else {
        panic!("no program")
    };
    sandbox.guest.send(&FromGuest::Started { session, pid: 7 });
    assert!(matches!(starter.next(), Some(ToClient::Detached)));
    say(&mut sandbox, session, "working");
    let mut viewer = join(&sandbox, SMALL);
    viewer.until("working");
    // Arguments for another agent are not dropped in silence.
    let mut other = ask(
        &sandbox,
        RunRequest {
            join: false,
            ..run(SMALL)
        },
    );
    assert!(matches!(other.next(), Some(ToClient::Busy)));
    let status = ExitStatus::Code(0);
    sandbox.guest.send(&FromGuest::Exited { session, status });
    assert!(matches!(
        viewer.last(),
        ToClient::Exited(ExitStatus::Code(0))
    ));
    eventually("held without any session", || {
        sessions(&sandbox).stay == Stay::Held
    });
}

#[test]
fn sandbox_run_to_be_removed_ends_when_its_agent_and_everybody_else_has() {
    let mut sandbox = sandbox();
    let running = sandbox
        .lab
        .until("a machine", |status| status.processes.machine.is_some());
    let last = RunRequest {
        last: true,
        ..run(SMALL)
    };
    let client = ask(&sandbox, last);
    let ToGuest::Exec { session, .. } = sandbox.next() else {
        panic!("no program")
    };
    sandbox.guest.send(&FromGuest::Started { session, pid: 7 });
    let program = sandbox.lab.ask(&Request::Program {
        start: request(false),
        last: false,
    });
    let ToGuest::Exec { session: other, .. } = sandbox.next() else {
        panic!("no program")
    };
    sandbox.guest.send(&FromGuest::Started {
        session: other,
        pid: 8,
    });
    drop(client);
    let status = ExitStatus::Code(0);
    sandbox.guest.send(&FromGuest::Exited { session, status });
    eventually("the agent has ended", || !sessions(&sandbox).agent);
    assert_eq!(sessions(&sandbox).stay, Stay::Sessions);
    drop(program);
    assert!(matches!(sandbox.next(), ToGuest::Hangup { session } if session == other));
    sandbox.guest.send(&FromGuest::Exited {
        session: other,
        status,
    });
    assert!(matches!(sandbox.next(), ToGuest::Shutdown { .. }));
    // Too late: it is to be started again.
    let mut late = join(&sandbox, SMALL);
    assert!(matches!(late.last(), ToClient::Stopping));
    let mut older = sandbox.lab.ask(&Request::Exec(request(false)));
    let answer = older.next();
    assert!(
        matches!(&answer, Some(ToClient::Lost(why)) if why.contains("stopping")),
        "{answer:?}"
    );
    kill(running.processes.machine.unwrap());
    let (orderly, why) = sandbox.lab.ended();
    assert!(
        orderly && why == "stopped, because nothing kept it running",
        "{why}"
    );
}

#[test]
fn clients_that_have_left_do_not_wait_for_an_agent_that_never_begins() {
    let mut sandbox = sandbox();
    let detached = RunRequest {
        attach: false,
        hold: true,
        ..run(SMALL)
    };
    let first = ask(&sandbox, detached.clone());
    assert!(matches!(sandbox.next(), ToGuest::Exec { .. }));
    // More than there can be at a time.
    for _ in 0..600 {
        drop(ask(&sandbox, detached.clone()));
    }
    assert_eq!(sandbox.lab.status().sessions, 1);
    drop(first);
}

/// The most memory that a process ever had, bytes.
fn peak(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<usize>().unwrap() << 10
}

#[test]
fn a_sequence_that_never_ends_is_not_kept() {
    let mut sandbox = sandbox();
    let (viewer, session) = agent(&mut sandbox, SMALL);
    drop(viewer);
    eventually("nobody", || sessions(&sandbox).attached == 0);
    let mut window = WINDOW as usize;
    let mut pour = |bytes: usize, start: &str| {
        let mut data = start.as_bytes().to_vec();
        for _ in 0..bytes / CHUNK {
            data.resize(CHUNK, b'x');
            while window < CHUNK {
                if let ToGuest::Credit { bytes, .. } = sandbox.next() {
                    window += bytes as usize;
                }
            }
            window -= CHUNK;
            let (stream, data) = (Stream::Stdout, std::mem::take(&mut data));
            let output = FromGuest::Output {
                session,
                stream,
                data,
            };
            sandbox.guest.send(&output);
        }
        peak(sandbox.lab.pid())
    };
    // What it needs to pass this on it has by then.
    pour(2 << 20, "");
    let before = pour(2 << 20, "\x1b]2;");
    let after = pour(32 << 20, "");
    assert!(after - before < 4 << 20, "{before} grew to {after} bytes");
}

#[test]
fn client_may_not_type_without_end_when_nobody_reads() {
    let mut sandbox = sandbox();
    let (mut first, session) = agent(&mut sandbox, SMALL);
    let limit = Some(Duration::from_millis(500));
    first.client.stream.set_write_timeout(limit).unwrap();
    let chunk = sbx_wire::frame::encode(0, &FromClient::Stdin(vec![b'x'; CHUNK])).unwrap();
    let mut taken = 0;
    while taken < 64 << 20
        && std::io::Write::write(&mut first.client.stream, &chunk).is_ok_and(|n| n == chunk.len())
    {
        taken += CHUNK;
    }
    assert!(taken < 8 << 20, "{taken} bytes were taken");
    // Output still comes, and so does another client.
    say(&mut sandbox, session, "still here");
    join(&sandbox, SMALL).until("still here");
    // And it still notices that this one is gone.
    drop(first);
    eventually("nobody", || sessions(&sandbox).attached == 0);
}

#[test]
fn a_guest_that_does_not_read_keeps_no_terminal_from_coming_leaving_and_being_missed() {
    let mut sandbox = sandbox();
    let (first, session) = agent(&mut sandbox, LARGE);
    let (mut other, _) = sandbox.exec(false);
    fill(&mut other);
    say(&mut sandbox, session, "there");
    // One of another size, more often than there is place, and each is noticed to be gone.
    for _ in 0..20 {
        let mut next = join(&sandbox, SMALL);
        next.until("there");
        next.client.send(&FromClient::Resize(LARGE));
        next.client.send(&FromClient::Stdin(b"x".to_vec()));
        next.client.send(&FromClient::Detach);
        while !matches!(next.client.next(), Some(ToClient::Detached)) {}
    }
    let mut signalling = join(&sandbox, SMALL);
    signalling.until("there");
    signalling.client.send(&FromClient::Signal(10));
    drop(signalling);
    drop(first);
    eventually("nobody", || sessions(&sandbox).attached == 0);
    // Once it reads again it is told the size of the last one, and gets what was typed.
    let mut size = None;
    let mut typed = 0;
    eventually("all of it", || {
        match sandbox.next() {
            ToGuest::Resize { size: new, .. } => size = Some(new),
            ToGuest::Stdin { data, .. } => typed += data.len(),
            _ => {}
        }
        typed == 20 && size.is_some()
    });
}

#[test]
fn whoever_wants_an_agent_of_a_guest_that_does_not_read_may_leave() {
    let mut sandbox = sandbox();
    let (mut other, _) = sandbox.exec(false);
    fill(&mut other);
    let before = descriptors(&sandbox);
    let first = ask(&sandbox, run(SMALL));
    eventually("it came", || descriptors(&sandbox) > before);
    drop(first);
    eventually("it left", || descriptors(&sandbox) == before);
    // Its agent is started all the same.
    while !matches!(sandbox.next(), ToGuest::Exec { .. }) {}
}

/// How much the supervisor has open.
fn descriptors(sandbox: &Sandbox) -> usize {
    let all = std::fs::read_dir(format!("/proc/{}/fd", sandbox.lab.pid()));
    all.unwrap().count()
}
