//! The load generator: a process of its own, the same for every proxy. It takes one job a line and answers each with
//! one line, on one thread: HTTP/1.1 over TLS, straight to the upstream or through `CONNECT`. Its connections are
//! Linux's, or those of a stack of its own whose frames it hands to a gateway.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::stack::Stack;
use super::upstream::{SECRET_HEADER, monotonic_us};
use crate::figure::median;

/// What the load generator is told before its first job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Set {
    /// Roots that clients trust, PEM.
    pub(crate) roots: Vec<String>,
    /// Where the upstream listens.
    pub(crate) upstream: SocketAddr,
    /// Value of the header that the proxies replace, for requests without a proxy.
    pub(crate) secret: String,
    /// The same for requests through a proxy.
    pub(crate) held: String,
    /// Where to wait for a gateway that is handed frames; none: connections are Linux's.
    pub(crate) frames: Option<PathBuf>,
}

/// One job.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Job {
    /// Opens connections and keeps them, one request done on each. Outcome: how many a second.
    Open {
        /// The proxy; none: straight to the upstream.
        via: Option<SocketAddr>,
        /// Name of the upstream.
        host: String,
        /// How many.
        connections: usize,
    },
    /// Requests on every open connection, one after the other, for this long. Outcome: requests, in `values` the
    /// median of their durations in µs and the seconds that it took.
    Requests {
        /// What is asked for.
        path: String,
        /// How long its body is.
        length: usize,
        /// How long.
        seconds: f64,
    },
    /// One event stream on each open connection. Outcome: events, in `values` how late each came, in µs.
    Events {
        /// What is asked for.
        path: String,
    },
    /// Closes what is open.
    Close,
    /// New connections, eight at a time, each with a name of its own and one request. Outcome: connections, in
    /// `values` the seconds that it took.
    NewNames {
        /// The proxy; none: straight to the upstream.
        via: Option<SocketAddr>,
        /// What follows the number in each name.
        domain: String,
        /// First number.
        first: usize,
        /// At most so many.
        most: usize,
        /// And for so long.
        seconds: f64,
    },
}

/// What came of a job.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// How many of what was asked for.
    pub(crate) count: usize,
    /// See the job.
    pub(crate) values: Vec<f64>,
    /// Why it failed.
    pub(crate) error: Option<String>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Sender = SendRequest<Empty<Bytes>>;

/// A connection, of whatever stack.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// New connections at a time.
const NEW_AT_A_TIME: usize = 8;
/// A job that stands still for this long has failed.
const STUCK: Duration = Duration::from_secs(30);

