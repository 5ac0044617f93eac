//! What waits because there is no room: for decoders, and behind a request to change the protocol. And the memory of all.

use std::time::Duration;

use sbx_testkit::EchoUpstream;
use sbx_testkit::recorder::{Entry, Event};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attack::say;
use crate::attacks_credentials::{chunked_as, encoded, noise, two_hosts};
use crate::lab::{Setup, get, h2, run};

const OTHER: &str = "other.test";
/// Time in which an answer would have come.
const NO_ANSWER: Duration = Duration::from_secs(1);
const MIB: usize = 1 << 20;

#[test]
fn eight_bodies_with_large_windows_are_looked_into_at_a_time_and_the_next_waits_for_one_to_end() {
    let upstream = EchoUpstream::start_tls(&["api.test", OTHER]).unwrap();
    let lab = two_hosts(&upstream, &upstream).start();
    let open = async || {
        let stream = lab.connect("other.test:443").await.unwrap();
        lab.tls(stream, OTHER, &[b"http/1.1"]).await.unwrap()
    };
    let whole = |coding| chunked_as((OTHER, "/upload"), coding, &encoded(coding, "some"), 99);
    let long = encoded("br", &noise(4 * MIB));
    let long = chunked_as((OTHER, "/upload"), "br", &long, 64 * 1024);
    run(async {
        let mut looked_into = Vec::new();
        for coding in ["br", "zstd"] {
            while looked_into.len() < 8 {
                let mut stream = open().await;
                // More than the buffers between take: what is written has been read in part.
                stream.write_all(&long[..2 * MIB]).await.unwrap();
                looked_into.push(stream);
            }
            let mut waits = open().await;
            waits.write_all(&whole(coding)).await.unwrap();
            let mut first = [0; 12];
            let answer = tokio::time::timeout(NO_ANSWER, waits.read(&mut first)).await;
            assert!(answer.is_err(), "{coding}: {first:?}");
            // Of others nothing is held.
            let other = say(&mut open().await, whole("gzip")).await;
            assert_eq!(other.status, 200);
            drop(looked_into.pop());
            waits.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"HTTP/1.1 200", "{coding}");
        }
    });
}

#[test]
fn what_follows_a_request_to_change_the_protocol_waits_in_the_socket_until_it_is_answered() {
    let upstream = EchoUpstream::start().unwrap();
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", upstream.address())
        .start();
    run(async {
        let mut stream = lab.proxy().await;
        let request = "GET http://web.test/slow?delay_ms=100000 HTTP/1.1\r\nHost: web.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let piece = vec![b'x'; 64 * 1024];
        let mut taken = 0;
        while let Ok(written) = tokio::time::timeout(NO_ANSWER, stream.write(&piece)).await {
            taken += written.unwrap();
            // The windows of both TCP stacks between are below 2 MiB together.
            assert!(taken < 8 * MIB, "{taken}");
        }
        assert!(taken > 64 * 1024, "{taken}");
    });
}

#[test]
fn a_thousand_requests_over_http2_are_in_work_and_the_next_waits_for_one_to_end() {
    let upstream = EchoUpstream::start_tls(&["api.test"]).unwrap();
    let lab = Setup::new(&["allow api.test"])
        .tls_upstream("api.test", &upstream)
        .credential("api.test")
        .start();
    run(async {
        let guest = async || {
            let stream = lab.connect("api.test:443").await.unwrap();
            let both = [&b"h2"[..], b"http/1.1"];
            h2(lab.tls(stream, "api.test", &both).await.unwrap()).await
        };
        let asked = async |number: usize, limit: Duration| {
            let enough = |entries: &[Entry]| {
                let requests = entries
                    .iter()
                    .filter(|entry| matches!(entry.event, Event::Request(_)));
                requests.count() >= number
            };
            upstream.recorder().until(limit, enough).await
        };
        let mut guests = Vec::new();
        for number in 1..=16 {
            let guest = guest().await;
            let slow = (0..64).map(|_| {
                let mut guest = guest.clone();
                tokio::spawn(async move {
                    let request = get("https://api.test/slow?delay_ms=100000", "api.test");
                    guest.send_request(request).await
                })
            });
            guests.push(slow.collect::<Vec<_>>());
            assert!(
                asked(number * 64, Duration::from_secs(20)).await,
                "{number}"
            );
        }
        let mut last = guest().await;
        let next = tokio::spawn(async move {
            let request = get("https://api.test/echo", "api.test");
            last.send_request(request).await.unwrap().status()
        });
        assert!(!asked(16 * 64 + 1, NO_ANSWER).await);
        for request in guests.pop().unwrap() {
            request.abort();
        }
        assert_eq!(next.await.unwrap(), 200);
    });
}

#[test]
fn the_process_has_two_gib_for_data_and_no_more() {
    let lab = Setup::new(&[]).start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", lab.pid())).unwrap();
    let data = limits
        .lines()
        .find(|line| line.starts_with("Max data size"));
    let words: Vec<&str> = data.unwrap().split_whitespace().collect();
    assert_eq!(words[3..5], ["2147483648", "2147483648"], "{limits}");
}
