//! Attacks that go beyond a limit: case 38.

use std::time::Duration;

use sbx_testkit::EchoUpstream;
use sbx_testkit::recorder::{Entry, Event};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attack::{cut, say, twice};
use crate::lab::{Setup, get, h1, h2, send, text};
use crate::tape::Tape;

#[test]
fn attack_38_answers_and_requests_beyond_a_limit_end_themselves_and_nothing_else() {
    let big: &'static str =
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(128 * 1024)).leak();
    let many: &'static str = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(400)).leak();
    let long = Tape::answering(Box::leak(Box::new([big])));
    let crowd = Tape::answering(Box::leak(Box::new([many])));
    let web = EchoUpstream::start().unwrap();
    let setup = Setup::new(&["allow **"])
        .send_to("long.test:80", long.address)
        .send_to("crowd.test:80", crowd.address)
        .send_to("web.test:80", web.address());
    twice(setup.start(), &[], async |round| {
        let lab = round.lab;
        let mut bystander = h1(lab.proxy().await).await;
        let mut still_served = async || {
            let answer = send(&mut bystander, get("http://web.test/echo", "web.test"))
                .await
                .unwrap();
            assert_eq!(text(answer).await.0, 200);
            assert_eq!(round.recorded_at_least(1).await.len(), 1);
        };
        still_served().await;
        for host in ["long.test", "crowd.test"] {
            let mut stream = lab.proxy().await;
            let request = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(say(&mut stream, request).await.status, 502, "{host}");
            let record = round.recorded_at_least(1).await;
            assert_eq!(
                (record.len(), record[0].reason.as_str()),
                (1, "upstream-unreachable")
            );
            still_served().await;
        }
        let head = |more: String| {
            format!("GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n{more}\r\n")
        };
        for request in [
            head(format!("X: {}\r\n", "y".repeat(128 * 1024))),
            head("X: y\r\n".repeat(400)),
            format!(
                "GET http://evil.test/{} HTTP/1.1\r\n\r\n",
                "y".repeat(128 * 1024)
            ),
            "y".repeat(128 * 1024),
        ] {
            let mut stream = lab.proxy().await;
            let answer = say(&mut stream, &request).await;
            assert!(matches!(answer.status, 400 | 414 | 431), "{answer:?}");
            cut(&mut stream).await;
            round.refused_as_bad(&request[..40]).await;
            still_served().await;
        }
        round.forget_so_far().await;
        // A guest that does not read holds up its own answer, and nobody keeps it for the guest.
        let mut stalled = lab.proxy().await;
        let request =
            "GET http://web.test/big?size=100000000000 HTTP/1.1\r\nHost: web.test\r\n\r\n";
        stalled.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(stalled.read_u8().await.unwrap(), b'H');
        assert_eq!(round.recorded_at_least(1).await.len(), 1);
        let mut sent = 0;
        loop {
            still_served().await;
            let now = web.recorder().bytes_sent();
            // The bystander's own answers are below 1 KiB.
            if now < sent + 64 * 1024 {
                break;
            }
            sent = now;
            assert!(
                sent < 64 << 20,
                "{sent} bytes taken for a guest that does not read"
            );
        }
        drop(stalled);
    });
}

#[test]
fn attack_38_a_request_that_the_guest_gives_up_is_recorded_all_the_same() {
    let plain = EchoUpstream::start().unwrap();
    let api = EchoUpstream::start_tls(&["api.test"]).unwrap();
    let setup = Setup::new(&["allow web.test", "allow api.test"])
        .send_to("web.test:80", plain.address())
        .tls_upstream("api.test", &api)
        .credential("api.test");
    twice(
        setup.start(),
        &[plain.recorder(), api.recorder()],
        async |round| {
            let seen = async |upstream: &EchoUpstream| {
                let asked = |entries: &[Entry]| {
                    entries
                        .iter()
                        .any(|entry| matches!(entry.event, Event::Request(_)))
                };
                assert!(
                    upstream
                        .recorder()
                        .until(Duration::from_secs(10), asked)
                        .await
                );
            };
            let mut stream = round.lab.proxy().await;
            let request =
                "GET http://web.test/slow?delay_ms=100000 HTTP/1.1\r\nHost: web.test\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            seen(&plain).await;
            drop(stream);
            let records = round.recorded_at_least(1).await;
            assert_eq!(
                (records.len(), records[0].reason.as_str()),
                (1, "allow-rule")
            );
            assert_eq!(records[0].path.as_deref(), Some("/slow"));
            // A stream of a connection that goes on.
            let stream = round.lab.connect("api.test:443").await.unwrap();
            let stream = round.lab.tls(stream, "api.test", &[b"h2"]).await.unwrap();
            let mut client = h2(stream).await;
            let request = get("https://api.test/slow?delay_ms=100000", "api.test");
            tokio::select! {
                answer = client.send_request(request) => panic!("{answer:?}"),
                () = seen(&api) => {}
            }
            let records = round.recorded_at_least(1).await;
            assert_eq!(
                (records.len(), records[0].reason.as_str()),
                (1, "allow-rule")
            );
            assert_eq!(records[0].credential.as_deref(), Some("anthropic"));
            round.forget_so_far().await;
        },
    );
}
