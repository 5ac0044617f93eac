//! Requests of a queue whose answers wait: their places in the ring and in the guest's memory.

use smallvec::SmallVec;
use virtio_queue::{DescriptorChain, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use super::dirty::Dirty;
use super::ring::{Ring, RingError};
use crate::fuse::{ChainError, Session, Waiting};

/// One of them.
pub(super) struct Held {
    head: u16,
    /// Where the guest wants the answer.
    room: Room,
    waiting: Waiting,
}

/// Buffers of such a request that are kept: an answer that waits has a few pages.
const MAX_BUFFERS: usize = 64;

/// Buffers that the guest may be written into: places and bytes.
pub(super) type Room = SmallVec<[(u64, u32); 4]>;

/// The buffers of a chain that an answer goes to.
pub(super) fn room(chain: DescriptorChain<&GuestMemoryMmap>) -> Room {
    some(chain, usize::MAX)
}

fn some(chain: DescriptorChain<&GuestMemoryMmap>, most: usize) -> Room {
    let buffers = chain.writable().filter(|buffer| buffer.len() > 0);
    buffers
        .take(most)
        .map(|buffer| (buffer.addr().0, buffer.len()))
        .collect()
}

impl Held {
    pub(super) fn new(chain: DescriptorChain<&GuestMemoryMmap>, waiting: Waiting) -> Self {
        Self {
            head: chain.head_index(),
            room: some(chain, MAX_BUFFERS),
            waiting,
        }
    }

    fn write(&self, memory: &GuestMemoryMmap, answer: &[u8]) -> Result<(), ChainError> {
        let mut left = answer;
        for (at, length) in &self.room {
            let length = usize::try_from(*length).unwrap_or(usize::MAX);
            let (now, later) = left.split_at(left.len().min(length));
            memory.write_slice(now, GuestAddress(*at))?;
            left = later;
        }
        if left.is_empty() {
            return Ok(());
        }
        Err(ChainError::Room {
            room: answer.len() - left.len(),
            answer: answer.len(),
        })
    }
}

impl Ring {
    /// Keeps a request until its answer can be given. Half as many as the queue has descriptors, so that the agent finds
    /// room for what he has to ask; beyond, the oldest look-up is answered as it is.
    pub(super) fn hold(
        &mut self,
        memory: &GuestMemoryMmap,
        session: &mut Session,
        dirty: Option<&Dirty>,
        held: Held,
    ) -> Result<(), RingError> {
        if self.held.len() >= usize::from(self.queue.size() / 2).max(1) {
            let oldest = self
                .held
                .iter()
                .position(|held| !held.waiting.is_for_news());
            let oldest = self.held.remove(oldest.unwrap_or_default());
            self.give(memory, session, dirty, &oldest, true)?;
            self.signal(memory)?;
        }
        self.held.push(held);
        Ok(())
    }

    /// Gives the answers whose time has come. `at_once`: all of them, because the queue stops.
    pub(super) fn deliver(
        &mut self,
        memory: &GuestMemoryMmap,
        session: &mut Session,
        dirty: Option<&Dirty>,
        at_once: bool,
    ) -> Result<(), RingError> {
        if self.held.is_empty() || !self.queue.ready() {
            return Ok(());
        }
        let mut given = false;
        for held in std::mem::take(&mut self.held) {
            if self.give(memory, session, dirty, &held, at_once)? {
                given = true;
            } else {
                self.held.push(held);
            }
        }
        if given {
            self.signal(memory)?;
        }
        Ok(())
    }

    /// Whether it was given.
    fn give(
        &mut self,
        memory: &GuestMemoryMmap,
        session: &mut Session,
        dirty: Option<&Dirty>,
        held: &Held,
        at_once: bool,
    ) -> Result<bool, RingError> {
        let Some(answer) = session.later(&held.waiting, at_once) else {
            return Ok(false);
        };
        held.write(memory, answer)?;
        let length = u32::try_from(answer.len()).expect("of a few KiB");
        self.finish(memory, dirty, held.head, length, &held.room)?;
        Ok(true)
    }
}
