//! `sbx-standin-anthropic`: the Anthropic Messages API with a scripted model, on loopback.
//!
//! Prints one JSON line with the bound address when ready, then serves until SIGTERM or SIGINT comes.
//! SIGHUP reads the script file again.
#![forbid(unsafe_code)]

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use sbx_testkit::anthropic::{AnthropicStandIn, Options, Script};
use sbx_testkit::recorder::Recorder;
use tokio::signal::unix::{SignalKind, signal};

/// Serves the Anthropic Messages API with scripted answers, on loopback.
#[derive(Debug, Parser)]
struct Args {
    /// Loopback address to listen on; port 0 chooses a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where to write the root certificate that clients must trust
    #[arg(long)]
    root_pem: PathBuf,
    /// The script, as JSON
    #[arg(long)]
    script: PathBuf,
    /// Where to append what happens, as JSON lines
    #[arg(long)]
    record: Option<PathBuf>,
    /// Further names for the certificate
    #[arg(long = "name")]
    names: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "sbx-standin-anthropic: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn run(args: &Args) -> Result<(), Failure> {
    let mut options = Options {
        listen: args.listen,
        ..Options::default()
    };
    options.names.extend(args.names.iter().cloned());
    if let Some(path) = &args.record {
        options.recorder = Recorder::to_file(path)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stand_in = AnthropicStandIn::start_with(read_script(&args.script)?, options)?;
        stand_in.write_root_pem(&args.root_pem)?;
        let ready = serde_json::json!({ "address": stand_in.address(), "root_pem": args.root_pem });
        let mut out = std::io::stdout();
        writeln!(out, "{ready}")?;
        out.flush()?;
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = hangup.recv() => stand_in.set_script(read_script(&args.script)?)?,
            }
        }
    })
}

fn read_script(path: &Path) -> Result<Script, Failure> {
    let text = std::fs::read_to_string(path)?;
    Script::from_json(&text).map_err(|error| format!("{}: {error}", path.display()).into())
}
