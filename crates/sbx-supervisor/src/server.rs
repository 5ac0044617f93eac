//! `supervisor.sock`: status, stop, and programs to run. One connection, one request.

use crate::guest::session::{End, Item, Session};
use crate::guest::{Guest, channel::OpenError};
use crate::life::StopRequest;
use crate::state::{Snapshot, State};
use sbx_wire::frame::{self, CHUNK, Decoder};
use sbx_wire::guest::{ExecRequest, ToGuest};
use sbx_wire::session::{FromClient, Phase, Reply, Request, ToClient};
use serde::Serialize;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Most connections at a time: every session of the guest, and as many watchers.
const MAX_CLIENTS: usize = 2 * sbx_wire::guest::MAX_SESSIONS;
/// Time for a client to say what it wants.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Time for clients to read the last frame when the sandbox has ended.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);
/// Bytes read from a client at a time.
const PIECE: usize = 16 << 10;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Standard input that may wait here for the guest, per session, so that signals can overtake it.
const MAX_STDIN: usize = 1 << 20;

/// What every client task needs.
#[derive(Debug, Clone)]
struct Context {
    state: State,
    stops: mpsc::Sender<StopRequest>,
}

/// Serves until the sandbox has ended and every client has been told.
///
/// # Errors
/// When the listening socket cannot be used at all.
pub async fn serve(
    listener: std::os::unix::net::UnixListener,
    state: State,
    stops: mpsc::Sender<StopRequest>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let own = rustix::process::geteuid().as_raw();
    let mut ended = state.watch();
    let context = Context { state, stops };
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < MAX_CLIENTS => {
                // Out of descriptors, for example: clients that leave give some back.
                let Ok((stream, _)) = accepted else { tokio::time::sleep(ACCEPT_PAUSE).await; continue };
                if stream.peer_cred().is_ok_and(|peer| peer.uid() == own) {
                    clients.spawn(client(stream, context.clone()));
                }
            }
            Some(_) = clients.join_next(), if !clients.is_empty() => {}
            () = has_ended(&mut ended) => break,
        }
    }
    let _ = timeout(FAREWELL_LIMIT, async {
        while clients.join_next().await.is_some() {}
    })
    .await;
    Ok(())
}

/// Resolves when the sandbox has ended.
async fn has_ended(watch: &mut watch::Receiver<Snapshot>) {
    // The sender lives in the state that the caller holds.
    let _ = watch.wait_for(|snapshot| snapshot.ended.is_some()).await;
}

async fn client(stream: UnixStream, context: Context) {
    if let Err(error) = handle(stream, context).await {
        // The client's own affair: it went away or talks nonsense.
        tracing::debug!(%error, "client");
    }
}

async fn handle(stream: UnixStream, context: Context) -> io::Result<()> {
    let (mut read, mut write) = stream.into_split();
    let mut decoder = Decoder::new(0);
    let request = timeout(REQUEST_LIMIT, receive(&mut read, &mut decoder)).await??;
    let mut watch = context.state.watch();
    match request {
        None => Ok(()),
        Some(Request::Status) => {
            let status = context.state.status(&watch.borrow());
            send(&mut write, &Reply::Status(status)).await
        }
        Some(Request::Watch) => follow(&mut read, &mut write, &context.state, watch).await,
        Some(Request::Stop { grace_ms }) => {
            let grace = Duration::from_millis(grace_ms.into());
            // Full: it is being stopped already.
            let _ = context.stops.try_send(StopRequest { grace });
            has_ended(&mut watch).await;
            send(&mut write, &Reply::Stopped).await
        }
        Some(Request::Exec(request)) => {
            let mut client = Client {
                read,
                write,
                decoder,
            };
            client.exec(request, watch).await
        }
    }
}

