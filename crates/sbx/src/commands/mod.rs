//! The verbs.

pub(crate) mod create;
pub(crate) mod daemon;
pub(crate) mod diagnose;
pub(crate) mod exec;
pub(crate) mod inspect;
pub(crate) mod login;
pub(crate) mod ls;
pub(crate) mod policy;
pub(crate) mod prune;
pub(crate) mod reset;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod secret;
pub(crate) mod settings;
pub(crate) mod stop;
pub(crate) mod version;

use crate::cli::{Command, Global};
use crate::client::Client;
use crate::exit::Exit;
use crate::printer::Printer;
use sbx_wire::api::PolicyInit;
use sbx_wire::home::Home;
use sbx_wire::report::Report;
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;

/// What every verb works with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) printer: Printer,
    pub(crate) client: Client,
    pub(crate) no_input: bool,
    /// Takes the signal at which the command is to end at once.
    pub(crate) leave: mpsc::Sender<SignalKind>,
}

impl Context {
    pub(crate) fn new(global: &Global, leave: mpsc::Sender<SignalKind>) -> Result<Self, Report> {
        let uid = rustix::process::getuid().as_raw();
        let home = Home::from_env(|name| std::env::var_os(name), uid).map_err(|error| {
            Report::environment(
                "home",
                error.to_string(),
                "set HOME or SBX_HOME to a folder",
            )
        })?;
        let mut printer = Printer::new(global.debug);
        printer.debug(&format!("daemon socket {}", home.daemon_socket().display()));
        Ok(Self {
            printer,
            client: Client::new(home),
            no_input: global.no_input,
            leave,
        })
    }

    /// Commands that touch sandboxes need a policy: asks for one on a terminal, fails otherwise.
    pub(crate) async fn require_policy(&mut self) -> Result<(), Report> {
        let status = self.client.status().await?;
        if status.policy_initialized {
            return Ok(());
        }
        let preset = policy::choose_preset(self)?;
        let body = PolicyInit {
            preset,
            replace: false,
        };
        let _: serde_json::Value = self.client.post("/v1/policy/init", &body).await?;
        Ok(())
    }
}

/// Runs one verb.
pub(crate) async fn dispatch(context: &mut Context, command: Command) -> Result<Exit, Report> {
    match command {
        Command::Run(args) => run::run(context, args).await,
        Command::Create(args) => create::run(context, args).await,
        Command::Exec(args) => exec::run(context, args).await,
        Command::Ls(args) => ls::run(context, args).await,
        Command::Inspect(args) => inspect::run(context, args).await,
        Command::Stop(args) => stop::run(context, args).await,
        Command::Rm(args) => rm::run(context, args).await,
        Command::Policy(command) => policy::run(context, command).await,
        Command::Secret(command) => secret::run(context, command).await,
        Command::Settings(command) => settings::run(context, command).await,
        Command::Daemon(command) => daemon::run(context, command).await,
        Command::Diagnose(args) => diagnose::run(context, args).await,
        Command::Prune(args) => prune::run(context, args).await,
        Command::Reset(args) => reset::run(context, args).await,
        Command::Login(args) => login::run(context, args).await,
        Command::Version(args) => version::run(context, args).await,
    }
}
