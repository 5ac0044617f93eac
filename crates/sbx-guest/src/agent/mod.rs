//! The protocol and the programs: runs as part of PID 1, and for tests as an ordinary process.
//!
//! One thread owns the channel and every session and never blocks: `poll` over the port, the sessions'
//! pipes and an eventfd. What may block (starting a program, personalising, shutting down) runs on threads
//! of its own that report back through the [`Mailbox`].

mod events;
mod opening;
mod port;
mod session;
mod start;

pub use events::{Event, Inbox, Mailbox};
pub use port::Port;
pub use start::Surroundings;

use crate::console;
use crate::reaper::Reaper;
use crate::sys;
use opening::Opening;
use port::{Outbox, Received};
use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;
use sbx_wire::frame::{Decoder, FrameError};
use sbx_wire::guest::{
    DockerState, ExecError, ExecRequest, FromGuest, MAX_SESSIONS, Personalise, Preamble, ToGuest,
    VERSION,
};
use session::{Context, READ, Ready, Session, SessionKey};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A frame that was begun is finished within this, or the channel is opened anew: the host went away in the
/// middle of it and came back too quickly for the guest to see.
const FRAME_LIMIT: Duration = Duration::from_secs(10);

/// What the agent leaves to its surroundings: the machine, or in tests nothing.
pub trait Platform: Send + Sync + 'static {
    /// Makes the machine this sandbox.
    ///
    /// # Errors
    /// A text for the host.
    fn personalise(&self, request: &Personalise) -> Result<(), String>;
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
                    if self.port.edge_fd().is_none() {
                        return Ok(());
                    }
                    self.channel = Channel::Closed;
                }
            }
        }
    }

    /// Ends the channel's life: every session is hung up, and the next preamble is awaited. Also puts the
    /// agent in order after a panic.
    pub fn close(&mut self) {
        self.channel = Channel::Opening(Opening::default());
        self.outbox.reset(None);
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
                life.partial_since = Some(Instant::now());
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
                Ok(None) => return Ok(()),
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

    fn dispatch(&mut self, message: ToGuest) -> Result<(), Broken> {
        let Channel::Open(life) = &mut self.channel else {
            return Ok(());
        };
        let epoch = life.epoch;
        // A frame that was whole is no partial one; what may follow is timed from its own first bytes.
        life.partial_since = None;
        match message {
            ToGuest::Personalise(request) => self.personalise(epoch, request),
            ToGuest::Exec { session, request } => self.exec(SessionKey { epoch, session }, request),
            ToGuest::Stdin { session, data } => {
                if let Some(session) = self.session(epoch, session) {
                    session.stdin(&data)?;
                }
            }
            ToGuest::StdinEof { session } => {
                if let Some(session) = self.session(epoch, session) {
                    session.stdin_eof();
                }
            }
            ToGuest::Resize { session, size } => {
                if let Some(session) = self.session(epoch, session) {
                    session.resize(size);
                }
            }
            ToGuest::Signal { session, signal } => {
                let reaper = self.reaper.clone();
                if let (Some(session), Some(signal)) =
                    (self.session(epoch, session), sys::signal(signal))
                {
                    session.signal(signal, &reaper);
                }
            }
            ToGuest::Hangup { session } => {
                let reaper = self.reaper.clone();
                if let Some(session) = self.session(epoch, session) {
                    session.hang_up(&reaper);
                }
            }
            ToGuest::Credit {
                session,
                stream,
                bytes,
            } => {
                if let Some(session) = self.session(epoch, session) {
                    session.credit(stream, bytes)?;
                }
            }
            ToGuest::SetClock { unix_ns } => {
                if let Err(error) = self.platform.set_clock(unix_ns) {
                    self.outbox.message(epoch, &FromGuest::Log(error));
                }
            }
            ToGuest::Ping { token } => self.outbox.message(epoch, &FromGuest::Pong { token }),
            ToGuest::Shutdown { grace_ms } => {
                let platform = Arc::clone(&self.platform);
                self.background("shutdown", move |_| {
                    platform.shutdown(Duration::from_millis(grace_ms.into()));
                });
            }
        }
        Ok(())
    }

    fn session(&mut self, epoch: u32, session: u32) -> Option<&mut Session> {
        let key = SessionKey { epoch, session };
        self.sessions.iter_mut().find(|session| session.key == key)
    }

    fn personalise(&mut self, epoch: u32, request: Box<Personalise>) {
        self.surroundings = Arc::new(Surroundings {
            env: request.env.clone(),
            workdir: request.workdir.clone(),
            default_uid: self.platform.default_uid(),
        });
        let platform = Arc::clone(&self.platform);
        self.background("personalise", move |mailbox| {
            let result = platform.personalise(&request);
            mailbox.send(Event::Personalised { epoch, result });
        });
    }

    fn exec(&mut self, key: SessionKey, request: ExecRequest) {
        let ready = matches!(&self.channel, Channel::Open(life) if life.personalised);
        let refusal = if !ready {
            Some("the sandbox is not personalised")
        } else if self.sessions.len() >= MAX_SESSIONS {
            Some("too many sessions")
        } else if self.sessions.iter().any(|session| session.key == key) {
            Some("session number in use")
        } else {
            None
        };
        if let Some(reason) = refusal {
            return self.refuse(key, reason);
        }
        let reaper = self.reaper.clone();
        let surroundings = Arc::clone(&self.surroundings);
        let begun = self.background("start", move |mailbox| {
            let exits = mailbox.clone();
            let started = start::start(&request, &surroundings, &reaper, move |status| {
                exits.send(Event::Exited(key, status));
            });
            mailbox.send(Event::Started(key, started));
        });
        if begun {
            self.sessions.push(Session::new(key));
        } else {
            self.refuse(key, "no thread to start it on");
        }
    }

    fn refuse(&mut self, key: SessionKey, reason: &str) {
        let error = ExecError::BadRequest(reason.into());
        let failed = FromGuest::ExecFailed {
            session: key.session,
            error,
        };
        self.outbox.message(key.epoch, &failed);
    }

    /// Runs something that may block on a thread of its own. `false`: there is no thread to be had, and the
    /// console says why.
    fn background(&self, name: &str, work: impl FnOnce(&Mailbox) + Send + 'static) -> bool {
        let mailbox = self.mailbox.clone();
        let spawned = std::thread::Builder::new()
            .name(name.into())
            .stack_size(256 << 10)
            .spawn(move || work(&mailbox));
        if let Err(error) = &spawned {
            console::say(&format!("no thread for {name}: {error}"));
        }
        spawned.is_ok()
    }

    fn take_events(&mut self) {
        self.inbox.clear();
        while let Some(event) = self.inbox.next() {
            match event {
                Event::Started(key, result) => self.started(key, result),
                Event::Exited(key, status) => {
                    if let Some(session) = self.session(key.epoch, key.session) {
                        session.exited(status);
                    }
                }
                Event::Personalised { epoch, result } => self.personalised(epoch, result),
                Event::Docker(state) => {
                    self.docker = Some(state.clone());
                    self.tell(&FromGuest::Docker(state));
                }
                Event::Log(text) => self.tell(&FromGuest::Log(text)),
            }
        }
    }

    /// Sends to whoever is there.
    fn tell(&mut self, message: &FromGuest) {
        if let Channel::Open(life) = &self.channel {
            self.outbox.message(life.epoch, message);
        }
    }

    fn personalised(&mut self, epoch: u32, result: Result<(), String>) {
        let Channel::Open(life) = &mut self.channel else {
            return;
        };
        if life.epoch != epoch {
            return;
        }
        life.personalised = result.is_ok();
        self.outbox.message(epoch, &FromGuest::Personalised(result));
        if let Some(state) = self.docker.clone() {
            self.outbox.message(epoch, &FromGuest::Docker(state));
        }
    }

    fn started(&mut self, key: SessionKey, result: Result<session::Running, ExecError>) {
        let Some(index) = self.sessions.iter().position(|session| session.key == key) else {
            return;
        };
        let message = match result {
            Ok(running) => {
                let pid = running.pid;
                self.sessions[index].started(running, &self.reaper);
                FromGuest::Started {
                    session: key.session,
                    pid,
                }
            }
            Err(error) => {
                self.sessions.remove(index);
                FromGuest::ExecFailed {
                    session: key.session,
                    error,
                }
            }
        };
        self.outbox.message(key.epoch, &message);
    }
}
