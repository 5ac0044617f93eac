//! Attack case 71: a guest that takes all it can get, and a host that has no space left.

use crate::setting::Setting;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

/// Connections that the guest tries to keep open: more than one gateway takes (LIMITS.md, `CONNECTIONS`).
const CONNECTIONS: u32 = 1500;
/// Resident memory of a gateway with all connections that it takes, MiB.
const GATEWAY_MIB: u64 = 300;
/// Bounds of the host's logs, with what one write may add, bytes.
const LOG_BYTES: u64 = (4 << 20) + (1 << 20);

/// Fills the root disk without writing to it, and all inodes of the Docker disk with empty files.
const FILL: &str = r"
    sudo fallocate -l $(($(df --output=avail -B1 ~ | tail -1) - 65536)) /fill 2>/dev/null || sudo fallocate -l $(($(df --output=avail -B1 ~ | tail -1) * 9 / 10)) /fill
    sudo dd if=/dev/zero of=/fill2 bs=64k 2>/dev/null
    sudo python3 - <<'END'
import os
os.mkdir('/var/lib/docker/many')
n = 0
try:
    while True:
        os.close(os.open(f'/var/lib/docker/many/{n}', os.O_CREAT | os.O_WRONLY))
        n += 1
except OSError as error:
    print(n > 1000, error.strerror)
END
    dd if=/dev/zero of=~/more bs=1M count=1 2>&1 | grep -o 'No space left on device'";

const CONNECT: &str = r"
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
opened, refused = [], 0
for _ in range(COUNT):
    one = socket.socket()
    one.settimeout(20)
    try:
        one.connect(('gateway.docker.internal', 3128))
        opened.append(one)
    except OSError:
        refused += 1
print(len(opened), refused, flush=True)
input()
";

#[test]
fn attack_71_a_guest_that_takes_all_it_can_get_hurts_itself_only() {
    let setting = Setting::ordinary("deny-all");
    let smallest = ["settings", "set", "sandbox.disk.dockerVolume", "512m"];
    setting.installation.sbx(smallest).success().unwrap();
    setting.shell("calm");
    setting.shell("greedy");
    full_disks(&setting);
    let gateway = setting.process("greedy", "gateway");
    floods_of_output(&setting);
    connections(&setting);
    assert_eq!(setting.process("greedy", "gateway"), gateway);
    fork_bomb(&setting);
}

/// The neighbour and the daemon answer.
fn others_are_well(setting: &Setting, during: &str) {
    let start = Instant::now();
    let blocked = "curl -s -o /dev/null -w '%{http_code}' http://denied.example/";
    assert_eq!(setting.inside("calm", blocked), "403", "{during}");
    let listed = setting.installation.sbx(["ls", "-q"]).success().unwrap();
    assert_eq!(listed.lines().count(), 2, "{during}");
    println!(
        "{during}: the neighbour and the daemon answered in {:.1} s",
        start.elapsed().as_secs_f64()
    );
}

fn full_disks(setting: &Setting) {
    let said = setting.inside("greedy", FILL);
    assert_eq!(
        said,
        "True No space left on device\nNo space left on device\n"
    );
    others_are_well(setting, "disks full inside");
    let dir = setting.inspect("greedy")["directory"].clone();
    let dir = Path::new(dir.as_str().unwrap());
    for disk in ["upper.qcow2", "docker.qcow2"] {
        let taken = std::fs::metadata(dir.join(disk)).unwrap().blocks() * 512;
        println!("{disk}: {} MiB on the host", taken >> 20);
        assert!(taken < 2 << 30, "{disk} takes {taken} bytes");
    }
    // It stops, starts and can be cleaned up.
    let stop = ["stop", "greedy"];
    setting.installation.sbx(stop).success().unwrap();
    assert_eq!(
        setting.inside(
            "greedy",
            "sudo rm /fill /fill2; echo here > ~/more; cat ~/more"
        ),
        "here\n"
    );
    setting.inside(
        "greedy",
        "sudo rm -r /var/lib/docker/many; docker version >/dev/null",
    );
}

fn floods_of_output(setting: &Setting) {
    let flood = "sudo sh -c 'yes console-flood-console-flood | head -c 12000000 > /dev/console'; \
                 head -c 30000000 /dev/zero";
    let output = setting.installation.inside("greedy", flood);
    assert_eq!(output.success().unwrap().len(), 30_000_000);
    let dir = setting.inspect("greedy")["directory"].clone();
    for file in std::fs::read_dir(dir.as_str().unwrap()).unwrap().flatten() {
        let (name, bytes) = (file.file_name(), file.metadata().unwrap().len());
        let log = Path::new(&name).extension().is_some_and(|end| end == "log");
        assert!(
            !log || bytes <= LOG_BYTES,
            "{}: {bytes} bytes",
            name.display()
        );
    }
    let console = Path::new(dir.as_str().unwrap()).join("console.log");
    let text = std::fs::read(console).unwrap();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("console-flood"), "the flood was not seen");
}

