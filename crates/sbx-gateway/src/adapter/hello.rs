//! The first message of a TLS client, read without taking it away from whoever continues.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use rustls::CipherSuite;
use rustls::server::{Accepted, Acceptor, ClientHello};
use sbx_policy::{Host, HostError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::written::written_as_it_is;
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
    /// The client began it and did not end it within the limit.
    #[error("the TLS client hello was not complete in time")]
    Slow,
    /// The client closed the connection, or said nothing within the limit.
    #[error("the client sent no complete TLS client hello")]
    Gone,
}

/// What the client said.
pub struct Hello {
    /// The server name, canonical. None: the client sent none (it may not for addresses).
    pub server_name: Option<Host>,
    /// Which versions of HTTP it speaks.
    pub offers: Offers,
    /// Its first cipher suite is ChaCha20: it has no hardware for AES, so that its own order counts.
    pub likes_chacha: bool,
    /// To go on with the handshake.
    pub accepted: Accepted,
    /// The bytes that were read, to pass them on unopened.
    pub seen: Bytes,
}

/// The versions of HTTP that a client says it speaks (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offers {
    /// HTTP/2.
    pub h2: bool,
    /// HTTP/1.1. A client that says nothing speaks it.
    pub h1: bool,
}

impl Offers {
    fn of(hello: &ClientHello<'_>) -> Self {
        let Some(protocols) = hello.alpn() else {
            return Self {
                h2: false,
                h1: true,
            };
        };
        let mut offers = Self::default();
        for protocol in protocols {
            offers.h2 |= protocol == b"h2";
            offers.h1 |= protocol == b"http/1.1" || protocol == b"http/1.0";
        }
        offers
    }
}

/// Reads the client hello. The stream that comes back continues behind [`Hello::seen`].
pub async fn read_hello<S>(mut stream: Prefixed<S>) -> Result<(Hello, Prefixed<S>), HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut seen = Vec::new();
    let read = read_from(&mut stream, &mut seen);
    let hello = match tokio::time::timeout(limits::CLIENT_HELLO, read).await {
        Ok(read) => read?,
        Err(_) if seen.is_empty() => return Err(HelloError::Gone),
        Err(_) => return Err(HelloError::Slow),
    };
    Ok((hello, stream))
}

async fn read_from<S>(stream: &mut Prefixed<S>, seen: &mut Vec<u8>) -> Result<Hello, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
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
        let mut new = &chunk[..length];
        if seen.is_empty() && new[0] != HANDSHAKE {
            return Err(HelloError::NotTls);
        }
        while !new.is_empty() {
            let before = new;
            acceptor
                .read_tls(&mut new)
                .map_err(|error| HelloError::Bad(error.to_string()))?;
            seen.extend_from_slice(&before[..before.len() - new.len()]);
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    stream.push_front(Bytes::copy_from_slice(new));
                    return hello(accepted, std::mem::take(seen));
                }
                Ok(None) => {}
                Err((error, mut alert)) => {
                    let mut bytes = Vec::new();
                    // The client is told as well as may be.
                    if alert.write_all(&mut bytes).is_ok() {
                        let _ = stream.write_all(&bytes).await;
                        let _ = stream.shutdown().await;
                    }
                    return Err(HelloError::Bad(error.to_string()));
                }
            }
        }
        if seen.len() > limits::CLIENT_HELLO_BYTES {
            return Err(HelloError::Bad("it is too long".to_owned()));
        }
    }
}

