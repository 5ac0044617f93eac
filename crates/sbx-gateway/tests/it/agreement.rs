//! One answer: what `policy check` says, what each door of a running gateway does, what DNS tells and what the record
//! holds agree, on random rules and random requests.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sbx_policy::{
    CreatedVia, Decision, Evaluator, Host, HttpMatch, HttpRequest, Inspection, PolicyDocument,
    Protocols, ResourcePattern, Rule, Target, Transport, check,
};
use sbx_testkit::EchoUpstream;
use sbx_wire::gateway::{Answer, Command, EgressRecord};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::attack::{Round, say, twice};
use crate::lab::{Lab, Setup};
use crate::udp::Echo;
use crate::wire::{datagram, unreachable};

/// Policies per round, and requests under each.
const POLICIES: usize = 40;
const REQUESTS: usize = 12;

/// Where requests go: names around the patterns, the host in four spellings, an address.
const HOSTS: [&str; 10] = [
    "x.test",
    "a.x.test",
    "b.a.x.test",
    "ax.test",
    "y.test",
    "localhost",
    "gateway.sbx.internal",
    "127.0.0.1",
    "192.168.127.1",
    "203.0.113.9",
];
const PATTERNS: [&str; 15] = [
    "x.test",
    "*.x.test",
    "**.x.test",
    ".x.test",
    "a*.x.test",
    "y.test",
    "**",
    "**",
    "localhost",
    "gateway.docker.internal",
    "192.168.127.1",
    "192.168.0.0/16",
    "203.0.113.9",
    "203.0.113.0/24",
    "224.0.0.0/4",
];
/// Where only datagrams go: to everybody.
const EVERYBODY: [&str; 3] = ["239.1.2.3", "255.255.255.255", "192.168.127.255"];
const SCOPES: [&str; 6] = [
    "global",
    "sandbox:box",
    "kit:box",
    "approval:a1@box",
    "org",
    "sandbox:other",
];
const PLAIN: u16 = 80;
const TLS: u16 = 443;
/// A port that is neither: raw TCP, and HTTP for those who ask the proxy.
const OTHER: u16 = 8080;
const UDP: u16 = 9000;
/// Ports of datagrams: resolvers are asked on all but the first.
const UDP_PORTS: [u16; 5] = [UDP, 53, 853, 5353, 5355];

/// A way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// An absolute URL, port 80 or another, at the proxy.
    Absolute(u16),
    /// `CONNECT` to port 443 and TLS inside.
    Tunnel,
    /// `CONNECT` to another port and no TLS inside.
    RawTunnel,
    /// Port 80 of the address, without a proxy.
    Http,
    /// Port 443 of the address.
    Tls,
    /// Another port of the address.
    Raw,
    /// UDP to a port of the address.
    Datagram(u16),
    Dns,
}

const DOORS: [Door; 9] = [
    Door::Absolute(PLAIN),
    Door::Absolute(OTHER),
    Door::Tunnel,
    Door::RawTunnel,
    Door::Http,
    Door::Tls,
    Door::Raw,
    Door::Datagram(UDP),
    Door::Dns,
];

impl Door {
    fn port(self) -> u16 {
        match self {
            Self::Absolute(port) | Self::Datagram(port) => port,
            Self::Http => PLAIN,
            Self::Tunnel | Self::Tls => TLS,
            Self::RawTunnel | Self::Raw => OTHER,
            Self::Dns => 0,
        }
    }

    /// Whether the gateway can see method and path.
    fn is_http(self) -> bool {
        matches!(
            self,
            Self::Absolute(_) | Self::Tunnel | Self::Http | Self::Tls
        )
    }
}

#[derive(Debug, Clone)]
struct Ask {
    door: Door,
    host: &'static str,
    method: &'static str,
    path: &'static str,
}

impl Ask {
    fn target(&self, port: u16) -> Target {
        format!("{}:{port}", self.host).parse().unwrap()
    }

    fn request(&self) -> String {
        let Self {
            method, path, host, ..
        } = self;
        let host = match self.door {
            Door::Absolute(PLAIN) | Door::Http | Door::Tunnel | Door::Tls => (*host).to_owned(),
            door => format!("{host}:{}", door.port()),
        };
        let url = match self.door {
            Door::Absolute(_) => format!("http://{host}{path}"),
            _ => (*path).to_owned(),
        };
        format!("{method} {url} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n")
    }
}

