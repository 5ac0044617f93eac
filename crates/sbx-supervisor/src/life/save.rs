//! Making a snapshot: boot, prepare, stop, write.

use super::clock::unix_ns;
use super::{EndReason, Life};
use crate::guest::{Guest, GuestEvent};
use crate::spawner::{News, Order, Role};
use sbx_machine::migration;
use sbx_machine::qmp::QmpError;
use sbx_wire::guest::{Prepare, ToGuest};
use sbx_wire::session::Phase;
use serde_json::Value;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// For QEMU to write the rest of its disks and to end; others may need the processor more.
const QUIT_LIMIT: Duration = Duration::from_secs(20);

/// What a guest says: the first of it, and the rest.
type Said = (GuestEvent, mpsc::Receiver<GuestEvent>);

impl Life {
    /// Starts the machine that is to be a snapshot. Returns what its guest says, and the first of it.
    pub(super) async fn come_up(&mut self) -> Result<Said, EndReason> {
        self.state.phase(Phase::Starting("machine".to_owned()));
        self.link.order(Order::Start(Role::Machine)).await?;
        let _events = self.connect_monitor().await?;
        self.state.phase(Phase::Starting("guest".to_owned()));
        let (guest, mut events) = self.connect_guest().await?;
        let request = self.launch.personalise.prepare();
        let first = self.attend(greet(&guest, &mut events, request)).await?;
        Ok((first, events))
    }

    /// Waits until the guest is ready to be anybody's, writes the snapshot that the launch document names and ends the
    /// machine. Whoever wanted it says how long that may take.
    pub(super) async fn save(&mut self, (first, mut events): Said) -> Result<(), EndReason> {
        self.attend(prepared(first, &mut events)).await?;
        self.state.phase(Phase::Starting("snapshot".to_owned()));
        let qmp = self.qmp.clone();
        let saved = async {
            let qmp = qmp.ok_or(QmpError::Closed);
            match qmp {
                Ok(qmp) => migration::save(&qmp).await,
                Err(error) => Err(error),
            }
            .map_err(|error| error.to_string())
        };
        let state = self.attend(saved).await?;
        self.keep(state).await?;
        if let Some(qmp) = self.qmp.clone() {
            // The disks are part of the snapshot: what QEMU still holds of them is written now.
            let _ = timeout(QUIT_LIMIT, qmp.execute("quit", Value::Null)).await;
        }
        if !self.await_end_of(Role::Machine, QUIT_LIMIT).await {
            return Err(EndReason::Start("the machine does not end".to_owned()));
        }
        Ok(())
    }

    async fn keep(&mut self, state: Vec<u8>) -> Result<(), EndReason> {
        self.link.order(Order::Keep { state }).await?;
        loop {
            let news = self.link.next().await?;
            if let News::Kept(kept) = &news {
                return kept.clone().map_err(EndReason::Start);
            }
            self.on_news(news)?;
        }
    }
}

/// Tells the guest what it is to be prepared for, and waits until it says something.
async fn greet(
    guest: &Guest,
    events: &mut mpsc::Receiver<GuestEvent>,
    mut request: Prepare,
) -> Result<GuestEvent, String> {
    request.unix_ns = unix_ns();
    let message = ToGuest::Prepare(Box::new(request));
    let sent = guest.send(&message).await;
    sent.map_err(|error| error.to_string())?;
    events.recv().await.ok_or_else(|| CLOSED.to_owned())
}

async fn prepared(
    first: GuestEvent,
    events: &mut mpsc::Receiver<GuestEvent>,
) -> Result<(), String> {
    let mut next = Some(first);
    while let Some(event) = next {
        match event {
            GuestEvent::Prepared(Ok(())) => return Ok(()),
            GuestEvent::Prepared(Err(why)) => {
                return Err(format!("the guest could not be prepared: {why}"));
            }
            GuestEvent::Broken(error) => return Err(error.to_string()),
            _ => {}
        }
        next = events.recv().await;
    }
    Err(CLOSED.to_owned())
}

const CLOSED: &str = "the guest channel was closed";
