//! The protocol and the programs: runs as part of PID 1, and for tests as an ordinary process.
//!
//! One thread owns the channel and every session and never blocks: `poll` over the port, the sessions'
//! pipes and an eventfd. What may block (starting a program, personalising, shutting down) runs on threads
//! of its own that report back through the [`Mailbox`].

mod dispatch;
mod events;
mod input;
mod opening;
mod port;
mod session;
mod start;

pub use events::{Event, Inbox, Mailbox};
pub use port::Port;
pub use start::Surroundings;

use crate::console;
use crate::reaper::Reaper;
use opening::Opening;
use port::{Outbox, Received};
use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;
use sbx_wire::frame::{Decoder, FrameError};
use sbx_wire::guest::{DockerState, FromGuest, Personalise, Preamble, Prepare, ToGuest, VERSION};
use session::{Context, READ, Ready, Session};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A frame that was begun is finished within this, or the channel's life is over: the host went away in the middle of it
/// and came back too quickly for the guest to see.
const FRAME_LIMIT: Duration = Duration::from_secs(10);

/// What the agent leaves to its surroundings: the machine, or in tests nothing.
pub trait Platform: Send + Sync + 'static {
    /// Makes the machine this sandbox.
    ///
    /// # Errors
    /// A text for the host.
    fn personalise(&self, request: &Personalise) -> Result<(), String>;
    /// Makes the machine ready to be saved.
    ///
    /// # Errors
    /// A text for the host.
    fn prepare(&self, request: &Prepare) -> Result<(), String>;
    /// Sets the wall clock.
    ///
    /// # Errors
    /// A text for the log.
    fn set_clock(&self, unix_ns: u64) -> Result<(), String>;
    /// Ends everything. On a machine it does not return.
    fn shutdown(&self, grace: Duration);
    /// User of programs whose request names none.
    fn default_uid(&self) -> u32;
}

/// State of the channel.
enum Channel {
    /// No host.
    Closed,
    /// A host may be there; its preamble is awaited.
    Opening(Opening),
    /// Frames are exchanged.
    Open(Life),
}

struct Life {
    epoch: u32,
    decoder: Decoder,
    personalised: bool,
    opened: Instant,
    /// When bytes last came that did not end a frame.
    partial_since: Option<Instant>,
    /// The last bytes before the ones just received: a new preamble may have begun in them.
    tail: Vec<u8>,
}

/// Why the channel has to be opened anew.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the host closed the channel")]
    Gone,
    #[error("channel: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Overrun(#[from] session::Overrun),
    #[error("a frame was begun and not finished")]
    Stalled,
}

/// See the module.
pub struct Agent {
    platform: Arc<dyn Platform>,
    reaper: Reaper,
    mailbox: Mailbox,
    inbox: Inbox,
    port: Port,
    channel: Channel,
    outbox: Outbox,
    sessions: Vec<Session>,
    surroundings: Arc<Surroundings>,
    docker: Option<DockerState>,
    scratch: Vec<u8>,
    incoming: Vec<u8>,
}

impl Agent {
    /// An agent on this port. `mailbox` and `inbox` belong together.
    pub fn new(
        port: Port,
        platform: Arc<dyn Platform>,
        reaper: Reaper,
        mailbox: Mailbox,
        inbox: Inbox,
    ) -> Self {
        let surroundings = Surroundings {
            default_uid: platform.default_uid(),
            ..Surroundings::default()
        };
        Self {
            platform,
            reaper,
            mailbox,
            inbox,
            port,
            channel: Channel::Opening(Opening::default()),
            outbox: Outbox::default(),
            sessions: Vec::new(),
            surroundings: Arc::new(surroundings),
            docker: None,
            scratch: vec![0; READ],
            incoming: vec![0; READ],
        }
    }

