//! The gateway's shared state: one immutable generation at a time, pins, records, what is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Instant;

use tokio::sync::watch;

use crate::generation::{Generation, HostTrust};
use crate::limits;
use crate::live::Live;
use crate::mint::SigningKey;
use crate::pins::Pins;
use crate::records::{Event, Records};

/// What `status` reports besides the generation.
#[derive(Debug, Default)]
pub struct Status {
    /// Connected to the VM.
    pub attached: AtomicBool,
    /// Open connections of the guest.
    pub connections: AtomicU32,
}

/// Shared by everything in the process.
#[derive(Debug)]
pub struct Gateway {
    current: watch::Sender<Arc<Generation>>,
    /// Addresses given to the guest.
    pub pins: Pins,
    /// Where events go.
    pub records: Records,
    /// What is open.
    pub live: Arc<Live>,
    /// For `status`.
    pub status: Status,
    /// What the host gives to every generation.
    pub host: HostTrust,
    /// The key of the sandbox's certificate authority.
    pub key: SigningKey,
    started: Instant,
}

impl Gateway {
    /// A gateway that works from `first` until it is told otherwise.
    pub fn new(first: Generation, host: HostTrust, key: SigningKey, records: Records) -> Arc<Self> {
        Arc::new(Self {
            current: watch::Sender::new(Arc::new(first)),
            pins: Pins::default(),
            records,
            live: Arc::default(),
            status: Status::default(),
            host,
            key,
            started: Instant::now(),
        })
    }

    /// The generation in force.
    pub fn generation(&self) -> Arc<Generation> {
        self.current.borrow().clone()
    }

    /// Puts a generation in force and closes what it does not allow.
    pub fn replace(&self, generation: Generation) {
        let generation = Arc::new(generation);
        self.current.send_replace(generation.clone());
        let closed = self.live.enforce(&generation);
        if closed > 0 {
            tracing::info!(
                closed,
                generation = generation.number,
                "closed by the new policy"
            );
        }
    }

    /// The generation in force, after waiting for the daemon's configuration if there is none yet.
    /// `needed`: wait although the gateway runs for long already.
    pub async fn configured(&self, needed: bool) -> Arc<Generation> {
        let generation = self.generation();
        if generation.configured {
            return generation;
        }
        let wait = if needed {
            limits::CONFIGURE_WAIT
        } else {
            limits::CONFIGURE_WAIT.saturating_sub(self.started.elapsed())
        };
        let mut changes = self.current.subscribe();
        let _ = tokio::time::timeout(wait, changes.wait_for(|new| new.configured)).await;
        self.generation()
    }

    /// Writes an event down.
    pub fn record(&self, generation: &Generation, event: Event) {
        self.records.push(&generation.sandbox, event);
    }
}