fn a_rule() -> impl Strategy<Value = Rule> {
    let port = prop::sample::select(&["", "", ":80", ":443", ":8080", ":9000", ":53"][..]);
    let resource = (prop::sample::select(&PATTERNS[..]), port)
        .prop_map(|(host, port)| format!("{host}{port}").parse::<ResourcePattern>().unwrap());
    let http = (
        prop::sample::select(&["ANY", "GET", "POST,PUT"][..]),
        prop::sample::select(&["/**", "/a", "/a/*"][..]),
    );
    let http = http.prop_map(|(methods, path)| HttpMatch {
        methods: methods.parse().unwrap(),
        path: path.parse().unwrap(),
    });
    let http = prop_oneof![3 => Just(None), 1 => http.prop_map(Some)];
    (
        prop_oneof![3 => Just(Decision::Allow), 1 => Just(Decision::Deny)],
        prop::collection::vec(resource, 1..3),
        prop::sample::select(&[Protocols::TCP, Protocols::UDP, Protocols::ALL][..]),
        http,
        prop::sample::select(&SCOPES[..]),
    )
        .prop_map(|(decision, resources, protocols, http, scope)| {
            let rule = Rule {
                id: String::from("r"),
                name: None,
                scope: scope.parse().unwrap(),
                decision,
                resources,
                protocols,
                created_via: CreatedVia::Added,
                http,
            };
            match rule.validate() {
                Ok(()) => rule,
                Err(_) => Rule { http: None, ..rule },
            }
        })
}

/// Rules, whether an organisation governs, and whether rules may open UDP.
fn rules() -> impl Strategy<Value = (Vec<Rule>, bool, bool)> {
    let rules = prop::collection::vec(a_rule(), 1..8).prop_map(|mut rules| {
        for (n, rule) in rules.iter_mut().enumerate() {
            rule.id = format!("r{n}");
        }
        rules
    });
    let (governed, udp) = (prop::bool::weighted(0.1), prop::bool::weighted(0.7));
    (rules, governed, udp)
}

fn ask() -> impl Strategy<Value = Ask> {
    (
        prop::sample::select(&DOORS[..]),
        prop::sample::select(&HOSTS[..]),
        prop::sample::select(&["GET", "POST"][..]),
        prop::sample::select(&["/a", "/a/b", "/b"][..]),
        prop_oneof![1 => Just(UDP), 1 => prop::sample::select(&UDP_PORTS[..])],
        prop::option::weighted(0.2, prop::sample::select(&EVERYBODY[..])),
    )
        .prop_map(|(door, host, method, path, port, everybody)| {
            let (door, host) = match door {
                Door::Datagram(_) => (Door::Datagram(port), everybody.unwrap_or(host)),
                door => (door, host),
            };
            Ask {
                door,
                host,
                method,
                path,
            }
        })
}

/// What has to happen, from what `policy check` says.
#[derive(Debug)]
struct Expected {
    passes: bool,
    reason: String,
    rule: Option<String>,
    host: String,
}

fn expected(evaluator: &Evaluator, ask: &Ask) -> Expected {
    if ask.door == Door::Dns {
        return expected_of_dns(evaluator, ask);
    }
    let transport = match ask.door {
        Door::Datagram(_) => Transport::Udp,
        _ => Transport::Tcp,
    };
    let http = ask.door.is_http();
    let http = http.then(|| HttpRequest::parse(ask.method, ask.path).unwrap());
    let target = ask.target(ask.door.port());
    let report = check(evaluator, Some("box"), transport, &target, http);
    let by_request = report.inspection == Inspection::Required;
    let (passes, reason) = match ask.door {
        _ if !report.allowed => (false, report.reason_code.to_string()),
        Door::RawTunnel if by_request || report.tls_only => (false, "not-tls".to_owned()),
        Door::Raw | Door::Datagram(_) if by_request => (false, "not-inspectable".to_owned()),
        _ => (true, report.reason_code.to_string()),
    };
    let decided = passes == report.allowed;
    Expected {
        passes,
        reason: reason.replace('_', "-"),
        rule: report.rule_id.filter(|_| decided),
        host: target.host.to_string(),
    }
}

/// A name may be resolved if it may be reached in any way.
fn expected_of_dns(evaluator: &Evaluator, ask: &Ask) -> Expected {
    let Host::Name(name) = ask.target(TLS).host else {
        return Expected {
            passes: true,
            reason: "local-name".to_owned(),
            rule: None,
            host: "localhost".to_owned(),
        };
    };
    let verdict = evaluator.name_may_resolve("box", &name);
    for port in [PLAIN, TLS, OTHER].into_iter().chain(UDP_PORTS) {
        for transport in [Transport::Tcp, Transport::Udp] {
            let report = check(evaluator, Some("box"), transport, &ask.target(port), None);
            assert!(
                verdict.is_allowed() || !report.allowed,
                "{ask:?} {report:?}"
            );
        }
    }
    Expected {
        passes: verdict.is_allowed(),
        reason: verdict.reason.to_string().replace('_', "-"),
        rule: verdict.rule.map(|rule| rule.id.clone()),
        host: name.to_string(),
    }
}

