//! Addresses of the host beyond its loopback, and of its neighbours: in a network namespace that has some.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use sbx_testkit::netns::{Namespace, Options};
use sbx_wire::gateway::EgressRecord;

use crate::attack::{Round, say, twice};
use crate::lab::{NOWHERE, Setup, run};
use crate::packets::datagram;

/// Set where the test runs in the namespace.
const INSIDE: &str = "SBX_TEST_INSIDE";
/// The address of the interface, and a second one, for which the kernel would choose the first as a source.
const FIRST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 6);
const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 5);
const GLOBAL: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 5);
/// Nobody has it.
const NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x99);

/// Runs the test of this name once more, in a namespace with the addresses above. True: this is that run.
fn in_a_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let folder = tempfile::tempdir().unwrap();
    let namespace = Namespace::start(&Options {
        frames: folder.path().join("unused"),
        address: FIRST,
        prefix: 24,
        more: vec![
            (SECOND.into(), 24),
            (PRIVATE.into(), 24),
            (GLOBAL.into(), 64),
        ],
        gateway: Ipv4Addr::new(203, 0, 113, 1),
        mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
        mtu: 1500,
        files: Vec::new(),
    })
    .unwrap();
    let output = namespace
        .command(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && text.contains("1 passed");
    assert!(passed, "in the namespace: {text}{errors}");
    false
}

/// Listens on every address of the host.
struct Service {
    tcp: TcpListener,
    udp: UdpSocket,
    port: u16,
}

impl Service {
    fn start() -> Self {
        let tcp = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        // Another port: repeated attempts at one place leave one record.
        let udp = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        Self { tcp, udp, port }
    }

    fn udp_port(&self) -> u16 {
        self.udp.local_addr().unwrap().port()
    }

    /// How many have come since somebody looked last.
    fn visitors(&self) -> usize {
        let datagrams = std::iter::from_fn(|| self.udp.recv(&mut [0; 64]).ok());
        std::iter::from_fn(|| self.tcp.accept().ok()).count() + datagrams.count()
    }
}

/// The attempt left one record. Whether a resolver was asked is not looked at: the name is allowed.
async fn blocked(round: &Round<'_>, host: &str) {
    let records = round.recorded_at_least(1).await;
    let seen: Vec<_> = records
        .iter()
        .map(|record| (record.allowed, record.reason.as_str(), record.host.as_str()))
        .collect();
    assert_eq!(seen, [(false, "address-blocked", host)]);
}

