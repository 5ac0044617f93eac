//! Starting, stopping and removing.

use crate::daemon::Daemon;
use crate::error::{ApiResult, io_report};
use crate::events::Events;
use crate::image;
use crate::launching;
use crate::reconcile::{REMOVING, remove as remove_folder};
use crate::removal;
use crate::sandbox::{Live, Sandbox};
use crate::settings;
use crate::supervisor_link::Connection;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Signal, pidfd_send_signal};
use sbx_wire::api::{Event, Stopped};
use sbx_wire::launch::files::{ALIVE, LOCK};
use sbx_wire::report::Report;
use sbx_wire::session::{Phase, Reply, Request};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time that programs in the guest get between SIGTERM and SIGKILL at a stop.
const GRACE: Duration = Duration::from_secs(10);
/// Time for the rest of a stop: unmounting, the helpers' end.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Time for killed processes to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(10);
/// Time for another start of the same sandbox, begun under an earlier daemon, beyond what a machine has to come up.
const START_MARGIN: Duration = Duration::from_mins(3);
/// Between two looks at the locks of a sandbox.
const POLL: Duration = Duration::from_millis(10);

/// Makes sure that the sandbox runs. True: the machine was (re)started. Calls for the same sandbox wait for
/// each other.
pub(crate) async fn start(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
    events: &Events,
) -> Result<bool, Report> {
    daemon.small.touch();
    // The way of every `exec`: nobody has to be waited for.
    if sandbox.is_running() && sandbox.gate.try_lock().is_ok() {
        return Ok(false);
    }
    let _gate = sandbox.gate.lock().await;
    daemon.sandbox(&sandbox.name)?; // it may have been removed while we waited
    ensure_running(daemon, sandbox, events).await
}

/// [`start`], with the gate held by the caller.
pub(crate) async fn ensure_running(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
    events: &Events,
) -> Result<bool, Report> {
    if let Live::Stopped(_) = sandbox.live()
        && daemon.follow(sandbox).await
    {
        tracing::warn!(sandbox = sandbox.name, "found running");
    }
    let limit = settings::start_limit(daemon.store().settings()) + START_MARGIN;
    settle(sandbox, events, limit).await;
    if sandbox.is_running() {
        return Ok(false);
    }
    sandbox.intact()?;
    if let Live::Up(status, _) = sandbox.live()
        && let Phase::Unresponsive(why) = &status.phase
    {
        let text = format!(
            "sandbox '{}' was unresponsive ({why}): restarting it",
            sandbox.name
        );
        events.send(Event::Notice(text)).await;
    }
    end(sandbox, Duration::ZERO).await?;
    launching::launch(daemon, sandbox, None, events).await?;
    Ok(true)
}

/// Waits while the machine is on its way up or down.
async fn settle(sandbox: &Sandbox, events: &Events, start_limit: Duration) {
    let mut live = sandbox.live.subscribe();
    let settled = live.wait_for(|live| match live {
        Live::Up(status, _) => {
            if let Phase::Starting(step) = &status.phase {
                events.step(step);
            }
            !matches!(status.phase, Phase::Starting(_) | Phase::Stopping)
        }
        Live::Silent => false,
        Live::Stopped(_) => true,
    });
    // Whoever takes longer is restarted by the caller.
    let limit = if matches!(sandbox.live(), Live::Silent) {
        GONE_LIMIT
    } else {
        start_limit
    };
    let _ = tokio::time::timeout(limit, settled).await;
}

/// Stops the sandbox and keeps what it wrote, unless it was run to be removed. Returns what ended with it. `grace`: what
/// programs inside get, instead of the usual time.
pub(crate) async fn stop(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
    grace: Option<Duration>,
) -> Result<Stopped, Report> {
    let _gate = sandbox.gate.lock().await;
    let mut stopped = sandbox.what_runs();
    end(sandbox, grace.unwrap_or(GRACE)).await?;
    if sandbox.record().remove_when_ended && daemon.sandbox(&sandbox.name).is_ok() {
        removal::remove_held(daemon, sandbox).await?;
        stopped.removed = true;
    }
    Ok(stopped)
}

/// Ends every process of the sandbox: in order within `grace`, then by force.
pub(crate) async fn end(sandbox: &Sandbox, grace: Duration) -> Result<(), Report> {
    let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
    if let Ok(connection) = Connection::open(sandbox, &Request::Stop { grace_ms }).await {
        let supervisor = connection.peer();
        if tokio::time::timeout(grace + STOP_LIMIT, stopped(connection))
            .await
            .is_err()
        {
            tracing::error!(
                sandbox = sandbox.name,
                "does not stop: killing its supervisor"
            );
            // Its helpers die with it.
            let _ = supervisor.map(|process| pidfd_send_signal(&process, Signal::KILL));
        }
    }
    wait_until_gone(sandbox).await?;
    remove_sockets(sandbox);
    Ok(())
}

/// Takes the folder of a sandbox's sockets away. The next start makes it anew.
fn remove_sockets(sandbox: &Sandbox) {
    if let Err(error) = remove_folder(&sandbox.runtime) {
        tracing::warn!(sandbox = sandbox.name, %error, "its sockets stay");
    }
}

/// Takes away what sandboxes that ended by themselves left in the runtime folder, and the folder itself when
/// nothing runs that needs it.
pub(crate) fn clear_runtime(daemon: &Daemon) {
    for sandbox in daemon.sandboxes() {
        // Nobody is about to start it, and nothing of it is left.
        if let Ok(_gate) = sandbox.gate.try_lock()
            && is_gone(&sandbox)
        {
            remove_sockets(&sandbox);
        }
    }
    // It stays when a sandbox runs on.
    let _ = fs::remove_dir(&daemon.home.runtime);
}

