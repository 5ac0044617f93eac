//! `bench start`: from nothing to a first program, to a Docker Engine that answers, and a program in a
//! sandbox that runs. Warm: there is a snapshot of such a machine. Cold: it boots.

use crate::attach::attaches;
use crate::debian_vm::DebianVm;
use crate::figure::Figure;
use crate::podman::Podman;
use crate::srt::Srt;
use crate::tool::cache;
use sbx_e2e::Installation;
use std::time::{Duration, Instant};

/// Boots of each side; they take turns.
const BOOTS: usize = 3;
/// Warm starts; they take turns with podman and srt.
const WARM: usize = 9;
/// Programs in a running sandbox.
const EXECS: usize = 20;
/// For a snapshot to be made.
const SNAPSHOT_LIMIT: Duration = Duration::from_mins(5);
/// What the same code should reach with hardware virtualisation, in seconds.
const KVM_TARGETS: [(&str, f64); 2] = [("warm_create_exec_s", 0.25), ("cold_create_exec_s", 1.0)];
/// The setting that decides.
const SETTING: &str = "sandbox.warmStart";

pub(crate) fn run() -> Result<Vec<Figure>, String> {
    let cache = cache("")?;
    let root = tempfile::Builder::new()
        .prefix("sbx-bench-")
        .tempdir()
        .map_err(|e| e.to_string())?;
    let installation = Installation::new(root.path(), &cache, None)?;
    installation.sbx(["policy", "init", "deny-all"]).success()?;
    // Nothing is built in the background while something is timed.
    installation
        .sbx(["settings", "set", "machine.kernel", "stock"])
        .success()?;
    // Images, the probe's verdict and the snapshot are there before anything is timed, as the peers' images are.
    create_exec(&installation, &["true"])?;
    await_snapshot(&installation)?;
    let peers = Peers {
        vm: DebianVm::prepare(&cache.join("sbx-bench-debian-vm"))?,
        srt: Srt::prepare(&cache.join("sbx-bench-srt"))?,
    };
    let podman = Podman::prepare(&peers.vm.rootfs_tar())?;
    let result = measure(&installation, &peers, &podman).and_then(|mut figures| {
        figures.extend(beside_targets(&installation, &figures)?);
        Ok(figures)
    });
    installation.tear_down();
    result
}

/// The figures that have a target with hardware virtualisation, beside it; without, they are said to be unmeasured.
fn beside_targets(installation: &Installation, figures: &[Figure]) -> Result<Vec<Figure>, String> {
    let report = installation.sbx(["diagnose", "--json"]).json()?;
    let checks = report["checks"].as_array().map(Vec::as_slice);
    let verdict = checks
        .unwrap_or_default()
        .iter()
        .find(|check| check["name"] == "accelerator")
        .and_then(|check| check["message"].as_str())
        .ok_or("diagnose does not name the accelerator")?;
    if verdict.starts_with("KVM") {
        let with_target = KVM_TARGETS.iter().filter_map(|(metric, target)| {
            Some(Figure::find(figures, metric)?.beside_target(*target))
        });
        return Ok(with_target.collect());
    }
    for (metric, target) in KVM_TARGETS {
        eprintln!("{metric}_kvm: unmeasured, target {target} s ({verdict})");
    }
    Ok(Vec::new())
}

struct Peers {
    vm: DebianVm,
    srt: Srt,
}

fn measure(
    installation: &Installation,
    peers: &Peers,
    podman: &Podman,
) -> Result<Vec<Figure>, String> {
    let mut figures = warm(installation, peers, podman)?;
    let (mut exec, mut docker, mut vm_exec, mut vm_docker, mut warm_docker) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..BOOTS {
        set_warm(installation, false)?;
        exec.push(create_exec(installation, &["true"])?);
        docker.push(create_exec(installation, &["docker", "version"])?);
        set_warm(installation, true)?;
        warm_docker.push(create_exec(installation, &["docker", "version"])?);
        let (ssh, engine) = peers.vm.boot()?;
        vm_exec.push(ssh);
        vm_docker.push(engine);
    }
    let vm = "debian-vm";
    figures.extend([
        Figure::new("warm_create_docker_s", "s", &warm_docker, &vm_docker, vm),
        Figure::new("cold_create_exec_s", "s", &exec, &vm_exec, vm),
        Figure::new("cold_create_docker_s", "s", &docker, &vm_docker, vm),
    ]);
    let seconds = second_execs(installation)?;
    let peer: Vec<f64> = podman.exec(EXECS)?.iter().map(|s| s * 1000.0).collect();
    figures.push(Figure::new(
        "second_exec_ms",
        "ms",
        &seconds,
        &peer,
        "podman",
    ));
    figures.push(Figure::alone("attach_ms", "ms", &attaches(installation)?));
    Ok(figures)
}

fn warm(
    installation: &Installation,
    peers: &Peers,
    podman: &Podman,
) -> Result<Vec<Figure>, String> {
    let (mut ours, mut runs, mut srts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..WARM {
        ours.push(create_exec(installation, &["true"])?);
        runs.push(podman.run()?);
        srts.push(peers.srt.run()?);
    }
    let metric = "warm_create_exec_s";
    Ok(vec![
        Figure::new(metric, "s", &ours, &runs, "podman"),
        Figure::new(metric, "s", &ours, &srts, "srt"),
    ])
}

fn set_warm(installation: &Installation, warm: bool) -> Result<(), String> {
    let value = if warm { "true" } else { "false" };
    let set = installation.sbx(["settings", "set", SETTING, value]);
    set.success().map(drop)
}

/// Waits until the snapshot that the last creation asked for is there.
pub(crate) fn await_snapshot(installation: &Installation) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let status = installation.sbx(["daemon", "status", "--json"]).json()?;
        let snapshots = &status["snapshots"];
        if let Some([why, ..]) = snapshots["failed"].as_array().map(Vec::as_slice) {
            return Err(format!("no snapshot: {why}"));
        }
        if snapshots["pending"].as_array().is_none_or(Vec::is_empty) {
            return Ok(());
        }
        if begun.elapsed() > SNAPSHOT_LIMIT {
            return Err("no snapshot was made in time".to_owned());
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

/// Seconds from no sandbox until a program in a new one has ended.
fn create_exec(installation: &Installation, program: &[&str]) -> Result<f64, String> {
    let create = installation.sbx([
        "create", "shell", "--name", "bench", "--memory", "2g", "--cpus", "2",
    ]);
    let mut took = create.took;
    create.success()?;
    let mut arguments = vec!["exec", "bench"];
    arguments.extend(program);
    let exec = installation.sbx(arguments);
    took += exec.took;
    exec.success()?;
    installation.sbx(["rm", "--force", "bench"]).success()?;
    Ok(took.as_secs_f64())
}

/// Milliseconds for a program in a sandbox that runs.
fn second_execs(installation: &Installation) -> Result<Vec<f64>, String> {
    installation
        .sbx([
            "create", "shell", "--name", "bench", "--memory", "2g", "--cpus", "2",
        ])
        .success()?;
    installation
        .sbx(["exec", "bench", "docker", "version"])
        .success()?;
    let mut measured = Vec::new();
    for _ in 0..EXECS {
        let exec = installation.sbx(["exec", "bench", "true"]);
        measured.push(exec.took.as_secs_f64() * 1000.0);
        exec.success()?;
    }
    installation.sbx(["rm", "--force", "bench"]).success()?;
    Ok(measured)
}
