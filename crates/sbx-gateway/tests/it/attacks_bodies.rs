//! Attacks on the framing of bodies: cases 27 and 35.

use tokio::io::AsyncWriteExt;

use crate::attack::{hear, rest, say, twice};
use crate::lab::Setup;
use crate::tape::Tape;
use crate::ways::{Upstreams, WAYS, Way};

#[test]
fn attack_27_trailers_that_could_change_a_message_stay_here() {
    let tape = Tape::start();
    let setup = Setup::new(&["allow web.test"]).send_to("web.test:80", tape.address);
    twice(setup.start(), &[], async |round| {
        for way in [Way::Proxy, Way::Port80, Way::Transparent] {
            let mut stream = way.open(round).await;
            let head = way.head("POST", "/upload");
            let request = format!(
                "{head}Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: x-sum, authorization, host, \
                 content-length, transfer-encoding, connection, keep-alive, upgrade, proxy-authorization\r\n\r\n\
                 5\r\nhello\r\n0\r\n\
                 Authorization: Bearer y\r\nHost: evil.test\r\nContent-Length: 1\r\n\
                 Transfer-Encoding: chunked\r\nConnection: close\r\nKeep-Alive: y\r\nUpgrade: y\r\n\
                 Proxy-Authorization: y\r\nX-Api-Key: y\r\nx-sum: 1\r\n\r\n"
            );
            assert_eq!(say(&mut stream, request).await.status, 200, "{way:?}");
            let heard = tape.take().to_ascii_lowercase();
            let (_, trailers) = heard.split_once("\r\n0\r\n").unwrap_or_default();
            assert!(trailers.contains("x-sum: 1\r\n"), "{way:?}: {heard}");
            for name in [
                "authorization",
                "host",
                "content-length",
                "transfer-encoding",
                "connection",
                "upgrade",
                "proxy-authorization",
            ] {
                assert!(!trailers.contains(name), "{way:?} {name}: {heard}");
            }
            assert!(
                heard.contains("host: web.test") && !heard.contains("evil.test"),
                "{heard}"
            );
            assert_eq!(round.recorded_at_least(1).await.len(), 1);
        }
    });
}

#[test]
fn attack_27_broken_chunks_end_the_request_and_its_connection() {
    let upstreams = Upstreams::new();
    twice(
        upstreams.setup().start(),
        &upstreams.watched(),
        async |round| {
            let flood = format!("5;{}\r\nhello\r\n", "x".repeat(64 * 1024));
            let pieces = "1;a=b\r\nx\r\n".repeat(20_000);
            for way in WAYS {
                for chunks in [
                    "10000000000000005\r\nhello\r\n",
                    "FFFFFFFFFFFFFFFFF\r\nhello\r\n",
                    "-5\r\nhello\r\n",
                    "+5\r\nhello\r\n",
                    "0x5\r\nhello\r\n",
                    "5 5\r\nhello\r\n",
                    "\r\nhello\r\n",
                    "5\r\nhelloX\r\n",
                    "5\nhello\r\n",
                    flood.as_str(),
                    pieces.as_str(),
                ] {
                    let head = way.head("POST", "/upload");
                    let request = format!(
                        "{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n\
                     GET http://web.test/smuggled HTTP/1.1\r\nHost: web.test\r\n\r\n"
                    );
                    let mut stream = way.open(round).await;
                    let _ = stream.write_all(request.as_bytes()).await;
                    let shown = &chunks[..chunks.len().min(40)];
                    let answer = hear(&mut stream).await;
                    assert!(
                        matches!(answer.status, 0 | 400 | 502),
                        "{way:?} {shown}: {answer:?}"
                    );
                    let after = rest(&mut stream).await;
                    assert!(
                        after.is_empty(),
                        "{way:?} {shown}: {}",
                        String::from_utf8_lossy(&after)
                    );
                    let record = round.recorded_at_least(1).await;
                    assert_eq!(record.len(), 1, "{way:?} {shown}: {record:#?}");
                    assert_eq!(record[0].reason, "bad-request", "{way:?} {shown}");
                }
            }
            // The upstream saw such bodies begin, and none of them end; nothing behind one became a request.
            for recorder in upstreams.watched() {
                for request in recorder.requests() {
                    assert_eq!(
                        (request.path.as_str(), request.note.as_str()),
                        ("/upload", "body cut")
                    );
                }
            }
        },
    );
}

#[test]
fn attack_35_a_body_that_nobody_wants_is_never_taken_for_a_request() {
    let upstreams = Upstreams::new();
    let denied = Setup::new(&["allow web.test"]).send_to("web.test:80", upstreams.plain.address());
    twice(denied.start(), &upstreams.watched(), async |round| {
        let hidden = "GET http://web.test/smuggled HTTP/1.1\r\nHost: web.test\r\n\r\n";
        for expect in ["", "Expect: 100-continue\r\n", "Range: bytes=0-1\r\n"] {
            let mut stream = round.lab.proxy().await;
            let head = format!(
                "POST http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n{expect}Content-Length: {}\r\n\r\n",
                hidden.len()
            );
            let answer = if expect.starts_with("Expect") {
                // A client that waits gets its answer before it sends anything.
                let answer = say(&mut stream, head).await;
                let _ = stream.write_all(hidden.as_bytes()).await;
                answer
            } else {
                say(&mut stream, format!("{head}{hidden}")).await
            };
            // Not 100: the body is not asked for.
            assert_eq!(
                (answer.status, answer.reason()),
                (403, "default-deny"),
                "{expect}"
            );
            // What is left is read as a body or not at all.
            stream.shutdown().await.unwrap();
            let after = rest(&mut stream).await;
            assert!(after.is_empty(), "{}", String::from_utf8_lossy(&after));
            round.blocked("default-deny", "evil.test").await;
        }
    });
    // An upstream that answers before it has the body: its answer arrives, and the connection that still carries the
    // rest of the body is used for nothing else.
    let early = Tape::answering(&["HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n"]);
    let setup = Setup::new(&["allow web.test"]).send_to("web.test:80", early.address);
    twice(setup.start(), &[], async |round| {
        let mut stream = round.lab.proxy().await;
        let head =
            "POST http://web.test/early HTTP/1.1\r\nHost: web.test\r\nContent-Length: 100\r\n\r\n";
        assert_eq!(say(&mut stream, head).await.status, 413);
        let hidden = "GET /smuggled HTTP/1.1\r\nHost: web.test\r\n\r\n";
        let rest_of_body = format!("{hidden}{}", " ".repeat(100 - hidden.len()));
        let next = "GET http://web.test/next HTTP/1.1\r\nHost: web.test\r\n\r\n";
        let answer = say(&mut stream, format!("{rest_of_body}{next}")).await;
        assert!(matches!(answer.status, 0 | 413), "{answer:?}");
        drop(stream);
        let mut stream = round.lab.proxy().await;
        assert_eq!(say(&mut stream, next).await.status, 413);
        // The connection that carries the body carries nothing in its place, and no other carries a part of it.
        for connection in early.connections() {
            let carried = match connection.split_once("\r\n\r\n") {
                Some((head, body)) if head.starts_with("POST /early ") => {
                    let (body, after) = body.split_at(body.len().min(100));
                    assert!(rest_of_body.starts_with(body), "{connection}");
                    after
                }
                _ => connection.as_str(),
            };
            assert!(!carried.contains("/smuggled"), "{connection}");
        }
        assert!(round.recorded_at_least(2).await.len() <= 3);
    });
}
