//! The session protocol: command and daemon to a sandbox's supervisor, over `supervisor.sock`.
//!
//! One connection, one request. The client sends one [`Request`] frame (epoch 0). `Exec` turns the
//! connection into a session: [`FromClient`] one way, [`ToClient`] the other, until `Exited` or `Failed`.
//! The other requests are answered by one [`Reply`] (`Watch`: a stream of them). Back-pressure is the
//! socket's.
//!
//! Compatibility: sandboxes run on while sbx is upgraded, so a daemon and a command of one version speak with
//! supervisors of another. The rule of the [guest protocol](crate::guest) holds: variants are only appended, fields
//! never change; what was said in version 1 is frozen in `tests/fixtures/session-v1.txt`. A supervisor that does not
//! know a request closes the connection, so whoever appends one says what its client does then.

use crate::guest::{DockerState, ExecError, ExecRequest, ExitStatus, Stream, TermSize};
use serde::{Deserialize, Serialize};

/// First frame of a connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Answered at once with [`Reply::Status`].
    Status,
    /// [`Reply::Status`] now and on each change, until either side closes.
    Watch,
    /// End the sandbox: shut the guest down cleanly, after `grace_ms` by force. Answered with
    /// [`Reply::Stopped`] when every process has ended; the supervisor then exits.
    Stop {
        /// Milliseconds until force is used.
        grace_ms: u32,
    },
    /// Start a program. Waits while the machine is starting.
    Exec(ExecRequest),
}

/// Answer to a [`Request`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// State of the sandbox.
    Status(Status),
    /// The machine and its helpers have ended.
    Stopped,
    /// The request cannot be served.
    Refused(String),
}

/// State of a running supervisor's sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Sandbox id, to notice a mix-up.
    pub id: String,
    /// Phase.
    pub phase: Phase,
    /// State of the private Docker Engine.
    pub docker: DockerState,
    /// Open sessions.
    pub sessions: u32,
    /// Host process ids, for diagnosis and for the kill tests.
    pub processes: Processes,
    /// Milliseconds from the supervisor's start to the guest being ready, once it is.
    pub ready_ms: Option<u64>,
    /// Seconds since the supervisor started.
    pub uptime_s: u64,
}

/// Phase of a supervised machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Helpers, VM or guest are coming up; the text names the step.
    Starting(String),
    /// Programs can be started.
    Running,
    /// Something the guest depends on is gone; the text says what. The next start restarts the machine.
    Unresponsive(String),
    /// On its way down.
    Stopping,
}

/// Host process ids of a sandbox; `None` while not running.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    /// The supervisor.
    pub supervisor: u32,
    /// The spawner that starts the helpers.
    pub spawner: u32,
    /// QEMU.
    pub machine: Option<u32>,
    /// The gateway.
    pub gateway: Option<u32>,
    /// The shares, in mount order.
    pub shares: Vec<Option<u32>>,
}

/// Client to supervisor, during a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FromClient {
    /// Bytes for standard input, at most [`CHUNK`](crate::frame::CHUNK).
    Stdin(Vec<u8>),
    /// Standard input ends.
    StdinEof,
    /// The client's terminal has a new size.
    Resize(TermSize),
    /// Deliver this signal to the program's process group.
    Signal(i32),
}

/// Supervisor to client, during a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ToClient {
    /// The program runs.
    Started,
    /// Output.
    Output(Stream, Vec<u8>),
    /// The program has ended; last frame.
    Exited(ExitStatus),
    /// The program did not start; last frame.
    ExecFailed(ExecError),
    /// The machine ended or broke under the session; last frame. The text says why.
    Lost(String),
}
