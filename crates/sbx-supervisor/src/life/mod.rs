//! The life of one run: start, watch over, end.
//!
//! | module | |
//! |---|---|
//! | [`run`](self) | the order of things |
//! | `boot` | connecting to QEMU and the guest, `personalise` |
//! | `restore` | the same with a machine that comes from a snapshot |
//! | `save` | making the snapshot |
//! | `full_disk` | a machine that waits for space |
//! | `helpers` | what the end of each helper means |
//! | `late` | what a machine was doing that did not come up |
//! | `clock` | noticing that time was lost |

mod boot;
mod clock;
mod full_disk;
mod helpers;
mod late;
mod restore;
mod save;

use crate::console::{self, Feed};
use crate::guest::{Guest, GuestEvent};
use crate::prepare::Parts;
use crate::spawner::{Link, LinkError, Order, Role};
use crate::state::{Ended, State};
use clock::{Clock, unix_ns};
use full_disk::FullDisk;
use helpers::Helpers;
use sbx_machine::qmp::{Event, Qmp};
use sbx_wire::guest::ToGuest;
use sbx_wire::launch::{LATE, Launch, Origin, START_LIMIT_S};
use sbx_wire::session::Phase;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

/// Grace of a guest whose share or channel is broken, or that waits for space: it can hardly unmount anything.
const BROKEN_GRACE: Duration = Duration::from_secs(3);
/// Time for QEMU to end after `quit`, and for helpers after SIGTERM.
const QUIT_LIMIT: Duration = Duration::from_secs(2);
/// Most grace a request can ask for.
const MAX_GRACE: Duration = Duration::from_mins(5);

/// Asks the run to end.
#[derive(Debug, Clone, Copy)]
pub struct StopRequest {
    /// Time until force is used.
    pub grace: Duration,
    /// It is stopped because it had no session for so long.
    pub idle: Option<Duration>,
}

/// Why a run ends. The text is the line in `last-exit`.
#[derive(Debug, thiserror::Error)]
enum EndReason {
    #[error("the sandbox did not start: {0}")]
    Start(String),
    #[error("{LATE}{} s", .0.as_secs())]
    Late(Duration),
    #[error("the guest shut down")]
    ShutDown,
    #[error("the machine ended: {0}")]
    Machine(String),
    #[error("the guest's kernel ended: {0}")]
    Panic(String),
    #[error("{0}")]
    Spawner(#[from] LinkError),
    #[error("stopped")]
    Stopped,
    #[error("stopped, because nothing kept it running{}", for_so_long(.0))]
    Idle(Duration),
    #[error("saved")]
    Saved,
}

/// As people say it; nothing for no time.
fn for_so_long(time: &Duration) -> String {
    match time.as_secs() {
        0 => String::new(),
        seconds if seconds % 60 == 0 => format!(" for {} min", seconds / 60),
        seconds => format!(" for {seconds} s"),
    }
}

/// A run.
#[derive(Debug)]
pub struct Life {
    launch: Launch,
    epoch: u32,
    link: Link,
    console: Feed,
    /// While it is there, the console, which is the guest's, waits in its pipe; see `boot`.
    console_waits: Option<oneshot::Sender<std::convert::Infallible>>,
    state: State,
    helpers: Helpers,
    full_disk: FullDisk,
    guest: Option<Guest>,
    qmp: Option<Qmp>,
    /// `SHUTDOWN` event's reason, e.g. `guest-shutdown`.
    shutdown_reason: Option<String>,
}

impl Life {
    /// Takes over what was prepared; needs a tokio runtime.
    ///
    /// # Errors
    /// When a descriptor cannot be made non-blocking.
    pub fn new(parts: Parts, state: State) -> std::io::Result<Self> {
        let pipe = Receiver::from_owned_fd(parts.console_pipe.into())?;
        let console = Feed::new(pipe, parts.console);
        let (console_waits, sealed) = oneshot::channel::<std::convert::Infallible>();
        let feed = console.clone();
        tokio::spawn(async move {
            let _ = sealed.await;
            feed.run().await;
        });
        let helpers = Helpers::new(parts.launch.shares.len());
        Ok(Self {
            launch: parts.launch,
            epoch: parts.epoch,
            link: Link::new(parts.link)?,
            console,
            console_waits: Some(console_waits),
            state,
            helpers,
            full_disk: FullDisk::default(),
            guest: None,
            qmp: None,
            shutdown_reason: None,
        })
    }

