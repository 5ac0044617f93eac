//! Programs without a terminal.

use crate::Agent;
use crate::client::{request, shell};
use sbx_wire::guest::{ExecError, ExecRequest, ExitStatus, FromGuest, Stream, ToGuest, WINDOW};
use std::time::{Duration, Instant};

#[test]
fn exit_status_and_both_outputs_come_back() {
    let mut agent = Agent::start();
    let outcome = agent
        .client
        .exec(shell("echo out; echo err >&2; exit 7"), b"")
        .unwrap();
    assert_eq!(outcome.status, Some(ExitStatus::Code(7)));
    assert_eq!(
        (outcome.stdout.as_slice(), outcome.stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    let killed = agent.client.exec(shell("kill -9 $$"), b"").unwrap();
    assert_eq!(
        (killed.status, killed.code()),
        (Some(ExitStatus::Signal(9)), Some(137))
    );
}

#[test]
fn a_program_of_another_user_may_open_its_streams_by_name() {
    let mut agent = Agent::start();
    // An ordinary process starts programs as its own user only, whose streams they are anyway.
    let root = rustix::process::geteuid().is_root();
    let script = "cat /dev/stdin && echo out >> /dev/stdout && echo err >> /dev/stderr";
    let named = ExecRequest {
        user: root.then(|| "nobody".into()),
        ..shell(script)
    };
    let outcome = agent.client.exec(named, b"in\n").unwrap();
    assert_eq!(
        (outcome.stdout.as_slice(), outcome.stderr.as_slice()),
        (&b"in\nout\n"[..], &b"err\n"[..])
    );
    assert_eq!(outcome.status, Some(ExitStatus::Code(0)));
}

#[test]
fn a_refusal_fits_a_frame_however_long_what_it_names_is() {
    let mut agent = Agent::start();
    let odd = ExecRequest {
        // Each is six characters where it is shown.
        workdir: Some("\u{1}".repeat(500_000)),
        ..shell("true")
    };
    let refused = agent.client.exec(odd, b"").unwrap();
    let Some(ExecError::BadRequest(text)) = refused.error else {
        panic!("{refused:?}")
    };
    assert!(text.len() <= 4096, "{}", text.len());
}

#[test]
fn what_cannot_be_started_has_the_code_of_a_shell() {
    let mut agent = Agent::start();
    let missing = agent
        .client
        .exec(request(&["no-such-program"]), b"")
        .unwrap();
    assert_eq!(
        (missing.error.clone(), missing.code()),
        (Some(ExecError::NotFound), Some(127))
    );
    let missing = agent
        .client
        .exec(request(&["/no/such/program"]), b"")
        .unwrap();
    assert_eq!(missing.code(), Some(127));
    let data = agent.client.exec(request(&["/etc/passwd"]), b"").unwrap();
    assert_eq!(data.code(), Some(126), "{data:?}");
    for bad in [
        ExecRequest {
            workdir: Some("/no/such/directory".into()),
            ..shell("true")
        },
        ExecRequest {
            workdir: Some("relative".into()),
            ..shell("true")
        },
        ExecRequest {
            user: Some("nobody-of-that-name".into()),
            ..shell("true")
        },
        ExecRequest {
            env: vec![("A=B".into(), String::new())],
            ..shell("true")
        },
        request(&["with\0nul"]),
        request(&[]),
    ] {
        let outcome = agent.client.exec(bad.clone(), b"").unwrap();
        assert_eq!(outcome.code(), Some(125), "{bad:?}: {outcome:?}");
    }
    assert_eq!(
        agent.client.exec(shell("true"), b"").unwrap().code(),
        Some(0)
    );
}

#[test]
fn program_is_looked_up_in_the_path_of_the_final_environment() {
    let mut agent = Agent::start();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/echo", dir.path().join("my-echo")).unwrap();
    let path = dir.path().to_str().unwrap().to_owned();
    let found = ExecRequest {
        env: vec![("PATH".into(), path)],
        ..request(&["my-echo", "found"])
    };
    assert_eq!(agent.client.exec(found, b"").unwrap().text(), "found\n");
}

#[test]
fn environment_is_base_then_sandbox_then_request() {
    let mut agent = Agent::start();
    let mut wanted = shell("echo $SANDBOX:$HOME:${TERM-none}:${PATH:+path}:$PWD");
    wanted.env = vec![
        ("HOME".into(), "/first".into()),
        ("HOME".into(), "/last".into()),
    ];
    wanted.workdir = Some("/usr".into());
    assert_eq!(
        agent.client.exec(wanted, b"").unwrap().text(),
        "yes:/last:none:path:/usr\n"
    );
}

#[test]
fn sixteen_mebibytes_pass_through_unchanged() {
    let mut agent = Agent::start();
    let input: Vec<u8> = (0..16u32 << 20)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
        .collect();
    let outcome = agent.client.exec(request(&["cat"]), &input).unwrap();
    assert_eq!(outcome.status, Some(ExitStatus::Code(0)));
    assert!(
        outcome.stdout == input,
        "{} of {} bytes",
        outcome.stdout.len(),
        input.len()
    );
}

#[test]
fn input_that_nobody_reads_does_not_hold_up_the_end() {
    let mut agent = Agent::start();
    let outcome = agent
        .client
        .exec(shell("exec <&-; echo done"), &vec![0; 4 << 20])
        .unwrap();
    assert_eq!(
        (outcome.text().as_str(), outcome.code()),
        ("done\n", Some(0))
    );
    let mut none = request(&["cat"]);
    none.stdin = false;
    assert_eq!(agent.client.exec(none, b"ignored").unwrap().text(), "");
}

#[test]
fn fifty_sessions_run_at_once() {
    let mut agent = Agent::start();
    // Each one waits for its input, so all of them are there before the first one ends.
    let inputs: Vec<Vec<u8>> = (0..50).map(|n| format!("{n}\n").into_bytes()).collect();
    let sessions: Vec<u32> = inputs
        .iter()
        .map(|_| {
            agent
                .client
                .begin(shell("read n; echo got $n; exit $n"))
                .unwrap()
        })
        .collect();
    let mut started = 0;
    while started < sessions.len() {
        if let FromGuest::Started { .. } = agent.client.receive().unwrap() {
            started += 1;
        }
    }
    let feeds: Vec<(u32, &[u8])> = sessions
        .iter()
        .copied()
        .zip(inputs.iter().map(Vec::as_slice))
        .collect();
    let outcomes = agent.client.drive(&feeds).unwrap();
    for (n, session) in sessions.iter().enumerate() {
        assert_eq!(outcomes[session].text(), format!("got {n}\n"));
        assert_eq!(outcomes[session].code(), u8::try_from(n).ok());
    }
}

#[test]
fn a_slow_reader_holds_up_its_own_session_only() {
    let mut agent = Agent::start();
    let slow = agent
        .client
        .begin(shell("head -c 2000000 /dev/zero; echo end >&2"))
        .unwrap();
    let mut received = 0;
    while received < WINDOW as usize {
        if let FromGuest::Output { session, data, .. } = agent.client.receive().unwrap() {
            assert_eq!(session, slow);
            received += data.len();
        }
    }
    assert_eq!(received, WINDOW as usize);
    // No credit has been given: the program waits, others run, and nothing more of it arrives.
    let other = agent
        .client
        .exec(request(&["cat"]), &vec![7; 1 << 20])
        .unwrap();
    assert_eq!((other.stdout.len(), other.code()), (1 << 20, Some(0)));
    assert!(
        !agent
            .client
            .log
            .iter()
            .any(|message| matches!(message, FromGuest::Exited { .. }))
    );
    let credit = ToGuest::Credit {
        session: slow,
        stream: Stream::Stdout,
        bytes: WINDOW,
    };
    agent.client.send(&credit).unwrap();
    let rest = agent.client.drive(&[(slow, b"")]).unwrap();
    assert_eq!(received + rest[&slow].stdout.len(), 2_000_000);
    assert_eq!(rest[&slow].stderr, b"end\n");
}

#[test]
fn signals_reach_the_whole_process_group() {
    let mut agent = Agent::start();
    let session = agent
        .client
        .begin(shell("sleep 1000 & sleep 1000 | cat; echo survived"))
        .unwrap();
    agent
        .client
        .until(|message| matches!(message, FromGuest::Started { .. }).then_some(()))
        .unwrap();
    agent
        .client
        .send(&ToGuest::Signal {
            session,
            signal: 15,
        })
        .unwrap();
    let outcome = agent
        .client
        .drive(&[(session, b"")])
        .unwrap()
        .remove(&session)
        .unwrap();
    assert_eq!(outcome.status, Some(ExitStatus::Signal(15)));
    assert_eq!(outcome.text(), "");
}

#[test]
fn a_signal_that_overtakes_the_start_is_delivered() {
    let mut agent = Agent::start();
    let session = agent.client.begin(shell("sleep 1000")).unwrap();
    agent
        .client
        .send(&ToGuest::Signal { session, signal: 9 })
        .unwrap();
    let outcome = agent
        .client
        .drive(&[(session, b"")])
        .unwrap()
        .remove(&session)
        .unwrap();
    assert_eq!(outcome.status, Some(ExitStatus::Signal(9)));
}

#[test]
fn a_background_process_that_keeps_the_pipe_does_not_keep_the_session() {
    let mut agent = Agent::start();
    let begun = Instant::now();
    for script in ["sleep 30 & echo started", "yes & echo started >&2"] {
        let outcome = agent.client.exec(shell(script), b"").unwrap();
        assert_eq!(outcome.code(), Some(0));
        assert!(
            [outcome.stdout, outcome.stderr]
                .iter()
                .any(|out| out.ends_with(b"started\n"))
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn hang_up_ends_the_program_even_if_it_ignores_it() {
    let mut agent = Agent::start();
    let begun = Instant::now();
    let polite = agent.client.begin(shell("sleep 1000")).unwrap();
    let stubborn = agent
        .client
        .begin(shell(
            "trap '' HUP; echo ready; while :; do sleep 0.1; done",
        ))
        .unwrap();
    agent
        .client
        .until(|message| matches!(message, FromGuest::Output { .. }).then_some(()))
        .unwrap();
    for session in [polite, stubborn] {
        agent.client.send(&ToGuest::Hangup { session }).unwrap();
    }
    let outcomes = agent
        .client
        .drive(&[(polite, b""), (stubborn, b"")])
        .unwrap();
    assert_eq!(outcomes[&polite].status, Some(ExitStatus::Signal(1)));
    assert_eq!(outcomes[&stubborn].status, Some(ExitStatus::Signal(9)));
    assert!(begun.elapsed() >= Duration::from_secs(5));
}
