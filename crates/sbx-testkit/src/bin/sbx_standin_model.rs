//! `sbx-standin-model`: the model APIs of OpenAI, Google and GitHub Copilot with a scripted model, on loopback.
//!
//! Prints one JSON line with the bound address when ready, and then every event as a JSON line.
#![forbid(unsafe_code)]

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sbx_testkit::ModelStandIn;
use sbx_testkit::model::job;

/// Serves the model APIs of OpenAI, Google and GitHub Copilot with a scripted job, on loopback.
#[derive(Debug, Parser)]
struct Args {
    /// Agent whose tools the job uses: codex, copilot, gemini, opencode or opencode-local
    agent: String,
    /// File that the job writes, as an absolute path
    path: String,
    /// What it writes
    content: String,
    /// Key that requests must carry
    #[arg(long)]
    key: String,
    /// Loopback address to listen on; port 0 chooses a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where to write the root certificate that clients must trust; none: no TLS, and nobody is asked for a key
    #[arg(long)]
    root_pem: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "sbx-standin-model: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let script = job(&args.agent, &args.key, &args.path, &args.content)
        .ok_or("there is no job for this agent")?;
    let stand_in = ModelStandIn::start_at(args.listen, script, args.root_pem.is_some())?;
    if let Some(path) = &args.root_pem {
        std::fs::write(path, stand_in.root_pem())?;
    }
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{}",
        serde_json::json!({ "address": stand_in.address() })
    )?;
    let mut shown = 0;
    loop {
        let entries = stand_in.recorder().entries();
        for entry in entries.iter().skip(shown) {
            writeln!(out, "{}", serde_json::to_string(entry)?)?;
        }
        out.flush()?;
        shown = entries.len();
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
}
