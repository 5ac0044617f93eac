//! A machine that comes from a snapshot, and gets its shares before it goes on.

use super::{EndReason, Life};
use crate::spawner::{Order, Role, shares};
use sbx_machine::migration;
use sbx_machine::plug::plug_share;
use sbx_machine::qmp::{Event, QmpError};
use sbx_wire::session::Phase;
use serde_json::Value;
use std::time::Duration;
use tokio::sync::mpsc;

/// Time until the guest is ready. Whoever asked boots the machine instead after it.
pub(super) const LIMIT: Duration = Duration::from_secs(45);

impl Life {
    /// Starts everything at once. Returns when the machine runs and has its shares.
    pub(super) async fn restore(&mut self) -> Result<mpsc::Receiver<Event>, EndReason> {
        self.state.phase(Phase::Starting("snapshot".to_owned()));
        // The shares and the gateway come up while the machine's memory is copied.
        self.order_shares().await?;
        self.start_gateway().await?;
        self.link.order(Order::Start(Role::Machine)).await?;
        let mut events = self.connect_monitor().await?;
        let closed = || EndReason::Start(QmpError::Closed.to_string());
        let qmp = self.qmp.clone().ok_or_else(closed)?;
        let running = async {
            let loaded = migration::load(&qmp, &mut events).await;
            loaded.map_err(|error| error.to_string())
        };
        self.attend(running).await?;
        self.await_shares().await?;
        let launch = self.launch.clone();
        let plugged = async {
            for (index, share) in launch.shares.iter().enumerate() {
                let connection = shares::connect(&launch, index);
                let connection = connection.map_err(|error| error.to_string())?;
                let plugged = plug_share(&qmp, index, &share.tag, connection).await;
                plugged.map_err(|error| error.to_string())?;
            }
            let running = qmp.execute("cont", Value::Null).await;
            running.map(drop).map_err(|error| error.to_string())
        };
        self.attend(plugged).await?;
        Ok(events)
    }
}
