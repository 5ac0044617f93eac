//! `sbx diagnose`: what works, what does not, and what to do about it. Most of it is looked at by the daemon's program,
//! which needs no daemon for that; what the daemon says is asked here.

use super::Context;
use crate::client::beside_us;
use crate::exit::Exit;
use crate::socket::{FOREIGN, UNREACHABLE};
use crate::table;
use sbx_wire::diagnosis::{Check, Diagnosis, Group, Outcome, Repair};
use sbx_wire::report::Report;
use sbx_wire::time::rfc3339;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time for the daemon's program to look at everything: it asks QEMU, and reads the metadata of every disk.
const LIMIT: Duration = Duration::from_mins(15);
/// Longest report that is read, bytes.
const MAX_REPORT: usize = 16 << 20;
/// Name of the check of the daemon.
const DAEMON: &str = "daemon";

/// Look at everything that sandboxes need, and say what is wrong and what helps
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// How to print it
    #[arg(short, long, value_enum, conflicts_with = "json")]
    output: Option<Format>,
    /// Print JSON, as -o json
    #[arg(long)]
    json: bool,
    /// Mend what can be mended; nothing that you made is removed
    #[arg(long)]
    repair: bool,
}

/// See [`Args`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// One document
    Json,
    /// A text to paste into an issue; paths below your home are shortened
    GithubIssue,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let mut diagnosis = look(context, args.repair).await;
    if args.repair && diagnosis.needs_fresh_daemon {
        diagnosis = freshen(context, diagnosis).await;
    }
    let format = if args.json {
        Some(Format::Json)
    } else {
        args.output
    };
    match format {
        Some(Format::Json) => context.printer.json(&diagnosis)?,
        Some(Format::GithubIssue) => {
            let text = issue(&diagnosis);
            let home = std::env::var("HOME").unwrap_or_default();
            let short = if home.len() > 1 {
                text.replace(&home, "~")
            } else {
                text
            };
            context.printer.line(&short);
        }
        None => people(context, &diagnosis, args.repair),
    }
    Ok(if diagnosis.summary.fail == 0 {
        Exit::Success
    } else {
        Exit::Failure
    })
}

/// The whole report.
async fn look(context: &Context, repair: bool) -> Diagnosis {
    let mut diagnosis = match helper(repair).await {
        Ok(diagnosis) => diagnosis,
        Err(report) => without_helper(&report),
    };
    let ours = env!("CARGO_PKG_VERSION");
    if diagnosis.sbx_version != ours {
        let check = Check::new(
            Group::Installation,
            "version",
            Outcome::Fail,
            format!(
                "sbx is of version {ours}, sbx-daemon beside it of {}",
                diagnosis.sbx_version
            ),
        );
        diagnosis.extend([check.hint("./dev setup")]);
    }
    diagnosis.extend([daemon(context).await]);
    diagnosis
}

