//! `bench start`: from nothing to a first program, to a Docker Engine that answers, and a program in a
//! sandbox that runs.

use crate::debian_vm::DebianVm;
use crate::figure::Figure;
use crate::podman::Podman;
use crate::tool::cache;
use sbx_e2e::Installation;

/// Boots of each side; they take turns.
const BOOTS: usize = 3;
/// Programs in a running sandbox.
const EXECS: usize = 20;

pub(crate) fn run() -> Result<Vec<Figure>, String> {
    let cache = cache("")?;
    let root = tempfile::Builder::new()
        .prefix("sbx-bench-")
        .tempdir()
        .map_err(|e| e.to_string())?;
    let installation = Installation::new(root.path(), &cache, None)?;
    installation.sbx(["policy", "init", "deny-all"]).success()?;
    // The image and the probe's verdict are there before anything is timed, as the peers' images are.
    cold(&installation, &["true"])?;
    let vm = DebianVm::prepare(&cache.join("sbx-bench-debian-vm"))?;
    let podman = Podman::prepare(&vm.rootfs_tar())?;
    let result = measure(&installation, &vm, &podman);
    installation.tear_down();
    result
}

fn measure(
    installation: &Installation,
    vm: &DebianVm,
    podman: &Podman,
) -> Result<Vec<Figure>, String> {
    let (mut exec, mut docker, mut vm_exec, mut vm_docker, mut runs) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..BOOTS {
        exec.push(cold(installation, &["true"])?);
        docker.push(cold(installation, &["docker", "version"])?);
        let (ssh, engine) = vm.boot()?;
        vm_exec.push(ssh);
        vm_docker.push(engine);
        runs.push(podman.run()?);
    }
    let seconds = second_execs(installation)?;
    let peer: Vec<f64> = podman.exec(EXECS)?.iter().map(|s| s * 1000.0).collect();
    Ok(vec![
        Figure::new("cold_create_exec_s", "s", &exec, &vm_exec, "debian-vm"),
        Figure::new("cold_create_exec_s", "s", &exec, &runs, "podman"),
        Figure::new(
            "cold_create_docker_s",
            "s",
            &docker,
            &vm_docker,
            "debian-vm",
        ),
        Figure::new("second_exec_ms", "ms", &seconds, &peer, "podman"),
    ])
}

/// Seconds from no sandbox until a program in a new one has ended.
fn cold(installation: &Installation, program: &[&str]) -> Result<f64, String> {
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
        .sbx(["create", "shell", "--name", "bench", "--memory", "2g"])
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
