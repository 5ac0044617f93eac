//! Placeholders on their way to where they are worth nothing, values on their way back.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use sbx_testkit::EchoUpstream;
use sbx_testkit::recorder::{Entry, Event};
use sbx_wire::gateway::{Credential, Replace, Withdrawn};
use sbx_wire::secret::SecretText;

use crate::attack::{say, twice};
use crate::lab::{Lab, PLACEHOLDER, SECRET, Setup, anthropic, get, h1, h2, run, send, text};

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);
const API: &str = "api.test";
pub(crate) const OTHER: &str = "other.test";

/// A second credential, for a host that has one and not the first.
pub(crate) fn other() -> Credential {
    Credential {
        service: "other".to_owned(),
        header: "authorization".to_owned(),
        format: "Bearer %s".to_owned(),
        placeholder: "other-placeholder-9876543210".to_owned(),
        value: SecretText::new("the-other-real-value".to_owned()),
        ..anthropic(OTHER)
    }
}

pub(crate) fn two_hosts(api: &EchoUpstream, second: &EchoUpstream) -> Setup {
    Setup::new(&["allow api.test", "allow other.test", "allow web.test"])
        .tls_upstream(API, api)
        .tls_upstream(OTHER, second)
        .send_to("web.test:80", second.address())
        .credential(API)
        .bind(other())
}

/// The placeholder in every writing.
pub(crate) fn writings(placeholder: &str) -> Vec<String> {
    let escaped = |format: fn(u8) -> String| placeholder.bytes().map(format).collect::<String>();
    let mut all = vec![
        placeholder.to_owned(),
        format!("Bearer {placeholder}"),
        escaped(|byte| format!("%{byte:02x}")),
        placeholder.replace('-', "%2D"),
        placeholder.replace('e', "\\u0065"),
        format!("Basic {}", STANDARD.encode(format!("user:{placeholder}"))),
    ];
    all.extend((0..3).map(|before| STANDARD.encode(format!("{}{placeholder}!", &"abc"[..before]))));
    all
}

fn post(host: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("host", host)
        .body(Full::new(body.into()))
        .unwrap()
}

#[test]
fn attack_55_a_placeholder_in_the_head_or_a_small_body_is_stopped_before_a_byte_is_sent() {
    let (api, second) = (
        EchoUpstream::start_tls(&[API]),
        EchoUpstream::start_tls(&[OTHER]),
    );
    let (api, second) = (api.unwrap(), second.unwrap());
    let watched = [api.recorder(), second.recorder()];
    twice(two_hosts(&api, &second).start(), &watched, async |round| {
        let lab = round.lab;
        for writing in writings(PLACEHOLDER) {
            for (way, h2_too) in [("proxy", false), ("tls", false), ("tls", true)] {
                let host = if way == "proxy" { "web.test" } else { OTHER };
                let path = if way == "proxy" {
                    "http://web.test/echo"
                } else {
                    "https://other.test/echo"
                };
                let path = if way == "proxy" || h2_too {
                    path
                } else {
                    "/echo"
                };
                let mut requests = vec![post(host, path, format!("{{\"a\":\"{writing}\"}}"))];
                let mut in_header = get(path, host);
                in_header
                    .headers_mut()
                    .insert("x-note", writing.parse().unwrap());
                requests.push(in_header);
                if !writing.contains([' ', '\\']) {
                    requests.push(get(&format!("{path}?a={writing}"), host));
                }
                for request in requests {
                    let answer = if way == "proxy" {
                        send(&mut h1(lab.proxy().await).await, request)
                            .await
                            .unwrap()
                    } else {
                        let stream = lab.connect("other.test:443").await.unwrap();
                        let alpn = if h2_too { &b"h2"[..] } else { b"http/1.1" };
                        let stream = lab.tls(stream, OTHER, &[alpn]).await.unwrap();
                        round.forget_so_far().await;
                        if h2_too {
                            h2(stream).await.send_request(request).await.unwrap()
                        } else {
                            send(&mut h1(stream).await, request).await.unwrap()
                        }
                    };
                    assert_eq!(
                        answer.headers()["x-sbx-reason"],
                        "placeholder-to-unbound-host"
                    );
                    let (status, page) = text(answer).await;
                    assert_eq!(status, 403, "{writing}");
                    assert!(page.contains("the placeholder of anthropic"), "{page}");
                    round
                        .blocked_inside("placeholder-to-unbound-host", host)
                        .await;
                }
            }
        }
    });
}

