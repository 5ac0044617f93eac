//! Attacks on addresses, other protocols and what stands beside the gateway: cases 43 to 54.

use std::net::Ipv4Addr;

use sbx_gateway::addresses::{GATEWAY, GUEST};
use sbx_testkit::EchoUpstream;
use sbx_testkit::upstream::TcpEcho;
use smoltcp::wire::IpProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attack::{Round, cut, say, twice};
use crate::lab::{NOWHERE, Setup};
use crate::packets::{datagram, echo_request, is_echo_reply, packet};

/// Tries an address that a URL can hold through the proxy, and one that can be dialled by dialling it. Every attempt
/// is refused, for this reason.
async fn closed(round: &Round<'_>, address: &str, reason: &str) {
    let lab = round.lab;
    let literal = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    let mut stream = lab.proxy().await;
    let request = format!("GET http://{literal}/ HTTP/1.1\r\nHost: {literal}\r\n\r\n");
    let answer = say(&mut stream, request).await;
    assert_eq!((answer.status, answer.reason()), (403, reason), "{address}");
    round.blocked(reason, address).await;
    let (status, _) = lab.connect(&format!("{literal}:8443")).await.err().unwrap();
    assert_eq!(status, 403, "{address}");
    round.blocked(reason, address).await;
    let Ok(direct) = address.parse::<Ipv4Addr>() else {
        return;
    };
    // No TCP client can dial these; to what is on its own link the guest has no way but the link.
    let link = direct.octets()[..3] == GATEWAY.octets()[..3];
    if link
        || direct.is_multicast()
        || direct.is_broadcast()
        || direct.is_unspecified()
        || direct.is_loopback()
    {
        return;
    }
    let mut stream = lab.guest().connect(direct, 80).await.unwrap();
    let answer = say(
        &mut stream,
        format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n"),
    )
    .await;
    assert_eq!((answer.status, answer.reason()), (403, reason), "{address}");
    round.blocked(reason, address).await;
    let stream = lab.guest().connect(direct, 443).await.unwrap();
    let mut stream = lab.tls(stream, address, &[]).await.unwrap();
    let answer = say(
        &mut stream,
        format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n"),
    )
    .await;
    assert_eq!((answer.status, answer.reason()), (403, reason), "{address}");
    round.blocked(reason, address).await;
    assert!(lab.guest().connect(direct, 22).await.is_err(), "{address}");
    round.blocked(reason, address).await;
}

#[test]
fn attack_43_metadata_services_need_a_rule_with_exactly_their_address() {
    let wide = [
        "allow **",
        "allow 0.0.0.0/0",
        "allow ::/0",
        "allow 169.254.0.0/16",
        "allow 100.64.0.0/10",
        "allow 168.63.129.0/24",
        "allow 192.0.0.0/24",
        "allow fd00::/8",
        "allow fe80::/10",
    ];
    let setup = Setup::new(&wide).name("rebind.test", &[Ipv4Addr::new(169, 254, 169, 254)]);
    twice(setup.start(), &[], async |round| {
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "169.254.42.42",
            "169.254.0.23",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:42::42",
            "fd00:c1::a9fe:a9fe",
            "fe80::a9fe:a9fe",
        ] {
            closed(round, address, "address-blocked").await;
        }
        let name = "metadata.google.internal";
        let mut stream = round.lab.proxy().await;
        let request = format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n\r\n");
        assert_eq!(say(&mut stream, request).await.status, 403);
        round.blocked("default-deny", name).await;
        assert_eq!(round.lab.resolve(name).await, Err(3));
        round.blocked("default-deny", name).await;
    });
    // The one rule that opens one of them.
    let service = EchoUpstream::start().unwrap();
    let open =
        Setup::new(&["allow 169.254.169.254:80"]).send_to("169.254.169.254:80", service.address());
    twice(open.start(), &[], async |round| {
        let mut stream = round.lab.proxy().await;
        let request = "GET http://169.254.169.254/echo HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n";
        assert_eq!(say(&mut stream, request).await.status, 200);
        assert_eq!(round.recorded_at_least(1).await[0].reason, "allow-rule");
    });
}

