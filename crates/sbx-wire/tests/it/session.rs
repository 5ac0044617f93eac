//! The session protocol. A daemon and a command of one version speak it with supervisors of another: those that ran
//! when sbx was upgraded.

use crate::frozen::{self, Row};
use crate::guest::exec;
use sbx_wire::guest::{DockerState, ExecError, ExitStatus, Stream, TermSize};
use sbx_wire::session::{
    FromClient, Phase, Processes, Reply, Request, RunRequest, Sessions, Status, Stay, ToClient,
};

const FILE: &str = "session-v1.txt";

fn request_name(request: &Request) -> &'static str {
    match request {
        Request::Status => "status",
        Request::Watch => "watch",
        Request::Stop { .. } => "stop",
        Request::Exec(_) => "exec",
        Request::Program { .. } => "program",
        Request::Run(_) => "run",
        Request::Follow => "follow",
    }
}

#[test]
fn requests_are_encoded_as_in_version_1() {
    let all = vec![
        Request::Status,
        Request::Watch,
        Request::Stop { grace_ms: 10_000 },
        Request::Exec(exec()),
        Request::Program {
            start: exec(),
            last: true,
        },
        Request::Run(Box::new(RunRequest {
            start: exec(),
            join: true,
            attach: false,
            hold: true,
            last: false,
        })),
        Request::Follow,
    ];
    let table: Vec<Row<Request>> = all.into_iter().map(|m| (request_name(&m), m)).collect();
    frozen::bytes(FILE, "request.", &table);
}

fn reply_name(reply: &Reply) -> &'static str {
    match reply {
        Reply::Status(status) => match status.phase {
            Phase::Starting(_) => "status.starting",
            Phase::Running => "status.running",
            Phase::Unresponsive(_) => "status.unresponsive",
            Phase::Stopping => "status.stopping",
        },
        Reply::Stopped => "stopped",
        Reply::Refused(_) => "refused",
        Reply::Sessions(sessions) => match sessions.stay {
            Stay::Unsettled => "sessions.unsettled",
            Stay::Sessions => "sessions.sessions",
            Stay::Held => "sessions.held",
            Stay::Always => "sessions.always",
            Stay::Until { .. } => "sessions.until",
        },
    }
}

#[test]
fn replies_are_encoded_as_in_version_1() {
    let status = |phase| {
        Reply::Status(Status {
            id: "0123456789ab".into(),
            phase,
            docker: DockerState::Ready { uptime_ms: 7 },
            sessions: 2,
            processes: Processes {
                supervisor: 11,
                spawner: 12,
                machine: Some(13),
                gateway: None,
                shares: vec![Some(14), None],
            },
            ready_ms: Some(900),
            uptime_s: 5,
        })
    };
    let sessions = |stay| {
        Reply::Sessions(Sessions {
            agent: true,
            attached: 3,
            stay,
        })
    };
    let all = vec![
        status(Phase::Starting("machine".into())),
        status(Phase::Running),
        status(Phase::Unresponsive("share".into())),
        status(Phase::Stopping),
        Reply::Stopped,
        Reply::Refused("no".into()),
        sessions(Stay::Unsettled),
        sessions(Stay::Sessions),
        sessions(Stay::Held),
        sessions(Stay::Always),
        sessions(Stay::Until {
            unix_ms: 1_800_000_000_000,
        }),
    ];
    let table: Vec<Row<Reply>> = all.into_iter().map(|m| (reply_name(&m), m)).collect();
    frozen::bytes(FILE, "reply.", &table);
}

fn client_name(message: &FromClient) -> &'static str {
    match message {
        FromClient::Stdin(_) => "stdin",
        FromClient::StdinEof => "stdin-eof",
        FromClient::Resize(_) => "resize",
        FromClient::Signal(_) => "signal",
        FromClient::Detach => "detach",
    }
}

#[test]
fn what_a_client_says_is_encoded_as_in_version_1() {
    let all = vec![
        FromClient::Stdin(b"in".to_vec()),
        FromClient::StdinEof,
        FromClient::Resize(TermSize { rows: 24, cols: 80 }),
        FromClient::Signal(15),
        FromClient::Detach,
    ];
    let table: Vec<Row<FromClient>> = all.into_iter().map(|m| (client_name(&m), m)).collect();
    frozen::bytes(FILE, "from-client.", &table);
}

fn answer_name(message: &ToClient) -> &'static str {
    match message {
        ToClient::Started => "started",
        ToClient::Output(..) => "output",
        ToClient::Exited(_) => "exited",
        ToClient::ExecFailed(_) => "exec-failed",
        ToClient::Lost(_) => "lost",
        ToClient::Stopping => "stopping",
        ToClient::Busy => "busy",
        ToClient::Detached => "detached",
    }
}

#[test]
fn what_a_client_hears_is_encoded_as_in_version_1() {
    let all = vec![
        ToClient::Started,
        ToClient::Output(Stream::Stderr, b"out".to_vec()),
        ToClient::Exited(ExitStatus::Signal(9)),
        ToClient::ExecFailed(ExecError::NotExecutable("a".into())),
        ToClient::Lost("b".into()),
        ToClient::Stopping,
        ToClient::Busy,
        ToClient::Detached,
    ];
    let table: Vec<Row<ToClient>> = all.into_iter().map(|m| (answer_name(&m), m)).collect();
    frozen::bytes(FILE, "to-client.", &table);
}
