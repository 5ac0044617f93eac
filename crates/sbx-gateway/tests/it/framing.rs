//! Where a request ends: said in one way, or refused before anything goes upstream.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use sbx_gateway::limits;
use sbx_testkit::EchoUpstream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::guest::Stream;
use crate::lab::{Lab, NOWHERE, PLACEHOLDER, Setup, run};

const HOST: &str = "web.test";

/// An upstream that is shown what came, byte by byte, and answers as told.
fn raw_upstream(answers: &'static [&'static [u8]]) -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender) = (stream.unwrap(), sender.clone());
            std::thread::spawn(move || {
                let mut answers = answers.iter();
                let mut piece = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = stream.read(&mut piece) {
                    sender.send(piece[..length].to_vec()).unwrap();
                    if let Some(answer) = answers.next() {
                        stream.write_all(answer).unwrap();
                    }
                }
            });
        }
    });
    (address, received)
}

async fn read_all(stream: &mut Stream) -> String {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    String::from_utf8_lossy(&all).into_owned()
}

/// The lab, an upstream for clear text and one for opened TLS.
fn lab() -> (Lab, EchoUpstream, EchoUpstream) {
    let plain = EchoUpstream::start().unwrap();
    let tls = EchoUpstream::start_tls(&["api.test"]).unwrap();
    let lab = Setup::new(&["allow web.test", "allow api.test"])
        .send_to("web.test:80", plain.address())
        .tls_upstream("api.test", &tls)
        .credential("api.test")
        .start();
    (lab, plain, tls)
}

const REFUSED: [&str; 14] = [
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 5\r\nContent-Length: 5",
    "Content-Length: +5",
    "Content-Length: 5,5",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: gzip, chunked",
    "X: a\r\n b",
    "X: a\nY: b",
    "X: a\rY: b",
    "X: a\0b",
    "Host: other.test",
];

#[test]
fn a_head_that_can_be_read_in_two_ways_is_400_on_every_door_and_nothing_goes_upstream() {
    let (lab, plain, tls) = lab();
    run(async {
        for header in REFUSED {
            let rest = format!("{header}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
            let forward =
                format!("POST http://web.test/upload HTTP/1.1\r\nHost: web.test\r\n{rest}");
            let origin = format!("POST /upload HTTP/1.1\r\nHost: web.test\r\n{rest}");
            let opened = format!("POST /upload HTTP/1.1\r\nHost: api.test\r\n{rest}");
            let address = lab.resolve(HOST).await.unwrap()[0];
            let mut answers = Vec::new();
            let mut proxy = lab.proxy().await;
            proxy.write_all(forward.as_bytes()).await.unwrap();
            answers.push(read_all(&mut proxy).await);
            let mut direct = lab.guest().connect(address, 80).await.unwrap();
            direct.write_all(origin.as_bytes()).await.unwrap();
            answers.push(read_all(&mut direct).await);
            let tunnel = lab.connect("api.test:443").await.unwrap();
            let mut tunnel = lab.tls(tunnel, "api.test", &[b"http/1.1"]).await.unwrap();
            tunnel.write_all(opened.as_bytes()).await.unwrap();
            let mut all = Vec::new();
            let _ = tunnel.read_to_end(&mut all).await;
            answers.push(String::from_utf8_lossy(&all).into_owned());
            for answer in answers {
                assert!(answer.starts_with("HTTP/1.1 400 "), "{header:?}: {answer}");
                assert!(answer.contains("connection: close"), "{header:?}: {answer}");
                assert_eq!(
                    answer.matches("HTTP/1.1").count(),
                    1,
                    "{header:?}: {answer}"
                );
            }
        }
        let bad = lab
            .records_that(3 * REFUSED.len(), |r| r.reason == "bad-request")
            .await;
        assert!(
            bad.iter()
                .all(|r| !r.allowed && r.method.as_deref() == Some("POST"))
        );
        assert!(bad.iter().all(|r| r.host == HOST || r.host == "api.test"));
        assert_eq!(
            plain.recorder().connections() + tls.recorder().connections(),
            0
        );
    });
}

#[test]
fn broken_chunks_are_400_and_recorded_as_the_guest_s_fault() {
    let (lab, plain, _) = lab();
    let flood = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(5000));
    let many = format!("5\r\nhello\r\n0\r\n{}\r\n", "x-a: b\r\n".repeat(2000));
    let bodies = [
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhellohello\r\n0\r\n\r\n",
        &flood,
        &many,
    ];
    run(async {
        for body in bodies {
            let mut stream = lab.proxy().await;
            let head = "POST http://web.test/upload HTTP/1.1\r\nHost: web.test\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(body.as_bytes()).await.unwrap();
            let answer = read_all(&mut stream).await;
            assert!(
                answer.starts_with("HTTP/1.1 400 "),
                "{:?}: {answer}",
                &body[..12]
            );
        }
        let bad = |r: &sbx_wire::gateway::EgressRecord| r.reason == "bad-request" && r.host == HOST;
        lab.records_that(bodies.len(), bad).await;
        let whole = plain.recorder().requests();
        assert!(whole.iter().all(|r| r.note == "body cut"), "{whole:?}");
    });
}

