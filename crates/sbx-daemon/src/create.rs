//! Making a sandbox: everything is checked before anything is made, and everything that was made is taken
//! away when a later step fails.

use crate::daemon::{Daemon, Reservation};
use crate::error::io_report;
use crate::events::Events;
use crate::record::Record;
use crate::sandbox::Sandbox;
use crate::warm::{self, Beginning, Snapshot};
use crate::{
    agents, clock, credentials, files, guard, image, launching, lifecycle, policy, programs,
    random, reconcile, settings, workspace,
};
use rustix::fs::statvfs;
use sbx_agents::Agent;
use sbx_image::Image;
use sbx_machine::disk::create_overlay;
use sbx_machine::snapshot::copy_sparse;
use sbx_policy::Rule;
use sbx_wire::api::{AddRule, Create, Event, Workspace};
use sbx_wire::launch::{self, Accel};
use sbx_wire::name::SandboxName;
use sbx_wire::report::Report;
use sbx_workspace::rules::Guarding;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Most virtual CPUs.
const MAX_CPUS: u16 = 64;
/// Least memory, MiB.
const MIN_MEMORY: u32 = 512;
/// Most memory by default, MiB.
const MAX_DEFAULT_MEMORY: u32 = 32 << 10;
/// Space that has to be free for a new sandbox: its disks are sparse, but an engine and a checkout are not.
pub(crate) const MIN_FREE_MIB: u64 = 512;
/// All variables together, bytes: they travel to the guest in one frame of 1 MiB.
const MAX_ENV: usize = 256 << 10;

/// A request that passed every check.
#[derive(Debug)]
pub(crate) struct Checked {
    name: SandboxName,
    _reservation: Reservation,
    agent: Agent,
    workspaces: Vec<Workspace>,
    cpus: u16,
    memory_mib: u32,
    env: Vec<(String, String)>,
    rules: Vec<Rule>,
    accel: Option<Accel>,
    guarding: Guarding,
    notices: Vec<String>,
}

/// Checks a request and takes its name. Nothing is made. The workspaces are searched for what is to be guarded, which
/// takes what it takes: nobody else waits for that.
pub(crate) async fn check(daemon: &Arc<Daemon>, request: Create) -> Result<Checked, Report> {
    // A name is free as soon as nothing of its last sandbox is left.
    drop(daemon.leaving.write().await);
    let daemon = daemon.clone();
    image::blocking(move || looked_at(&daemon, request)).await?
}

/// [`check`], on a thread that may wait.
fn looked_at(daemon: &Arc<Daemon>, request: Create) -> Result<Checked, Report> {
    daemon.require_policy()?;
    let agent = agents::find(&request.agent)?;
    let wanted = request.name.as_deref().map(parse_name).transpose()?;
    let (workspaces, mut notices) = workspace::check(daemon, &request.workspaces)?;
    notices.extend(agent.warning().map(|warning| format!("note: {warning}")));
    // The store is not held meanwhile.
    let stored = daemon.store().settings().clone();
    for workspace in workspaces
        .iter()
        .filter(|workspace| workspace.path.is_dir())
    {
        guard::rules(
            &stored,
            &request.guarding,
            (&workspace.path, workspace.read_only),
        )?;
    }
    let cpus = check_cpus(request.cpus)?;
    let memory_mib = check_memory(request.memory_mib)?;
    check_env(&request.env)?;
    check_programs(daemon)?;
    check_space(&daemon.home.state)?;
    let (name, reservation) = match wanted {
        Some(name) => {
            let reservation = daemon.reserve(name.as_str()).ok_or_else(|| in_use(&name))?;
            (name, reservation)
        }
        None => suggest(daemon, agent, &workspaces)?,
    };
    let rules = deny_rules(&name, &request.deny_network)?;
    Ok(Checked {
        name,
        _reservation: reservation,
        agent,
        workspaces,
        cpus,
        memory_mib,
        env: request.env,
        rules,
        accel: request.accel,
        guarding: request.guarding,
        notices,
    })
}

fn parse_name(text: &str) -> Result<SandboxName, Report> {
    SandboxName::parse(text).map_err(|error| {
        Report::user(
            "name-invalid",
            error.to_string(),
            "sbx create --name my-project shell .",
        )
    })
}

fn in_use(name: &SandboxName) -> Report {
    Report::user(
        "name-in-use",
        format!("there is a sandbox '{name}' already"),
        format!("sbx run --name {name} to use it, or choose another --name"),
    )
}