/// Tries an address or a name through the proxy, as a request and as a tunnel. Both are refused, with one record each.
async fn refused(round: &Round<'_>, host: &str, port: u16) {
    let shown = host.trim_matches(['[', ']']);
    let mut stream = round.lab.proxy().await;
    let request = format!("GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    let answer = say(&mut stream, request).await;
    let got = (answer.status, answer.reason());
    assert_eq!(got, (403, "address-blocked"), "{host}");
    blocked(round, shown).await;
    let tunnel = round.lab.connect(&format!("{host}:{port}")).await;
    assert_eq!(tunnel.err().unwrap().0, 403, "{host}");
    blocked(round, shown).await;
}

#[test]
fn attack_44_addresses_of_the_host_and_its_neighbours_are_closed_to_wildcards_and_ranges() {
    if !in_a_namespace(
        "near::attack_44_addresses_of_the_host_and_its_neighbours_are_closed_to_wildcards_and_ranges",
    ) {
        return;
    }
    let service = Service::start();
    let wide = [
        "allow **",
        "allow 0.0.0.0/0",
        "allow ::/0",
        "allow 203.0.113.0/24",
    ];
    let more = [
        "allow-udp 203.0.113.0/24",
        "allow 192.168.1.0/24",
        "allow 2001:db8::/32",
    ];
    let mut setup = Setup::new(&[&wide[..], &more].concat()).name("own.test", &[SECOND]);
    setup.file.upstream.udp_egress = true;
    twice(setup.start(), &[], async |round| {
        for host in [FIRST, SECOND, PRIVATE] {
            refused(round, &host.to_string(), service.port).await;
            let direct = round.lab.guest().connect(host, service.port).await;
            assert!(direct.is_err(), "{host}");
            blocked(round, &host.to_string()).await;
        }
        round
            .lab
            .guest()
            .frame(&datagram(FIRST, service.udp_port(), b"x"));
        blocked(round, &FIRST.to_string()).await;
        refused(round, &format!("[{GLOBAL}]"), service.port).await;
        refused(round, &format!("[{NEIGHBOUR}]"), service.port).await;
        refused(round, "own.test", service.port).await;
        assert_eq!(service.visitors(), 0);
    });
}

/// Takes the descriptors of a process but for one, once it opens and closes none. Returns the limit it had.
async fn leave_one_descriptor(process: Pid) -> Rlimit {
    let open = || -> BTreeSet<u64> {
        let folder = format!("/proc/{}/fd", process.as_raw_nonzero());
        let entries = std::fs::read_dir(folder).unwrap();
        entries
            .map(|entry| {
                entry
                    .unwrap()
                    .file_name()
                    .to_str()
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect()
    };
    let (mut before, mut same) = (open(), 0);
    while same < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = open();
        same = if now == before { same + 1 } else { 0 };
        before = now;
    }
    let free = (0..u64::MAX).find(|number| !before.contains(number));
    let left = Rlimit {
        current: free.map(|free| free + 1),
        ..getrlimit(Resource::Nofile)
    };
    prlimit(Some(process), Resource::Nofile, left).unwrap()
}

#[test]
fn a_gateway_without_descriptors_takes_no_address_for_the_hosts_own() {
    let rules = ["allow-udp a.test"];
    let mut setup = Setup::new(&rules).name("a.test", &[NOWHERE]);
    setup.file.upstream.udp_egress = true;
    let mut lab = setup.start();
    run(async {
        assert_eq!(lab.resolve("a.test").await, Ok(vec![NOWHERE]));
        lab.guest().frame(&datagram(NOWHERE, 9000, b"x"));
        let opened = |record: &EgressRecord| record.port == 9000 && record.allowed;
        lab.records_that(1, opened).await;
        let process = Pid::from_raw(lab.pid().cast_signed()).unwrap();
        let had = leave_one_descriptor(process).await;
        // The one that is left is the command's.
        tokio::task::block_in_place(|| lab.set_rules(&[rules[0], "allow c.test"]));
        prlimit(Some(process), Resource::Nofile, had).unwrap();
        let closed = |record: &EgressRecord| record.reason == "policy-changed";
        lab.records_that(0, closed).await;
        // It was open all the time.
        tokio::task::block_in_place(|| lab.set_rules(&["allow c.test"]));
        let closed = lab.records_that(1, closed).await;
        assert_eq!(closed[0].generation, lab.file.policy.generation);
    });
}

#[test]
fn an_address_of_the_host_is_opened_by_a_rule_that_names_it() {
    if !in_a_namespace("near::an_address_of_the_host_is_opened_by_a_rule_that_names_it") {
        return;
    }
    let service = Service::start();
    let port = service.port;
    let rules = [FIRST, SECOND, PRIVATE].map(|host| format!("allow {host}:{port}"));
    let rules = [&rules[..], &[format!("allow [{GLOBAL}]:{port}")]].concat();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    twice(Setup::new(&rules).start(), &[], async |round| {
        for host in [FIRST, SECOND, PRIVATE] {
            let direct = round.lab.guest().connect(host, port).await;
            assert!(direct.is_ok(), "{host}");
            assert!(round.recorded_at_least(1).await[0].allowed, "{host}");
            assert_eq!(service.visitors(), 1, "{host}");
        }
        let mut stream = round
            .lab
            .connect(&format!("[{GLOBAL}]:{port}"))
            .await
            .unwrap();
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"hello").await;
        assert!(round.recorded_at_least(1).await[0].allowed);
        assert_eq!(service.visitors(), 1);
    });
}
