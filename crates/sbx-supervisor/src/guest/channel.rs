//! Reading and writing the frames of one channel life.

use super::reader::Reader;
use super::session::{End, Session};
use super::{GuestError, opening};
use crate::state::{State, lock};
use sbx_wire::frame::{self, FrameError};
use sbx_wire::guest::{ExecRequest, MAX_SESSIONS, Stream, ToGuest};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Frames that may wait for the guest to read them, about 2 MiB.
const TO_GUEST: usize = 64;
/// Events that may wait for the supervisor; a flood is dropped, the break of the channel never.
const EVENTS: usize = 64;
/// Time for a program that was hung up to end, and for the guest to say so; it kills it after 5 s
/// ([`ToGuest::Hangup`]).
const HANG_UP: Duration = Duration::from_secs(10);

/// What the guest said, other than about sessions.
#[derive(Debug)]
pub enum GuestEvent {
    /// First message.
    Booted {
        /// Kernel release.
        kernel: String,
        /// Version of `sbx-guest`.
        version: String,
        /// Milliseconds since kernel start.
        uptime_ms: u64,
    },
    /// Answer to `Personalise`.
    Personalised(Result<(), String>),
    /// Answer to `Prepare`.
    Prepared(Result<(), String>),
    /// Answer to `Ping`.
    Pong(u64),
    /// The channel is broken; last event.
    Broken(GuestError),
}

#[derive(Debug, Default)]
struct Table {
    sessions: BTreeMap<u32, Session>,
    next: u32,
    /// Why no more sessions are opened.
    closed: Option<String>,
}

/// A connected guest. Clones are the same guest.
#[derive(Debug, Clone)]
pub struct Guest {
    pub(super) epoch: u32,
    frames: mpsc::Sender<Vec<u8>>,
    table: Arc<Mutex<Table>>,
    pub(super) state: State,
}

/// Room for one message in the queue.
#[derive(Debug)]
pub struct Room<'a> {
    permit: mpsc::Permit<'a, Vec<u8>>,
    epoch: u32,
}

impl Room<'_> {
    /// Sends the message, at once.
    ///
    /// # Errors
    /// When it does not fit a frame.
    pub fn send(self, message: &ToGuest) -> Result<(), FrameError> {
        self.permit.send(frame::encode(self.epoch, message)?);
        Ok(())
    }
}

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Too many at a time.
    #[error("{MAX_SESSIONS} programs are running in this sandbox already")]
    Full,
    /// The machine is going down, or broken.
    #[error("{0}")]
    Closed(String),
    /// Whoever wanted it has left; the guest never hears of it.
    #[error("its client has left")]
    Left,
    /// The request does not fit a frame.
    #[error("the request is too large: {0}")]
    TooLarge(#[from] FrameError),
}

/// Takes a connection to the guest channel, waits for the guest to answer, and starts the task that serves it.
///
/// # Errors
/// See [`GuestError`]. There is no time limit here.
pub async fn open(
    mut stream: UnixStream,
    epoch: u32,
    state: State,
) -> Result<(Guest, mpsc::Receiver<GuestEvent>), GuestError> {
    let mut nonce = [0; 16];
    crate::prepare::random(&mut nonce)?;
    let rest = opening::open(&mut stream, epoch, nonce).await?;
    let (read, write) = stream.into_split();
    let (frames, queue) = mpsc::channel(TO_GUEST);
    let (events_in, events) = mpsc::channel(EVENTS);
    let table = Arc::new(Mutex::new(Table {
        next: 1,
        ..Table::default()
    }));
    let guest = Guest {
        epoch,
        frames,
        table,
        state,
    };
    let reader = Reader {
        guest: guest.clone(),
        events: events_in,
    };
    tokio::spawn(reader.run(read, rest, write_frames(write, queue)));
    Ok((guest, events))
}

async fn write_frames(
    mut write: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Vec<u8>>,
) -> Result<Infallible, GuestError> {
    loop {
        let frame = queue.recv().await.ok_or(GuestError::Closed)?;
        write.write_all(&frame).await?;
    }
}

impl Guest {
    /// Sends a message; waits while the guest does not read.
    ///
    /// # Errors
    /// [`GuestError::Frame`] when it does not fit a frame, [`GuestError::Closed`] when the channel is closed.
    pub async fn send(&self, message: &ToGuest) -> Result<(), GuestError> {
        let frame = frame::encode(self.epoch, message)?;
        self.frames
            .send(frame)
            .await
            .map_err(|_| GuestError::Closed)
    }

