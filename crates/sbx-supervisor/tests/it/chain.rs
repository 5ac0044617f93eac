//! Who dies with whom.

use crate::lab::{Lab, alive, eventually, kill, within};
use sbx_wire::launch::{Origin, SnapshotFiles, sockets};
use sbx_wire::session::{Phase, Reply, Request};
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What we set, what a shell sets, and where the host keeps its certificates.
const ALLOWED: [&str; 9] = [
    "",
    "PATH",
    "LANG",
    "PWD",
    "OLDPWD",
    "_",
    "SHLVL",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
const SLEEPER: &str = "exec sleep 600";

/// A started lab with its helpers' process ids: spawner, machine, gateway.
fn running() -> (Lab, [u32; 3]) {
    let lab = Lab::new(SLEEPER).start();
    let status = lab.until("helpers", |status| {
        status.processes.machine.is_some() && status.processes.gateway.is_some()
    });
    let processes = status.processes;
    let pids = [
        processes.spawner,
        processes.machine.unwrap(),
        processes.gateway.unwrap(),
    ];
    assert!(pids.iter().all(|pid| alive(*pid)));
    (lab, pids)
}

#[test]
fn killed_supervisor_takes_every_process_with_it() {
    let (lab, pids) = running();
    kill(lab.pid());
    within(Duration::from_secs(2), "orphans end", || {
        !pids.iter().any(|pid| alive(*pid))
    });
}

#[test]
fn killed_spawner_ends_the_sandbox() {
    let (mut lab, pids) = running();
    kill(pids[0]);
    let (orderly, why) = lab.ended();
    assert!(!orderly);
    assert!(why.contains("spawner"), "{why}");
    assert!(!pids.iter().any(|pid| alive(*pid)));
}

#[test]
fn killed_gateway_is_back_within_two_seconds_and_the_machine_does_not_notice() {
    let (lab, [_, machine, mut gateway]) = running();
    for _ in 0..2 {
        kill(gateway);
        let mut next = None;
        within(Duration::from_secs(2), "a new gateway", || {
            next = lab.status().processes.gateway.filter(|pid| *pid != gateway);
            next.is_some()
        });
        gateway = next.unwrap();
        assert_eq!(lab.status().processes.machine, Some(machine));
    }
}

#[test]
fn a_log_on_a_full_disk_costs_the_log_and_not_the_sandbox() {
    let mut lab = Lab::new(SLEEPER).start_without_room();
    let gateway = |lab: &Lab| lab.status().processes.gateway;
    eventually("a gateway", || gateway(&lab).is_some());
    let (machine, first) = (lab.until_started().processes.machine, gateway(&lab));
    // Its end and the start of the next are lines for the log.
    kill(first.unwrap());
    eventually("a new gateway", || {
        gateway(&lab).is_some_and(|pid| Some(pid) != first)
    });
    assert_eq!(lab.status().processes.machine, machine);
    assert!(
        lab.ask(&Request::Stop { grace_ms: 0 })
            .next::<Reply>()
            .is_some()
    );
    assert_eq!(lab.ended(), (true, "stopped".to_owned()));
}

#[test]
fn ended_machine_is_explained_by_its_last_words_and_leaves_nothing() {
    let mut lab = Lab::new("printf 'Kernel panic: \\033[31mno disk\\n'; exit 3").start();
    let mut watch = lab.ask(&Request::Watch);
    let (orderly, why) = lab.ended();
    assert!(!orderly);
    assert!(
        why.contains("Kernel panic: no disk") && why.contains("exit status: 3"),
        "{why}"
    );
    assert_eq!(
        fs::read_dir(&lab.launch.runtime).unwrap().count(),
        0,
        "sockets were left"
    );
    let mut last = None;
    while let Some(reply) = watch.next::<Reply>() {
        last = Some(reply);
    }
    assert!(
        matches!(&last, Some(Reply::Refused(text)) if text.contains("no disk")),
        "{last:?}"
    );
}

#[test]
fn stopped_sandbox_leaves_no_process_and_no_socket() {
    let (mut lab, pids) = running();
    let mut stop = lab.ask(&Request::Stop { grace_ms: 100 });
    assert!(matches!(stop.next(), Some(Reply::Stopped)));
    assert!(
        !pids.iter().any(|pid| alive(*pid)),
        "Stopped was said too early"
    );
    let (orderly, why) = lab.ended();
    assert!(orderly, "{why}");
    assert_eq!(why, "stopped");
    assert_eq!(fs::read_dir(&lab.launch.runtime).unwrap().count(), 0);
}

#[test]
fn second_supervisor_of_a_sandbox_is_refused_and_the_first_runs_on() {
    let (lab, pids) = running();
    let output = lab.spawn().wait_with_output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("running already"), "{text}");
    assert!(pids.iter().all(|pid| alive(*pid)));
    assert!(matches!(lab.status().phase, Phase::Starting(_)));
}

