//! What the machine around us offers.

use super::Finding;
use super::installation::failed;
use crate::clock;
use rustix::time::{ClockId, clock_gettime};
use sbx_agents::Agent;
use sbx_image::{Request, Store};
use sbx_machine::{probe, qemu};
use sbx_wire::diagnosis::{Check, Group, Outcome};
use sbx_wire::home::Home;
use sbx_wire::launch::Accel;
use sbx_wire::time::rfc3339;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Less available memory than this starts no sandbox worth having, MiB.
const LEAST_MEMORY: u64 = 1024;
/// Seconds since the Unix epoch before which no clock can be right: 2026-01-01.
const EARLIEST: u64 = 1_767_225_600;
/// A file may be this much newer than the clock says.
const SKEW: Duration = Duration::from_mins(2);

pub(super) async fn look(home: &Home) -> Vec<Finding> {
    vec![
        accelerator(home).await.into(),
        namespaces(home).into(),
        landlock().into(),
        seccomp().into(),
        memory().into(),
        wall_clock(home).into(),
    ]
}

fn check(name: &str, status: Outcome, message: impl Into<String>) -> Check {
    Check::new(Group::Platform, name, status, message)
}

/// The verdict that the next start would get. It is remembered; a first one boots a tiny guest.
async fn accelerator(home: &Home) -> Check {
    let name = "accelerator";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Ok(program) = qemu::find("qemu-system-x86_64", &path) else {
        return check(name, Outcome::Skip, "there is no QEMU to ask");
    };
    let image = Agent::all()
        .find_map(|agent| Store::new(&home.cache).open(&Request::new(home.cache.clone(), agent)));
    let Some(image) = image else {
        let device = if Path::new("/dev/kvm").exists() {
            "there is a /dev/kvm"
        } else {
            "there is no /dev/kvm"
        };
        let message = format!("{device}; probed once there is an image");
        return check(name, Outcome::Skip, message);
    };
    let request = probe::Request {
        qemu: &program,
        kernel: &image.kernel,
        kernel_id: &image.kernel_version,
        cache: &home.cache,
        wanted: None,
    };
    match probe::choose(&request).await {
        Ok(verdict) if verdict.accel == Accel::Kvm => {
            check(name, Outcome::Pass, format!("KVM: {}", verdict.reason))
        }
        Ok(verdict) => check(
            name,
            Outcome::Warn,
            format!("emulation: {}", verdict.reason),
        )
        .detail("sandboxes are as isolated as with hardware virtualisation, and slower")
        .hint("make /dev/kvm usable for you (on Debian, Ubuntu: the group kvm)"),
        Err(error) => failed(Group::Platform, name, error.into()),
    }
}

/// Images are built in a user namespace with subordinate ids.
fn namespaces(home: &Home) -> Check {
    let name = "user-namespaces";
    match sbx_image::check_namespaces() {
        Ok(()) => check(
            name,
            Outcome::Pass,
            "user namespaces and subordinate ids work",
        ),
        Err(error) => {
            let report = error.report();
            let built = Agent::all().any(|agent| {
                let request = Request::new(home.cache.clone(), agent);
                Store::new(&home.cache).open(&request).is_some()
            });
            let mut found = failed(Group::Platform, name, report);
            if built {
                // Only building needs them.
                found.status = Outcome::Warn;
            }
            found
        }
    }
}

fn landlock() -> Check {
    match sbx_jail::landlock_abi() {
        Some(abi) => check("landlock", Outcome::Pass, format!("Landlock ABI {abi}")),
        None => check(
            "landlock",
            Outcome::Warn,
            "the kernel does not offer Landlock: helpers are confined by seccomp alone",
        )
        .hint("boot a kernel with Landlock (CONFIG_SECURITY_LANDLOCK, lsm=landlock,…)"),
    }
}

fn seccomp() -> Check {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if actions
        .split_whitespace()
        .any(|action| action == "kill_process")
    {
        return check("seccomp", Outcome::Pass, "seccomp filters work");
    }
    check(
        "seccomp",
        Outcome::Fail,
        "the kernel does not offer seccomp filters",
    )
    .hint("boot a kernel with CONFIG_SECCOMP_FILTER")
}

fn memory() -> Check {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text.lines().find_map(|line| {
        let rest = line.strip_prefix("MemAvailable:")?;
        rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    match available.map(|kib| kib >> 10) {
        None => check(
            "memory",
            Outcome::Skip,
            "the kernel does not say what is available",
        ),
        Some(mib) if mib < LEAST_MEMORY => {
            let message = format!("{mib} MiB are available, a sandbox wants {LEAST_MEMORY}");
            check("memory", Outcome::Warn, message).hint("stop sandboxes or other programs")
        }
        Some(mib) => check("memory", Outcome::Pass, format!("{mib} MiB are available")),
    }
}

/// A clock that is wrong breaks TLS; one that went back makes ages wrong.
fn wall_clock(home: &Home) -> Check {
    let now = clock::unix_s();
    let shown = rfc3339(now);
    if now < EARLIEST {
        return check("clock", Outcome::Fail, format!("it is not {shown}"))
            .hint("set the clock, e.g. with timedatectl set-ntp true");
    }
    let newest = ["sbx.db", "policy.json", "daemon.log"]
        .iter()
        .filter_map(|name| home.state.join(name).metadata().ok()?.modified().ok())
        .max();
    let limit = SystemTime::now() + SKEW;
    let up = Duration::from_secs(
        u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or_default(),
    );
    if newest.is_some_and(|newest| newest > limit) {
        return check(
            "clock",
            Outcome::Warn,
            format!("it is {shown}, and files of the state folder are of later: it went back"),
        )
        .hint("make sure that the clock is right; nothing in sbx depends on the older times");
    }
    check(
        "clock",
        Outcome::Pass,
        format!("{shown}, up for {} s", up.as_secs()),
    )
}
