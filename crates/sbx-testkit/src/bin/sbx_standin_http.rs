//! `sbx-standin-http`: an HTTP or HTTPS upstream on loopback that records what reaches it.
//!
//! Prints one JSON line with the bound address when ready, then serves until SIGTERM or SIGINT comes.
#![forbid(unsafe_code)]

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sbx_testkit::recorder::Recorder;
use sbx_testkit::upstream::{EchoUpstream, Options, TcpEcho};
use tokio::signal::unix::{SignalKind, signal};

/// Serves an HTTP or HTTPS upstream on loopback and records what reaches it.
#[derive(Debug, Parser)]
struct Args {
    /// Loopback address to listen on; port 0 chooses a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Name or address for the certificate, may be repeated; without it plain HTTP is served
    #[arg(long = "tls-name", requires = "root_pem")]
    tls_names: Vec<String>,
    /// Where to write the root certificate that clients must trust
    #[arg(long)]
    root_pem: Option<PathBuf>,
    /// Echo raw TCP instead of speaking HTTP
    #[arg(long, conflicts_with = "tls_names")]
    tcp: bool,
    /// Where to append what happens, as JSON lines
    #[arg(long)]
    record: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "sbx-standin-http: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let recorder = match &args.record {
        Some(path) => Recorder::to_file(path)?,
        None => Recorder::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        if args.tcp {
            let echo = TcpEcho::start_with(args.listen, recorder)?;
            ready(echo.address())?;
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            return Ok(());
        }
        let options = Options {
            listen: args.listen,
            tls_names: args.tls_names,
            recorder,
            ..Options::default()
        };
        let upstream = EchoUpstream::start_with(options)?;
        if let Some(path) = &args.root_pem {
            upstream.write_root_pem(path)?;
        }
        ready(upstream.address())?;
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        Ok(())
    })
}

fn ready(address: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::json!({ "address": address }))?;
    out.flush()
}