#[test]
fn what_lies_behind_a_refused_request_is_never_taken_for_one() {
    let (lab, plain, _) = lab();
    run(async {
        let good =
            "POST http://web.test/one HTTP/1.1\r\nHost: web.test\r\nContent-Length: 2\r\n\r\nhi";
        let bad = "POST http://web.test/two HTTP/1.1\r\nHost: web.test\r\nContent-Length: 3\r\n\
                   Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        let smuggled = "GET http://web.test/smuggled HTTP/1.1\r\nHost: web.test\r\n\r\n";
        let mut stream = lab.proxy().await;
        let all = [good, bad, smuggled].concat();
        stream.write_all(all.as_bytes()).await.unwrap();
        let answer = read_all(&mut stream).await;
        let statuses: Vec<&str> = answer
            .match_indices("HTTP/1.1 ")
            .map(|(at, _)| &answer[at + 9..at + 12])
            .collect();
        assert_eq!(statuses, ["200", "400"], "in their order: {answer}");
        let seen = plain.recorder().requests();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].path, "/one");
    });
}

#[test]
fn pipelined_requests_are_answered_one_after_the_other_each_judged() {
    let (lab, plain, _) = lab();
    run(async {
        let mut all = String::new();
        for host in [HOST, "evil.test", HOST] {
            all += &format!("GET http://{host}/echo HTTP/1.1\r\nHost: {host}\r\n\r\n");
        }
        all += "GET http://web.test/last HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n";
        let mut stream = lab.proxy().await;
        // In pieces that respect nothing.
        for piece in all.as_bytes().chunks(7) {
            stream.write_all(piece).await.unwrap();
        }
        let answer = read_all(&mut stream).await;
        let statuses: Vec<&str> = answer
            .match_indices("HTTP/1.1 ")
            .map(|(at, _)| &answer[at + 9..at + 12])
            .filter(|status| status.bytes().all(|byte| byte.is_ascii_digit()))
            .collect();
        assert_eq!(statuses, ["200", "403", "200", "200"], "{answer}");
        assert_eq!(plain.recorder().requests().len(), 3);
    });
}

#[test]
fn a_head_that_is_too_long_is_431_and_one_below_the_bounds_passes() {
    let (lab, plain, _) = lab();
    run(async {
        let url = format!("http://web.test/{}", "a".repeat(60_000));
        // The stand-in takes 100 itself.
        let many = "X-Many: 1\r\n".repeat(90);
        let close = "Connection: close\r\n\r\n";
        let requests = [
            (
                format!("GET {url} HTTP/1.1\r\nHost: web.test\r\n{close}"),
                "200",
            ),
            (
                format!("GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\n{many}{close}"),
                "200",
            ),
            (
                format!("GET {url}{url} HTTP/1.1\r\nHost: web.test\r\n{close}"),
                "431",
            ),
            (
                format!("GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\n{many}{many}{close}"),
                "431",
            ),
        ];
        for (request, status) in requests {
            let mut stream = lab.proxy().await;
            let _ = stream.write_all(request.as_bytes()).await;
            let answer = read_all(&mut stream).await;
            let want = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&want), "{status}: {answer:.200}");
        }
        assert_eq!(plain.recorder().requests().len(), 2);
    });
}

