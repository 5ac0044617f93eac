//! Attacks on what HTTP carries: cases 30 to 32 and 36 to 38.

use hyper::header::HeaderName;
use sbx_policy::HttpMatch;
use sbx_testkit::EchoUpstream;
use sbx_testkit::upstream::TcpEcho;
use sbx_wire::gateway::{Answer, Command};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attack::{cut, say, twice};
use crate::attacks_credentials::{OTHER, other};
use crate::lab::{PLACEHOLDER, SECRET, Setup, get, h1, h2, rule, run, send, text};
use crate::tape::Tape;

/// A rule with methods and a path: `allow web.test GET /open/**`.
fn http_rule(text: &str) -> sbx_policy::Rule {
    let words: Vec<&str> = text.split(' ').collect();
    let [decision, host, methods, path] = words.as_slice() else {
        panic!("{text}");
    };
    let mut rule = rule(&format!("{decision} {host}"));
    rule.id = format!("{}{}", rule.id, path.replace(['/', '*'], "-"));
    rule.http = Some(HttpMatch {
        methods: methods.parse().unwrap(),
        path: path.parse().unwrap(),
    });
    rule
}

/// Headers that ask for a WebSocket.
pub(crate) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn attack_30_a_websocket_is_judged_when_it_is_opened() {
    let upstream = EchoUpstream::start().unwrap();
    let tls = EchoUpstream::start_tls(&["api.test"]).unwrap();
    let mut setup = Setup::new(&["allow api.test", "allow other.test"])
        .send_to("web.test:80", upstream.address())
        .send_to("other.test:80", upstream.address())
        .tls_upstream("api.test", &tls)
        .credential("api.test");
    setup
        .file
        .policy
        .rules
        .push(http_rule("allow web.test GET /ws"));
    let watched = [upstream.recorder(), tls.recorder()];
    twice(setup.start(), &watched, async |round| {
        let upgrade =
            |path: &str| format!("GET {path} HTTP/1.1\r\nHost: web.test\r\n{UPGRADE}\r\n");
        let mut stream = round.lab.connect("web.test:80").await.unwrap();
        for path in ["/private/ws", "/upgrade", "/ws/../private"] {
            let answer = say(&mut stream, upgrade(path)).await;
            assert_eq!(
                (answer.status, answer.reason()),
                (403, "default-deny"),
                "{path}"
            );
            round.blocked("default-deny", "web.test").await;
            // What a client would send after a 101 that never came is no request either.
        }
        // With a placeholder of somebody else's in the head.
        let mut other = round.lab.connect("other.test:80").await.unwrap();
        let head =
            format!("GET /ws?key={PLACEHOLDER} HTTP/1.1\r\nHost: other.test\r\n{UPGRADE}\r\n");
        let answer = say(&mut other, head).await;
        assert_eq!(
            (answer.status, answer.reason()),
            (403, "placeholder-to-unbound-host")
        );
        round
            .blocked("placeholder-to-unbound-host", "other.test")
            .await;
        // After the denials, on the same connection, one that is allowed: bytes pass as they are, both ways.
        let answer = say(&mut stream, upgrade("/ws")).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        for frame in [&b"\x81\x82\0\0\0\0hi"[..], b"\x82\x82\0\0\0\0\x00\xff"] {
            stream.write_all(frame).await.unwrap();
            let mut back = [0; 4];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!((back[0], &back[2..]), (frame[0], &frame[6..]));
        }
        // And a request in it is data.
        let record = round.recorded_at_least(1).await;
        assert_eq!((record.len(), record[0].path.as_deref()), (1, Some("/ws")));
    });
}

#[test]
fn attack_30_nothing_but_a_websocket_that_was_asked_for_switches_the_protocol() {
    let tape = Tape::answering(&[
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tunnel\r\n\r\n",
    ]);
    let setup = Setup::new(&["allow web.test"]).send_to("web.test:80", tape.address);
    twice(setup.start(), &[], async |round| {
        for asked in ["", "Connection: Upgrade\r\nUpgrade: tunnel\r\n"] {
            let mut stream = round.lab.proxy().await;
            let request = format!("GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\n{asked}\r\n");
            let answer = say(&mut stream, request).await;
            assert_eq!(answer.status, 502, "{asked:?}: {answer:?}");
            assert!(!tape.take().contains("tunnel"));
            let record = round.recorded_at_least(1).await;
            assert_eq!(
                (record.len(), record[0].reason.as_str()),
                (1, "upstream-unreachable")
            );
            // What comes now is a request and judged, not data.
            let request = "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n";
            let answer = say(&mut stream, request).await;
            assert_eq!((answer.status, answer.reason()), (403, "default-deny"));
            round.blocked("default-deny", "evil.test").await;
            assert_eq!(tape.take(), "");
        }
    });
}