/// What is behind the gateway.
struct Behind {
    plain: EchoUpstream,
    tls: EchoUpstream,
    datagrams: Echo,
    /// Each datagram has a source port of its own, so that it is a flow of its own.
    source: Cell<u16>,
}

impl Behind {
    fn start() -> Self {
        Self {
            plain: EchoUpstream::start().unwrap(),
            tls: EchoUpstream::start_tls(&HOSTS).unwrap(),
            datagrams: Echo::start(),
            source: Cell::new(20_000),
        }
    }

    fn lab(&self) -> Lab {
        let datagrams = SocketAddr::from((Ipv4Addr::LOCALHOST, self.datagrams.port));
        let mut setup = Setup::new(&[]);
        for host in HOSTS.into_iter().chain(EVERYBODY) {
            // One entry for the host, whatever it is called.
            if matches!(host.parse(), Ok(Host::HostService)) && host != "localhost" {
                continue;
            }
            setup = setup
                .send_to(&format!("{host}:{PLAIN}"), self.plain.address())
                .send_to(&format!("{host}:{OTHER}"), self.plain.address())
                .send_to(&format!("{host}:{TLS}"), self.tls.address());
            for port in UDP_PORTS {
                setup = setup.send_to(&format!("{host}:{port}"), datagrams);
            }
        }
        let root = self.tls.root_pem().unwrap().to_owned();
        setup.file.upstream.extra_roots_pem.push(root.clone());
        setup.guest_roots.push(root);
        setup.start()
    }

    /// What arrived: requests and datagrams.
    fn arrived(&self) -> usize {
        let requests = [&self.plain, &self.tls].map(|it| it.recorder().requests().len());
        requests.iter().sum::<usize>() + self.datagrams.received()
    }

    /// Whether the request got through. `None`: the name leads nowhere, so there was nothing to dial.
    async fn passes(&self, lab: &Lab, ask: &Ask) -> Option<bool> {
        let port = ask.door.port();
        if let Door::Absolute(_) = ask.door {
            return Some(answered(&mut lab.proxy().await, ask).await);
        }
        if ask.door == Door::RawTunnel {
            return Some(match lab.connect(&format!("{}:{port}", ask.host)).await {
                Ok(mut stream) => answered(&mut stream, ask).await,
                Err((status, _)) => {
                    assert_eq!(status, 403, "{ask:?}");
                    false
                }
            });
        }
        if ask.door == Door::Tunnel {
            let stream = lab.connect(&format!("{}:{port}", ask.host)).await.unwrap();
            return Some(answered_in_tls(lab, stream, ask).await);
        }
        let address = match ask.target(TLS).host {
            Host::HostService => sbx_policy::GATEWAY_ADDRESS,
            Host::Ip(IpAddr::V4(ip)) => ip,
            _ => match lab.resolve(ask.host).await {
                Ok(addresses) => addresses[0],
                Err(code) => {
                    assert_eq!(code, 3, "{ask:?}");
                    return if ask.door == Door::Dns {
                        Some(false)
                    } else {
                        None
                    };
                }
            },
        };
        Some(match ask.door {
            Door::Datagram(port) => self.datagram_passes(lab, address, port).await,
            Door::Dns => true,
            _ => match lab.guest().connect(address, port).await {
                Ok(stream) if ask.door == Door::Tls => answered_in_tls(lab, stream, ask).await,
                Ok(mut stream) => answered(&mut stream, ask).await,
                Err(error) => {
                    assert_eq!(
                        error.kind(),
                        std::io::ErrorKind::ConnectionRefused,
                        "{ask:?}"
                    );
                    false
                }
            },
        })
    }