#[test]
fn an_absolute_url_that_differs_from_host_is_400_on_every_door() {
    let (lab, plain, tls) = lab();
    run(async {
        let request = "GET http://web.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n";
        let mut proxy = lab.proxy().await;
        proxy.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        proxy.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 400");
        let tunnel = lab.connect("api.test:443").await.unwrap();
        let mut tunnel = lab.tls(tunnel, "api.test", &[b"http/1.1"]).await.unwrap();
        tunnel.write_all(request.as_bytes()).await.unwrap();
        tunnel.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 400");
        assert_eq!(
            plain.recorder().connections() + tls.recorder().connections(),
            0
        );
    });
}

#[test]
fn a_client_that_waits_for_100_gets_it_only_when_the_upstream_wants_the_body() {
    let (address, received) = raw_upstream(&[
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ]);
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", address)
        .start();
    run(async {
        let mut stream = lab.proxy().await;
        let head = "POST http://web.test/ HTTP/1.1\r\nHost: web.test\r\nContent-Length: 5\r\n\
                    Expect: 100-continue\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        let seen = String::from_utf8(received.recv().unwrap()).unwrap();
        assert!(seen.contains("expect: 100-continue"), "{seen}");
        assert!(seen.ends_with("\r\n\r\n"), "only the head: {seen}");
        stream.write_all(b"hello").await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        assert_eq!(received.recv().unwrap(), b"hello");
    });
}

#[test]
fn a_client_that_waits_for_100_gets_it_after_a_while_from_an_upstream_that_says_nothing() {
    let (address, received) =
        raw_upstream(&[b"", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]);
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", address)
        .start();
    run(async {
        let mut stream = lab.proxy().await;
        let head = "POST http://web.test/ HTTP/1.1\r\nHost: web.test\r\nContent-Length: 5\r\n\
                    Expect: 100-continue\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let seen = String::from_utf8(received.recv().unwrap()).unwrap();
        assert!(seen.ends_with("\r\n\r\n"), "only the head: {seen}");
        let asked = Instant::now();
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        // The upstream may have been seen a little after the clock began.
        let waited = asked.elapsed();
        assert!(waited > limits::CONTINUE / 2, "{waited:?}");
        stream.write_all(b"hello").await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        assert_eq!(received.recv().unwrap(), b"hello");
    });
}

