//! What other threads tell the protocol loop: a channel, and an eventfd that ends its `poll`.

use super::session::{Running, SessionKey};
use rustix::event::EventfdFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use sbx_wire::guest::{DockerState, ExecError, ExitStatus};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// One thing that happened elsewhere.
#[derive(Debug)]
pub enum Event {
    /// A start has come to an end.
    Started(SessionKey, Result<Running, ExecError>),
    /// A session's program has ended. May overtake [`Event::Started`].
    Exited(SessionKey, ExitStatus),
    /// Personalisation of the channel life with this epoch is done.
    Personalised {
        /// The life that asked.
        epoch: u32,
        /// As it is reported.
        result: Result<(), String>,
    },
    /// Preparing for a snapshot is done, for the channel life with this epoch.
    Prepared {
        /// The life that asked.
        epoch: u32,
        /// As it is reported.
        result: Result<(), String>,
    },
    /// The Docker Engine's state changed.
    Docker(DockerState),
    /// A line for the sandbox's log.
    Log(String),
}

/// The sending side; cheap to clone.
#[derive(Debug, Clone)]
pub struct Mailbox {
    sender: Sender<Event>,
    wake: Arc<OwnedFd>,
}

impl Mailbox {
    /// Hands an event to the loop. Without a loop (it ended) the event is dropped.
    pub fn send(&self, event: Event) {
        if self.sender.send(event).is_ok() {
            // Fails only when the counter is full, and then the loop is awake anyway.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }
}

/// The receiving side.
#[derive(Debug)]
pub struct Inbox {
    receiver: Receiver<Event>,
    wake: Arc<OwnedFd>,
}

impl Inbox {
    /// Both sides.
    ///
    /// # Errors
    /// When no eventfd can be made.
    pub fn new() -> io::Result<(Mailbox, Self)> {
        let (sender, receiver) = channel();
        let wake = Arc::new(rustix::event::eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?);
        let mailbox = Mailbox {
            sender,
            wake: Arc::clone(&wake),
        };
        Ok((mailbox, Self { receiver, wake }))
    }

    /// Readable while there may be events.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The next event, if there is one. `clear` first, so that none is missed.
    pub fn next(&self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }

    /// Forgets the wake-ups so far.
    pub fn clear(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
    }
}