#[test]
fn attack_31_other_ports_of_an_allowed_host_need_a_rule_and_their_protocol() {
    let echo = TcpEcho::start().unwrap();
    let mut setup = Setup::new(&[
        "allow web.test:443",
        "allow web.test:80",
        "allow any.test",
        "allow mail.test:2525",
    ]);
    for port in [22, 25, 6379] {
        for name in ["web.test", "any.test"] {
            setup = setup.send_to(&format!("{name}:{port}"), echo.address());
        }
    }
    setup = setup.send_to("mail.test:2525", echo.address());
    twice(setup.start(), &[echo.recorder()], async |round| {
        let lab = round.lab;
        let address = lab.resolve("web.test").await.unwrap()[0];
        for port in [22, 25, 6379] {
            // Allowed for HTTP: refused before anything is dialled, whichever way.
            let (status, body) = lab
                .connect(&format!("web.test:{port}"))
                .await
                .err()
                .unwrap();
            assert!(
                status == 403 && body.contains("default deny"),
                "{status} {body}"
            );
            let record = round.blocked("default-deny", "web.test").await;
            assert_eq!(record.port, port);
            assert!(lab.guest().connect(address, port).await.is_err());
            let record = round.blocked("default-deny", "web.test").await;
            assert_eq!(record.port, port);
            // Allowed on every port: through the proxy it has to be TLS for this host.
            for first in [&b"PING\r\n"[..], b"SSH-2.0-x\r\n", b"EHLO evil.test\r\n"] {
                let mut stream = lab.connect(&format!("any.test:{port}")).await.unwrap();
                stream.write_all(first).await.unwrap();
                cut(&mut stream).await;
                let record = round.blocked("not-tls", "any.test").await;
                assert_eq!(record.port, port);
            }
            let mut stream = lab.connect(&format!("any.test:{port}")).await.unwrap();
            let hello = crate::hello::Hello::new("evil.test").bytes();
            stream.write_all(&hello).await.unwrap();
            cut(&mut stream).await;
            round.blocked("sni-mismatch", "any.test").await;
        }
        // A rule that names the port declares its protocol to be the guest's own business.
        let mut stream = lab.connect("mail.test:2525").await.unwrap();
        stream.write_all(b"EHLO a.test\r\n").await.unwrap();
        let mut back = [0; 13];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"EHLO a.test\r\n");
        assert_eq!(round.recorded_at_least(1).await[0].reason, "allow-rule");
    });
}

/// Paths that are judged as they are sent, and sent as they are judged.
const PASSED: [(&str, &str); 9] = [
    ("/open/a", "/open/a"),
    ("//open//a", "/open/a"),
    ("/open/./a", "/open/a"),
    ("/private/../open/a", "/open/a"),
    ("/open/a;x=/y", "/open/a;x=/y"),
    ("/open/%61", "/open/a"),
    ("/open/@scope%2fname", "/open/@scope%2Fname"),
    ("/open/a%20b", "/open/a%20b"),
    ("/open/a?to=/../private", "/open/a?to=/../private"),
];

const DENIED: [&str; 9] = [
    "/private",
    "/open/../private",
    "/open/a/../../private/x",
    "//private",
    "/OPEN/a",
    "/open/%61dmin",
    "/open/admin/x",
    "/open//admin/x",
    "/open/b/../%61dmin/x",
];

const DOUBTFUL: [&str; 14] = [
    "/open/%2e%2e/private",
    "/open/%2E./private",
    "/open/..%2fprivate",
    "/open/..%5cprivate",
    "/open/..;x/private",
    "/open/..;/private",
    "/open/..\\private",
    "/open/a%2f..%2f..%2fprivate",
    "/open/%252e%252e/private",
    "/open/%c0%ae%c0%ae/private",
    "/open/%e0%80%ae/private",
    "/open/%00",
    "/open/a%0d%0aX:%20y",
    "/open/%zz",
];

