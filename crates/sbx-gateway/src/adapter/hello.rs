//! The first message of a TLS client, read without taking it away from whoever continues.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use rustls::server::Acceptor;
use sbx_policy::{Host, HostError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::limits;

/// First byte of a TLS handshake record (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 0x16;

/// Why a stream does not begin as TLS should.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The first byte is not that of a handshake.
    #[error("the connection does not begin with a TLS handshake")]
    NotTls,
    /// The message cannot be parsed, or is longer than the limit.
    #[error("the TLS client hello cannot be read: {0}")]
    Bad(String),
    /// The server name is not a host name.
    #[error("the TLS server name is not a host name: {0}")]
    Name(#[from] HostError),
    /// The client closed the connection or took too long.
    #[error("the client sent no complete TLS client hello")]
    Gone,
}

/// What the client said.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The server name, canonical. None: the client sent none (it may not for addresses).
    pub server_name: Option<Host>,
}

/// Reads the client hello. The stream that comes back begins with it again.
pub async fn read_hello<S>(mut stream: Prefixed<S>) -> Result<(Hello, Prefixed<S>), HelloError>
where
    S: AsyncRead + Unpin,
{
    let mut seen = Vec::new();
    let read = read_into(&mut stream, &mut seen);
    let hello = tokio::time::timeout(limits::CLIENT_HELLO, read)
        .await
        .map_err(|_| HelloError::Gone)??;
    stream.push_front(seen.into());
    Ok((hello, stream))
}

async fn read_into<S>(stream: &mut S, seen: &mut Vec<u8>) -> Result<Hello, HelloError>
where
    S: AsyncRead + Unpin,
{
    let mut acceptor = Acceptor::default();
    let mut chunk = [0; 4096];
    loop {
        let length = stream
            .read(&mut chunk)
            .await
            .map_err(|_| HelloError::Gone)?;
        if length == 0 {
            return Err(HelloError::Gone);
        }
        seen.extend_from_slice(&chunk[..length]);
        if seen[0] != HANDSHAKE {
            return Err(HelloError::NotTls);
        }
        let mut new = &chunk[..length];
        while !new.is_empty() {
            acceptor
                .read_tls(&mut new)
                .map_err(|error| HelloError::Bad(error.to_string()))?;
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    let name = accepted.client_hello().server_name().map(Host::parse);
                    return Ok(Hello {
                        server_name: name.transpose()?,
                    });
                }
                Ok(None) => {}
                Err((error, _)) => return Err(HelloError::Bad(error.to_string())),
            }
        }
        if seen.len() > limits::CLIENT_HELLO_BYTES {
            return Err(HelloError::Bad("it is too long".to_owned()));
        }
    }
}

/// A stream with bytes in front that were read already.
#[derive(Debug)]
pub struct Prefixed<S> {
    front: Bytes,
    inner: S,
}

impl<S> Prefixed<S> {
    /// A stream that begins with `front`.
    pub fn new(front: Bytes, inner: S) -> Self {
        Self { front, inner }
    }

    fn push_front(&mut self, bytes: Bytes) {
        self.front = if self.front.is_empty() {
            bytes
        } else {
            [bytes, self.front.clone()].concat().into()
        };
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The stream below, without the bytes in front.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.front.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let length = self.front.len().min(buf.remaining());
        buf.put_slice(&self.front[..length]);
        self.front.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Hello, HelloError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let read = read_hello(Prefixed::new(Bytes::new(), bytes));
        runtime.block_on(read).map(|(hello, _)| hello)
    }

    #[test]
    fn what_is_not_tls_is_told_apart_from_broken_tls() {
        assert!(matches!(
            read(b"GET / HTTP/1.1\r\n\r\n"),
            Err(HelloError::NotTls)
        ));
        assert!(matches!(
            read(&[0x16, 3, 1, 0, 4, 9, 9, 9, 9]),
            Err(HelloError::Bad(_))
        ));
        assert!(matches!(read(&[0x16, 3, 1]), Err(HelloError::Gone)));
        assert!(matches!(read(b""), Err(HelloError::Gone)));
    }
}
