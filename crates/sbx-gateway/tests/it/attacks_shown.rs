//! Attack 56 where a value is not in the answer to the request that it was written into: in later answers, in events, behind
//! a body.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use sbx_testkit::EchoUpstream;
use sbx_wire::gateway::{Answer, Command, Credential, EgressRecord, Replace};
use sbx_wire::secret::SecretText;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attack::say;
use crate::attacks_http::UPGRADE;
use crate::aws::{self, Call};
use crate::lab::{Lab, PLACEHOLDER, SECRET, Setup, anthropic, get, h1, h2, run, send, text};
use crate::registries;
use crate::tape::Tape;

const API: &str = "api.test";
const ALSO: &str = "also.test";
/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// A secret of the user's own for both hosts.
fn custom(in_body: bool, value: &str) -> Credential {
    Credential {
        service: "custom".to_owned(),
        hosts: vec![API.to_owned(), ALSO.to_owned()],
        header: String::new(),
        format: String::new(),
        replace: Some(Replace {
            body: in_body,
            login: false,
        }),
        value: SecretText::new(value.to_owned()),
        ..anthropic(API)
    }
}

fn on_demand(credential: Credential) -> Credential {
    Credential {
        on_demand: true,
        value: SecretText::new(String::new()),
        ..credential
    }
}

fn lab(upstream: &EchoUpstream, credential: Credential) -> Lab {
    Setup::new(&["allow api.test", "allow also.test"])
        .tls_upstream(API, upstream)
        .send_to("also.test:443", upstream.address())
        .bind(credential)
        .start()
}

fn upstream() -> EchoUpstream {
    EchoUpstream::start_tls(&[API, ALSO]).unwrap()
}

/// Gives the first value to whoever asks first, and so on; the last one to all others. Returns how many asked.
fn daemon(lab: &Lab, values: &'static [&'static str]) -> Arc<AtomicUsize> {
    let asked = Arc::<AtomicUsize>::default();
    let (control, count) = (lab.control(), asked.clone());
    // Its thread ends with the gateway.
    std::thread::spawn(move || serve(&control, values, &count));
    asked
}

fn serve(mut control: &UnixStream, values: &[&str], count: &AtomicUsize) {
    let mut lines = BufReader::new(control.try_clone().unwrap()).lines();
    let mut command = Command::AwaitValue;
    loop {
        let line = serde_json::to_string(&command).unwrap();
        if control.write_all(format!("{line}\n").as_bytes()).is_err() {
            return;
        }
        let Some(Ok(answer)) = lines.next() else {
            return;
        };
        let Ok(Answer::ValueNeeded { service }) = serde_json::from_str(&answer) else {
            return;
        };
        let number = count.fetch_add(1, Ordering::SeqCst);
        let value = values[number.min(values.len() - 1)];
        command = Command::Value {
            service,
            value: Some(SecretText::new(value.to_owned())),
            problem: None,
        };
    }
}

async fn answer(lab: &Lab, alpn: &[u8], request: Request<Full<Bytes>>) -> Response<Incoming> {
    let host = request.headers()["host"].to_str().unwrap().to_owned();
    let stream = lab.connect(&format!("{host}:443")).await.unwrap();
    let stream = lab.tls(stream, &host, &[alpn]).await.unwrap();
    if alpn == b"h2" {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().unwrap();
        parts.uri = format!("https://{host}{path}").parse().unwrap();
        let request = Request::from_parts(parts, body);
        h2(stream).await.send_request(request).await.unwrap()
    } else {
        send(&mut h1(stream).await, request).await.unwrap()
    }
}

fn with(
    mut request: Request<Full<Bytes>>,
    name: &'static str,
    value: &str,
) -> Request<Full<Bytes>> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

/// Has the host keep what the placeholder stands for.
async fn keep(lab: &Lab, upstream: &EchoUpstream, value: &str) {
    let request = with(get("/keep", API), "x-webhook-token", PLACEHOLDER);
    assert_eq!(answer(lab, b"http/1.1", request).await.status(), 200);
    let kept = upstream.recorder().requests();
    let kept = kept.iter().rev().find(|one| one.path == "/keep").unwrap();
    assert_eq!(kept.header("x-webhook-token"), Some(value));
}

/// What the host shows later to somebody who shows nothing.
async fn kept(lab: &Lab, alpn: &[u8], host: &str) -> String {
    let (status, page) = text(answer(lab, alpn, get("/kept", host)).await).await;
    assert_eq!(status, 200, "{page}");
    page
}

fn came_back(record: &EgressRecord) -> bool {
    record.alert.as_deref() == Some("value-in-answer")
}