#[test]
fn attack_32_a_path_is_judged_in_one_form_and_sent_in_that_form() {
    let tape = Tape::start();
    let mut setup = Setup::new(&[]).send_to("web.test:80", tape.address);
    setup.file.policy.rules = vec![
        http_rule("allow web.test GET /open/**"),
        http_rule("deny web.test ANY /open/admin/**"),
    ];
    twice(setup.start(), &[], async |round| {
        let lab = round.lab;
        let address = lab.resolve("web.test").await.unwrap()[0];
        for proxy in [true, false] {
            let ask = async |method: &str, path: &str| {
                let mut stream = if proxy {
                    lab.proxy().await
                } else {
                    lab.guest().connect(address, 80).await.unwrap()
                };
                let target = if proxy {
                    format!("http://web.test{path}")
                } else {
                    path.to_owned()
                };
                let request = format!("{method} {target} HTTP/1.1\r\nHost: web.test\r\n\r\n");
                say(&mut stream, request).await
            };
            for (path, sent) in PASSED {
                assert_eq!(ask("GET", path).await.status, 200, "{path}");
                let heard = tape.take();
                assert!(
                    heard.starts_with(&format!("GET {sent} HTTP/1.1\r\n")),
                    "{path}: {heard}"
                );
                assert_eq!(round.recorded_at_least(1).await.len(), 1);
            }
            for path in DENIED {
                assert_eq!(ask("GET", path).await.status, 403, "{path}");
                let reason = if path.contains("dmin") {
                    "deny-rule"
                } else {
                    "default-deny"
                };
                round.blocked(reason, "web.test").await;
            }
            assert_eq!(ask("POST", "/open/a").await.status, 403);
            round.blocked("default-deny", "web.test").await;
            for path in DOUBTFUL {
                assert_eq!(ask("GET", path).await.status, 400, "{path}");
                round.refused_as_bad(path).await;
            }
            assert_eq!(tape.take(), "");
        }
    });
}

#[test]
fn attack_36_a_rule_about_bodies_is_refused_and_not_left_out() {
    // There are none: a policy that has one must not be read without it.
    let upstream = EchoUpstream::start().unwrap();
    let mut lab = Setup::new(&[])
        .send_to("web.test:80", upstream.address())
        .start();
    let mut config = lab.config();
    config.file.policy.rules = vec![http_rule("allow web.test ANY /**")];
    let good = serde_json::to_string(&Command::Configure(Box::new(config))).unwrap();
    let with_body = good.replace("\"methods\":", "\"body\":{\"contains\":\"x\"},\"methods\":");
    assert_ne!(good, with_body);
    let answer = lab.ask_raw(with_body.as_bytes());
    assert!(
        matches!(&answer, Answer::Refused { reason } if reason.contains("unknown field `body`")),
        "{answer:?}"
    );
    let file = serde_json::from_str::<serde_json::Value>(&with_body).unwrap()["file"].to_string();
    for round in 0..2 {
        let compressed = "POST http://web.test/upload HTTP/1.1\r\nHost: web.test\r\nContent-Encoding: gzip\r\n\
                          Content-Length: 2\r\n\r\n\x1f\u{8b}";
        run(async {
            let answer = say(&mut lab.proxy().await, compressed).await;
            let reason = if round == 0 {
                "default-deny"
            } else {
                "policy-unavailable"
            };
            assert_eq!((answer.status, answer.reason()), (403, reason));
            lab.one_record(reason, "web.test").await;
        });
        std::fs::write(lab.path("run/gateway.json"), &file).unwrap();
        lab.reboot();
    }
    for recorder in [upstream.recorder(), lab.dns.recorder()] {
        assert_eq!(recorder.bytes_received(), 0);
    }
}

#[test]
fn attack_37_a_redirect_is_the_clients_to_follow_and_takes_no_credential_along() {
    let api = EchoUpstream::start_tls(&["api.test"]).unwrap();
    let other = EchoUpstream::start().unwrap();
    let setup = Setup::new(&["allow api.test", "allow other.test"])
        .tls_upstream("api.test", &api)
        .send_to("other.test:80", other.address())
        .credential("api.test");
    twice(
        setup.start(),
        &[api.recorder(), other.recorder()],
        async |round| {
            let lab = round.lab;
            for (to, host, reason) in [
                ("http://other.test/echo", "other.test", ""),
                ("http://evil.test/echo", "evil.test", "default-deny"),
                (
                    "http://169.254.169.254/latest",
                    "169.254.169.254",
                    "default-deny",
                ),
                ("http://10.0.0.1/", "10.0.0.1", "default-deny"),
                ("http://localhost:9/", "localhost", "default-deny"),
            ] {
                for alpn in [&b"http/1.1"[..], b"h2"] {
                    let stream = lab.connect("api.test:443").await.unwrap();
                    let stream = lab.tls(stream, "api.test", &[alpn]).await.unwrap();
                    let redirect = format!("https://api.test/redirect?to={to}");
                    let answer = if alpn == b"h2" {
                        let mut client = h2(stream).await;
                        client.send_request(get(&redirect, "api.test")).await
                    } else {
                        let redirect = get(&redirect["https://api.test".len()..], "api.test");
                        send(&mut h1(stream).await, redirect).await
                    };
                    let answer = answer.unwrap();
                    assert_eq!(answer.status(), 302);
                    assert_eq!(answer.headers()["location"], to);
                    let asked = api.recorder().requests();
                    assert_eq!(asked.last().unwrap().header("x-api-key"), Some(SECRET));
                    let record = round.recorded_at_least(1).await;
                    assert_eq!(
                        (record.len(), record[0].credential.as_deref()),
                        (1, Some("anthropic"))
                    );
                }
                round.forget_so_far().await;
                // The client follows.
                let mut client = h1(lab.proxy().await).await;
                let authority = to.split('/').nth(2).unwrap();
                for method in ["GET", "HEAD"] {
                    let mut request = get(to, authority);
                    *request.method_mut() = method.parse().unwrap();
                    let answer = send(&mut client, request).await.unwrap();
                    if reason.is_empty() {
                        assert_eq!(answer.status(), 200);
                        text(answer).await;
                        let asked = other.recorder().requests();
                        assert_eq!(asked.last().unwrap().header("x-api-key"), None);
                        assert_eq!(round.recorded_at_least(1).await[0].credential, None);
                        round.forget_so_far().await;
                    } else {
                        assert_eq!(answer.status(), 403, "{to}");
                        round.recorded_blocked(host).await;
                        text(answer).await;
                    }
                }
                // As careless clients do, with what they sent the first time.
                for header in ["x-api-key", "authorization", "cookie"] {
                    let mut request = get(to, authority);
                    let name = HeaderName::from_bytes(header.as_bytes()).unwrap();
                    request
                        .headers_mut()
                        .insert(name, PLACEHOLDER.parse().unwrap());
                    let answer = send(&mut client, request).await.unwrap();
                    assert_eq!(text(answer).await.0, 403, "{to} {header}");
                    round.recorded_blocked(host).await;
                }
            }
        },
    );
}