/// A request whose body comes in pieces, of which nobody knows how many there are.
fn chunked(host: &str, body: &str, piece: usize) -> Vec<u8> {
    // Which answers at once to more than it keeps.
    let path = if body.len() > 60_000 {
        "/upload"
    } else {
        "/echo"
    };
    chunked_as((host, path), "identity", body.as_bytes(), piece)
}

pub(crate) fn chunked_as(
    (host, path): (&str, &str),
    coding: &str,
    body: &[u8],
    piece: usize,
) -> Vec<u8> {
    let mut text = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for piece in body.chunks(piece) {
        text.extend(format!("{:x}\r\n", piece.len()).bytes());
        text.extend_from_slice(piece);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    text
}

#[test]
fn attack_55_a_placeholder_split_over_writes_or_deep_in_a_long_body_never_arrives_whole() {
    let (api, second) = (
        EchoUpstream::start_tls(&[API]),
        EchoUpstream::start_tls(&[OTHER]),
    );
    let (api, second) = (api.unwrap(), second.unwrap());
    let lab = two_hosts(&api, &second).start();
    run(async {
        for writing in writings(PLACEHOLDER) {
            let long = format!("{}{writing}{}", "a".repeat(100_000), "b".repeat(100_000));
            let with_length = format!(
                "POST /upload HTTP/1.1\r\nHost: {OTHER}\r\nContent-Length: {}\r\n\r\n{long}",
                long.len()
            );
            for raw in [
                chunked(OTHER, &format!("a={writing}&b=c"), 5),
                chunked(OTHER, &long, 40_001),
                with_length.into_bytes(),
            ] {
                let stream = lab.connect("other.test:443").await.unwrap();
                let mut stream = lab.tls(stream, OTHER, &[b"http/1.1"]).await.unwrap();
                let answer = say(&mut stream, raw).await;
                assert_eq!(
                    (answer.status, answer.reason()),
                    (403, "placeholder-to-unbound-host"),
                    "{writing}"
                );
                let record = lab.one_record("placeholder-to-unbound-host", OTHER).await;
                assert!(!record.allowed && record.method.as_deref() == Some("POST"));
                lab.forget_records();
            }
        }
        let arrived = format!("{:?}", second.recorder().entries());
        for writing in writings(PLACEHOLDER) {
            assert!(!arrived.contains(&writing), "{writing} arrived");
        }
        // Behind the body, short or long.
        for body in ["a".to_owned(), "a".repeat(100_000)] {
            let mut raw = chunked(OTHER, &body, 50_000);
            raw.truncate(raw.len() - 2);
            raw.extend(format!("x-note: {PLACEHOLDER}\r\n\r\n").bytes());
            let stream = lab.connect("other.test:443").await.unwrap();
            let mut stream = lab.tls(stream, OTHER, &[b"http/1.1"]).await.unwrap();
            let answer = say(&mut stream, raw).await;
            assert_eq!(
                (answer.status, answer.reason()),
                (403, "placeholder-to-unbound-host")
            );
            lab.forget_records();
        }
        let arrived = format!("{:?}", second.recorder().entries());
        assert!(!arrived.contains(PLACEHOLDER), "{arrived}");
        // What ends before it is whole may pass.
        let half = chunked(OTHER, &PLACEHOLDER[..20], 7);
        let stream = lab.connect("other.test:443").await.unwrap();
        let mut stream = lab.tls(stream, OTHER, &[b"http/1.1"]).await.unwrap();
        assert_eq!(say(&mut stream, half).await.status, 200);
        assert!(
            second
                .recorder()
                .requests()
                .last()
                .is_some_and(|request| { request.body == Some(PLACEHOLDER[..20].into()) })
        );
    });
}

/// Every coding that is undone.
const CODINGS: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

pub(crate) fn encoded(coding: &str, text: &str) -> Vec<u8> {
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use std::io::Write;
    let text = text.as_bytes();
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut encoded = Vec::new();
            let mut encoder = brotli::CompressorWriter::new(&mut encoded, 4096, 5, 22);
            encoder.write_all(text).unwrap();
            drop(encoder);
            encoded
        }
        _ => {
            use ruzstd::encoding::{CompressionLevel, compress_to_vec};
            compress_to_vec(text, CompressionLevel::Fastest)
        }
    }
}