#[test]
fn attack_56_a_value_that_a_host_keeps_is_replaced_in_its_later_answers_on_every_connection() {
    let upstream = upstream();
    for in_body in [false, true] {
        let lab = lab(&upstream, on_demand(custom(in_body, "")));
        let asked = daemon(&lab, &[SECRET]);
        run(async {
            keep(&lab, &upstream, SECRET).await;
            // The host shows it at once, too.
            let mut count = 1;
            lab.records_that(count, came_back).await;
            for alpn in [&b"http/1.1"[..], b"h2"] {
                for host in [API, ALSO] {
                    let page = kept(&lab, alpn, host).await;
                    assert!(!page.contains(SECRET), "{host} {page}");
                    assert!(page.contains(PLACEHOLDER), "{host} {page}");
                    count += 1;
                    lab.records_that(count, came_back).await;
                }
            }
            let last = upstream.recorder().requests();
            let last = last.last().unwrap();
            assert_eq!(last.header("accept-encoding"), Some("identity"));
            // Nobody was asked for a value that nobody wrote.
            assert_eq!(asked.load(Ordering::SeqCst), 1);
        });
    }
}

#[test]
fn attack_56_what_is_open_learns_of_a_value_that_is_written_elsewhere() {
    let upstream = upstream();
    let lab = lab(&upstream, on_demand(custom(false, "")));
    daemon(&lab, &[SECRET]);
    run(async {
        let stream = lab.connect("api.test:443").await.unwrap();
        let mut socket = lab.tls(stream, API, &[b"http/1.1"]).await.unwrap();
        let head = format!("GET /ws HTTP/1.1\r\nHost: api.test\r\n{UPGRADE}\r\n");
        assert_eq!(say(&mut socket, head).await.status, 101);
        // What the host has from elsewhere, before the value was given to it from here.
        let request = with(get("/told?events=2", API), "x-note", SECRET);
        let mut events = answer(&lab, b"http/1.1", request).await;
        assert!(event(&mut events).await.contains(SECRET));
        keep(&lab, &upstream, SECRET).await;
        next(&lab, API).await;
        let told = event(&mut events).await;
        assert!(
            !told.contains(SECRET) && told.contains(PLACEHOLDER),
            "{told}"
        );
        let length = u8::try_from(SECRET.len()).unwrap();
        let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
        frame.extend(SECRET.bytes());
        socket.write_all(&frame).await.unwrap();
        let mut head = [0; 2];
        socket.read_exact(&mut head).await.unwrap();
        let mut message = vec![0; usize::from(head[1])];
        socket.read_exact(&mut message).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&message), PLACEHOLDER);
    });
}

#[test]
fn attack_56_a_value_that_was_replaced_or_withdrawn_is_still_found() {
    const FIRST: &str = "the-first-real-value";
    const SECOND: &str = "the-second-real-value";
    // It is cut to the length of the value.
    const BEGINNING: &str = "x-webhook-token: sbx-placeholder-";
    let upstream = upstream();
    let fetched = lab(&upstream, on_demand(custom(false, "")));
    daemon(&fetched, &[FIRST, SECOND]);
    run(async {
        keep(&fetched, &upstream, FIRST).await;
        let request = with(get("/echo", API), "x-note", PLACEHOLDER);
        assert_eq!(answer(&fetched, b"h2", request).await.status(), 200);
        let page = kept(&fetched, b"h2", API).await;
        assert!(!page.contains(FIRST) && page.contains(BEGINNING), "{page}");
    });
    let mut stored = lab(&upstream, custom(false, FIRST));
    run(keep(&stored, &upstream, FIRST));
    stored.credentials[0].value = SecretText::new(SECOND.to_owned());
    stored.configure();
    run(async {
        let page = kept(&stored, b"h2", ALSO).await;
        assert!(!page.contains(FIRST) && page.contains(BEGINNING), "{page}");
    });
    stored.credentials.clear();
    stored.file.credential_hosts.clear();
    stored.write_file();
    stored.configure();
    run(async {
        for host in [API, ALSO] {
            let page = kept(&stored, b"http/1.1", host).await;
            assert!(!page.contains(FIRST) && page.contains(BEGINNING), "{page}");
        }
    });
}

/// Has the stream go on.
async fn next(lab: &Lab, host: &str) {
    let answer = answer(lab, b"http/1.1", get("/next", host)).await;
    assert_eq!(answer.status(), 200);
}

/// The next whole event.
async fn event(answer: &mut Response<Incoming>) -> String {
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        let frame = tokio::time::timeout(LIMIT, answer.body_mut().frame()).await;
        let frame = frame.expect("an event is held up").unwrap().unwrap();
        text += std::str::from_utf8(&frame.into_data().unwrap()).unwrap();
    }
    text
}

