//! From a stopped sandbox to a running one.

use crate::daemon::Daemon;
use crate::error::io_report;
use crate::events::Events;
use crate::kernel::{self, Chosen};
use crate::personalise::{personalise, shares};
use crate::record::Record;
use crate::sandbox::{Live, Sandbox, last_words};
use crate::warm::Snapshot;
use crate::{
    clock, credentials, files, finishing, guard, image, keeper, lifecycle, programs, settings,
    workspace,
};
use sbx_image::Image;
use sbx_wire::api::{Event, KernelKind};
use sbx_wire::guest::Mount;
use sbx_wire::launch::{self, Accel, Launch, MachineSpec, Origin, ShareSpec};
use sbx_wire::report::Report;
use sbx_wire::session::Phase;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};

/// Time for a supervisor to say that its machine has not come up, beyond what that has.
const READY_MARGIN: Duration = Duration::from_mins(1);
/// Time for a supervisor's socket to be there: it waits up to 5 s for the processes of an earlier run.
const SOCKET_LIMIT: Duration = Duration::from_secs(20);
/// Between two attempts to connect to a supervisor that is coming up.
const POLL: Duration = Duration::from_millis(5);
/// Time for the gateway of a machine that is up to take its configuration.
const GATEWAY_LIMIT: Duration = Duration::from_secs(10);
/// Variables that helpers inherit. The user's own may hold secrets.
const INHERITED: [&str; 3] = ["PATH", "TMPDIR", "RUST_LOG"];

/// Starts the machine of a sandbox that has no process, and waits until programs can be started in it. When
/// it fails, no process is left. `snapshot`: what the sandbox's disks were just copied from.
pub(crate) async fn launch(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
    snapshot: Option<&Snapshot>,
    events: &Events,
) -> Result<(), Report> {
    let mut outcome = launch_with(daemon, sandbox, (None, snapshot), events).await;
    if let Err(error) = &outcome
        && snapshot.is_none()
        && may_come_up(sandbox, error)
    {
        tracing::warn!(sandbox = sandbox.name, %error, "once more");
        let text = format!("{error}: starting it once more");
        events.send(Event::Notice(text)).await;
        outcome = launch_with(daemon, sandbox, (None, None), events).await;
    }
    match outcome {
        // A snapshot that does not start is its caller's to replace.
        Err(error) if snapshot.is_some() => Err(error),
        Err(error) if error.code == FAILED && kernel::was_a_choice(daemon, sandbox) => {
            kernel::instead(daemon, sandbox, error, events).await
        }
        outcome => outcome,
    }
}

/// Whether a start that failed may succeed when it is tried again: under emulation, kernels were seen that wait for ever
/// for the timer of a second processor while they come up, and one that met an exception in an interrupt.
fn may_come_up(sandbox: &Sandbox, error: &Report) -> bool {
    error.code == FAILED
        && sandbox.record().accel == Accel::Tcg
        && last_words(&sandbox.dir)
            .is_some_and(|words| words.starts_with(launch::LATE) || words.contains(PANIC))
}

/// [`launch`], with this kernel or the one that [`kernel::choose`] finds.
pub(crate) async fn launch_with(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
    (kind, snapshot): (Option<KernelKind>, Option<&Snapshot>),
    events: &Events,
) -> Result<(), Report> {
    events.step("starting the machine");
    let record = sandbox.record();
    let workspaces = record.workspaces.clone();
    image::blocking(move || workspace::check_again(&workspaces)).await??;
    let image = image::of(daemon, &record)?;
    let verdict = image::accelerator(daemon, &image, record.accel_wanted, events).await?;
    let kernel = kernel::choose(daemon, &image, &verdict, &record, kind, events).await?;
    let record = sandbox.change_record(|record| {
        record.accel = verdict.accel;
        record.kernel = Some(kernel.shown.clone());
        record.last_used_at = Some(clock::now());
        credentials::give(daemon, record, false)?;
        Ok(record.clone())
    })?;
    let origin = snapshot.map_or(Origin::Boot, |snapshot| {
        Origin::Restore(snapshot.files.clone())
    });
    for notice in keeper::settle(daemon, &sandbox.name).await {
        events.send(Event::Notice(notice)).await;
    }
    let notices = write_documents(daemon, sandbox, &record, &image, (&kernel, origin)).await?;
    for notice in notices {
        events.send(Event::Notice(notice)).await;
    }
    // What a gateway of an earlier run confirmed does not count.
    let revision = sandbox.gateway.request();
    let child = spawn(daemon, sandbox)?;
    let outcome = bring_up(daemon, sandbox, child, revision, events).await;
    if let Err(error) = outcome {
        // The first error is the one to report.
        if let Err(second) = lifecycle::end(sandbox, Duration::ZERO).await {
            tracing::error!(sandbox = sandbox.name, %second, "after a failed start");
        }
        return Err(error);
    }
    // It runs: that the time of its start cannot be written down, on a full disk, is no reason to end it.
    let kept = daemon.keep_record(sandbox);
    if let Err(report) = kept {
        tracing::warn!(sandbox = sandbox.name, %report, "the record after a start");
        let text = format!("the start is not written down: {report}");
        events.send(Event::Notice(text)).await;
    }
    // The machine is as usable as it will get: what is missing is said, and tried again at the next start.
    if let Err(report) = finishing::finish(sandbox, &image, events).await {
        tracing::warn!(sandbox = sandbox.name, %report, "image");
        let next = report.hint.as_deref().unwrap_or("start the sandbox again");
        events
            .send(Event::Notice(format!("{report} (try: {next})")))
            .await;
    }
    Ok(())
}

