//! The shares as the machine gets them: it connects to nothing itself.

use sbx_machine::args::share_fd;
use sbx_machine::snapshot::inherit_as;
use sbx_wire::launch::{Launch, sockets};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

/// Their tags, in mount order.
pub(super) fn tags(launch: &Launch) -> Vec<&str> {
    let tags = launch.shares.iter().map(|share| share.tag.as_str());
    tags.collect()
}

/// A connection to the share with this index, which must be listening and takes no other.
pub(crate) fn connect(launch: &Launch, index: usize) -> io::Result<OwnedFd> {
    let path = launch.runtime.join(sockets::share(index));
    Ok(UnixStream::connect(path)?.into())
}

/// Connections to all of them, to be inherited by a machine that boots.
pub(super) fn inherited(launch: &Launch) -> io::Result<Vec<OwnedFd>> {
    let connections = (0..launch.shares.len()).map(|index| {
        let connection = connect(launch, index)?;
        inherit_as(connection.as_fd(), share_fd(index))
    });
    connections.collect()
}