async fn stopped(mut connection: Connection) {
    while let Ok(Some(reply)) = connection.next::<Reply>().await {
        if matches!(reply, Reply::Stopped | Reply::Refused(_)) {
            return;
        }
    }
}

/// Whether nobody holds this lock. What cannot be told counts as held.
pub(crate) fn is_free(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
        // It never ran.
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Whether no process of the sandbox in `dir` is left.
pub(crate) fn nothing_runs(dir: &Path) -> bool {
    // In this order: the supervisor takes its own lock first.
    [LOCK, ALIVE].iter().all(|name| is_free(&dir.join(name)))
}

/// Takes this lock, until what is returned is dropped. `None`: somebody has it.
pub(crate) fn hold(path: &Path) -> Option<File> {
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(false).open(path);
    let file = file.ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .is_ok()
        .then_some(file)
}

/// Whether the sandbox's last process has ended: the machine and the helpers outlive a killed supervisor by a
/// moment.
fn is_gone(sandbox: &Sandbox) -> bool {
    nothing_runs(&sandbox.dir) && matches!(sandbox.live(), Live::Stopped(_))
}

async fn wait_until_gone(sandbox: &Sandbox) -> Result<(), Report> {
    let deadline = Instant::now() + GONE_LIMIT;
    loop {
        if is_gone(sandbox) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let pids = sandbox.show(Vec::new()).processes;
            return Err(Report::environment(
                "sandbox-stuck",
                format!(
                    "processes of sandbox '{}' do not end: {pids:?}",
                    sandbox.name
                ),
                format!(
                    "fuser -v {0}/{LOCK} {0}/{ALIVE} names them; end them, then sbx stop {1}",
                    sandbox.dir.display(),
                    sandbox.name
                ),
            ));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// When a sandbox is to be removed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Removal {
    /// Also while sessions are attached.
    pub(crate) force: bool,
    /// Only if it has this id, nothing of it runs and it is not damaged: what was listed is what is removed.
    pub(crate) only_stopped: Option<String>,
}

/// Removes the sandbox with its processes, sockets, files, rules and secrets.
pub(crate) async fn remove(daemon: &Arc<Daemon>, name: &str, wanted: &Removal) -> ApiResult<()> {
    let sandbox = daemon.sandbox(name)?;
    let _gate = sandbox.gate.lock().await;
    // It may have been removed while we waited, and another made.
    let now = daemon.sandbox(name)?;
    if let Some(id) = &wanted.only_stopped {
        let stopped = is_gone(&sandbox) && sandbox.damage.is_none();
        if !stopped || *id != sandbox.id || now.id != sandbox.id {
            let message = format!("sandbox '{name}' is not a stopped one any more");
            return Err(Report::user("sandbox-not-stopped", message, "sbx ls").into());
        }
    }
    if !wanted.force
        && let Some(what) = in_use(sandbox.what_runs())
    {
        return Err(Report::user(
            "sessions-attached",
            format!("sandbox '{name}' is in use: {what}"),
            format!("sbx rm --force {name}"),
        )
        .into());
    }
    end(&sandbox, Duration::ZERO).await?;
    discard(daemon, &sandbox).await?;
    tracing::info!(sandbox = name, "removed");
    Ok(())
}

/// What would be torn away; `None`: nothing.
fn in_use(runs: Stopped) -> Option<String> {
    let others = runs.sessions.saturating_sub(runs.agent_running.into());
    let agent = match runs.attached {
        0 => "its agent runs, detached".to_owned(),
        1 => "1 terminal is attached to its agent".to_owned(),
        count => format!("{count} terminals are attached to its agent"),
    };
    let programs = match others {
        1 => "1 session is attached to it".to_owned(),
        count => format!("{count} sessions are attached to it"),
    };
    match (runs.agent_running, others) {
        (false, 0) => None,
        (false, _) => Some(programs),
        (true, 0) => Some(agent),
        (true, _) => Some(format!("{agent}, and {programs}")),
    }
}

/// Takes everything of an ended sandbox away. After the first step it is gone for good, also for the next
/// daemon, if this one should not get further. Disks of many gigabytes take their time: nobody else waits for that.
pub(crate) async fn discard(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) -> Result<(), Report> {
    let _leaving = daemon.leaving.read().await;
    let (daemon, sandbox) = (daemon.clone(), sandbox.clone());
    image::blocking(move || discard_now(&daemon, &sandbox)).await?
}

fn discard_now(daemon: &Arc<Daemon>, sandbox: &Sandbox) -> Result<(), Report> {
    let trash = daemon
        .home
        .sandboxes()
        .join(format!("{REMOVING}{}", sandbox.id));
    fs::rename(&sandbox.dir, &trash).map_err(|error| io_report("remove", &sandbox.dir, &error))?;
    // What is taken away with its name below must not be a later sandbox's.
    let _name = daemon.forget_sandbox(&sandbox.name);
    // The folder first: on a full disk that makes the room which the rest needs.
    let folders = remove_folder(&trash).and(remove_folder(&sandbox.runtime));
    let rows = daemon.store().remove_sandbox(&sandbox.id);
    // A sandbox whose real name belongs to another one has neither rules nor secrets.
    let rest = daemon.forget_name(&sandbox.name);
    rows.and(rest).and(folders)
}
