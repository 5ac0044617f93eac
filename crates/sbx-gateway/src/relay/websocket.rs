//! What passes in a WebSocket after it was opened. Every frame is read; on the way up messages are looked into for
//! placeholders as bodies are, on the way down values are taken out of them as out of answers. Each message is a text of
//! its own, in however many frames and pieces it comes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::{Bytes, BytesMut};
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, SEC_WEBSOCKET_EXTENSIONS};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, sink, split};
use tokio::time::timeout;

use super::body::BodyError;
use super::clean::{Clean, Values};
use super::guarded_body::{BodyGuard, Stopped};
use super::headers::{names_websocket, strip_hop_by_hop};
use super::page::{self, AnswerBody};
use super::stage::Pass;
use super::tunnel::{Counted, until_end};
use crate::NoRandomness;
use crate::adapter::websocket::{Frames, Part, Side, Violation, Writer};
use crate::connector::SendError;
use crate::credentials::Supplied;
use crate::decision::Grant;
use crate::gateway::Gateway;
use crate::limits;
use crate::live::Lease;
use crate::reason::Reason;
use crate::records::Event;

/// Codes of a close frame (RFC 6455, section 7.4.1).
const PROTOCOL_ERROR: u16 = 1002;
const POLICY_VIOLATION: u16 = 1008;

/// Whether a 101 opens what the guest asked for and can be read.
pub(super) fn check_opening(headers: &HeaderMap) -> Result<(), SendError> {
    if !names_websocket(headers) {
        return Err(SendError::Switched);
    }
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err(SendError::Extension);
    }
    Ok(())
}

/// A WebSocket that is being opened, with what its messages pass.
pub(super) struct Opening {
    guard: Option<BodyGuard>,
    clean: Option<Clean>,
    report: Report,
}

/// Who is told how it ended.
struct Report {
    gateway: Arc<Gateway>,
    grant: Arc<Grant>,
    /// The request that opened it.
    event: Event,
    stopped: Option<Stopped>,
}

impl Opening {
    /// For the answer with this head, which is cleaned at once. `event`: the request, as it will be recorded.
    pub(super) fn new(
        gateway: &Arc<Gateway>,
        grant: &Grant,
        supplied: &[Supplied],
        values: Option<Values>,
        event: &Event,
        headers: &mut HeaderMap,
    ) -> Self {
        let clean = values.map(|values| Clean::of_head(values, gateway, grant, event, headers));
        // What was written into the head is not what a message is about.
        let event = Event {
            credential: None,
            alert: None,
            ..event.clone()
        };
        let guard = BodyGuard::of_messages(gateway, grant, supplied, &event);
        let report = Report {
            gateway: gateway.clone(),
            grant: Arc::new(grant.clone()),
            stopped: guard.as_ref().map(BodyGuard::stopped),
            event,
        };
        Self {
            guard,
            clean,
            report,
        }
    }

    /// Answers the guest with the 101 and relays behind it.
    pub(super) fn splice(
        self,
        mut answer: Response<Incoming>,
        guest: OnUpgrade,
        lease: Lease,
    ) -> Response<AnswerBody> {
        let upstream = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            if let (Ok(guest), Ok(upstream)) = tokio::join!(guest, upstream) {
                let (guest, upstream) = (TokioIo::new(guest), TokioIo::new(upstream));
                self.relay(guest, upstream, lease).await;
            }
        });
        let (mut head, _) = answer.into_parts();
        strip_hop_by_hop(&mut head.headers, true);
        Response::from_parts(head, page::empty())
    }

    /// Relays until both sides are done. Whatever else ends it, both are dropped; a guest that may not go on, or whose
    /// upstream sends what are no frames, hears why.
    async fn relay<G, U>(self, mut guest: G, upstream: U, lease: Lease)
    where
        G: AsyncRead + AsyncWrite + Unpin,
        U: AsyncRead + AsyncWrite + Unpin,
    {
        let moved = AtomicU64::new(0);
        let (mut guest_in, mut guest_out) = split(Counted::new(&mut guest, &moved));
        let (mut upstream_in, mut upstream_out) = split(upstream);
        let mut up = Way::new(Side::Client, self.guard);
        let mut down = Way::new(Side::Server, self.clean);
        let both = async {
            let up = up.run(&mut guest_in, &mut upstream_out);
            let down = down.run(&mut upstream_in, &mut guest_out);
            tokio::try_join!(up, down).map(drop)
        };
        let Err(broken) = until_end(both, &moved, lease).await else {
            return;
        };
        let Some((code, reason)) = self.report.tell(&broken) else {
            return;
        };
        let upstream = async move {
            let _ = timeout(limits::WEBSOCKET_CLOSE, upstream_out.shutdown()).await;
            drop((upstream_in, upstream_out));
        };
        let guest = down.close(code, &reason, &mut guest_in, &mut guest_out);
        tokio::join!(upstream, guest);
    }
}