#[test]
fn attack_44_special_addresses_are_closed_unless_a_rule_names_them() {
    let setup = Setup::new(&["allow **", "allow 0.0.0.0/0", "allow ::/0"]);
    twice(setup.start(), &[], async |round| {
        for address in [
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "192.168.127.2",
            "192.168.127.3",
            "100.64.0.1",
            "198.18.0.9",
            "192.0.0.8",
            "0.1.2.3",
            "0.0.0.0",
            "240.0.0.1",
            "255.255.255.255",
            "224.0.0.1",
            "127.0.0.2",
            "169.254.1.1",
            "::",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.1.2.3",
            "64:ff9b::a01:203",
            "2002:a01:203::1",
        ] {
            closed(round, address, "address-blocked").await;
        }
    });
}

#[test]
fn attack_46_a_ping_leads_nowhere_also_after_a_restart() {
    twice(
        Setup::new(&["allow **", "allow 0.0.0.0/0"]).start(),
        &[],
        async |round| {
            let guest = round.lab.guest();
            // The guest's stack learns the gateway's address.
            assert!(guest.connect(GATEWAY, 1).await.is_err());
            round.forget_so_far().await;
            for (address, times) in [(NOWHERE, 50), (Ipv4Addr::new(8, 8, 8, 8), 1)] {
                for _ in 0..times {
                    guest.frame(&packet(GUEST, address, IpProtocol::Icmp, &echo_request()));
                }
                // Fifty to one place within ten seconds are one record.
                round.blocked("icmp-blocked", &address.to_string()).await;
                assert!(
                    !guest
                        .captured()
                        .iter()
                        .any(|frame| is_echo_reply(frame, address))
                );
            }
            // The gateway itself answers, so it is not that nothing would have come back.
            guest.frame(&packet(GUEST, GATEWAY, IpProtocol::Icmp, &echo_request()));
            while !guest
                .captured()
                .iter()
                .any(|frame| is_echo_reply(frame, GATEWAY))
            {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        },
    );
}

#[test]
fn attack_47_quic_is_stopped_and_not_offered() {
    let web = EchoUpstream::start().unwrap();
    let api = EchoUpstream::start_tls(&["api.test"]).unwrap();
    let setup = Setup::new(&["allow web.test", "allow api.test", "allow **"])
        .send_to("web.test:80", web.address())
        .tls_upstream("api.test", &api)
        .credential("api.test");
    twice(
        setup.start(),
        &[web.recorder(), api.recorder()],
        async |round| {
            let lab = round.lab;
            let address = lab.resolve("web.test").await.unwrap()[0];
            // An address that was given out is said by its name.
            for (to, host) in [
                (address, "web.test".to_owned()),
                (NOWHERE, NOWHERE.to_string()),
            ] {
                for port in [443, 80] {
                    lab.guest().frame(&datagram(to, port, &[0xc3; 1200]));
                    let record = round.blocked("udp-blocked", &host).await;
                    assert_eq!(record.port, port);
                }
            }
            for kind in [64, 65] {
                let answer = lab.dns_query("web.test", kind).await;
                assert_eq!(&answer[6..8], &[0, 0]);
            }
            round.silent();
            let path = "/header?name=alt-svc&value=h3=%22:443%22";
            let mut stream = lab.proxy().await;
            let request = format!("GET http://web.test{path} HTTP/1.1\r\nHost: web.test\r\n\r\n");
            let answer = say(&mut stream, request).await;
            assert_eq!(
                (answer.status, answer.header("alt-svc")),
                (200, None),
                "{answer:?}"
            );
            let stream = lab.connect("api.test:443").await.unwrap();
            let mut stream = lab.tls(stream, "api.test", &[b"http/1.1"]).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: api.test\r\n\r\n");
            let answer = say(&mut stream, request).await;
            assert_eq!(
                (answer.status, answer.header("alt-svc")),
                (200, None),
                "{answer:?}"
            );
            assert_eq!(round.recorded_at_least(2).await.len(), 2);
        },
    );
}

#[test]
fn attack_49_another_sandbox_is_out_of_reach() {
    // The other one has a service on the host, as a published port is.
    let published = TcpEcho::start().unwrap();
    let port = published.address().port();
    let other = Setup::new(&["allow **"]).start();
    let setup = Setup::new(&["allow **", "allow 0.0.0.0/0"]);
    twice(
        setup.start(),
        &[published.recorder(), other.dns.recorder()],
        async |round| {
            let guest = round.lab.guest();
            // Every sandbox has the same addresses: the guest's own, and those beside it.
            for address in [GUEST, Ipv4Addr::new(192, 168, 127, 3)] {
                guest.frame(&packet(GUEST, address, IpProtocol::Tcp, &syn(22)));
                round.blocked("address-blocked", &address.to_string()).await;
            }
            assert!(guest.connect(GATEWAY, port).await.is_err());
            round.recorded_blocked("localhost").await;
            assert!(other.records().is_empty(), "{:#?}", other.records());
            assert!(other.guest().captured().is_empty());
        },
    );
}

/// The first segment of a connection to a port.
fn syn(port: u16) -> Vec<u8> {
    let mut segment = vec![
        0x9c, 0x40, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0, 0, 0, 0,
    ];
    segment[2..4].copy_from_slice(&port.to_be_bytes());
    segment
}

/// The listening TCP ports of a process: its sockets in the kernel's table of them (proc_pid_net(5)).
fn listening(pid: u32) -> Vec<String> {
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            let link = link.to_string_lossy().into_owned();
            Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let columns: Vec<&str> = line.split_ascii_whitespace().collect();
            // LISTEN for TCP, "unconnected" for UDP.
            if matches!(columns[3], "0A" | "07") && sockets.iter().any(|s| s == columns[9]) {
                found.push(format!("{table} {}", columns[1]));
            }
        }
    }
    found
}

