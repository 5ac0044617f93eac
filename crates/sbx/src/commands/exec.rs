//! `sbx exec`: a program in a sandbox.

use super::Context;
use crate::attach::{self, terminal_size};
use crate::client::encode;
use crate::environment::{EnvironmentArgs, over};
use crate::exit::Exit;
use sbx_wire::api::{Attach, Start};
use sbx_wire::guest::ExecRequest;
use sbx_wire::report::Report;
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
    let path = format!("/v1/sandboxes/{}/start", encode(&args.sandbox));
    let attach: Attach = context
        .client
        .stream(&path, &Start::default(), &mut context.printer)
        .await?;
    let request = ExecRequest {
        argv: args
            .command
            .into_iter()
            .map(OsStringExt::into_vec)
            .collect(),
        env: over(attach.env, given),
        workdir: args.workdir,
        user: args.user,
        terminal: args.tty.then(terminal_size),
        stdin: args.interactive,
    };
    attach::run(&attach.socket, &attach.sandbox.name, request).await
}