/// Text that stays long when it is compressed.
pub(crate) fn noise(length: usize) -> String {
    let mut state = 1_u64;
    let digits = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(b'!' + u8::try_from(state >> 58).unwrap())
    });
    digits.take(length).collect()
}

#[test]
fn attack_55_a_compressed_body_is_looked_into_and_what_cannot_be_is_refused() {
    let (api, second) = (
        EchoUpstream::start_tls(&[API]),
        EchoUpstream::start_tls(&[OTHER]),
    );
    let (api, second) = (api.unwrap(), second.unwrap());
    let stray = "placeholder-to-unbound-host";
    let mut cases = vec![
        ("compress", b"whatever".to_vec(), "body-encoding"),
        ("gzip, gzip", encoded("gzip", "x"), "body-encoding"),
    ];
    for coding in CODINGS {
        let harmless = encoded(coding, "harmless");
        let short = harmless[..harmless.len() - 1].to_vec();
        let bomb = encoded(coding, &"a".repeat((16 << 20) + 1));
        assert!(bomb.len() < 64 << 10);
        cases.extend([
            (coding, harmless, ""),
            (coding, encoded(coding, &format!("a {PLACEHOLDER}")), stray),
            (coding, b"said to be compressed".to_vec(), "bad-request"),
            (coding, short, "bad-request"),
            // What comes out of it step by step has a bound without its being refused.
            (
                coding,
                bomb,
                if coding == "br" { "bad-request" } else { "" },
            ),
        ]);
    }
    let watched = [api.recorder(), second.recorder()];
    twice(two_hosts(&api, &second).start(), &watched, async |round| {
        let lab = round.lab;
        for (coding, body, reason) in &cases {
            let stream = lab.connect("other.test:443").await.unwrap();
            let stream = lab.tls(stream, OTHER, &[b"http/1.1"]).await.unwrap();
            round.forget_so_far().await;
            let mut request = post(OTHER, "/upload", body.clone());
            request
                .headers_mut()
                .insert("content-encoding", coding.parse().unwrap());
            let answer = send(&mut h1(stream).await, request).await.unwrap();
            if reason.is_empty() {
                let (status, page) = text(answer).await;
                assert_eq!(status, 200);
                assert!(
                    page.contains(&format!("\"received\":{}", body.len())),
                    "{page}"
                );
                round.recorded_at_least(1).await;
            } else {
                assert_eq!(answer.headers()["x-sbx-reason"], *reason, "{coding}");
                round.blocked_inside(reason, OTHER).await;
            }
        }
    });
}