#[test]
fn attack_50_services_of_the_host_and_control_sockets_are_out_of_reach() {
    let service = TcpEcho::start().unwrap();
    let port = service.address().port();
    let setup = Setup::new(&[
        "allow **",
        "allow 0.0.0.0/0",
        "allow 127.0.0.0/8",
        "allow ::/0",
    ]);
    twice(setup.start(), &[service.recorder()], async |round| {
        let lab = round.lab;
        for host in ["localhost", "127.0.0.1", "[::1]", "host.docker.internal"] {
            let host = format!("{host}:{port}");
            let mut stream = lab.proxy().await;
            let request = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(say(&mut stream, request).await.status, 403, "{host}");
            round.recorded_blocked("localhost").await;
            assert_eq!(lab.connect(&host).await.err().unwrap().0, 403, "{host}");
            round.recorded_blocked("localhost").await;
        }
        // The ports that a daemon, an engine or an agent's relay would have; what is dialled is the gateway.
        for port in [port, 22, 2375, 3129, 8080, 51_820] {
            assert!(lab.guest().connect(GATEWAY, port).await.is_err(), "{port}");
            let record = round.recorded_blocked("localhost").await;
            assert_eq!(record.port, port);
        }
        // Paths of sockets are no hosts.
        let socket = lab.path("run/gateway.sock");
        let request = format!(
            "GET http+unix://{}/ HTTP/1.1\r\nHost: x\r\n\r\n",
            socket.display()
        );
        assert_eq!(say(&mut lab.proxy().await, &request).await.status, 400);
        round.refused_as_bad(&request).await;
        // What the gateway listens on is a file of the host and nothing on any network.
        assert_eq!(listening(lab.pid()), Vec::<String>::new());
    });
}

