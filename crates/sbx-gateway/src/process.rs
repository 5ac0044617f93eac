//! The process: what it opens, when it is jailed, how it ends.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::event::Timespec;
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit};
use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedCipherSuite};
use sbx_jail::{Jail, Profile};
use sbx_wire::gateway::GatewayFile;
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use crate::doors::Doors;
use crate::gateway::Gateway;
use crate::generation::{ConfigError, Generation, HostTrust};
use crate::limits;
use crate::log::BoundedLog;
use crate::mint::SigningKey;
use crate::netstack::{Answers, Stack};
use crate::pins::Pins;
use crate::records::Records;
use crate::{control, resolver};

/// Longest `gateway.json`, in bytes; as the control line that carries the same document.
const LONGEST_FILE: u64 = 16 << 20;

/// The file of the pins, beside the records.
const PINS: &str = "pins";

/// Where everything is.
#[derive(Debug, clap::Parser)]
#[command(
    name = "sbx-gateway",
    version,
    about = "Everything one sandbox sends to a network"
)]
pub struct Options {
    /// QEMU's listening socket for Ethernet frames
    #[arg(long)]
    pub frames: PathBuf,
    /// Socket on which the daemon sends commands
    #[arg(long)]
    pub control: PathBuf,
    /// The configuration on disk
    #[arg(long)]
    pub file: PathBuf,
    /// Where records are appended
    #[arg(long)]
    pub records: PathBuf,
    /// Log file
    #[arg(long)]
    pub log: PathBuf,
}

