//! Saving and loading everything of a machine but its memory, through descriptors: QEMU may open nothing but its own disks.

use crate::args::STATE_FD;
use crate::qmp::{Event, Qmp, QmpError};
use sbx_wire::launch::MAX_STATE;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// Between two looks at whether QEMU, which has closed the pipe, agrees that it is done.
const LOOK: Duration = Duration::from_millis(5);

/// Name of the descriptor that QEMU writes to.
const NAME: &str = "state";

/// Stops the machine and returns its state, at most [`MAX_STATE`] bytes.
///
/// # Errors
/// See [`QmpError`].
pub async fn save(qmp: &Qmp) -> Result<Vec<u8>, QmpError> {
    qmp.execute("stop", Value::Null).await?;
    leave_memory_out(qmp).await?;
    let (write, read) = pipe::pipe()?;
    qmp.give(NAME, write.into_blocking_fd()?).await?;
    let target = json!({"uri": format!("fd:{NAME}")});
    qmp.execute("migrate", target).await?;
    let mut state = Vec::new();
    // QEMU closes its end when it has written everything, or failed.
    read.take(u64::from(MAX_STATE) + 1)
        .read_to_end(&mut state)
        .await?;
    if state.len() > MAX_STATE as usize {
        return Err(QmpError::Protocol(
            "more state than any machine of ours has",
        ));
    }
    await_completion(qmp).await?;
    Ok(state)
}

async fn await_completion(qmp: &Qmp) -> Result<(), QmpError> {
    loop {
        let progress = qmp.execute("query-migrate", Value::Null).await?;
        match progress.get("status").and_then(Value::as_str) {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                let why = progress.get("error-desc").and_then(Value::as_str);
                return Err(QmpError::Refused {
                    command: "migrate".to_owned(),
                    description: why.unwrap_or("it failed").to_owned(),
                });
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Has a machine that was started without a state load it from [`STATE_FD`]. Returns when it could run; it is
/// stopped as it was when it was saved. `events` must not have been read since the monitor was connected.
///
/// # Errors
/// See [`QmpError`]. QEMU ends by itself when it cannot load the state.
pub async fn load(qmp: &Qmp, events: &mut mpsc::Receiver<Event>) -> Result<(), QmpError> {
    leave_memory_out(qmp).await?;
    let source = json!({"uri": format!("fd:{STATE_FD}")});
    qmp.execute("migrate-incoming", source).await?;
    while let Some(event) = events.recv().await {
        match event.data.get("status").and_then(Value::as_str) {
            Some("completed") if event.name == "MIGRATION" => return Ok(()),
            Some("failed") if event.name == "MIGRATION" => break,
            _ => {}
        }
    }
    Err(QmpError::Closed)
}

/// The memory is a file already. And the end is announced.
async fn leave_memory_out(qmp: &Qmp) -> Result<(), QmpError> {
    let on = |name| json!({"capability": name, "state": true});
    let all = json!({"capabilities": [on("x-ignore-shared"), on("events")]});
    qmp.execute("migrate-set-capabilities", all).await.map(drop)
}
