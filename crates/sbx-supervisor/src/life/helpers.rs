//! What the end of each helper means.

use super::{EndReason, Life};
use crate::spawner::{News, Order, Role};
use sbx_wire::session::{Phase, Processes};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// A share and the guest channel end with QEMU, which may be noticed before QEMU's own end.
const MACHINE_FIRST: Duration = Duration::from_millis(300);
/// A gateway that lived this long is restarted at once and starts with a clean record.
const STEADY: Duration = Duration::from_secs(10);
/// First and longest pause before a gateway that keeps dying is started again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Which helpers run, and what is to be done about those that do not.
#[derive(Debug)]
pub(super) struct Helpers {
    running: BTreeMap<Role, u32>,
    shares: usize,
    /// Shares whose sockets accept connections.
    pub(super) listening: usize,
    gateway_started: Instant,
    gateway_pause: Duration,
    gateway_due: Option<Instant>,
    /// Something broke that also breaks when QEMU ends; when this passes, it broke by itself.
    suspicion: Option<(Instant, String)>,
}

impl Helpers {
    pub(super) fn new(shares: usize) -> Self {
        Self {
            running: BTreeMap::new(),
            shares,
            listening: 0,
            gateway_started: Instant::now(),
            gateway_pause: Duration::ZERO,
            gateway_due: None,
            suspicion: None,
        }
    }

    pub(super) fn pid(&self, role: Role) -> Option<u32> {
        self.running.get(&role).copied()
    }

    /// The shares' roles, in mount order.
    pub(super) fn shares(&self) -> impl Iterator<Item = Role> + use<> {
        (0..self.shares).map(|index| {
            Role::Share(
                u16::try_from(index).expect("the number of shares is bounded by root ports"),
            )
        })
    }

    /// Keeps the books; no consequences.
    pub(super) fn note(&mut self, news: &News) {
        match news {
            News::Started { role, pid } => {
                self.running.insert(*role, *pid);
            }
            News::Listening(_) => self.listening += 1,
            News::Failed { .. } | News::Kept(_) => {}
            News::Ended { role, .. } => {
                self.running.remove(role);
            }
        }
    }

    /// The books as shown to others.
    pub(super) fn processes(&self, known: &Processes) -> Processes {
        Processes {
            supervisor: known.supervisor,
            spawner: known.spawner,
            machine: self.pid(Role::Machine),
            gateway: self.pid(Role::Gateway),
            shares: self.shares().map(|role| self.pid(role)).collect(),
        }
    }

    /// When [`Life::on_deadline`] is to be called.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let suspicion = self.suspicion.as_ref().map(|(due, _)| *due);
        suspicion.into_iter().chain(self.gateway_due).min()
    }

    /// Something broke: by itself, unless QEMU's end is reported in a moment.
    pub(super) fn suspect(&mut self, why: String) {
        self.suspicion
            .get_or_insert((Instant::now() + MACHINE_FIRST, why));
    }

    fn gateway_ended(&mut self) {
        if self.gateway_started.elapsed() >= STEADY {
            self.gateway_pause = Duration::ZERO;
        }
        self.gateway_due = Some(Instant::now() + self.gateway_pause);
        self.gateway_pause = (self.gateway_pause * 2).clamp(BACK_OFF.0, BACK_OFF.1);
    }
}

impl Life {
    /// Takes news from the spawner, with all consequences.
    pub(super) fn on_news(&mut self, news: News) -> Result<(), EndReason> {
        self.helpers.note(&news);
        let helpers = &self.helpers;
        self.state
            .update(|snapshot| snapshot.processes = helpers.processes(&snapshot.processes));
        match news {
            News::Started { role, pid } => tracing::info!(%role, pid, "started"),
            News::Listening(_) | News::Kept(_) => {}
            News::Failed {
                role: Role::Gateway,
                reason,
            } => {
                tracing::error!(reason, "the gateway does not start");
                self.helpers.gateway_ended();
            }
            News::Failed { role, reason } => {
                return Err(EndReason::Start(format!("{role}: {reason}")));
            }
            News::Ended { role, how, success } => {
                tracing::warn!(%role, how, "ended");
                self.on_end(role, &how, success)?;
            }
        }
        Ok(())
    }

    fn on_end(&mut self, role: Role, how: &str, success: bool) -> Result<(), EndReason> {
        match role {
            Role::Machine => Err(match self.shutdown_reason.as_deref() {
                Some("guest-shutdown" | "guest-reset") if success => self
                    .panic_line()
                    .map_or(EndReason::ShutDown, EndReason::Panic),
                _ if self.is_starting() => EndReason::Start(format!("the machine ended: {how}")),
                Some(reason) => EndReason::Machine(format!("{how}, {reason}")),
                None => EndReason::Machine(how.to_owned()),
            }),
            Role::Gateway => {
                self.helpers.gateway_ended();
                Ok(())
            }
            Role::Share(index) => {
                let share = self.launch.shares.get(usize::from(index));
                let path = share.map_or_else(String::new, |share| share.host.display().to_string());
                let why = format!("share for {path} ended: {how}");
                if self.is_starting() {
                    return Err(EndReason::Start(why));
                }
                self.helpers.suspect(why);
                Ok(())
            }
        }
    }

    /// A panic resets the machine (`panic=-1`); what tells it from a reboot is on the console.
    fn panic_line(&self) -> Option<String> {
        let lines = self.console.last_lines(50);
        lines
            .into_iter()
            .rfind(|line| line.contains("Kernel panic"))
    }

    fn is_starting(&self) -> bool {
        matches!(self.state.watch().borrow().phase, Phase::Starting(_))
    }

    /// Does what is due by now.
    pub(super) async fn on_deadline(&mut self) -> Result<(), EndReason> {
        let now = Instant::now();
        if let Some((_, why)) = self.helpers.suspicion.take_if(|(due, _)| *due <= now) {
            self.unresponsive(&why);
        }
        if self
            .helpers
            .gateway_due
            .take_if(|due| *due <= now)
            .is_some()
        {
            self.start_gateway().await?;
        }
        Ok(())
    }

    pub(super) async fn start_gateway(&mut self) -> Result<(), EndReason> {
        self.helpers.gateway_started = Instant::now();
        Ok(self.link.order(Order::Start(Role::Gateway)).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn dying_gateway_is_restarted_at_once_and_then_ever_more_slowly() {
        let mut helpers = Helpers::new(0);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            helpers.gateway_ended();
            pauses.push(helpers.gateway_due.take().unwrap() - Instant::now());
        }
        assert_eq!(pauses[0], Duration::ZERO);
        assert_eq!(pauses[1], BACK_OFF.0);
        assert_eq!(pauses[8], BACK_OFF.1);
        tokio::time::advance(STEADY).await;
        helpers.gateway_ended();
        assert_eq!(helpers.gateway_due.unwrap(), Instant::now());
    }
}
