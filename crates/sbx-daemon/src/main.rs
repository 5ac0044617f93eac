//! `sbx-daemon [--foreground]`: the daemon, detached from whoever starts it unless told otherwise.
//! `sbx-daemon --diagnose` and `--reset`: what has to work without a daemon, for the commands of those names.
#![forbid(unsafe_code)]

use sbx_wire::home::Home;
use sbx_wire::report::{Blame, Report};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// The line on standard output that says that the socket answers.
const READY: &str = "ready";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [] => detach(),
        [flag] if flag == "--foreground" => run().map(|()| ExitCode::SUCCESS),
        [flag] if flag == "--diagnose" => diagnose(false),
        [flag, repair] if flag == "--diagnose" && repair == "--repair" => diagnose(true),
        [flag] if flag == "--reset" => reset(false),
        [flag, keep] if flag == "--reset" && keep == "--preserve-secrets" => reset(true),
        _ => Err(Report::user(
            "usage",
            "sbx-daemon knows --foreground, --diagnose [--repair] and --reset [--preserve-secrets]",
            "sbx daemon start",
        )),
    };
    match outcome {
        Ok(code) => code,
        Err(report) => {
            complain(&report);
            match report.blame {
                Blame::User => ExitCode::from(2),
                Blame::Environment | Blame::Bug => ExitCode::FAILURE,
            }
        }
    }
}

/// `sbx` reads this when the daemon that it started does not come up.
fn complain(report: &Report) {
    let mut err = std::io::stderr().lock();
    // There is nobody to tell when that fails.
    let _ = writeln!(err, "error: {report}");
    if let Some(hint) = &report.hint {
        let _ = writeln!(err, "  try: {hint}");
    }
}

fn run() -> Result<(), Report> {
    sbx_daemon::run(home()?, programs()?, || {
        let mut out = std::io::stdout().lock();
        // Whoever started us may have gone.
        let _ = writeln!(out, "{READY}").and_then(|()| out.flush());
    })
}

/// Looks at everything, for `sbx diagnose`.
fn diagnose(repair: bool) -> Result<ExitCode, Report> {
    let (home, programs) = (home()?, programs()?);
    let report = block_on(sbx_daemon::diagnose(&home, &programs, repair))?;
    print(&report)
}

/// Removes everything, for `sbx reset`.
fn reset(preserve_secrets: bool) -> Result<ExitCode, Report> {
    let removed = block_on(sbx_daemon::reset(home()?, preserve_secrets))??;
    print(&removed)
}

fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .map(|runtime| runtime.block_on(work))
        .map_err(|error| Report::bug("runtime", format!("the runtime does not start: {error}")))
}

/// Writes a document for the command that started us.
fn print(document: &impl serde::Serialize) -> Result<ExitCode, Report> {
    let text = serde_json::to_string(document)
        .map_err(|error| Report::bug("json", format!("cannot encode the report: {error}")))?;
    let mut out = std::io::stdout().lock();
    // Whoever started us may have gone.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    Ok(ExitCode::SUCCESS)
}

fn home() -> Result<Home, Report> {
    let uid = rustix::process::getuid().as_raw();
    Home::from_env(|name| std::env::var_os(name), uid).map_err(|error| {
        Report::environment(
            "home",
            error.to_string(),
            "set HOME or SBX_HOME to a folder",
        )
    })
}

/// The folder that this program lies in: the others are beside it.
fn programs() -> Result<PathBuf, Report> {
    let fail = |error: String| {
        Report::environment(
            "installation",
            format!("cannot find my own folder: {error}"),
            "./dev setup",
        )
    };
    let program = std::env::current_exe().map_err(|error| fail(error.to_string()))?;
    program
        .parent()
        .map(PathBuf::from)
        .ok_or_else(|| fail("the program has none".to_owned()))
}

/// Starts the daemon in a session of its own and ends when its socket answers. A process that leads a group,
/// as one started by a shell does, cannot begin a session (`setsid(2)`), so the daemon is always a child.
fn detach() -> Result<ExitCode, Report> {
    if rustix::process::setsid().is_ok() {
        return run().map(|()| ExitCode::SUCCESS);
    }
    // A daemon outlives its starter: it must not keep a lock or a pipe of that one's script.
    sbx_jail::close_on_exec_from(3).map_err(|error| not_started(&error.to_string()))?;
    let program = std::env::current_exe().map_err(|error| not_started(&error.to_string()))?;
    let mut child = Command::new(program)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| not_started(&error.to_string()))?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        // An error is an end: then the exit code tells.
        let _ = BufReader::new(out).read_line(&mut line);
    }
    if line.trim_end() == READY {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child
        .wait()
        .map_err(|error| not_started(&error.to_string()))?;
    // It has told why on the standard error that it shares with us.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code
        .filter(|code| *code != 0)
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

fn not_started(why: &str) -> Report {
    Report::environment(
        "daemon-start",
        format!("the daemon does not start: {why}"),
        "./dev setup",
    )
}
