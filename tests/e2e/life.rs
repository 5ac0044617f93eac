//! Kills: each process of a sandbox, and what the others and the user see of it.

use crate::setting::{Setting, alive, kill};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Each process that hears the guest is in its jail: new privileges, system calls, and what is left of root's power.
fn assert_jailed(role: &str, pid: u32) {
    /// `CAP_DAC_OVERRIDE` and `CAP_FOWNER` (`include/uapi/linux/capability.h`).
    const MOST: u64 = 1 << 1 | 1 << 3;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    assert_eq!(field("NoNewPrivs:"), "1", "{role}: {status}");
    assert_eq!(field("Seccomp:"), "2", "{role}: {status}");
    let power = u64::from_str_radix(&field("CapEff:"), 16).unwrap();
    assert_eq!(power & !MOST, 0, "{role}: {status}");
}

#[test]
fn the_daemon_can_be_killed_and_the_gateway_comes_back_with_the_same_rules() {
    let setting = Setting::ordinary("deny-all");
    setting.shell("kept");
    let boot = setting.inside("kept", "cat /proc/sys/kernel/random/boot_id");
    let roles = ["supervisor", "machine", "gateway", "share0"];
    let before: Vec<u32> = roles
        .iter()
        .map(|role| setting.process("kept", role))
        .collect();

    for (role, pid) in roles.iter().zip(&before) {
        assert_jailed(role, *pid);
    }

    // A running exec goes on while the daemon is killed, and says so afterwards.
    let mut exec =
        setting
            .installation
            .command(["exec", "-i", "kept", "bash", "-c", "read x; echo got $x"]);
    let mut exec = exec
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    setting.wait("the exec is a session", 30, || {
        setting.inspect("kept")["sessions"] == 1
    });
    let status = setting
        .installation
        .sbx(["daemon", "status", "--json"])
        .json()
        .unwrap();
    kill(u32::try_from(status["pid"].as_u64().unwrap()).unwrap());
    std::io::Write::write_all(&mut exec.stdin.take().unwrap(), b"through\n").unwrap();
    let output = exec.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "got through\n");

    // The next daemon adopts everything.
    let after: Vec<u32> = roles
        .iter()
        .map(|role| setting.process("kept", role))
        .collect();
    assert_eq!(before, after);
    assert_eq!(
        setting.inside("kept", "cat /proc/sys/kernel/random/boot_id"),
        boot
    );

    // The gateway comes back within 2 s, the guest does not notice, the rules are the same.
    let blocked = "curl -s -o /dev/null -w '%{http_code}' http://denied.example/";
    assert_eq!(setting.inside("kept", blocked), "403");
    let gateway = setting.process("kept", "gateway");
    let start = Instant::now();
    kill(gateway);
    let again = format!(
        "for i in $(seq 200); do c=$({blocked}); [ \"$c\" = 403 ] && break; sleep 0.05; done; echo $c"
    );
    assert_eq!(setting.inside("kept", &again).trim(), "403");
    println!(
        "denied request answered {} ms after the gateway's death",
        start.elapsed().as_millis()
    );
    assert_ne!(setting.process("kept", "gateway"), gateway);
    assert_eq!(
        setting.inside("kept", "cat /proc/sys/kernel/random/boot_id"),
        boot
    );

    // What the agent exports for good is there in every start of Bash, and in nothing else.
    let persistent = "/etc/sandbox-persistent.sh";
    setting.inside(
        "kept",
        &format!("test -O {persistent} && echo 'export KEPT_FOR_GOOD=yes' >> {persistent}"),
    );
    let exported = || {
        let starts = ["-c", "-lc", "-ic"].map(|flag| {
            let words = ["exec", "kept", "bash", flag, "echo $KEPT_FOR_GOOD"];
            setting.installation.sbx(words).stdout
        });
        assert_eq!(starts, ["yes\n"; 3]);
        let without = ["exec", "kept", "printenv", "KEPT_FOR_GOOD"];
        assert!(!setting.installation.sbx(without).ok());
    };
    exported();

    // A clean stop and a start keep the files; the disks are clean.
    setting.inside("kept", "echo kept > ~/note && sync");
    setting
        .installation
        .sbx(["stop", "kept"])
        .success()
        .unwrap();
    assert!(after.iter().all(|pid| !alive(*pid)));
    assert_eq!(setting.inside("kept", "cat ~/note"), "kept\n");
    exported();
}

