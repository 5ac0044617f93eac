//! Waiting for the kernel to find a device: its own announcements (`netlink(7)`, `NETLINK_KOBJECT_UEVENT`)
//! say when it is worth looking again.

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink};
use rustix::time::Timespec;
use std::io;
use std::time::{Duration, Instant};

/// Calls `probe` now and after each announcement until it finds something. `None` after `limit`.
///
/// # Errors
/// When announcements cannot be received.
pub(super) fn wait_for<T>(
    limit: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> io::Result<Option<T>> {
    if let Some(found) = probe() {
        return Ok(Some(found));
    }
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(netlink::KOBJECT_UEVENT),
    )?;
    rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 1))?;
    let deadline = Instant::now() + limit;
    loop {
        // Subscribed before looking: what appears from here on is announced.
        if let Some(found) = probe() {
            return Ok(Some(found));
        }
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            return Ok(None);
        };
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&socket, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut scratch = [0; 4096];
        while rustix::net::recv(&socket, &mut scratch[..], RecvFlags::empty()).is_ok() {}
    }
}
