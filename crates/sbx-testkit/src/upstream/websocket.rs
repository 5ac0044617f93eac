//! The server side of a WebSocket that echoes (RFC 6455), without extensions.

use std::io;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::recorder::{Event, Recorder};

/// Appended to the client's key before hashing (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Largest frame that is echoed.
const FRAME_LIMIT: u64 = 8 << 20;
/// How much of a frame's payload is written down.
const KEPT: usize = 128 << 10;

const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// Value of `Sec-WebSocket-Accept` for a key.
pub(super) fn accept_key(key: &str) -> String {
    let joined = format!("{key}{GUID}");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, joined.as_bytes()))
}

/// Sends every data frame back, answers pings, and ends with the client's close frame. `seq`: of the request that opened
/// it.
pub(super) async fn echo<S>(stream: &mut S, recorder: &Recorder, seq: u64) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let head = stream.read_u16().await?.to_be_bytes();
        let opcode = head[0] & 0x0F;
        if head[1] & 0x80 == 0 {
            return Err(io::Error::other("a client frame must be masked"));
        }
        let length = match head[1] & 0x7F {
            126 => u64::from(stream.read_u16().await?),
            127 => stream.read_u64().await?,
            short => u64::from(short),
        };
        if length > FRAME_LIMIT {
            return Err(io::Error::other("the frame is too large"));
        }
        let mut mask = [0; 4];
        stream.read_exact(&mut mask).await?;
        let mut payload = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        stream.read_exact(&mut payload).await?;
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        let kept = &payload[..payload.len().min(KEPT)];
        recorder.push(Event::Frame {
            seq,
            first: head[0],
            text: String::from_utf8_lossy(kept).into_owned(),
        });
        let opcode = if opcode == PING { PONG } else { opcode };
        // The final bit and the reserved bits come back as they were.
        stream
            .write_all(&frame(head[0] & 0xF0 | opcode, &payload))
            .await?;
        stream.flush().await?;
        if opcode == CLOSE {
            return stream.shutdown().await;
        }
    }
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..=125), _) => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend(medium.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend(payload);
    out
}
