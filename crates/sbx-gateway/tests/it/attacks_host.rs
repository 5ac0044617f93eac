//! Attacks by the host's many names: case 11.

use sbx_gateway::addresses::GATEWAY;
use sbx_policy::{Evaluator, Target, Transport, check};
use sbx_testkit::EchoUpstream;
use sbx_wire::gateway::EgressRecord;

use crate::attack::{Raw, Round, say, twice};
use crate::lab::{Lab, NOWHERE, Setup};
use crate::udp::Echo;
use crate::wire::datagram;

/// What `policy check` says about a target under the lab's rules.
fn checked(lab: &Lab, transport: Transport, target: &str) -> bool {
    let udp = lab.file.upstream.udp_egress;
    let evaluator = Evaluator::new(&lab.file.policy).opening_udp(udp);
    let target = Target::parse(target).unwrap();
    check(&evaluator, Some("box"), transport, &target, None).allowed
}

/// Names of the host that clients can send as a server name.
const HOST_NAMES: [&str; 4] = [
    "host.docker.internal",
    "host.sbx.internal",
    "gateway.docker.internal",
    "gateway.sbx.internal",
];

/// The host, in every spelling.
const HOST_ALIASES: [&str; 13] = [
    "localhost",
    "LOCALHOST.",
    "127.0.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    HOST_NAMES[0],
    HOST_NAMES[1],
    HOST_NAMES[2],
    HOST_NAMES[3],
    "Gateway.SBX.Internal.",
    "192.168.127.1",
    "[::ffff:192.168.127.1]",
    "[::ffff:c0a8:7f01]",
];

/// What the host has: a service on a port of its own, reached directly, one on port 80, one with TLS, one for datagrams.
struct Services {
    plain: EchoUpstream,
    tls: EchoUpstream,
    datagrams: Echo,
}

impl Services {
    fn start() -> Self {
        Self {
            plain: EchoUpstream::start().unwrap(),
            tls: EchoUpstream::start_tls(&HOST_NAMES).unwrap(),
            datagrams: Echo::start(),
        }
    }

    fn port(&self) -> u16 {
        self.plain.address().port()
    }

    /// Everything allowed that a wildcard can allow, the services by `alias`, and `deny` denied.
    fn lab(&self, alias: &str, deny: Option<&str>) -> Lab {
        let ports = [self.port(), 80, 443].map(|port| format!("allow {alias}:{port}"));
        let datagrams = format!("allow-udp {alias}:{}", self.datagrams.port);
        let deny = deny.map(|deny| format!("deny-both {deny}"));
        let rules = ports.iter().chain([&datagrams]).chain(&deny);
        let rules: Vec<&str> = ["allow **"]
            .into_iter()
            .chain(rules.map(String::as_str))
            .collect();
        let mut setup = Setup::new(&rules)
            .send_to("localhost:80", self.plain.address())
            .tls_upstream("localhost", &self.tls);
        setup.file.upstream.udp_egress = true;
        setup.start()
    }
}

