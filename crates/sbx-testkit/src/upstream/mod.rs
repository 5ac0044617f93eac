//! A general HTTP upstream and a raw TCP echo.
//!
//! | path | answer |
//! |---|---|
//! | `/echo`, `/` and others | the request as JSON: method, target, version, headers, body (up to 64 KiB) |
//! | `/sse?events=N&delay_ms=D` | an event stream, one event every `D` milliseconds |
//! | `/big?size=N` | `N` bytes, streamed |
//! | `/upload` | reads the body to its end and answers its length |
//! | `/slow?delay_ms=D` | waits, then answers as `/echo` |
//! | `/shown?coding=C&pieces=N&length` | the request's headers and body as text, in pieces of `N` bytes, compressed (`gzip`, `deflate`, `br`) or said to be, with a `Content-Length` or without; `x-api-key` also in the head |
//! | `/told?coding=C&events=N`, in any folder | an event stream of the request's headers: each event in two writes, each after the first when `/next` is asked for, compressed (`gzip`, `br`) or not |
//! | `/trailer` | `x-api-key` in a trailer |
//! | `/kept` | headers and body of the last request to `/keep` as text |
//! | `/status?code=N` | an empty answer with this status |
//! | `/cut?after=N` | promises more than the `N` bytes it sends, then cuts the connection |
//! | `/header?name=N&value=V` | an empty answer with this header (not decoded) |
//! | `/redirect?to=URL` | 302 to `URL` (not decoded) |
//! | `/moved?to=URL&coding=C` | the same to `URL?key=K`, `K` being `x-api-key`, and the body of `/shown` |
//! | `/ws` | WebSocket echo (RFC 6455; over HTTP/2, RFC 8441) |
//! | `/upgrade` | 101 to the protocol asked for, then echoes bytes as they come |

mod endpoints;
mod shown;
mod told;
mod websocket;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::recorder::Recorder;
use crate::server::{HttpServer, Running, StartError, accept, bind_tcp};
pub use crate::tls::Certificate;
use crate::tls::TestRoot;

/// Where and how to listen.
#[derive(Debug, Clone)]
pub struct Options {
    /// Loopback address; port 0 chooses a free one.
    pub listen: SocketAddr,
    /// Names of the certificate. Empty: plain HTTP.
    pub tls_names: Vec<String>,
    /// What is wrong with the certificate, if anything.
    pub certificate: Certificate,
    /// Application protocols to offer, in order of preference.
    pub alpn: Vec<String>,
    /// Where to write down what comes.
    pub recorder: Recorder,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls_names: Vec::new(),
            certificate: Certificate::Valid,
            alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
            recorder: Recorder::new(),
        }
    }
}

/// A running HTTP or HTTPS upstream. Dropping it ends it.
#[derive(Debug)]
pub struct EchoUpstream {
    address: SocketAddr,
    root_pem: Option<String>,
    recorder: Recorder,
    _running: Running,
}

impl EchoUpstream {
    /// Plain HTTP (HTTP/1.1, and HTTP/2 with prior knowledge) on a free port.
    pub fn start() -> Result<Self, StartError> {
        Self::start_with(Options::default())
    }

    /// HTTPS on a free port, with a root of its own and a certificate for these names.
    pub fn start_tls(names: &[&str]) -> Result<Self, StartError> {
        let tls_names = names.iter().map(ToString::to_string).collect();
        Self::start_with(Options {
            tls_names,
            ..Options::default()
        })
    }

    /// Starts as told.
    pub fn start_with(options: Options) -> Result<Self, StartError> {
        let mut root_pem = None;
        let mut tls = None;
        if !options.tls_names.is_empty() {
            let root = TestRoot::new("HTTP stand-in root")?;
            let names: Vec<&str> = options.tls_names.iter().map(String::as_str).collect();
            let alpn: Vec<&[u8]> = options.alpn.iter().map(String::as_bytes).collect();
            tls = Some(root.server_config_with(options.certificate, &names, &alpn)?);
            root_pem = Some(root.pem());
        }
        let (listener, address) = bind_tcp(options.listen)?;
        let recorder = options.recorder;
        let shared = recorder.clone();
        let server = HttpServer {
            name: endpoints::NAME,
            listener,
            tls,
            recorder: recorder.clone(),
        };
        let running = Running::spawn("standin-http", move || {
            server.serve(move |request| endpoints::handle(shared.clone(), request))
        })?;
        Ok(Self {
            address,
            root_pem,
            recorder,
            _running: running,
        })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The root certificate that clients must trust, as PEM; none for plain HTTP.
    pub fn root_pem(&self) -> Option<&str> {
        self.root_pem.as_deref()
    }

    /// Writes the root certificate to `path`. Plain HTTP writes an empty file.
    pub fn write_root_pem(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, self.root_pem.as_deref().unwrap_or_default())
    }

    /// What was received.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }
}

/// A TCP listener that sends back what it receives and closes its side when the client does. Dropping it
/// ends it.
#[derive(Debug)]
pub struct TcpEcho {
    address: SocketAddr,
    recorder: Recorder,
    _running: Running,
}

impl TcpEcho {
    /// Starts on a free loopback port.
    pub fn start() -> Result<Self, StartError> {
        Self::start_with(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Recorder::new())
    }

    /// Starts on the given loopback address.
    pub fn start_with(listen: SocketAddr, recorder: Recorder) -> Result<Self, StartError> {
        let (listener, address) = bind_tcp(listen)?;
        let shared = recorder.clone();
        let running = Running::spawn("standin-tcp", move || async move {
            let Ok(listener) = TcpListener::from_std(listener) else {
                return;
            };
            loop {
                let Some(mut stream) = accept(&listener, "tcp", &shared).await else {
                    continue;
                };
                tokio::spawn(async move {
                    let mut buffer = vec![0; 16 * 1024];
                    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                        if stream.write_all(&buffer[..length]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        })?;
        Ok(Self {
            address,
            recorder,
            _running: running,
        })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections and byte counts.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }
}
