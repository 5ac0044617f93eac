//! The daemon's socket, for the user's own processes only.

use std::io;
use std::time::Duration;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};

/// Pause after a failed accept (no descriptors left): connections wait in the queue meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections of the same user and closes all others.
#[derive(Debug)]
pub(crate) struct OwnUser(pub(crate) UnixListener);

impl axum::serve::Listener for OwnUser {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        let own = rustix::process::geteuid().as_raw();
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => match stream.peer_cred() {
                    Ok(peer) if peer.uid() == own => return (stream, address),
                    peer => tracing::warn!(?peer, "connection of another user refused"),
                },
                Err(error) => {
                    tracing::error!(%error, "accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