#[test]
fn attack_51_ssh_is_open_to_the_hosts_that_have_a_rule_and_to_no_other() {
    let (allowed, other) = (TcpEcho::start().unwrap(), TcpEcho::start().unwrap());
    let setup = Setup::new(&["allow git.test:22"])
        .send_to("git.test:22", allowed.address())
        .send_to("git.test:2222", other.address())
        .send_to("other.test:22", other.address());
    twice(setup.start(), &[other.recorder()], async |round| {
        let lab = round.lab;
        let address = lab.resolve("git.test").await.unwrap()[0];
        for proxy in [true, false] {
            let mut stream = if proxy {
                lab.connect("git.test:22").await.unwrap()
            } else {
                lab.guest().connect(address, 22).await.unwrap()
            };
            stream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
            let mut back = [0; 11];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(round.recorded_at_least(1).await[0].reason, "allow-rule");
        }
        round.forget_so_far().await;
        for target in ["other.test:22", "git.test:2222"] {
            let (host, port) = target.split_once(':').unwrap();
            assert_eq!(lab.connect(target).await.err().unwrap().0, 403);
            round.blocked("default-deny", host).await;
            if port == "2222" {
                assert!(lab.guest().connect(address, 2222).await.is_err());
                round.blocked("default-deny", host).await;
            }
        }
        assert_eq!(lab.resolve("other.test").await, Err(3));
        round.blocked("default-deny", "other.test").await;
        // No agent is relayed: nothing takes a connection where the known tool's relay would be.
        assert!(lab.guest().connect(GATEWAY, 3129).await.is_err());
        round.blocked("default-deny", "localhost").await;
    });
}

