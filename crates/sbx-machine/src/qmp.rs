//! QEMU's monitor protocol: JSON, one document a line (QEMU docs, `interop/qmp-spec`).
//!
//! The peer is QEMU, which a hostile guest may have taken over: lines are bounded, events beyond a small
//! queue are dropped, unknown documents are ignored.

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// Longest line, in bytes. The longest honest one (`query-qmp-schema`, not used) has about 300 KiB.
pub const MAX_LINE: usize = 512 << 10;
/// Events that may wait for the reader; more are dropped.
pub const EVENTS: usize = 64;
/// Commands that may wait for an answer.
const PENDING: usize = 16;

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket failed.
    #[error("QEMU's monitor: {0}")]
    Io(#[from] io::Error),
    /// QEMU has closed the monitor, e.g. because it ended.
    #[error("QEMU has closed its monitor")]
    Closed,
    /// QEMU sent something that is not the protocol.
    #[error("QEMU's monitor sent {0}")]
    Protocol(&'static str),
    /// QEMU understood and refused.
    #[error("QEMU refused {command}: {description}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's reason.
        description: String,
    },
}

/// Something that happened in QEMU, e.g. `SHUTDOWN`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Name in capitals.
    pub name: String,
    /// Details.
    pub data: Value,
}

/// A connected monitor; clones share the connection.
#[derive(Debug, Clone)]
pub struct Qmp {
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
struct Command {
    name: String,
    arguments: Value,
    descriptor: Option<OwnedFd>,
    answer: oneshot::Sender<Result<Value, QmpError>>,
}

impl Qmp {
    /// Connects, reads the greeting and negotiates capabilities. Needs a tokio runtime: the connection is
    /// served by a task of its own, which ends with the connection.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn connect(path: &Path) -> Result<(Self, mpsc::Receiver<Event>), QmpError> {
        let (read, mut write) = UnixStream::connect(path).await?.into_split();
        let mut lines = Lines::new(read);
        let greeting = lines.next().await?.ok_or(QmpError::Closed)?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Protocol("no greeting"));
        }
        send(&mut write, &json!({"execute": "qmp_capabilities", "id": 0})).await?;
        loop {
            let line = lines.next().await?.ok_or(QmpError::Closed)?;
            if line.get("id") == Some(&json!(0)) {
                result("qmp_capabilities", line)?;
                break;
            }
        }
        let (commands, queue) = mpsc::channel(PENDING);
        let (events_in, events) = mpsc::channel(EVENTS);
        tokio::spawn(serve(lines, write, queue, events_in));
        Ok((Self { commands }, events))
    }

    /// Runs one command and returns what it returns. `arguments`: an object, or null for none.
    ///
    /// # Errors
    /// See [`QmpError`]. There is no time limit here: the caller knows how long its command may take.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.run(command, arguments, None).await
    }

    /// Gives QEMU a descriptor under a name (`getfd`), for a later command to use.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn give(&self, name: &str, descriptor: OwnedFd) -> Result<(), QmpError> {
        let arguments = json!({"fdname": name});
        self.run("getfd", arguments, Some(descriptor))
            .await
            .map(drop)
    }

    async fn run(
        &self,
        command: &str,
        arguments: Value,
        descriptor: Option<OwnedFd>,
    ) -> Result<Value, QmpError> {
        let (answer, reply) = oneshot::channel();
        let command = Command {
            name: command.to_owned(),
            arguments,
            descriptor,
            answer,
        };
        self.commands
            .send(command)
            .await
            .map_err(|_| QmpError::Closed)?;
        reply.await.map_err(|_| QmpError::Closed)?
    }
}

async fn serve(
    mut lines: Lines,
    mut write: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
) {
    let mut pending: HashMap<u64, (String, oneshot::Sender<Result<Value, QmpError>>)> =
        HashMap::new();
    let mut next_id = 1u64;
    loop {
        tokio::select! {
            line = lines.next() => {
                let Ok(Some(line)) = line else { return };
                if let Some(name) = line.get("event").and_then(Value::as_str) {
                    let data = line.get("data").cloned().unwrap_or(Value::Null);
                    // A full queue means a flood; state is asked for, not collected from events.
                    let _ = events.try_send(Event { name: name.to_owned(), data });
                } else if let Some((name, answer)) =
                    line.get("id").and_then(Value::as_u64).and_then(|id| pending.remove(&id))
                {
                    // The asker may have given up waiting.
                    let _ = answer.send(result(&name, line));
                }
            }
            command = queue.recv(), if pending.len() < PENDING => {
                let Some(command) = command else { return };
                let mut document = json!({"execute": command.name, "id": next_id});
                if !command.arguments.is_null() {
                    document["arguments"] = command.arguments;
                }
                let sent = match command.descriptor {
                    Some(descriptor) => send_with(&mut write, &document, &descriptor).await,
                    None => send(&mut write, &document).await,
                };
                if let Err(error) = sent {
                    let _ = command.answer.send(Err(error));
                    return;
                }
                pending.retain(|_, (_, answer)| !answer.is_closed());
                pending.insert(next_id, (command.name, command.answer));
                next_id += 1;
            }
        }
    }
}

fn result(command: &str, mut line: Value) -> Result<Value, QmpError> {
    if let Some(value) = line.get_mut("return") {
        return Ok(value.take());
    }
    let description = line.pointer("/error/desc").and_then(Value::as_str);
    let description = description.ok_or(QmpError::Protocol("neither a result nor an error"))?;
    Err(QmpError::Refused {
        command: command.to_owned(),
        description: description.chars().take(500).collect(),
    })
}

async fn send(write: &mut OwnedWriteHalf, document: &Value) -> Result<(), QmpError> {
    let mut line = document.to_string();
    line.push('\n');
    Ok(write.write_all(line.as_bytes()).await?)
}