#[test]
fn attack_37_a_redirect_that_shows_the_value_leads_nowhere_with_it_compressed_and_over_http2() {
    let api = EchoUpstream::start_tls(&["api.test"]).unwrap();
    let (bound, open) = (
        EchoUpstream::start_tls(&[OTHER]),
        EchoUpstream::start_tls(&["open.test"]),
    );
    let (bound, open) = (bound.unwrap(), open.unwrap());
    let own = other();
    let lab = Setup::new(&["allow api.test", "allow other.test", "allow open.test"])
        .tls_upstream("api.test", &api)
        .tls_upstream(OTHER, &bound)
        .tls_upstream("open.test", &open)
        .credential("api.test")
        .bind(own.clone())
        .start();
    run(async {
        let ask = async |alpn: &'static [u8], host: &str, path: &str| {
            let stream = lab.connect(&format!("{host}:443")).await.unwrap();
            let stream = lab.tls(stream, host, &[alpn]).await.unwrap();
            let answer = if alpn == b"h2" {
                let request = get(&format!("https://{host}{path}"), host);
                h2(stream).await.send_request(request).await
            } else {
                send(&mut h1(stream).await, get(path, host)).await
            };
            answer.unwrap()
        };
        for alpn in [&b"http/1.1"[..], b"h2"] {
            for (coding, host) in [("", OTHER), ("gzip", OTHER), ("br", "open.test")] {
                let to = format!("/moved?to=https://{host}/echo&coding={coding}");
                let answer = ask(alpn, "api.test", &to).await;
                assert_eq!(answer.status(), 302);
                let asked = api.recorder().requests();
                assert_eq!(asked.last().unwrap().header("x-api-key"), Some(SECRET));
                let location = answer.headers()["location"].to_str().unwrap().to_owned();
                assert_eq!(location, format!("https://{host}/echo?key={PLACEHOLDER}"));
                let (_, page) = text(answer).await;
                assert!(
                    !page.contains(SECRET) && page.contains(PLACEHOLDER),
                    "{page}"
                );
                // The client follows, without what it was shown: a host has its own credential or none.
                let (status, page) = text(ask(alpn, host, "/echo").await).await;
                assert_eq!(status, 200, "{page}");
                let there = if host == OTHER { &bound } else { &open };
                let asked = there.recorder().requests();
                let asked = asked.last().unwrap();
                let version = if alpn == b"h2" {
                    "HTTP/2.0"
                } else {
                    "HTTP/1.1"
                };
                assert_eq!(asked.version, version);
                let written = (host == OTHER).then(|| format!("Bearer {}", own.value.expose()));
                assert_eq!(asked.header("authorization"), written.as_deref());
                assert_eq!(asked.header("x-api-key"), None);
                // And with it: what was made of the value is stopped where anything is bound.
                if host == OTHER {
                    let path = location.strip_prefix("https://other.test").unwrap();
                    let answer = ask(alpn, host, path).await;
                    assert_eq!(
                        answer.headers()["x-sbx-reason"],
                        "placeholder-to-unbound-host"
                    );
                    assert_eq!(text(answer).await.0, 403);
                }
            }
        }
        for upstream in [&bound, &open] {
            let arrived = format!("{:?}", upstream.recorder().entries());
            assert!(!arrived.contains(SECRET) && !arrived.contains(PLACEHOLDER));
        }
    });
}
