//! What endpoints issue to a sandbox: the gateway hands over their answers, and requests that would exchange a placeholder.
//! Tokens are kept here; the guest is told placeholders.

use crate::daemon::Daemon;
use crate::gateway_link::{RETRY, connect, receive, send};
use crate::sandbox::Sandbox;
use crate::sign_ins::{self, New, Trouble, When};
use sbx_credentials::oauth::{Document, Issued};
use sbx_credentials::services::{Endpoint, Service};
use sbx_policy::{PathPattern, RequestPath};
use sbx_secrets::{Key, Scope};
use sbx_wire::gateway::{Answer, Command};
use sbx_wire::secret::SecretText;
use serde_json::json;
use std::io;
use std::sync::Arc;

/// Status of an answer that refuses to exchange something (RFC 6749, section 5.2).
const BAD_REQUEST: u16 = 400;

/// What the guest is told: a body, and a status other than that of success.
type Told = (String, Option<u16>);

/// Serves one sandbox for as long as it runs: four at a time, because a gateway waits only for a few seconds until what it
/// hands over is taken, and a refresh can take longer.
pub(crate) async fn serve(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) {
    // A gateway of an older version has room for few connections, and its configuration comes first.
    sandbox.gateway.configured().await;
    let one = || ask_again(daemon, sandbox);
    tokio::join!(one(), one(), one(), one());
}

