//! What is under way when something that it was granted by is taken away: a credential, an address, an override.

use std::net::SocketAddr;
use std::time::Duration;

use sbx_policy::HttpMatch;
use sbx_testkit::recorder::{Entry, Event};
use sbx_testkit::upstream::TcpEcho;
use sbx_testkit::{EchoUpstream, Recorder};
use sbx_wire::gateway::{Credential, Replace};
use sbx_wire::secret::SecretText;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attack::{closed, rest, say};
use crate::attacks_http::UPGRADE;
use crate::lab::{Lab, PLACEHOLDER, SECRET, Setup, anthropic, get, h2, rule, run};
use crate::tape::Tape;

const API: &str = "api.test";

/// A secret that is written wherever its placeholder stands, bodies and messages included.
fn anywhere() -> Credential {
    Credential {
        header: String::new(),
        format: String::new(),
        replace: Some(Replace {
            body: true,
            login: false,
        }),
        ..anthropic(API)
    }
}

fn lab(upstream: &EchoUpstream) -> Lab {
    Setup::new(&["allow api.test"])
        .tls_upstream(API, upstream)
        .bind(anywhere())
        .start()
}

fn withdraw(lab: &mut Lab) {
    lab.credentials.clear();
    lab.file.credential_hosts.clear();
    tokio::task::block_in_place(|| {
        lab.write_file();
        lab.configure();
    });
}

/// A text frame of a client, unmasked by a key of zeros.
fn frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
    frame.extend(text.bytes());
    frame
}

/// The messages that the upstream got.
fn messages(recorder: &Recorder) -> Vec<String> {
    let message = |entry: Entry| match entry.event {
        Event::Frame { first, text, .. } if first & 8 == 0 => Some(text),
        _ => None,
    };
    recorder.entries().into_iter().filter_map(message).collect()
}

#[test]
fn a_websocket_is_closed_when_the_credential_that_is_written_into_it_is_withdrawn_and_not_when_it_changes()
 {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let mut lab = lab(&upstream);
    run(async {
        let stream = lab.connect("api.test:443").await.unwrap();
        let mut socket = lab.tls(stream, API, &[b"http/1.1"]).await.unwrap();
        let head = format!("GET /ws HTTP/1.1\r\nHost: api.test\r\n{UPGRADE}\r\n");
        assert_eq!(say(&mut socket, head).await.status, 101);
        for number in 0..2 {
            socket.write_all(&frame(PLACEHOLDER)).await.unwrap();
            let mut head = [0; 2];
            socket.read_exact(&mut head).await.unwrap();
            let mut message = vec![0; usize::from(head[1])];
            socket.read_exact(&mut message).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&message), PLACEHOLDER);
            if number == 0 {
                lab.credentials[0].value = SecretText::new("another-real-value".to_owned());
                tokio::task::block_in_place(|| lab.configure());
            }
        }
        withdraw(&mut lab);
        let _ = socket.write_all(&frame(PLACEHOLDER)).await;
        assert!(rest(&mut socket).await.len() <= 64);
        closed(upstream.recorder()).await;
        lab.one_record("credential-withdrawn", API).await;
        // What was opened with one goes on with it: it was good then.
        assert_eq!(messages(upstream.recorder()), [SECRET, SECRET]);
    });
}

#[test]
fn a_request_whose_credential_is_withdrawn_before_all_of_it_is_here_is_not_sent() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let mut lab = lab(&upstream);
    run(async {
        let stream = lab.connect("api.test:443").await.unwrap();
        let mut stream = lab.tls(stream, API, &[b"http/1.1"]).await.unwrap();
        let request = format!(
            "POST /upload HTTP/1.1\r\nHost: api.test\r\nx-note: {PLACEHOLDER}\r\nContent-Length: 10\r\n\r\nhello"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        // Judged by now: what the same guest asks later has been answered.
        assert_eq!(lab.connect("a b").await.err().unwrap().0, 400);
        withdraw(&mut lab);
        let answer = say(&mut stream, "world").await;
        assert_eq!(
            (answer.status, answer.reason()),
            (403, "credential-withdrawn")
        );
        assert!(upstream.recorder().requests().is_empty());
        lab.one_record("credential-withdrawn", API).await;
    });
}

#[test]
fn a_tunnel_is_closed_when_an_address_that_it_may_lead_to_is_denied() {
    let local = |last: u8, port| SocketAddr::from(([127, 0, 0, last], port));
    let echo = TcpEcho::start_with(local(5, 0), Recorder::new()).unwrap();
    let port = echo.address().port();
    let name = format!("allow two.test:{port}");
    let mut lab = Setup::new(&[&name, "allow 127.0.0.5", "allow 127.0.0.6"])
        .name("two.test", &[[127, 0, 0, 5].into(), [127, 0, 0, 6].into()])
        .start();
    run(async {
        let mut stream = lab.connect(&format!("two.test:{port}")).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'h');
        let rules = [&name, "deny 127.0.0.5", "allow 127.0.0.6"];
        tokio::task::block_in_place(|| lab.set_rules(&rules));
        lab.one_record("policy-changed", "two.test").await;
        let ended = async { while stream.read_u8().await.is_ok() {} };
        let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
        ended.expect("the tunnel goes on");
    });
}

