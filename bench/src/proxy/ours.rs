//! Our gateway, fed in two ways. Through frames: the program, with clients that have a stack of their own or, `bridged`,
//! behind a namespace whose Linux kernel is the guest's and a process that carries its frames. Through a TCP port: the same library, opened, jailed and configured as the program is, with a listener in place of
//! the frame socket.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use sbx_gateway::addresses::{GATEWAY, GUEST, MTU, PREFIX};
use sbx_gateway::doors::{Client, Doors};
use sbx_gateway::process::{Opened, Options};
use sbx_policy::{CreatedVia, Decision, PolicyDocument, Protocols, ResourcePattern, Rule, Scope};
use sbx_testkit::netns::{Namespace, Options as NamespaceOptions};
use sbx_wire::gateway::{
    Answer, Command as Order, Credential, GatewayConfig, GatewayFile, PROXY_PORT, Upstream,
};
use sbx_wire::secret::SecretText;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::process::Proxy;
use super::stage::{NEW_NAMES, SECRET, Stage, free_address};
use super::upstream::SECRET_HEADER;
use crate::tool::beside;

/// Ethernet address of the guest.
pub(super) const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// The control socket has to appear within this.
const READY: Duration = Duration::from_secs(30);

/// A rule that allows one resource.
pub(crate) fn allow(number: usize, resource: &str) -> Result<Rule, String> {
    Ok(Rule {
        id: format!("bench-{number}"),
        name: None,
        scope: Scope::Global,
        decision: Decision::Allow,
        resources: vec![ResourcePattern::parse(resource).map_err(|e| e.to_string())?],
        protocols: Protocols::TCP,
        created_via: CreatedVia::Added,
        http: None,
    })
}

/// The configuration without an authority.
pub(crate) type Config = (GatewayFile, Vec<Credential>);

/// The host list as rules, every name with the credential and led to the upstream.
pub(crate) fn config(stage: &Stage, generation: u64) -> Result<Config, String> {
    let port = stage.upstream.port();
    let rules = Stage::hosts()
        .into_iter()
        .enumerate()
        .map(|(number, host)| {
            let below = format!("**{NEW_NAMES}");
            let host = if host == NEW_NAMES { below } else { host };
            allow(number, &format!("{host}:{port}"))
        });
    let rules: Result<Vec<Rule>, String> = rules.collect();
    let targets: Vec<String> = Stage::names()
        .map(|name| format!("{name}:{port}"))
        .collect();
    let overrides: BTreeMap<String, SocketAddr> = targets
        .iter()
        .map(|target| (target.clone(), stage.upstream))
        .collect();
    let file = GatewayFile {
        sandbox: "bench".to_owned(),
        policy: PolicyDocument::new(generation, rules?),
        upstream: Upstream {
            overrides,
            extra_roots_pem: vec![stage.upstream_root_pem.clone()],
            resolvers: Vec::new(),
            udp_egress: false,
        },
        credential_hosts: targets.clone(),
    };
    let credential = Credential {
        service: "bench".to_owned(),
        hosts: targets,
        header: SECRET_HEADER.to_owned(),
        format: "%s".to_owned(),
        placeholder: super::PLACEHOLDER.to_owned(),
        value: SecretText::new(SECRET.to_owned()),
        basic_user: None,
        replace: None,
        unavailable: None,
        on_demand: false,
        conversation: false,
        aws: None,
        registry: None,
    };
    Ok((file, vec![credential]))
}

/// The files of one gateway.
pub(crate) struct Place(PathBuf);

