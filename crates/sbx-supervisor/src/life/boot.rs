//! From nothing to a guest that takes orders.

use super::clock::unix_ns;
use super::{EndReason, Life};
use crate::guest::{self, Guest, GuestEvent};
use crate::spawner::{Order, Role};
use crate::state::State;
use sbx_machine::qmp::{Event, Qmp, QmpError};
use sbx_wire::guest::{Personalise, ToGuest};
use sbx_wire::launch::{Origin, sockets};
use sbx_wire::session::Phase;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Pause between two attempts to connect to a socket that QEMU is about to make.
const RETRY: Duration = Duration::from_millis(5);
/// Random bytes the guest mixes into its pool.
const ENTROPY: usize = 64;

type Events = (mpsc::Receiver<GuestEvent>, mpsc::Receiver<Event>);

impl Life {
    /// Starts everything. Returns when the guest has been personalised.
    pub(super) async fn start(&mut self) -> Result<Events, EndReason> {
        let mut qmp_events = if matches!(self.launch.origin, Origin::Restore(_)) {
            self.restore().await?
        } else {
            self.start_shares().await?;
            self.state.phase(Phase::Starting("machine".to_owned()));
            self.link.order(Order::Start(Role::Machine)).await?;
            self.start_gateway().await?;
            self.connect_monitor().await?
        };
        self.state.phase(Phase::Starting("guest".to_owned()));
        let (guest, mut events) = self.connect_guest().await?;
        let personalise = self.launch.personalise.clone();
        let outcome = self.attend(greet(&guest, &mut events, personalise)).await;
        while let Ok(event) = qmp_events.try_recv() {
            self.on_qmp(&event);
        }
        outcome?;
        Ok((events, qmp_events))
    }

    /// Connects to the monitor of the machine that is being started.
    pub(super) async fn connect_monitor(&mut self) -> Result<mpsc::Receiver<Event>, EndReason> {
        let path = self.launch.runtime.join(sockets::QMP);
        let (qmp, events) = self.attend(connect_monitor(&path)).await?;
        self.qmp = Some(qmp);
        Ok(events)
    }

    /// Connects to the guest, and from then on to nothing else.
    pub(super) async fn connect_guest(
        &mut self,
    ) -> Result<(Guest, mpsc::Receiver<GuestEvent>), EndReason> {
        let path = self.launch.runtime.join(sockets::GUEST);
        let (epoch, state) = (self.epoch, self.state.clone());
        let stream = self.attend(connect_guest(&path)).await?;
        // From here on the guest is listened to, and nothing is connected to any more: a guest that takes this
        // process over does not reach the daemon. New gateways are the spawner's to start.
        self.seal()?;
        let (guest, events) = self.attend(open_guest(stream, epoch, state)).await?;
        self.guest = Some(guest.clone());
        Ok((guest, events))
    }

    /// Gives up making connections, then begins to read the console.
    fn seal(&mut self) -> Result<(), EndReason> {
        sbx_jail::seal_sockets().map_err(|error| EndReason::Start(error.to_string()))?;
        tracing::info!("sealed: no further connections");
        self.console_waits = None;
        Ok(())
    }

    async fn start_shares(&mut self) -> Result<(), EndReason> {
        self.state.phase(Phase::Starting("shares".to_owned()));
        self.order_shares().await?;
        self.await_shares().await
    }

    pub(super) async fn order_shares(&mut self) -> Result<(), EndReason> {
        let shares: Vec<Role> = self.helpers.shares().collect();
        for role in shares {
            self.link.order(Order::Start(role)).await?;
        }
        Ok(())
    }

    /// Waits until every share listens.
    pub(super) async fn await_shares(&mut self) -> Result<(), EndReason> {
        while self.helpers.listening < self.launch.shares.len() {
            let news = self.link.next().await?;
            self.on_news(news)?;
        }
        Ok(())
    }

    /// Runs `work` while looking after the helpers.
    pub(super) async fn attend<T>(
        &mut self,
        work: impl Future<Output = Result<T, String>>,
    ) -> Result<T, EndReason> {
        tokio::pin!(work);
        loop {
            let due = self.helpers.next_deadline();
            tokio::select! {
                done = &mut work => match done {
                    Ok(done) => return Ok(done),
                    Err(why) => return Err(self.prefer_exit(why).await),
                },
                news = self.link.next() => self.on_news(news?)?,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.on_deadline().await?;
                }
            }
        }
    }

    /// A connection that broke mostly means that a helper ended, which says more: waits a moment for that news.
    async fn prefer_exit(&mut self, why: String) -> EndReason {
        let news = async {
            loop {
                match self.link.next().await {
                    Ok(news) => {
                        if let Err(reason) = self.on_news(news) {
                            return reason;
                        }
                    }
                    Err(error) => return error.into(),
                }
            }
        };
        let waited = tokio::time::timeout(Duration::from_millis(500), news).await;
        waited.unwrap_or(EndReason::Start(why))
    }
}

/// Whether QEMU may just not have made the socket yet.
fn too_early(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

async fn connect_monitor(path: &Path) -> Result<(Qmp, mpsc::Receiver<Event>), String> {
    loop {
        match Qmp::connect(path).await {
            Err(QmpError::Io(error)) if too_early(error.kind()) => {
                tokio::time::sleep(RETRY).await;
            }
            other => return other.map_err(|error| error.to_string()),
        }
    }
}

async fn connect_guest(path: &Path) -> Result<UnixStream, String> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if too_early(error.kind()) => tokio::time::sleep(RETRY).await,
            other => return other.map_err(|error| error.to_string()),
        }
    }
}

async fn open_guest(
    stream: UnixStream,
    epoch: u32,
    state: State,
) -> Result<(Guest, mpsc::Receiver<GuestEvent>), String> {
    let opened = guest::open(stream, epoch, state).await;
    opened.map_err(|error| error.to_string())
}

/// Makes the booted machine this sandbox.
async fn greet(
    guest: &Guest,
    events: &mut mpsc::Receiver<GuestEvent>,
    mut personalise: Personalise,
) -> Result<(), String> {
    personalise.entropy = vec![0; ENTROPY];
    crate::prepare::random(&mut personalise.entropy).map_err(|error| error.to_string())?;
    personalise.unix_ns = unix_ns();
    let message = ToGuest::Personalise(Box::new(personalise));
    guest
        .send(&message)
        .await
        .map_err(|error| error.to_string())?;
    while let Some(event) = events.recv().await {
        match event {
            GuestEvent::Booted {
                kernel,
                version,
                uptime_ms,
            } => {
                tracing::info!(kernel, version, uptime_ms, "the guest has booted");
            }
            GuestEvent::Personalised(Ok(())) => return Ok(()),
            GuestEvent::Personalised(Err(why)) => {
                return Err(format!("the guest could not be set up: {why}"));
            }
            GuestEvent::Broken(error) => return Err(error.to_string()),
            GuestEvent::Pong(_) | GuestEvent::Prepared(_) => {}
        }
    }
    Err("the guest channel was closed".to_owned())
}
