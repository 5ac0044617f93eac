//! The control socket: one JSON document a line, from processes of the same user only.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sbx_wire::browser::Address;
use sbx_wire::gateway::{Answer, Command, GatewayFile, MAX_LINE};
use sbx_wire::ssh_agent;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::credentials::issuers::{Errand, Tell, Told};
use crate::credentials::values::Question;
use crate::desk::Taken;
use crate::gateway::Gateway;
use crate::generation::Generation;
use crate::limits;

/// Serves control connections for as long as the process lives.
pub async fn serve(listener: UnixListener, gateway: Arc<Gateway>) {
    let slots = Arc::new(Semaphore::new(limits::CONTROL_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let gateway = gateway.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &gateway).await {
                        tracing::warn!(%error, "control connection");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept a control connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, gateway: &Arc<Gateway>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != rustix::process::geteuid().as_raw() {
        tracing::warn!(peer, "control connection of another user closed");
        return Ok(());
    }
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    let mut kept = Kept::default();
    loop {
        line.clear();
        let length = (&mut reader)
            .take(limit + 1)
            .read_until(b'\n', &mut line)
            .await?;
        if length == 0 {
            return Ok(());
        }
        let too_long = line.len() > MAX_LINE;
        let answer = if too_long {
            Answer::Refused {
                reason: format!("a line has at most {MAX_LINE} bytes"),
            }
        } else {
            match parse(&line) {
                Ok(Command::Configure(config)) => {
                    // A large policy takes tens of milliseconds to index, in which nothing else would be relayed.
                    let gateway = gateway.clone();
                    let work = move || configure(&gateway, *config);
                    tokio::task::spawn_blocking(work).await?
                }
                Ok(command) => match Which::of(&command) {
                    Some(desk) => {
                        kept.answered(command);
                        kept.next(gateway, &mut reader, desk).await?
                    }
                    None => obey(gateway, &command),
                },
                Err(reason) => Answer::Refused { reason },
            }
        };
        zeroize(&mut line);
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        let written = writer.write_all(&text).await;
        zeroize(&mut text);
        written?;
        if too_long {
            return Ok(());
        }
    }
}

/// What a connection was given to deal with, by each of the desks.
#[derive(Default)]
struct Kept {
    page: Option<Taken<Address, Result<(), String>>>,
    question: Option<Question>,
    errand: Option<Taken<Errand, Told>>,
    agent: Option<Taken<ssh_agent::Request, ssh_agent::Reply>>,
}

/// One of the desks.
#[derive(Debug, Clone, Copy)]
enum Which {
    Pages,
    Values,
    Issued,
    Agent,
}

impl Which {
    fn of(command: &Command) -> Option<Self> {
        match command {
            Command::AwaitPage | Command::PageHandled { .. } => Some(Self::Pages),
            Command::AwaitValue | Command::Value { .. } => Some(Self::Values),
            Command::AwaitIssued | Command::IssuedHandled { .. } => Some(Self::Issued),
            Command::AwaitAgent | Command::AgentHandled { .. } => Some(Self::Agent),
            Command::Configure(_) | Command::CertificateRequest | Command::Status => None,
        }
    }
}

impl Kept {
    /// Takes what the daemon says about what it was given.
    fn answered(&mut self, command: Command) {
        match command {
            Command::PageHandled { problem } => {
                if let Some(page) = self.page.take() {
                    page.answer(problem.map_or(Ok(()), Err));
                }
            }
            Command::Value {
                service,
                value,
                problem,
            } => {
                let asked = self.question.take();
                if let Some(asked) = asked.filter(|asked| asked.service == service) {
                    asked.answered(value.ok_or_else(|| why(problem)));
                }
            }
            Command::AgentHandled { reply } => {
                if let Some(asked) = self.agent.take() {
                    asked.answer(reply);
                }
            }
            Command::IssuedHandled {
                body,
                problem,
                status,
            } => {
                if let Some(errand) = self.errand.take() {
                    let told = body.map(|body| Tell { body, status });
                    errand.answer(told.ok_or_else(|| why(problem)));
                }
            }
            _ => {}
        }
    }

    /// Waits for the next of the kind.
    async fn next(
        &mut self,
        gateway: &Gateway,
        reader: &mut BufReader<OwnedReadHalf>,
        desk: Which,
    ) -> io::Result<Answer> {
        match desk {
            Which::Pages => {
                let tell = |page: &Taken<Address, _>| Answer::OpenPage {
                    address: page.what.clone(),
                };
                wait(reader, gateway.browser.next(), &mut self.page, tell).await
            }
            Which::Values => {
                let tell = |question: &Question| Answer::ValueNeeded {
                    service: question.service.clone(),
                };
                wait(reader, gateway.values.next(), &mut self.question, tell).await
            }
            Which::Agent => {
                let tell = |asked: &Taken<ssh_agent::Request, _>| Answer::AgentAsked {
                    request: asked.what.clone(),
                };
                wait(reader, gateway.ssh_agent.next(), &mut self.agent, tell).await
            }
            Which::Issued => {
                let tell = |errand: &Taken<Errand, Told>| errand.what.tell();
                wait(reader, gateway.issued.next(), &mut self.errand, tell).await
            }
        }
    }
}

fn why(problem: Option<String>) -> String {
    problem.unwrap_or_else(|| "The host has none".to_owned())
}

/// The line held secrets in clear text.
fn zeroize(line: &mut Vec<u8>) {
    line.fill(0);
    std::hint::black_box(&line);
}

fn parse(line: &[u8]) -> Result<Command, String> {
    serde_json::from_slice(line).map_err(|error| why_not(line, &error))
}

/// Waits for what one of the desks is handed, for as long as the other side does. `T`: kept while the daemon deals with it.
async fn wait<T>(
    reader: &mut BufReader<OwnedReadHalf>,
    next: impl Future<Output = T>,
    kept: &mut Option<T>,
    tell: impl FnOnce(&T) -> Answer,
) -> io::Result<Answer> {
    // What it did not answer is unanswered.
    *kept = None;
    tokio::select! {
        taken = next => {
            let answer = tell(&taken);
            *kept = Some(taken);
            Ok(answer)
        }
        error = no_longer_waits(reader) => Err(error),
    }
}

/// The end of the other side, or its breach of the protocol.
async fn no_longer_waits(reader: &mut BufReader<OwnedReadHalf>) -> io::Error {
    match reader.fill_buf().await {
        Ok([]) => io::ErrorKind::UnexpectedEof.into(),
        Ok(_) => io::Error::other("spoke while it waits"),
        Err(error) => error,
    }
}

fn obey(gateway: &Gateway, command: &Command) -> Answer {
    match command {
        Command::CertificateRequest => match gateway.key.public() {
            Ok(public_key) => Answer::CertificateRequest { public_key },
            Err(error) => Answer::Refused {
                reason: error.to_string(),
            },
        },
        Command::Status => {
            let generation = gateway.generation();
            Answer::Status {
                generation: generation.number,
                attached: gateway.status.attached.load(Ordering::Relaxed),
                connections: gateway.status.connections.load(Ordering::Relaxed),
                configured: generation.configured,
                problem: generation.problem.clone(),
            }
        }
        _ => Answer::Refused {
            reason: "this is dealt with where the connection is".to_owned(),
        },
    }
}

/// What is wrong with a line. serde's messages quote values, which can be secrets: where is said, and what only for
/// the part of a configuration that lies on the disk in clear text anyway, with the rules.
fn why_not(line: &[u8], error: &serde_json::Error) -> String {
    #[derive(serde::Deserialize)]
    struct Clear {
        #[serde(default, rename = "file")]
        _file: Option<GatewayFile>,
    }
    match serde_json::from_slice::<Clear>(line) {
        Err(clear) if clear.is_data() => format!("the configuration is not usable: {clear}"),
        _ => format!("not a command, at column {}", error.column()),
    }
}

fn configure(gateway: &Gateway, config: sbx_wire::gateway::GatewayConfig) -> Answer {
    let before = gateway.generation();
    match Generation::from_config(config, &gateway.host, &gateway.key, &before) {
        Ok(generation) => {
            let number = generation.number;
            gateway.replace(generation);
            tracing::info!(generation = number, "configured");
            Answer::Configured { generation: number }
        }
        Err(error) => {
            tracing::warn!(%error, "configuration refused");
            Answer::Refused {
                reason: error.to_string(),
            }
        }
    }
}