/// Returns notices for the user.
async fn write_documents(
    daemon: &Arc<Daemon>,
    sandbox: &Sandbox,
    record: &Record,
    image: &Image,
    (kernel, origin): (&Chosen, Origin),
) -> Result<Vec<String>, Report> {
    sandbox.make_runtime(&daemon.home)?;
    files::private_dir(&sandbox.dir.join(launch::files::GATEWAY_DIR))?;
    daemon.write_gateway_file(sandbox)?;
    let found = programs::find(&daemon.programs)?;
    let dir = sandbox
        .dir
        .canonicalize()
        .map_err(|e| io_report("find", &sandbox.dir, &e))?;
    let (shares, notices) = guarded_shares(daemon, record, &dir).await?;
    let mut personalise = personalise(daemon, record, &image.path).await?;
    personalise.mounts.extend(masked(&shares));
    let stored = daemon.store().settings().clone();
    let document = Launch {
        schema: launch::SCHEMA,
        id: sandbox.id.clone(),
        name: sandbox.name.clone(),
        runtime: sandbox.runtime.clone(),
        machine: MachineSpec {
            accel: record.accel,
            cpus: record.cpus,
            memory_mib: record.memory_mib,
            kernel: kernel.file.clone(),
            initramfs: image::initramfs(daemon, &kernel.modules, &found.guest).await?,
            lowers: image.lowers.clone(),
            upper: dir.join(launch::files::UPPER),
            docker: dir.join(launch::files::DOCKER),
            bases: bases(&dir, image),
        },
        programs: launch::Programs {
            qemu: found.qemu,
            gateway: found.gateway,
            share: found.share,
        },
        shares,
        auto_stop_s: settings::auto_stop_s(&stored),
        personalise,
        origin,
        unconfined: !settings::confined(&stored),
        start_limit_s: u32::try_from(settings::start_limit(&stored).as_secs()).ok(),
        dir,
    };
    files::replace_json(&sandbox.dir.join(launch::FILE), &document)?;
    Ok(notices)
}

/// What the disks of the sandbox in `dir` lie on. The disks would tell, but QEMU writes into them.
fn bases(dir: &Path, image: &Image) -> Vec<PathBuf> {
    let own = dir.join(launch::files::DOCKER_BASE);
    let docker = if own.exists() {
        own
    } else {
        image.docker.clone()
    };
    vec![image.upper.clone(), docker]
}

/// The shares with their rules, and notices for the user. Workspaces are read for that, and git is asked, which takes what it takes.
async fn guarded_shares(
    daemon: &Daemon,
    record: &Record,
    dir: &Path,
) -> Result<(Vec<ShareSpec>, Vec<String>), Report> {
    let stored = daemon.store().settings().clone();
    let (record, dir) = (record.clone(), dir.to_path_buf());
    let work = move || {
        let (mut shares, _) = shares(&record);
        let mut notices = Vec::new();
        for share in &mut shares {
            notices.extend(guard::complete(&stored, &record, share, &dir)?);
        }
        Ok((shares, notices))
    };
    image::blocking(work).await?
}

/// Where the guest puts directories of its own disk.
fn masked(shares: &[ShareSpec]) -> Vec<Mount> {
    let paths = shares.iter().flat_map(|share| {
        let masks = share.rules.masks.iter();
        masks.map(|mask| share.host.join(mask))
    });
    paths
        .map(|path| Mount {
            tag: Mount::MASK.to_owned(),
            path: path.to_string_lossy().into_owned(),
            read_only: false,
        })
        .collect()
}