/// Why the process cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Something that it needs cannot be opened.
    #[error("cannot open {what} {path}: {source}")]
    Open {
        /// What it is.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The jail could not be closed.
    #[error("cannot drop privileges: {0}")]
    Jail(#[from] sbx_jail::JailError),
    /// Not even a configuration that denies everything could be made.
    #[error("cannot set up TLS: {0}")]
    Config(#[from] ConfigError),
    /// The VM's socket did not appear.
    #[error("no virtual machine listens on {path}: {source}")]
    NoVm {
        /// The socket.
        path: PathBuf,
        /// The last attempt.
        source: io::Error,
    },
    /// The runtime, a thread or the network failed.
    #[error("{what}: {source}")]
    Run {
        /// What failed.
        what: &'static str,
        /// How.
        source: io::Error,
    },
}

/// Runs until the VM closes the frame socket.
pub fn run(options: &Options) -> Result<(), ProcessError> {
    let opened = Opened::open(options)?;
    // No Unix socket can be made or connected from inside the jail: a gateway that was taken over must not reach
    // the daemon's. Commands that come meanwhile wait in the control socket's queue.
    let frames = connect_frames(&options.frames)?;
    opened.serve(|gateway, runtime, answers| {
        let doors = Arc::new(Doors::new(
            gateway.clone(),
            runtime.handle().clone(),
            answers.clone(),
        ));
        runtime.block_on(async {
            frames.set_nonblocking(true)?;
            let frames = tokio::net::UnixStream::from_std(frames)?;
            let stack = Stack::new(frames, doors, gateway, answers)?;
            stack.run().await
        })?;
        tracing::info!("the virtual machine closed the frame socket");
        Ok(())
    })
}

/// A gateway with all that it needs open, before it is jailed: everything but the way in.
pub struct Opened {
    first: Generation,
    host: HostTrust,
    records: Records,
    control: UnixListener,
    /// The only folder that stays reachable: records are rotated by name, and pins lie beside them.
    writable: PathBuf,
    pins: Pins,
}

impl Opened {
    /// Opens log, configuration, records and control socket. The frame socket is not touched.
    pub fn open(options: &Options) -> Result<Self, ProcessError> {
        start_log(&options.log)?;
        let provider = Arc::new(crypto());
        // A second installation, as tests in one process would make, changes nothing.
        let _ = provider.as_ref().clone().install_default();
        let host = HostTrust {
            roots: system_roots(),
            resolvers: system_resolvers(),
            provider,
        };
        let first = first_generation(&options.file, &host)?;
        let records =
            Records::open(&options.records).map_err(opening("the records", &options.records))?;
        let control = bind_control(&options.control)?;
        raise_descriptor_limit();
        limit_memory();
        let pins = Pins::default();
        pins.continue_in(&options.records.with_file_name(PINS), &first);
        Ok(Self {
            pins,
            first,
            host,
            records,
            control,
            writable: parent(&options.records).to_owned(),
        })
    }

    /// Closes the jail, starts threads and control, and runs `network`, on this thread, until it ends: it brings in
    /// the guest's connections.
    pub fn serve<N>(self, network: N) -> Result<(), ProcessError>
    where
        N: FnOnce(Arc<Gateway>, &Runtime, Arc<Answers>) -> io::Result<()>,
    {
        let jail = Jail::new(Profile::Gateway).connect_tcp_any();
        let enforced = jail.read_write(&self.writable).apply()?;
        let (sandbox, generation) = (&self.first.sandbox, self.first.number);
        tracing::info!(%enforced, %sandbox, generation, "started");

        let key = SigningKey::generate().map_err(ConfigError::from)?;
        let gateway = Gateway::new(self.first, self.host, key, self.records, self.pins);
        gateway.status.attached.store(true, Ordering::Relaxed);
        let runtime = runtime(&gateway).map_err(failed("cannot start the runtime"))?;
        {
            let _inside = runtime.enter();
            let control = tokio::net::UnixListener::from_std(self.control);
            let control = control.map_err(failed("cannot listen for commands"))?;
            runtime.spawn(control::serve(control, gateway.clone()));
            runtime.spawn(tell_untold(gateway.clone()));
        }
        let ended = network(gateway.clone(), &runtime, Answers::new());
        gateway.records.tell_untold();
        gateway.records.write_waiting();
        runtime.shutdown_background();
        ended.map_err(failed("the network failed"))
    }
}

fn opening(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ProcessError {
    let path = path.to_owned();
    move |source| ProcessError::Open { what, path, source }
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> ProcessError {
    move |source| ProcessError::Run { what, source }
}

/// One thread for the network and the relays alike: what they say to each other all the time wakes nobody, and a
/// sandbox's gateway takes one processor at most. It writes down what waits for that before it sleeps.
fn runtime(gateway: &Arc<Gateway>) -> io::Result<Runtime> {
    let gateway = gateway.clone();
    tokio::runtime::Builder::new_current_thread()
        .on_thread_park(move || gateway.records.write_gathered())
        .enable_all()
        .build()
}

/// Dropped packets are counted for as long as the gateway lives.
async fn tell_untold(gateway: Arc<Gateway>) {
    loop {
        tokio::time::sleep(limits::DROP_RECORD_EVERY).await;
        gateway.records.tell_untold();
    }
}

/// The folder of a file; `.` for a bare name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The library's choice, in the order that browsers have: AES-128 first, whose hash every processor of today computes in
/// hardware.
fn crypto() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let slower = |suite: &SupportedCipherSuite| {
        let name = suite.suite();
        name != CipherSuite::TLS13_AES_128_GCM_SHA256
    };
    provider.cipher_suites.sort_by_key(slower);
    provider
}

fn start_log(path: &Path) -> Result<(), ProcessError> {
    let file = BoundedLog::open(path).map_err(opening("the log", path))?;
    let filter = EnvFilter::try_from_env("SBX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        // It would say on standard error that it cannot write, and panic where that fails too: on a full disk, say.
        .log_internal_errors(false)
        .with_ansi(false)
        .with_env_filter(filter)
        .with_writer(file);
    // Fails only when there is a log already, as in tests within one process.
    let _ = log.try_init();
    Ok(())
}

fn system_roots() -> Vec<rustls::pki_types::CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::warn!(%error, "system root certificates");
    }
    found.certs
}

fn system_resolvers() -> Vec<std::net::SocketAddr> {
    match std::fs::read_to_string("/etc/resolv.conf") {
        Ok(text) => resolver::parse_resolv_conf(&text),
        Err(error) => {
            tracing::warn!(%error, "cannot read /etc/resolv.conf");
            Vec::new()
        }
    }
}

/// The file's generation, or one that denies everything and says why.
fn first_generation(path: &Path, host: &HostTrust) -> Result<Generation, ProcessError> {
    let problem = match read_file(path) {
        Ok(file) => match Generation::from_file(file, host) {
            Ok(generation) => return Ok(generation),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    tracing::error!(%problem, "no usable policy: everything is denied");
    Ok(Generation::closed(problem, host)?)
}

fn read_file(path: &Path) -> io::Result<GatewayFile> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(LONGEST_FILE + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(io::Error::other("the file is too large"));
    }
    Ok(serde_json::from_slice(&bytes)?)
}

fn bind_control(path: &Path) -> Result<UnixListener, ProcessError> {
    let what = "the control socket";
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(opening(what, path)(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(opening(what, path))?;
    let only_us = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, only_us).map_err(opening(what, path))?;
    listener
        .set_nonblocking(true)
        .map_err(opening(what, path))?;
    Ok(listener)
}

/// As many descriptors as may be had: the guest's upstreams share them with the control socket.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = ?limit.current, "the limit of open files stays");
    }
}

/// An allocation beyond it fails, which ends the process.
fn limit_memory() {
    let limit = Rlimit {
        current: Some(limits::MEMORY),
        maximum: Some(limits::MEMORY),
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Data, limit) {
        tracing::warn!(%error, "memory stays unlimited");
    }
}

/// Connects to the VM, which may still be starting. There is nothing to wait on for a socket that does
/// not exist yet, so it is tried again.
fn connect_frames(path: &Path) -> Result<UnixStream, ProcessError> {
    let started = Instant::now();
    let pause = Timespec::try_from(limits::FRAMES_RETRY).expect("milliseconds fit");
    loop {
        let error = match UnixStream::connect(path) {
            Ok(stream) => {
                // A Unix socket holds what its sender may have on its way, with the kernel's own size three of the
                // largest frames. Where this is refused it works, only slower.
                let _ = sockopt::set_socket_send_buffer_size(&stream, limits::FRAMES_SENT);
                return Ok(stream);
            }
            Err(error) => error,
        };
        if started.elapsed() > limits::FRAMES_WAIT {
            return Err(ProcessError::NoVm {
                path: path.to_owned(),
                source: error,
            });
        }
        // Cut short by a signal: tried again that much earlier.
        let _ = rustix::event::poll(&mut [], Some(&pause));
    }
}
