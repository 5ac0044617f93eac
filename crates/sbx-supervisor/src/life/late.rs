//! What a machine was doing that did not come up in time: nobody sees it again.

use super::Life;
use crate::console::clean;
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

/// Time for QEMU to tell, all in all.
const LIMIT: Duration = Duration::from_secs(3);
/// Lines that are kept of what it tells at a time.
const LINES: usize = 40;
/// Bytes that are kept of a line.
const LINE: usize = 160;
/// Virtual CPUs whose interrupt controllers are looked at.
const CPUS: u16 = 4;

impl Life {
    /// Writes into the log where each virtual CPU is, and what its interrupt controller and timer wait for.
    pub(super) async fn log_what_holds_it_up(&self) {
        let looked = timeout(LIMIT, async {
            self.log_answer("info registers -a", |line| line.contains("IP="))
                .await;
            for cpu in 0..self.launch.machine.cpus.min(CPUS) {
                self.log_answer(&format!("info lapic {cpu}"), |_| true)
                    .await;
            }
        });
        if looked.await.is_err() {
            tracing::warn!("QEMU does not answer");
        }
    }

    async fn log_answer(&self, question: &str, matters: impl Fn(&str) -> bool) {
        let Some(qmp) = &self.qmp else { return };
        let line = json!({"command-line": question});
        let answer = qmp.execute("human-monitor-command", line).await;
        match answer.as_ref().map(|answer| answer.as_str()) {
            Ok(answer) => {
                let lines = answer.unwrap_or_default().lines();
                for line in lines.filter(|line| matters(line)).take(LINES) {
                    tracing::warn!("{question}: {}", clean(line, LINE));
                }
            }
            Err(error) => tracing::warn!(%error, question, "monitor"),
        }
    }
}
