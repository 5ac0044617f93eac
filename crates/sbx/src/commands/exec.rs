//! `sbx exec`: a program in a sandbox.

use super::Context;
use crate::attach::{self, Ended, Part, terminal_size};
use crate::client::encode;
use crate::environment::{EnvironmentArgs, over};
use crate::exit::Exit;
use crate::signals::Signals;
use sbx_wire::api::{Attach, Start};
use sbx_wire::guest::ExecRequest;
use sbx_wire::report::Report;
use sbx_wire::session::Request;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Run a program in a sandbox, starting the sandbox if it is stopped
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Forward standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// User: name or uid, optionally with :group [default: agent]
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory [default: the primary workspace]
    #[arg(short, long)]
    workdir: Option<String>,
    #[command(flatten)]
    environment: EnvironmentArgs,
    /// Sandbox
    sandbox: String,
    /// Program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let given = args.environment.resolve()?;
    let mut attach = start(context, &args.sandbox, Start::default()).await?;
    let program = args.command.first().map(|word| word.to_string_lossy());
    let program = program.unwrap_or_default().into_owned();
    let request = ExecRequest {
        argv: args
            .command
            .into_iter()
            .map(OsStringExt::into_vec)
            .collect(),
        env: over(std::mem::take(&mut attach.env), given),
        workdir: args.workdir,
        user: args.user,
        terminal: args.tty.then(terminal_size),
        stdin: args.interactive,
    };
    let ended = program_with(context, &attach, request, false).await?;
    attach::conclude(ended, &attach.sandbox.name, &program)
}

/// Makes sure that a sandbox runs.
pub(crate) async fn start(
    context: &mut Context,
    sandbox: &str,
    how: Start,
) -> Result<Attach, Report> {
    let path = format!("/v1/sandboxes/{}/start", encode(sandbox));
    context
        .client
        .stream(&path, &how, &mut context.printer)
        .await
}

/// Times that a sandbox is started again because it stopped before it heard us: for want of sessions, at the
/// very moment that we came.
const ATTEMPTS: usize = 3;

/// Asks until the sandbox does not stop meanwhile.
pub(crate) async fn ask(
    context: &mut Context,
    attach: &Attach,
    request: &Request,
    part: &Part,
) -> Result<Ended, Report> {
    let mut ended = Ended::Stopping;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            // What the attempt before does with signals is in force until we end.
            tokio::select! {
                started = start(context, &attach.sandbox.name, Start::default()) => started.map(drop)?,
                kind = Signals::catch().any() => return Ok(Ended::Left(kind)),
            }
        }
        ended = attach::converse(&attach.socket, request, part).await?;
        if !matches!(ended, Ended::Stopping) {
            break;
        }
    }
    Ok(ended)
}

/// Runs a program that ends with us. `last`: the sandbox is to end with it.
pub(crate) async fn program_with(
    context: &mut Context,
    attach: &Attach,
    start: ExecRequest,
    last: bool,
) -> Result<Ended, Report> {
    let part = Part::of(&start);
    let request = Request::Program {
        start: start.clone(),
        last,
    };
    match ask(context, attach, &request, &part).await? {
        // A supervisor from before an upgrade knows the same program without its end.
        Ended::Unknown if !last => ask(context, attach, &Request::Exec(start), &part).await,
        ended => Ok(ended),
    }
}
