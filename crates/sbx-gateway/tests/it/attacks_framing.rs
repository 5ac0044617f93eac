//! Attacks on the framing of HTTP/1.1: cases 23 to 29, but for bodies.

use tokio::io::AsyncWriteExt;

use crate::attack::{hear, say, twice};
use crate::lab::Setup;
use crate::tape::Tape;
use crate::ways::{Upstreams, WAYS, Way};

#[test]
fn attack_23_content_length_beside_transfer_encoding_is_refused() {
    let upstreams = Upstreams::new();
    twice(
        upstreams.setup().start(),
        &upstreams.watched(),
        async |round| {
            let smuggled = "GET http://web.test/smuggled HTTP/1.1\r\nHost: web.test\r\n\r\n";
            for way in WAYS {
                for both in [
                    "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
                    "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
                    "Transfer-Encoding: Chunked\r\nX: y\r\ncontent-length: 0\r\n",
                ] {
                    let head = way.head("POST", "/upload");
                    let request = format!("{head}{both}\r\n5\r\nhello\r\n0\r\n\r\n{smuggled}");
                    way.refuses(round, request).await;
                }
            }
        },
    );
}

#[test]
fn attack_24_a_content_length_that_can_be_read_in_two_ways_is_refused() {
    let upstreams = Upstreams::new();
    twice(
        upstreams.setup().start(),
        &upstreams.watched(),
        async |round| {
            for way in WAYS {
                for lengths in [
                    "Content-Length: 5\r\nContent-Length: 6\r\n",
                    "Content-Length: 5\r\nContent-Length: 5\r\n",
                    "Content-Length: 05\r\n",
                    "Content-Length: 5\r\nContent-Length: x\r\n",
                    "Content-Length: x\r\nContent-Length: 5\r\n",
                    "Content-Length: 5,6\r\n",
                    "Content-Length: 5,5\r\n",
                    "Content-Length: +5\r\n",
                    "Content-Length: -5\r\n",
                    "Content-Length: 0x5\r\n",
                    "Content-Length: 5 5\r\n",
                    "Content-Length: \r\n",
                    "Content-Length: 18446744073709551621\r\n",
                ] {
                    let head = way.head("POST", "/upload");
                    way.refuses(round, format!("{head}{lengths}\r\nhello!"))
                        .await;
                }
            }
        },
    );
}