/// Why it cannot go on.
#[derive(Debug, thiserror::Error)]
enum Broken {
    /// One side broke it.
    #[error(transparent)]
    Stream(#[from] io::Error),
    /// Nothing can be masked.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// What this side sends are no frames.
    #[error("{1}")]
    Frames(Side, Violation),
    /// A message must not go on.
    #[error(transparent)]
    Content(#[from] BodyError),
}

impl Report {
    /// Records it. Returns what the guest is told; `None`: there is nobody to be told.
    fn tell(&self, broken: &Broken) -> Option<(u16, String)> {
        match broken {
            Broken::Stream(_) | Broken::Random(_) => None,
            // Whoever found it has recorded it.
            Broken::Content(error) => {
                let denial = self.stopped.as_ref().and_then(|stopped| stopped.get());
                let reason =
                    denial.map(|denial| format!("{}: {}", denial.reason.as_str(), denial.text));
                Some((
                    POLICY_VIOLATION,
                    reason.unwrap_or_else(|| error.to_string()),
                ))
            }
            Broken::Frames(side, violation) => {
                let target = &self.grant.target;
                tracing::warn!(%target, ?side, %violation, "a WebSocket is closed");
                let reason = match side {
                    Side::Client => Reason::BadRequest,
                    Side::Server => Reason::UpstreamUnreachable,
                };
                let event = Event {
                    reason,
                    ..self.event.clone()
                };
                self.gateway.record(&self.grant.generation, event);
                Some((PROTOCOL_ERROR, violation.to_string()))
            }
        }
    }
}

/// What the messages of one side pass.
trait Messages: Pass {
    /// The payload of a control frame.
    fn control(&mut self, text: Bytes) -> Result<Bytes, BodyError>;
}

impl Messages for BodyGuard {
    fn control(&mut self, text: Bytes) -> Result<Bytes, BodyError> {
        self.whole(std::iter::once(&text[..]))?;
        Ok(text)
    }
}

impl Messages for Clean {
    fn control(&mut self, text: Bytes) -> Result<Bytes, BodyError> {
        Ok(self.whole(text))
    }
}

/// The way from one side to the other.
struct Way<M> {
    from: Side,
    frames: Frames,
    writer: Writer,
    messages: Option<M>,
    came: BytesMut,
    /// Whole frames, but for what has been sent of the first.
    out: BytesMut,
}

impl<M: Messages> Way<M> {
    fn new(from: Side, messages: Option<M>) -> Self {
        Self {
            from,
            frames: Frames::new(from),
            writer: Writer::new(from),
            messages,
            came: BytesMut::new(),
            out: BytesMut::new(),
        }
    }

    /// Passes everything on until this side ends.
    async fn run<R, W>(&mut self, from: &mut R, to: &mut W) -> Result<(), Broken>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            self.came.reserve(limits::WEBSOCKET_PIECE);
            if from.read_buf(&mut self.came).await? == 0 {
                // What was held back of a message that breaks off goes nowhere.
                to.shutdown().await?;
                return Ok(());
            }
            self.frame_anew()?;
            to.write_all_buf(&mut self.out).await?;
            to.flush().await?;
        }
    }

    /// Makes frames that go on of what came, as far as it can be said yet.
    fn frame_anew(&mut self) -> Result<(), Broken> {
        let from = self.from;
        let violated = |violation| Broken::Frames(from, violation);
        while let Some(part) = self.frames.next(&mut self.came).map_err(violated)? {
            match part {
                Part::Message { kind, text, last } => {
                    let text = match &mut self.messages {
                        Some(messages) => messages.pass(text, last)?,
                        None => text,
                    };
                    self.writer.message(&mut self.out, kind, &text, last)?;
                }
                Part::Control { control, text } => {
                    let text = match &mut self.messages {
                        Some(messages) => messages.control(text)?,
                        None => text,
                    };
                    self.writer.control(&mut self.out, control, &text)?;
                }
            }
        }
        Ok(())
    }

