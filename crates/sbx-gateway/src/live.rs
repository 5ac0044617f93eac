//! What is open at the moment, so that a new policy closes what it no longer allows.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use sbx_policy::{Intent, Target};
use sbx_wire::gateway::ProxyKind;

use crate::credentials::BoundCredential;
use crate::generation::Generation;
use crate::reason::Reason;

/// Everything that is open, with the intent it was opened for.
#[derive(Debug, Default)]
pub struct Live {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Open>>>,
}

#[derive(Debug)]
struct Open {
    intent: Arc<Intent>,
    /// What else must not be denied: see [`crate::decision::Grant::beside`].
    beside: Arc<[Intent]>,
    /// Credentials whose values are written into it.
    written: Vec<Arc<BoundCredential>>,
    proxy: ProxyKind,
    /// Why, once it is.
    revoked: OnceLock<Reason>,
    waiting: Mutex<Waiting>,
}

/// Who waits: what brings the answer, and what feeds it.
#[derive(Debug, Default)]
struct Waiting {
    lease: Option<Waker>,
    feed: Option<Waker>,
}

impl Open {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_revoked(
        &self,
        cx: &Context<'_>,
        place: impl Fn(&mut Waiting) -> &mut Option<Waker>,
    ) -> Poll<()> {
        if self.revoked.get().is_some() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting();
        let waker = place(&mut waiting);
        if !waker.as_ref().is_some_and(|old| old.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        drop(waiting);
        // It may have happened since it was asked first.
        if self.revoked.get().is_some() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Whether this call did it.
    fn revoke(&self, reason: Reason) -> bool {
        let first = self.revoked.set(reason).is_ok();
        let waiting = std::mem::take(&mut *self.waiting());
        for waker in [waiting.lease, waiting.feed].into_iter().flatten() {
            waker.wake();
        }
        first
    }
}

/// Something that was closed because it is no longer allowed.
#[derive(Debug, Clone)]
pub struct Closed {
    /// Where it led.
    pub target: Target,
    /// Which way it had come.
    pub proxy: ProxyKind,
    /// What changed.
    pub reason: Reason,
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers something that is open until the lease is dropped.
    /// `beside`: what else must not be denied. `written`: credentials whose values are written into it.
    pub fn register(
        self: &Arc<Self>,
        intent: Arc<Intent>,
        beside: Arc<[Intent]>,
        written: Vec<Arc<BoundCredential>>,
        proxy: ProxyKind,
    ) -> Lease {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let open = Arc::new(Open {
            intent,
            beside,
            written,
            proxy,
            revoked: OnceLock::new(),
            waiting: Mutex::default(),
        });
        self.lock().insert(id, open.clone());
        let live = self.clone();
        Lease { id, live, open }
    }

    /// Closes what the generation does not allow.
    pub fn enforce(&self, generation: &Generation) -> Vec<Closed> {
        let mut closed = Vec::new();
        self.lock().retain(|_, open| {
            let kept = generation.keeps(&open.intent, &open.beside, &open.written);
            // One that begins at this moment may have found it out by itself, and recorded it.
            if let Err(reason) = kept
                && open.revoke(reason)
            {
                let (host, port) = (open.intent.host.clone(), open.intent.port);
                closed.push(Closed {
                    target: Target { host, port },
                    proxy: open.proxy,
                    reason,
                });
            }
            kept.is_ok()
        });
        closed
    }
}

/// Permission to stay open. Completes as a future when it is revoked.
#[derive(Debug)]
pub struct Lease {
    id: u64,
    live: Arc<Live>,
    open: Arc<Open>,
}

impl Lease {
    /// Revokes it at once. Whether this call did it: whoever did records it.
    pub fn revoke(&self, reason: Reason) -> bool {
        self.open.revoke(reason)
    }

    /// Why it is revoked, once it is.
    pub fn revoked(&self) -> Option<Reason> {
        self.open.revoked.get().copied()
    }

    /// For what feeds it and is not the task that holds it: the request's body, the queue of a flow.
    pub fn feed(&self) -> Feed {
        Feed(self.open.clone())
    }
}

impl Future for Lease {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.open.poll_revoked(cx, |waiting| &mut waiting.lease)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.live.lock().remove(&self.id);
    }
}

/// Tells whoever feeds something that is open when the lease is revoked.
#[derive(Debug)]
pub struct Feed(Arc<Open>);

impl Feed {
    /// Whether it is revoked.
    pub fn is_revoked(&self) -> bool {
        self.0.revoked.get().is_some()
    }

    /// Completes when the lease is revoked.
    pub fn poll_revoked(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.poll_revoked(cx, |waiting| &mut waiting.feed)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use sbx_policy::{Host, IntentKind, Port, Transport};

    use super::*;

    /// A lease that nobody revokes.
    pub(crate) fn lease() -> Lease {
        let host = Host::parse("a.test").unwrap();
        let intent = Intent::new("box", Transport::Tcp, IntentKind::Tls, host, Port::HTTPS);
        let live = Arc::new(Live::default());
        live.register(
            Arc::new(intent),
            Arc::default(),
            Vec::new(),
            ProxyKind::Forward,
        )
    }

    #[test]
    fn only_one_of_those_who_revoke_a_lease_has_done_it() {
        let lease = lease();
        assert!(lease.revoke(Reason::PolicyChanged));
        assert!(!lease.revoke(Reason::CredentialWithdrawn));
        assert_eq!(lease.revoked(), Some(Reason::PolicyChanged));
        assert!(lease.feed().is_revoked());
    }
}