#[test]
fn a_connection_that_was_opened_under_an_older_policy_takes_no_request_of_a_newer_one() {
    let (before, after) = (
        EchoUpstream::start_tls(&[API]).unwrap(),
        EchoUpstream::start_tls(&[API]).unwrap(),
    );
    let mut lab = Setup::new(&["allow api.test"])
        .tls_upstream(API, &after)
        .tls_upstream(API, &before)
        .credential(API)
        .start();
    run(async {
        let stream = lab.connect("api.test:443").await.unwrap();
        // What it speaks is what the upstream chose.
        let both: [&[u8]; 2] = [b"h2", b"http/1.1"];
        let stream = lab.tls(stream, API, &both).await.unwrap();
        let mut client = h2(stream).await;
        assert_eq!(before.recorder().connections(), 1, "it was dialled first");
        let target = lab.file.upstream.overrides.keys().next().unwrap().clone();
        let overrides = &mut lab.file.upstream.overrides;
        overrides.insert(target, after.address());
        tokio::task::block_in_place(|| {
            lab.write_file();
            lab.configure();
        });
        let answer = client
            .send_request(get("https://api.test/now", API))
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert!(before.recorder().requests().is_empty());
        assert_eq!(after.recorder().requests().len(), 1);
    });
}

#[test]
fn attack_56_a_value_in_the_reason_phrase_does_not_come_back() {
    let tape = Tape::answering(&[
        "HTTP/1.1 401 Invalid token sk-the-real-value-that-never-enters\r\nContent-Length: 0\r\n\r\n",
    ]);
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", tape.address)
        .bind(anthropic("web.test:80"))
        .start();
    run(async {
        let mut stream = lab.proxy().await;
        let asked = "GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n";
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        let all = String::from_utf8_lossy(&all).into_owned();
        assert!(tape.take().contains(SECRET));
        assert!(all.starts_with("HTTP/1.1 401 "), "{all}");
        assert!(!all.contains(SECRET), "{all}");
    });
}

#[test]
fn a_connection_that_a_login_is_tied_to_takes_no_request_for_another_host() {
    const LOGIN: &str =
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n";
    let evil = Tape::answering(&[LOGIN, LOGIN]);
    let own = EchoUpstream::start().unwrap();
    let lab = Setup::new(&["allow evil.test", "allow web.test"])
        .send_to("evil.test:80", evil.address)
        .send_to("web.test:80", own.address())
        .bind(anthropic("web.test:80"))
        .start();
    run(async {
        let mut stream = lab.proxy().await;
        for host in ["evil.test", "web.test"] {
            let asked = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let answer = say(&mut stream, asked).await;
            let status = if host == "evil.test" { 401 } else { 200 };
            assert_eq!(answer.status, status, "{host}");
        }
        assert!(!evil.take().contains(SECRET));
        assert_eq!(own.recorder().requests().len(), 1);
    });
}

#[test]
fn attack_55_nothing_is_written_in_clear_text_to_the_port_of_tls() {
    let upstream = EchoUpstream::start().unwrap();
    let lab = Setup::new(&["allow api.test", "allow web.test:443"])
        .send_to("api.test:443", upstream.address())
        .send_to("web.test:443", upstream.address())
        .credential(API)
        .start();
    run(async {
        for host in [API, "web.test"] {
            let mut stream = lab.proxy().await;
            let asked = format!("GET http://{host}:443/ HTTP/1.1\r\nHost: {host}:443\r\n\r\n");
            let answer = say(&mut stream, asked).await;
            assert_eq!(answer.status, 400, "{host}");
            assert!(answer.body.contains("port 443 is for TLS"), "{answer:?}");
        }
        assert_eq!(upstream.recorder().connections(), 0);
        lab.records_that(2, |record| record.reason == "bad-request")
            .await;
    });
}

#[test]
fn headers_that_change_method_or_path_are_refused_where_rules_look_at_them() {
    let upstream = EchoUpstream::start().unwrap();
    let mut only_posts = rule("allow web.test");
    only_posts.http = Some(HttpMatch {
        methods: "POST".parse().unwrap(),
        path: "/**".parse().unwrap(),
    });
    let mut setup = Setup::new(&["allow free.test"])
        .send_to("web.test:80", upstream.address())
        .send_to("free.test:80", upstream.address());
    setup.file.policy.rules.push(only_posts);
    let lab = setup.start();
    run(async {
        for (host, header, status) in [
            ("web.test", "X-HTTP-Method-Override: DELETE", 400),
            ("web.test", "X-Original-URL: /other", 400),
            ("web.test", "X-Other: DELETE", 200),
            ("free.test", "X-HTTP-Method-Override: DELETE", 200),
        ] {
            let mut stream = lab.proxy().await;
            let asked = format!(
                "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\n{header}\r\nContent-Length: 0\r\n\r\n"
            );
            let answer = say(&mut stream, asked).await;
            assert_eq!(answer.status, status, "{host} {header}");
        }
        assert_eq!(upstream.recorder().requests().len(), 2);
    });
}
