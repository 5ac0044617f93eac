//! Flags of values that are fetched instead of stored.

use sbx_wire::api::Fetched;

/// Where a value comes from, if it is not stored.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Values that are fetched, not stored")]
pub(crate) struct SourceArgs {
    /// Output of this command line, run by the host's shell in a fresh folder
    #[arg(long, value_name = "CMD", conflicts_with = "reference")]
    command: Option<String>,
    /// op://VAULT/ITEM/FIELD (1Password) or the ARN of a secret in AWS Secrets Manager
    #[arg(long = "ref", value_name = "URI")]
    reference: Option<String>,
    /// How long a value is used, e.g. 30m, or on-demand [default: 55m, 10m for aws, on-demand for custom secrets]
    #[arg(long, value_name = "DUR|on-demand", requires = "fetched")]
    refresh: Option<String>,
    /// Store it without fetching the value once
    #[arg(long, requires = "fetched")]
    no_verify: bool,
    /// Show what a failed attempt wrote to standard error
    #[arg(long, requires = "fetched")]
    show_error: bool,
}

impl SourceArgs {
    /// The way to fetch it, if one was given.
    pub(crate) fn fetched(self) -> Option<Fetched> {
        if self.command.is_none() && self.reference.is_none() {
            return None;
        }
        let chooser = match &self.reference {
            Some(reference) if reference.starts_with("op://") => Some("OP_ACCOUNT"),
            Some(_) => Some("AWS_PROFILE"),
            None => None,
        };
        Some(Fetched {
            account: chooser.and_then(|name| std::env::var(name).ok()),
            command: self.command,
            reference: self.reference,
            refresh: self.refresh,
            unverified: self.no_verify,
            show_error: self.show_error,
        })
    }
}
