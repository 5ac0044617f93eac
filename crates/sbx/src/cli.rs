//! The command line as types. Help texts are the doc comments here and on each verb's `Args`.

use crate::commands::{
    create, daemon, diagnose, exec, inspect, login, ls, policy, prune, reset, rm, run, secret,
    settings, stop, version,
};
use clap::{Args, Parser, Subcommand};

/// Run coding agents at full speed in microVMs of their own: their network under your policy, your keys
/// never inside.
#[derive(Debug, Parser)]
#[command(
    name = "sbx",
    version,
    propagate_version = false,
    subcommand_required = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every verb takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Print what the command does, for diagnosis
    #[arg(short = 'D', long, global = true)]
    pub(crate) debug: bool,
    /// Never prompt: fail and name the command to run instead
    #[arg(long, global = true)]
    pub(crate) no_input: bool,
}

/// One variant a verb.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(run::Args),
    Create(create::Args),
    Exec(exec::Args),
    Ls(ls::Args),
    Inspect(inspect::Args),
    Stop(stop::Args),
    Rm(rm::Args),
    Prune(prune::Args),
    Reset(reset::Args),
    Diagnose(diagnose::Args),
    #[command(subcommand)]
    Policy(policy::Command),
    #[command(subcommand)]
    Secret(secret::Command),
    #[command(subcommand)]
    Settings(settings::Command),
    #[command(subcommand)]
    Daemon(daemon::Command),
    Login(login::Args),
    Version(version::Args),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
