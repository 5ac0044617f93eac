//! Coming back to an agent that runs: from the command to the screen as it was.

use crate::figure::Figure;
use crate::tool::cache;
use sbx_e2e::Installation;
use sbx_e2e::terminal::Terminal;
use std::time::{Duration, Instant};

/// Times that a terminal is attached.
const ATTACHES: usize = 25;
/// No step takes longer.
const LIMIT: Duration = Duration::from_mins(1);
/// Rows and columns of the terminals.
const SIZE: (u16, u16) = (50, 160);

/// The figure, from an installation of its own.
pub(crate) fn run() -> Result<Vec<Figure>, String> {
    let root = tempfile::Builder::new()
        .prefix("sbx-bench-")
        .tempdir()
        .map_err(|error| error.to_string())?;
    let installation = Installation::new(root.path(), &cache("")?, None)?;
    installation.sbx(["policy", "init", "deny-all"]).success()?;
    let measured = attaches(&installation);
    installation.tear_down();
    Ok(vec![Figure::alone("attach_ms", "ms", &measured?)])
}

/// Milliseconds from starting `sbx run --name NAME` on a terminal until the last line of a full screen in colour is
/// painted, for each attach. The installation has a policy; a sandbox is made for this and removed again.
pub(crate) fn attaches(installation: &Installation) -> Result<Vec<f64>, String> {
    const NAME: &str = "bench-attach";
    let project = installation.folder("attach")?.display().to_string();
    installation
        .sbx([
            "run", "shell", &project, "-d", "--name", NAME, "--memory", "2g", "--cpus", "2",
        ])
        .success()?;
    let measured = measure(installation, NAME);
    installation.sbx(["rm", "--force", NAME]).success()?;
    measured
}

fn measure(installation: &Installation, name: &str) -> Result<Vec<f64>, String> {
    let open = || {
        let command = installation.command(["run", "--name", name]);
        Terminal::open(&command, SIZE.0, SIZE.1)
    };
    let mut first = open()?;
    first.until_text("$", LIMIT)?;
    // A screen full of colours, and a history above it.
    first.type_in(
        "clear; for n in $(seq 400); do printf '\\033[3%dmline %d %0120d\\033[m\\n' $((n % 8)) $n $n; done; \
         printf 'painted''-whole'\r",
    )?;
    first.until_text("painted-whole", LIMIT)?;
    let mut measured = Vec::new();
    for _ in 0..ATTACHES {
        let start = Instant::now();
        let mut terminal = open()?;
        terminal.until_text("painted-whole", LIMIT)?;
        measured.push(start.elapsed().as_secs_f64() * 1000.0);
        terminal.type_in("\x1c")?;
        terminal.ended(LIMIT)?;
    }
    Ok(measured)
}
