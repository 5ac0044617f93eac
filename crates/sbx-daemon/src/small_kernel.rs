//! The small kernel, made in the background: built when nobody waits for anything, tried out, and from then on
//! chosen. It is never in the way: a build runs at the lowest priority, begins some time after the last start,
//! and ends for an image that somebody waits for; what it had done by then is kept.

use crate::daemon::Daemon;
use crate::events::Events;
use crate::settings::{self, WantedKernel};
use crate::{image, kernel, programs};
use sbx_agents::Agent;
use sbx_image::{Priority, Request, SmallKernel, SmallRequest, Store};
use sbx_wire::api::Progress;
use sbx_wire::report::Report;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Nobody has waited for an image or asked for a machine for so long before a build begins.
const BEFORE_BUILD: Duration = Duration::from_mins(1);
/// The same before kernels are compared, which takes some seconds.
const BEFORE_TRIAL: Duration = Duration::from_secs(5);
/// Before a build that failed is tried again; doubled each time, up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_mins(10);
/// See [`FIRST_PAUSE`].
const LAST_PAUSE: Duration = Duration::from_hours(12);
/// Code of a build that made way.
const MADE_WAY: &str = "made-way";

/// What is known about it, and who is to be let past.
#[derive(Debug)]
pub(crate) struct Small {
    /// Builds that somebody waits for.
    waiting: watch::Sender<usize>,
    /// Last time that somebody wanted something.
    last: Mutex<Instant>,
    look: Notify,
    status: Mutex<String>,
}

impl Default for Small {
    fn default() -> Self {
        Self {
            waiting: watch::Sender::new(0),
            last: Mutex::new(Instant::now()),
            look: Notify::new(),
            status: Mutex::default(),
        }
    }
}

