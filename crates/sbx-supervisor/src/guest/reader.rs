//! What comes out of the channel, and to whom it goes.

use super::GuestError;
use super::channel::{Guest, GuestEvent};
use super::session::{End, Session};
use crate::console::clean;
use sbx_wire::frame::Decoder;
use sbx_wire::guest::{DockerState, ExecError, FromGuest};
use std::convert::Infallible;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::mpsc;

/// Characters kept of a text from the guest.
const TEXT: usize = 500;

/// The task's side of the channel.
pub(super) struct Reader {
    pub(super) guest: Guest,
    pub(super) events: mpsc::Sender<GuestEvent>,
}

impl Reader {
    /// Reads and writes until either breaks; then the socket is closed, whatever waits in it.
    pub(super) async fn run(
        self,
        mut read: OwnedReadHalf,
        rest: Vec<u8>,
        writing: impl Future<Output = Result<Infallible, GuestError>>,
    ) {
        let outcome = {
            tokio::select! {
                outcome = self.read(&mut read, rest) => outcome,
                outcome = writing => outcome,
            }
        };
        drop(read);
        let error = match outcome {
            Ok(never) => match never {},
            Err(error) => error,
        };
        // The receiver is gone when the sandbox is on its way down.
        let _ = self.events.send(GuestEvent::Broken(error)).await;
    }

    async fn read(
        &self,
        read: &mut OwnedReadHalf,
        rest: Vec<u8>,
    ) -> Result<Infallible, GuestError> {
        let mut decoder = Decoder::new(self.guest.epoch);
        decoder.push(&rest);
        let mut piece = vec![0; 64 << 10];
        loop {
            while let Some(message) = decoder.next()? {
                self.dispatch(message)?;
            }
            let count = read.read(&mut piece).await?;
            if count == 0 {
                return Err(GuestError::Closed);
            }
            decoder.push(&piece[..count]);
        }
    }

    /// Messages about sessions that do not exist are ignored: they reach nobody and cost nothing.
    fn dispatch(&self, message: FromGuest) -> Result<(), GuestError> {
        let guest = &self.guest;
        match message {
            FromGuest::Started { session, .. } => {
                guest.find(session).iter().for_each(Session::started);
            }
            FromGuest::ExecFailed { session, error } => {
                guest.finish(session, End::Failed(clean_error(error)));
            }
            FromGuest::Exited { session, status } => guest.finish(session, End::Exited(status)),
            FromGuest::Output {
                session,
                stream,
                data,
            } => {
                if guest
                    .find(session)
                    .is_some_and(|session| !session.push(stream, &data))
                {
                    return Err(GuestError::Rule("output beyond its window"));
                }
            }
            FromGuest::StdinCredit { session, bytes } => {
                if guest
                    .find(session)
                    .is_some_and(|session| !session.stdin_credit(bytes))
                {
                    return Err(GuestError::Rule("credit beyond the window"));
                }
            }
            FromGuest::Docker(state) => {
                let state = match state {
                    DockerState::Failed(text) => DockerState::Failed(clean(&text, TEXT)),
                    other => other,
                };
                tracing::info!(?state, "docker");
                guest.state.update(|snapshot| snapshot.docker = state);
            }
            FromGuest::Log(line) => tracing::info!(guest = clean(&line, TEXT)),
            FromGuest::Booted {
                kernel,
                version,
                uptime_ms,
            } => self.tell(GuestEvent::Booted {
                kernel: clean(&kernel, TEXT),
                version: clean(&version, TEXT),
                uptime_ms,
            }),
            FromGuest::Personalised(result) => {
                let result = result.map_err(|text| clean(&text, TEXT));
                self.tell(GuestEvent::Personalised(result));
            }
            FromGuest::Prepared(result) => {
                let result = result.map_err(|text| clean(&text, TEXT));
                self.tell(GuestEvent::Prepared(result));
            }
            FromGuest::Pong { token } => self.tell(GuestEvent::Pong(token)),
        }
        Ok(())
    }

    fn tell(&self, event: GuestEvent) {
        // Dropped when the queue is full: then the guest floods, and gets no answer to what it says.
        let _ = self.events.try_send(event);
    }
}

fn clean_error(error: ExecError) -> ExecError {
    match error {
        ExecError::NotFound => ExecError::NotFound,
        ExecError::NotExecutable(text) => ExecError::NotExecutable(clean(&text, TEXT)),
        ExecError::BadRequest(text) => ExecError::BadRequest(clean(&text, TEXT)),
    }
}