impl Place {
    /// A folder with the configuration's file.
    fn new(stage: &Stage, name: &str, file: &GatewayFile) -> Result<Self, String> {
        let place = Self(stage.folder(name)?);
        let file = serde_json::to_vec(file).map_err(|e| e.to_string())?;
        std::fs::write(place.options().file, file).map_err(|e| e.to_string())?;
        let records = place.options().records;
        let folder = records.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|e| e.to_string())?;
        Ok(place)
    }

    fn options(&self) -> Options {
        let file = |name| self.0.join(name);
        Options {
            frames: file("frames.sock"),
            control: file("control.sock"),
            file: file("gateway.json"),
            records: file("records/egress.jsonl"),
            log: file("log"),
        }
    }

    /// Has an intermediate issued for the gateway's key, which it keeps, and configures it. Seconds that the second
    /// took until it was in force.
    pub(crate) fn configure(
        &self,
        stage: &Stage,
        file: GatewayFile,
        credentials: Vec<Credential>,
    ) -> Result<f64, String> {
        let (answer, _) = self.ask(&Order::CertificateRequest)?;
        let Answer::CertificateRequest { public_key } = answer else {
            return Err(format!("the gateway names no key: {answer:?}"));
        };
        let config = GatewayConfig {
            file,
            credentials,
            withdrawn: Vec::new(),
            issuers: Vec::new(),
            authority: stage.issue(public_key)?,
        };
        match self.ask(&Order::Configure(Box::new(config)))? {
            (Answer::Configured { .. }, took) => Ok(took),
            (other, _) => Err(format!("the gateway refused: {other:?}")),
        }
    }

    /// The answer, and the seconds from sending to it.
    fn ask(&self, order: &Order) -> Result<(Answer, f64), String> {
        let mut line = serde_json::to_vec(order).map_err(|e| e.to_string())?;
        line.push(b'\n');
        let mut stream = self.control()?;
        let started = Instant::now();
        let mut answer = String::new();
        stream
            .write_all(&line)
            .and_then(|()| BufReader::new(stream).read_line(&mut answer))
            .map_err(|e| format!("control socket: {e}"))?;
        let took = started.elapsed().as_secs_f64();
        Ok((
            serde_json::from_str(&answer).map_err(|e| e.to_string())?,
            took,
        ))
    }

    fn control(&self) -> Result<UnixStream, String> {
        let started = Instant::now();
        loop {
            match UnixStream::connect(self.options().control) {
                Ok(stream) => return Ok(stream),
                Err(error) if started.elapsed() > READY => {
                    let log = std::fs::read_to_string(self.options().log).unwrap_or_default();
                    return Err(format!("no control socket: {error}\n{log}"));
                }
                // Nothing announces it.
                Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
            }
        }
    }
}

/// The program and its guest, with its configuration. `listen` makes the guest, which waits at this socket.
pub(crate) fn start_frames<T>(
    stage: &Stage,
    name: &str,
    listen: impl FnOnce(&Path) -> Result<T, String>,
) -> Result<(Proxy, T), String> {
    let (file, credentials) = config(stage, 1)?;
    let place = Place::new(stage, name, &file)?;
    let options = place.options();
    let guest = listen(&options.frames)?;
    let mut command = Command::new(beside("sbx-gateway")?);
    command.arg("--frames").arg(options.frames);
    command.arg("--control").arg(options.control);
    command.arg("--file").arg(options.file);
    command.arg("--records").arg(options.records);
    command.arg("--log").arg(options.log);
    let address = SocketAddr::from((GATEWAY, PROXY_PORT));
    let said = stage.path(&format!("{name}.out"));
    let proxy = Proxy::start("ours", &mut command, address, &said)?;
    place.configure(stage, file, credentials)?;
    Ok((proxy, guest))
}

/// A network of its own with Linux's stack, whose frames go to this socket.
pub(crate) fn namespace(frames: &Path) -> Result<Namespace, String> {
    Namespace::start(&NamespaceOptions {
        frames: frames.to_owned(),
        address: GUEST,
        prefix: PREFIX,
        gateway: GATEWAY,
        mac: GUEST_MAC,
        mtu: u16::try_from(MTU).map_err(|e| e.to_string())?,
        files: Vec::new(),
        more: Vec::new(),
    })
    .map_err(|e| e.to_string())
}

/// The library behind a TCP port. `name`: of its folder.
pub(crate) fn start_tcp(
    stage: &Stage,
    name: &str,
    (file, credentials): Config,
) -> Result<(Proxy, Place), String> {
    let place = Place::new(stage, name, &file)?;
    let address = free_address()?;
    let said = stage.path(&format!("{name}.out"));
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new(own);
    command
        .args(["part", "gateway"])
        .arg(address.port().to_string())
        .arg(&place.0);
    let proxy = Proxy::start("ours", &mut command, address, &said)?;
    place.configure(stage, file, credentials)?;
    Ok((proxy.listening(&said)?, place))
}

/// The process behind [`start_tcp`].
pub(crate) fn serve_tcp(port: &str, folder: &str) -> Result<(), String> {
    let port: u16 = port.parse().map_err(|_| "the port is not one")?;
    let place = Place(PathBuf::from(folder));
    let opened = Opened::open(&place.options()).map_err(|e| e.to_string())?;
    // Nothing can be bound from inside the jail.
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|e| e.to_string())?;
    let served = opened.serve(|gateway, runtime, answers| {
        let doors = Arc::new(Doors::new(gateway, runtime.handle().clone(), answers));
        listener.set_nonblocking(true)?;
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                tokio::spawn(doors.serve_proxy(Connection(stream)));
            }
        })
    });
    served.map_err(|e| e.to_string())
}

/// A client's TCP connection.
struct Connection(TcpStream);

impl Client for Connection {
    fn abort(self) {
        // Closed with RST.
        let _ = self.0.set_zero_linger();
    }

    async fn broken(&self) {
        // An error of its own is as good as the event.
        let _ = self.0.ready(Interest::ERROR).await;
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
