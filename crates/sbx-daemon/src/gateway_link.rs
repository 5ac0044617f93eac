//! The daemon's connection to one gateway: the whole configuration at each connect and each change.
//!
//! A gateway that was restarted is connected again within [`RETRY`]; until then it works from `gateway.json`,
//! which is always written first.

use crate::authority::Issued;
use crate::browser;
use crate::daemon::Daemon;
use crate::issued;
use crate::older_gateway::{self, Older};
use crate::on_demand;
use crate::sandbox::Sandbox;
use crate::ssh_agent;
use sbx_wire::gateway::{Answer, Command, GatewayConfig, MAX_ISSUED, PublicKey};
use sbx_wire::launch::sockets;
use sbx_wire::report::Report;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};

/// Between two attempts to connect.
pub(crate) const RETRY: Duration = Duration::from_millis(50);
/// The same for the first [`EARLY`] attempts: a gateway that is being started is there in a moment, and is waited
/// for.
const SOON: Duration = Duration::from_millis(5);
const EARLY: u32 = 100;
/// Time for an answer; building a large policy takes well under a second.
const ANSWER: Duration = Duration::from_secs(10);
/// How often an intermediate's age is looked at. By the wall clock, because it goes on while the machine sleeps.
const LOOK: Duration = Duration::from_mins(1);
/// Longest answer, bytes: two texts of [`MAX_ISSUED`], each byte of which may be written as six.
const MAX_ANSWER: u64 = 13 * MAX_ISSUED as u64;

/// What was asked for and what is in force, as revisions that rise with each change.
#[derive(Debug)]
pub(crate) struct Link {
    wanted: watch::Sender<u64>,
    applied: watch::Sender<Applied>,
}

/// The newest answer of a gateway.
#[derive(Debug, Clone, Default)]
struct Applied {
    revision: u64,
    refused: Option<String>,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            wanted: watch::Sender::new(1),
            applied: watch::Sender::default(),
        }
    }
}

impl Link {
    /// Something changed: the gateway needs another configuration.
    pub(crate) fn request(&self) -> u64 {
        self.wanted.send_modify(|revision| *revision += 1);
        *self.wanted.borrow()
    }

    /// Waits until `revision` is in force.
    pub(crate) async fn applied(&self, revision: u64, limit: Duration) -> Result<(), Report> {
        let mut applied = self.applied.subscribe();
        let waited = applied.wait_for(|now| now.revision >= revision);
        match tokio::time::timeout(limit, waited).await {
            Ok(Ok(now)) => match &now.refused {
                None => Ok(()),
                Some(reason) => Err(Report::environment(
                    "gateway-refused",
                    format!("the gateway refuses it and keeps the last good policy: {reason}"),
                    "sbx stop NAME, and start it again: its gateway may be of another version of sbx",
                )),
            },
            _ => Err(Report::environment(
                "gateway-silent",
                "the gateway has not confirmed it",
                "sbx inspect NAME; sbx stop NAME if its gateway is stuck",
            )),
        }
    }

    /// Waits until some configuration is in force.
    pub(crate) async fn configured(&self) {
        let mut applied = self.applied.subscribe();
        // The sender lives as long as we do.
        let _ = applied.wait_for(|now| now.revision > 0).await;
    }

    /// Why the gateway works with an older configuration, if it does.
    pub(crate) fn behind(&self) -> Option<String> {
        let wanted = *self.wanted.borrow();
        let applied = self.applied.borrow();
        match &applied.refused {
            Some(reason) => Some(format!("its gateway refuses the newest policy: {reason}")),
            None if applied.revision < wanted => {
                Some("its gateway has not confirmed the newest policy".to_owned())
            }
            None => None,
        }
    }
}

/// Configures the sandbox's gateway until `ended` closes, which is when its supervisor has ended.
pub(crate) fn spawn(daemon: Arc<Daemon>, sandbox: Arc<Sandbox>, ended: oneshot::Receiver<()>) {
    tokio::spawn(async move {
        tokio::select! {
            _ = ended => {}
            () = serve(&daemon, &sandbox) => {}
            () = browser::serve(&daemon, &sandbox) => {}
            () = on_demand::serve(&daemon, &sandbox) => {}
            () = ssh_agent::serve(&daemon, &sandbox) => {}
            () = issued::serve(&daemon, &sandbox) => {}
        }
    });
}

