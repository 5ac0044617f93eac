//! The agent, and clients that attach to it and leave it.

use super::{Client, Context, PIECE, closed, send};
use crate::guest::session::End;
use crate::terminal::{Attached, Input, Item};
use sbx_wire::frame::{CHUNK, Decoder};
use sbx_wire::guest::Stream;
use sbx_wire::session::{FromClient, RunRequest, ToClient};
use std::io;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Starts or joins the agent and serves the client while it is attached.
pub(super) async fn serve(
    mut client: Client,
    context: &Context,
    request: RunRequest,
) -> io::Result<()> {
    let Some(guest) = client.guest(&context.state).await? else {
        return Ok(());
    };
    let size = request.start.terminal;
    let RunRequest {
        start, join, last, ..
    } = request;
    let (terminals, state) = (context.terminals.clone(), context.state.clone());
    // It goes on when whoever wants it leaves, and a guest that does not read keeps nobody.
    let starting = tokio::spawn(async move {
        let (terminal, ours) = terminals.start(&guest, start, &state).await?;
        if last && (ours || join) {
            terminal.end_the_sandbox_with_it();
        }
        Ok((terminal, ours))
    });
    let started = tokio::select! {
        started = starting => started.map_err(io::Error::other)?,
        () = closed(&client.read) => return Ok(()),
    };
    let (terminal, ours) = match started {
        Ok(started) => started,
        Err(error) => return client.not_started(&context.state, &error).await,
    };
    if !ours && !join {
        return send(&mut client.write, &ToClient::Busy).await;
    }
    if request.hold || !request.attach {
        let begun = tokio::select! {
            begun = terminal.has_started() => begun,
            // There is no end to how long a guest can take.
            () = closed(&client.read) => return Ok(()),
        };
        if request.hold && begun.is_ok() {
            context.state.update(|snapshot| snapshot.held = true);
        }
        if !request.attach {
            let last = begun.map_or_else(last_frame, |()| ToClient::Detached);
            return send(&mut client.write, &last).await;
        }
    }
    let size = size.unwrap_or_else(|| terminal.size());
    let Some(attached) = terminal.attach(size, ours) else {
        let why = "too many terminals are attached to the agent of this sandbox".to_owned();
        return send(&mut client.write, &ToClient::Lost(why)).await;
    };
    let Client {
        read,
        write,
        decoder,
        ..
    } = &mut client;
    let outcome = tokio::select! {
        outcome = to_client(write, &attached) => outcome,
        outcome = from_client(read, decoder, &attached) => outcome,
    };
    attached.detach();
    outcome
}

async fn to_client(write: &mut OwnedWriteHalf, attached: &Attached) -> io::Result<()> {
    loop {
        let last = match attached.next().await {
            Item::Started => {
                send(write, &ToClient::Started).await?;
                continue;
            }
            Item::Output(bytes) => {
                for piece in bytes.chunks(CHUNK) {
                    send(write, &ToClient::Output(Stream::Stdout, piece.to_vec())).await?;
                }
                continue;
            }
            Item::Detached => ToClient::Detached,
            Item::End(end) => last_frame(end),
        };
        return send(write, &last).await;
    }
}

fn last_frame(end: End) -> ToClient {
    match end {
        End::Exited(status) => ToClient::Exited(status),
        End::Failed(error) => ToClient::ExecFailed(error),
        End::Lost(why) => ToClient::Lost(why),
    }
}

/// Returns when the client is gone.
async fn from_client(
    read: &mut OwnedReadHalf,
    decoder: &mut Decoder,
    attached: &Attached,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut full = false;
    loop {
        while let Some(message) = decoder.next::<FromClient>().map_err(io::Error::other)? {
            match message {
                FromClient::Stdin(data) if data.len() > CHUNK => {
                    return Err(io::Error::other("a chunk over the limit"));
                }
                FromClient::Stdin(data) => full |= attached.input(&data) == Input::Full,
                // Its terminal has hung up.
                FromClient::StdinEof => return Ok(()),
                FromClient::Resize(size) => attached.resize(size),
                FromClient::Signal(signal @ 1..=64) => tokio::select! {
                    () = closed(read) => return Ok(()),
                    sent = attached.signal(signal) => sent?,
                },
                FromClient::Signal(_) => return Err(io::Error::other("no such signal")),
                FromClient::Detach => attached.leave(),
            }
        }
        if full {
            tokio::select! {
                () = closed(read) => return Ok(()),
                () = attached.room() => full = false,
            }
        }
        match read.read(&mut piece).await? {
            0 => return Ok(()),
            count => decoder.push(&piece[..count]),
        }
    }
}
