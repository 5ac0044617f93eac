//! The device: memory and queues that QEMU has told of, requests taken from them, answers given back (vhost-user;
//! VIRTIO 1.2 sections 2.7 and 5.11).
//!
//! | file | part |
//! |---|---|
//! | `mod` | the loop: QEMU and the queues, one after the other on one thread |
//! | `frontend` | what QEMU asks of the device |
//! | `ring` | one queue |
//! | `waiting` | its requests whose answers wait |
//! | `dirty` | which pages were written, while a machine is being saved |
//! | `transfer` | the share's own state, for the same |
//!
//! What decides how much a request costs is how often the kernel is asked. So queues are looked into again before
//! anybody sleeps, the events that wake us are edge-triggered and never read, and the guest is told of several answers
//! at once if they came fast. A queue that makes no sense ends the process with the reason: nobody could be answered
//! any more, and the supervisor sees it.

mod dirty;
mod frontend;
mod ring;
mod transfer;
mod waiting;

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;
use vhost::vhost_user::{BackendReqHandler, Error as VhostError};
use vm_memory::GuestMemoryMmap;

use crate::Share;
use crate::fuse::Session;
use dirty::Dirty;
use ring::Ring;
pub use ring::RingError;
use transfer::Transfer;

/// One for requests that must not wait, one for all others.
const QUEUES: usize = 2;
/// Number of QEMU's events beside those of the queues.
const FRONTEND: u64 = QUEUES as u64;

/// Why a device ends that its guest or QEMU has not finished with.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The process has no descriptors left, most likely.
    #[error("cannot wait for the guest: {0}")]
    Wait(#[from] io::Error),
    /// QEMU sent something that is not the vhost-user protocol.
    #[error("vhost-user: {0}")]
    Protocol(VhostError),
    /// The guest gave something that cannot be served.
    #[error("queue {queue}: {error}")]
    Ring {
        /// Which of them.
        queue: usize,
        /// What is wrong.
        error: RingError,
    },
}

/// The device of one share.
struct Device {
    session: Session,
    memory: GuestMemoryMmap,
    /// Where QEMU has that memory, in which it tells of queues.
    mappings: Vec<frontend::Mapping>,
    rings: [Ring; QUEUES],
    events: OwnedFd,
    features: u64,
    dirty: Option<Dirty>,
    transfer: Option<Transfer>,
}

impl Device {
    fn new(share: Share) -> io::Result<Self> {
        Ok(Self {
            session: Session::new(share),
            memory: GuestMemoryMmap::new(),
            mappings: Vec::new(),
            rings: [Ring::new()?, Ring::new()?],
            events: epoll::create(CreateFlags::CLOEXEC)?,
            features: 0,
            dirty: None,
            transfer: None,
        })
    }

    /// Answers what is in a queue, for a turn. Returns whether there may be more.
    fn serve(&mut self, queue: usize) -> Result<bool, DeviceError> {
        let dirty = logged(self.dirty.as_ref(), self.features);
        let ring = &mut self.rings[queue];
        let served = ring.serve(&self.memory, &mut self.session, dirty);
        served.map_err(|error| DeviceError::Ring { queue, error })
    }

    /// Gives the answers whose time has come.
    fn deliver(&mut self) -> Result<(), DeviceError> {
        if self.rings.iter().all(|ring| ring.held.is_empty()) {
            return Ok(());
        }
        self.session.share().give_up();
        (0..QUEUES).try_for_each(|queue| self.deliver_in(queue, false))
    }

    fn deliver_in(&mut self, queue: usize, at_once: bool) -> Result<(), DeviceError> {
        let dirty = logged(self.dirty.as_ref(), self.features);
        let Some(ring) = self.rings.get_mut(queue) else {
            return Ok(());
        };
        let delivered = ring.deliver(&self.memory, &mut self.session, dirty, at_once);
        delivered.map_err(|error| DeviceError::Ring { queue, error })
    }

    /// How long somebody waits for an answer at most.
    fn wait_limit(&self) -> Option<Duration> {
        let waits = self.rings.iter().any(|ring| !ring.held.is_empty());
        waits.then(|| self.session.share().wait_limit())?
    }
}

/// Where what is written is to be noted.
fn logged(dirty: Option<&Dirty>, features: u64) -> Option<&Dirty> {
    dirty.filter(|_| features & frontend::LOG_ALL != 0)
}

/// Serves one QEMU until it hangs up.
pub(crate) fn run(share: Share, qemu: UnixStream) -> Result<(), DeviceError> {
    #[expect(
        clippy::arc_with_non_send_sync,
        reason = "the library wants it so; there is one thread"
    )]
    let device = Arc::new(Mutex::new(Device::new(share)?));
    let events = lock(&device).events.try_clone()?;
    watch(&events, qemu.as_fd(), FRONTEND, EventFlags::IN)?;
    let mut frontend = BackendReqHandler::from_stream(qemu, Arc::clone(&device));
    let (mut woken, mut waiting) = (Vec::with_capacity(QUEUES + 1), [false; QUEUES]);
    loop {
        let limit = if waiting.contains(&true) {
            Some(Duration::ZERO)
        } else {
            lock(&device).wait_limit()
        };
        wait(&events, limit, &mut woken)?;
        for number in woken.drain(..) {
            match usize::try_from(number) {
                Ok(queue) if queue < QUEUES => waiting[queue] = true,
                _ => match frontend.handle_request() {
                    Ok(()) => {}
                    Err(error) if is_end(&error) => return Ok(()),
                    Err(error) => return Err(DeviceError::Protocol(error)),
                },
            }
        }
        let mut device = lock(&device);
        for (queue, waiting) in waiting.iter_mut().enumerate() {
            if *waiting {
                *waiting = device.serve(queue)?;
            }
        }
        device.deliver()?;
    }
}

/// One thread: nobody else ever has it.
fn lock(device: &Mutex<Device>) -> MutexGuard<'_, Device> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether it says that QEMU has gone.
fn is_end(error: &VhostError) -> bool {
    matches!(
        error,
        VhostError::Disconnected | VhostError::PartialMessage | VhostError::SocketBroken(_)
    )
}

fn watch(events: &OwnedFd, fd: BorrowedFd<'_>, number: u64, flags: EventFlags) -> io::Result<()> {
    Ok(epoll::add(events, fd, EventData::new_u64(number), flags)?)
}

/// Waits until something has happened, at most for so long.
fn wait(events: &OwnedFd, limit: Option<Duration>, woken: &mut Vec<u64>) -> io::Result<()> {
    let mut found = Vec::with_capacity(QUEUES + 1);
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    loop {
        match epoll::wait(events, spare_capacity(&mut found), limit.as_ref()) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    woken.extend(found.iter().map(|event| event.data.u64()));
    Ok(())
}
