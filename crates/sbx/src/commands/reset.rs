//! `sbx reset`: back to the state before the first use.

use super::Context;
use crate::client::beside_us;
use crate::exit::Exit;
use crate::{prompt, table};
use sbx_wire::api::{Reset, Shutdown};
use sbx_wire::report::Report;
use std::process::Stdio;

/// Seconds that programs inside get to end.
const GRACE_S: u32 = 30;

/// Stop every sandbox and remove everything that sbx keeps: sandboxes, images, policy, settings, secrets. Workspaces on
/// the host stay
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Keep stored secrets; those of a single sandbox go with it
    #[arg(long)]
    preserve_secrets: bool,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let what = if args.preserve_secrets {
        "every sandbox, image, rule and setting"
    } else {
        "every sandbox, image, rule, setting and secret"
    };
    if !args.force {
        if !prompt::possible(context.no_input) {
            return Err(Report::user(
                "confirmation",
                format!("removing {what} needs a confirmation and there is no terminal to ask on"),
                "sbx reset --force",
            ));
        }
        if !prompt::confirm(&format!("Remove {what}?")) {
            context.printer.notice("Nothing was removed");
            return Ok(Exit::Failure);
        }
    }
    stop(context).await;
    let removed = remove(args.preserve_secrets).await?;
    for name in &removed.sandboxes {
        context
            .printer
            .line(&format!("Removed {}", table::safe(name)));
    }
    for folder in &removed.emptied {
        context
            .printer
            .line(&format!("Emptied {}", folder.display()));
    }
    if removed.secrets_kept {
        context.printer.line("Kept the stored secrets");
    }
    context.printer.line("Reset done");
    Ok(Exit::Success)
}

/// Asks the daemon to stop everything and to end. One that cannot is no obstacle: the sandboxes are ended without it,
/// and one that does not end is found by its lock.
async fn stop(context: &mut Context) {
    context.printer.notice("Stopping every sandbox …");
    let body = Shutdown {
        stop_sandboxes: true,
        grace_s: Some(GRACE_S),
    };
    if let Err(report) = context.client.shut_down(&body).await {
        context.printer.notice(&format!("note: {report}"));
        // Without its sandboxes, then.
        let body = Shutdown {
            stop_sandboxes: false,
            grace_s: None,
        };
        if let Err(report) = context.client.shut_down(&body).await {
            context.printer.notice(&format!("note: {report}"));
        }
    }
}

async fn remove(preserve_secrets: bool) -> Result<Reset, Report> {
    let failed = |why: String| {
        Report::environment(
            "reset",
            format!("not everything was removed: {why}"),
            "run it again; what is left is in the folders that sbx diagnose names",
        )
    };
    let mut command = tokio::process::Command::new(beside_us("sbx-daemon")?);
    command.arg("--reset").stdin(Stdio::null());
    if preserve_secrets {
        command.arg("--preserve-secrets");
    }
    let output = command.output().await;
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let mut lines = said.lines().map(str::trim);
        let why = lines.find_map(|line| line.strip_prefix("error: "));
        let mut report = failed(table::safe(why.unwrap_or("sbx-daemon failed")));
        if let Some(hint) = lines.find_map(|line| line.strip_prefix("try: ")) {
            report.hint = Some(table::safe(hint));
        }
        return Err(report);
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}
