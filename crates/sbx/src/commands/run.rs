//! `sbx run`: an agent in a sandbox, made or found again, attached to this terminal. On a terminal the agent
//! outlives the command: whoever detaches, or whose connection breaks, finds it again as it is.

use super::Context;
use super::create::{SandboxArgs, create, summary};
use super::exec::{ask, program_with, start};
use crate::attach::{self, Ended, Part, terminal_size};
use crate::environment::over;
use crate::exit::Exit;
use crate::guarding;
use crate::lookup;
use sbx_agents::Agent;
use sbx_wire::api::{Attach, Sandbox, Start, Workspace};
use sbx_wire::guest::ExecRequest;
use sbx_wire::keys::DetachKeys;
use sbx_wire::report::Report;
use sbx_wire::session::{Request, RunRequest};
use std::io::IsTerminal;

/// Run an agent in a sandbox: created on the first run, found again later, with the agent that still runs there
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Agent: claude, codex, copilot, cursor, devin, docker-agent, droid, gemini, kiro, opencode or shell; with --name of an existing sandbox it can be left out
    agent: Option<String>,
    /// Workspaces, the first one is the primary; PATH:ro is read-only [default: current directory]
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    #[command(flatten)]
    sandbox: SandboxArgs,
    /// Start the agent without attaching, print the sandbox's name, and keep the sandbox until it is stopped
    #[arg(short, long)]
    detached: bool,
    /// Remove the sandbox when the agent has ended and nothing else runs in it
    #[arg(long, conflicts_with = "detached")]
    rm: bool,
    /// Keys that leave the agent running, e.g. ctrl-p,ctrl-q, or none [default: the setting session.detachKeys]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Arguments for the agent: added to its default flags when the first starts with '-', else in their place
    #[arg(last = true, value_name = "AGENT_ARGS")]
    arguments: Vec<String>,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    context.require_policy().await?;
    let existing = find(context, &args).await?;
    let given = args.sandbox.environment.resolve()?;
    let mut attach = if let Some(sandbox) = &existing {
        refuse_creation_flags(&args, sandbox)?;
        start(context, &sandbox.name, Start { remove: args.rm }).await?
    } else {
        create_new(context, &args).await?
    };
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if attach.sandbox.agent_running && terminal && args.arguments.is_empty() && !given.is_empty() {
        context
            .printer
            .notice("note: the agent runs already, so it does not see the variables given now");
    }
    let request = ExecRequest {
        argv: command_line(&attach.agent_command, &args.arguments),
        env: over(std::mem::take(&mut attach.env), given),
        workdir: None,
        user: None,
        terminal: (terminal || args.detached).then(terminal_size),
        stdin: true,
    };
    let program = request.argv.first();
    let program = program.map(|word| String::from_utf8_lossy(word).into_owned());
    let ended = if request.terminal.is_some() {
        agent(context, &attach, request, &args).await?
    } else {
        program_with(context, &attach, request, args.rm).await?
    };
    let name = &attach.sandbox.name;
    match ended {
        Ended::Detached if args.detached => context.printer.line(name),
        Ended::Detached => {
            let goes_on = format!("detached: the agent in sandbox '{name}' goes on");
            let way_back = format!("  come back with: sbx run --name {name}");
            context.printer.notice(&goes_on);
            context.printer.notice(&way_back);
        }
        _ => {}
    }
    guarding::tell(context, &attach.sandbox).await;
    attach::conclude(ended, name, program.as_deref().unwrap_or_default())
}

/// Runs the agent on a terminal of its own, or joins the one that runs.
async fn agent(
    context: &mut Context,
    attach: &Attach,
    start: ExecRequest,
    args: &Args,
) -> Result<Ended, Report> {
    // Arguments given now would be lost on an agent that runs already.
    let join = args.arguments.is_empty();
    let request = Request::Run(Box::new(RunRequest {
        start: start.clone(),
        join,
        attach: !args.detached,
        hold: args.detached,
        last: args.rm,
    }));
    let keys = match &args.detach_keys {
        Some(keys) => keys.clone(),
        // The daemon has checked it; without keys there are other ways to leave.
        None => attach
            .detach_keys
            .parse()
            .or_else(|_| "none".parse())
            .map_err(|why: String| Report::bug("detach-keys", why))?,
    };
    let part = Part {
        terminal: !args.detached,
        stdin: !args.detached,
        keys: Some(keys),
    };
    match ask(context, attach, &request, &part).await? {
        Ended::Busy if !args.detached => {
            context
                .printer
                .notice("note: an agent runs here already; this one, with its own arguments, ends with this terminal");
            program_with(context, attach, start, args.rm).await
        }
        ended => Ok(ended),
    }
}

