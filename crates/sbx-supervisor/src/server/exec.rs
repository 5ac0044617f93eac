//! A program that ends with its client.

use super::{Client, Context, PIECE, closed, send};
use crate::guest::Guest;
use crate::guest::session::{End, Item, Session};
use crate::state::State;
use sbx_wire::frame::{CHUNK, Decoder};
use sbx_wire::guest::{ExecRequest, ToGuest};
use sbx_wire::session::{FromClient, ToClient};
use std::collections::VecDeque;
use std::io;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Standard input that may wait here for the guest, per session, so that signals can overtake it.
const MAX_STDIN: usize = 1 << 20;

/// Runs the program. `last`: the sandbox is to end with it.
pub(super) async fn serve(
    mut client: Client,
    context: &Context,
    request: ExecRequest,
    last: bool,
) -> io::Result<()> {
    let Some(guest) = client.guest(&context.state).await? else {
        return Ok(());
    };
    let stdin = request.stdin;
    let session = match guest.exec(request, closed(&client.read)).await {
        Ok(session) => session,
        Err(error) => return client.not_started(&context.state, &error).await,
    };
    let Client {
        read,
        write,
        decoder,
        ..
    } = &mut client;
    let outcome = tokio::select! {
        outcome = to_client(write, &guest, &session, &context.state) => outcome,
        outcome = from_client(read, decoder, &guest, &session, stdin) => outcome,
    };
    if !matches!(outcome, Ok(Finished::Told)) {
        guest.hang_up(&session);
    }
    // While the program is being hung up its session is still open.
    context.state.update(|snapshot| snapshot.ending |= last);
    outcome.map(|_| ())
}

/// How one direction of a session came to its end.
enum Finished {
    /// The client knows how the program ended.
    Told,
    /// The client is gone, or knows that it does not get the program that the guest was asked for.
    Left,
}

async fn to_client(
    write: &mut OwnedWriteHalf,
    guest: &Guest,
    session: &Session,
    state: &State,
) -> io::Result<Finished> {
    let mut started = false;
    loop {
        let item = tokio::select! {
            biased;
            item = session.next() => item,
            // As whoever comes later is told: a program that has not begun is not waited for.
            why = state.stands_still(), if !started => {
                send(write, &ToClient::Lost(why)).await?;
                return Ok(Finished::Left);
            }
        };
        let last = match item {
            Item::Started => {
                started = true;
                send(write, &ToClient::Started).await?;
                continue;
            }
            Item::Output(stream, data) => {
                for piece in data.chunks(CHUNK) {
                    send(write, &ToClient::Output(stream, piece.to_vec())).await?;
                }
                let bytes = u32::try_from(data.len()).expect("at most a window waits");
                guest.passed_on(session, stream, bytes).await;
                continue;
            }
            Item::End(End::Exited(status)) => ToClient::Exited(status),
            Item::End(End::Failed(error)) => ToClient::ExecFailed(error),
            Item::End(End::Lost(why)) => ToClient::Lost(why),
        };
        send(write, &last).await?;
        return Ok(Finished::Told);
    }
}

/// Standard input that waits for the guest.
#[derive(Default)]
struct Stdin {
    waiting: VecDeque<u8>,
    /// The client has sent its last byte.
    closed: bool,
    /// The guest knows.
    told: bool,
}

async fn from_client(
    read: &mut OwnedReadHalf,
    decoder: &mut Decoder,
    guest: &Guest,
    session: &Session,
    stdin: bool,
) -> io::Result<Finished> {
    let mut input = Stdin::default();
    let mut piece = vec![0; PIECE];
    loop {
        while let Some(message) = decoder.next::<FromClient>().map_err(io::Error::other)? {
            let message = match message {
                FromClient::Stdin(data) if data.len() > CHUNK => {
                    return Err(io::Error::other("a chunk over the limit"));
                }
                FromClient::Stdin(data) => {
                    if stdin && !input.closed {
                        input.waiting.extend(data);
                    }
                    continue;
                }
                FromClient::StdinEof => {
                    input.closed = true;
                    continue;
                }
                FromClient::Resize(size) => ToGuest::Resize {
                    session: session.id(),
                    size,
                },
                FromClient::Signal(signal @ 1..=64) => ToGuest::Signal {
                    session: session.id(),
                    signal,
                },
                FromClient::Signal(_) => return Err(io::Error::other("no such signal")),
                FromClient::Detach => return Err(io::Error::other("a program has one client")),
            };
            tokio::select! {
                sent = guest.send(&message) => sent.map_err(io::Error::other)?,
                // Its guest may never read.
                () = closed(read) => return Ok(Finished::Left),
            }
        }
        let full = input.waiting.len() >= MAX_STDIN;
        let incoming = async {
            if full {
                closed(read).await;
                return Ok(0);
            }
            read.read(&mut piece).await
        };
        tokio::select! {
            count = incoming => match count? {
                0 => return Ok(Finished::Left),
                count => decoder.push(&piece[..count]),
            },
            done = forward(guest, session, &mut input), if stdin => done?,
        }
    }
}

/// Sends one piece of the waiting input, or its end. Never resolves while there is nothing to send. Cancelling
/// loses nothing: the room is reserved first, and no wait follows the taking.
async fn forward(guest: &Guest, session: &Session, input: &mut Stdin) -> io::Result<()> {
    if input.waiting.is_empty() && (input.told || !input.closed) {
        return std::future::pending().await;
    }
    if !input.waiting.is_empty() && !session.wants_stdin().await {
        // It has ended: what it never read is dropped, the other direction tells the client.
        return std::future::pending().await;
    }
    let room = guest.room().await.map_err(io::Error::other)?;
    let id = session.id();
    let message = if input.waiting.is_empty() {
        input.told = true;
        ToGuest::StdinEof { session: id }
    } else {
        let count = session.take_stdin_window(input.waiting.len().min(CHUNK));
        ToGuest::Stdin {
            session: id,
            data: input.waiting.drain(..count).collect(),
        }
    };
    room.send(&message).map_err(io::Error::other)
}