fn suggest(
    daemon: &Arc<Daemon>,
    agent: Agent,
    workspaces: &[Workspace],
) -> Result<(SandboxName, Reservation), Report> {
    let base = workspaces
        .first()
        .and_then(|workspace| workspace.path.file_name())
        .map_or_else(
            || "sandbox".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        );
    let reservation = RefCell::new(None);
    let name = SandboxName::suggest(agent.name, &base, |name| {
        let mut reserved = reservation.borrow_mut();
        *reserved = daemon.reserve(name.as_str());
        reserved.is_none()
    });
    let reservation = reservation.into_inner().ok_or_else(|| in_use(&name))?;
    Ok((name, reservation))
}

fn check_cpus(wanted: u16) -> Result<u16, Report> {
    if wanted > MAX_CPUS {
        return Err(Report::user(
            "cpus-out-of-range",
            format!("{wanted} virtual CPUs were asked for, {MAX_CPUS} are possible"),
            "sbx create --cpus 4 …",
        ));
    }
    if wanted > 0 {
        return Ok(wanted);
    }
    let host = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(u16::try_from(host).unwrap_or(MAX_CPUS).min(MAX_CPUS))
}

fn check_memory(wanted: Option<u32>) -> Result<u32, Report> {
    let info = rustix::system::sysinfo();
    let host_mib = u64::from(info.mem_unit).saturating_mul(info.totalram) >> 20;
    let host_mib = u32::try_from(host_mib).unwrap_or(u32::MAX);
    let largest = (host_mib / 4 * 3).max(MIN_MEMORY);
    let Some(wanted) = wanted else {
        return Ok((host_mib / 2).clamp(MIN_MEMORY, MAX_DEFAULT_MEMORY));
    };
    if (MIN_MEMORY..=largest).contains(&wanted) {
        return Ok(wanted);
    }
    Err(Report::user(
        "memory-out-of-range",
        format!(
            "{wanted} MiB of memory were asked for, {MIN_MEMORY} to {largest} are possible on this host"
        ),
        format!(
            "sbx create --memory {}m …",
            wanted.clamp(MIN_MEMORY, largest)
        ),
    ))
}

fn check_env(env: &[(String, String)]) -> Result<(), Report> {
    let bad = |message: String| {
        Err(Report::user(
            "env-invalid",
            message,
            "sbx create --env NAME=value …",
        ))
    };
    for (name, value) in env {
        let plain = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !plain {
            let shown: String = name.chars().take(60).collect();
            return bad(format!("{shown:?} is not the name of a variable"));
        }
        if value.contains('\0') {
            return bad(format!("the value of {name} holds a NUL"));
        }
    }
    let size: usize = env
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2)
        .sum();
    if size > MAX_ENV {
        return bad(format!(
            "the variables have {size} bytes, {MAX_ENV} are possible"
        ));
    }
    Ok(())
}

fn check_programs(daemon: &Daemon) -> Result<(), Report> {
    programs::find(&daemon.programs)?;
    programs::supervisor(&daemon.programs)?;
    programs::image_worker(&daemon.programs).map(drop)
}

fn check_space(state: &Path) -> Result<(), Report> {
    let stat = statvfs(state).map_err(|error| io_report("look at", state, &error.into()))?;
    let free_mib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    if free_mib >= MIN_FREE_MIB {
        return Ok(());
    }
    Err(Report::environment(
        "disk-full",
        format!(
            "{free_mib} MiB are free for {}, a sandbox needs {MIN_FREE_MIB}",
            state.display()
        ),
        "free space on that disk, or point SBX_HOME at another one",
    ))
}

fn deny_rules(name: &SandboxName, denied: &[String]) -> Result<Vec<Rule>, Report> {
    if denied.is_empty() {
        return Ok(Vec::new());
    }
    let request = AddRule {
        allow: false,
        resources: denied.to_vec(),
        sandbox: Some(name.as_str().to_owned()),
        ..AddRule::default()
    };
    policy::parse_rule(&request).map(|rule| vec![rule])
}