/// What the daemon's program finds.
async fn helper(repair: bool) -> Result<Diagnosis, Report> {
    let failed = |why: String| {
        Report::environment(
            "diagnose",
            format!("sbx-daemon cannot look around: {why}"),
            "./dev setup",
        )
    };
    let mut command = tokio::process::Command::new(beside_us("sbx-daemon")?);
    command.arg("--diagnose").stdin(Stdio::null());
    if repair {
        command.arg("--repair");
    }
    let output = tokio::time::timeout(LIMIT, command.kill_on_drop(true).output())
        .await
        .map_err(|_| failed("it takes too long".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    if output.stdout.len() > MAX_REPORT {
        return Err(failed("its report has no end".to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().next().unwrap_or_default();
        failed(format!("{} {error} {}", output.status, table::safe(line)))
    })
}

/// What is left to say when the daemon's program is missing or broken.
fn without_helper(report: &Report) -> Diagnosis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = rfc3339(now.map_or(0, |now| now.as_secs()));
    let mut diagnosis = Diagnosis::new(now, env!("CARGO_PKG_VERSION"));
    let why = "the program that looks is missing or broken";
    let mut programs = Check::new(
        Group::Installation,
        "programs",
        Outcome::Fail,
        report.message.clone(),
    );
    programs.hint.clone_from(&report.hint);
    diagnosis.extend([
        programs,
        Check::new(Group::Platform, "platform", Outcome::Skip, why),
        Check::new(Group::Storage, "storage", Outcome::Skip, why),
    ]);
    diagnosis
}

/// The daemon, which is not started for this.
async fn daemon(context: &Context) -> Check {
    let check = |status, message: String| Check::new(Group::Connection, DAEMON, status, message);
    let ours = env!("CARGO_PKG_VERSION");
    match context.client.status_if_running().await {
        Ok(Some(status)) if status.version != ours => check(
            Outcome::Fail,
            format!("the daemon is of version {}, sbx of {ours}", status.version),
        )
        .hint("sbx daemon restart; sandboxes keep running"),
        Ok(Some(status)) if !status.notices.is_empty() => {
            let message = format!("it answers (pid {}), and mended something", status.pid);
            check(Outcome::Warn, message).detail(status.notices.join("; "))
        }
        Ok(Some(status)) => check(Outcome::Pass, format!("it answers (pid {})", status.pid)),
        Ok(None) => check(
            Outcome::Skip,
            "no daemon runs; commands start it when they need it".to_owned(),
        ),
        // What somebody else listens at does not end with a daemon of ours, and a silent one not because it is told to.
        Err(Report {
            code,
            message,
            hint: Some(hint),
            ..
        }) if code == FOREIGN || code == UNREACHABLE => check(Outcome::Fail, message).hint(hint),
        Err(report) => {
            check(Outcome::Fail, report.message).hint("sbx daemon restart; sandboxes keep running")
        }
    }
}

/// Replaces the daemon, which mends its state when it starts, and looks again.
async fn freshen(context: &mut Context, before: Diagnosis) -> Diagnosis {
    let started = super::daemon::replace(context).await;
    let mut after = look(context, false).await;
    let fresh = |repair: &Repair| repair.action.starts_with("start a fresh daemon");
    let problem = started.err().map(|report| report.message);
    let mut repairs = before.repairs;
    for repair in repairs.iter_mut().filter(|repair| fresh(repair)) {
        // What the fresh daemon could not mend is found again.
        let again = after.repairs.iter().any(|new| new.check == repair.check);
        repair.done = problem.is_none() && !again;
        repair.problem = match (&problem, again) {
            (Some(problem), _) => Some(problem.clone()),
            (None, true) => Some("the daemon could not mend it".to_owned()),
            (None, false) => None,
        };
    }
    after.repairs = repairs;
    after
}

fn word(status: Outcome) -> &'static str {
    match status {
        Outcome::Pass => "pass",
        Outcome::Warn => "warn",
        Outcome::Fail => "fail",
        Outcome::Skip => "skip",
    }
}

fn people(context: &mut Context, diagnosis: &Diagnosis, repair: bool) {
    let mut group = None;
    for check in &diagnosis.checks {
        if group != Some(check.group) {
            if group.is_some() {
                context.printer.line("");
            }
            context.printer.line(&format!("{:?}", check.group));
            group = Some(check.group);
        }
        let name = table::safe(&check.name);
        let message = table::safe(&check.message);
        context
            .printer
            .line(&format!("  {}  {name}: {message}", word(check.status)));
        if !matches!(check.status, Outcome::Pass | Outcome::Skip) {
            for (label, text) in [("        ", &check.detail), ("        try: ", &check.hint)] {
                if let Some(text) = text {
                    context
                        .printer
                        .line(&format!("{label}{}", table::safe(text)));
                }
            }
        }
    }
    let summary = diagnosis.summary;
    context.printer.line(&format!(
        "\n{} passed, {} warnings, {} failed, {} skipped",
        summary.pass, summary.warn, summary.fail, summary.skip
    ));
    for one in &diagnosis.repairs {
        let (check, action) = (table::safe(&one.check), table::safe(&one.action));
        let line = match (&one.problem, one.done) {
            (Some(problem), _) => {
                format!("Not repaired: {check}: {action}: {}", table::safe(problem))
            }
            (None, true) => format!("Repaired: {check}: {action}"),
            (None, false) => format!("Would repair: {check}: {action}"),
        };
        context.printer.line(&line);
    }
    if !repair && !diagnosis.repairs.is_empty() {
        context.printer.notice("  try: sbx diagnose --repair");
    }
}

/// Markdown.
fn issue(diagnosis: &Diagnosis) -> String {
    let mut text = format!(
        "### sbx diagnose\n\nsbx {}, {}\n\n| group | check | status | message |\n|---|---|---|---|\n",
        diagnosis.sbx_version, diagnosis.generated_at
    );
    let cell = |text: &str| table::safe(text).replace('|', "\\|");
    for check in &diagnosis.checks {
        let detail = check
            .detail
            .as_deref()
            .filter(|_| check.status != Outcome::Pass);
        let detail = detail
            .map(|detail| format!(" ({detail})"))
            .unwrap_or_default();
        text.push_str(&format!(
            "| {:?} | {} | {} | {}{} |\n",
            check.group,
            cell(&check.name),
            word(check.status),
            cell(&check.message),
            cell(&detail)
        ));
    }
    let summary = diagnosis.summary;
    text.push_str(&format!(
        "\n{} passed, {} warnings, {} failed, {} skipped",
        summary.pass, summary.warn, summary.fail, summary.skip
    ));
    text
}