async fn ask_again(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) {
    loop {
        if let Err(error) = converse(daemon, sandbox).await {
            tracing::debug!(sandbox = sandbox.name, %error, "what is issued");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn converse(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) -> io::Result<()> {
    let (mut read, mut write) = connect(sandbox).await?;
    let mut command = Command::AwaitIssued;
    loop {
        send(&mut write, &command).await?;
        let answer = receive(&mut read).await?;
        if !matches!(answer, Answer::Issued { .. } | Answer::Exchange { .. }) {
            // A gateway of an older version: it is not asked again before there is another one.
            receive(&mut read).await?;
            return Err(io::Error::other("the gateway spoke without being asked"));
        }
        // To its end, even if the sandbox ends meanwhile: what was issued once may not be issued again.
        let work = tokio::spawn(deal(daemon.clone(), sandbox.clone(), answer));
        let outcome = work.await.unwrap_or_else(|_| Err(NOT_KEPT.to_owned()));
        let problem = outcome.as_ref().err().cloned();
        tracing::info!(sandbox = sandbox.name, ?problem, "what was issued");
        let (body, status) = outcome.ok().unzip();
        command = Command::IssuedHandled {
            body: body.map(SecretText::new),
            problem,
            status: status.flatten(),
        };
    }
}

const NOT_KEPT: &str = "the host could not keep it";

async fn deal(daemon: Arc<Daemon>, sandbox: Arc<Sandbox>, answer: Answer) -> Result<Told, String> {
    match answer {
        Answer::Issued {
            service,
            body,
            host,
            path,
            asked,
        } => {
            let asked = asked.and_then(|asked| Document::parse(asked.expose()));
            let from = endpoint(&service, &host, &path).ok_or(NOT_KEPT)?;
            keep(&daemon, &sandbox, from, &body, asked.as_ref()).await
        }
        Answer::Exchange { service, body } => exchange(&daemon, &sandbox, &service, &body).await,
        _ => Err(NOT_KEPT.to_owned()),
    }
}

/// Whose answer it is: a host may issue several things. The path is compared as the gateway compares it.
fn endpoint(
    service: &str,
    host: &str,
    path: &str,
) -> Option<(&'static Service, &'static Endpoint)> {
    let service = Service::find(service)?;
    let path = RequestPath::parse(path).ok()?;
    let is_asked = |one: &&Endpoint| {
        let pattern = one.path.parse::<PathPattern>();
        one.host == host && one.kept.is_some() && pattern.is_ok_and(|one| one.denies(&path))
    };
    let endpoint = service.issuing.iter().find(is_asked)?;
    Some((service, endpoint))
}

/// Keeps what was issued.
async fn keep(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
    (service, endpoint): (&'static Service, &'static Endpoint),
    body: &SecretText,
    asked: Option<&Document>,
) -> Result<Told, String> {
    let kept = endpoint.kept.ok_or(NOT_KEPT)?;
    let answer = Document::parse(body.expose());
    let answer = answer.ok_or("what it answered is neither JSON nor a form")?;
    let Some(issued) = Issued::of(&answer, kept.token) else {
        // It says that nobody has agreed yet, or why nobody will.
        let error = answer.error();
        let error = error.ok_or("what it answered holds no token that can be kept")?;
        return Ok((error.body(), None));
    };
    if is_placeholder(daemon, sandbox, &issued.access) {
        // The gateway has found a value in it that it knows.
        let told = answer.told(&[(&issued.access, &issued.access)]);
        return Ok((told.body(), None));
    }
    if !is_there(daemon, sandbox) {
        return Err(NOT_KEPT.to_owned());
    }
    let new = New {
        service,
        endpoint,
        answer,
        issued,
        asked,
    };
    let scope = Scope::Sandbox(sandbox.name.clone());
    let stored = sign_ins::store(daemon, &scope, new);
    let secret = stored.map_err(|report| {
        tracing::error!(sandbox = sandbox.name, %report, "what was issued is not kept");
        NOT_KEPT.to_owned()
    })?;
    if !is_there(daemon, sandbox) {
        // It was removed meanwhile, with everything that was its own then.
        let _gone = daemon.secrets().remove(|key| *key == secret.key);
        return Err(NOT_KEPT.to_owned());
    }
    tracing::info!(sandbox = sandbox.name, name = secret.key.name, "signed in");
    // Before the guest uses it.
    let pushed = daemon.push_secrets(Some(&sandbox.name)).await;
    pushed.map_err(|error| format!("it is kept, but {}", error.0.message))?;
    let (sign_in, _) = sign_ins::of(&secret).ok_or(NOT_KEPT)?;
    Ok((sign_in.told.clone(), None))
}

fn is_there(daemon: &Daemon, sandbox: &Arc<Sandbox>) -> bool {
    let known = daemon.sandbox(&sandbox.name);
    known.is_ok_and(|known| Arc::ptr_eq(&known, sandbox))
}

fn is_placeholder(daemon: &Daemon, sandbox: &Sandbox, token: &str) -> bool {
    let vault = daemon.secrets();
    let mut all = sign_ins::in_force(&vault, &sandbox.name);
    let stored = all.any(|(_, one, _)| one.placeholders().any(|(text, _)| text == token));
    stored
        || sandbox
            .record()
            .placeholders
            .values()
            .any(|text| text == token)
}

/// Answers a request that would exchange a placeholder.
async fn exchange(
    daemon: &Arc<Daemon>,
    sandbox: &Sandbox,
    service: &str,
    body: &SecretText,
) -> Result<Told, String> {
    let asked = Document::parse(body.expose());
    let text = |names: [&str; 2]| {
        let asked = asked.as_ref()?;
        names.iter().find_map(|name| asked.text(name))
    };
    let Some(token) = text(["refresh_token", "refreshToken"]) else {
        return Ok(refused(
            "unsupported_grant_type",
            "a placeholder is exchanged for nothing but another access token",
        ));
    };
    let Some(key) = key(daemon, sandbox, service, token) else {
        return Ok(refused(
            "invalid_grant",
            "the sign-in is not stored any more; sign in again",
        ));
    };
    match sign_ins::refreshed(daemon, &key, When::Asked).await {
        Ok(secret) => {
            let told = sign_ins::of(&secret).and_then(|(one, _)| sign_ins::told_again(one));
            Ok((told.ok_or(NOT_KEPT)?, None))
        }
        Err(Trouble::Ended(why)) => Ok(refused("invalid_grant", &why)),
        Err(Trouble::Later(why)) => Err(why),
    }
}

fn key(daemon: &Daemon, sandbox: &Sandbox, service: &str, token: &str) -> Option<Key> {
    let vault = daemon.secrets();
    let mut all = sign_ins::in_force(&vault, &sandbox.name);
    let (secret, ..) = all.find(|(_, one, _)| {
        one.service == service && one.refreshes.iter().any(|text| text == token)
    })?;
    Some(secret.key.clone())
}

fn refused(code: &str, why: &str) -> Told {
    let body = json!({ "error": code, "error_description": why });
    (body.to_string(), Some(BAD_REQUEST))
}