#[test]
fn an_early_final_answer_comes_without_100_and_the_body_is_never_asked_for() {
    let (address, received) =
        raw_upstream(&[b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"]);
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", address)
        .start();
    run(async {
        for (host, status) in [(HOST, "413"), ("evil.test", "403")] {
            let mut stream = lab.proxy().await;
            let head = format!(
                "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\
                 Expect: 100-continue\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            // To its end: nobody can say whether the body will come, so the connection is closed.
            let answer = read_all(&mut stream).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            assert!(!answer.contains("100 Continue"), "{answer}");
        }
        let seen = String::from_utf8(received.recv().unwrap()).unwrap();
        assert!(seen.ends_with("\r\n\r\n"), "only the head: {seen}");
        let mut stream = lab.proxy().await;
        let head = "POST http://web.test/ HTTP/1.1\r\nHost: web.test\r\nContent-Length: 5\r\n\
                    Expect: something\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read_all(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 417 "), "{answer}");
    });
}

#[test]
fn clients_of_http_1_0_and_answers_without_a_body_work() {
    let (lab, _plain, _tls) = lab();
    run(async {
        for (request, want, without) in [
            (
                "GET http://web.test/big?size=5 HTTP/1.0\r\n\r\n",
                "HTTP/1.0 200 ",
                "chunked",
            ),
            (
                "GET http://web.test/sse?events=2 HTTP/1.0\r\n\r\n",
                "HTTP/1.0 200 ",
                "chunked",
            ),
            (
                "HEAD http://web.test/big?size=5 HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n",
                "content-length: 5",
                "\0",
            ),
            (
                "GET http://web.test/status?code=304 HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n",
                "HTTP/1.1 304 ",
                "chunked",
            ),
            (
                "GET http://web.test/status?code=204 HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n",
                "HTTP/1.1 204 ",
                "content-length",
            ),
        ] {
            let mut stream = lab.proxy().await;
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = read_all(&mut stream).await;
            assert!(answer.contains(want), "{request}: {answer}");
            assert!(!answer.contains(without), "{request}: {answer}");
        }
    });
}

#[test]
fn an_upstream_that_switches_unasked_is_502_and_the_connection_stays_http() {
    let (address, _received) = raw_upstream(&[
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    ]);
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", address)
        .start();
    run(async {
        let mut stream = lab.proxy().await;
        let head = "GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\nConnection: upgrade, close\r\n\
                    Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read_all(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    });
}

#[test]
fn a_websocket_passes_both_doors_and_a_refused_one_leaves_http_behind() {
    let (lab, _plain, _tls) = lab();
    let upgrade = |path: &str, host: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    run(async {
        let address = lab.resolve("api.test").await.unwrap()[0];
        let tunnel = lab.connect("api.test:443").await.unwrap();
        let transparent = lab.guest().connect(address, 443).await.unwrap();
        for stream in [tunnel, transparent] {
            let mut stream = lab.tls(stream, "api.test", &[b"http/1.1"]).await.unwrap();
            // The frame comes with the request: it is held back until the upstream has switched.
            let early = [
                upgrade("/ws", "api.test").as_bytes(),
                b"\x81\x82\x00\x00\x00\x00hi",
            ]
            .concat();
            stream.write_all(&early).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(stream.read_u8().await.unwrap());
            }
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
            let mut frame = [0; 4];
            stream.read_exact(&mut frame).await.unwrap();
            assert_eq!(&frame, b"\x81\x02hi");
        }
        // A refusal leaves the connection as it was, and what follows is judged as HTTP.
        let mut stream = lab.proxy().await;
        let then =
            "GET http://web.test/echo HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n";
        let both = upgrade("http://evil.test/ws", "evil.test") + then;
        stream.write_all(both.as_bytes()).await.unwrap();
        let answer = read_all(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(answer.contains("HTTP/1.1 200 OK"), "{answer}");
    });
}

#[test]
fn alt_svc_is_taken_out_of_answers() {
    let (address, _received) = raw_upstream(&[
        b"HTTP/1.1 200 OK\r\nalt-svc: h3=\":443\"; ma=86400\r\ncontent-length: 2\r\nx-kept: 1\r\n\r\nok",
    ]);
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", address)
        .start();
    run(async {
        let mut stream = lab.proxy().await;
        let head = "GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read_all(&mut stream).await;
        assert!(
            answer.contains("x-kept: 1") && !answer.contains("alt-svc"),
            "{answer}"
        );
    });
}

#[test]
fn a_refused_head_shows_no_secret_in_its_record_and_a_host_that_is_none_is_bounded() {
    let (lab, _plain, _tls) = lab();
    run(async {
        let mut stream = lab.proxy().await;
        let long = "h".repeat(5000);
        let head =
            format!("GET /?key={PLACEHOLDER} HTTP/1.1\r\nHost: {long}\r\nX: a\r\n b\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        assert!(read_all(&mut stream).await.starts_with("HTTP/1.1 400 "));
        let bad = lab.records_that(1, |r| r.reason == "bad-request").await;
        assert_eq!(bad[0].path.as_deref(), Some("/"));
        assert!(bad[0].host.len() <= limits::RECORD_TEXT);
        assert!(lab.guest().connect(NOWHERE, 1).await.is_err());
    });
}
