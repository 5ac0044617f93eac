//! The small kernel: built from the distribution's source by an ordinary user, and enough for all that is done
//! in a sandbox. The first run on a machine builds it, which takes many minutes.

use crate::setting::Setting;

/// An image with a shell and some programs of the machine, made of its own files: no registry is asked.
const IMAGE: &str = "set -e; cd /; tar -ch bin/sh bin/cat bin/ls bin/echo usr/bin/curl usr/bin/python3 usr/lib/python3 \
     usr/lib/python3.13 $(ldd /bin/ls /bin/cat /usr/bin/curl /usr/bin/python3 | grep -o '/[^ ]*' | grep -v : | sort -u | \
     sed 's|^/||') | docker import - tiny >/dev/null";

/// Where the kernel that runs says what it was built with.
const CONFIG: &str = "zcat /proc/config.gz";

#[test]
fn share_engine_networks_limits_and_debuggers_work_with_the_small_kernel() {
    let setting = Setting::ordinary("deny-all");
    setting.kernel("small");
    let workspace = setting.shell("small");
    let inside = |line: &str| setting.inside("small", &format!("set -e\n{line}"));

    let release = inside("uname -r").trim().to_owned();
    assert!(release.ends_with("-sbx"), "{release}");
    assert_eq!(
        setting.inspect("small")["kernel"],
        format!("small {release}")
    );
    // Nothing can be loaded, nothing is there that nobody asked for.
    assert!(inside(CONFIG).contains("# CONFIG_MODULES is not set"));
    let links = "ls /sys/class/net | tr '\\n' ' '";
    assert_eq!(
        inside(&format!("docker version >/dev/null; {links}")),
        "docker0 eth0 lo "
    );

    std::fs::write(workspace.join("from-host"), "host\n").unwrap();
    assert_eq!(inside("cat from-host; echo guest > from-guest"), "host\n");
    assert_eq!(
        std::fs::read_to_string(workspace.join("from-guest")).unwrap(),
        "guest\n"
    );

    // Under emulation code that a share has brought into memory must not be mistaken for what was there before: a
    // program of many pages, again and again.
    let program = workspace.join("program");
    std::fs::copy(setting.installation.built("sbx"), &program).unwrap();
    setting.installation.own(&program).unwrap();
    let runs = "for i in $(seq 40); do ./program --version >/dev/null || echo failed; done";
    assert_eq!(inside(runs), "");

    inside(IMAGE);
    let served = inside(
        "mkdir -p /tmp/build && cd /tmp/build
         printf 'FROM tiny\\nRUN [\"/bin/sh\", \"-c\", \"/bin/echo built > /made\"]\\n' > Dockerfile
         docker build -q -t made . >/dev/null
         docker network create --driver bridge own >/dev/null
         docker run -d --name web --network own -p 8080:80 -v /tmp/build:/data made \
             /usr/bin/python3 -m http.server 80 --directory / >/dev/null
         for i in $(seq 100); do curl -s http://127.0.0.1:8080/made && break; sleep 0.2; done
         docker run --rm --network own made /usr/bin/curl -s http://web/made",
    );
    assert_eq!(served, "built\nbuilt\n", "a port, and a name on a network");
    let limited = inside(
        "docker run --rm --memory 64m --cpus 0.5 --pids-limit 20 --read-only tiny /bin/sh -c \
         'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max'",
    );
    assert_eq!(limited, "67108864\n50000 100000\n20\n");
    inside("docker rm -f web >/dev/null");
    // As Prometheus' node exporter is run: the root, and what is mounted in it later.
    inside(
        "docker run --rm -v /:/host:ro,rslave tiny /bin/sh -c 'cat /host/etc/machine-id' \
         | cmp - /etc/machine-id",
    );

    // What tools for development lean on: namespaces of one's own, file watches, seccomp, Landlock, loop, FUSE, perf.
    inside("unshare --user --map-root-user --mount --net --pid --fork true");
    inside("test -c /dev/fuse -a -c /dev/net/tun -a -c /dev/loop-control");
    inside(
        "sudo mount -t securityfs none /sys/kernel/security
         grep -q landlock /sys/kernel/security/lsm",
    );
    inside(
        "grep -q '^Seccomp_filters' /proc/self/status; test -e /proc/sys/kernel/perf_event_paranoid",
    );
    inside(
        "truncate -s 8M /tmp/disk && mke2fs -q -t ext4 /tmp/disk && mkdir -p /tmp/at
         sudo mount -o loop /tmp/disk /tmp/at && sudo umount /tmp/at",
    );
    for legacy in ["iptables", "ip6tables", "iptables-nft"] {
        inside(&format!("sudo {legacy} -t nat -L -n >/dev/null"));
    }

    setting.inside("small", "echo kept > ~/note && sync");
    setting
        .installation
        .sbx(["stop", "small"])
        .success()
        .unwrap();
    assert_eq!(setting.inside("small", "cat ~/note"), "kept\n");
    let errors =
        inside("sudo dmesg | grep -cE 'EXT4-fs.*(error|recover)|BUG: |WARNING: |Oops' || true");
    assert_eq!(errors.trim(), "0", "{}", inside("sudo dmesg"));
}

#[test]
fn the_choice_follows_a_comparison_and_stock_can_be_insisted_on() {
    let setting = Setting::ordinary("deny-all");
    setting.kernel("small");
    setting.shell("chosen"); // now it is there
    setting.kernel("auto");
    let known = || {
        let status = setting
            .installation
            .sbx(["daemon", "status", "--json"])
            .json()
            .unwrap();
        status["small_kernel"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    setting.wait("the kernels were compared", 120, || {
        known().contains("used: it")
    });
    println!("{}", known());
    let kind = if known().contains("not used") {
        "stock"
    } else {
        "small"
    };
    let restart = || {
        setting
            .installation
            .sbx(["stop", "chosen"])
            .success()
            .unwrap();
        let outcome = setting.installation.inside("chosen", "uname -r");
        (outcome.stderr.clone(), outcome.success().unwrap())
    };
    let shown = || setting.inspect("chosen")["kernel"].to_string();
    restart();
    assert!(shown().contains(kind), "{}", shown());

    setting.kernel("stock");
    let (_, release) = restart();
    assert!(!release.contains("-sbx"), "{release}");
    assert!(shown().contains("stock"), "{}", shown());
}
