//! The wire of a guest: Ethernet frames on a stream, each behind its length in four bytes, as QEMU speaks with a gateway.
//! A TCP/IP stack (smoltcp) takes its frames from here and puts its own here; whoever has it moves the bytes.

use std::collections::VecDeque;

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// Bytes of an Ethernet header.
const HEADER: usize = 14;
/// Bytes on their way out beyond which a stack may make no more frames.
const OUTPUT: usize = 1 << 20;

/// The frames of both ways that nobody has taken yet.
#[derive(Debug)]
pub struct Frames {
    mtu: usize,
    /// What is added up of TCP's checksums.
    checksum: Checksum,
    input: VecDeque<Vec<u8>>,
    output: Vec<u8>,
    unread: Vec<u8>,
}

impl Frames {
    /// An empty wire. `mtu`: of IP packets, in bytes.
    #[must_use]
    pub fn new(mtu: usize) -> Self {
        Self {
            mtu,
            checksum: Checksum::Both,
            input: VecDeque::new(),
            output: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// TCP's checksums of what comes are believed, as they are by whoever has a network card that checks them: smoltcp
    /// takes longer over them than over everything else.
    #[must_use]
    pub fn believing(mut self) -> Self {
        self.checksum = Checksum::Tx;
        self
    }

    /// Takes in bytes that came. `seen` is shown each frame that is whole now.
    pub fn receive(&mut self, bytes: &[u8], mut seen: impl FnMut(&[u8])) {
        let joined = (!self.unread.is_empty()).then(|| {
            self.unread.extend_from_slice(bytes);
            std::mem::take(&mut self.unread)
        });
        let mut left = joined.as_deref().unwrap_or(bytes);
        while let Some((prefix, rest)) = left.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*prefix) as usize;
            let Some((frame, behind)) = rest.split_at_checked(length) else {
                break;
            };
            seen(frame);
            self.input.push_back(frame.to_vec());
            left = behind;
        }
        self.unread = left.to_vec();
    }

    /// Bytes to be sent.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// So many of them were.
    pub fn sent(&mut self, length: usize) {
        self.output.drain(..length);
    }

    /// Puts a frame on its way as it is.
    pub fn send(&mut self, frame: &[u8]) {
        append(&mut self.output, frame.len(), |place| {
            place.copy_from_slice(frame);
        });
    }
}

fn append<R>(output: &mut Vec<u8>, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
    let prefix = u32::try_from(length).expect("a frame is far shorter than 4 GiB");
    output.extend_from_slice(&prefix.to_be_bytes());
    let start = output.len();
    output.resize(start + length, 0);
    fill(&mut output[start..])
}

/// A frame that came.
#[derive(Debug)]
pub struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a frame that goes.
#[derive(Debug)]
pub struct Room<'a>(&'a mut Vec<u8>);

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        append(self.0, length, f)
    }
}

impl Device for Frames {
    type RxToken<'a> = Received;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Room<'_>)> {
        let frame = self.input.pop_front()?;
        Some((Received(frame), Room(&mut self.output)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        (self.output.len() < OUTPUT).then_some(Room(&mut self.output))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + HEADER;
        capabilities.checksum.tcp = self.checksum;
        capabilities
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_however_the_stream_is_cut() {
        let frames: [&[u8]; 3] = [b"first", b"", b"the third"];
        let mut from = Frames::new(1500);
        for frame in frames {
            from.send(frame);
        }
        let bytes = from.output().to_vec();
        for cut in 0..=bytes.len() {
            let (mut to, mut seen) = (Frames::new(1500), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                to.receive(part, |frame| seen.push(frame.to_vec()));
            }
            assert_eq!(seen, frames, "cut at {cut}");
            let taken: Vec<_> = std::iter::from_fn(|| {
                let (frame, _) = Device::receive(&mut to, Instant::ZERO)?;
                Some(frame.0)
            })
            .collect();
            assert_eq!(taken, frames, "cut at {cut}");
        }
        from.sent(bytes.len());
        assert!(from.output().is_empty());
    }
}