/// Runs jobs from standard input until it ends.
pub(crate) fn run() -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let mut lines = std::io::stdin().lines();
    let first = lines.next().ok_or("no set")?.map_err(|e| e.to_string())?;
    let set: Set = serde_json::from_str(&first).map_err(|e| e.to_string())?;
    let mut load = {
        let _inside = runtime.enter();
        Load::new(set).map_err(|e| e.to_string())?
    };
    for line in lines {
        let line = line.map_err(|e| e.to_string())?;
        let job: Job = serde_json::from_str(&line).map_err(|e| e.to_string())?;
        let outcome = runtime.block_on(load.do_job(job));
        let outcome = outcome.unwrap_or_else(|error| Outcome {
            error: Some(error.to_string()),
            ..Outcome::default()
        });
        let mut line = serde_json::to_string(&outcome).map_err(|e| e.to_string())?;
        line.push('\n');
        let mut stdout = std::io::stdout();
        let written = stdout.write_all(line.as_bytes());
        written
            .and_then(|()| stdout.flush())
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Waits for the gateway, and has a stack run while there are jobs.
fn start_stack(socket: &Path) -> Result<Stack, Failure> {
    let (gateway, _) = UnixListener::bind(socket)?.accept()?;
    gateway.set_nonblocking(true)?;
    let gateway = tokio::net::UnixStream::from_std(gateway)?;
    let stack = Stack::new();
    tokio::spawn(stack.clone().run(gateway));
    Ok(stack)
}

#[derive(Clone)]
struct Dialler {
    tls: TlsConnector,
    upstream: SocketAddr,
    secret: String,
    held: String,
    stack: Option<Stack>,
}

struct Load {
    dialler: Dialler,
    /// Whether the open connections go through a proxy, and their host.
    open: Vec<Sender>,
    direct: bool,
    host: String,
}

impl Load {
    fn new(set: Set) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        for root in &set.roots {
            roots.add(CertificateDer::from_pem_slice(root.as_bytes())?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A session is never taken up again: a new connection is a new one for every proxy.
        config.resumption = rustls::client::Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            dialler: Dialler {
                tls: TlsConnector::from(Arc::new(config)),
                upstream: set.upstream,
                secret: set.secret,
                held: set.held,
                stack: set.frames.as_deref().map(start_stack).transpose()?,
            },
            open: Vec::new(),
            direct: true,
            host: String::new(),
        })
    }

    async fn do_job(&mut self, job: Job) -> Result<Outcome, Failure> {
        match job {
            Job::Open {
                via,
                host,
                connections,
            } => self.open(via, host, connections).await,
            Job::Requests {
                path,
                length,
                seconds,
            } => self.requests(&path, length, seconds).await,
            Job::Events { path } => self.events(&path).await,
            Job::Close => {
                self.open.clear();
                Ok(Outcome::default())
            }
            Job::NewNames {
                via,
                domain,
                first,
                most,
                seconds,
            } => {
                let names = Names {
                    dialler: self.dialler.clone(),
                    via,
                    domain,
                    end: first + most,
                    next: std::sync::atomic::AtomicUsize::new(first),
                };
                new_names(Arc::new(names), first, seconds).await
            }
        }
    }

    async fn open(
        &mut self,
        via: Option<SocketAddr>,
        host: String,
        connections: usize,
    ) -> Result<Outcome, Failure> {
        self.open.clear();
        (self.direct, self.host) = (via.is_none(), host);
        for _ in 0..connections {
            let mut sender = self.dialler.connect(via, &self.host).await?;
            let request = self.dialler.request(&self.host, "/small", via.is_none())?;
            fetch(&mut sender, request, None).await?;
            self.open.push(sender);
        }
        Ok(Outcome {
            count: connections,
            ..Outcome::default()
        })
    }

    /// The given work on every open connection at the same time.
    async fn on_each<F, W, T>(&mut self, work: W) -> Result<Vec<T>, Failure>
    where
        W: Fn(Sender) -> F,
        F: Future<Output = Result<(Sender, T), Failure>> + Send + 'static,
        T: Send + 'static,
    {
        let tasks: Vec<_> = self
            .open
            .drain(..)
            .map(|sender| tokio::spawn(work(sender)))
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            let (sender, one) = task.await??;
            self.open.push(sender);
            all.push(one);
        }
        Ok(all)
    }

    async fn requests(
        &mut self,
        path: &str,
        length: usize,
        seconds: f64,
    ) -> Result<Outcome, Failure> {
        let request = self.dialler.request(&self.host, path, self.direct)?;
        let started = Instant::now();
        let until = started + Duration::from_secs_f64(seconds);
        let work = |mut sender: Sender| {
            let request = request.clone();
            async move {
                let mut took = Vec::new();
                while Instant::now() < until {
                    let before = Instant::now();
                    fetch(&mut sender, request.clone(), Some(length)).await?;
                    took.push(before.elapsed().as_secs_f64() * 1e6);
                }
                Ok((sender, took))
            }
        };
        let took: Vec<f64> = self.on_each(work).await?.into_iter().flatten().collect();
        Ok(Outcome {
            count: took.len(),
            values: vec![median(&took), started.elapsed().as_secs_f64()],
            error: None,
        })
    }

    async fn events(&mut self, path: &str) -> Result<Outcome, Failure> {
        let request = self.dialler.request(&self.host, path, self.direct)?;
        let work = |mut sender: Sender| {
            let request = request.clone();
            async move {
                let late = events(&mut sender, request).await?;
                Ok((sender, late))
            }
        };
        let values: Vec<f64> = self.on_each(work).await?.into_iter().flatten().collect();
        Ok(Outcome {
            count: values.len(),
            values,
            error: None,
        })
    }
}

