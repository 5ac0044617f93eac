//! The vhost-user protocol, the side that QEMU has (docs/interop/vhost-user.rst in QEMU's sources).

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::{Error, PATIENCE, Result};

/// Numbers of the messages that are used here.
pub mod message {
    #![expect(missing_docs, reason = "named as in the protocol's document")]
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const SET_DEVICE_STATE_FD: u32 = 42;
    pub const CHECK_DEVICE_STATE: u32 = 43;
}

/// The version of the protocol, in the flags of every message.
const VERSION: u32 = 1;
/// "Say whether it worked", in the flags.
const NEED_REPLY: u32 = 1 << 3;
/// Bytes before a message's own.
const HEAD: usize = 12;
/// Longest message that a server sends.
const LONGEST: usize = 4096;

/// A connection to a server.
#[derive(Debug)]
pub struct Vhost {
    socket: UnixStream,
    /// Whether the server says of every message if it worked.
    acknowledges: bool,
}

impl Vhost {
    /// Connects. The server must be listening.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            acknowledges: false,
        })
    }

    /// From now on, every message is acknowledged.
    pub fn acknowledged(&mut self) {
        self.acknowledges = true;
    }

    /// Whether the server has hung up is seen here.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends bytes as they are.
    pub fn send_raw(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("too many descriptors").into());
        }
        let parts = [IoSlice::new(bytes)];
        let sent = rustix::net::sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL);
        match sent {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(io::Error::other("a message was sent in part").into()),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(Error::Gone),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a message that has no answer of its own, and waits for the word that it worked where the server gives it.
    pub fn set(&self, number: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let flags = VERSION | if self.acknowledges { NEED_REPLY } else { 0 };
        self.send_raw(&frame(number, flags, body), fds)?;
        if !self.acknowledges {
            return Ok(());
        }
        match self.receive(number)? {
            0 => Ok(()),
            code => Err(Error::Wrong(format!("message {number} ended with {code}"))),
        }
    }

    /// Asks for a number.
    pub fn get(&self, number: u32) -> Result<u64> {
        self.ask(number, &[], &[])
    }

    /// Sends a message that has an answer of its own, of which the first number is returned.
    pub fn ask(&self, number: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<u64> {
        self.send_raw(&frame(number, VERSION, body), fds)?;
        self.receive(number)
    }

    fn receive(&self, number: u32) -> Result<u64> {
        let mut head = [0; HEAD];
        self.read(&mut head)?;
        let field =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let length = usize::try_from(field(8)).unwrap_or(usize::MAX);
        if field(0) != number || !(8..=LONGEST).contains(&length) {
            let what = format!("{} with {length} bytes for {number}", field(0));
            return Err(Error::Wrong(what));
        }
        let mut body = vec![0; length];
        self.read(&mut body)?;
        let first = body.first_chunk().copied().unwrap_or_default();
        Ok(u64::from_le_bytes(first))
    }

    fn read(&self, bytes: &mut [u8]) -> Result<()> {
        (&self.socket)
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Error::Gone,
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Silent,
                _ => error.into(),
            })
    }
}

/// A whole message.
fn frame(number: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = [number, flags, length].map(u32::to_le_bytes).concat();
    bytes.extend_from_slice(body);
    bytes
}