#[test]
fn attack_55_a_placeholder_in_a_long_compressed_body_never_arrives_whole() {
    let (api, second) = (
        EchoUpstream::start_tls(&[API]),
        EchoUpstream::start_tls(&[OTHER]),
    );
    let (api, second) = (api.unwrap(), second.unwrap());
    let lab = two_hosts(&api, &second).start();
    let all = noise(400_000);
    let (before, behind) = all.split_at(200_000);
    let arrived = second.recorder();
    let sent = async |coding: &str, body: &[u8], piece: usize| {
        let stream = lab.connect("other.test:443").await.unwrap();
        let mut stream = lab.tls(stream, OTHER, &[b"http/1.1"]).await.unwrap();
        let raw = chunked_as((OTHER, "/upload"), coding, body, piece);
        say(&mut stream, raw).await
    };
    run(async {
        for coding in CODINGS {
            let stray = encoded(coding, &format!("{before}{PLACEHOLDER}{behind}"));
            assert!(stray.len() > 4 * (64 << 10), "{coding}");
            let broken = encoded(coding, &all);
            let broken = &broken[..broken.len() - 1];
            for (body, piece, found) in [
                (&stray[..], 333, true),
                (&stray, 40_001, true),
                (broken, 40_001, false),
            ] {
                let answer = sent(coding, body, piece).await;
                assert_ne!(answer.status, 200, "{coding} {piece}");
                // It is broken off, and the placeholder stands in the middle.
                let received = |entry: &Entry| matches!(entry.event, Event::Request(_));
                assert!(arrived.wait_until(LIMIT, |all| all.iter().any(received)));
                let request = arrived.requests().remove(0);
                assert_eq!(request.note, "body cut", "{coding} {piece}");
                if found {
                    let reason = "placeholder-to-unbound-host";
                    assert_eq!(answer.reason(), reason, "{coding} {piece}");
                    lab.one_record(reason, OTHER).await;
                    let most = body.len() as u64 * 3 / 4;
                    assert!(request.body_bytes < most, "{coding} {piece} {request:?}");
                }
                arrived.clear();
                lab.forget_records();
            }
        }
        for coding in CODINGS {
            let harmless = encoded(coding, &all);
            for piece in [333, 40_001] {
                let answer = sent(coding, &harmless, piece).await;
                assert_eq!(answer.status, 200, "{coding} {piece}");
                let arrived = arrived.requests();
                assert_eq!(arrived.last().unwrap().body_bytes, harmless.len() as u64);
            }
        }
    });
}

#[test]
fn attack_56_a_value_that_comes_back_is_replaced_in_head_and_body_whatever_they_are_written_as() {
    let api = EchoUpstream::start_tls(&[API]).unwrap();
    let setup = Setup::new(&["allow api.test"])
        .tls_upstream(API, &api)
        .credential(API);
    let lab = setup.start();
    run(async {
        for alpn in [&b"http/1.1"[..], b"h2"] {
            for coding in ["", "gzip", "deflate", "br"] {
                for pieces in ["1", "7", "100000"] {
                    for length in ["", "&length"] {
                        let path = format!("/shown?coding={coding}&pieces={pieces}{length}");
                        let (answer, page) = ask(&lab, alpn, &path).await;
                        assert_eq!(answer.status, 200, "{path}");
                        let shown = answer.headers["x-shown"].to_str().unwrap();
                        assert_eq!(shown, format!("key={PLACEHOLDER};"), "{path}");
                        assert!(!answer.headers.contains_key("content-encoding"), "{path}");
                        assert!(!page.contains(SECRET), "{path} {page}");
                        assert!(page.contains(PLACEHOLDER), "{path} {page}");
                        // The end is there as well.
                        assert!(page.contains(&path), "{path} {page}");
                        let told = |record: &sbx_wire::gateway::EgressRecord| {
                            record.alert.as_deref() == Some("value-in-answer") && record.allowed
                        };
                        lab.records_that(1, told).await;
                        lab.forget_records();
                    }
                }
            }
            for coding in ["zstd", "compress"] {
                let (answer, _) = ask(&lab, alpn, &format!("/shown?coding={coding}")).await;
                assert_eq!(answer.status, 502);
                assert_eq!(answer.headers["x-sbx-reason"], "body-encoding");
                lab.forget_records();
            }
        }
        let asked = api.recorder().requests();
        assert!(asked.iter().all(|request| {
            request.header("accept-encoding") == Some("identity")
                && request.header("x-api-key") == Some(SECRET)
        }));
    });
}