impl Small {
    /// What is known, for people; empty before anything is.
    pub(crate) fn status(&self) -> String {
        self.status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn say(&self, text: String) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// A machine is started, or a setting has changed: whether there is something to do may be another matter now.
    pub(crate) fn look_again(&self) {
        self.touch();
        self.look.notify_one();
    }

    /// Somebody wants something.
    pub(crate) fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Ends a build in the background, and keeps others from beginning until the answer is dropped.
    pub(crate) fn make_way(self: &Arc<Self>) -> MakeWay {
        self.waiting.send_modify(|count| *count += 1);
        MakeWay(self.clone())
    }

    /// Returns when nobody has wanted anything for so long.
    async fn quiet(&self, span: Duration) {
        loop {
            let mut waiting = self.waiting.subscribe();
            // The sender is in the same place as we are: it cannot be gone.
            let _ = waiting.wait_for(|count| *count == 0).await;
            let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= span {
                return;
            }
            tokio::time::sleep_until(last + span).await;
        }
    }
}

/// See [`Small::make_way`].
#[derive(Debug)]
pub(crate) struct MakeWay(Arc<Small>);

impl Drop for MakeWay {
    fn drop(&mut self) {
        self.0.touch();
        self.0.waiting.send_modify(|count| *count -= 1);
    }
}

/// Has the kernel built by the worker.
pub(crate) async fn build(
    daemon: &Daemon,
    request: SmallRequest,
    priority: Priority,
    mut on_progress: impl FnMut(Progress) -> Result<(), Report> + Send + 'static,
) -> Result<SmallKernel, Report> {
    let worker = programs::image_worker(&daemon.programs)?;
    let ending = daemon.ending.subscribe();
    image::blocking(move || {
        sbx_image::ensure_small(&worker, &request, priority, &mut |progress| {
            if *ending.borrow() {
                return Err(image::daemon_ending());
            }
            on_progress(progress)
        })
    })
    .await?
}

/// What came of one look.
enum Outcome {
    /// Nothing to do until something changes.
    Settled,
    /// A build made way.
    MadeWay,
}

/// Builds and tries out the kernel of the newest image whenever there is one that lacks it. Runs as long as the
/// daemon.
pub(crate) async fn keep(daemon: Arc<Daemon>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match look(&daemon).await {
            Ok(Outcome::Settled) => {
                pause = FIRST_PAUSE;
                daemon.small.look.notified().await;
            }
            Ok(Outcome::MadeWay) => {}
            Err(report) => {
                tracing::warn!(%report, "small kernel");
                let minutes = pause.as_secs() / 60;
                daemon.small.say(format!(
                    "no small kernel, so the distribution's is used: {report}; tried again in {minutes} min"
                ));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }
}

async fn look(daemon: &Arc<Daemon>) -> Result<Outcome, Report> {
    let cache = &daemon.home.cache;
    match settings::kernel(daemon.store().settings()) {
        WantedKernel::Auto => {}
        WantedKernel::Stock => {
            daemon
                .small
                .say("stock, by the setting machine.kernel".to_owned());
            return Ok(Outcome::Settled);
        }
        WantedKernel::Small => {
            daemon
                .small
                .say("small, by the setting machine.kernel".to_owned());
            return Ok(Outcome::Settled);
        }
    }
    let newest = Request::new(cache.clone(), Agent::SHELL);
    let Some(image) = Store::new(cache).open(&newest) else {
        return Ok(Outcome::Settled);
    };
    let request = kernel::request(cache, &image);
    let small = match request.open() {
        Some(small) => small,
        None => match in_background(daemon, request).await {
            Err(report) if report.code == MADE_WAY => {
                daemon
                    .small
                    .say("the build of the small kernel made way".to_owned());
                return Ok(Outcome::MadeWay);
            }
            built => built?,
        },
    };
    let (events, _) = Events::new(); // nobody watches
    let verdict = image::accelerator(daemon, &image, None, &events).await?;
    let qemu = programs::find(&daemon.programs)?.qemu;
    let trial = kernel::trial(cache, &qemu, &verdict, (&image, &small));
    let judged = match trial.recall() {
        Some(judged) => judged,
        None => {
            daemon.small.quiet(BEFORE_TRIAL).await;
            daemon.small.say(format!("{} is tried out", small.version));
            let judged = trial.run().await;
            judged
                .map_err(|error| crate::error::io_report("try out kernels in", cache, &error))?
                .ok_or_else(neither)?
        }
    };
    tracing::info!(
        small = judged.small,
        reason = judged.reason,
        version = small.version,
        "small kernel"
    );
    let word = if judged.small { "used" } else { "not used" };
    daemon
        .small
        .say(format!("{} is {word}: it {}", small.version, judged.reason));
    Ok(Outcome::Settled)
}

fn neither() -> Report {
    Report::environment(
        "trial-failed",
        "in the comparison neither the small kernel nor the distribution's started in time",
        "lower the load of this machine; it is tried again",
    )
}

fn made_way() -> Report {
    let text = "the build of the small kernel made way";
    Report::environment(MADE_WAY, text, "")
}

async fn in_background(daemon: &Arc<Daemon>, request: SmallRequest) -> Result<SmallKernel, Report> {
    daemon.small.quiet(BEFORE_BUILD).await;
    let asking = daemon.clone();
    // The setting may be another one by now, and may change while it is built.
    let unwanted = move || settings::kernel(asking.store().settings()) != WantedKernel::Auto;
    if unwanted() {
        return Err(made_way());
    }
    let waiting = daemon.small.waiting.subscribe();
    let small = daemon.small.clone();
    tracing::info!(log = %request.log().display(), "building the small kernel");
    build(daemon, request, Priority::Idle, move |progress| {
        if *waiting.borrow() > 0 || unwanted() {
            return Err(made_way());
        }
        small.say(format!(
            "being built: {} {}",
            progress.step, progress.detail
        ));
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_build_waits_until_nobody_wants_anything() {
        const SPAN: Duration = Duration::from_millis(50);
        let small = Arc::new(Small::default());
        let wanted = small.make_way();
        let waiting = small.clone();
        let quiet = tokio::spawn(async move { waiting.quiet(SPAN).await });
        tokio::time::sleep(SPAN * 4).await;
        assert!(!quiet.is_finished(), "an image is waited for");
        drop(wanted);
        let started = Instant::now();
        small.look_again(); // a machine is started
        quiet.await.unwrap();
        assert!(started.elapsed() >= SPAN, "{:?}", started.elapsed());
    }
}