fn connections(setting: &Setting) {
    let script = CONNECT.replace("COUNT", &CONNECTIONS.to_string());
    let mut command = setting
        .installation
        .command(["exec", "-i", "greedy", "python3", "-c", &script]);
    let mut held = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(held.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let counts: Vec<u32> = line.split(' ').map(|n| n.trim().parse().unwrap()).collect();
    let gateway = setting.process("greedy", "gateway");
    let status = std::fs::read_to_string(format!("/proc/{gateway}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.unwrap().trim().trim_end_matches(" kB");
    let mib = resident.parse::<u64>().unwrap() >> 10;
    println!("connections: {counts:?} open and refused; gateway {mib} MiB");
    assert!(
        counts[0] <= 1024 && counts[0] > 500 && counts[1] >= CONNECTIONS - 1024,
        "{counts:?}"
    );
    assert!(mib < GATEWAY_MIB, "{mib} MiB");
    others_are_well(setting, "connections");
    drop(held.stdin.take());
    held.wait().unwrap();
    let again = "for i in $(seq 100); do c=$(curl -s -o /dev/null -w '%{http_code}' http://denied.example/); \
                 [ \"$c\" = 403 ] && break; sleep 0.1; done; echo $c";
    assert_eq!(setting.inside("greedy", again), "403\n");
}

fn fork_bomb(setting: &Setting) {
    let before = processes(setting.installation.uid());
    let bomb = "bomb() { bomb | bomb & }; bomb; sleep 600";
    let mut held = setting
        .installation
        .command(["exec", "greedy", "bash", "-c", bomb])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    setting.wait("the bomb has gone off", 60, || {
        start.elapsed().as_secs() >= 10
    });
    others_are_well(setting, "fork bomb");
    let during = processes(setting.installation.uid());
    // The command that holds the bomb, and `timeout` in front of it.
    assert!(during <= before + 4, "{before} processes, then {during}");
    let stop = ["stop", "greedy"];
    setting.installation.sbx(stop).success().unwrap();
    held.wait().unwrap();
    assert_eq!(setting.inside("greedy", "cat ~/more"), "here\n");
}

/// Processes of a user on the host.
fn processes(uid: u32) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let of_user = all.filter(|entry| {
        let number = entry.file_name().to_string_lossy().parse::<u32>().is_ok();
        number && entry.metadata().is_ok_and(|meta| meta.uid() == uid)
    });
    of_user.count()
}

#[test]
fn attack_71_a_full_disk_of_the_host_holds_machines_up_and_loses_nothing() {
    let mut setting = Setting::ordinary("deny-all");
    setting
        .installation
        .sbx(["daemon", "stop"])
        .success()
        .unwrap();
    let small = setting.installation.with_small_state("size=900m").unwrap();
    let fill = |left_mib: u64| small.fill(left_mib).unwrap();
    for command in [
        &["policy", "init", "deny-all"][..],
        &["settings", "set", "machine.kernel", "stock"],
        &["settings", "set", "sandbox.warmStart", "off"],
    ] {
        setting
            .installation
            .sbx(command.iter().copied())
            .success()
            .unwrap();
    }
    let workspace = setting.installation.folder("work").unwrap();
    let path = workspace.display().to_string();
    let create = ["create", "shell", &path, "--name", "held", "--memory", "1g"];

    // Too little for a new one: refused as a whole, with what helps.
    fill(300);
    let refused = setting.installation.sbx(create);
    assert!(
        !refused.ok() && refused.stderr.contains("try: "),
        "{refused}"
    );
    assert_eq!(
        setting.installation.sbx(["ls", "-q"]).success().unwrap(),
        ""
    );
    fill(850);
    setting.installation.sbx(create).success().unwrap();

    // It fills while a program writes: that waits, others are told, and it ends well once there is space.
    fill(20);
    let write = "dd if=/dev/urandom of=$HOME/big bs=1M count=60 conv=fsync 2>/dev/null && sha256sum < $HOME/big > $HOME/sum && echo written";
    let child = setting
        .installation
        .command(["exec", "held", "bash", "-c", write])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let told =
        |outcome: &sbx_e2e::Outcome| outcome.stderr.contains("no space left on the host's disk");
    // A program that began just before waits with its machine, so none is waited for here.
    let sbx = setting.installation.built("sbx");
    let come = || {
        let arguments = ["5", sbx.to_str().unwrap(), "exec", "held", "true"];
        let program = setting.installation.program("/usr/bin/timeout", arguments);
        sbx_e2e::installation::run(program, &[])
    };
    setting.wait("whoever comes is told", 60, || told(&come()));
    assert_eq!(
        setting.installation.sbx(["ls", "-q"]).success().unwrap(),
        "held\n"
    );
    fill(600);
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "written\n");
    setting.wait("it takes programs again", 20, || {
        setting.installation.inside("held", "true").ok()
    });
    assert_eq!(
        setting.inside("held", "sha256sum < ~/big | cmp - ~/sum && echo whole"),
        "whole\n"
    );

    // A start on a full disk fails with what helps, or runs; with space it works.
    setting
        .installation
        .sbx(["stop", "held"])
        .success()
        .unwrap();
    fill(0);
    let start = setting.installation.inside("held", "true");
    println!("a start on a full disk: {start}");
    assert!(start.ok() || start.stderr.contains("try: "), "{start}");
    fill(600);
    setting.wait("it starts", 120, || {
        setting.installation.inside("held", "true").ok()
    });
    assert_eq!(
        setting.inside("held", "sha256sum < ~/big | cmp - ~/sum && echo whole"),
        "whole\n"
    );
    drop(small);
    setting.installation.leave();
}