impl Dialler {
    async fn connect(&self, via: Option<SocketAddr>, host: &str) -> Result<Sender, Failure> {
        let connected = self.connect_tls(via, host);
        let stream = tokio::time::timeout(STUCK, connected).await??;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn connect_tls(
        &self,
        via: Option<SocketAddr>,
        host: &str,
    ) -> Result<tokio_rustls::client::TlsStream<Box<dyn Connection>>, Failure> {
        let mut stream = self.connect_tcp(via.unwrap_or(self.upstream)).await?;
        if via.is_some() {
            let target = format!("{host}:{}", self.upstream.port());
            let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                // A byte at a time, so that nothing of what follows is taken away.
                answer.push(stream.read_u8().await?);
            }
            if !answer.starts_with(b"HTTP/1.1 200") && !answer.starts_with(b"HTTP/1.0 200") {
                let answer = String::from_utf8_lossy(&answer);
                return Err(format!("CONNECT {target}: {answer}").into());
            }
        }
        let name = ServerName::try_from(host.to_owned())?;
        Ok(self.tls.connect(name, stream).await?)
    }

    async fn connect_tcp(&self, to: SocketAddr) -> Result<Box<dyn Connection>, Failure> {
        match (&self.stack, to) {
            (Some(stack), SocketAddr::V4(to)) => Ok(Box::new(stack.connect(to).await?)),
            _ => {
                let stream = TcpStream::connect(to).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }

    /// Through a proxy the request carries what the guest would hold; the upstream insists on the secret.
    fn request(
        &self,
        host: &str,
        path: &str,
        direct: bool,
    ) -> Result<Request<Empty<Bytes>>, Failure> {
        let key = if direct { &self.secret } else { &self.held };
        Ok(Request::get(path)
            .header("host", format!("{host}:{}", self.upstream.port()))
            .header("user-agent", "sbx-bench")
            .header("accept", "*/*")
            .header(SECRET_HEADER, key)
            .body(Empty::new())?)
    }
}

/// One exchange. The body is read to its end and has to have the length.
async fn fetch(
    sender: &mut Sender,
    request: Request<Empty<Bytes>>,
    length: Option<usize>,
) -> Result<(), Failure> {
    let exchange = async {
        sender.ready().await?;
        let mut answer = sender.send_request(request).await?;
        let status = answer.status();
        let mut got = 0;
        while let Some(frame) = answer.frame().await {
            got += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok::<_, Failure>((status, got))
    };
    let (status, got) = tokio::time::timeout(STUCK, exchange).await??;
    if status != StatusCode::OK || length.is_some_and(|length| got != length) {
        return Err(format!("{status} with {got} bytes").into());
    }
    Ok(())
}

/// How late each event came, in µs.
async fn events(sender: &mut Sender, request: Request<Empty<Bytes>>) -> Result<Vec<f64>, Failure> {
    sender.ready().await?;
    let mut answer = sender.send_request(request).await?;
    let mut late = Vec::new();
    let mut text = Vec::new();
    while let Some(frame) = tokio::time::timeout(STUCK, answer.frame()).await? {
        let now = monotonic_us();
        text.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = text.drain(..end + 2).collect();
            let event = String::from_utf8(event)?;
            let sent: f64 = event.trim_start_matches("data:").trim().parse()?;
            late.push(now - sent);
        }
    }
    Ok(late)
}

struct Names {
    dialler: Dialler,
    via: Option<SocketAddr>,
    domain: String,
    next: std::sync::atomic::AtomicUsize,
    end: usize,
}

async fn new_names(names: Arc<Names>, first: usize, seconds: f64) -> Result<Outcome, Failure> {
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(seconds);
    let one = |names: Arc<Names>| async move {
        let mut done = 0;
        while Instant::now() < until {
            let number = names
                .next
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if number >= names.end {
                break;
            }
            let host = format!("n{number}{}", names.domain);
            let mut sender = names.dialler.connect(names.via, &host).await?;
            let request = names
                .dialler
                .request(&host, "/small", names.via.is_none())?;
            fetch(&mut sender, request, None).await?;
            done += 1;
        }
        Ok::<usize, Failure>(done)
    };
    let tasks: Vec<_> = (0..NEW_AT_A_TIME)
        .map(|_| tokio::spawn(one(names.clone())))
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    if count == 0 {
        return Err(format!("no connection from name {first} on").into());
    }
    Ok(Outcome {
        count,
        values: vec![started.elapsed().as_secs_f64()],
        error: None,
    })
}