fn hello(accepted: Accepted, seen: Vec<u8>) -> Result<Hello, HelloError> {
    if newest_version(&seen).is_none_or(|version| version < TLS_1_2) {
        return Err(HelloError::Bad("TLS below version 1.2".to_owned()));
    }
    let said = accepted.client_hello();
    let server_name = said.server_name().map(Host::parse).transpose()?;
    let offers = Offers::of(&said);
    // Values that nobody knows come first by custom (RFC 8701).
    let mut known = said
        .cipher_suites()
        .iter()
        .filter(|suite| suite.as_str().is_some());
    let likes_chacha = known.next() == Some(&CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    Ok(Hello {
        likes_chacha,
        server_name,
        offers,
        accepted,
        seen: seen.into(),
    })
}

/// TLS 1.2 as `legacy_version` says it (RFC 8446, section 4.1.2); what is newer says the same.
const TLS_1_2: u16 = 0x0303;

/// `legacy_version` of a client hello, the newest that a client of TLS 1.2 or older speaks. The parser does not say it.
fn newest_version(records: &[u8]) -> Option<u16> {
    // A message may lie in several records: type, version and length before each, then a part of it, which begins with
    // its own type and length (RFC 8446, sections 4 and 5.1).
    let (mut message, mut rest) = (Vec::new(), records);
    while message.len() < 6 {
        let (head, behind) = rest.split_first_chunk::<5>()?;
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        message.extend(behind.iter().take(length));
        rest = behind.get(length..).unwrap_or_default();
    }
    Some(u16::from_be_bytes([message[4], message[5]]))
}

/// A stream with bytes in front that were read already.
#[derive(Debug)]
pub struct Prefixed<S> {
    front: Bytes,
    inner: S,
}

impl<S> Prefixed<S> {
    /// What was read already, and the stream.
    pub fn into_parts(self) -> (Bytes, S) {
        (self.front, self.inner)
    }

    /// A stream that begins with `front`.
    pub fn new(front: Bytes, inner: S) -> Self {
        Self { front, inner }
    }

    /// Puts bytes before everything that is still to be read.
    pub fn push_front(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
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

written_as_it_is!(Prefixed);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Hello, HelloError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let stream = tokio::io::join(bytes, tokio::io::sink());
        let read = read_hello(Prefixed::new(Bytes::new(), stream));
        runtime.block_on(read).map(|(hello, _)| hello)
    }

    /// A client hello of a client that offers these protocols, in one record.
    fn client_hello(alpn: &[&[u8]]) -> Vec<u8> {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let name = "a.test".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
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

    #[test]
    fn a_client_says_which_versions_of_http_it_speaks() {
        for (alpn, h2, h1) in [
            (&[][..], false, true),
            (&[&b"h2"[..]], true, false),
            (&[b"http/1.1"], false, true),
            (&[b"h2", b"http/1.1"], true, true),
            (&[b"acme-tls/1"], false, false),
        ] {
            let hello = read(&client_hello(alpn)).ok().unwrap();
            assert_eq!(hello.offers, Offers { h2, h1 }, "{alpn:?}");
            assert_eq!(hello.server_name, Some(Host::parse("a.test").unwrap()));
            assert_eq!(hello.seen, client_hello_length(&hello.seen));
        }
    }

    /// The bytes up to the end of the first record.
    fn client_hello_length(seen: &[u8]) -> &[u8] {
        &seen[..5 + usize::from(u16::from_be_bytes([seen[3], seen[4]]))]
    }

    #[test]
    fn a_client_that_speaks_nothing_newer_than_tls_1_1_is_refused_in_whatever_records() {
        let good = client_hello(&[]);
        for (minor, refused) in [(0, true), (1, true), (2, true), (3, false)] {
            let mut hello = good.clone();
            hello[10] = minor;
            let (head, message) = hello.split_at(5);
            // The same in records of three bytes, so that the version is torn.
            let mut torn = Vec::new();
            for piece in message.chunks(3) {
                torn.extend_from_slice(&[head[0], head[1], head[2], 0]);
                torn.push(u8::try_from(piece.len()).unwrap());
                torn.extend_from_slice(piece);
            }
            for bytes in [&hello, &torn] {
                let read = read(bytes);
                assert_eq!(matches!(read, Err(HelloError::Bad(_))), refused, "{minor}");
            }
        }
    }
}
