//! Ethernet frames over QEMU's stream socket: a 32-bit big-endian length, then the frame.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::addresses::MTU;
use crate::limits;

/// Bytes of the length prefix.
const PREFIX: usize = 4;
/// Bytes of an Ethernet header.
const ETHERNET_HEADER: usize = 14;

/// What came out of looking for the next frame.
pub(super) enum Next {
    /// A whole frame; its place in the input.
    Frame(Range<usize>),
    /// Not yet whole.
    Wait,
}

/// The frame socket with its buffers, and the one frame that is offered to smoltcp.
pub(super) struct Link {
    stream: UnixStream,
    input: Box<[u8]>,
    /// Unread part of `input`.
    filled: Range<usize>,
    /// Rest of a frame that is too large to be looked at.
    skip: usize,
    staged: Option<Range<usize>>,
    /// A frame that was parked and is offered again.
    replayed: Option<Vec<u8>>,
    output: Vec<u8>,
    written: usize,
}

impl Link {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            input: vec![0; limits::FRAMES_IN].into_boxed_slice(),
            filled: 0..0,
            skip: 0,
            staged: None,
            replayed: None,
            output: Vec::new(),
            written: 0,
        })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Reads what is there. False: the VM has closed the socket.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        if self.filled.start > 0 {
            self.input.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
        if self.filled.end == self.input.len() {
            return Ok(true);
        }
        match self.stream.read(&mut self.input[self.filled.end..]) {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.filled.end += length;
                Ok(true)
            }
            Err(error) if would_block(&error) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next frame. Its length is checked before anything is done with it.
    pub(super) fn next_frame(&mut self) -> io::Result<Next> {
        loop {
            let skipped = self.skip.min(self.filled.len());
            self.skip -= skipped;
            self.filled.start += skipped;
            let Some((prefix, rest)) =
                self.input[self.filled.clone()].split_first_chunk::<PREFIX>()
            else {
                return Ok(Next::Wait);
            };
            let length = u32::from_be_bytes(*prefix) as usize;
            if length > limits::FRAME_SKIPPED {
                return Err(io::Error::other("the frame stream is out of step"));
            }
            if length > limits::FRAME {
                self.filled.start += PREFIX;
                self.skip = length;
                continue;
            }
            if rest.len() < length {
                return Ok(Next::Wait);
            }
            let start = self.filled.start + PREFIX;
            self.filled.start = start + length;
            return Ok(Next::Frame(start..start + length));
        }
    }

    /// The bytes of a frame that [`Link::next_frame`] has just found.
    pub(super) fn frame(&self, place: Range<usize>) -> &[u8] {
        &self.input[place]
    }

    /// Offers a frame to smoltcp.
    pub(super) fn stage(&mut self, place: Range<usize>) {
        self.staged = Some(place);
    }

    /// Offers a frame that was kept aside.
    pub(super) fn replay(&mut self, frame: Vec<u8>) {
        self.replayed = Some(frame);
    }

    /// Whether a frame is offered that smoltcp has not taken.
    pub(super) fn has_offer(&self) -> bool {
        self.staged.is_some() || self.replayed.is_some()
    }

    /// Whether more frames may be produced.
    pub(super) fn has_room(&self) -> bool {
        self.output.len() - self.written < limits::FRAMES_OUT
    }

    /// Whether something waits to be written.
    pub(super) fn has_output(&self) -> bool {
        self.written < self.output.len()
    }

    /// Writes as much as the VM takes. False: the VM has closed the socket.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while self.has_output() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if would_block(&error) => break,
                Err(error) if is_gone(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.forget_written();
        Ok(true)
    }

    /// Gives written bytes back, so that a backlog which never runs dry does not keep all that ever passed.
    /// Only once they are as many as the rest that is moved: the work stays in proportion to the bytes sent,
    /// and the buffer holds at most twice the backlog.
    fn forget_written(&mut self) {
        if self.written >= self.output.len() - self.written {
            self.output.drain(..self.written);
            self.written = 0;
        }
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// A received frame.
pub(super) enum Received<'a> {
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
}

impl RxToken for Received<'_> {
    fn consume<R, F>(self, f: F) -> R
    where
        F: FnOnce(&[u8]) -> R,
    {
        match self {
            Self::Borrowed(frame) => f(frame),
            Self::Owned(frame) => f(&frame),
        }
    }
}

/// Room for one frame.
pub(super) struct Sending<'a>(&'a mut Vec<u8>);

impl TxToken for Sending<'_> {
    fn consume<R, F>(self, len: usize, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        // smoltcp keeps to the MTU given below, far below 2^32.
        let prefix = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
        self.0.extend_from_slice(&prefix);
        let start = self.0.len();
        self.0.resize(start + len, 0);
        f(&mut self.0[start..])
    }
}

impl Device for Link {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        if !self.has_room() {
            return None;
        }
        let received = match self.replayed.take() {
            Some(frame) => Received::Owned(frame),
            None => Received::Borrowed(&self.input[self.staged.take()?]),
        };
        Some((received, Sending(&mut self.output)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        self.has_room().then_some(Sending(&mut self.output))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU + ETHERNET_HEADER;
        capabilities
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Link::new(ours).unwrap(), theirs)
    }

    #[test]
    fn a_length_out_of_range_is_refused_before_anything_is_allocated() {
        let (mut link, mut vm) = link();
        vm.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert!(link.fill().unwrap());
        assert!(link.next_frame().is_err());
    }

    #[test]
    fn what_was_written_is_not_kept_while_a_backlog_lasts() {
        let (mut link, mut vm) = link();
        let mut taken = 0;
        let mut piece = vec![0; 64 * 1024];
        while taken < 16 * limits::FRAMES_OUT {
            while let Some(sending) = link.transmit(Instant::from_millis(0)) {
                sending.consume(MTU, |frame| frame.fill(7));
            }
            assert!(link.flush().unwrap());
            assert!(link.has_output(), "the backlog ran dry");
            taken += vm.read(&mut piece).unwrap();
            let kept = link.output.len();
            assert!(
                kept <= 2 * (limits::FRAMES_OUT + PREFIX + MTU),
                "{kept} bytes kept"
            );
        }
    }

    #[test]
    fn a_frame_that_is_too_large_is_skipped_and_the_next_one_is_found() {
        let (mut link, mut vm) = link();
        let large = limits::FRAME + 1;
        std::thread::spawn(move || {
            vm.write_all(&u32::try_from(large).unwrap().to_be_bytes())
                .unwrap();
            vm.write_all(&vec![7; large]).unwrap();
            vm.write_all(&3_u32.to_be_bytes()).unwrap();
            vm.write_all(b"abc").unwrap();
            vm
        });
        loop {
            assert!(link.fill().unwrap());
            if let Next::Frame(place) = link.next_frame().unwrap() {
                assert_eq!(link.frame(place), b"abc");
                return;
            }
        }
    }
}
