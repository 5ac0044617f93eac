//! Memory, two queues and a connection: a virtio-fs device as its driver sees it.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::memory::{GUEST_BASE, MEMORY, Memory};
use super::queue::{Descriptor, NEXT, Queue, ROOM, Used, WRITE};
use super::setup::{USER_BASE, negotiate, start};
use super::vhost::{Vhost, message};
use super::wire::{ANSWER_HEAD, Data, Fields, Request};
use super::{Error, PATIENCE, Result};

/// Requests that can be on their way at once.
pub(super) const SLOTS: usize = 32;
/// Descriptors of one request at most.
const PARTS: u16 = 8;
/// Where the requests' bytes are, behind the queues.
const SLOT_BASE: u64 = GUEST_BASE + 0x1_0000;
/// From one request's bytes to the next one's.
const SLOT_ROOM: u64 = 0x12_0000;
/// Within them: the answer's head, arguments, the answer's arguments, data.
const ANSWER: u64 = 0x40;
const ARGS: u64 = 0x1000;
const ANSWER_ARGS: u64 = 0x8000;
const DATA: u64 = 0x1_0000;

/// One of the device's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// What must not wait: forgetting.
    Urgent = 0,
    /// Everything else.
    Requests = 1,
}

/// What came of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It came back, with so many bytes written.
    Back(u32),
    /// The server hung up.
    Ended,
    /// Nothing, for as long as was waited.
    Silent,
}

/// An answer. Its bytes stay in memory until the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    slot: usize,
    /// Error number, 0 for none.
    pub error: i32,
    /// Bytes behind the head.
    pub length: u32,
    room: u32,
}

/// A device, ready for requests. The file system in it was not started yet (`FUSE_INIT`).
#[derive(Debug)]
pub struct Device {
    memory: Memory,
    vhost: Vhost,
    queues: [Queue; 2],
    unique: u64,
    /// Requests that were begun, and those of them that came back.
    begun: Vec<usize>,
    back: Vec<(usize, Used)>,
}

/// A request on whose answer nobody waits yet.
#[derive(Debug)]
pub struct Begun<'a> {
    slot: usize,
    unique: u64,
    request: Request<'a>,
}

impl Device {
    /// Connects to a server that listens.
    pub fn connect(path: &Path) -> Result<Self> {
        Self::connect_with(path, 0)
    }

