//! Values that are fetched each time they are needed: the gateway says when.

use crate::daemon::Daemon;
use crate::gateway_link::{RETRY, connect, receive, send};
use crate::sandbox::Sandbox;
use crate::services;
use crate::short_lived;
use crate::sign_ins::{self, Trouble, When};
use sbx_secrets::{Held, Person, Secret};
use sbx_wire::gateway::{Answer, Command, SHORT_LIVED};
use sbx_wire::secret::SecretText;
use std::io;
use std::sync::Arc;

/// Serves one sandbox for as long as it runs: four fetches at a time, because a gateway waits only for a few seconds until one
/// of its questions is taken, and a fetch can take longer.
pub(crate) async fn serve(daemon: &Arc<Daemon>, sandbox: &Sandbox) {
    let one = || ask_again(daemon, sandbox);
    tokio::join!(one(), one(), one(), one());
}

async fn ask_again(daemon: &Arc<Daemon>, sandbox: &Sandbox) {
    loop {
        if let Err(error) = converse(daemon, sandbox).await {
            tracing::debug!(sandbox = sandbox.name, %error, "values on demand");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn converse(daemon: &Arc<Daemon>, sandbox: &Sandbox) -> io::Result<()> {
    let (mut read, mut write) = connect(sandbox).await?;
    let mut command = Command::AwaitValue;
    loop {
        send(&mut write, &command).await?;
        let Answer::ValueNeeded { service } = receive(&mut read).await? else {
            // A gateway of an older version: it is not asked again before there is another one.
            receive(&mut read).await?;
            return Err(io::Error::other("the gateway spoke without being asked"));
        };
        let outcome = if service == SHORT_LIVED {
            short_lived::document(daemon, sandbox).await
        } else {
            value(daemon, sandbox, &service).await
        };
        let problem = outcome.as_ref().err().cloned();
        tracing::info!(sandbox = sandbox.name, service, ?problem, "value on demand");
        command = Command::Value {
            service,
            value: outcome.ok(),
            problem,
        };
    }
}

/// The value, if it is the sandbox's and one that is fetched on demand.
async fn value(
    daemon: &Arc<Daemon>,
    sandbox: &Sandbox,
    service: &str,
) -> Result<SecretText, String> {
    let secret: Option<Secret> = {
        let vault = daemon.secrets();
        let mut in_force = vault.in_force(&sandbox.name).into_iter();
        in_force.find(|secret| secret.key.name == service).cloned()
    };
    if let Some(secret) = secret
        .as_ref()
        .filter(|secret| sign_ins::of(secret).is_some())
    {
        let refreshed = sign_ins::refreshed(daemon, &secret.key, When::Due).await;
        let secret = refreshed.map_err(Trouble::sentence)?;
        let value = sign_ins::of(&secret).map(|(_, value)| value.clone());
        return value.ok_or_else(|| "it is not stored any more".to_owned());
    }
    let secret = secret
        .filter(|secret| daemon.values.held(secret) == Held::OnDemand)
        .ok_or_else(|| "it is not stored any more".to_owned())?;
    fetched(daemon, &secret).await
}

/// The value of a secret that is fetched each time, as a gateway takes it.
pub(crate) async fn fetched(daemon: &Daemon, secret: &Secret) -> Result<SecretText, String> {
    let fetched = daemon.values.fetch(secret, Person::Absent).await;
    let value = fetched.map_err(|failure| failure.sentence)?;
    services::usable(&secret.key.name, &value).map_err(|problem| format!("what came {problem}"))
}