async fn serve(daemon: &Daemon, sandbox: &Sandbox) {
    let mut attempts = 0;
    loop {
        match connect(sandbox).await {
            Ok((read, write)) => {
                attempts = 0;
                if let Err(error) = converse(daemon, sandbox, read, write).await {
                    tracing::warn!(sandbox = sandbox.name, %error, "gateway connection");
                }
            }
            Err(error) => tracing::debug!(sandbox = sandbox.name, %error, "no gateway yet"),
        }
        attempts += 1;
        tokio::time::sleep(if attempts < EARLY { SOON } else { RETRY }).await;
    }
}

async fn converse(
    daemon: &Daemon,
    sandbox: &Sandbox,
    mut read: BufReader<OwnedReadHalf>,
    mut write: OwnedWriteHalf,
) -> io::Result<()> {
    let mut wanted = sandbox.gateway.wanted.subscribe();
    let answer = ask(&mut read, &mut write, &Command::CertificateRequest).await?;
    let Answer::CertificateRequest { public_key: key } = answer else {
        return Err(io::Error::other("the gateway named no key"));
    };
    let mut issued = issue(daemon, sandbox, key)?;
    loop {
        let revision = *wanted.borrow_and_update();
        let config = daemon.gateway_config(sandbox, issued.authority.clone());
        let refused = configure(&mut read, &mut write, config).await?;
        if let Some(reason) = &refused {
            tracing::error!(sandbox = sandbox.name, reason, "configuration refused");
        }
        sandbox
            .gateway
            .applied
            .send_replace(Applied { revision, refused });
        let mut byte = [0];
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return Ok(()) },
            read = read.read(&mut byte) => {
                return match read? {
                    0 => Ok(()),
                    _ => Err(io::Error::other("the gateway spoke without being asked")),
                };
            }
            () = due(&issued) => {}
        }
        if issued.is_due() {
            issued = issue(daemon, sandbox, key)?;
        }
    }
}

/// Configures the gateway; why it took not all of it.
async fn configure(
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
    config: GatewayConfig,
) -> io::Result<Option<String>> {
    let older = older_gateway::older(&config);
    let answer = ask(read, write, &Command::Configure(Box::new(config))).await?;
    let Answer::Refused { reason } = answer else {
        return Ok(None);
    };
    // At least the policy is in force then.
    for Older { config, complete } in older {
        let answer = ask(read, write, &Command::Configure(Box::new(config))).await?;
        if !matches!(answer, Answer::Refused { .. }) {
            return Ok(Some(reason).filter(|_| !complete));
        }
    }
    Ok(Some(reason))
}

fn issue(daemon: &Daemon, sandbox: &Sandbox, key: PublicKey) -> io::Result<Issued> {
    let issued = daemon.root.intermediate(&sandbox.name, key);
    issued.map_err(io::Error::other)
}

/// Waits until it is time for another intermediate.
async fn due(issued: &Issued) {
    while !issued.is_due() {
        tokio::time::sleep(LOOK).await;
    }
}

async fn ask(
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
    command: &Command,
) -> io::Result<Answer> {
    let exchange = async {
        send(write, command).await?;
        receive(read).await
    };
    tokio::time::timeout(ANSWER, exchange)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Connects to the control socket of the sandbox's gateway.
pub(crate) async fn connect(
    sandbox: &Sandbox,
) -> io::Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf)> {
    open(&sandbox.runtime.join(sockets::GATEWAY)).await
}

/// Connects to a gateway's control socket.
pub(crate) async fn open(socket: &Path) -> io::Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf)> {
    let stream = UnixStream::connect(socket).await?;
    if stream.peer_cred()?.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("the socket belongs to another user"));
    }
    let (read, write) = stream.into_split();
    Ok((BufReader::new(read), write))
}

/// Sends one command.
pub(crate) async fn send(write: &mut OwnedWriteHalf, command: &Command) -> io::Result<()> {
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    write.write_all(&line).await?;
    // The line held secrets.
    line.fill(0);
    Ok(())
}

/// Waits for one answer.
pub(crate) async fn receive(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Answer> {
    let mut answer = Vec::new();
    let count = read.take(MAX_ANSWER).read_until(b'\n', &mut answer).await?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let parsed = serde_json::from_slice(&answer);
    // It may have held secrets, which the parser's error would quote.
    answer.fill(0);
    parsed.map_err(|error| io::Error::other(format!("not an answer, at column {}", error.column())))
}
