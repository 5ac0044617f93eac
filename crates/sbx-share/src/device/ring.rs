//! One queue of the guest's (a split virtqueue, VIRTIO 1.2 section 2.7).

use std::fs::File;
use std::io;
use std::time::Instant;

use rustix::io::Errno;
use virtio_queue::{DescriptorChain, Error as QueueError, Queue, QueueOwnedT as _, QueueT as _};
use vm_memory::GuestMemoryMmap;

use super::dirty::Dirty;
use super::waiting::{Held, Room, room};
use crate::fuse::{Answered, ChainError, Request, Session};
use crate::limits::{MAX_QUEUE, SIGNAL_AFTER, TURN};

/// Why a queue cannot be served any more. Only a guest without our kernel gets there.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// Indices or places make none.
    #[error("the ring makes no sense: {0}")]
    Ring(#[from] QueueError),
    /// A request that is said to be there is not in the memory.
    #[error("the ring makes no sense: it has more requests than can be read")]
    Unreadable,
    /// A request cannot be taken or answered.
    #[error("a chain of descriptors makes no sense: {0}")]
    Chain(#[from] ChainError),
    /// The event is QEMU's.
    #[error("the guest cannot be told of an answer: {0}")]
    Signal(io::Error),
}

/// A queue, and the events of both sides.
pub(super) struct Ring {
    pub(super) queue: Queue,
    /// What the guest wakes us with. It is never read: it counts up to 2^64.
    pub(super) kick: Option<File>,
    /// What we wake the guest with.
    pub(super) call: Option<File>,
    pub(super) enabled: bool,
    /// Its kicks are among the events that are waited for.
    pub(super) watched: bool,
    /// Requests whose answers wait.
    pub(super) held: Vec<Held>,
}

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            queue: Queue::new(MAX_QUEUE).map_err(io::Error::other)?,
            kick: None,
            call: None,
            enabled: false,
            watched: false,
            held: Vec::new(),
        })
    }

    /// Whether it is to be served at all.
    pub(super) fn runs(&self) -> bool {
        self.enabled && self.queue.ready() && self.kick.is_some()
    }

    /// Answers what is in it, until there is nothing and the guest will say so when there is: `false`. `true`: this
    /// turn is over before.
    pub(super) fn serve(
        &mut self,
        memory: &GuestMemoryMmap,
        session: &mut Session,
        dirty: Option<&Dirty>,
    ) -> Result<bool, RingError> {
        if !self.runs() {
            return Ok(false);
        }
        let (mut left, mut promised) = (TURN, false);
        loop {
            self.queue.disable_notification(memory)?;
            let before = left;
            left = self.answer(memory, session, dirty, left)?;
            if left == 0 {
                return Ok(true);
            }
            // One that was not there a moment ago would have been taken now.
            if promised && left == before {
                return Err(RingError::Unreadable);
            }
            // The guest may have run meanwhile: whoever is woken on this processor runs first.
            promised = self.queue.enable_notification(memory)?;
            if !promised {
                return Ok(false);
            }
        }
    }

    /// Answers what is in it now, at most so many; the guest has been told of all of them. Returns how many are left.
    fn answer(
        &mut self,
        memory: &GuestMemoryMmap,
        session: &mut Session,
        dirty: Option<&Dirty>,
        mut left: usize,
    ) -> Result<usize, RingError> {
        // Answers of which the guest has not been told, and since when, once there is more than one.
        let (mut untold, mut since) = (false, None);
        while left > 0
            && let Some(chain) = self.next(memory)?
        {
            left -= 1;
            let head = chain.head_index();
            let copy = chain.clone();
            let request = Request::new(memory, chain)?;
            if untold && (request.is_slow() || is_long_ago(&mut since)) {
                self.signal(memory)?;
                since = None;
            }
            match session.answer(&request)? {
                Answered::Now(length) => {
                    let room = dirty.map_or_else(Room::new, |_| room(copy));
                    self.finish(memory, dirty, head, length, &room)?;
                    untold = true;
                }
                Answered::Later(waiting) => {
                    self.hold(memory, session, dirty, Held::new(copy, waiting))?;
                }
            }
        }
        if untold {
            self.signal(memory)?;
        }
        Ok(left)
    }

    /// A request was answered with so many bytes, which are in its room.
    pub(super) fn finish(
        &mut self,
        memory: &GuestMemoryMmap,
        dirty: Option<&Dirty>,
        head: u16,
        length: u32,
        room: &[(u64, u32)],
    ) -> Result<(), RingError> {
        self.queue.add_used(memory, head, length)?;
        if let Some(dirty) = dirty {
            dirty.mark_answer(room, self.queue.used_ring(), self.queue.size());
        }
        Ok(())
    }

    fn next<'m>(
        &mut self,
        memory: &'m GuestMemoryMmap,
    ) -> Result<Option<DescriptorChain<&'m GuestMemoryMmap>>, RingError> {
        Ok(self.queue.iter(memory)?.next())
    }

    /// Tells the guest of answers, unless it does not want to know.
    pub(super) fn signal(&mut self, memory: &GuestMemoryMmap) -> Result<(), RingError> {
        if !self.queue.needs_notification(memory)? {
            return Ok(());
        }
        let Some(call) = &self.call else {
            return Ok(()); // it looks by itself
        };
        match rustix::io::write(call, &1_u64.to_ne_bytes()) {
            // Full: it has not even seen the last 2^64.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(RingError::Signal(error.into())),
        }
    }
}

/// Whether the first answer that the guest has not been told of waits for too long. Time is not asked for one alone.
fn is_long_ago(since: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    now.duration_since(*since.get_or_insert(now)) > SIGNAL_AFTER
}