    /// Runs the sandbox to its end. When this returns, every helper has ended.
    pub async fn run(mut self, mut stops: mpsc::Receiver<StopRequest>) -> Ended {
        let reason = tokio::select! {
            reason = self.drive() => reason,
            request = stops.recv() => {
                // All senders gone is no way to run on either.
                let grace = request.map_or(Duration::ZERO, |request| request.grace);
                self.stop(grace.min(MAX_GRACE)).await;
                let idle = request.and_then(|request| request.idle);
                idle.map_or(EndReason::Stopped, EndReason::Idle)
            }
        };
        let text = self.explain(&reason);
        tracing::info!(reason = text, "end");
        self.state.phase(Phase::Stopping);
        if let Some(guest) = &self.guest {
            guest.close(&text);
        }
        self.end_helpers().await;
        let orderly = matches!(
            reason,
            EndReason::Stopped | EndReason::Idle(_) | EndReason::ShutDown | EndReason::Saved
        );
        Ended {
            reason: text,
            orderly,
        }
    }

    /// The reason, and the console's last lines where they may say more.
    fn explain(&self, reason: &EndReason) -> String {
        match reason {
            EndReason::Start(_) | EndReason::Late(_) | EndReason::Machine(_) => {
                let lines = self.console.last_lines(6).join(" | ");
                if lines.is_empty() {
                    reason.to_string()
                } else {
                    format!("{reason}; console: {lines}")
                }
            }
            _ => reason.to_string(),
        }
    }

    /// Start and watch over; returns when it has to end.
    async fn drive(&mut self) -> EndReason {
        match self.drive_until_error().await {
            Ok(never) => match never {},
            Err(reason) => reason,
        }
    }

    async fn drive_until_error(&mut self) -> Result<std::convert::Infallible, EndReason> {
        let limit = match self.launch.origin {
            Origin::Boot | Origin::Save(_) => {
                let seconds = self.launch.start_limit_s.unwrap_or(START_LIMIT_S);
                Duration::from_secs(seconds.into())
            }
            Origin::Restore(_) => restore::LIMIT,
        };
        if matches!(self.launch.origin, Origin::Save(_)) {
            let said = match timeout(limit, self.come_up()).await {
                Ok(said) => said?,
                Err(_) => return Err(self.late(limit).await),
            };
            self.save(said).await?;
            return Err(EndReason::Saved);
        }
        let (events, qmp_events) = match timeout(limit, self.start()).await {
            Ok(started) => started?,
            Err(_) => return Err(self.late(limit).await),
        };
        let ready_ms = self.state.age_ms();
        let guest = self.guest.clone();
        self.state.update(|snapshot| {
            snapshot.ready_ms = Some(ready_ms);
            snapshot.phase = Phase::Running;
            snapshot.guest = guest;
        });
        tracing::info!(ready_ms, "running");
        self.watch_over(events, qmp_events).await
    }

    async fn late(&self, limit: Duration) -> EndReason {
        self.log_what_holds_it_up().await;
        EndReason::Late(limit)
    }