    /// Sends what was on its way and a close frame behind it, and waits for the reader to go. What it still sends is thrown
    /// away: whoever is writing would not read before it is through.
    async fn close<R, W>(&mut self, code: u16, reason: &str, from: &mut R, to: &mut W)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let closed = async {
            let written = self.writer.close(&mut self.out, code, reason);
            written.map_err(io::Error::other)?;
            to.write_all_buf(&mut self.out).await?;
            to.shutdown().await?;
            tokio::io::copy(from, &mut sink()).await
        };
        // Who is gone, or does not listen, needs no reason.
        let _ = timeout(limits::WEBSOCKET_CLOSE, closed).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    fn plain(from: Side) -> Way<Clean> {
        Way::new(from, None)
    }

    #[tokio::test]
    async fn a_small_message_goes_on_at_once_and_a_long_one_as_it_comes() {
        let (mut server, mut theirs) = tokio::io::duplex(64 * 1024);
        let (mut ours, mut guest) = tokio::io::duplex(64 * 1024);
        let passing = tokio::spawn(async move {
            let mut way = plain(Side::Server);
            way.run(&mut theirs, &mut ours)
                .await
                .map(|()| way.came.capacity())
        });
        server.write_all(b"\x81\x02hi").await.unwrap();
        let mut frame = [0; 4];
        guest.read_exact(&mut frame).await.unwrap();
        assert_eq!(&frame, b"\x81\x02hi");
        // The first piece of a frame that is nowhere near its end.
        server
            .write_all(b"\x82\x7f\0\0\x01\0\0\0\0\0abc")
            .await
            .unwrap();
        let mut frame = [0; 5];
        guest.read_exact(&mut frame).await.unwrap();
        assert_eq!(&frame, b"\x02\x03abc");
        // Much of it, and nobody keeps it.
        let writing = tokio::spawn(async move {
            let piece = vec![7; 64 * 1024];
            for _ in 0..128 {
                server.write_all(&piece).await.unwrap();
            }
        });
        let mut rest = Vec::new();
        guest.read_to_end(&mut rest).await.unwrap();
        writing.await.unwrap();
        assert!(rest.len() > 128 * 64 * 1024);
        let room = passing.await.unwrap().unwrap();
        assert!(room <= 4 * limits::WEBSOCKET_PIECE, "{room}");
    }

    #[tokio::test]
    async fn a_close_frame_stands_behind_whole_frames_and_the_reader_may_write_on() {
        let (mut ours, mut guest) = tokio::io::duplex(64);
        let mut way = plain(Side::Server);
        way.came.extend_from_slice(b"\x81\x05Hello\x83\x00");
        let broken = way.frame_anew().unwrap_err();
        assert!(matches!(
            broken,
            Broken::Frames(Side::Server, Violation::Opcode)
        ));
        let (mut from, mut to) = split(&mut ours);
        let talking = async move {
            // More than fits, before anything is read.
            guest.write_all(&[0; 4096]).await.unwrap();
            let mut heard = Vec::new();
            guest.read_to_end(&mut heard).await.unwrap();
            heard
        };
        let closing = way.close(PROTOCOL_ERROR, "why", &mut from, &mut to);
        let (heard, ()) = tokio::join!(talking, closing);
        assert_eq!(heard, b"\x81\x05Hello\x88\x05\x03\xeawhy");
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_does_not_hear_that_it_is_closed_is_let_go() {
        // One takes nothing of the frame, the other all of it, and neither ends.
        for room in [4, 64] {
            let (mut ours, _guest) = tokio::io::duplex(room);
            let (mut from, mut to) = split(&mut ours);
            let mut way = plain(Side::Server);
            let started = Instant::now();
            let closing = way.close(PROTOCOL_ERROR, "why", &mut from, &mut to);
            let closed = timeout(Duration::from_hours(1), closing).await;
            assert!(closed.is_ok());
            assert_eq!(
                started.elapsed().as_secs(),
                limits::WEBSOCKET_CLOSE.as_secs()
            );
        }
    }
}
