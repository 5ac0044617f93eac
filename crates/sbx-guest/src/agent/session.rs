//! One started program: its streams, their windows, and its end. Driven by the loop's `poll`.

use super::input::Input;
use super::port::Outbox;
use crate::reaper::Reaper;
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::Signal;
use sbx_wire::frame::{self, CHUNK};
use sbx_wire::guest::{ExitStatus, FromGuest, Stream, TermSize, WINDOW};
use std::time::{Duration, Instant};

/// How long output may still come from processes that a program left behind. Longer than a shell's
/// pipeline needs to drain, short enough not to be noticed when a background process keeps the pipe.
const LINGER: Duration = Duration::from_millis(200);
/// Time between SIGHUP and SIGKILL after a hang-up (contract of `ToGuest::Hangup`).
const HANGUP_GRACE: Duration = Duration::from_secs(5);
/// Most bytes read at a time: with the frame around them they fit one write of a virtio-serial port, 32 KiB.
pub(super) const READ: usize = CHUNK - 64;
/// What a pipe can hold of an ended program (`/proc/sys/fs/pipe-max-size`, default). More than that after
/// the end is from processes left behind, and is not waited for.
const PIPE_MAX: usize = 1 << 20;

/// Names a session across channel lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionKey {
    /// Life of the channel.
    pub epoch: u32,
    /// Number within it.
    pub session: u32,
}

/// A program that runs.
#[derive(Debug)]
pub struct Running {
    /// Leader of its session and process group.
    pub pid: u32,
    /// Its standard input, or the terminal.
    pub stdin: Option<OwnedFd>,
    /// Its standard output, or the terminal.
    pub stdout: OwnedFd,
    /// Its standard error; none with a terminal.
    pub stderr: Option<OwnedFd>,
    /// The streams are a terminal.
    pub terminal: bool,
}

/// The peer broke the flow control; the channel is closed.
#[derive(Debug, thiserror::Error)]
#[error("window of session {0} overrun")]
pub(super) struct Overrun(pub u32);

#[derive(Debug)]
struct Output {
    stream: Stream,
    fd: Option<OwnedFd>,
    /// Bytes that may still be sent.
    window: u32,
    /// The last read found nothing.
    empty: bool,
    /// Bytes read since the program ended.
    late: usize,
}

impl Output {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            fd: None,
            window: WINDOW,
            empty: false,
            late: 0,
        }
    }
}

/// What `poll` found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ready {
    outputs: [bool; 2],
}

/// What [`Session::advance`] works with.
pub(super) struct Context<'a> {
    /// For signals.
    pub reaper: &'a Reaper,
    /// Where messages go.
    pub outbox: &'a mut Outbox,
    /// At least [`READ`] bytes.
    pub scratch: &'a mut [u8],
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    /// Name.
    pub key: SessionKey,
    /// Process id, once it runs.
    pid: Option<u32>,
    terminal: bool,
    /// Still to be done once it runs.
    early_signals: Vec<Signal>,
    early_size: Option<TermSize>,
    input: Input,
    outputs: [Output; 2],
    exit: Option<(ExitStatus, Instant)>,
    /// Nobody listens: output is read and dropped.
    hung_up: bool,
    kill_at: Option<Instant>,
}

impl Session {
    /// A session whose program is being started. `stdin`: its input is forwarded.
    pub(super) fn new(key: SessionKey) -> Self {
        Self {
            key,
            pid: None,
            terminal: false,
            early_signals: Vec::new(),
            early_size: None,
            input: Input::default(),
            outputs: [Output::new(Stream::Stdout), Output::new(Stream::Stderr)],
            exit: None,
            hung_up: false,
            kill_at: None,
        }
    }

    /// The program runs.
    pub(super) fn started(&mut self, running: Running, reaper: &Reaper) {
        self.pid = Some(running.pid);
        self.terminal = running.terminal;
        self.outputs[0].fd = Some(running.stdout);
        self.outputs[1].fd = running.stderr;
        self.input.open(running.stdin, running.terminal);
        if let Some(size) = self.early_size.take() {
            self.resize(size);
        }
        for signal in std::mem::take(&mut self.early_signals) {
            self.signal(signal, reaper);
        }
        if self.hung_up {
            self.hang_up(reaper);
        }
    }

    /// The program has ended.
    pub(super) fn exited(&mut self, status: ExitStatus) {
        self.exit = Some((status, Instant::now() + LINGER));
        self.kill_at = None;
    }

    /// Bytes for standard input.
    ///
    /// # Errors
    /// [`Overrun`].
    pub(super) fn stdin(&mut self, data: &[u8]) -> Result<(), Overrun> {
        if self.input.push(data) {
            Ok(())
        } else {
            Err(Overrun(self.key.session))
        }
    }

    /// Standard input ends.
    pub(super) fn stdin_eof(&mut self) {
        self.input.end();
    }

    /// The host grants more output.
    ///
    /// # Errors
    /// [`Overrun`]: more than was ever sent.
    pub(super) fn credit(&mut self, stream: Stream, bytes: u32) -> Result<(), Overrun> {
        let output = &mut self.outputs[usize::from(stream == Stream::Stderr)];
        match output
            .window
            .checked_add(bytes)
            .filter(|window| *window <= WINDOW)
        {
            Some(window) => output.window = window,
            None => return Err(Overrun(self.key.session)),
        }
        Ok(())
    }

