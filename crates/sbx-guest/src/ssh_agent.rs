//! The socket on which programs inside find the host's SSH agent: each message is carried to the gateway, and its answer
//! back. What may be asked the host decides.

use crate::browser::post;
use crate::console;
use sbx_wire::ssh_agent::{MAX_REPLY, MAX_REQUEST, PATH, SOCKET};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Clients at a time. Beyond, a connection is closed at once.
const CLIENTS: usize = 32;
/// The host may ask a person.
const LIMIT: Duration = Duration::from_secs(100);
/// `SSH_AGENT_FAILURE`, with its length in front.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];
/// The agent's user and group.
const AGENT: u32 = 1000;

/// Listens for as long as the machine runs.
pub(crate) fn start() -> io::Result<()> {
    let path = Path::new(SOCKET);
    let listener = UnixListener::bind(path)?;
    chown(path, Some(AGENT), Some(AGENT))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let builder = std::thread::Builder::new().name("ssh-agent".into());
    builder.spawn(move || serve(&listener))?;
    Ok(())
}

fn serve(listener: &UnixListener) {
    let clients = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming() {
        let Ok(client) = client else {
            // Out of descriptors: the others end some time.
            std::thread::park_timeout(Duration::from_millis(100));
            continue;
        };
        if clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS {
            clients.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let counted = clients.clone();
        let spawned = std::thread::Builder::new().spawn(move || {
            // Whoever breaks off, or speaks another protocol, is not answered.
            let _ended = converse(client);
            counted.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = spawned {
            clients.fetch_sub(1, Ordering::Relaxed);
            console::debug(&format!("ssh-agent: {error}"));
        }
    }
}

fn converse(mut client: UnixStream) -> io::Result<()> {
    loop {
        let message = message(&mut client)?;
        let reply = post(PATH, &message, LIMIT, MAX_REPLY + 4096)
            .ok()
            .filter(|(status, reply)| *status == 200 && reply.len() <= MAX_REPLY)
            .map_or_else(|| FAILURE.to_vec(), |(_, reply)| reply);
        client.write_all(&reply)?;
    }
}

/// The next message, with its length in front.
fn message(client: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let count = u32::from_be_bytes(length) as usize;
    if count > MAX_REQUEST - length.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = length.to_vec();
    message.resize(length.len() + count, 0);
    client.read_exact(&mut message[length.len()..])?;
    Ok(message)
}
