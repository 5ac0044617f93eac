//! `sbx-share`: serves one directory to one virtual machine.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use clap::Parser;
use rustix::process::{Resource, Rlimit};
use sbx_share::log::BoundedLog;
use sbx_share::{GuestOwner, OpenError, Share, serve};
use sbx_workspace::Rules;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Serves one directory to one virtual machine over virtio-fs (vhost-user), then ends.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Unix socket to listen on; one that is left over is replaced.
    #[arg(long)]
    socket: PathBuf,
    /// The directory to share.
    #[arg(long)]
    root: PathBuf,
    /// Refuse every change, whatever the guest's mount flags say.
    #[arg(long)]
    read_only: bool,
    /// User id inside under which the host user appears.
    #[arg(long, default_value_t = GuestOwner::default().uid)]
    guest_uid: u32,
    /// Group id inside under which the host user's group appears.
    #[arg(long, default_value_t = GuestOwner::default().gid)]
    guest_gid: u32,
    /// What is protected and hidden in the directory, as JSON; nothing otherwise.
    #[arg(long, value_parser = rules)]
    rules: Option<Rules>,
    /// File to append to, a line of JSON each, what was tried against the rules.
    #[arg(long)]
    events: Option<PathBuf>,
    /// File to append the log to, instead of standard error.
    #[arg(long)]
    log: Option<PathBuf>,
}

/// Why the process ends without success.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot write to {path}: {source}\n  try: a file in a folder of your own")]
    Log { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Serve(#[from] serve::ServeError),
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            // The log may be a file; whoever started the process reads standard error.
            let _closed = writeln!(io::stderr(), "sbx-share: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    log_to(args.log.as_deref())?;
    abort_on_panic();
    raise_descriptor_limit();
    let owner = GuestOwner {
        uid: args.guest_uid,
        gid: args.guest_gid,
    };
    let events = args.events.as_deref().map(append_to).transpose()?;
    let share = Share::open(&args.root, owner, args.read_only)?
        .guarded(args.rules.clone().unwrap_or_default(), events)?;
    let listener = serve::listen(&args.socket)?;
    let enforced = serve::jail(&share)?;
    share.remove_left_over();
    tracing::info!(root = %args.root.display(), read_only = args.read_only, "listening; {enforced}");
    Ok(serve::serve(share, listener)?)
}

fn rules(text: &str) -> Result<Rules, serde_json::Error> {
    serde_json::from_str(text)
}

fn append_to(path: &Path) -> Result<File, Failure> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map_err(|source| Failure::Log {
        path: path.into(),
        source,
    })
}

fn log_to(path: Option<&Path>) -> Result<(), Failure> {
    let writer = match path {
        None => BoxMakeWriter::new(Mutex::new(BoundedLog::new(io::stderr()))),
        Some(path) => {
            let file = append_to(path)?;
            BoxMakeWriter::new(Mutex::new(BoundedLog::new(file)))
        }
    };
    tracing_subscriber::fmt()
        // It would say on standard error that it cannot write, and panic where that fails too: on a full disk, say.
        .log_internal_errors(false)
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .with_writer(writer)
        .init();
    Ok(())
}

/// What panicked is said in the log, whichever that is, and nothing is tidied up by code that may be wrong too.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("{panic}");
        std::process::abort();
    }));
}

/// The more files the guest may have open, the better; without it the inherited limit stands.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if let Err(error) = rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    ) {
        tracing::warn!(
            "the limit of open files stays at {:?}: {error}",
            limit.current
        );
    }
}