#[test]
fn attack_25_codings_and_line_ends_that_servers_read_differently_are_refused() {
    let upstreams = Upstreams::new();
    twice(
        upstreams.setup().start(),
        &upstreams.watched(),
        async |round| {
            for way in WAYS {
                for header in [
                    "Transfer-Encoding: xchunked\r\n",
                    "Transfer-Encoding: chunked, identity\r\n",
                    "Transfer-Encoding: identity, chunked\r\n",
                    "Transfer-Encoding: gzip, chunked\r\n",
                    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
                    "Transfer-Encoding : chunked\r\n",
                    "Transfer-Encoding:\x0bchunked\r\n",
                    "X: y\r\nTransfer-Encoding: chunked,\r\n",
                    "X: a\r\n b\r\n",
                    "X: a\r\n\tTransfer-Encoding: chunked\r\n",
                    "X: a\nY: b\r\n",
                    "X: a\rY: b\r\n",
                    "X: a\r\r\n",
                    "X\r\n",
                    ": a\r\n",
                ] {
                    let head = way.head("POST", "/upload");
                    way.refuses(round, format!("{head}{header}\r\n5\r\nhello\r\n0\r\n\r\n"))
                        .await;
                }
                // The end of the request line, of the last header and of the head.
                let (target, host) = (way.target("/upload"), way.host());
                for request in [
                    format!("GET {target} HTTP/1.1\nHost: {host}\r\n\r\n"),
                    format!("GET {target} HTTP/1.1\r\nHost: {host}\n\r\n"),
                    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\n"),
                    format!("GET {target} HTTP/1.1\nHost: {host}\n\n"),
                    format!("GET {target} HTTP/1.1\r\n Host: {host}\r\n\r\n"),
                    format!("GET  {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
                    format!("GET {target} HTTP/1.1 \r\nHost: {host}\r\n\r\n"),
                    format!("GET {target}\tHTTP/1.1\r\nHost: {host}\r\n\r\n"),
                    format!("GET {target} HTTP/1.2\r\nHost: {host}\r\n\r\n"),
                    format!("GET {target}\r\n\r\n"),
                ] {
                    way.refuses(round, request).await;
                }
            }
        },
    );
}

#[test]
fn attack_28_every_request_on_a_kept_connection_is_judged_by_itself() {
    let upstreams = Upstreams::new();
    let setup = upstreams
        .setup()
        .send_to("other.test:80", upstreams.plain.address());
    let mut setup = setup;
    setup
        .file
        .policy
        .rules
        .push(crate::lab::rule("allow other.test"));
    twice(setup.start(), &upstreams.watched(), async |round| {
        for way in WAYS {
            let good = format!("{}\r\n", way.head("GET", "/echo"));
            let foreign = |host: &str| match way {
                Way::Proxy => format!("GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
                _ => format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            };
            let reason = match way {
                Way::Proxy | Way::Transparent => "default-deny",
                Way::Port80 | Way::Opened | Way::OpenedTransparent => "host-mismatch",
            };
            // One after the other, and in one piece.
            for pipelined in [false, true] {
                let mut stream = way.open(round).await;
                if pipelined {
                    let all = format!("{good}{}", foreign("evil.test"));
                    stream.write_all(all.as_bytes()).await.unwrap();
                    assert_eq!(hear(&mut stream).await.status, 200, "{way:?}");
                } else {
                    assert_eq!(say(&mut stream, &good).await.status, 200, "{way:?}");
                    stream
                        .write_all(foreign("evil.test").as_bytes())
                        .await
                        .unwrap();
                }
                let refused = hear(&mut stream).await;
                assert_eq!((refused.status, refused.reason()), (403, reason), "{way:?}");
                let records = round.recorded_at_least(2).await;
                let seen: Vec<_> = records
                    .iter()
                    .map(|r| (r.reason.as_str(), r.host.as_str()))
                    .collect();
                assert_eq!(
                    seen,
                    [("allow-rule", way.host()), (reason, "evil.test")],
                    "{way:?}"
                );
            }
            // Another allowed host is no host of this connection, unless each request says where it goes.
            let mut stream = way.open(round).await;
            assert_eq!(say(&mut stream, &good).await.status, 200, "{way:?}");
            let other = say(&mut stream, foreign("other.test")).await;
            let want = match way {
                Way::Proxy => (200, ""),
                Way::Transparent => (403, "address-not-pinned"),
                Way::Port80 | Way::Opened | Way::OpenedTransparent => (403, "host-mismatch"),
            };
            assert_eq!((other.status, other.reason()), want, "{way:?}");
            assert_eq!(round.recorded_at_least(2).await.len(), 2);
            for recorder in upstreams.watched() {
                let hosts = recorder.requests().into_iter().filter_map(|request| {
                    let host = request.header("host").map(str::to_owned);
                    host.or(Some(request.uri))
                });
                for host in hosts {
                    assert!(!host.contains("evil.test"), "{way:?}: {host}");
                }
            }
            round.forget_so_far().await;
        }
    });
}

#[test]
fn attack_29_http2_in_clear_text_is_neither_upgraded_to_nor_spoken() {
    let tape = Tape::start();
    let setup = Setup::new(&["allow web.test"]).send_to("web.test:80", tape.address);
    twice(setup.start(), &[], async |round| {
        for way in [Way::Proxy, Way::Port80, Way::Transparent] {
            for connection in [
                "Upgrade, HTTP2-Settings",
                "upgrade",
                "HTTP2-Settings",
                "close",
            ] {
                let mut stream = way.open(round).await;
                let head = way.head("GET", "/echo");
                let request = format!(
                    "{head}Connection: {connection}\r\nUpgrade: h2c\r\n\
                     HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
                );
                assert_eq!(
                    say(&mut stream, request).await.status,
                    200,
                    "{way:?} {connection}"
                );
                let heard = tape.take().to_ascii_lowercase();
                assert!(heard.starts_with("get /echo http/1.1\r\n"), "{heard}");
                assert!(
                    !heard.contains("h2c") && !heard.contains("http2-settings"),
                    "{heard}"
                );
                assert_eq!(round.recorded_at_least(1).await.len(), 1);
            }
            let mut stream = way.open(round).await;
            let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            let answer = say(&mut stream, preface).await;
            assert!(matches!(answer.status, 0 | 400), "{way:?}: {answer:?}");
            round.refused_as_bad(preface).await;
            assert_eq!(tape.take(), "");
        }
    });
}