#[test]
fn share_machine_and_supervisor_can_be_killed_and_nothing_is_lost_or_orphaned() {
    let setting = Setting::ordinary("deny-all");
    let workspace = setting.shell("hit");

    // Share: shown as unresponsive with the reason; the next command restarts the machine.
    setting.inside(
        "hit",
        "echo synced > synced && sync synced && echo home > ~/home && sync",
    );
    kill(setting.process("hit", "share0"));
    setting.wait("the sandbox is unresponsive", 20, || {
        setting.inspect("hit")["state"] == "unresponsive"
    });
    let reason = setting.inspect("hit")["state_reason"].to_string();
    assert!(reason.contains("share"), "{reason}");
    assert_eq!(setting.inside("hit", "cat synced ~/home"), "synced\nhome\n");
    assert_eq!(
        std::fs::read_to_string(workspace.join("synced")).unwrap(),
        "synced\n"
    );

    // Machine: shown stopped, disks clean at the next start.
    setting.inside("hit", "echo again > ~/again && sync");
    let others: Vec<u32> = ["supervisor", "gateway", "share0"]
        .iter()
        .map(|r| setting.process("hit", r))
        .collect();
    kill(setting.process("hit", "machine"));
    setting.wait("the sandbox is stopped", 20, || {
        setting.inspect("hit")["state"] == "stopped"
    });
    setting.wait("its helpers have ended", 10, || {
        others.iter().all(|pid| !alive(*pid))
    });
    assert_eq!(setting.inside("hit", "cat ~/again"), "again\n");
    let errors = setting.inside(
        "hit",
        "sudo dmesg | grep -ciE 'ext4.*(error|corrupt)' || true",
    );
    assert_eq!(errors.trim(), "0");

    // Supervisor: the whole sandbox ends.
    let all: Vec<u32> = ["supervisor", "machine", "gateway", "share0"]
        .iter()
        .map(|role| setting.process("hit", role))
        .collect();
    kill(all[0]);
    setting.wait("everything has ended", 10, || {
        all.iter().all(|pid| !alive(*pid))
    });
    setting.wait("the sandbox is stopped", 20, || {
        setting.inspect("hit")["state"] == "stopped"
    });

    // Remove: no process, socket or file remains.
    let inspect = setting.inspect("hit");
    let (id, dir) = (
        inspect["id"].as_str().unwrap(),
        inspect["directory"].as_str().unwrap(),
    );
    setting.inside("hit", "true");
    let all: Vec<u32> = ["supervisor", "machine", "gateway", "share0"]
        .iter()
        .map(|role| setting.process("hit", role))
        .collect();
    let socket = setting.inspect("hit")["socket_path"]
        .as_str()
        .unwrap()
        .to_owned();
    setting
        .installation
        .sbx(["rm", "hit", "--force"])
        .success()
        .unwrap();
    assert!(all.iter().all(|pid| !alive(*pid)), "a process outlived rm");
    assert!(!Path::new(dir).exists(), "{dir} outlived rm");
    assert!(
        !Path::new(&socket).parent().unwrap().exists(),
        "sockets outlived rm"
    );
    let left = std::process::Command::new("pgrep")
        .args(["-f", id])
        .output()
        .unwrap();
    assert!(
        left.stdout.is_empty(),
        "processes: {}",
        String::from_utf8_lossy(&left.stdout)
    );
    assert!(
        workspace.join("synced").exists(),
        "rm touched the workspace"
    );
}

#[test]
fn attack_70_the_clock_is_right_after_a_pause() {
    let setting = Setting::ordinary("deny-all");
    setting.shell("clock");
    let machine = setting.process("clock", "machine");
    let stop = |signal: &str| {
        let done = std::process::Command::new("kill")
            .args([signal, &machine.to_string()])
            .status();
        assert!(done.unwrap().success());
    };
    let pause = Duration::from_secs(8);
    let start = Instant::now();
    stop("-STOP");
    setting.wait("the pause has passed", 30, || start.elapsed() >= pause);
    stop("-CONT");
    let resumed = Instant::now();
    let offset = || {
        let inside = setting
            .inside("clock", "date +%s%N")
            .trim()
            .parse::<u128>()
            .unwrap();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        now.as_nanos().abs_diff(inside)
    };
    setting.wait("the guest's clock is right again", 20, || {
        offset() < 2_000_000_000
    });
    println!("right within {} ms", resumed.elapsed().as_millis());
}

#[test]
fn attack_72_after_a_power_cut_and_a_removal_while_running_nothing_is_lost_and_nothing_left() {
    let setting = Setting::ordinary("deny-all");
    let workspace = setting.shell("cut");
    setting.inside(
        "cut",
        "echo synced > ~/note && sync && echo here > there && sync there",
    );
    let roles = ["supervisor", "spawner", "machine", "gateway", "share0"];
    let pids = || -> Vec<u32> {
        let all = roles.iter().map(|role| setting.process("cut", role));
        all.collect()
    };
    let cut = pids();
    let socket = setting.inspect("cut")["socket_path"].clone();
    let runtime = Path::new(socket.as_str().unwrap()).parent().unwrap();
    let status = setting.installation.sbx(["daemon", "status", "--json"]);
    let daemon = status.json().unwrap()["pid"].as_u64().unwrap();
    let daemon = u32::try_from(daemon).unwrap();
    // Everything at once, and a runtime folder that does not survive.
    for pid in cut.iter().chain([&daemon]) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
        // The helpers may have ended with the first.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    setting.wait("everything has ended", 10, || {
        cut.iter().chain([&daemon]).all(|pid| !alive(*pid))
    });
    std::fs::remove_dir_all(runtime.parent().unwrap()).unwrap();

    assert_eq!(setting.inspect("cut")["state"], "stopped");
    assert_eq!(setting.inside("cut", "cat ~/note there"), "synced\nhere\n");
    let errors = setting.inside(
        "cut",
        "sudo dmesg | grep -ciE 'ext4.*(error|corrupt)' || true",
    );
    assert_eq!(errors.trim(), "0");
    let report = setting.installation.sbx(["diagnose", "--json"]);
    let report = report.json().unwrap();
    let checks = report["checks"].as_array().unwrap().iter();
    let failed: Vec<_> = checks.filter(|check| check["status"] == "fail").collect();
    assert!(failed.is_empty(), "{failed:#?}");

    // Removed while it runs.
    let (again, dir) = (pids(), setting.inspect("cut")["directory"].clone());
    let removed = setting.installation.sbx(["rm", "--force", "cut"]);
    removed.success().unwrap();
    assert!(again.iter().all(|pid| !alive(*pid)));
    assert!(!Path::new(dir.as_str().unwrap()).exists() && !runtime.exists());
    assert_eq!(
        std::fs::read_to_string(workspace.join("there")).unwrap(),
        "here\n"
    );
}
