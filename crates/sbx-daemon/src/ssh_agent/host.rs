//! The host's SSH agent: one question, one answer.

use sbx_wire::ssh_agent::{MAX_REPLY, Reply, Request};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// It may ask a person itself, or a token that waits for a touch.
const LIMIT: Duration = Duration::from_mins(1);

/// Asks it.
///
/// # Errors
/// A sentence.
pub(super) async fn ask(socket: &Path, request: &Request) -> Result<Reply, String> {
    let asked = tokio::time::timeout(LIMIT, exchange(socket, request)).await;
    let reply = asked.map_err(|_| "the host's SSH agent does not answer".to_owned())?;
    let reply = reply.map_err(|error| format!("the host's SSH agent cannot be asked: {error}"))?;
    Reply::parse(&reply).map_err(|_| "the host's SSH agent answers something else".to_owned())
}

async fn exchange(socket: &Path, request: &Request) -> io::Result<Vec<u8>> {
    let mut agent = UnixStream::connect(socket).await?;
    agent.write_all(&request.encode()).await?;
    let mut length = [0; 4];
    agent.read_exact(&mut length).await?;
    let count = u32::from_be_bytes(length) as usize;
    if count > MAX_REPLY - length.len() {
        return Err(io::Error::other("its answer is too long"));
    }
    let mut reply = length.to_vec();
    reply.resize(length.len() + count, 0);
    agent.read_exact(&mut reply[length.len()..]).await?;
    Ok(reply)
}
