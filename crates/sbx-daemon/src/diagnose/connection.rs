//! Supervisors and gateways of the sandboxes that run, asked directly: the daemon may be gone.

use super::Finding;
use super::sandboxes::folders;
use crate::gateway_link;
use crate::lifecycle;
use sbx_wire::diagnosis::{Check, Group, Outcome};
use sbx_wire::frame::{Decoder, encode};
use sbx_wire::gateway::{Answer, Command};
use sbx_wire::home::Home;
use sbx_wire::launch::files::LOCK;
use sbx_wire::launch::sockets;
use sbx_wire::session::{Phase, Reply, Request, Status};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Time for an answer.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn look(home: &Home) -> Vec<Finding> {
    let mut found = Vec::new();
    for (id, dir) in folders(home) {
        if lifecycle::is_free(&dir.join(LOCK)) {
            continue;
        }
        let runtime = home.sandbox_runtime(&id);
        let supervisor = within(supervisor(&runtime)).await;
        let running = matches!(&supervisor, Ok(status) if status.phase == Phase::Running);
        found.push(supervisor_check(&id, supervisor).into());
        if running {
            found.push(gateway_check(&id, within(gateway(&runtime)).await).into());
        }
    }
    if found.is_empty() {
        let check = Check::new(
            Group::Connection,
            "supervisors",
            Outcome::Skip,
            "no sandbox runs",
        );
        found.push(check.into());
    }
    found
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(LIMIT, work)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn supervisor(runtime: &Path) -> io::Result<Status> {
    let mut stream = UnixStream::connect(runtime.join(sockets::SUPERVISOR)).await?;
    let request = encode(0, &Request::Status).map_err(io::Error::other)?;
    stream.write_all(&request).await?;
    let mut decoder = Decoder::new(0);
    loop {
        match decoder.next::<Reply>().map_err(io::Error::other)? {
            Some(Reply::Status(status)) => return Ok(status),
            Some(_) => return Err(io::Error::other("it answers something else")),
            None => {}
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => decoder.push(&piece[..count]),
        }
    }
}

fn supervisor_check(id: &str, found: io::Result<Status>) -> Check {
    let name = format!("supervisor:{id}");
    let check = |status, message: String| Check::new(Group::Connection, &name, status, message);
    match found {
        Ok(status) => match status.phase {
            Phase::Running => check(Outcome::Pass, format!("up for {} s", status.uptime_s)),
            Phase::Starting(step) => check(Outcome::Pass, format!("starting: {step}")),
            Phase::Stopping => check(Outcome::Pass, "stopping".to_owned()),
            Phase::Unresponsive(why) => {
                let shown: String = why.chars().filter(|c| !c.is_control()).collect();
                check(
                    Outcome::Fail,
                    format!("the sandbox is unresponsive: {shown}"),
                )
                .hint("the next sbx run or exec restarts it")
            }
        },
        Err(error) => check(Outcome::Fail, format!("it does not answer: {error}"))
            .hint("sbx stop the sandbox, which ends it by force if need be"),
    }
}

async fn gateway(runtime: &Path) -> io::Result<Answer> {
    let (mut read, mut write) = gateway_link::open(&runtime.join(sockets::GATEWAY)).await?;
    gateway_link::send(&mut write, &Command::Status).await?;
    gateway_link::receive(&mut read).await
}

fn gateway_check(id: &str, found: io::Result<Answer>) -> Check {
    let name = format!("gateway:{id}");
    let check = |status, message: String| Check::new(Group::Connection, &name, status, message);
    let restart = "sbx daemon restart";
    match found {
        Ok(Answer::Status {
            problem: Some(why), ..
        }) => check(Outcome::Fail, format!("it denies everything: {why}")).hint(restart),
        Ok(Answer::Status {
            configured: false, ..
        }) => check(
            Outcome::Fail,
            "it has no credentials, so their hosts are closed".to_owned(),
        )
        .hint(restart),
        Ok(Answer::Status {
            attached: false, ..
        }) => check(Outcome::Fail, "it has no machine".to_owned()).hint("sbx stop the sandbox"),
        Ok(Answer::Status {
            generation,
            connections,
            ..
        }) => {
            let message = format!("policy {generation}, {connections} connections");
            check(Outcome::Pass, message)
        }
        Ok(_) => check(Outcome::Fail, "it answers something else".to_owned()).hint(restart),
        Err(error) => check(Outcome::Fail, format!("it does not answer: {error}"))
            .hint("its supervisor replaces it within 2 s; look again"),
    }
}
