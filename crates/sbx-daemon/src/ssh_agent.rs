//! The host's SSH agent, for programs inside: which keys a sandbox may know of, and signatures of the two kinds that have a
//! known meaning. What is signed is written here from what the gateway has parsed.

mod confirm;
mod host;

use crate::daemon::Daemon;
use crate::gateway_link::{RETRY, connect, receive, send};
use crate::sandbox::Sandbox;
use crate::settings::{self, KeyUse, Ssh};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sbx_wire::gateway::{Answer, Command};
use sbx_wire::ssh_agent::{Hex, Key, Reply, Request, SOCKET};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use confirm::Questions;

/// Where programs find an agent.
pub(crate) const VARIABLE: &str = "SSH_AUTH_SOCK";

/// The variable for the sessions of a sandbox, if they are to find the agent.
pub(crate) fn variable(daemon: &Daemon) -> Option<(String, String)> {
    let wanted = settings::ssh(daemon.store().settings()).ok()?;
    wanted
        .enabled
        .then(|| (VARIABLE.to_owned(), SOCKET.to_owned()))
}

/// Serves one sandbox for as long as it runs: two requests at a time, so that keys can be listed while a person is asked.
pub(crate) async fn serve(daemon: &Daemon, sandbox: &Sandbox) {
    // A gateway of an older version has room for few connections, and its configuration comes first.
    sandbox.gateway.configured().await;
    let one = || ask_again(daemon, sandbox);
    tokio::join!(one(), one());
}

async fn ask_again(daemon: &Daemon, sandbox: &Sandbox) {
    loop {
        if let Err(error) = converse(daemon, sandbox).await {
            tracing::debug!(sandbox = sandbox.name, %error, "SSH agent");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn converse(daemon: &Daemon, sandbox: &Sandbox) -> io::Result<()> {
    let (mut read, mut write) = connect(sandbox).await?;
    let mut command = Command::AwaitAgent;
    loop {
        send(&mut write, &command).await?;
        let Answer::AgentAsked { request } = receive(&mut read).await? else {
            // A gateway of an older version: it is not asked again before there is another one.
            receive(&mut read).await?;
            return Err(io::Error::other("the gateway spoke without being asked"));
        };
        let reply = answer(daemon, sandbox, &request).await;
        let reply = reply.unwrap_or_else(|why| Reply::Refused { why });
        if let Request::Sign { purpose, key, .. } = &request {
            let refused = match &reply {
                Reply::Refused { why } => Some(why),
                _ => None,
            };
            let (sandbox, key) = (&sandbox.name, fingerprint(key));
            tracing::info!(sandbox, key, %purpose, refused, "SSH agent");
        }
        command = Command::AgentHandled { reply };
    }
}

async fn answer(daemon: &Daemon, sandbox: &Sandbox, request: &Request) -> Result<Reply, String> {
    let wanted = settings::ssh(daemon.store().settings()).map_err(|report| report.message)?;
    if !wanted.enabled {
        return Err(format!("{} is false on the host", settings::SSH_AGENT));
    }
    let socket = socket(&wanted).ok_or("the host has no SSH agent")?;
    let usable = usable(&wanted, host::ask(&socket, &Request::Keys).await?)?;
    let Request::Sign { key, purpose, .. } = request else {
        let keys = usable.into_iter().map(|(key, _)| key).collect();
        return Ok(Reply::Keys { keys });
    };
    let mut usable = usable.into_iter();
    let (known, usage) = usable
        .find(|(known, _)| known.key == *key)
        .ok_or("the key is none that sandboxes may use")?;
    if usage == KeyUse::Confirm {
        let name = format!("{} ({})", fingerprint(key), known.comment);
        daemon
            .ssh_questions
            .ask(&sandbox.name, &name, purpose)
            .await?;
    }
    host::ask(&socket, request).await
}

/// The keys that sandboxes may know of, and how they may use them.
fn usable(wanted: &Ssh, reply: Reply) -> Result<Vec<(Key, KeyUse)>, String> {
    let Reply::Keys { keys } = reply else {
        return Err("the host's SSH agent names no keys".to_owned());
    };
    let usable = keys.into_iter().filter_map(|key| {
        let usage = wanted.key(&fingerprint(&key.key))?;
        Some((key, usage))
    });
    Ok(usable.collect())
}

fn socket(wanted: &Ssh) -> Option<PathBuf> {
    let named = wanted.socket.clone();
    let found = named.or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from));
    found.filter(|path| Path::is_absolute(path))
}

/// As `ssh-add -l` prints it.
fn fingerprint(key: &Hex) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(&key.0)))
}