    /// The same with features beyond what is needed.
    pub fn connect_with(path: &Path, features: u64) -> Result<Self> {
        let mut vhost = Vhost::connect(path)?;
        negotiate(&mut vhost, features)?;
        let memory = Memory::new()?;
        let region = [GUEST_BASE, MEMORY, USER_BASE, 0].map(u64::to_le_bytes);
        let table = [1_u64.to_le_bytes().as_slice(), &region.concat()].concat();
        vhost.set(message::SET_MEM_TABLE, &table, &[memory.fd()])?;
        let queues = [Queue::new(GUEST_BASE)?, Queue::new(GUEST_BASE + ROOM)?];
        for (index, queue) in (0..).zip(&queues) {
            start(&vhost, index, queue)?;
        }
        Ok(Self {
            memory,
            vhost,
            queues,
            unique: 0,
            begun: Vec::new(),
            back: Vec::new(),
        })
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// A queue.
    pub fn queue(&mut self, which: Which) -> &mut Queue {
        &mut self.queues[which as usize]
    }

    /// The connection, for messages of any kind.
    pub fn vhost(&self) -> &Vhost {
        &self.vhost
    }

    /// A place for the bytes of chains made by hand: 1 MiB that well-formed requests leave alone once they are done.
    pub fn scratch(&self) -> u64 {
        SLOT_BASE + DATA
    }

    /// Asks one thing.
    pub fn ask(&mut self, which: Which, request: &Request<'_>) -> Result<Answer> {
        let answers = self.ask_all(which, std::slice::from_ref(request))?;
        answers.first().copied().ok_or(Error::Silent)
    }

    /// Asks at most [`SLOTS`] things at once and waits for all the answers, which are in the order of the requests.
    pub fn ask_all(&mut self, which: Which, requests: &[Request<'_>]) -> Result<Vec<Answer>> {
        if requests.len() > SLOTS {
            return Err(io::Error::other("too many requests at once").into());
        }
        let first = self.unique + 1;
        for (slot, request) in requests.iter().enumerate() {
            self.unique += 1;
            let head = self.place(which, slot, request)?;
            self.queues[which as usize].offer(&self.memory, head)?;
        }
        self.queues[which as usize].kick()?;
        let deadline = Instant::now() + PATIENCE;
        let mut answers: Vec<Option<Answer>> = vec![None; requests.len()];
        while answers.iter().any(Option::is_none) {
            let used = self.wait(which, deadline)?;
            let slot = slot_of(used);
            if self.begun.contains(&slot) {
                self.back.push((slot, used));
                continue;
            }
            let unknown = || Error::Wrong(format!("chain {} was not offered", used.head));
            let request = requests.get(slot).ok_or_else(unknown)?;
            if answers[slot].is_some() {
                return Err(Error::Wrong("one chain came back twice".into()));
            }
            let unique = first + slot as u64;
            answers[slot] = Some(self.answer(slot, unique, request, used)?);
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Asks one thing without waiting for its answer. At most a few at once: their places are those that
    /// [`Device::ask_all`] takes last.
    pub fn begin<'a>(&mut self, request: Request<'a>) -> Result<Begun<'a>> {
        let free = (0..SLOTS).rev().find(|slot| !self.begun.contains(slot));
        let slot = free.ok_or_else(|| io::Error::other("too many requests at once"))?;
        self.unique += 1;
        let head = self.place(Which::Requests, slot, &request)?;
        let queue = &mut self.queues[Which::Requests as usize];
        queue.offer(&self.memory, head)?;
        queue.kick()?;
        self.begun.push(slot);
        Ok(Begun {
            slot,
            unique: self.unique,
            request,
        })
    }

    /// Its answer, if it comes within this time.
    pub fn finish(&mut self, begun: &Begun<'_>, patience: Duration) -> Result<Option<Answer>> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(at) = self.back.iter().position(|back| back.0 == begun.slot) {
                let (slot, used) = self.back.swap_remove(at);
                self.begun.retain(|begun| *begun != slot);
                let answer = self.answer(slot, begun.unique, &begun.request, used)?;
                return Ok(Some(answer));
            }
            match self.wait(Which::Requests, deadline) {
                Ok(used) => self.back.push((slot_of(used), used)),
                Err(Error::Silent) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes a descriptor into a queue's table.
    pub fn put(&mut self, which: Which, index: u16, descriptor: &Descriptor) -> Result<()> {
        let queue = &self.queues[which as usize];
        Ok(queue.put(&self.memory, index, descriptor)?)
    }

    /// Offers the chain that begins at a descriptor written by hand, and sees what comes of it.
    pub fn offer(&mut self, which: Which, head: u16, patience: Duration) -> Result<Fate> {
        let queue = &mut self.queues[which as usize];
        queue.offer(&self.memory, head)?;
        queue.kick()?;
        self.fate(which, patience)
    }

    /// What comes of what was offered.
    pub fn fate(&mut self, which: Which, patience: Duration) -> Result<Fate> {
        match self.wait(which, Instant::now() + patience) {
            Ok(used) => Ok(Fate::Back(used.length)),
            Err(Error::Gone) => Ok(Fate::Ended),
            Err(Error::Silent) => Ok(Fate::Silent),
            Err(error) => Err(error),
        }
    }

    /// The bytes of an answer behind its head.
    pub fn body(&self, answer: &Answer) -> Result<Vec<u8>> {
        let base = slot_base(answer.slot);
        let args = answer.length.min(answer.room);
        let mut bytes = self.memory.read(base + ANSWER_ARGS, size(args))?;
        let data = size(answer.length - args);
        if data > 0 {
            bytes.extend(self.memory.read(base + DATA, data)?);
        }
        Ok(bytes)
    }

    /// Writes a request and its chain. Returns the chain's first descriptor.
    fn place(&self, which: Which, slot: usize, request: &Request<'_>) -> Result<u16> {
        let base = slot_base(slot);
        let data = request.data_length();
        let most = SLOT_ROOM - DATA;
        let too_long = request.args.len() > size(0x7000)
            || request.room > 0x8000
            || u64::from(data.max(request.data_room)) > most;
        if too_long {
            return Err(io::Error::other("a request is too long").into());
        }
        let head = request.head(self.unique);
        self.memory.write(base, &head)?;
        self.memory.write(base + ARGS, &request.args)?;
        if let Data::Bytes(bytes) = request.data {
            self.memory.write(base + DATA, bytes)?;
        }
        let answered = which == Which::Requests;
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let parts = [
            (base, length(head.len()), 0),
            (base + ARGS, length(request.args.len()), 0),
            (base + DATA, data, 0),
            (base + ANSWER, if answered { ANSWER_HEAD } else { 0 }, WRITE),
            (base + ANSWER_ARGS, request.room, WRITE),
            (base + DATA, request.data_room, WRITE),
        ];
        let parts: Vec<_> = parts.into_iter().filter(|part| part.1 > 0).collect();
        let first = u16::try_from(slot).unwrap_or(u16::MAX) * PARTS;
        for (index, &(at, length, kind)) in (first..).zip(&parts) {
            let last = usize::from(index - first) + 1 == parts.len();
            let descriptor = Descriptor {
                at,
                length,
                flags: kind | if last { 0 } else { NEXT },
                next: if last { 0 } else { index + 1 },
            };
            self.queues[which as usize].put(&self.memory, index, &descriptor)?;
        }
        Ok(first)
    }

    /// Reads the answer to a request, which must be well formed and about it.
    fn answer(&self, slot: usize, asked: u64, request: &Request<'_>, used: Used) -> Result<Answer> {
        let mut answer = Answer {
            slot,
            error: 0,
            length: 0,
            room: request.room,
        };
        if used.length == 0 {
            return Ok(answer); // some requests have none
        }
        let head = self
            .memory
            .read(slot_base(slot) + ANSWER, size(ANSWER_HEAD))?;
        let mut fields = Fields(&head);
        let (length, error, unique) = (fields.u32()?, fields.u32()?, fields.u64()?);
        let most = ANSWER_HEAD + request.room + request.data_room;
        let fits = length == used.length && (ANSWER_HEAD..=most).contains(&length);
        if !fits || unique != asked {
            let what = format!("{length} bytes of {used:?} for {unique}, op {}", request.op);
            return Err(Error::Wrong(what));
        }
        answer.error = error.cast_signed().wrapping_neg();
        if !(0..4096).contains(&answer.error) || answer.error != 0 && length != ANSWER_HEAD {
            let what = format!("error {} with {length} bytes", answer.error);
            return Err(Error::Wrong(what));
        }
        answer.length = length - ANSWER_HEAD;
        Ok(answer)
    }

    fn wait(&mut self, which: Which, deadline: Instant) -> Result<Used> {
        let mut gone = false;
        loop {
            let queue = &mut self.queues[which as usize];
            if let Some(used) = queue.used(&self.memory)? {
                return Ok(used);
            }
            if gone {
                return Err(Error::Gone);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let call = queue.call_fd();
            let mut fds = [
                PollFd::from_borrowed_fd(call, PollFlags::IN),
                PollFd::from_borrowed_fd(self.vhost.fd(), PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, Some(&left)) {
                Ok(0) => return Err(Error::Silent),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            // The server says nothing unasked. Its last answers are taken all the same.
            gone = !fds[1].revents().is_empty();
            queue.quiet()?;
        }
    }
}

/// Which request a chain was of.
fn slot_of(used: Used) -> usize {
    usize::try_from(used.head / u32::from(PARTS)).unwrap_or(usize::MAX)
}

fn slot_base(slot: usize) -> u64 {
    SLOT_BASE + slot as u64 * SLOT_ROOM
}

fn size(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
