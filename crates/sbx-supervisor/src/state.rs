//! What everyone may ask about: phase, processes, Docker, open sessions, and how long the sandbox stays.

use crate::guest::Guest;
use sbx_wire::guest::DockerState;
use sbx_wire::session::{Phase, Processes, Sessions, Status, Stay};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::Instant;

/// A machine stays this long, so that whoever had it started reaches it.
const FIRST_SESSION: Duration = Duration::from_secs(10);

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
    /// An agent runs on a terminal of its own.
    pub agent: bool,
    /// Clients attached to it.
    pub attached: u32,
    /// `run -d`: it stays without sessions.
    pub held: bool,
    /// `run --rm`: that session has ended, so the sandbox ends with the last of the others.
    pub ending: bool,
    /// Why the machine stands still for now; `None`: it does not.
    pub waits: Option<String>,
    /// Since when it runs; kept when it becomes unresponsive.
    pub running: Option<Instant>,
    /// Since when it has had no session; `None`: it has one, or does not run.
    pub quiet: Option<Quiet>,
    /// Host processes.
    pub processes: Processes,
    /// Milliseconds to readiness.
    pub ready_ms: Option<u64>,
    /// The guest channel, while programs can be started.
    pub guest: Option<Guest>,
    /// Set once, when every process of the sandbox has ended.
    pub ended: Option<Ended>,
}

/// A time without sessions.
#[derive(Debug, Clone, Copy)]
pub struct Quiet {
    since: Instant,
    /// By the wall clock, to be shown.
    shown: SystemTime,
}

impl Snapshot {
    /// Keeps [`Self::running`] and [`Self::quiet`] true.
    fn settle(&mut self) {
        let now = Instant::now();
        // A guest that broke the protocol still has its machine, network and credentials: it stays no longer for it.
        let broke = matches!(self.phase, Phase::Unresponsive(_)) && self.running.is_some();
        if self.phase != Phase::Running && !broke {
            self.running = None;
            self.quiet = None;
            return;
        }
        self.running.get_or_insert(now);
        if self.sessions > 0 {
            self.quiet = None;
        } else {
            self.quiet.get_or_insert(Quiet {
                since: now,
                shown: SystemTime::now(),
            });
        }
    }
}

/// Shared, observable state. Clones are the same state.
#[derive(Debug, Clone)]
pub struct State {
    id: Arc<str>,
    started: Instant,
    grace: Option<Duration>,
    snapshot: Arc<watch::Sender<Snapshot>>,
}

impl State {
    /// A sandbox that is about to start, with `shares` shares. `grace`: how long it stays without sessions;
    /// `None`: until it is stopped.
    pub fn new(id: &str, spawner: u32, shares: usize, grace: Option<Duration>) -> Self {
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
            agent: false,
            attached: 0,
            held: false,
            ending: false,
            waits: None,
            running: None,
            quiet: None,
            processes,
            ready_ms: None,
            guest: None,
            ended: None,
        };
        Self {
            id: id.into(),
            started: Instant::now(),
            grace,
            snapshot: Arc::new(watch::Sender::new(snapshot)),
        }
    }

    /// Changes the state and tells the watchers.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        self.snapshot.send_modify(|snapshot| {
            change(snapshot);
            snapshot.settle();
        });
    }

    /// How long the sandbox stays without sessions, and from when on it is to stop for want of them.
    pub fn stops_at(&self, snapshot: &Snapshot) -> Option<(Duration, Instant)> {
        let (quiet, running) = (snapshot.quiet?, snapshot.running?);
        if snapshot.ending {
            return Some((Duration::ZERO, quiet.since));
        }
        let grace = self.grace.filter(|_| !snapshot.held)?;
        Some((grace, (quiet.since + grace).max(running + FIRST_SESSION)))
    }

    fn stay(&self, snapshot: &Snapshot) -> Stay {
        match (snapshot.running, snapshot.quiet) {
            (None, _) => Stay::Unsettled,
            (Some(_), None) => Stay::Sessions,
            (Some(_), Some(quiet)) => match self.stops_at(snapshot) {
                Some((_, at)) => {
                    let then = quiet.shown + (at - quiet.since);
                    let since_epoch = then.duration_since(UNIX_EPOCH).unwrap_or_default();
                    let unix_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
                    Stay::Until { unix_ms }
                }
                None if snapshot.held => Stay::Held,
                None => Stay::Always,
            },
        }
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

    /// Resolves when the machine stands still, with the reason.
    pub async fn stands_still(&self) -> String {
        let mut watch = self.watch();
        let found = watch.wait_for(|snapshot| snapshot.waits.is_some()).await;
        let why = found.ok().and_then(|snapshot| snapshot.waits.clone());
        match why {
            Some(why) => why,
            // The state lives as long as its process.
            None => std::future::pending().await,
        }
    }

    /// What the status does not say about sessions.
    pub fn sessions(&self, snapshot: &Snapshot) -> Sessions {
        Sessions {
            agent: snapshot.agent,
            attached: snapshot.attached,
            stay: self.stay(snapshot),
        }
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