async fn create_new(context: &mut Context, args: &Args) -> Result<Attach, Report> {
    let agent = args.agent.as_deref().ok_or_else(|| {
        let name = args.sandbox.name.as_deref().unwrap_or_default();
        Report::user(
            "sandbox-not-found",
            format!("sandbox '{name}' not found"),
            format!("sbx run --name {name} claude"),
        )
    })?;
    let attach = create(context, agent, workspaces(args)?, &args.sandbox, args.rm).await?;
    if std::io::stderr().is_terminal() {
        summary(context, &attach);
    }
    Ok(attach)
}

/// The sandbox meant: by `--name`, by the old spelling `run NAME`, or by agent and workspaces.
async fn find(context: &mut Context, args: &Args) -> Result<Option<Sandbox>, Report> {
    let all = lookup::all(&context.client).await?;
    let named = |name: &str| all.iter().find(|sandbox| sandbox.name == name).cloned();
    if let Some(name) = &args.sandbox.name {
        let found = named(name);
        if let (Some(found), Some(agent)) = (&found, &args.agent)
            && found.agent != canonical(agent)
        {
            return Err(Report::user(
                "agent-mismatch",
                format!(
                    "sandbox '{name}' belongs to agent '{}', not '{agent}'",
                    found.agent
                ),
                format!("sbx run --name {name}"),
            ));
        }
        return Ok(found);
    }
    let Some(agent) = &args.agent else {
        return Err(Report::user(
            "no-agent",
            "neither an agent nor the name of a sandbox was given",
            "sbx run claude",
        ));
    };
    let known = agent.parse::<Agent>().ok();
    if args.paths.is_empty() && known.is_none() {
        let found = named(agent).ok_or_else(|| {
            Report::user(
                "agent-unknown",
                format!(
                    "there is neither an agent nor a sandbox '{}'",
                    agent.escape_debug()
                ),
                "sbx ls names the sandboxes; sbx run claude and sbx run shell make one; sbx run --help names the agents",
            )
        })?;
        context.printer.notice(&format!(
            "note: `sbx run NAME` is an older spelling of `sbx run --name {agent}`"
        ));
        return Ok(Some(found));
    }
    let wanted = workspaces(args)?;
    let agent = canonical(agent);
    Ok(all
        .into_iter()
        .find(|sandbox| sandbox.agent == agent && lookup::are(&sandbox.workspaces, &wanted)))
}

/// The name under which sandboxes of this agent are listed.
fn canonical(agent: &str) -> &str {
    agent
        .parse::<Agent>()
        .map_or(agent, |known| known.row().name)
}

fn workspaces(args: &Args) -> Result<Vec<Workspace>, Report> {
    if args.paths.is_empty() {
        return Ok(vec![lookup::current_directory()?]);
    }
    args.paths
        .iter()
        .map(|path| lookup::workspace(path))
        .collect()
}

fn refuse_creation_flags(args: &Args, sandbox: &Sandbox) -> Result<(), Report> {
    let flags = [
        ("--cpus", args.sandbox.cpus != 0),
        ("--memory", args.sandbox.memory.is_some()),
        ("--deny-network", !args.sandbox.deny_network.is_empty()),
        ("--accel", args.sandbox.accel.is_some()),
        ("--protect", args.sandbox.guarding.protect.is_some()),
        (
            "--protect-path",
            !args.sandbox.guarding.protect_path.is_empty(),
        ),
        ("--hide", !args.sandbox.guarding.hide.is_empty()),
        ("--mask", !args.sandbox.guarding.mask.is_empty()),
    ];
    match flags.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((flag, _)) => Err(Report::user(
            "creation-flag",
            format!(
                "{flag} can only be used when creating a new sandbox, and '{}' exists",
                sandbox.name
            ),
            format!("sbx rm {}", sandbox.name),
        )),
    }
}

/// The agent's command line: flags are added to the defaults, a bare word takes their place.
fn command_line(defaults: &[String], arguments: &[String]) -> Vec<Vec<u8>> {
    let replace = arguments
        .first()
        .is_some_and(|first| !first.starts_with('-'));
    let kept = if replace { 1 } else { defaults.len() };
    defaults
        .iter()
        .take(kept)
        .chain(arguments)
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(defaults: &[&str], arguments: &[&str]) -> Vec<String> {
        let own = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        command_line(&own(defaults), &own(arguments))
            .into_iter()
            .map(|word| String::from_utf8(word).unwrap())
            .collect()
    }

    #[test]
    fn agent_flags_are_appended_and_a_bare_word_replaces_the_defaults() {
        assert_eq!(
            words(&["claude", "--yolo"], &["-p", "x"]),
            ["claude", "--yolo", "-p", "x"]
        );
        assert_eq!(
            words(&["claude", "--yolo"], &["mcp", "list"]),
            ["claude", "mcp", "list"]
        );
        assert_eq!(words(&["bash", "-l"], &[]), ["bash", "-l"]);
    }
}