    /// Waits for the datagram to arrive or to be refused.
    async fn datagram_passes(&self, lab: &Lab, address: Ipv4Addr, port: u16) -> bool {
        let source = self.source.replace(self.source.get() + 1);
        let before = self.datagrams.received();
        lab.guest()
            .frame(&datagram(source, address, port, b"hello"));
        // Nobody is told that such a datagram was refused, and the resolver leaves out what is no question: one that is
        // answered behind it says that it was looked at.
        let many = EVERYBODY.contains(&address.to_string().as_str());
        if many || (address, port) == (sbx_policy::GATEWAY_ADDRESS, 53) {
            lab.resolve("localhost").await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
            return self.datagrams.received() > before;
        }
        loop {
            if self.datagrams.received() > before {
                return true;
            }
            let refused = unreachable(&lab.guest().captured());
            if refused
                .iter()
                .any(|(_, udp)| udp[..2] == source.to_be_bytes())
            {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Whether the answer is an upstream's. Everything else is a block page or the end of the connection.
async fn answered<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, ask: &Ask) -> bool {
    let answer = say(stream, ask.request()).await;
    let blocked = answer.status == 0 || (answer.status == 403 && !answer.reason().is_empty());
    assert!(blocked || answer.status == 200, "{ask:?}: {answer:?}");
    !blocked
}

async fn answered_in_tls<S>(lab: &Lab, stream: S, ask: &Ask) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = lab.tls(stream, ask.host, &[]).await.unwrap();
    answered(&mut stream, ask).await
}

/// Puts the policy in force, and whether its rules may open UDP.
fn swap(lab: &Lab, policy: &PolicyDocument, udp: bool) {
    let mut config = lab.config();
    config.file.upstream.udp_egress = udp;
    config.file.policy = policy.clone();
    let answer = lab.ask(&Command::Configure(Box::new(config)));
    assert!(matches!(answer, Answer::Configured { .. }), "{answer:?}");
}

/// Whether the record has the same answer. What a guest can repeat without end is not recorded each time.
fn assert_recorded(records: &[EgressRecord], expected: &Expected, ask: &Ask, shown: &str) {
    let port = ask.door.port();
    let repeated = matches!(ask.door, Door::Raw | Door::Datagram(_)) && !expected.passes;
    let least = usize::from(!repeated && ask.door != Door::Dns);
    assert!((least..2).contains(&records.len()), "{shown} {records:#?}");
    // What is stopped as a packet has no name yet.
    let packet = matches!(ask.door, Door::Datagram(_)) && expected.reason == "foreign-resolver";
    for record in records {
        let host = if packet && record.host.parse::<Ipv4Addr>().is_ok() {
            &record.host
        } else {
            &expected.host
        };
        let said = (&record.host, record.port, record.allowed, &record.reason);
        let due = (host, port, expected.passes, &expected.reason);
        assert_eq!(said, due, "{shown} {record:#?}");
        if expected.rule.is_some() {
            assert_eq!(record.rule, expected.rule, "{shown} {record:#?}");
        }
    }
}

#[test]
fn check_doors_dns_and_record_agree_on_random_requests() {
    let behind = Behind::start();
    let runner = RefCell::new(TestRunner::default());
    let generation = Cell::new(1);
    let tally = Cell::new([0_usize; 2]);
    twice(behind.lab(), &[], async |round: &Round<'_>| {
        for _ in 0..POLICIES {
            let (rules, governed, udp) = drawn(&runner, rules());
            generation.set(generation.get() + 1);
            let policy = PolicyDocument {
                generation: generation.get(),
                rules,
                governed,
            };
            tokio::task::block_in_place(|| swap(round.lab, &policy, udp));
            let evaluator = Evaluator::new(&policy)
                .opening_udp(udp)
                .knowing_what_is_near(sbx_policy::what_is_near);
            for _ in 0..REQUESTS {
                let ask = drawn(&runner, ask());
                let expected = expected(&evaluator, &ask);
                let shown = format!("{ask:?} {expected:?} (UDP: {udp}) under {policy:#?}");
                let before = behind.arrived();
                match behind.passes(round.lab, &ask).await {
                    Some(passes) => {
                        assert_eq!(passes, expected.passes, "{shown}");
                        let records = match ask.door {
                            Door::Raw | Door::Datagram(_) | Door::Dns => round.recorded().await,
                            _ => round.recorded_at_least(1).await,
                        };
                        // Not those of the look-up before, nor of what an earlier policy had opened, nor of the
                        // guest's refusal of an echo that it does not wait for.
                        let own = |r: &EgressRecord| {
                            let aside = ["policy-changed", "icmp-blocked"];
                            r.port == ask.door.port() && !aside.contains(&r.reason.as_str())
                        };
                        let records: Vec<_> = records.into_iter().filter(own).collect();
                        assert_recorded(&records, &expected, &ask, &shown);
                    }
                    None => {
                        assert!(!expected.passes, "{shown}");
                        round.recorded().await;
                    }
                }
                assert!(expected.passes || behind.arrived() == before, "{shown}");
                let mut so_far = tally.get();
                so_far[usize::from(expected.passes)] += 1;
                tally.set(so_far);
            }
        }
    });
    // Both answers are common, or this would say little.
    let least = POLICIES * REQUESTS / 5;
    let counts = tally.get();
    assert!(counts.iter().all(|count| *count > least), "{counts:?}");
}

/// One value. Nothing is made smaller after a failure: it names the whole policy.
fn drawn<S: Strategy>(runner: &RefCell<TestRunner>, strategy: S) -> S::Value {
    let tree = strategy.new_tree(&mut runner.borrow_mut());
    tree.unwrap().current()
}
