//! `run --rm`: sandboxes that are removed once they have ended, however they end.
//!
//! The mark is in `sandbox.json`, so it holds when the command is killed and when the daemon is: the next
//! daemon finds the sandbox ended and removes it, or follows it until it ends.

use crate::daemon::Daemon;
use crate::files;
use crate::lifecycle;
use crate::sandbox::{Live, Sandbox};
use sbx_wire::launch;
use sbx_wire::report::Report;
use std::sync::Arc;

/// From now on the sandbox is removed when it has ended. It runs, or did a moment ago.
pub(crate) async fn mark(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) -> Result<(), Report> {
    let gate = sandbox.gate.lock().await;
    sandbox.intact()?;
    let mut record = sandbox.record();
    record.remove_when_ended = true;
    files::replace_json(&sandbox.dir.join(launch::files::SANDBOX), &record)?;
    daemon.store().put_sandbox(&record)?;
    sandbox.set_record(record);
    drop(gate);
    // Whoever follows it may have seen its end before the mark.
    when_ended(daemon.clone(), sandbox.clone());
    Ok(())
}

/// Waits in the background for the sandbox's end, and removes it if it is marked then.
pub(crate) fn when_ended(daemon: Arc<Daemon>, sandbox: Arc<Sandbox>) {
    tokio::spawn(async move {
        let mut live = sandbox.live.subscribe();
        // The sender lives as long as the sandbox.
        let _ = live.wait_for(|live| matches!(live, Live::Stopped(_))).await;
        if let Err(report) = remove_ended(&daemon, &sandbox).await {
            tracing::error!(sandbox = sandbox.name, %report, "not removed");
        }
    });
}

/// Removes the sandbox if it is marked and has ended.
pub(crate) async fn remove_ended(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
) -> Result<(), Report> {
    if !sandbox.record().remove_when_ended {
        return Ok(());
    }
    let _gate = sandbox.gate.lock().await;
    let known = daemon.sandbox(&sandbox.name);
    let same = known.is_ok_and(|known| Arc::ptr_eq(&known, sandbox));
    if !same || !matches!(sandbox.live(), Live::Stopped(_)) {
        // Somebody else removed it, or started it again.
        return Ok(());
    }
    remove_held(daemon, sandbox).await
}

/// [`remove_ended`] with the gate held by the caller.
pub(crate) async fn remove_held(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
) -> Result<(), Report> {
    // A start that failed, or a supervisor that was killed, leaves sockets.
    lifecycle::end(sandbox, std::time::Duration::ZERO).await?;
    lifecycle::discard(daemon, sandbox)?;
    tracing::info!(sandbox = sandbox.name, "removed, because it was run to be");
    Ok(())
}
