//! A machine that waits because the host's disk is full.
//!
//! QEMU stops a machine whose write found no space, instead of telling the guest of an error, at which its file system
//! would give up (`werror=enospc`, QEMU's default). Nothing is lost: the write is made again when the machine is let go
//! on. That is tried until it succeeds.

use super::Life;
use sbx_machine::qmp::Event;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// Between two attempts to go on; a machine that ran for so long without finding the disk full has succeeded.
const RETRY: Duration = Duration::from_secs(2);

/// What is known about it.
#[derive(Debug, Default)]
pub(super) struct FullDisk {
    /// While the disk is full: when something is to be done.
    next: Option<Instant>,
    /// The machine has stopped since it was last let go on.
    stopped: bool,
}

impl FullDisk {
    /// When [`Life::on_full_disk`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next
    }
}

/// Whether QEMU has stopped the machine for want of space (QEMU's QAPI, `BLOCK_IO_ERROR`).
fn no_space(event: &Event) -> bool {
    let stopped = event.data.get("action").and_then(Value::as_str) == Some("stop");
    // Absent on some errors of other kinds; then it is not known to be about space, but the machine stands as well.
    event.name == "BLOCK_IO_ERROR" && stopped
}

impl Life {
    /// Takes note of what QEMU says about its disks.
    pub(super) fn on_disk_error(&mut self, event: &Event) {
        if !no_space(event) {
            return;
        }
        self.full_disk.stopped = true;
        if self.full_disk.next.is_none() {
            self.full_disk.next = Some(Instant::now() + RETRY);
            let folder = self.launch.dir.display();
            let why = format!(
                "there is no space left on the host's disk, so its machine waits; free space on the disk that holds {folder}, and it goes on"
            );
            tracing::error!("{why}");
            self.state.update(|snapshot| snapshot.waits = Some(why));
        }
    }

    /// Lets the machine go on, or finds that it has gone on.
    pub(super) async fn on_full_disk(&mut self) {
        if !self.full_disk.stopped {
            self.full_disk.next = None;
            tracing::info!("there is space on the host's disk again, the machine goes on");
            self.state.update(|snapshot| snapshot.waits = None);
            return;
        }
        self.full_disk.stopped = false;
        self.full_disk.next = Some(Instant::now() + RETRY);
        if let Some(qmp) = self.qmp.clone()
            && let Err(error) = qmp.execute("cont", Value::Null).await
        {
            // It ends, or is asked again.
            self.full_disk.stopped = true;
            tracing::warn!(%error, "the machine cannot be let go on");
        }
    }
}
