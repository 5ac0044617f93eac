//! `sbx policy`: what may leave.

mod check;
mod follow;
mod init;
mod inspect;
mod log;
mod ls;
mod profile;
mod reset;
mod rm;
mod rule;
mod view;

pub(super) use init::choose_preset;

use super::Context;
use crate::exit::Exit;
use sbx_wire::report::Report;

/// What may leave the sandboxes
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Init(init::Args),
    /// `init`, which may replace an earlier choice (older spelling)
    #[command(hide = true)]
    SetDefault(init::Args),
    /// Allow a destination
    Allow {
        #[command(subcommand)]
        what: AllowWhat,
    },
    /// Deny a destination; a deny always wins
    Deny {
        #[command(subcommand)]
        what: AllowWhat,
    },
    /// Remove rules
    Rm {
        #[command(subcommand)]
        what: RmWhat,
    },
    Ls(ls::Args),
    Inspect(inspect::Args),
    /// Ask what the policy says about a destination; no traffic is sent
    Check {
        #[command(subcommand)]
        what: CheckWhat,
    },
    Log(log::Args),
    /// Rule sets of an organisation
    Profile {
        #[command(subcommand)]
        what: profile::Command,
    },
    Reset(reset::Args),
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum AllowWhat {
    Network(rule::Args),
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum RmWhat {
    Network(rm::Args),
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum CheckWhat {
    Network(check::Args),
}

pub(crate) async fn run(context: &mut Context, command: Command) -> Result<Exit, Report> {
    match command {
        Command::Init(args) => init::run(context, args, false).await,
        Command::SetDefault(args) => init::run(context, args, true).await,
        Command::Allow {
            what: AllowWhat::Network(args),
        } => rule::run(context, args, true).await,
        Command::Deny {
            what: AllowWhat::Network(args),
        } => rule::run(context, args, false).await,
        Command::Rm {
            what: RmWhat::Network(args),
        } => rm::run(context, args).await,
        Command::Check {
            what: CheckWhat::Network(args),
        } => check::run(context, args).await,
        Command::Ls(args) => ls::run(context, args).await,
        Command::Inspect(args) => inspect::run(context, args).await,
        Command::Log(args) => log::run(context, args).await,
        Command::Profile { what } => profile::run(context, &what),
        Command::Reset(args) => reset::run(context, args).await,
    }
}
