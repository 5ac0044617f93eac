//! `sbx daemon`: the process that keeps track of sandboxes. Commands start it when they need it.

use super::Context;
use crate::client::beside_us;
use crate::exit::Exit;
use crate::table;
use sbx_wire::api::{DaemonStatus, PolicyInit, Shutdown};
use sbx_wire::report::Report;
use serde_json::json;
use std::os::unix::process::CommandExt;

/// The background process that keeps track of sandboxes
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Start it: in the foreground, or detached with -d
    Start {
        /// Detach from this terminal
        #[arg(short, long)]
        detach: bool,
        /// Initialise the policy with this preset if there is none yet
        #[arg(long, value_parser = ["allow-all", "balanced", "deny-all"])]
        policy: Option<String>,
    },
    /// Stop it and every running sandbox
    Stop,
    /// Replace it with a fresh one; sandboxes keep running
    Restart,
    /// Say whether it runs: exit code 0 if so, 1 if not
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn run(context: &mut Context, command: Command) -> Result<Exit, Report> {
    match command {
        Command::Start {
            detach: false,
            policy: None,
        } => foreground(),
        Command::Start {
            detach: false,
            policy: Some(_),
        } => Err(Report::user(
            "daemon-start",
            "--policy needs --detach: the policy is set once the daemon answers",
            "sbx daemon start -d --policy balanced",
        )),
        Command::Start {
            detach: true,
            policy,
        } => start(context, policy).await,
        Command::Stop => stop(context).await,
        Command::Restart => restart(context).await,
        Command::Status { json } => status(context, json).await,
    }
}

/// Becomes the daemon: its errors and its exit code are ours.
fn foreground() -> Result<Exit, Report> {
    let error = std::process::Command::new(beside_us("sbx-daemon")?)
        .arg("--foreground")
        .exec();
    Err(Report::environment(
        "daemon-start",
        format!("cannot start the daemon: {error}"),
        "./dev setup",
    ))
}

async fn start(context: &mut Context, policy: Option<String>) -> Result<Exit, Report> {
    let already = context.client.status_if_running().await?;
    let status = context.client.status().await?;
    if let (Some(preset), false) = (policy, status.policy_initialized) {
        let body = PolicyInit {
            preset,
            replace: false,
        };
        let _: serde_json::Value = context.client.post("/v1/policy/init", &body).await?;
    }
    let word = if already.is_some() {
        "already runs"
    } else {
        "started"
    };
    context
        .printer
        .line(&format!("Daemon {word} (pid {})", status.pid));
    Ok(Exit::Success)
}

async fn stop(context: &mut Context) -> Result<Exit, Report> {
    let body = Shutdown {
        stop_sandboxes: true,
        grace_s: None,
    };
    let stopped = context.client.shut_down(&body).await?;
    context.printer.line(if stopped {
        "Daemon stopped"
    } else {
        "Daemon is not running"
    });
    Ok(Exit::Success)
}

async fn restart(context: &mut Context) -> Result<Exit, Report> {
    let status = replace(context).await?;
    context
        .printer
        .line(&format!("Daemon restarted (pid {})", status.pid));
    Ok(Exit::Success)
}

/// Ends the daemon, if there is one, and starts another; sandboxes keep running.
pub(super) async fn replace(context: &Context) -> Result<DaemonStatus, Report> {
    let body = Shutdown {
        stop_sandboxes: false,
        grace_s: None,
    };
    context.client.shut_down(&body).await?;
    context.client.status().await
}

async fn status(context: &mut Context, as_json: bool) -> Result<Exit, Report> {
    let status = context.client.status_if_running().await?;
    match (&status, as_json) {
        (Some(status), true) => context.printer.json(status)?,
        (None, true) => context.printer.json(&json!({ "status": "stopped" }))?,
        (Some(status), false) => {
            context.printer.line(&format!("Status: {}", status.status));
            context.printer.line(&format!("PID:    {}", status.pid));
            context
                .printer
                .line(&format!("Socket: {}", status.socket.display()));
            context
                .printer
                .line(&format!("Logs:   {}", status.logs.display()));
            if !status.small_kernel.is_empty() {
                context
                    .printer
                    .line(&format!("Kernel: {}", table::safe(&status.small_kernel)));
            }
            for notice in &status.notices {
                context
                    .printer
                    .line(&format!("Notice: {}", table::safe(notice)));
            }
        }
        (None, false) => context.printer.line("Status: stopped"),
    }
    Ok(if status.is_some() {
        Exit::Success
    } else {
        Exit::Failure
    })
}
