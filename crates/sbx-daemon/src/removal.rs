//! `run --rm`: sandboxes that are removed once they have ended, however they end.
//!
//! The mark is in `sandbox.json`, so it holds when the command is killed and when the daemon is: the next
//! daemon finds the sandbox ended and removes it, or follows it until it ends.

use crate::daemon::Daemon;
use crate::sandbox::{Live, Sandbox};
use crate::{files, guard, lifecycle};
use sbx_wire::api::Guarded;
use sbx_wire::launch;
use sbx_wire::report::Report;
use sbx_workspace::Mode;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Sandboxes whose reports are kept, and most events of one. The command of a session asks right after its end; nobody
/// asks later.
const KEPT: usize = 8;
const MAX_EVENTS: usize = 1000;

/// What was tried in sandboxes that were removed at their end, by name, the newest last.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<VecDeque<(String, Guarded)>>);

impl Reports {
    fn keep(&self, name: &str, mut guarded: Guarded) {
        if guarded.events.len() > MAX_EVENTS {
            // What was made needs looking at.
            guarded
                .events
                .sort_by_key(|entry| (!entry.event.is_full(), entry.event.mode == Mode::Block));
            guarded.events.truncate(MAX_EVENTS);
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(known, _)| known != name);
        kept.push_back((name.to_owned(), guarded));
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }

    /// Of the one of this name that was removed last.
    pub(crate) fn get(&self, name: &str) -> Option<Guarded> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(known, _)| known == name);
        found.map(|(_, guarded)| guarded.clone())
    }
}

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
    // Before it is gone, so that whoever asks always gets one of the two.
    let guarded = guard::report(daemon, sandbox).await?;
    daemon.reports.keep(&sandbox.name, guarded);
    lifecycle::discard(daemon, sandbox).await?;
    tracing::info!(sandbox = sandbox.name, "removed, because it was run to be");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sbx_wire::api::GuardedEvent;
    use sbx_workspace::event::{Action, Event};

    fn guarded(modes: impl Iterator<Item = Mode>) -> Guarded {
        let event = |mode| GuardedEvent {
            workspace: "/w".into(),
            told: false,
            event: Event {
                unix_ms: 1,
                path: "x".to_owned(),
                action: Action::Create,
                mode,
                why: String::new(),
            },
        };
        Guarded {
            events: modes.map(event).collect(),
            ..Guarded::default()
        }
    }

    #[test]
    fn the_reports_of_the_last_few_are_kept_with_what_was_made_first() {
        let reports = Reports::default();
        for number in 0..=KEPT {
            reports.keep(&number.to_string(), guarded(std::iter::empty()));
        }
        assert!(reports.get("0").is_none() && reports.get("1").is_some());
        let many = std::iter::repeat_n(Mode::Block, 2 * MAX_EVENTS);
        reports.keep("1", guarded(many.chain([Mode::Report])));
        let events = reports.get("1").unwrap().events;
        assert_eq!(
            (events.len(), events[0].event.mode),
            (MAX_EVENTS, Mode::Report)
        );
        assert!(reports.get("2").is_some(), "it was replaced, not added");
    }
}
