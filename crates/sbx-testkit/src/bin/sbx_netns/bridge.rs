//! Frames between the namespace's interface and a stream socket: a length of four bytes, big-endian, then the frame,
//! as QEMU's `-netdev stream` has it.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Longest frame that a packet socket gives: the largest MTU of a veth pair and the Ethernet header, in bytes.
const FRAME: usize = 65_535 + 14;
/// Frames are gathered up to about this many bytes before they are written, and read in pieces of this size.
const GATHERED: usize = 256 * 1024;

/// Serves one peer after the other, until the listener fails.
pub(crate) fn serve(listener: &UnixListener, packets: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        let (peer, _) = listener.accept()?;
        // What was sent while nobody was there is lost, as with a cable that was pulled.
        let mut lost = vec![0; FRAME];
        while recv(packets, &mut lost[..], RecvFlags::DONTWAIT).is_ok() {}
        std::thread::scope(|threads| {
            threads.spawn(|| {
                // However it ended: the other direction has to notice.
                let _ended = to_namespace(&peer, packets);
                let _ = peer.shutdown(Shutdown::Both);
            });
            let _ended = to_peer(&peer, packets);
            let _ = peer.shutdown(Shutdown::Both);
        });
    }
}

fn to_peer(mut peer: &UnixStream, packets: BorrowedFd<'_>) -> io::Result<()> {
    let mut gathered = vec![0; GATHERED + 4 + FRAME];
    loop {
        let mut filled = 0;
        while filled < GATHERED {
            let place = &mut gathered[filled + 4..][..FRAME];
            let length = match recv(packets, place, RecvFlags::DONTWAIT) {
                Ok((_, length)) => length,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            };
            let prefix = u32::try_from(length).map_err(io::Error::other)?;
            gathered[filled..filled + 4].copy_from_slice(&prefix.to_be_bytes());
            filled += 4 + length;
        }
        if filled > 0 {
            peer.write_all(&gathered[..filled])?;
            continue;
        }
        let mut fds = [
            PollFd::from_borrowed_fd(packets, PollFlags::IN),
            PollFd::from_borrowed_fd(peer.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut fds, None) {
            Ok(_) if fds[1].revents().is_empty() => {}
            Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn to_namespace(mut peer: &UnixStream, packets: BorrowedFd<'_>) -> io::Result<()> {
    let mut read = vec![0; GATHERED + 4 + FRAME];
    let mut filled = 0;
    loop {
        let length = peer.read(&mut read[filled..])?;
        if length == 0 {
            return Ok(());
        }
        filled += length;
        let mut at = 0;
        while let Some((prefix, rest)) = read[at..filled].split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*prefix) as usize;
            if length > FRAME {
                return Err(io::Error::other("the stream is out of step"));
            }
            let Some(frame) = rest.get(..length) else {
                break;
            };
            // A frame that cannot be sent is lost, as on any network.
            let _sent = send(packets, frame, SendFlags::empty());
            at += 4 + length;
        }
        read.copy_within(at..filled, 0);
        filled -= at;
    }
}