/// Sends the status now and on each change; at the end why it ended.
async fn follow(
    read: &mut OwnedReadHalf,
    write: &mut OwnedWriteHalf,
    state: &State,
    mut watch: watch::Receiver<Snapshot>,
) -> io::Result<()> {
    let mut last = None;
    loop {
        let snapshot = watch.borrow_and_update().clone();
        let mut status = state.status(&snapshot);
        let uptime_s = std::mem::take(&mut status.uptime_s);
        if last.as_ref() != Some(&status) {
            last = Some(status.clone());
            status.uptime_s = uptime_s;
            send(write, &Reply::Status(status)).await?;
        }
        if let Some(ended) = snapshot.ended {
            let reply = if ended.orderly {
                Reply::Stopped
            } else {
                Reply::Refused(ended.reason)
            };
            return send(write, &reply).await;
        }
        let mut byte = [0];
        tokio::select! {
            changed = watch.changed() => if changed.is_err() { return Ok(()) },
            _ = read.read(&mut byte) => return Ok(()),
        }
    }
}

async fn send(write: &mut OwnedWriteHalf, message: &impl Serialize) -> io::Result<()> {
    let bytes = frame::encode(0, message).map_err(io::Error::other)?;
    write.write_all(&bytes).await
}

/// The next message of a client; `None`: it is gone.
async fn receive<T: serde::de::DeserializeOwned>(
    read: &mut OwnedReadHalf,
    decoder: &mut Decoder,
) -> io::Result<Option<T>> {
    let mut piece = vec![0; PIECE];
    loop {
        if let Some(message) = decoder.next().map_err(io::Error::other)? {
            return Ok(Some(message));
        }
        let count = read.read(&mut piece).await?;
        if count == 0 {
            return Ok(None);
        }
        decoder.push(&piece[..count]);
    }
}

/// A client with a program to run.
struct Client {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    decoder: Decoder,
}

impl Client {
    async fn exec(
        &mut self,
        request: ExecRequest,
        watch: watch::Receiver<Snapshot>,
    ) -> io::Result<()> {
        let stdin = request.stdin;
        let guest = match self.await_guest(watch).await? {
            Some(Ok(guest)) => guest,
            Some(Err(why)) => return send(&mut self.write, &ToClient::Lost(why)).await,
            None => return Ok(()),
        };
        let session = match guest.exec(request).await {
            Ok(session) => session,
            Err(error @ (OpenError::Full | OpenError::Closed(_) | OpenError::TooLarge(_))) => {
                return send(&mut self.write, &ToClient::Lost(error.to_string())).await;
            }
        };
        let outcome = tokio::select! {
            outcome = to_client(&mut self.write, &guest, &session) => outcome,
            outcome = from_client(&mut self.read, &mut self.decoder, &guest, &session, stdin) => {
                outcome
            }
        };
        if !matches!(outcome, Ok(Finished::Told)) {
            guest.hang_up(&session).await;
        }
        outcome.map(|_| ())
    }

    /// Waits while the machine is starting. `None`: the client has left meanwhile.
    async fn await_guest(
        &mut self,
        mut watch: watch::Receiver<Snapshot>,
    ) -> io::Result<Option<Result<Guest, String>>> {
        let mut early = 0;
        let mut piece = vec![0; PIECE];
        loop {
            if let Some(answer) = decide(&watch.borrow_and_update()) {
                return Ok(Some(answer));
            }
            tokio::select! {
                changed = watch.changed() => changed.map_err(io::Error::other)?,
                // Beyond this, what the client sends waits in its socket.
                count = self.read.read(&mut piece), if early < CHUNK => match count? {
                    0 => return Ok(None),
                    count => {
                        early += count;
                        self.decoder.push(&piece[..count]);
                    }
                },
            }
        }
    }
}

/// The guest to use, or why there will be none; `None`: not yet.
fn decide(snapshot: &Snapshot) -> Option<Result<Guest, String>> {
    if let Some(ended) = &snapshot.ended {
        return Some(Err(ended.reason.clone()));
    }
    match (&snapshot.phase, &snapshot.guest) {
        (Phase::Starting(_), _) => None,
        (Phase::Running, Some(guest)) => Some(Ok(guest.clone())),
        (Phase::Unresponsive(why), _) => Some(Err(why.clone())),
        (Phase::Running | Phase::Stopping, _) => Some(Err("the sandbox is stopping".to_owned())),
    }
}

/// How one direction of a session came to its end.
enum Finished {
    /// The client knows how the program ended.
    Told,
    /// The client is gone.
    Left,
}

