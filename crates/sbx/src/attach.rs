//! A session: this terminal (or pipe) on one side, a program inside the sandbox on the other, the
//! supervisor's socket in between.

use crate::exit::Exit;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use sbx_wire::frame::{CHUNK, Decoder, encode};
use sbx_wire::guest::{ExecError, ExecRequest, ExitStatus, Stream, TermSize};
use sbx_wire::report::Report;
use sbx_wire::session::{FromClient, Request, ToClient};
use std::io::IsTerminal;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{SignalKind, signal};
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

/// Runs a program and passes everything through until it ends.
pub(crate) async fn run(
    socket: &Path,
    sandbox: &str,
    request: ExecRequest,
) -> Result<Exit, Report> {
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        Report::environment(
            "sandbox-lost",
            format!("cannot reach sandbox '{sandbox}': {error}"),
            format!("sbx inspect {sandbox}"),
        )
    })?;
    let (reader, mut writer) = stream.into_split();
    let terminal = request.terminal.is_some();
    let program = request
        .argv
        .first()
        .map(|p| String::from_utf8_lossy(p).into_owned());
    let stdin = request.stdin;
    send(&mut writer, &Request::Exec(request)).await?;
    let raw = if terminal && stdin {
        RawMode::enter()
    } else {
        None
    };
    let (sender, receiver) = mpsc::channel(16);
    let input = tokio::spawn(forward(writer, receiver));
    if stdin {
        tokio::spawn(read_stdin(sender.clone()));
    }
    let signals = tokio::spawn(watch_signals(sender, terminal));
    let ended = receive(reader).await;
    signals.abort();
    input.abort();
    drop(raw);
    conclude(ended, sandbox, program.as_deref().unwrap_or_default())
}

/// How a session came to its end.
enum Ended {
    Exited(ExitStatus),
    ExecFailed(ExecError),
    Lost(String),
}

fn conclude(ended: Ended, sandbox: &str, program: &str) -> Result<Exit, Report> {
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
    }
}

async fn receive(mut reader: OwnedReadHalf) -> Ended {
    let mut decoder = Decoder::new(0);
    let mut buffer = vec![0; CHUNK];
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        loop {
            match decoder.next::<ToClient>() {
                Ok(Some(ToClient::Started)) => {}
                Ok(Some(ToClient::Output(stream, data))) => {
                    // A reader that closed its end (`| head`) must not stop the program's other stream.
                    let _reader_gone = match stream {
                        Stream::Stdout => write(&mut stdout, &data).await,
                        Stream::Stderr => write(&mut stderr, &data).await,
                    };
                }
                Ok(Some(ToClient::Exited(status))) => return Ended::Exited(status),
                Ok(Some(ToClient::ExecFailed(error))) => return Ended::ExecFailed(error),
                Ok(Some(ToClient::Lost(why))) => return Ended::Lost(why),
                Ok(None) => break,
                Err(error) => return Ended::Lost(error.to_string()),
            }
        }
        match reader.read(&mut buffer).await {
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
        if send(&mut writer, &frame).await.is_err() {
            return;
        }
    }
    // Keeps the write half open: closing it would read as "the client has gone".
    std::future::pending::<()>().await;
}

async fn send<T: serde::Serialize>(writer: &mut OwnedWriteHalf, frame: &T) -> Result<(), Report> {
    let bytes = encode(0, frame).map_err(|error| {
        Report::user(
            "too-long",
            error.to_string(),
            "pass less on the command line",
        )
    })?;
    writer.write_all(&bytes).await.map_err(|error| {
        Report::environment(
            "sandbox-lost",
            format!("the sandbox's supervisor went away: {error}"),
            "run the command again",
        )
    })
}

async fn read_stdin(frames: mpsc::Sender<FromClient>) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; CHUNK];
    loop {
        let frame = match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => FromClient::StdinEof,
            Ok(count) => FromClient::Stdin(buffer[..count].to_vec()),
        };
        let end = matches!(frame, FromClient::StdinEof);
        if frames.send(frame).await.is_err() || end {
            return;
        }
    }
}

/// Terminal size changes and the signals that people send to us are meant for the program.
async fn watch_signals(frames: mpsc::Sender<FromClient>, terminal: bool) {
    let kinds = [
        SignalKind::window_change(),
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ];
    let mut tasks = tokio::task::JoinSet::new();
    for kind in kinds {
        let frames = frames.clone();
        let Ok(mut stream) = signal(kind) else {
            continue;
        };
        tasks.spawn(async move {
            while stream.recv().await.is_some() {
                let frame = if kind == SignalKind::window_change() {
                    if !terminal {
                        continue;
                    }
                    FromClient::Resize(terminal_size())
                } else {
                    FromClient::Signal(kind.as_raw_value())
                };
                if frames.send(frame).await.is_err() {
                    return;
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
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
