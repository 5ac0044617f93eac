//! `supervisor.sock`: status, stop, and programs to run. One connection, one request.

mod exec;
mod run;

use crate::guest::Guest;
use crate::guest::channel::OpenError;
use crate::life::StopRequest;
use crate::state::{Snapshot, State};
use crate::terminal::Terminals;
use sbx_wire::frame::{self, CHUNK, Decoder};
use sbx_wire::session::{Phase, Reply, Request, ToClient};
use serde::Serialize;
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

/// What every client task needs.
#[derive(Debug, Clone)]
struct Context {
    state: State,
    stops: mpsc::Sender<StopRequest>,
    terminals: Terminals,
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
    let context = Context {
        state,
        stops,
        terminals: Terminals::default(),
    };
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
    let Some(request) = request else {
        return Ok(());
    };
    let mut watch = context.state.watch();
    match request {
        Request::Status => {
            let status = context.state.status(&watch.borrow());
            send(&mut write, &Reply::Status(status)).await
        }
        Request::Watch => follow(&mut read, &mut write, &context.state, watch, false).await,
        Request::Follow => follow(&mut read, &mut write, &context.state, watch, true).await,
        Request::Stop { grace_ms } => {
            let grace = Duration::from_millis(grace_ms.into());
            // Full: it is being stopped already.
            let _ = context.stops.try_send(StopRequest { grace, idle: None });
            has_ended(&mut watch).await;
            send(&mut write, &Reply::Stopped).await
        }
        Request::Exec(start) => {
            // What was appended since is nothing that this client can read.
            let client = Client::new(read, write, decoder, false);
            exec::serve(client, &context, start, false).await
        }
        Request::Program { start, last } => {
            let client = Client::new(read, write, decoder, true);
            exec::serve(client, &context, start, last).await
        }
        Request::Run(request) => {
            let client = Client::new(read, write, decoder, true);
            run::serve(client, &context, *request).await
        }
    }
}

/// Sends the status (and what it does not say about `sessions`) now and on each change; at the end why it ended.
async fn follow(
    read: &mut OwnedReadHalf,
    write: &mut OwnedWriteHalf,
    state: &State,
    mut watch: watch::Receiver<Snapshot>,
    sessions: bool,
) -> io::Result<()> {
    let mut last = None;
    loop {
        let snapshot = watch.borrow_and_update().clone();
        let mut status = state.status(&snapshot);
        let more = sessions.then(|| state.sessions(&snapshot));
        let uptime_s = std::mem::take(&mut status.uptime_s);
        let now = (status, more);
        if last.as_ref() != Some(&now) {
            last = Some(now.clone());
            let (mut status, more) = now;
            status.uptime_s = uptime_s;
            send(write, &Reply::Status(status)).await?;
            if let Some(more) = more {
                send(write, &Reply::Sessions(more)).await?;
            }
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
    /// It knows [`ToClient::Stopping`].
    knows_stopping: bool,
}

impl Client {
    fn new(
        read: OwnedReadHalf,
        write: OwnedWriteHalf,
        decoder: Decoder,
        knows_stopping: bool,
    ) -> Self {
        Self {
            read,
            write,
            decoder,
            knows_stopping,
        }
    }

    /// The guest, once programs can be started. `None`: the client has left meanwhile, or was told that
    /// there will be none.
    async fn guest(&mut self, state: &State) -> io::Result<Option<Guest>> {
        let mut watch = state.watch();
        let mut early = 0;
        let mut piece = vec![0; PIECE];
        let answer = loop {
            if let Some(answer) = decide(&watch.borrow_and_update()) {
                break answer;
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
        };
        match answer {
            Ok(guest) => Ok(Some(guest)),
            Err(last) => self.refuse(last).await.map(|()| None),
        }
    }

    /// Sends the last frame of a client whose program was not started.
    async fn refuse(&mut self, last: ToClient) -> io::Result<()> {
        let last = match last {
            ToClient::Stopping if !self.knows_stopping => {
                ToClient::Lost("the sandbox is stopping".to_owned())
            }
            last => last,
        };
        send(&mut self.write, &last).await
    }

    /// Tells the client why its program was not started.
    async fn not_started(&mut self, state: &State, error: &OpenError) -> io::Result<()> {
        // The channel was closed: for a stop, or for a reason that is in the phase.
        let phase = decide(&state.watch().borrow()).and_then(Result::err);
        let last = phase.unwrap_or_else(|| ToClient::Lost(error.to_string()));
        self.refuse(last).await
    }
}

/// The guest to use, or the last frame of whoever wants it; `None`: not yet.
fn decide(snapshot: &Snapshot) -> Option<Result<Guest, ToClient>> {
    if let Some(ended) = &snapshot.ended {
        let last = if ended.orderly {
            ToClient::Stopping
        } else {
            ToClient::Lost(ended.reason.clone())
        };
        return Some(Err(last));
    }
    if let (Phase::Running, Some(why)) = (&snapshot.phase, &snapshot.waits) {
        return Some(Err(ToClient::Lost(why.clone())));
    }
    match (&snapshot.phase, &snapshot.guest) {
        (Phase::Starting(_), _) => None,
        (Phase::Running, Some(guest)) => Some(Ok(guest.clone())),
        (Phase::Unresponsive(why), _) => Some(Err(ToClient::Lost(why.clone()))),
        (Phase::Running | Phase::Stopping, _) => Some(Err(ToClient::Stopping)),
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