    /// Waits for room for one message.
    ///
    /// # Errors
    /// [`GuestError::Closed`] when the channel is closed.
    pub async fn room(&self) -> Result<Room<'_>, GuestError> {
        let permit = self
            .frames
            .reserve()
            .await
            .map_err(|_| GuestError::Closed)?;
        Ok(Room {
            permit,
            epoch: self.epoch,
        })
    }

    /// Sends a message if the queue has room, for what is only useful now.
    pub fn send_now(&self, message: &ToGuest) -> bool {
        frame::encode(self.epoch, message).is_ok_and(|frame| self.frames.try_send(frame).is_ok())
    }

    /// Starts a program. Waits while the guest does not read, until `gone` says that nobody wants it any more.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn exec(
        &self,
        request: ExecRequest,
        gone: impl Future<Output = ()>,
    ) -> Result<Session, OpenError> {
        let (session, frame) = {
            let mut table = lock(&self.table);
            if let Some(reason) = &table.closed {
                return Err(OpenError::Closed(reason.clone()));
            }
            if table.sessions.len() >= MAX_SESSIONS {
                return Err(OpenError::Full);
            }
            let id = table.next;
            let frame = frame::encode(
                self.epoch,
                &ToGuest::Exec {
                    session: id,
                    request,
                },
            )?;
            // A number is never used twice; four billion programs outlast any epoch.
            table.next = id.checked_add(1).ok_or(OpenError::Full)?;
            let session = Session::new(id);
            table.sessions.insert(id, session.clone());
            (session, frame)
        };
        self.count_sessions();
        tokio::select! {
            biased;
            // A guest can guess a number that it has not been told yet.
            () = session.ended() => {}
            sent = self.frames.send(frame) => if sent.is_err() {
                session.end(End::Lost("the guest channel is closed".to_owned()));
            },
            () = gone => {
                let error = OpenError::Left;
                self.finish(session.id(), End::Lost(error.to_string()));
                return Err(error);
            }
        }
        Ok(session)
    }

    /// Returns window to the guest for output that the client has got.
    pub async fn passed_on(&self, session: &Session, stream: Stream, bytes: u32) {
        session.passed_on(stream, bytes);
        // A closed channel ends the session by itself.
        let _ = self
            .send(&ToGuest::Credit {
                session: session.id(),
                stream,
                bytes,
            })
            .await;
    }

    /// The client of this session is gone: the program is hung up, its output dropped. The session is open until the
    /// guest says that the program has ended, for a while: a guest that does not say it keeps nothing open.
    pub fn hang_up(&self, session: &Session) {
        session.abandon();
        let (guest, session) = (self.clone(), session.clone());
        tokio::spawn(async move {
            let id = session.id();
            let order = ToGuest::Hangup { session: id };
            let hung_up = async {
                tokio::select! {
                    biased;
                    () = session.ended() => {}
                    // A closed channel ends the session by itself.
                    _ = guest.send(&order) => session.ended().await,
                }
            };
            if timeout(HANG_UP, hung_up).await.is_err() {
                tracing::warn!(session = id, "the guest does not end what was hung up");
                // Its number is never used again: what the guest says about it now reaches nobody.
                guest.finish(
                    id,
                    End::Lost("it did not end when it was hung up".to_owned()),
                );
            }
        });
    }

    /// Ends every session and opens no more.
    pub fn close(&self, reason: &str) {
        let sessions = {
            let mut table = lock(&self.table);
            table.closed.get_or_insert_with(|| reason.to_owned());
            std::mem::take(&mut table.sessions)
        };
        for session in sessions.into_values() {
            session.end(End::Lost(reason.to_owned()));
        }
        self.count_sessions();
    }

    pub(super) fn find(&self, id: u32) -> Option<Session> {
        lock(&self.table).sessions.get(&id).cloned()
    }

    pub(super) fn finish(&self, id: u32, end: End) {
        let session = lock(&self.table).sessions.remove(&id);
        if let Some(session) = session {
            session.end(end);
            self.count_sessions();
        }
    }

    fn count_sessions(&self) {
        let count = u32::try_from(lock(&self.table).sessions.len()).unwrap_or(u32::MAX);
        self.state.update(|snapshot| snapshot.sessions = count);
    }
}
