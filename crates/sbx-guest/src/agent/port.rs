//! The byte stream to the host: a virtio-serial port, or for an agent that runs as an ordinary process a
//! stream socket.

use rustix::event::{PollFd, PollFlags, epoll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::time::Timespec;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// One open port. Non-blocking.
#[derive(Debug)]
pub struct Port {
    fd: OwnedFd,
    /// Edge-triggered watch on a virtio-serial port: without a host `poll` reports a hang-up at once and
    /// for ever, only the edge tells that a host has come. `None`: a socket, which does not come back.
    edges: Option<OwnedFd>,
}

/// Result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// This many bytes, more than 0.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The host is gone.
    Gone,
}

impl Port {
    /// Opens the virtio-serial port with this device node.
    ///
    /// # Errors
    /// Those of `open` and `epoll`.
    pub fn open_virtio(device: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let fd = rustix::fs::open(device, flags, Mode::empty())?;
        let edges = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&edges, &fd, epoll::EventData::new_u64(0), interest)?;
        Ok(Self {
            fd,
            edges: Some(edges),
        })
    }

    /// Uses a connected stream socket.
    ///
    /// # Errors
    /// When it cannot be made non-blocking.
    pub fn from_socket(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd, edges: None })
    }

    /// For `poll`.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Readable when the state of a port without a host may have changed; `None`: it never will.
    pub fn edge_fd(&self) -> Option<BorrowedFd<'_>> {
        self.edges.as_ref().map(AsFd::as_fd)
    }

    /// Forgets the edges so far.
    pub fn clear_edges(&self) {
        if let Some(edges) = &self.edges {
            let mut events = [epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            }];
            let _ = epoll::wait(edges, &mut events[..], Some(&Timespec::default()));
        }
    }

    /// Whether a port without a host has one again within `limit`.
    pub(super) fn returns(&self, limit: Duration) -> bool {
        let Some(edges) = self.edge_fd() else {
            return false;
        };
        let deadline = Instant::now() + limit;
        loop {
            self.clear_edges();
            if !poll_one(self.as_fd(), Duration::ZERO).contains(PollFlags::HUP) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            poll_one(edges, left);
        }
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// Any other than "nothing now": the port is unusable.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            return match rustix::io::read(&self.fd, &mut *buffer) {
                Ok(0) | Err(Errno::CONNRESET | Errno::PIPE) => Ok(Received::Gone),
                Ok(count) => Ok(Received::Bytes(count)),
                Err(Errno::AGAIN) => Ok(Received::Nothing),
                Err(Errno::INTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }
}

fn poll_one(fd: BorrowedFd<'_>, limit: Duration) -> PollFlags {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    // An interrupted wait is a wait that found nothing.
    let _ = rustix::event::poll(&mut fds, Some(&timeout));
    fds[0].revents()
}

/// What no frame begins with: it is longer than any. A host that reads it knows that the channel is broken.
const BREAK: [u8; 8] = [0xff; 8];

/// Bytes on their way to the host.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: VecDeque<Vec<u8>>,
    /// Sent bytes of the first frame.
    sent: usize,
    bytes: usize,
    /// Life that messages are accepted for; `None`: no host.
    pub(super) epoch: Option<u32>,
}

impl Outbox {
    /// Program output is not read while more than this waits to be sent, in bytes. Answers to the host's
    /// own messages come on top; the host paces those.
    pub(super) const LIMIT: usize = 512 << 10;

    /// Appends one frame.
    pub(super) fn push(&mut self, frame: Vec<u8>) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// Whether program output has to wait.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= Self::LIMIT
    }

    /// Nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Forgets everything, which belonged to an earlier life of the channel, and opens the next one.
    pub(super) fn reset(&mut self, epoch: Option<u32>) {
        *self = Self {
            epoch,
            ..Self::default()
        };
    }

    /// Ends the life of the channel for a host that may be there still: it would wait for ever for what its sessions
    /// say. A frame of which it has a part is finished first.
    pub(super) fn break_off(&mut self) {
        if self.epoch.take().is_some() {
            self.frames.truncate(usize::from(self.sent > 0));
            self.bytes = self.frames.front().map_or(0, Vec::len) - self.sent;
            self.push(BREAK.to_vec());
        }
    }

    /// Sends as much as the port takes now.
    ///
    /// # Errors
    /// The port is unusable, or a socket's other end is gone.
    pub(super) fn flush(&mut self, port: &Port) -> io::Result<()> {
        while let Some(frame) = self.frames.front() {
            match rustix::io::write(port.as_fd(), &frame[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    self.bytes -= count;
                    if self.sent == frame.len() {
                        self.frames.pop_front();
                        self.sent = 0;
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sbx_wire::frame::{Decoder, encode};
    use sbx_wire::guest::FromGuest;

    #[test]
    fn a_broken_off_channel_ends_behind_the_frame_that_was_begun() {
        let message = |token| FromGuest::Pong { token };
        for sent in [0, 3] {
            let mut outbox = Outbox::default();
            outbox.reset(Some(1));
            outbox.message(1, &message(1));
            outbox.message(1, &message(2));
            outbox.sent = sent;
            outbox.break_off();
            outbox.break_off();
            outbox.message(1, &message(3));
            assert_eq!(
                outbox.bytes,
                outbox.frames.iter().map(Vec::len).sum::<usize>() - sent
            );
            let mut decoder = Decoder::new(1);
            // What the host had before.
            decoder.push(&encode(1, &message(1)).unwrap()[..sent]);
            let frames: Vec<u8> = outbox.frames.iter().flatten().copied().collect();
            decoder.push(&frames[sent..]);
            if sent > 0 {
                let first = decoder.next::<FromGuest>().unwrap();
                assert!(matches!(first, Some(FromGuest::Pong { token: 1 })));
            }
            assert!(decoder.next::<FromGuest>().is_err());
        }
    }
}