/// Every kind of credential that is written into heads: the request that has it written, its value as it is sent, and what
/// the guest sees instead.
fn kinds() -> Vec<(Credential, Request<Full<Bytes>>, String, String)> {
    let token = format!("eyJhbGciOiJub25lIn0.{}.sig/nature+==", "QUJD".repeat(60));
    let sign_in = Credential {
        service: "openai".to_owned(),
        ..custom(true, &token)
    };
    let bearer = format!("Bearer {PLACEHOLDER}");
    let registry = registries::login(API, None);
    let password = registry.value.expose().to_owned();
    let user = registry.basic_user.clone().unwrap();
    let login = STANDARD.encode(format!("{user}:{password}"));
    let session = "session/token+with==".repeat(20);
    let key = aws::credential(&aws::real(Some(&session)));
    let signed = Call::new("GET", aws::STS, "/told", "sts").sign().0;
    let custom = custom(false, SECRET);
    vec![
        (
            custom,
            with(get("/told", API), "x-note", PLACEHOLDER),
            SECRET.to_owned(),
            PLACEHOLDER.to_owned(),
        ),
        (
            sign_in,
            with(get("/told", API), "authorization", &bearer),
            token,
            bearer,
        ),
        (
            registry,
            get("/v2/app/manifests/told", API),
            login[8..login.len() - 4].to_owned(),
            "Basic ".to_owned(),
        ),
        (key, signed, session, aws::placeholder().secret),
    ]
}

#[test]
fn attack_56_a_value_in_events_is_replaced_and_none_of_them_waits_for_the_next() {
    let upstream = EchoUpstream::start_tls(&[API, aws::STS]).unwrap();
    for (credential, asked, value, instead) in kinds() {
        let host = asked.headers()["host"].to_str().unwrap().to_owned();
        let service = credential.service.clone();
        let lab = Setup::new(&["allow api.test", "allow **.amazonaws.com"])
            .tls_upstream(&host, &upstream)
            .bind(credential)
            .start();
        run(async {
            for alpn in [&b"http/1.1"[..], b"h2"] {
                for coding in ["", "gzip", "br"] {
                    let (mut parts, body) = asked.clone().into_parts();
                    if service != "aws" {
                        let path = format!("{}?coding={coding}", parts.uri.path());
                        parts.uri = path.parse().unwrap();
                    }
                    let request = Request::from_parts(parts, body);
                    let mut events = answer(&lab, alpn, request).await;
                    assert_eq!(events.status(), 200, "{service}");
                    for number in 0..3 {
                        if number > 0 {
                            next(&lab, &host).await;
                        }
                        let told = event(&mut events).await;
                        let sent = upstream.recorder().requests();
                        let sent = sent.iter().rev().find(|one| one.path.ends_with("/told"));
                        assert!(format!("{sent:?}").contains(&value), "{service}: {sent:?}");
                        assert!(!told.contains(&value), "{service} {coding} {told}");
                        assert!(told.contains(&instead), "{service} {coding} {told}");
                    }
                }
            }
        });
    }
}

#[test]
fn attack_56_a_value_in_a_trailer_is_replaced() {
    let upstream = upstream();
    let shown = format!("key={PLACEHOLDER};");
    let lab = Setup::new(&["allow api.test"])
        .tls_upstream(API, &upstream)
        .credential(API)
        .start();
    run(async {
        let mut answer = answer(&lab, b"h2", get("/trailer", API)).await;
        let mut seen = None;
        while let Some(frame) = answer.body_mut().frame().await {
            if let Ok(trailers) = frame.unwrap().into_trailers() {
                seen = Some(trailers);
            }
        }
        assert_eq!(seen.expect("a trailer")["x-shown"], shown.as_str());
        lab.records_that(1, came_back).await;
    });
    let tape = Tape::answering(&[
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-shown\r\n\r\n1\r\na\r\n\
         0\r\nx-shown: key=sk-the-real-value-that-never-enters;\r\n\r\n",
    ]);
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", tape.address)
        .bind(anthropic("web.test:80"))
        .start();
    run(async {
        let mut stream = lab.proxy().await;
        let asked = "GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n";
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        let all = String::from_utf8_lossy(&all).into_owned();
        assert!(tape.take().contains(SECRET));
        assert!(!all.contains(SECRET), "{all}");
        lab.records_that(1, came_back).await;
    });
}

#[test]
fn a_part_of_a_compressed_answer_is_refused_where_it_would_have_to_be_read() {
    let tape = Tape::answering(&[
        "HTTP/1.1 206 Partial Content\r\nContent-Encoding: gzip\r\nContent-Range: bytes 5-8/90\r\n\
         Content-Length: 4\r\n\r\nabcd",
    ]);
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", tape.address)
        .bind(anthropic("web.test:80"))
        .start();
    run(async {
        let mut stream = lab.proxy().await;
        let asked = "GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\nRange: bytes=5-8\r\n\r\n";
        let answer = say(&mut stream, asked).await;
        assert_eq!((answer.status, answer.reason()), (502, "body-encoding"));
        lab.one_record("body-encoding", "web.test").await;
    });
}