/// Sends a command together with a descriptor (`SCM_RIGHTS`, `unix(7)`), which goes with its first byte.
async fn send_with(
    write: &mut OwnedWriteHalf,
    document: &Value,
    descriptor: &OwnedFd,
) -> Result<(), QmpError> {
    let line = format!("{document}\n");
    let socket: &UnixStream = write.as_ref();
    let sent = socket
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let descriptors = [descriptor.as_fd()];
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            let pieces = [io::IoSlice::new(line.as_bytes())];
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            Ok(rustix::net::sendmsg(
                socket,
                &pieces,
                &mut ancillary,
                flags,
            )?)
        })
        .await?;
    Ok(write.write_all(&line.as_bytes()[sent..]).await?)
}

/// Bounded lines of JSON. Cancelling [`Lines::next`] loses nothing.
struct Lines {
    read: OwnedReadHalf,
    buffer: Vec<u8>,
    searched: usize,
}

impl Lines {
    fn new(read: OwnedReadHalf) -> Self {
        Self {
            read,
            buffer: Vec::new(),
            searched: 0,
        }
    }

    async fn next(&mut self) -> Result<Option<Value>, QmpError> {
        loop {
            if let Some(end) = self.buffer[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
                self.searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let value = serde_json::from_slice(&line);
                return Ok(Some(
                    value.map_err(|_| QmpError::Protocol("a line that is not JSON"))?,
                ));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE {
                return Err(QmpError::Protocol("an endless line"));
            }
            let mut piece = [0; 4096];
            let count = self.read.read(&mut piece).await?;
            if count == 0 {
                return Ok(None);
            }
            self.buffer.extend_from_slice(&piece[..count]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    /// A QEMU that greets, accepts capabilities and then says `lines` after the first command.
    fn qemu(lines: Vec<u8>) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket
                .write_all(b"{\"QMP\": {\"version\": {}}}\r\n")
                .await
                .unwrap();
            let mut byte = [0; 4096];
            let _ = socket.read(&mut byte).await.unwrap();
            socket
                .write_all(b"{\"event\":\"EARLY\"}\n{\"return\":{},\"id\":0}\n")
                .await
                .unwrap();
            let _ = socket.read(&mut byte).await.unwrap();
            let _ = socket.write_all(&lines).await;
            let _ = socket.read(&mut byte).await;
        });
        (dir, path)
    }

    #[tokio::test]
    async fn answers_are_matched_by_id_and_events_are_passed_on() {
        let lines = b"{\"return\":{\"x\":9},\"id\":77}\n{\"event\":\"STOP\"}\n{\"return\":{\"x\":1},\"id\":1}\n";
        let (_dir, path) = qemu(lines.to_vec());
        let (qmp, mut events) = Qmp::connect(&path).await.unwrap();
        assert_eq!(
            qmp.execute("query-status", Value::Null).await.unwrap()["x"],
            1
        );
        assert_eq!(events.recv().await.unwrap().name, "STOP");
    }

    #[tokio::test]
    async fn a_descriptor_goes_with_its_command() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let qemu = tokio::task::spawn_blocking(move || {
            let listener = listener.into_std().unwrap();
            listener.set_nonblocking(false).unwrap();
            let (socket, _) = listener.accept().unwrap();
            let answer = |text: &str| io::Write::write_all(&mut &socket, text.as_bytes()).unwrap();
            answer("{\"QMP\": {}}\n");
            let mut byte = [0; 4096];
            io::Read::read(&mut &socket, &mut byte).unwrap();
            answer("{\"return\":{},\"id\":0}\n");
            let mut text = String::new();
            loop {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = rustix::net::RecvAncillaryBuffer::new(&mut space);
                let mut bytes = [0; 4096];
                let mut pieces = [io::IoSliceMut::new(&mut bytes)];
                let flags = rustix::net::RecvFlags::empty();
                let got =
                    rustix::net::recvmsg(&socket, &mut pieces, &mut ancillary, flags).unwrap();
                text.push_str(std::str::from_utf8(&bytes[..got.bytes]).unwrap());
                for message in ancillary.drain() {
                    if let rustix::net::RecvAncillaryMessage::ScmRights(mut given) = message {
                        // Only now: nobody waits for an answer to what was not asked yet.
                        answer("{\"return\":{},\"id\":1}\n");
                        return (text, given.next().unwrap());
                    }
                }
            }
        });
        let (qmp, _events) = Qmp::connect(&path).await.unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        qmp.give("state", write).await.unwrap();
        let (text, given) = qemu.await.unwrap();
        assert!(text.contains("getfd") && text.contains("state"), "{text}");
        rustix::io::write(&given, b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&read, &mut byte).unwrap(), 1);
    }

    #[tokio::test]
    async fn refusal_carries_qemus_reason() {
        let lines =
            b"{\"error\":{\"class\":\"GenericError\",\"desc\":\"no such port\"},\"id\":1}\n";
        let (_dir, path) = qemu(lines.to_vec());
        let (qmp, _events) = Qmp::connect(&path).await.unwrap();
        let error = qmp.execute("device_add", json!({})).await.unwrap_err();
        assert!(error.to_string().contains("no such port"), "{error}");
    }

    #[tokio::test]
    async fn endless_line_ends_the_connection_instead_of_filling_memory() {
        let (_dir, path) = qemu(vec![b'x'; 4 * MAX_LINE]);
        let (qmp, _events) = Qmp::connect(&path).await.unwrap();
        let error = qmp.execute("query-status", Value::Null).await.unwrap_err();
        assert!(matches!(error, QmpError::Closed));
    }
}
