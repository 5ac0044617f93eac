//! The supervisor's end of the spawner.

use super::{FLAG, News, Order};
use sbx_wire::frame::{self, Decoder, FrameError};
use std::fs::File;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::process::{Child, Command};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// The spawner is lost, and with it every helper.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It ended.
    #[error("the spawner has ended")]
    Gone,
    /// The socket failed.
    #[error("the spawner's socket: {0}")]
    Io(#[from] io::Error),
    /// It talks nonsense.
    #[error("the spawner: {0}")]
    Frame(#[from] FrameError),
}

/// Starts the spawner: this program again, with a socket as its input and the console pipe as its output.
/// Returns its process, our end of the socket, and the pipe's reading end.
///
/// # Errors
/// When a pipe, the socket pair or the process cannot be made.
pub fn launch(dir: &Path, log: &File) -> io::Result<(Child, StdStream, PipeReader)> {
    let (ours, theirs) = StdStream::pair()?;
    let (console, console_in) = io::pipe()?;
    let child = Command::new("/proc/self/exe")
        .arg(FLAG)
        .arg(dir)
        .stdin(OwnedFd::from(theirs))
        .stdout(OwnedFd::from(console_in))
        .stderr(log.try_clone()?)
        .spawn()?;
    Ok((child, ours, console))
}

/// The connected spawner. Closing it ends every helper.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    decoder: Decoder,
}

impl Link {
    /// Takes our end of the socket; needs a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking.
    pub fn new(ours: StdStream) -> io::Result<Self> {
        ours.set_nonblocking(true)?;
        Ok(Self {
            stream: UnixStream::from_std(ours)?,
            decoder: Decoder::new(0),
        })
    }

    /// Sends an order. Nearly all are a few bytes; the socket takes hundreds of them at once.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn order(&mut self, order: Order) -> Result<(), LinkError> {
        let bytes = frame::encode(0, &order)?;
        Ok(self.stream.write_all(&bytes).await?)
    }

    /// The next piece of news. Cancelling loses nothing.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn next(&mut self) -> Result<News, LinkError> {
        loop {
            if let Some(news) = self.decoder.next()? {
                return Ok(news);
            }
            let mut piece = [0; 4096];
            let count = self.stream.read(&mut piece).await?;
            if count == 0 {
                return Err(LinkError::Gone);
            }
            self.decoder.push(&piece[..count]);
        }
    }
}