#[test]
fn share_that_never_listens_is_not_handed_to_the_machine() {
    let lab = Lab::new(SLEEPER).with_share().start();
    let status = lab.until("the share", |status| status.processes.shares[0].is_some());
    assert_eq!(status.phase, Phase::Starting("shares".into()));
    assert_eq!(status.processes.machine, None);
}

#[test]
fn a_share_that_listens_is_handed_to_the_machine() {
    let lab = Lab::new(SLEEPER).with_share().start();
    lab.until("the share", |status| status.processes.shares[0].is_some());
    let path = lab.socket(&sockets::share(0));
    let _share = UnixListener::bind(&path).unwrap();
    lab.until("the machine", |status| status.processes.machine.is_some());
}

#[test]
fn dead_share_fails_the_start_with_its_path() {
    let mut lab = Lab::new(SLEEPER).with_share().start();
    let status = lab.until("the share", |status| status.processes.shares[0].is_some());
    kill(status.processes.shares[0].unwrap());
    let (_, why) = lab.ended();
    assert!(
        why.contains("share for /") && why.contains("SIGKILL"),
        "{why}"
    );
}

#[test]
fn unusable_launch_document_is_refused_with_the_reason() {
    let mut lab = Lab::new(SLEEPER);
    lab.launch.machine.memory_mib = 16;
    let output = lab.spawn().wait_with_output().unwrap();
    assert!(!output.status.success());
    assert!(lab.last_exit().contains("16 MiB"), "{}", lab.last_exit());
    assert!(!lab.socket(sockets::SUPERVISOR).exists());
}

/// What a helper has open besides its three standard streams and the lock that says that it lives.
fn unexpected_descriptors(pid: u32) -> Vec<PathBuf> {
    const KNOWN: [&str; 4] = ["/dev/null", "pipe:", "/d/egress/gateway.log", "/d/alive"];
    let known = |target: &Path| {
        let text = target.to_string_lossy();
        KNOWN
            .iter()
            .any(|known| text.starts_with(known) || text.ends_with(known))
    };
    fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| !known(target))
        .collect()
}

#[test]
fn helpers_inherit_only_what_they_need() {
    let (lab, [_, machine, gateway]) = running();
    for pid in [machine, gateway] {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let names: Vec<_> = environment
            .split(|byte| *byte == 0)
            .filter_map(|entry| entry.split(|byte| *byte == b'=').next())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .filter(|name| !ALLOWED.contains(&name.as_str()))
            .collect();
        assert!(names.is_empty(), "{names:?}");
        // What a program opens while it starts, its libraries or its script, it closes; what it inherited stays.
        eventually("nothing is open but its own", || {
            unexpected_descriptors(pid).is_empty()
        });
    }
    eventually("still there", || lab.connect().is_some());
}

#[test]
fn a_machine_that_is_to_be_a_snapshot_ends_with_whoever_wanted_it() {
    let mut lab = Lab::new(SLEEPER);
    let file = |name: &str| lab.launch.dir.join(name);
    lab.launch.origin = Origin::Save(SnapshotFiles {
        memory: file("memory"),
        state: file("state"),
    });
    let mut supervisor = lab.spawn();
    let status = lab.until_started();
    let pids = [status.processes.spawner, status.processes.machine.unwrap()];
    assert!(pids.iter().all(|pid| alive(*pid)));
    // What the kernel does when the daemon ends, however it ends.
    drop(supervisor.stdin.take());
    eventually("the supervisor's end", || {
        supervisor.try_wait().unwrap().is_some()
    });
    assert!(!pids.iter().any(|pid| alive(*pid)));
    assert_eq!(fs::read_dir(&lab.launch.runtime).unwrap().count(), 0);
}