    /// Serves until the port is gone for good, which a virtio-serial port never is.
    ///
    /// # Errors
    /// When `poll` fails.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            if let Err(broken) = self.turn()? {
                console::debug(&broken.to_string());
                let gone = matches!(broken, Broken::Gone | Broken::Io(_));
                self.close();
                if gone {
                    self.outbox.reset(None);
                    if self.port.edge_fd().is_none() {
                        return Ok(());
                    }
                    self.channel = Channel::Closed;
                }
            }
        }
    }

    /// Ends the channel's life: every session is hung up, a host that is still there is told that the channel is
    /// broken, and the next preamble is awaited. Also puts the agent in order after a panic.
    pub fn close(&mut self) {
        self.channel = Channel::Opening(Opening::default());
        self.outbox.break_off();
        for session in &mut self.sessions {
            session.hang_up(&self.reaper);
        }
    }

    /// One `poll` and what follows from it.
    fn turn(&mut self) -> io::Result<Result<(), Broken>> {
        let (port, ready) = self.poll()?;
        self.take_events();
        let received = self.serve_port(port);
        let now = Instant::now();
        let mut context = Context {
            reaper: &self.reaper,
            outbox: &mut self.outbox,
            scratch: &mut self.scratch,
        };
        let mut ready = ready.into_iter();
        self.sessions.retain_mut(|session| {
            !session.advance(now, ready.next().unwrap_or_default(), &mut context)
        });
        Ok(received.and_then(|()| Ok(self.outbox.flush(&self.port)?)))
    }

    /// Waits; returns what the port has to say and what the sessions have, in their order.
    fn poll(&self) -> io::Result<(PollFlags, Vec<Ready>)> {
        let out_full = self.outbox.is_full();
        let mut fds = vec![PollFd::from_borrowed_fd(
            self.inbox.wake_fd(),
            PollFlags::IN,
        )];
        if let (Channel::Closed, Some(edges)) = (&self.channel, self.port.edge_fd()) {
            fds.push(PollFd::from_borrowed_fd(edges, PollFlags::IN));
        } else {
            let mut wanted = PollFlags::IN;
            wanted.set(PollFlags::OUT, !self.outbox.is_empty());
            fds.push(PollFd::from_borrowed_fd(self.port.as_fd(), wanted));
        }
        for session in &self.sessions {
            session.interests(out_full, &mut fds);
        }
        let limit = self.deadline(out_full).map(|at| {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(500);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match rustix::event::poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut polled = fds[2..].iter();
        let ready = self
            .sessions
            .iter()
            .map(|session| session.readiness(out_full, &mut polled))
            .collect();
        Ok((fds[1].revents(), ready))
    }

    fn deadline(&self, out_full: bool) -> Option<Instant> {
        let frame = match &self.channel {
            Channel::Open(life) => life.partial_since.map(|since| since + FRAME_LIMIT),
            _ => None,
        };
        let sessions = self
            .sessions
            .iter()
            .filter_map(|session| session.deadline(out_full));
        sessions.chain(frame).min()
    }

    fn serve_port(&mut self, found: PollFlags) -> Result<(), Broken> {
        if matches!(self.channel, Channel::Closed) {
            if !found.is_empty() {
                self.port.clear_edges();
                self.channel = Channel::Opening(Opening::default());
            }
            return Ok(());
        }
        if found.contains(PollFlags::IN) {
            let mut buffer = std::mem::take(&mut self.incoming);
            let received = match self.port.read(&mut buffer) {
                Ok(Received::Bytes(count)) => self.received(&buffer[..count]),
                Ok(Received::Nothing) => Ok(()),
                Ok(Received::Gone) => self.gone(),
                Err(error) => Err(error.into()),
            };
            self.incoming = buffer;
            received?;
        } else if found.intersects(PollFlags::HUP | PollFlags::ERR) {
            self.gone()?;
        }
        if let Channel::Open(Life {
            partial_since: Some(since),
            ..
        }) = &self.channel
            && since.elapsed() >= FRAME_LIMIT
        {
            return Err(Broken::Stalled);
        }
        Ok(())
    }

    /// The port has no host. When one host follows another at once, the kernel may hand over the new one's
    /// first bytes before it has heard that the old one left, and then tells us of both: a life that has just
    /// been opened is kept if there is a host again at once.
    fn gone(&mut self) -> Result<(), Broken> {
        const JUST_NOW: Duration = Duration::from_secs(1);
        match &self.channel {
            Channel::Open(life)
                if life.opened.elapsed() < JUST_NOW && self.port.returns(JUST_NOW) =>
            {
                Ok(())
            }
            _ => Err(Broken::Gone),
        }
    }

    fn received(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        match &mut self.channel {
            Channel::Closed => return Ok(()),
            Channel::Opening(opening) => {
                let Some((preamble, rest)) = opening.push(bytes) else {
                    return Ok(());
                };
                self.open(preamble, &rest);
            }
            Channel::Open(life) => {
                life.decoder.push(bytes);
            }
        }
        let result = self.drain(bytes);
        if let Channel::Open(life) = &mut self.channel {
            let keep = bytes.len().saturating_sub(Preamble::LEN - 1);
            life.tail = bytes[keep..].to_vec();
        }
        result
    }

    /// Serves every whole frame; `bytes` are the last ones received.
    fn drain(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        loop {
            let Channel::Open(life) = &mut self.channel else {
                return Ok(());
            };
            match life.decoder.next::<ToGuest>() {
                Ok(Some(message)) => self.dispatch(message)?,
                Ok(None) => {
                    let partial = !life.decoder.is_empty();
                    life.partial_since = partial.then(Instant::now);
                    return Ok(());
                }
                Err(error) => {
                    let seen = [life.tail.as_slice(), bytes].concat();
                    return self.reopen(&seen, &error);
                }
            }
        }
    }

    /// Starts over. A new preamble behind the last frame of an earlier host reads as an oversized frame: it
    /// is looked for in the bytes that were `seen` last.
    fn reopen(&mut self, seen: &[u8], error: &FrameError) -> Result<(), Broken> {
        console::debug(&error.to_string());
        self.close();
        let mut opening = Opening::default();
        match opening.push(seen) {
            // The rest is shorter than what was seen, so this ends.
            Some((preamble, rest)) => {
                self.open(preamble, &rest);
                self.drain(&rest)
            }
            None => {
                self.channel = Channel::Opening(opening);
                Ok(())
            }
        }
    }

    /// Answers the preamble.
    fn open(&mut self, preamble: Preamble, rest: &[u8]) {
        let epoch = preamble.epoch;
        let mut decoder = Decoder::new(epoch);
        decoder.push(rest);
        self.channel = Channel::Open(Life {
            epoch,
            decoder,
            personalised: false,
            opened: Instant::now(),
            partial_since: None,
            tail: Vec::new(),
        });
        self.outbox.reset(Some(epoch));
        let answer = Preamble {
            version: VERSION,
            ..preamble
        };
        self.outbox.push(answer.encode_guest().to_vec());
        let kernel = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        self.outbox.message(
            epoch,
            &FromGuest::Booted {
                kernel,
                version: env!("CARGO_PKG_VERSION").into(),
                uptime_ms: console::uptime_ms(),
            },
        );
    }
}
