//! A client's side of a running agent.

use super::shared::{MAX_INPUT, Terminal};
use super::viewer::{Item, Next};
use crate::state::lock;
use sbx_wire::guest::{TermSize, ToGuest};
use std::io;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::time::sleep_until;

/// What became of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// It waits for the guest, or nobody wants it any more.
    Taken,
    /// It waits for the guest, and the client is to wait as well.
    Full,
}

/// A client's place at a terminal, until it is [detached](Self::detach).
#[derive(Debug)]
pub struct Attached {
    pub(super) terminal: Terminal,
    pub(super) id: u32,
    pub(super) wake: Arc<Notify>,
}

impl Attached {
    /// The next thing to send to the client.
    pub async fn next(&self) -> Item {
        loop {
            let wake = self.wake.notified();
            let next = {
                let mut inner = lock(&self.terminal.0.inner);
                let inner = &mut *inner;
                match inner.viewers.get_mut(&self.id) {
                    Some(viewer) => viewer.next(
                        &mut inner.screen,
                        inner.number,
                        inner.started,
                        inner.end.as_ref(),
                    ),
                    None => Next::Wait,
                }
            };
            match next {
                Next::Item(item) => {
                    self.terminal.0.taken.notify_one();
                    return item;
                }
                Next::Wait => wake.await,
                Next::WaitUntil(due) => sleep_until(due).await,
            }
        }
    }

    /// The client wants to leave: what comes next makes its terminal usable again, and [`Item::Detached`].
    pub fn leave(&self) {
        let mut inner = lock(&self.terminal.0.inner);
        if let Some(viewer) = inner.viewers.get_mut(&self.id) {
            viewer.leaving = true;
        }
        self.wake.notify_one();
    }

    /// Takes what was typed. Whoever types leads.
    pub fn input(&self, data: &[u8]) -> Input {
        let (leads, full) = {
            let mut inner = lock(&self.terminal.0.inner);
            let inner = &mut *inner;
            if inner.end.is_some() {
                return Input::Taken;
            }
            inner.input.extend(data);
            let leads = inner.leader == Some(self.id);
            if !leads {
                inner.leader = Some(self.id);
                inner.arrange();
            }
            (leads, inner.input.len() >= MAX_INPUT)
        };
        self.terminal.0.input.notify_one();
        if !leads {
            self.terminal.rearranged();
        }
        if full { Input::Full } else { Input::Taken }
    }

    /// Waits until more input is welcome.
    pub async fn room(&self) {
        loop {
            let room = self.terminal.0.room.notified();
            {
                let inner = lock(&self.terminal.0.inner);
                if inner.end.is_some() || inner.input.len() < MAX_INPUT {
                    return;
                }
            }
            room.await;
        }
    }

    /// The client's terminal has a new size.
    pub fn resize(&self, size: TermSize) {
        {
            let mut inner = lock(&self.terminal.0.inner);
            if let Some(viewer) = inner.viewers.get_mut(&self.id) {
                viewer.size = size.bounded();
            }
            inner.leader = Some(self.id);
            inner.arrange();
        }
        self.terminal.rearranged();
    }

    /// Delivers a signal to the agent; waits while the guest does not read.
    ///
    /// # Errors
    /// When the guest is gone.
    pub async fn signal(&self, signal: i32) -> io::Result<()> {
        let Some(session) = self.terminal.0.session.get() else {
            return Ok(());
        };
        let session = session.id();
        let message = ToGuest::Signal { session, signal };
        let sent = self.terminal.0.guest.send(&message).await;
        sent.map_err(io::Error::other)
    }

    /// Detaches the client.
    pub fn detach(self) {
        {
            let mut inner = lock(&self.terminal.0.inner);
            inner.viewers.remove(&self.id);
            if inner.leader == Some(self.id) {
                // Whoever came last of those that are left.
                inner.leader = inner.viewers.keys().next_back().copied();
            }
            inner.arrange();
        }
        self.terminal.rearranged();
    }
}
