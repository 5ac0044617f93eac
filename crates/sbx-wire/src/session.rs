//! The session protocol: command and daemon to a sandbox's supervisor, over `supervisor.sock`.
//!
//! One connection, one request. The client sends one [`Request`] frame (epoch 0). `Exec`, `Program` and `Run`
//! turn the connection into a session: [`FromClient`] one way, [`ToClient`] the other, until the frame that is
//! documented as the last. The other requests are answered by one [`Reply`] (`Watch` and `Follow`: a stream of
//! them). Back-pressure is the socket's.
//!
//! Compatibility: sandboxes run on while sbx is upgraded, so a daemon and a command of one version speak with
//! supervisors of another. The rule of the [guest protocol](crate::guest) holds: variants are only appended, fields
//! never change; what was said in version 1 is frozen in `tests/fixtures/session-v1.txt`. A supervisor that does not
//! know a request closes the connection, so whoever appends one says what its client does then. Replies that were
//! appended are sent to those only who asked with a request that names them.

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
    /// Start a program that ends with this connection. Waits while the machine is starting. Commands since
    /// `Program` send this to supervisors that do not know `Program`.
    Exec(ExecRequest),
    /// The same; the answer may also be [`ToClient::Stopping`]. A supervisor that does not know it gets `Exec`,
    /// unless it is `last`, which fails then.
    Program {
        /// What to start.
        start: ExecRequest,
        /// `run --rm`: the sandbox ends when this session has ended and no other is open.
        last: bool,
    },
    /// The agent on a terminal of its own, which outlives this connection. Waits while the machine is starting.
    /// For a supervisor that does not know it, the command says that the sandbox has to be restarted.
    Run(Box<RunRequest>),
    /// `Watch`, with [`Reply::Sessions`] after each [`Reply::Status`]. A supervisor that does not know it gets
    /// `Watch`.
    Follow,
}

/// See [`Request::Run`]. A sandbox has at most one such agent at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    /// What to start when no agent runs; `terminal` is the size of the client's. A size beyond
    /// [`TermSize::MAX`] counts as the bound.
    pub start: ExecRequest,
    /// Join the agent that runs; false: [`ToClient::Busy`] is the answer then.
    pub join: bool,
    /// Stay attached; false: [`ToClient::Detached`] is the answer as soon as the agent runs.
    pub attach: bool,
    /// `run -d`: from then on the sandbox is not stopped for want of sessions.
    pub hold: bool,
    /// `run --rm`: the sandbox ends when the agent has ended and no session is open.
    pub last: bool,
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
    /// What [`Reply::Status`] does not say about sessions.
    Sessions(Sessions),
}

/// Sessions, and what they mean for the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Whether an agent of [`Request::Run`] runs; it is one of [`Status::sessions`].
    pub agent: bool,
    /// Terminals attached to it.
    pub attached: u32,
    /// Why the sandbox runs on, or when it will stop.
    pub stay: Stay,
}

/// Why a sandbox runs on, or when it will stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stay {
    /// The machine is on its way up or down.
    Unsettled,
    /// Programs run in it.
    Sessions,
    /// `run -d`: until it is stopped.
    Held,
    /// It is never stopped for want of sessions.
    Always,
    /// It stops then unless a session is opened before.
    Until {
        /// Milliseconds since the Unix epoch.
        unix_ms: u64,
    },
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
    /// [`Request::Run`] only: leave the agent running. Answered with what makes a terminal usable again and
    /// [`ToClient::Detached`].
    Detach,
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
    /// Nothing was started, because the sandbox is on its way down; last frame. Once it has stopped it can be
    /// started again. Not in answer to [`Request::Exec`].
    Stopping,
    /// An agent runs already; last frame. See [`RunRequest::join`].
    Busy,
    /// The agent runs on without this client; last frame.
    Detached,
}