    /// The terminal has a new size.
    pub(super) fn resize(&mut self, size: TermSize) {
        match (&self.outputs[0].fd, self.pid) {
            (Some(fd), _) if self.terminal => {
                // Fails only on something that is no terminal.
                let _ = rustix::termios::tcsetwinsize(fd, super::start::winsize(size));
            }
            (_, None) => self.early_size = Some(size),
            _ => {}
        }
    }

    /// Delivers a signal to the process group.
    pub(super) fn signal(&mut self, signal: Signal, reaper: &Reaper) {
        match self.pid {
            Some(pid) => {
                reaper.signal_group(pid, signal);
            }
            None if self.early_signals.len() < 64 => self.early_signals.push(signal),
            None => {}
        }
    }

    /// The client is gone.
    pub(super) fn hang_up(&mut self, reaper: &Reaper) {
        self.hung_up = true;
        self.input.close();
        if let (Some(pid), None, None) = (self.pid, &self.exit, self.kill_at) {
            reaper.signal_group(pid, Signal::HUP);
            self.kill_at = Some(Instant::now() + HANGUP_GRACE);
        }
    }

    /// Adds the descriptors to poll.
    pub(super) fn interests<'a>(&'a self, out_full: bool, fds: &mut Vec<PollFd<'a>>) {
        for output in &self.outputs {
            if let (Some(fd), true) = (&output.fd, self.may_read(output, out_full)) {
                fds.push(PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
            }
        }
        if let Some(fd) = self.input.waiting() {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT));
        }
    }

    /// Takes what [`Self::interests`] added back from the polled descriptors.
    pub(super) fn readiness<'a>(
        &self,
        out_full: bool,
        mut polled: impl Iterator<Item = &'a PollFd<'a>>,
    ) -> Ready {
        let mut ready = Ready::default();
        for (index, output) in self.outputs.iter().enumerate() {
            if self.may_read(output, out_full) {
                ready.outputs[index] = polled.next().is_some_and(|fd| !fd.revents().is_empty());
            }
        }
        if self.input.waiting().is_some() {
            polled.next();
        }
        ready
    }

    fn may_read(&self, output: &Output, out_full: bool) -> bool {
        output.fd.is_some() && (self.hung_up || (output.window > 0 && !out_full))
    }

    /// When [`Self::advance`] has to be called even if nothing is ready.
    pub(super) fn deadline(&self, out_full: bool) -> Option<Instant> {
        let blocked = self
            .outputs
            .iter()
            .any(|output| output.fd.is_some() && !self.may_read(output, out_full));
        match &self.exit {
            Some((_, linger)) => (!blocked).then_some(*linger),
            None => self.kill_at,
        }
    }

    /// Moves what can be moved. `true`: the session is over and its last message is in the outbox.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        ready: Ready,
        context: &mut Context<'_>,
    ) -> bool {
        if self.pid.is_none() {
            return false;
        }
        self.input.flush();
        if let Some(bytes) = self.input.grant() {
            let session = self.key.session;
            self.send(context.outbox, &FromGuest::StdinCredit { session, bytes });
        }
        let lingered = self.exit.is_some_and(|(_, until)| now >= until);
        for index in 0..self.outputs.len() {
            if ready.outputs[index] || lingered {
                self.pump(index, context);
            }
        }
        if self.kill_at.is_some_and(|at| now >= at) {
            self.kill_at = None;
            if let Some(pid) = self.pid {
                context.reaper.signal_group(pid, Signal::KILL);
            }
        }
        let Some((status, _)) = self.exit else {
            return false;
        };
        let drained = |output: &Output| {
            output.fd.is_none() || (lingered && (output.empty || output.late > PIPE_MAX))
        };
        if !self.outputs.iter().all(drained) {
            return false;
        }
        self.send(
            context.outbox,
            &FromGuest::Exited {
                session: self.key.session,
                status,
            },
        );
        true
    }

    /// Reads one piece of one output.
    fn pump(&mut self, index: usize, context: &mut Context<'_>) {
        // Until the read below finds nothing, the pipe may hold something.
        self.outputs[index].empty = false;
        if !self.may_read(&self.outputs[index], context.outbox.is_full()) {
            return;
        }
        let hung_up = self.hung_up;
        let output = &mut self.outputs[index];
        let Some(fd) = &output.fd else { return };
        let limit = if hung_up {
            READ
        } else {
            READ.min(output.window as usize)
        };
        let count = match rustix::io::read(fd, &mut context.scratch[..limit]) {
            Ok(count) => count,
            Err(Errno::AGAIN) => {
                output.empty = true;
                return;
            }
            Err(Errno::INTR) => return,
            // A terminal without a program on its other side reads as EIO.
            Err(_) => 0,
        };
        if count == 0 {
            output.fd = None;
            return;
        }
        if self.exit.is_some() {
            output.late += count;
        }
        if hung_up {
            return;
        }
        output.window -= u32::try_from(count).unwrap_or(output.window);
        let message = FromGuest::Output {
            session: self.key.session,
            stream: output.stream,
            data: context.scratch[..count].to_vec(),
        };
        self.send(context.outbox, &message);
    }

    /// Sends, unless this session's life is over.
    fn send(&self, outbox: &mut Outbox, message: &FromGuest) {
        outbox.message(self.key.epoch, message);
    }
}

impl Outbox {
    /// Appends a message of the current life; one of an earlier life is dropped.
    pub(super) fn message(&mut self, epoch: u32, message: &FromGuest) {
        if self.epoch != Some(epoch) {
            return;
        }
        // Bounded by construction: payloads are at most CHUNK, texts are cut where they are made.
        if let Ok(frame) = frame::encode(epoch, message) {
            self.push(frame);
        }
    }
}
