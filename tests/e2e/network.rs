//! The network as programs and containers inside see it.

use crate::setting::Setting;

/// An image of `cat` and what it needs, made from the machine's own files: no registry is asked.
const TINY: &str = "set -e; cd /; tar -ch usr/bin/cat usr/bin/getent $(ldd /usr/bin/cat /usr/bin/getent | grep -o '/[^ ]*' | \
                    grep -v : | sort -u | sed 's|^/||') etc/nsswitch.conf $(ls -d usr/lib/x86_64-linux-gnu/libnss_dns* 2>/dev/null) | \
                    docker import - tiny >/dev/null";

/// What a connection may have in memory: least, at first, most.
const ROOM: &str = "cat /proc/sys/net/ipv4/tcp_rmem";

#[test]
fn large_packets_room_for_them_and_no_ipv6_reach_into_containers() {
    let setting = Setting::ordinary("allow-all");
    setting.shell("net");
    let inside = |line: &str| setting.inside("net", line);
    assert_eq!(inside("cat /sys/class/net/eth0/mtu").trim(), "65520");
    assert_eq!(inside(ROOM), "4096\t1048576\t6291456\n");
    // No address, no route, and no way to make one of them by asking.
    assert_eq!(
        inside("grep -c eth0 /proc/net/if_inet6 || true").trim(),
        "0"
    );
    assert_eq!(
        inside("grep -c eth0 /proc/net/ipv6_route || true").trim(),
        "0"
    );
    assert!(inside("getent ahosts host.docker.internal").contains("192.168.127.1"));
    assert_eq!(
        inside("getent ahostsv6 host.docker.internal | grep -v ::ffff || true"),
        ""
    );

    inside(TINY);
    inside("docker network create -d bridge later >/dev/null");
    for network in ["bridge", "later"] {
        let look = format!(
            "docker run --rm --network {network} tiny /usr/bin/{ROOM} /sys/class/net/eth0/mtu"
        );
        assert_eq!(
            inside(&look),
            "4096\t1048576\t6291456\n65520\n",
            "{network}"
        );
        let asked = format!(
            "docker run --rm --network {network} tiny /usr/bin/getent hosts \
             host.docker.internal gateway.docker.internal host.sbx.internal"
        );
        let answers = inside(&asked);
        let gateways = answers
            .lines()
            .filter(|line| line.starts_with("192.168.127.1 "));
        assert_eq!(gateways.count(), 3, "{network}: {answers}");
    }
}