/// Makes and starts the sandbox.
pub(crate) async fn create(
    daemon: &Arc<Daemon>,
    mut checked: Checked,
    events: &Events,
) -> Result<Arc<Sandbox>, Report> {
    for notice in std::mem::take(&mut checked.notices) {
        events.send(Event::Notice(notice)).await;
    }
    // Until the sandbox counts, and after that the snapshot that is wanted of it, nobody else knows that the image is needed.
    let _making = daemon.images.read().await;
    let image = image::ensure(daemon, checked.agent, events).await?;
    let mut record = record(&checked, &image)?;
    let beginning = warm::beginning(daemon, &mut record, &image, events).await?;
    let sandbox = Arc::new(Sandbox::new(&daemon.home, record));
    // Whoever asks for it by name waits until it runs.
    let gate = sandbox.gate.lock().await;
    let outcome = match make(daemon, &sandbox, &checked, &image, &beginning, events).await {
        Ok(()) => begin(daemon, &sandbox, &image, beginning, events).await,
        Err(error) => Err(error),
    };
    if let Err(mut error) = outcome {
        if error.code == launching::FAILED {
            error.hint = Some(keep_logs(daemon, &sandbox));
        }
        if let Err(second) = undo(daemon, &sandbox).await {
            tracing::error!(sandbox = sandbox.name, %second, "after a failed creation");
        }
        return Err(error);
    }
    drop(gate);
    tracing::info!(sandbox = sandbox.name, id = sandbox.id, "created");
    Ok(sandbox)
}

fn record(checked: &Checked, image: &Image) -> Result<Record, Report> {
    let primary = checked.workspaces.first();
    let workdir = primary.map_or_else(
        || image.workdir.clone(),
        |workspace| workspace.path.to_string_lossy().into_owned(),
    );
    Ok(Record {
        schema: Record::schema_of(&checked.guarding),
        id: random::hex(12)?,
        name: checked.name.clone(),
        agent: checked.agent,
        workspaces: checked.workspaces.clone(),
        env: checked.env.clone(),
        cpus: checked.cpus,
        memory_mib: checked.memory_mib,
        accel_wanted: checked.accel,
        // Until the start has chosen one.
        accel: checked.accel.unwrap_or(Accel::Tcg),
        kernel: None,
        image: image.key.clone(),
        image_build: image.manifest.build.clone(),
        agent_command: checked.agent.command_line(),
        workdir,
        machine_id: random::hex(32)?,
        // Until it has its name for itself.
        placeholders: BTreeMap::new(),
        custom: Vec::new(),
        issued: Vec::new(),
        handed_in: Vec::new(),
        created_at: clock::now(),
        last_used_at: None,
        remove_when_ended: false,
        guarding: checked.guarding.clone(),
        newer: serde_json::Map::new(),
    })
}

/// Makes the folder with its disks, and last of all `sandbox.json`: a folder without it is removed when the
/// next daemon starts.
async fn make(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
    checked: &Checked,
    image: &Image,
    beginning: &Beginning,
    events: &Events,
) -> Result<(), Report> {
    events.step("making the disks");
    files::private_dir(&sandbox.dir.join(launch::files::GATEWAY_DIR))?;
    match beginning {
        Beginning::Warm(snapshot) => copy_disks(sandbox, snapshot).await?,
        Beginning::Cold { .. } => make_disks(daemon, sandbox, image).await?,
    }
    // Rules and secrets of another sandbox of this name that could not be taken away when it was removed.
    daemon.forget_name(&sandbox.name)?;
    if !checked.rules.is_empty() {
        let mut store = daemon.store();
        let udp = settings::opens_udp(store.settings());
        store.change_policy(|policy| {
            let mut rules = checked.rules.iter();
            rules.try_for_each(|rule| policy::add(policy, udp, rule, None).map(drop))
        })?;
    }
    sandbox.change_record(|record| credentials::give(daemon, record, true))?;
    daemon.keep_record(sandbox)?;
    daemon.add_sandbox(sandbox.clone());
    Ok(())
}

/// The sandbox's disks, empty.
async fn make_disks(daemon: &Daemon, sandbox: &Sandbox, image: &Image) -> Result<(), Report> {
    let qemu_img = programs::find(&daemon.programs)?.qemu_img;
    let upper = sandbox.dir.join(launch::files::UPPER);
    let template = docker_template(daemon, sandbox, image).await?;
    let docker = sandbox.dir.join(launch::files::DOCKER);
    tokio::try_join!(
        create_overlay(&qemu_img, &image.upper, &upper, None),
        create_overlay(&qemu_img, &template, &docker, None),
    )?;
    Ok(())
}

