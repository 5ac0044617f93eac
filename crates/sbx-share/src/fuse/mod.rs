//! The guest's requests, decoded and answered (FUSE 7.38, `include/uapi/linux/fuse.h`).
//!
//! | file | part |
//! |---|---|
//! | `mod` | a request from its chain of descriptors to its answer |
//! | `buffers` | the chain's buffers in the guest's memory |
//! | `args` | arguments, and an answer on its way |
//! | `requests` | one function a request: the mount, names, attributes |
//! | `content` | the same: open files and what is in them |
//! | `listing` | the answers that list a directory |
//! | `later` | answers that wait for something |
//!
//! Buffers are kept from one request to the next and an answer is copied into the guest's memory once. A request that
//! makes no sense is refused (`EINVAL`); a chain that makes none is an error of the whole device.

mod args;
mod buffers;
mod content;
mod later;
mod listing;
mod requests;

use std::io;

use rustix::io::Errno;
use virtio_queue::DescriptorChain;
use virtiofsd::fuse::{InHeader, Opcode, WriteIn};
use vm_memory::{ByteValued as _, GuestMemoryMmap};

use crate::limits::MAX_ARGUMENTS;
use crate::share::Share;
use args::{Answer, Args};
use buffers::Buffers;
use later::Waits;
use requests::Call;

pub use buffers::ChainError;
pub use later::{Answered, Waiting};

/// Bytes of a request's head.
const HEAD: usize = size_of::<InHeader>();

/// One request, with its head read.
pub struct Request<'m> {
    head: InHeader,
    buffers: Buffers<'m>,
}

impl<'m> Request<'m> {
    /// The request of a chain.
    pub fn new(
        memory: &'m GuestMemoryMmap,
        chain: DescriptorChain<&'m GuestMemoryMmap>,
    ) -> Result<Self, ChainError> {
        let buffers = Buffers::new(memory, chain)?;
        let mut head = InHeader::default();
        if buffers.read(0, head.as_mut_slice()) {
            Ok(Self { head, buffers })
        } else {
            Err(ChainError::Short(buffers.length()))
        }
    }

    /// Whether it is likely to wait for the disk, or to take its time otherwise.
    pub(crate) fn is_slow(&self) -> bool {
        use Opcode::{CopyFileRange, Fallocate, Fsync, Fsyncdir, Write};
        let slow = [Write, Fsync, Fsyncdir, Fallocate, CopyFileRange];
        slow.iter().any(|slow| self.head.opcode == *slow as u32)
    }

    fn op(&self) -> io::Result<Opcode> {
        let op = Opcode::try_from(self.head.opcode);
        Ok(op.map_err(|()| Errno::NOSYS)?)
    }

    /// Arguments, and content that comes with them: what the head says that there is, and there is.
    fn length(&self) -> io::Result<usize> {
        let length = usize::try_from(self.head.len).unwrap_or(usize::MAX);
        match length.checked_sub(HEAD) {
            Some(rest) if length <= self.buffers.length() => Ok(rest),
            _ => Err(Errno::INVAL.into()),
        }
    }

    /// Copies the arguments.
    fn arguments(&self, op: Opcode, to: &mut Vec<u8>) -> io::Result<()> {
        let length = match (op, self.length()?) {
            // Its content stays where it is.
            (Opcode::Write, length) => length.min(size_of::<WriteIn>()),
            (_, length) if length > MAX_ARGUMENTS => return Err(Errno::TOOBIG.into()),
            (_, length) => length,
        };
        to.clear();
        to.resize(length, 0);
        if self.buffers.read(HEAD, to) {
            Ok(())
        } else {
            Err(Errno::INVAL.into())
        }
    }
}

/// What comes of a request that was carried out.
enum Done {
    /// The answer that was made.
    Answer,
    /// The same, with so many bytes of content, which are in the guest's memory.
    Content(usize),
    /// Nobody waits for an answer.
    Silently,
    /// The answer that was made, or will be, after something else.
    Later(Waits),
}

/// A share, and its guest's requests.
#[derive(Debug)]
pub struct Session {
    share: Share,
    arguments: Vec<u8>,
    answer: Answer,
}

impl Session {
    /// Begins without a mount.
    pub fn new(share: Share) -> Self {
        Self {
            share,
            arguments: Vec::new(),
            answer: Answer::default(),
        }
    }

    /// The file system.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// Carries a request out and answers, unless the answer has to wait.
    pub fn answer(&mut self, request: &Request<'_>) -> Result<Answered, ChainError> {
        self.answer.clear();
        let unique = request.head.unique;
        let (answer, content) = match self.carry_out(request) {
            Ok(Done::Silently) => return Ok(Answered::Now(0)),
            Ok(Done::Later(waits)) => return Ok(self.wait(unique, waits)),
            Ok(Done::Answer) => (self.answer.finish(unique, 0), 0),
            Ok(Done::Content(count)) => (self.answer.finish(unique, count), count),
            Err(_) if is_silent(request.head.opcode) => return Ok(Answered::Now(0)),
            Err(error) => (self.answer.refuse(unique, &error), 0),
        };
        request.buffers.write(0, answer)?;
        let length = u32::try_from(answer.len() + content);
        Ok(Answered::Now(
            length.expect("requests are bounded far below 4 GiB"),
        ))
    }

    fn carry_out(&mut self, request: &Request<'_>) -> io::Result<Done> {
        let op = request.op()?;
        if is_unknown_here(op) {
            return Err(Errno::NOSYS.into());
        }
        request.arguments(op, &mut self.arguments)?;
        let call = Call {
            share: &self.share,
            head: request.head,
            args: Args(&self.arguments),
            answer: &mut self.answer,
            buffers: &request.buffers,
        };
        call.carry_out(op)
    }
}

/// Requests that are never answered: forgetting, and what is said in passing.
fn is_silent(op: u32) -> bool {
    use Opcode::{BatchForget, Destroy, Forget, Interrupt};
    let silent = [Forget, BatchForget, Interrupt, Destroy];
    silent.iter().any(|silent| op == *silent as u32)
}

/// Requests after whose `ENOSYS` the guest stops asking; see `filesystem` for why.
fn is_unknown_here(op: Opcode) -> bool {
    matches!(
        op,
        Opcode::Setxattr
            | Opcode::Getxattr
            | Opcode::Listxattr
            | Opcode::Removexattr
            | Opcode::Flush
            | Opcode::Getlk
            | Opcode::Setlk
            | Opcode::Setlkw
            | Opcode::Bmap
            | Opcode::Ioctl
            | Opcode::Poll
            | Opcode::NotifyReply
            | Opcode::SetupMapping
            | Opcode::RemoveMapping
            | Opcode::Syncfs
            | Opcode::TmpFile
    )
}