#[test]
fn attack_56_a_value_in_the_head_that_opens_a_websocket_is_replaced() {
    let api = EchoUpstream::start_tls(&[API]).unwrap();
    let setup = Setup::new(&["allow api.test"])
        .tls_upstream(API, &api)
        .credential(API);
    let lab = setup.start();
    run(async {
        let stream = lab.connect("api.test:443").await.unwrap();
        let mut stream = lab.tls(stream, API, &[b"http/1.1"]).await.unwrap();
        let asked = "GET /ws HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let answer = say(&mut stream, asked).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        let shown = format!("key={PLACEHOLDER};");
        assert_eq!(answer.header("x-shown"), Some(shown.as_str()), "{answer:?}");
        let told = |record: &sbx_wire::gateway::EgressRecord| {
            record.alert.as_deref() == Some("value-in-answer")
        };
        lab.records_that(1, told).await;
    });
}

async fn ask(lab: &Lab, alpn: &[u8], path: &str) -> (hyper::http::response::Parts, String) {
    let stream = lab.connect("api.test:443").await.unwrap();
    let stream = lab.tls(stream, API, &[alpn]).await.unwrap();
    let answer = if alpn == b"h2" {
        let request = get(&format!("https://api.test{path}"), API);
        h2(stream).await.send_request(request).await
    } else {
        send(&mut h1(stream).await, get(path, API)).await
    };
    let (parts, body) = answer.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts, String::from_utf8_lossy(&body).into_owned())
}

#[test]
fn attack_57_a_placeholder_in_a_body_stays_one_unless_somebody_chose_otherwise() {
    let (api, second) = (
        EchoUpstream::start_tls(&[API]),
        EchoUpstream::start_tls(&[OTHER]),
    );
    let (api, second) = (api.unwrap(), second.unwrap());
    let in_body = Credential {
        header: String::new(),
        format: String::new(),
        replace: Some(Replace {
            body: true,
            login: false,
        }),
        value: SecretText::new("va\"lue/+x".to_owned()),
        ..other()
    };
    let placeholder = in_body.placeholder.clone();
    let lab = Setup::new(&["allow api.test", "allow other.test"])
        .tls_upstream(API, &api)
        .tls_upstream(OTHER, &second)
        .credential(API)
        .bind(in_body)
        .start();
    run(async {
        let stream = lab.connect("api.test:443").await.unwrap();
        let stream = lab.tls(stream, API, &[b"http/1.1"]).await.unwrap();
        let body = format!("a gist with {PLACEHOLDER}");
        let answer = send(&mut h1(stream).await, post(API, "/echo", body.clone())).await;
        assert_eq!(answer.unwrap().status(), 200);
        let asked = api.recorder().requests();
        assert_eq!(asked[0].body, Some(body.into()));
        for (media_type, wanted) in [
            ("application/json", "a=va\\\"lue/+x;"),
            ("application/x-www-form-urlencoded", "a=va%22lue%2F%2Bx;"),
            ("text/plain", "a=va\"lue/+x;"),
        ] {
            let stream = lab.connect("other.test:443").await.unwrap();
            let stream = lab.tls(stream, OTHER, &[b"http/1.1"]).await.unwrap();
            let mut request = post(OTHER, "/echo", format!("a={placeholder};"));
            request
                .headers_mut()
                .insert("content-type", media_type.parse().unwrap());
            let answer = send(&mut h1(stream).await, request).await.unwrap();
            let (status, page) = text(answer).await;
            assert_eq!(status, 200);
            let asked = second.recorder().requests();
            assert_eq!(asked.last().unwrap().body, Some(wanted.into()));
            // It comes back as a text in JSON, whose length was announced.
            assert!(!page.contains("lue"), "{media_type} {page}");
            assert!(page.contains("a=other-pla"), "{media_type} {page}");
        }
    });
}

