//! The daemon's connections to supervisors. They change nothing in the sandbox; when one ends, the
//! supervisor has ended.

use crate::sandbox::{Live, Sandbox, last_exit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sbx_wire::frame::{Decoder, FrameError, encode};
use sbx_wire::session::{Reply, Request};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// Why a supervisor's words could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It speaks something else.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It is another sandbox's.
    #[error("the socket belongs to another sandbox")]
    Mixup,
}

/// One connection to a supervisor, with one request.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    decoder: Decoder,
}

impl Connection {
    /// Connects and asks.
    pub(crate) async fn open(sandbox: &Sandbox, request: &Request) -> Result<Self, LinkError> {
        let mut stream = UnixStream::connect(sandbox.supervisor_socket()).await?;
        let peer = stream.peer_cred()?.uid();
        if peer != rustix::process::geteuid().as_raw() {
            return Err(LinkError::Mixup);
        }
        stream.write_all(&encode(0, request)?).await?;
        Ok(Self {
            stream,
            decoder: Decoder::new(0),
        })
    }

    /// The next message; `None`: the supervisor closed the connection.
    pub(crate) async fn next<T: serde::de::DeserializeOwned>(
        &mut self,
    ) -> Result<Option<T>, LinkError> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(Some(message));
            }
            let mut piece = [0; 8192];
            let count = self.stream.read(&mut piece).await?;
            if count == 0 {
                return Ok(None);
            }
            self.decoder.push(&piece[..count]);
        }
    }

    /// The process that listens: a descriptor, which means this process and never a later one with its id. `None`: it
    /// has ended, or the kernel cannot tell.
    pub(crate) fn peer(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.stream.peer_cred().ok()?.pid()?)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // While its end of the connection is open it lives, so its id was not another's when we took hold of it.
        let mut ends = [PollFd::new(&self.stream, PollFlags::empty())];
        let now = Timespec::default();
        poll(&mut ends, Some(&now)).ok()?;
        (!ends[0].revents().contains(PollFlags::HUP)).then_some(process)
    }
}

/// Connects to the sandbox's supervisor and follows it in the background. `None`: there is none; else a
/// channel that closes when the supervisor has ended.
pub(crate) async fn follow(sandbox: &Arc<Sandbox>) -> Option<oneshot::Receiver<()>> {
    let connection = Connection::open(sandbox, &Request::Follow).await.ok()?;
    let (life, ended) = oneshot::channel();
    sandbox.forget_sessions();
    sandbox.live.send_replace(Live::Silent);
    let sandbox = sandbox.clone();
    tokio::spawn(async move {
        if let Err(error) = listen(&sandbox, connection).await {
            tracing::warn!(sandbox = sandbox.name, %error, "supervisor connection");
        }
        let reason = last_exit(&sandbox.dir);
        tracing::info!(sandbox = sandbox.name, reason, "supervisor has ended");
        drop(life);
        sandbox.live.send_replace(Live::Stopped(reason));
    });
    Some(ended)
}

async fn listen(sandbox: &Sandbox, mut connection: Connection) -> Result<(), LinkError> {
    let mut first = connection.next::<Reply>().await.ok().flatten();
    if first.is_none() {
        // One from before an upgrade hangs up on what it does not know.
        connection = Connection::open(sandbox, &Request::Watch).await?;
        first = connection.next().await?;
    }
    while let Some(reply) = first {
        match reply {
            Reply::Status(status) if status.id != sandbox.id => return Err(LinkError::Mixup),
            Reply::Status(status) => {
                sandbox
                    .live
                    .send_replace(Live::Up(Box::new(status), Instant::now()));
            }
            Reply::Sessions(sessions) => {
                sandbox.sessions.send_replace(sessions);
            }
            Reply::Stopped | Reply::Refused(_) => {}
        }
        first = connection.next().await?;
    }
    Ok(())
}