/// Starts the supervisor: a session of its own (which it makes itself), nothing inherited but its log.
fn spawn(daemon: &Daemon, sandbox: &Sandbox) -> Result<Child, Report> {
    let program = programs::supervisor(&daemon.programs)?;
    let mut command = supervisor(&program, &sandbox.dir)?;
    command.arg(&sandbox.dir);
    command
        .spawn()
        .map_err(|error| io_report("start", &program, &error))
}

/// `program`, to become the supervisor of the sandbox in `dir`: nothing inherited but its log.
pub(crate) fn supervisor(program: &Path, dir: &Path) -> Result<Command, Report> {
    let path = dir.join(launch::files::SUPERVISOR_LOG);
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| io_report("open", &path, &error))?;
    let second = log
        .try_clone()
        .map_err(|error| io_report("open", &path, &error))?;
    let mut command = Command::new(program);
    command.current_dir("/").env_clear();
    command.envs(
        INHERITED
            .iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?))),
    );
    command.stdin(Stdio::null()).stdout(log).stderr(second);
    Ok(command)
}

async fn bring_up(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
    mut child: Child,
    revision: u64,
    events: &Events,
) -> Result<(), Report> {
    connect(daemon, sandbox, &mut child).await?;
    // Reaps it whenever it ends.
    let name = sandbox.name.clone();
    tokio::spawn(async move {
        let status = child.wait().await;
        tracing::info!(sandbox = name, ?status, "supervisor reaped");
    });
    let limit = settings::start_limit(daemon.store().settings()) + READY_MARGIN;
    ready(sandbox, events, limit).await?;
    if let Err(report) = sandbox.gateway.applied(revision, GATEWAY_LIMIT).await {
        tracing::error!(sandbox = sandbox.name, %report, "gateway after a start");
        let text =
            format!("the gateway has no credentials yet, so their hosts stay closed: {report}");
        events.send(Event::Notice(text)).await;
    }
    Ok(())
}

/// Follows the new supervisor as soon as it listens.
async fn connect(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
    child: &mut Child,
) -> Result<(), Report> {
    let attempts = async {
        loop {
            if daemon.follow(sandbox).await {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::select! {
        () = attempts => Ok(()),
        status = child.wait() => {
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(failed(sandbox, &format!("its supervisor ended at once ({status})")))
        }
        () = tokio::time::sleep(SOCKET_LIMIT) => {
            // It may be stuck before it took the lock, where nothing else finds it.
            let _ = child.start_kill();
            Err(failed(sandbox, "its supervisor does not answer"))
        }
    }
}

async fn ready(sandbox: &Sandbox, events: &Events, limit: Duration) -> Result<(), Report> {
    let mut live = sandbox.live.subscribe();
    let wait = live.wait_for(|live| match live {
        Live::Up(status, _) => match &status.phase {
            Phase::Starting(step) => {
                events.step(step);
                false
            }
            // The reason comes with the end.
            Phase::Stopping => false,
            Phase::Running | Phase::Unresponsive(_) => true,
        },
        Live::Silent => false,
        Live::Stopped(_) => true,
    });
    let outcome = tokio::time::timeout(limit, wait).await;
    match outcome {
        Ok(Ok(live)) => match &*live {
            Live::Up(status, _) => match &status.phase {
                Phase::Unresponsive(why) => Err(failed(sandbox, why)),
                _ => Ok(()),
            },
            Live::Stopped(why) => Err(failed(
                sandbox,
                why.as_deref().unwrap_or("its supervisor ended"),
            )),
            Live::Silent => Err(failed(sandbox, "its supervisor does not answer")),
        },
        _ => {
            let seen = format!("it took more than {} s", limit.as_secs());
            Err(failed(sandbox, &seen))
        }
    }
}

/// Code of a start that failed.
pub(crate) const FAILED: &str = "machine-start-failed";

/// What a kernel says last that cannot go on (`kernel/panic.c`).
const PANIC: &str = "Kernel panic - not syncing";

/// A start that failed. The supervisor's own last words say more than what was seen from here.
fn failed(sandbox: &Sandbox, seen: &str) -> Report {
    let why = last_words(&sandbox.dir).unwrap_or_else(|| seen.to_owned());
    let why = why
        .strip_prefix("the sandbox did not start: ")
        .unwrap_or(&why);
    let log = |name| shown(&sandbox.dir.join(name));
    Report::environment(
        FAILED,
        format!(
            "the machine of sandbox '{}' did not start: {why}",
            sandbox.name
        ),
        format!(
            "read {} and {}; --accel tcg avoids hardware virtualisation",
            log(launch::files::SUPERVISOR_LOG),
            log(launch::files::CONSOLE)
        ),
    )
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
