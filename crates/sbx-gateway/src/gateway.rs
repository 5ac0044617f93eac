//! The gateway's shared state: one immutable generation at a time, pins, records, what is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Instant;

use sbx_wire::browser::Address;
use sbx_wire::gateway::ProxyKind;
use sbx_wire::ssh_agent;
use tokio::sync::{Semaphore, watch};

use crate::credentials::BoundCredential;
use crate::credentials::issuers::IssuerDesk;
use crate::credentials::registries::Registries;
use crate::credentials::values::Values;
use crate::decision::Grant;
use crate::desk::Desk;
use crate::generation::{Generation, HostTrust};
use crate::limits;
use crate::live::{Closed, Lease, Live};
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
    /// Pages for the host's browser.
    pub browser: Desk<Address, Result<(), String>>,
    /// What programs inside ask the host's SSH agent.
    pub ssh_agent: Desk<ssh_agent::Request, ssh_agent::Reply>,
    /// What issuers of credentials are asked, and what they answer.
    pub issued: IssuerDesk,
    /// Values that are asked for when they are needed.
    pub values: Values,
    /// Tokens that registries issued.
    pub registries: Registries,
    /// Room for bodies that are held until they are verified, in KiB.
    pub held: Arc<Semaphore>,
    /// Room for requests over HTTP/2.
    pub requests: Arc<Semaphore>,
    /// Room for bodies whose decoders hold much.
    pub decoding: Arc<Semaphore>,
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
    pub fn new(
        first: Generation,
        host: HostTrust,
        key: SigningKey,
        records: Records,
        pins: Pins,
    ) -> Arc<Self> {
        Arc::new(Self {
            current: watch::Sender::new(Arc::new(first)),
            pins,
            records,
            live: Arc::default(),
            browser: Desk::default(),
            ssh_agent: Desk::default(),
            issued: IssuerDesk::default(),
            values: Values::default(),
            registries: Registries::default(),
            held: Arc::new(Semaphore::new(limits::AWS_HELD / 1024)),
            requests: Arc::new(Semaphore::new(limits::REQUESTS)),
            decoding: Arc::new(Semaphore::new(limits::DECODING)),
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
        // First: what asks in between knows which hosts were given a value.
        generation.credentials.settle();
        let before = self.current.send_replace(generation.clone());
        // What was opened under the old one is not used again.
        before.upstreams.close();
        let closed = self.live.enforce(&generation);
        if !closed.is_empty() {
            let (closed, generation) = (closed.len(), generation.number);
            tracing::info!(closed, generation, "closed by the new policy");
        }
        for one in closed {
            self.record_closed(&generation, &one);
        }
    }

    fn record_closed(&self, generation: &Generation, closed: &Closed) {
        let Closed {
            target,
            proxy,
            reason,
        } = closed;
        let event = Event::new(target, *proxy, *reason, generation.number);
        self.record(generation, event);
    }

    /// The generation in force, after waiting for the daemon's configuration if there is none yet.
    /// `needed`: wait although the gateway runs for long already.
    pub async fn configured(&self, needed: bool) -> Arc<Generation> {
        let generation = self.generation();
        if generation.configured {
            return generation;
        }
        // Apart: all but the first requests are done by now.
        Box::pin(self.wait_configured(needed)).await
    }

    async fn wait_configured(&self, needed: bool) -> Arc<Generation> {
        let wait = if needed {
            limits::CONFIGURE_WAIT
        } else {
            limits::CONFIGURE_WAIT.saturating_sub(self.started.elapsed())
        };
        let mut changes = self.current.subscribe();
        let _ = tokio::time::timeout(wait, changes.wait_for(|new| new.configured)).await;
        self.generation()
    }

    /// Registers something that was granted and is open until the lease is dropped. If the policy has changed since
    /// it was granted, it is judged once more, and recorded as closed if it is not allowed.
    pub fn lease(&self, grant: &Grant, proxy: ProxyKind) -> Lease {
        self.lease_writing(grant, &[], proxy)
    }

    /// The same for something into which the values of these credentials are written: it ends too when one is bound no
    /// more.
    pub fn lease_writing(
        &self,
        grant: &Grant,
        written: &[Arc<BoundCredential>],
        proxy: ProxyKind,
    ) -> Lease {
        let (intent, beside) = (grant.intent.clone(), grant.beside.clone());
        let lease = self.live.register(intent, beside, written.to_vec(), proxy);
        // A change from here on finds it.
        let current = self.current.borrow();
        let changed = !Arc::ptr_eq(&current, &grant.generation);
        if changed
            && let Err(reason) = current.keeps(&grant.intent, &grant.beside, written)
            && lease.revoke(reason)
        {
            let target = grant.target.clone();
            let closed = Closed {
                target,
                proxy,
                reason,
            };
            self.record_closed(&current, &closed);
        }
        lease
    }

    /// Writes an event down.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "an event is written down once: whoever has it is done with it"
    )]
    pub fn record(&self, generation: &Generation, event: Event) {
        self.records.push(&generation.sandbox, &event);
    }
}
