//! `sbx create`: a new sandbox, without attaching to it.

use super::Context;
use crate::environment::EnvironmentArgs;
use crate::exit::Exit;
use crate::guarding::GuardingArgs;
use crate::lookup;
use sbx_wire::api::{Attach, Create, Workspace};
use sbx_wire::launch::Accel;
use sbx_wire::report::Report;

/// What a new sandbox is made from; shared by `create` and `run`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SandboxArgs {
    /// Name of the sandbox [default: AGENT-DIRECTORY]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Virtual CPUs; 0: as many as the host has
    #[arg(long, default_value_t = 0)]
    pub(crate) cpus: u16,
    /// Memory, e.g. 2g or 512m [default: half of the host's, at most 32g]
    #[arg(short, long, value_name = "SIZE", value_parser = parse_memory)]
    pub(crate) memory: Option<u32>,
    #[command(flatten)]
    pub(crate) environment: EnvironmentArgs,
    /// Deny this host from the start, for this sandbox; repeatable
    #[arg(long, value_name = "HOST")]
    pub(crate) deny_network: Vec<String>,
    #[command(flatten)]
    pub(crate) guarding: GuardingArgs,
    /// How guest instructions are executed [default: found by a probe]
    #[arg(long, value_name = "kvm|tcg", value_parser = parse_accel)]
    pub(crate) accel: Option<Accel>,
}

/// Create a sandbox for an agent, without attaching to it
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Agent: claude, codex, copilot, cursor, devin, docker-agent, droid, gemini, kiro, opencode or shell
    agent: String,
    /// Workspaces, the first one is the primary; PATH:ro is read-only. None: no host directory
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    #[command(flatten)]
    sandbox: SandboxArgs,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    context.require_policy().await?;
    let workspaces = args
        .paths
        .iter()
        .map(|path| lookup::workspace(path))
        .collect::<Result<Vec<_>, _>>()?;
    let attach = create(context, &args.agent, workspaces, &args.sandbox, false).await?;
    let name = &attach.sandbox.name;
    if args.quiet {
        context.printer.line(name);
    } else {
        summary(context, &attach);
        context.printer.line(&format!("✓ Created sandbox {name}"));
        context
            .printer
            .notice(&format!("  attach with: sbx run --name {name}"));
    }
    Ok(Exit::Success)
}

/// Asks the daemon for a new sandbox and shows its progress. `remove`: it is to be gone once it has ended.
pub(crate) async fn create(
    context: &mut Context,
    agent: &str,
    workspaces: Vec<Workspace>,
    args: &SandboxArgs,
    remove: bool,
) -> Result<Attach, Report> {
    let request = Create {
        name: args.name.clone(),
        agent: agent.to_owned(),
        workspaces,
        cpus: args.cpus,
        memory_mib: args.memory,
        env: args.environment.resolve()?,
        deny_network: args.deny_network.clone(),
        accel: args.accel,
        guarding: args.guarding.resolve(),
        remove,
    };
    context
        .client
        .stream("/v1/sandboxes", &request, &mut context.printer)
        .await
}

/// The block that says what was made.
pub(crate) fn summary(context: &mut Context, attach: &Attach) {
    let sandbox = &attach.sandbox;
    let workspace = match sandbox.workspaces.first() {
        Some(primary) => {
            let mode = if primary.read_only { "ro" } else { "rw" };
            format!("{} ({mode})", primary.path.display())
        }
        None => "none · no workspace bind mount".to_owned(),
    };
    let accel = match sandbox.accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "tcg (software emulation)",
    };
    for (label, value) in [
        ("Sandbox", sandbox.name.as_str()),
        ("Agent", sandbox.agent.as_str()),
        ("Workspace", workspace.as_str()),
        ("Image", sandbox.image.as_str()),
        ("CPU", &format!("{} · {accel}", sandbox.cpus)),
        ("Memory", &format!("{} MiB", sandbox.memory_mib)),
    ] {
        context.printer.notice(&format!("  {label:<10} {value}"));
    }
}

/// `2g`, `512m`, `1024` (MiB); 512 MiB at least.
fn parse_memory(text: &str) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches("ib").trim_end_matches('b');
    let (number, factor_mib) = match digits.strip_suffix(['g', 'm', 't']) {
        Some(number) if digits.ends_with('g') => (number, 1 << 10),
        Some(number) if digits.ends_with('t') => (number, 1 << 20),
        Some(number) => (number, 1),
        None => (digits, 1),
    };
    let mib = number
        .parse::<u32>()
        .ok()
        .and_then(|n| n.checked_mul(factor_mib));
    match mib {
        Some(mib) if mib >= 512 => Ok(mib),
        Some(_) => Err("a sandbox needs at least 512m".to_owned()),
        None => Err("write a size such as 2g or 512m".to_owned()),
    }
}

fn parse_accel(text: &str) -> Result<Accel, String> {
    match text {
        "kvm" => Ok(Accel::Kvm),
        "tcg" => Ok(Accel::Tcg),
        _ => Err("write kvm or tcg".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes_are_read_with_their_units_and_bounded() {
        assert_eq!(parse_memory("2g"), Ok(2048));
        assert_eq!(parse_memory("512m"), Ok(512));
        assert_eq!(parse_memory("1GiB"), Ok(1024));
        assert_eq!(parse_memory("1024"), Ok(1024));
        for bad in ["", "g", "-1g", "1.5g", "100m", "9999999999g", "4294967295g"] {
            assert!(parse_memory(bad).is_err(), "{bad} passed");
        }
    }
}