#[test]
fn attack_52_without_a_proxy_the_verdicts_are_the_same() {
    let (plain, tls) = (
        EchoUpstream::start().unwrap(),
        EchoUpstream::start_tls(&["web.test"]).unwrap(),
    );
    let raw = TcpEcho::start().unwrap();
    let setup = Setup::new(&[
        "allow web.test:80",
        "allow web.test:443",
        "allow web.test:7000",
    ])
    .send_to("web.test:80", plain.address())
    .tls_upstream("web.test", &tls)
    .send_to("web.test:7000", raw.address())
    .send_to("web.test:7001", raw.address());
    let watched = [plain.recorder(), tls.recorder(), raw.recorder()];
    twice(setup.start(), &watched, async |round| {
        let lab = round.lab;
        let address = lab.resolve("web.test").await.unwrap()[0];
        for proxy in [true, false] {
            for (host, allowed) in [("web.test", true), ("evil.test", false)] {
                let mut stream = if proxy {
                    lab.proxy().await
                } else {
                    lab.guest().connect(address, 80).await.unwrap()
                };
                let target = if proxy {
                    format!("http://{host}/echo")
                } else {
                    "/echo".to_owned()
                };
                let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
                let answer = say(&mut stream, request).await;
                assert_eq!(
                    answer.status,
                    if allowed { 200 } else { 403 },
                    "{proxy} {host}"
                );
                verdict(round, host, allowed).await;
                let stream = if proxy {
                    lab.connect(&format!("{host}:443")).await.unwrap()
                } else {
                    lab.guest().connect(address, 443).await.unwrap()
                };
                let mut stream = lab.tls(stream, host, &[b"http/1.1"]).await.unwrap();
                let request =
                    format!("GET /echo HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
                let answer = say(&mut stream, request).await;
                assert_eq!(
                    answer.status,
                    if allowed { 200 } else { 403 },
                    "{proxy} {host}"
                );
                drop(stream);
                verdict(round, host, allowed).await;
            }
            for (port, allowed) in [(7000, true), (7001, false)] {
                let connected = if proxy {
                    lab.connect(&format!("web.test:{port}")).await.is_ok()
                } else {
                    lab.guest().connect(address, port).await.is_ok()
                };
                assert_eq!(connected, allowed, "{proxy} {port}");
                verdict(round, "web.test", allowed).await;
            }
        }
        round.forget_so_far().await;
        // A namespace or a raw socket inside makes other addresses: they are nobody's.
        let other = Ipv4Addr::new(192, 168, 127, 77);
        lab.guest()
            .frame(&packet(other, address, IpProtocol::Tcp, &syn(80)));
        round.blocked("packet-blocked", &address.to_string()).await;
    });
}

async fn verdict(round: &Round<'_>, host: &str, allowed: bool) {
    let records = round.recorded_at_least(1).await;
    assert!(
        records.len() == 1 && records[0].allowed == allowed && records[0].host == host,
        "{records:#?}"
    );
}

#[test]
fn attack_53_a_broker_on_the_host_is_closed_until_a_rule_names_it() {
    let broker = EchoUpstream::start().unwrap();
    let port = broker.address().port();
    let setup = Setup::new(&["allow **"]);
    let request =
        format!("GET http://localhost:{port}/echo HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
    twice(setup.start(), &[broker.recorder()], async |round| {
        let answer = say(&mut round.lab.proxy().await, &request).await;
        assert_eq!((answer.status, answer.reason()), (403, "default-deny"));
        round.blocked("default-deny", "localhost").await;
    });
    // Opened, it is a rule with its place in it, and every use is recorded under that rule.
    let allow = format!("allow localhost:{port}");
    twice(
        Setup::new(&["allow **", &allow]).start(),
        &[],
        async |round| {
            assert_eq!(
                say(&mut round.lab.proxy().await, &request).await.status,
                200
            );
            let record = &round.recorded_at_least(1).await[0];
            let id = format!("allow-localhost-{port}");
            assert_eq!(record.rule.as_deref(), Some(id.as_str()));
            assert_eq!((record.host.as_str(), record.port), ("localhost", port));
        },
    );
}

#[test]
fn attack_54_what_is_sent_elsewhere_is_judged_first_and_never_goes_direct() {
    // There is no chaining to a corporate proxy; an upstream override is what there is.
    let direct = EchoUpstream::start().unwrap();
    let gone: std::net::SocketAddr = "127.0.0.1:1".parse().unwrap();
    let setup = Setup::new(&["allow web.test", "allow 127.0.0.0/8"])
        .send_to("web.test:80", gone)
        .send_to("web.test:443", gone)
        .send_to("evil.test:80", direct.address())
        .name("web.test", &[Ipv4Addr::LOCALHOST])
        .name("evil.test", &[Ipv4Addr::LOCALHOST]);
    twice(setup.start(), &[direct.recorder()], async |round| {
        let lab = round.lab;
        let request = "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n";
        let answer = say(&mut lab.proxy().await, request).await;
        assert_eq!((answer.status, answer.reason()), (403, "default-deny"));
        round.blocked("default-deny", "evil.test").await;
        let request = "GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\n\r\n";
        let answer = say(&mut lab.proxy().await, request).await;
        assert_eq!(
            (answer.status, answer.reason()),
            (502, "upstream-unreachable")
        );
        failed(round).await;
        assert_eq!(lab.connect("web.test:443").await.err().unwrap().0, 502);
        failed(round).await;
        let address = lab.resolve("web.test").await.unwrap()[0];
        let mut stream = lab.guest().connect(address, 443).await.unwrap();
        let hello = crate::hello::Hello::new("web.test").bytes();
        stream.write_all(&hello).await.unwrap();
        cut(&mut stream).await;
        failed(round).await;
    });
}

/// Allowed and not reached; nothing was asked of anybody else instead.
async fn failed(round: &Round<'_>) {
    let records = round.recorded_at_least(1).await;
    assert!(
        records.len() == 1 && records[0].reason == "upstream-unreachable",
        "{records:#?}"
    );
    round.silent();
}