#[test]
fn attack_61_without_its_value_a_request_is_refused_and_the_placeholder_goes_nowhere() {
    let (api, second) = (
        EchoUpstream::start_tls(&[API]),
        EchoUpstream::start_tls(&[OTHER]),
    );
    let (api, second) = (api.unwrap(), second.unwrap());
    let locked = Credential {
        unavailable: Some("The keychain is locked".to_owned()),
        value: SecretText::new(String::new()),
        ..anthropic(API)
    };
    let mut setup = Setup::new(&["allow api.test", "allow other.test", "allow web.test"])
        .tls_upstream(API, &api)
        .tls_upstream(OTHER, &second)
        .bind(locked)
        .bind(Credential {
            on_demand: true,
            value: SecretText::new(String::new()),
            ..other()
        });
    setup.withdrawn.push(Withdrawn {
        service: "gone".to_owned(),
        placeholder: "placeholder-of-one-that-is-gone".to_owned(),
    });
    let watched = [api.recorder(), second.recorder()];
    let lab = setup.send_to("web.test:80", second.address()).start();
    twice(lab, &watched, async |round| {
        let lab = round.lab;
        // The daemon is there and knows no value, or is not there at all.
        for (host, header, why) in [
            (API, PLACEHOLDER, "The keychain is locked"),
            (API, "no-placeholder-at-all", "The keychain is locked"),
            (
                OTHER,
                "other-placeholder-9876543210",
                "is the sbx daemon running?",
            ),
        ] {
            let stream = lab.connect(&format!("{host}:443")).await.unwrap();
            let stream = lab.tls(stream, host, &[b"http/1.1"]).await.unwrap();
            round.forget_so_far().await;
            let mut request = get("/echo", host);
            request
                .headers_mut()
                .insert("x-api-key", header.parse().unwrap());
            let answer = send(&mut h1(stream).await, request).await.unwrap();
            assert_eq!(answer.headers()["x-sbx-reason"], "credential-unavailable");
            let (_, page) = text(answer).await;
            assert!(page.contains(why), "{page}");
            round.blocked_inside("credential-unavailable", host).await;
        }
        let mut request = get("http://web.test/echo", "web.test");
        let gone = "Bearer placeholder-of-one-that-is-gone";
        request
            .headers_mut()
            .insert("authorization", gone.parse().unwrap());
        let answer = send(&mut h1(lab.proxy().await).await, request)
            .await
            .unwrap();
        assert_eq!(answer.headers()["x-sbx-reason"], "credential-withdrawn");
        assert_eq!(text(answer).await.0, 403);
        round
            .blocked_inside("credential-withdrawn", "web.test")
            .await;
    });
}

#[test]
fn attack_63_a_key_of_the_guests_own_is_replaced_and_that_is_recorded() {
    let api = EchoUpstream::start_tls(&[API]).unwrap();
    let lab = Setup::new(&["allow api.test"])
        .tls_upstream(API, &api)
        .credential(API)
        .start();
    run(async {
        for (header, value, told) in [
            ("x-api-key", "own-key", true),
            ("authorization", "Bearer own-key", true),
            ("x-api-key", PLACEHOLDER, false),
            ("accept", "*/*", false),
        ] {
            let stream = lab.connect("api.test:443").await.unwrap();
            let stream = lab.tls(stream, API, &[b"http/1.1"]).await.unwrap();
            let mut request = get("/status?code=200", API);
            let name = hyper::header::HeaderName::from_static(header);
            request.headers_mut().insert(name, value.parse().unwrap());
            let answer = send(&mut h1(stream).await, request).await.unwrap();
            assert_eq!(text(answer).await.0, 200);
            let record = lab.one_record("allow-rule", API).await;
            let alert = told.then_some("own-credential-replaced");
            assert_eq!(record.alert.as_deref(), alert, "{header}: {value}");
            lab.forget_records();
        }
        for request in api.recorder().requests() {
            assert_eq!(request.header("x-api-key"), Some(SECRET));
            assert!(!format!("{request:?}").contains("own-key"), "{request:?}");
        }
    });
}
