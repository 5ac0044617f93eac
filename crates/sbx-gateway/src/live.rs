//! What is open at the moment, so that a new policy closes what it no longer allows.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use sbx_policy::Intent;
use tokio::sync::oneshot;

use crate::generation::Generation;

/// Everything that is open, with the intent it was opened for.
#[derive(Debug, Default)]
pub struct Live {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Open>>,
}

#[derive(Debug)]
struct Open {
    intent: Intent,
    /// Dropped to revoke.
    _revoke: oneshot::Sender<()>,
}

impl Live {
    /// Registers something that is open until the lease is dropped.
    pub fn register(self: &Arc<Self>, intent: Intent) -> Lease {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (revoke, revoked) = oneshot::channel();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(
            id,
            Open {
                intent,
                _revoke: revoke,
            },
        );
        drop(open);
        Lease {
            id,
            live: self.clone(),
            revoked,
        }
    }

    /// Closes what the generation does not allow. Returns how many.
    pub fn enforce(&self, generation: &Generation) -> usize {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let before = open.len();
        open.retain(|_, open| generation.allows(&open.intent));
        before - open.len()
    }
}

/// Permission to stay open. Completes as a future when it is revoked.
#[derive(Debug)]
pub struct Lease {
    id: u64,
    live: Arc<Live>,
    revoked: oneshot::Receiver<()>,
}

impl Future for Lease {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.revoked).poll(cx).map(|_| ())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut open = self
            .live
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.id);
    }
}
