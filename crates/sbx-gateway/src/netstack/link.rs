//! Ethernet frames over QEMU's stream socket: a 32-bit big-endian length, then the frame. What goes on to
//! smoltcp is the IP packet in it; Ethernet is ours, so that nothing ever waits for address resolution.

use std::io;
use std::ops::Range;

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol};

use tokio::io::Interest;
use tokio::net::UnixStream;

use super::checksum;
use crate::addresses::{ETHERNET_HEADER, GATEWAY_MAC, MTU};
use crate::limits;

/// Bytes of the length prefix.
const PREFIX: usize = 4;
/// Bytes of the largest frame that is sent, with its prefix.
const LARGEST_SENT: usize = PREFIX + ETHERNET_HEADER + MTU;

/// What came out of looking for the next frame.
pub(super) enum Next {
    /// A whole frame; its place in the input.
    Frame(Range<usize>),
    /// Not yet whole.
    Wait,
}

/// The frame socket with its buffers, and the one packet that is offered to smoltcp.
pub(super) struct Link {
    stream: UnixStream,
    input: Box<[u8]>,
    /// Unread part of `input`.
    filled: Range<usize>,
    /// Rest of a frame that is too large to be looked at.
    skip: usize,
    offer: Option<Offer>,
    output: Output,
}

/// An IP packet for smoltcp.
enum Offer {
    /// In the input.
    Place(Range<usize>),
    /// One that was parked.
    Parked(Vec<u8>),
}

impl Link {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            input: vec![0; limits::FRAMES_IN].into_boxed_slice(),
            filled: 0..0,
            skip: 0,
            offer: None,
            output: Output {
                bytes: vec![0; limits::FRAMES_OUT + LARGEST_SENT].into_boxed_slice(),
                waiting: 0..0,
                peer: EthernetAddress::BROADCAST,
            },
        }
    }

    /// Waits until the VM has sent something, as long as there is room for what follows from it, or takes what waits to
    /// be written. For ever, if neither is wanted.
    pub(super) async fn ready(&self) -> io::Result<()> {
        let interest = match (self.has_room(), self.backlog() > 0) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            // Without room there is something to be written.
            (false, _) => Interest::WRITABLE,
        };
        self.stream.ready(interest).await.map(drop)
    }

    /// Reads what is there. False: the VM has closed the socket.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        if self.filled.is_empty() {
            self.filled = 0..0;
        } else if self.input.len() - self.filled.end < PREFIX + limits::FRAME {
            self.input.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
        if self.filled.end == self.input.len() {
            return Ok(true);
        }
        match self.stream.try_read(&mut self.input[self.filled.end..]) {
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

    /// Offers the IP packet in a frame of at least a header to smoltcp.
    pub(super) fn offer(&mut self, frame: Range<usize>) {
        self.offer = Some(Offer::Place(frame.start + ETHERNET_HEADER..frame.end));
    }

    /// Offers an IP packet that was kept aside.
    pub(super) fn offer_parked(&mut self, packet: Vec<u8>) {
        self.offer = Some(Offer::Parked(packet));
    }

    /// Frames go to this address from now on.
    pub(super) fn set_peer(&mut self, peer: EthernetAddress) {
        self.output.peer = peer;
    }

    /// Whether one more frame of any size may be produced.
    pub(super) fn has_room(&self) -> bool {
        self.output.has_room()
    }

    /// Bytes that wait to be written.
    pub(super) fn backlog(&self) -> usize {
        self.output.waiting.len()
    }

    /// A frame of our own around `length` bytes that `fill` writes. Without room it is left out, as any network
    /// may lose a packet.
    pub(super) fn send(
        &mut self,
        protocol: EthernetProtocol,
        length: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        if length <= MTU && self.has_room() {
            self.output.push(protocol, length, fill);
        }
    }

    /// Writes as much as the VM takes. False: the VM has closed the socket.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let output = &mut self.output;
        while !output.waiting.is_empty() {
            match self.stream.try_write(&output.bytes[output.waiting.clone()]) {
                Ok(length) => output.waiting.start += length,
                Err(error) if would_block(&error) => break,
                Err(error) if is_gone(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        output.make_room();
        Ok(true)
    }
}

/// What waits to be written.
struct Output {
    bytes: Box<[u8]>,
    waiting: Range<usize>,
    peer: EthernetAddress,
}

impl Output {
    fn has_room(&self) -> bool {
        self.waiting.len() < limits::FRAMES_OUT
            && self.bytes.len() - self.waiting.end >= LARGEST_SENT
    }

    fn push<R>(
        &mut self,
        protocol: EthernetProtocol,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let framed = ETHERNET_HEADER + length;
        // At most the MTU and a header, far below 2^32.
        let prefix = u32::try_from(framed).unwrap_or(u32::MAX).to_be_bytes();
        let start = self.waiting.end;
        self.waiting.end = start + PREFIX + framed;
        let place = &mut self.bytes[start..start + PREFIX + framed];
        let (before, frame) = place.split_at_mut(PREFIX);
        before.copy_from_slice(&prefix);
        let mut frame = EthernetFrame::new_unchecked(frame);
        frame.set_src_addr(GATEWAY_MAC);
        frame.set_dst_addr(self.peer);
        frame.set_ethertype(protocol);
        fill(frame.payload_mut())
    }

    /// Gives written bytes back. Only once they are as many as the rest that is moved, so that the work stays in
    /// proportion to the bytes sent, however little the VM takes at a time.
    fn make_room(&mut self) {
        if self.waiting.start >= self.waiting.len() {
            self.bytes.copy_within(self.waiting.clone(), 0);
            self.waiting = 0..self.waiting.len();
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

/// A received packet.
pub(super) enum Received<'a> {
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
}

impl Received<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(packet) => packet,
            Self::Owned(packet) => packet,
        }
    }
}

impl RxToken for Received<'_> {
    fn consume<R, F>(self, f: F) -> R
    where
        F: FnOnce(&[u8]) -> R,
    {
        f(self.bytes())
    }
}

/// Room for one packet.
pub(super) struct Sending<'a>(&'a mut Output);