async fn to_client(
    write: &mut OwnedWriteHalf,
    guest: &Guest,
    session: &Session,
) -> io::Result<Finished> {
    loop {
        let last = match session.next().await {
            Item::Started => {
                send(write, &ToClient::Started).await?;
                continue;
            }
            Item::Output(stream, data) => {
                for piece in data.chunks(CHUNK) {
                    send(write, &ToClient::Output(stream, piece.to_vec())).await?;
                }
                let bytes = u32::try_from(data.len()).expect("at most a window waits");
                guest.passed_on(session, stream, bytes).await;
                continue;
            }
            Item::End(End::Exited(status)) => ToClient::Exited(status),
            Item::End(End::Failed(error)) => ToClient::ExecFailed(error),
            Item::End(End::Lost(why)) => ToClient::Lost(why),
        };
        send(write, &last).await?;
        return Ok(Finished::Told);
    }
}

/// Standard input that waits for the guest.
#[derive(Default)]
struct Stdin {
    waiting: VecDeque<u8>,
    /// The client has sent its last byte.
    closed: bool,
    /// The guest knows.
    told: bool,
}

async fn from_client(
    read: &mut OwnedReadHalf,
    decoder: &mut Decoder,
    guest: &Guest,
    session: &Session,
    stdin: bool,
) -> io::Result<Finished> {
    let mut input = Stdin::default();
    let mut piece = vec![0; PIECE];
    loop {
        while let Some(message) = decoder.next::<FromClient>().map_err(io::Error::other)? {
            let message = match message {
                FromClient::Stdin(data) if data.len() > CHUNK => {
                    return Err(io::Error::other("a chunk over the limit"));
                }
                FromClient::Stdin(data) => {
                    if stdin && !input.closed {
                        input.waiting.extend(data);
                    }
                    continue;
                }
                FromClient::StdinEof => {
                    input.closed = true;
                    continue;
                }
                FromClient::Resize(size) => ToGuest::Resize {
                    session: session.id(),
                    size,
                },
                FromClient::Signal(signal @ 1..=64) => ToGuest::Signal {
                    session: session.id(),
                    signal,
                },
                FromClient::Signal(_) => return Err(io::Error::other("no such signal")),
            };
            guest.send(&message).await.map_err(io::Error::other)?;
        }
        let full = input.waiting.len() >= MAX_STDIN;
        let incoming = async {
            if full {
                closed(read).await;
                return Ok(0);
            }
            read.read(&mut piece).await
        };
        tokio::select! {
            count = incoming => match count? {
                0 => return Ok(Finished::Left),
                count => decoder.push(&piece[..count]),
            },
            done = forward(guest, session, &mut input), if stdin => done?,
        }
    }
}

/// Resolves when the client is gone although what it sent has not been read. Readiness stays set while unread
/// bytes wait, so this looks once in a while.
async fn closed(read: &OwnedReadHalf) {
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    loop {
        tick.tick().await;
        let ready = read.ready(Interest::READABLE).await;
        if !ready.is_ok_and(|ready| !ready.is_read_closed()) {
            return;
        }
    }
}

/// Sends one piece of the waiting input, or its end. Never resolves while there is nothing to send. Cancelling
/// loses nothing: the room is reserved first, and no wait follows the taking.
async fn forward(guest: &Guest, session: &Session, input: &mut Stdin) -> io::Result<()> {
    if input.waiting.is_empty() && (input.told || !input.closed) {
        return std::future::pending().await;
    }
    if !input.waiting.is_empty() && !session.wants_stdin().await {
        // It has ended: what it never read is dropped, the other direction tells the client.
        return std::future::pending().await;
    }
    let room = guest.room().await.map_err(io::Error::other)?;
    let id = session.id();
    let message = if input.waiting.is_empty() {
        input.told = true;
        ToGuest::StdinEof { session: id }
    } else {
        let count = session.take_stdin_window(input.waiting.len().min(CHUNK));
        ToGuest::Stdin {
            session: id,
            data: input.waiting.drain(..count).collect(),
        }
    };
    room.send(&message).map_err(io::Error::other)
}