    async fn watch_over(
        &mut self,
        mut events: mpsc::Receiver<GuestEvent>,
        mut qmp_events: mpsc::Receiver<Event>,
    ) -> Result<std::convert::Infallible, EndReason> {
        let mut clock = Clock::new();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = self.helpers.next_deadline();
            let full = self.full_disk.due();
            tokio::select! {
                news = self.link.next() => self.on_news(news?)?,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.on_deadline().await?;
                }
                () = sleep_until(full.unwrap_or_else(Instant::now)), if full.is_some() => {
                    self.on_full_disk().await;
                }
                Some(event) = qmp_events.recv() => {
                    if event.name == "RESUME" {
                        self.set_clock(&mut clock);
                    }
                    self.on_qmp(&event);
                }
                Some(event) = events.recv() => self.on_guest(event, &mut clock),
                _ = tick.tick() => self.on_tick(&mut clock),
            }
        }
    }

    fn on_qmp(&mut self, event: &Event) {
        self.on_disk_error(event);
        if event.name == "SHUTDOWN" {
            let reason = event.data.get("reason").and_then(|reason| reason.as_str());
            self.shutdown_reason = reason.map(|text| console::clean(text, 40));
        }
    }

    fn on_guest(&mut self, event: GuestEvent, clock: &mut Clock) {
        match event {
            GuestEvent::Pong(token) => {
                clock.pong(token);
                if clock.lost_time() {
                    self.set_clock(clock);
                }
            }
            GuestEvent::Broken(error) if error.may_be_the_machines_end() => {
                self.helpers.suspect(error.to_string());
            }
            GuestEvent::Broken(error) => self.unresponsive(&error.to_string()),
            // Once is enough; a guest that says it again is not listened to.
            GuestEvent::Booted { .. } | GuestEvent::Personalised(_) | GuestEvent::Prepared(_) => {}
        }
    }

    fn on_tick(&mut self, clock: &mut Clock) {
        let Some(guest) = &self.guest else { return };
        if let Some(token) = clock.ping()
            && !guest.send_now(&ToGuest::Ping { token })
        {
            clock.not_asked();
        }
        if clock.lost_time() {
            self.set_clock(clock);
        }
    }

    /// Sets the guest's clock, if there is room to say so. Otherwise time stays lost, and the next tick tries again.
    fn set_clock(&self, clock: &mut Clock) {
        let Some(guest) = &self.guest else { return };
        if guest.send_now(&ToGuest::SetClock { unix_ns: unix_ns() }) {
            tracing::info!("the guest's clock is set");
            clock.was_set();
        }
    }

    /// Something the guest depends on is gone for good.
    fn unresponsive(&mut self, why: &str) {
        tracing::error!(why, "unresponsive");
        if let Some(guest) = &self.guest {
            guest.close(why);
        }
        self.state.update(|snapshot| {
            snapshot.guest = None;
            if matches!(snapshot.phase, Phase::Running) {
                snapshot.phase = Phase::Unresponsive(why.to_owned());
            }
        });
    }

    /// Shuts the guest down, in the end by force.
    async fn stop(&mut self, grace: Duration) {
        let healthy = {
            let watch = self.state.watch();
            let snapshot = watch.borrow();
            matches!(snapshot.phase, Phase::Running) && snapshot.waits.is_none()
        };
        self.state.phase(Phase::Stopping);
        let grace = if healthy {
            grace
        } else {
            grace.min(BROKEN_GRACE)
        };
        if let Some(guest) = self.guest.clone() {
            let deadline = Instant::now() + grace;
            let left = || deadline.saturating_duration_since(Instant::now());
            // What waits for a guest that is slow to read goes first.
            let asked = match timeout(grace, guest.room()).await {
                Ok(Ok(room)) => {
                    let grace_ms = u32::try_from(left().as_millis() / 2).unwrap_or(u32::MAX);
                    room.send(&ToGuest::Shutdown { grace_ms }).is_ok()
                }
                _ => false,
            };
            if asked && self.await_end_of(Role::Machine, left()).await {
                return;
            }
            tracing::warn!("the guest did not shut down in time");
        }
        if let Some(qmp) = self.qmp.clone() {
            // `quit` flushes the disks; the answer may be lost with the process.
            let quit = qmp.execute("quit", serde_json::Value::Null);
            let _ = timeout(QUIT_LIMIT, quit).await;
            self.await_end_of(Role::Machine, QUIT_LIMIT).await;
        }
    }

    /// Waits for a helper to end. True when it has.
    async fn await_end_of(&mut self, role: Role, limit: Duration) -> bool {
        let wait = async {
            while self.helpers.pid(role).is_some() {
                match self.link.next().await {
                    Ok(news) => self.helpers.note(&news),
                    Err(_) => return,
                }
            }
        };
        timeout(limit, wait).await.is_ok()
    }

    /// Ends what still runs: the machine at once, the others after a moment to finish what they write.
    async fn end_helpers(&mut self) {
        let orders = [(Role::Machine, true), (Role::Gateway, false)];
        let shares = self.helpers.shares().map(|share| (share, false));
        let orders: Vec<_> = orders.into_iter().chain(shares).collect();
        for (role, force) in orders.iter().copied() {
            self.end_helper(role, force).await;
        }
        for (role, _) in orders {
            if !self.await_end_of(role, QUIT_LIMIT).await {
                self.end_helper(role, true).await;
                self.await_end_of(role, QUIT_LIMIT).await;
            }
        }
        let processes = self
            .helpers
            .processes(&self.state.watch().borrow().processes);
        self.state.update(|snapshot| snapshot.processes = processes);
    }

    async fn end_helper(&mut self, role: Role, force: bool) {
        if self.helpers.pid(role).is_some() {
            // A lost spawner has ended its helpers.
            let _ = self.link.order(Order::End { role, force }).await;
        }
    }
}
