//! What everyone may ask about: phase, processes, Docker, open sessions.

use crate::guest::Guest;
use sbx_wire::guest::DockerState;
use sbx_wire::session::{Phase, Processes, Status};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::watch;

/// How the run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// One line for `last-exit` and for people.
    pub reason: String,
    /// Stopped on request or shut down from inside, rather than broken.
    pub orderly: bool,
}

/// One moment of the sandbox.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Phase.
    pub phase: Phase,
    /// State of the private Docker Engine.
    pub docker: DockerState,
    /// Open sessions.
    pub sessions: u32,
    /// Host processes.
    pub processes: Processes,
    /// Milliseconds to readiness.
    pub ready_ms: Option<u64>,
    /// The guest channel, while programs can be started.
    pub guest: Option<Guest>,
    /// Set once, when every process of the sandbox has ended.
    pub ended: Option<Ended>,
}

/// Shared, observable state. Clones are the same state.
#[derive(Debug, Clone)]
pub struct State {
    id: Arc<str>,
    started: Instant,
    snapshot: Arc<watch::Sender<Snapshot>>,
}

impl State {
    /// A sandbox that is about to start, with `shares` shares.
    pub fn new(id: &str, spawner: u32, shares: usize) -> Self {
        let processes = Processes {
            supervisor: std::process::id(),
            spawner,
            machine: None,
            gateway: None,
            shares: vec![None; shares],
        };
        let snapshot = Snapshot {
            phase: Phase::Starting("helpers".to_owned()),
            docker: DockerState::Starting,
            sessions: 0,
            processes,
            ready_ms: None,
            guest: None,
            ended: None,
        };
        Self {
            id: id.into(),
            started: Instant::now(),
            snapshot: Arc::new(watch::Sender::new(snapshot)),
        }
    }

    /// Changes the state and tells the watchers.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        self.snapshot.send_modify(change);
    }

    /// Sets the phase.
    pub fn phase(&self, phase: Phase) {
        tracing::info!(?phase, "phase");
        self.update(|snapshot| snapshot.phase = phase);
    }

    /// Milliseconds since the start.
    pub fn age_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Follows the state.
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.subscribe()
    }

    /// The answer to a status request.
    pub fn status(&self, snapshot: &Snapshot) -> Status {
        Status {
            id: self.id.to_string(),
            phase: snapshot.phase.clone(),
            docker: snapshot.docker.clone(),
            sessions: snapshot.sessions,
            processes: snapshot.processes.clone(),
            ready_ms: snapshot.ready_ms,
            uptime_s: self.started.elapsed().as_secs(),
        }
    }
}

/// Locks; the data behind our locks is whole after every statement, so a panic elsewhere does not spoil it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