impl TxToken for Sending<'_> {
    fn consume<R, F>(self, len: usize, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        self.0.push(EthernetProtocol::Ipv4, len, |packet| {
            let result = f(packet);
            checksum::fill(packet);
            result
        })
    }
}

impl Device for Link {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        let offer = self.offer.take()?;
        // Nothing is offered without room for the answer; if it were, it would be a lost packet.
        if !self.has_room() {
            return None;
        }
        let received = match offer {
            Offer::Place(place) => Received::Borrowed(&self.input[place]),
            Offer::Parked(packet) => Received::Owned(packet),
        };
        if !checksum::is_right(received.bytes()) {
            return None;
        }
        Some((received, Sending(&mut self.output)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        self.has_room().then_some(Sending(&mut self.output))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        // Both ways ours.
        capabilities.checksum.tcp = Checksum::None;
        capabilities
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::{Read, Write};

    fn link() -> (Link, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Link::new(UnixStream::from_std(ours).unwrap()), theirs)
    }

    #[tokio::test]
    async fn a_length_out_of_range_is_refused_before_anything_is_allocated() {
        let (mut link, mut vm) = link();
        vm.write_all(&u32::MAX.to_be_bytes()).unwrap();
        link.ready().await.unwrap();
        assert!(link.fill().unwrap());
        assert!(link.next_frame().is_err());
    }

    #[tokio::test]
    async fn a_backlog_passes_whole_through_a_buffer_that_does_not_grow() {
        const FRAMES: u8 = 100;
        let (mut link, mut vm) = link();
        let reader = std::thread::spawn(move || {
            let mut taken = Vec::new();
            vm.read_to_end(&mut taken).unwrap();
            taken
        });
        let mut sent = 0;
        while sent < FRAMES || link.backlog() > 0 {
            while sent < FRAMES
                && let Some(sending) = link.transmit(Instant::from_millis(0))
            {
                sending.consume(MTU, |packet| packet.fill(sent));
                sent += 1;
            }
            link.ready().await.unwrap();
            assert!(link.flush().unwrap());
        }
        drop(link);
        let taken = reader.join().unwrap();
        let frames: Vec<&[u8]> = taken.chunks_exact(LARGEST_SENT).collect();
        assert_eq!(frames.len(), usize::from(FRAMES));
        for (number, frame) in frames.into_iter().enumerate() {
            let packet = &frame[PREFIX + ETHERNET_HEADER..];
            let whole = packet.iter().all(|byte| usize::from(*byte) == number);
            assert!(whole, "frame {number}");
        }
    }

    #[tokio::test]
    async fn a_frame_that_is_too_large_is_skipped_and_the_next_one_is_found() {
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
            link.ready().await.unwrap();
            assert!(link.fill().unwrap());
            if let Next::Frame(place) = link.next_frame().unwrap() {
                assert_eq!(link.frame(place), b"abc");
                return;
            }
        }
    }
}