/// The sandbox's disks, as the snapshot's machine left them. A machine that is booted from them finds them as
/// after a crash.
async fn copy_disks(sandbox: &Sandbox, snapshot: &Snapshot) -> Result<(), Report> {
    let pairs = [
        (
            snapshot.upper.clone(),
            sandbox.dir.join(launch::files::UPPER),
        ),
        (
            snapshot.docker.clone(),
            sandbox.dir.join(launch::files::DOCKER),
        ),
    ];
    image::blocking(move || {
        pairs.iter().try_for_each(|(from, to)| {
            copy_sparse(from, to).map_err(|error| io_report("copy", from, &error))
        })
    })
    .await?
}

/// Starts the sandbox for the first time: from its snapshot, or else by booting.
async fn begin(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
    image: &Image,
    beginning: Beginning,
    events: &Events,
) -> Result<(), Report> {
    match beginning {
        Beginning::Warm(snapshot) => {
            let started = launching::launch(daemon, sandbox, Some(&snapshot), events).await;
            let why = match started {
                Err(why) if why.code == launching::FAILED => why,
                // A workspace that is gone, or a disk that is full, is not the snapshot's fault.
                other => return other,
            };
            warm::give_up(snapshot, &why, events).await;
            // What the machine did to its disks before it failed is nobody's work yet.
            for name in [launch::files::UPPER, launch::files::DOCKER] {
                let path = sandbox.dir.join(name);
                std::fs::remove_file(&path).map_err(|e| io_report("remove", &path, &e))?;
            }
            make_disks(daemon, sandbox, image).await?;
            launching::launch(daemon, sandbox, None, events).await
        }
        Beginning::Cold { reason, next } => {
            tracing::info!(sandbox = sandbox.name, reason, "booted");
            events.step(&format!("booting the machine: {reason}"));
            launching::launch(daemon, sandbox, None, events).await?;
            if let Some(next) = next {
                warm::make_later(daemon, *next);
            }
            Ok(())
        }
    }
}

/// The image's own empty Docker disk, or, for another size, one of the sandbox's own.
async fn docker_template(
    daemon: &Daemon,
    sandbox: &Sandbox,
    image: &Image,
) -> Result<std::path::PathBuf, Report> {
    let wanted = settings::docker_volume(daemon.store().settings());
    let usual = std::fs::metadata(&image.docker)
        .map_err(|error| io_report("look at", &image.docker, &error))?
        .len();
    let Some(bytes) = wanted.filter(|bytes| *bytes != usual) else {
        return Ok(image.docker.clone());
    };
    let path = sandbox.dir.join(launch::files::DOCKER_BASE);
    let made = path.clone();
    image::blocking(move || sbx_image::create_ext4(&made, "sbx-docker", bytes))
        .await?
        .map_err(|error| error.report())?;
    Ok(path)
}

/// Keeps the logs of a machine that never came up, in place of those of the one before; returns where.
fn keep_logs(daemon: &Daemon, sandbox: &Sandbox) -> String {
    let folder = daemon.home.state.join("failed-start");
    // What cannot be kept is missed by people only.
    let _ = files::private_dir(&folder);
    for name in [launch::files::SUPERVISOR_LOG, launch::files::CONSOLE] {
        let _ = std::fs::rename(sandbox.dir.join(name), folder.join(name));
    }
    format!("read the logs in {}", folder.display())
}

async fn undo(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) -> Result<(), Report> {
    lifecycle::end(sandbox, std::time::Duration::ZERO).await?;
    if !sandbox.dir.exists() {
        return Ok(());
    }
    lifecycle::discard(daemon, sandbox).await?;
    reconcile::remove(&sandbox.runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_out_of_range_are_refused_and_defaults_lie_within() {
        assert!(check_cpus(65).is_err());
        assert!((1..=64).contains(&check_cpus(0).unwrap()));
        assert!(check_memory(Some(511)).is_err());
        assert!(check_memory(Some(u32::MAX)).is_err());
        assert!(check_memory(None).unwrap() >= 512);
        assert_eq!(check_memory(Some(512)).unwrap(), 512);
    }

    #[test]
    fn variables_that_are_none_are_refused() {
        let env = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        for (name, value) in [
            ("", "x"),
            ("1A", "x"),
            ("A B", "x"),
            ("A=B", "x"),
            ("A", "\0"),
        ] {
            assert!(check_env(&env(name, value)).is_err(), "{name:?}");
        }
        check_env(&env("_A1", "any text\n")).unwrap();
    }
}