/// A client without a proxy that dials the gateway's address and names the host.
async fn http_by_itself(lab: &Lab, host: &str) -> Raw {
    let mut stream = lab.guest().connect(GATEWAY, 80).await.unwrap();
    say(
        &mut stream,
        format!("GET /echo HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    )
    .await
}

async fn tls_by_itself(lab: &Lab, name: &str) -> Raw {
    let stream = lab.guest().connect(GATEWAY, 443).await.unwrap();
    let mut stream = lab.tls(stream, name, &[]).await.unwrap();
    say(
        &mut stream,
        format!("GET /echo HTTP/1.1\r\nHost: {name}\r\n\r\n"),
    )
    .await
}

async fn by_proxy(lab: &Lab, host: &str) -> Raw {
    let mut stream = lab.proxy().await;
    let request = format!("GET http://{host}/echo HTTP/1.1\r\nHost: {host}\r\n\r\n");
    say(&mut stream, request).await
}

async fn allowed_as_the_host(round: &Round<'_>, shown: &str) {
    let records = round.recorded_at_least(1).await;
    let [record] = records.as_slice() else {
        panic!("{shown}: {records:#?}");
    };
    let what = (record.host.as_str(), record.reason.as_str());
    assert_eq!(what, ("localhost", "allow-rule"), "{shown}");
}

#[test]
fn attack_11_every_alias_of_the_host_is_one_resource() {
    let services = Services::start();
    let (port, udp) = (services.port(), services.datagrams.port);
    // Opened by one name, open by all of them at every door; recorded as one place.
    for allow in [
        "host.docker.internal",
        "gateway.sbx.internal",
        "192.168.127.1",
    ] {
        twice(services.lab(allow, None), &[], async |round| {
            let lab = round.lab;
            for alias in HOST_ALIASES {
                let host = format!("{alias}:{port}");
                assert!(checked(lab, Transport::Tcp, &host), "{allow} {alias}");
                assert!(checked(lab, Transport::Udp, &format!("{alias}:{udp}")));
                assert!(!checked(lab, Transport::Udp, &host), "{allow} {alias}");
                assert_eq!(by_proxy(lab, &host).await.status, 200, "{allow} {alias}");
                allowed_as_the_host(round, alias).await;
                assert_eq!(http_by_itself(lab, alias).await.status, 200, "{alias}");
                allowed_as_the_host(round, alias).await;
            }
            for name in HOST_NAMES {
                assert_eq!(lab.resolve(name).await, Ok(vec![GATEWAY]), "{name}");
                assert_eq!(tls_by_itself(lab, name).await.status, 200, "{name}");
                allowed_as_the_host(round, name).await;
            }
            drop(lab.guest().connect(GATEWAY, port).await.unwrap());
            allowed_as_the_host(round, "raw").await;
            let back = lab.guest().udp(GATEWAY, udp, b"hello").await;
            assert_eq!(back.as_deref(), Some(&b"hello"[..]));
            allowed_as_the_host(round, "datagram").await;
            // A client that names the host has to have dialled it.
            let mut stream = lab.guest().connect(NOWHERE, 80).await.unwrap();
            let request = "GET / HTTP/1.1\r\nHost: gateway.sbx.internal\r\n\r\n";
            let answer = say(&mut stream, request).await;
            assert_eq!(
                (answer.status, answer.reason()),
                (403, "address-not-pinned")
            );
            round.blocked("address-not-pinned", "localhost").await;
            assert_eq!(lab.dns.recorder().bytes_received(), 0);
        });
    }
}

#[test]
fn attack_11_a_deny_on_any_alias_of_the_host_closes_all_of_them() {
    let services = Services::start();
    let (port, udp) = (services.port(), services.datagrams.port);
    let watched = [services.plain.recorder(), services.tls.recorder()];
    // However wide the allow, and a deny that covers one of them as well.
    for deny in [
        "localhost",
        "127.0.0.1",
        "::1",
        "host.sbx.internal",
        "gateway.docker.internal",
        "gateway.sbx.internal",
        "192.168.127.1",
        "*.sbx.internal",
        "192.168.0.0/16",
    ] {
        twice(
            services.lab("localhost", Some(deny)),
            &watched,
            async |round| {
                let lab = round.lab;
                for alias in HOST_ALIASES {
                    let host = format!("{alias}:{port}");
                    assert!(!checked(lab, Transport::Tcp, &host), "{deny} {alias}");
                    assert!(!checked(lab, Transport::Udp, &format!("{alias}:{udp}")));
                    for answer in [by_proxy(lab, &host).await, http_by_itself(lab, alias).await] {
                        let said = (answer.status, answer.reason());
                        assert_eq!(said, (403, "deny-rule"), "{deny} {alias}");
                    }
                    let refused = lab.connect(&host).await.err().unwrap();
                    assert_eq!(refused.0, 403, "{deny} {alias}");
                    let records = round.recorded_at_least(3).await;
                    let denied =
                        |r: &EgressRecord| r.host == "localhost" && r.reason == "deny-rule";
                    assert!(
                        records.len() == 3 && records.iter().all(denied),
                        "{records:#?}"
                    );
                    round.silent();
                }
                for name in HOST_NAMES {
                    // The proxy's own name is answered whatever the rules say: it is the way out.
                    assert_eq!(lab.resolve(name).await, Ok(vec![GATEWAY]), "{deny} {name}");
                    let answer = tls_by_itself(lab, name).await;
                    assert_eq!(
                        (answer.status, answer.reason()),
                        (403, "deny-rule"),
                        "{deny} {name}"
                    );
                    round.blocked("deny-rule", "localhost").await;
                }
                assert!(lab.guest().connect(GATEWAY, port).await.is_err());
                round.blocked("deny-rule", "localhost").await;
                lab.guest().frame(&datagram(30_000, GATEWAY, udp, b"x"));
                round.blocked("deny-rule", "localhost").await;
                assert_eq!(services.datagrams.received(), 0);
            },
        );
    }
}
