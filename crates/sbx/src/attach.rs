//! A session: this terminal (or pipe) on one side, a program inside the sandbox on the other, the
//! supervisor's socket in between.

use crate::detach::{Typed, Watch};
use crate::exit::Exit;
use crate::printer::unwritten;
use crate::signals::{Signals, Stage};
use crate::socket::connect;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use sbx_wire::frame::{CHUNK, Decoder, encode};
use sbx_wire::guest::{ExecError, ExecRequest, ExitStatus, Stream, TermSize};
use sbx_wire::keys::DetachKeys;
use sbx_wire::report::Report;
use sbx_wire::session::{FromClient, Request, ToClient};
use std::cell::{Cell, OnceCell};
use std::io::{ErrorKind, IsTerminal};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;

/// Size that a program gets when we have no terminal to ask.
const DEFAULT_SIZE: TermSize = TermSize { rows: 24, cols: 80 };

/// The size of our terminal, or 24 × 80.
pub(crate) fn terminal_size() -> TermSize {
    let sized = [
        rustix::stdio::stdout(),
        rustix::stdio::stdin(),
        rustix::stdio::stderr(),
    ]
    .into_iter()
    .find_map(|fd| tcgetwinsize(fd).ok())
    .filter(|size| size.ws_row > 0 && size.ws_col > 0);
    sized.map_or(DEFAULT_SIZE, |size| TermSize {
        rows: size.ws_row,
        cols: size.ws_col,
    })
}

/// How a conversation came to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The program ended.
    Exited(ExitStatus),
    /// It did not start.
    ExecFailed(ExecError),
    /// The machine ended or broke under it.
    Lost(String),
    /// Nothing was started: the sandbox is on its way down, or has just ended.
    Stopping,
    /// Nothing was started: an agent runs already.
    Busy,
    /// The agent goes on without us.
    Detached,
    /// We went before the program did, at this signal.
    Left(SignalKind),
    /// Its output finds no place here.
    Unwritten(String),
    /// The supervisor does not know such a request: it is of an earlier version.
    Unknown,
}

/// How this terminal takes part.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Ours is a terminal, and so is the program's.
    pub(crate) terminal: bool,
    /// What is typed or piped in goes to the program.
    pub(crate) stdin: bool,
    /// The program outlives us, and these keys leave it.
    pub(crate) keys: Option<DetachKeys>,
}

impl Part {
    /// Of a program that ends with us.
    pub(crate) fn of(request: &ExecRequest) -> Self {
        Self {
            terminal: request.terminal.is_some(),
            stdin: request.stdin,
            keys: None,
        }
    }
}

/// Asks for a session and passes everything through until it ends.
pub(crate) async fn converse(
    socket: &Path,
    request: &Request,
    part: &Part,
) -> Result<Ended, Report> {
    let signals = Signals::catch();
    // It is there while its supervisor lives.
    let Some(stream) = connect(socket).await? else {
        return Ok(Ended::Stopping);
    };
    let (mut reader, mut writer) = stream.into_split();
    let request = encoded(request)?;
    if writer.write_all(&request).await.is_err() {
        return Ok(Ended::Stopping);
    }
    let (sender, receiver) = mpsc::channel(16);
    let input = tokio::spawn(forward(writer, receiver));
    let stage = Cell::new(Stage::Before);
    let raw = OnceCell::new();
    // Not before the program runs: until then it may turn out that somebody else is to get what is typed, and
    // Control-C has to end us.
    let begin = || {
        let mode = (part.terminal && part.stdin).then(RawMode::enter).flatten();
        let mode: &Option<RawMode> = raw.get_or_init(|| mode);
        stage.set(Stage::Running {
            raw: mode.is_some(),
        });
        if part.stdin {
            tokio::spawn(read_stdin(sender.clone(), part.keys.clone()));
        }
    };
    let mut ended = tokio::select! {
        ended = receive(&mut reader, begin) => ended,
        kind = signals.pass_on(sender.clone(), part, &stage) => Ended::Left(kind),
    };
    if matches!(ended, Ended::Unknown) && connect(socket).await?.is_none() {
        // It did not hang up: it ended.
        ended = Ended::Stopping;
    }
    // Closes the connection: a program of ours is hung up.
    input.abort();
    let raw = raw.into_inner().flatten();
    if part.keys.is_some() && raw.is_some() && matches!(ended, Ended::Lost(_)) {
        // The supervisor, which knows what the program told the terminal, is gone.
        let _terminal_gone = write(&mut tokio::io::stdout(), UNUSABLE_NO_MORE).await;
    }
    drop(raw);
    Ok(ended)
}

/// Takes back what programs usually set: keyboard, keypad, mouse, focus, pastes, cursor, pen.
const UNUSABLE_NO_MORE: &[u8] =
    b"\x1b[<99u\x1b>\x1b[?1l\x1b[?1000;1002;1003;1004;1006;2004l\x1b[?25h\x1b[m\r\n";

/// The exit code of a session, or why there was none. `program` names it in an error.
pub(crate) fn conclude(ended: Ended, sandbox: &str, program: &str) -> Result<Exit, Report> {
    match ended {
        Ended::Exited(status) => Ok(Exit::Program(status.code())),
        Ended::ExecFailed(error) => {
            let reason = match &error {
                ExecError::NotFound => {
                    format!("'{program}' is not there (no such file, or not in PATH)")
                }
                ExecError::NotExecutable(why) => format!("'{program}' cannot be executed: {why}"),
                ExecError::BadRequest(why) => why.clone(),
            };
            let mut printer = crate::printer::Printer::new(false);
            printer.report(&Report::user(
                "exec",
                format!("in sandbox '{sandbox}': {}", crate::table::safe(&reason)),
                format!("sbx exec {sandbox} sh -c 'echo $PATH'"),
            ));
            Ok(Exit::Program(error.code()))
        }
        Ended::Lost(why) => Err(Report::environment(
            "session-lost",
            format!(
                "the session in sandbox '{sandbox}' was lost: {}",
                crate::table::safe(&why)
            ),
            format!("run the command again; `sbx inspect {sandbox}` tells more"),
        )),
        Ended::Stopping => Err(Report::environment(
            "sandbox-lost",
            format!("sandbox '{sandbox}' stopped each time before the program could start"),
            format!("sbx inspect {sandbox}"),
        )),
        Ended::Busy => Err(Report::user(
            "agent-running",
            format!("the agent of sandbox '{sandbox}' runs already, with arguments of its own"),
            format!("sbx run --name {sandbox}"),
        )),
        Ended::Unknown => Err(Report::environment(
            "older-supervisor",
            format!(
                "sandbox '{sandbox}' was started by an earlier version of sbx, which cannot do this"
            ),
            format!("sbx stop {sandbox}, then run the command again"),
        )),
        Ended::Unwritten(why) => Err(unwritten(&format!("what '{program}' writes"), &why)),
        Ended::Detached => Ok(Exit::Success),
        Ended::Left(signal) => Ok(Exit::signal(signal)),
    }
}

/// `begin` is called once, when the program runs.
async fn receive(reader: &mut OwnedReadHalf, begin: impl Fn()) -> Ended {
    let mut decoder = Decoder::new(0);
    let mut buffer = vec![0; CHUNK];
    let mut heard = false;
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        loop {
            let message = match decoder.next::<ToClient>() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => return Ended::Lost(error.to_string()),
            };
            heard = true;
            match message {
                ToClient::Started => begin(),
                ToClient::Output(stream, data) => {
                    let written = match stream {
                        Stream::Stdout => write(&mut stdout, &data).await,
                        Stream::Stderr => write(&mut stderr, &data).await,
                    };
                    match written {
                        Ok(()) => {}
                        // Nobody reads what it writes (`| head`).
                        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                            return Ended::Left(SignalKind::pipe());
                        }
                        // What is missing there, on a full disk say, must not look like all of it.
                        Err(error) if stream == Stream::Stdout => {
                            return Ended::Unwritten(error.to_string());
                        }
                        Err(_complaints_are_lost) => {}
                    }
                }
                ToClient::Exited(status) => return Ended::Exited(status),
                ToClient::ExecFailed(error) => return Ended::ExecFailed(error),
                ToClient::Lost(why) => return Ended::Lost(why),
                ToClient::Stopping => return Ended::Stopping,
                ToClient::Busy => return Ended::Busy,
                ToClient::Detached => return Ended::Detached,
            }
        }
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) if !heard => return Ended::Unknown,
            Ok(0) => return Ended::Lost("the sandbox's supervisor ended".to_owned()),
            Ok(count) => decoder.push(&buffer[..count]),
            Err(error) => return Ended::Lost(error.to_string()),
        }
    }
}

async fn write(to: &mut (impl AsyncWriteExt + Unpin), data: &[u8]) -> std::io::Result<()> {
    to.write_all(data).await?;
    to.flush().await
}

async fn forward(mut writer: OwnedWriteHalf, mut frames: mpsc::Receiver<FromClient>) {
    while let Some(frame) = frames.recv().await {
        let Ok(bytes) = encoded(&frame) else { return };
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // Keeps the write half open: closing it would read as "the client has gone".
    std::future::pending::<()>().await;
}

fn encoded<T: serde::Serialize>(frame: &T) -> Result<Vec<u8>, Report> {
    encode(0, frame).map_err(|error| {
        Report::user(
            "too-long",
            error.to_string(),
            "pass less on the command line",
        )
    })
}

async fn read_stdin(frames: mpsc::Sender<FromClient>, keys: Option<DetachKeys>) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; CHUNK];
    let mut watch = keys.map(Watch::new);
    loop {
        let count = stdin.read(&mut buffer).await.unwrap_or_default();
        if count == 0 {
            let _session_over = frames.send(FromClient::StdinEof).await;
            return;
        }
        let typed = match &mut watch {
            Some(watch) => watch.feed(&buffer[..count]),
            None => Typed::Input(buffer[..count].to_vec()),
        };
        let (input, detach) = match typed {
            Typed::Input(input) => (input, false),
            Typed::Detach(input) => (input, true),
        };
        // What was kept back may have made it longer than one chunk.
        for piece in input.chunks(CHUNK) {
            if frames
                .send(FromClient::Stdin(piece.to_vec()))
                .await
                .is_err()
            {
                return;
            }
        }
        if detach {
            let _session_over = frames.send(FromClient::Detach).await;
            return;
        }
    }
}

/// Raw mode of our terminal, undone when dropped.
struct RawMode(Termios);

impl RawMode {
    fn enter() -> Option<Self> {
        if !std::io::stdin().is_terminal() {
            return None;
        }
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone away.
        let _gone = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}
