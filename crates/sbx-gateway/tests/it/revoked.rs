//! What is under way when a policy comes that does not allow it any more.

use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use sbx_testkit::recorder::{Entry, Event};
use sbx_testkit::{EchoUpstream, Recorder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::attack::{closed, cut, say};
use crate::hello::Hello;
use crate::lab::{Lab, Setup, get, h2, run};

/// Bytes of a body that the upstream has got before the policy changes.
const BEFORE: usize = 100_000;

async fn until(recorder: &Recorder, seen: impl Fn(&[Entry]) -> bool) {
    assert!(recorder.until(Duration::from_secs(10), seen).await);
}

async fn asked(recorder: &Recorder) {
    until(recorder, |entries| {
        let request = |entry: &Entry| matches!(entry.event, Event::Request(_));
        entries.iter().any(request)
    })
    .await;
}

/// Waits until so many bytes have come and no more do.
async fn received(recorder: &Recorder, at_least: usize) -> u64 {
    let wait = async {
        let mut last = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = recorder.bytes_received();
            if now == last && now >= at_least as u64 {
                return now;
            }
            last = now;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    waited.expect("the body does not arrive")
}

fn revoke(lab: &mut Lab) {
    tokio::task::block_in_place(|| lab.set_rules(&["allow other.test"]));
}

/// One record says that it was closed, and none that it was let through.
async fn closed_once(lab: &Lab, host: &str, before: usize) {
    lab.one_record("policy-changed", host).await;
    let of_host = |record: &&sbx_wire::gateway::EgressRecord| record.host == host;
    let told = lab.records().split_off(before);
    let told: Vec<_> = told.iter().filter(of_host).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
}

/// `web.test` in clear text, `api.test` opened.
struct Two {
    web: EchoUpstream,
    api: EchoUpstream,
}

impl Two {
    fn new() -> Self {
        Self {
            web: EchoUpstream::start().unwrap(),
            api: EchoUpstream::start_tls(&["api.test"]).unwrap(),
        }
    }

    fn lab(&self) -> Lab {
        Setup::new(&["allow web.test", "allow api.test"])
            .send_to("web.test:80", self.web.address())
            .tls_upstream("api.test", &self.api)
            .credential("api.test")
            .start()
    }
}

/// The answer of HTTP/1.1 to a request whose rule goes while it waits.
async fn refused<S>(lab: &mut Lab, stream: &mut S, request: &str, upstream: &Recorder)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(request.as_bytes()).await.unwrap();
    asked(upstream).await;
    let before = upstream.bytes_received();
    revoke(lab);
    let answer = say(stream, "").await;
    assert_eq!((answer.status, answer.reason()), (403, "policy-changed"));
    closed(upstream).await;
    assert!(upstream.bytes_received() <= before + ALERT, "more was sent");
}

/// What TLS says at its end, in bytes.
const ALERT: u64 = 31;

#[test]
fn a_request_without_an_answer_gets_403_when_its_rule_goes() {
    let two = Two::new();
    let slow = "GET /slow?delay_ms=100000 HTTP/1.1\r\nHost: api.test\r\n\r\n";
    let mut lab = two.lab();
    run(async {
        let mut stream = lab.proxy().await;
        let request = "GET http://web.test/slow?delay_ms=100000 HTTP/1.1\r\nHost: web.test\r\n\r\n";
        refused(&mut lab, &mut stream, request, two.web.recorder()).await;
        closed_once(&lab, "web.test", 0).await;
    });
    let mut lab = two.lab();
    run(async {
        let stream = lab.connect("api.test:443").await.unwrap();
        let mut stream = lab.tls(stream, "api.test", &[b"http/1.1"]).await.unwrap();
        refused(&mut lab, &mut stream, slow, two.api.recorder()).await;
        closed_once(&lab, "api.test", 0).await;
    });
    two.api.recorder().clear();
    let mut lab = two.lab();
    run(async {
        let stream = lab.connect("api.test:443").await.unwrap();
        let stream = lab.tls(stream, "api.test", &[b"h2"]).await.unwrap();
        let mut client = h2(stream).await;
        let request = get("https://api.test/slow?delay_ms=100000", "api.test");
        let answer = client.send_request(request);
        let changed = async {
            asked(two.api.recorder()).await;
            revoke(&mut lab);
        };
        let (answer, ()) = tokio::join!(answer, changed);
        let answer = answer.unwrap();
        assert_eq!(answer.headers()["x-sbx-reason"], "policy-changed");
        assert_eq!(answer.status(), 403);
        closed(two.api.recorder()).await;
        closed_once(&lab, "api.test", 0).await;
    });
}

/// The upstream has got the beginning of a body and knows that there is more, which never comes.
async fn cut_off(upstream: &Recorder, sent: u64, more: u64) {
    closed(upstream).await;
    let requests = upstream.requests();
    let [request] = requests.as_slice() else {
        panic!("{requests:#?}");
    };
    assert_eq!(request.note, "body cut");
    assert_eq!(request.body_bytes, BEFORE as u64);
    assert!(upstream.bytes_received() <= sent + more, "more was sent");
}

#[test]
fn an_upload_that_goes_on_while_its_rule_goes_is_cut_and_refused() {
    let two = Two::new();
    let head = |target: &str, host: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000000\r\n\r\n")
    };
    let begin = head("http://web.test/upload", "web.test") + &"y".repeat(BEFORE);
    let mut lab = two.lab();
    run(async {
        let mut stream = lab.proxy().await;
        stream.write_all(begin.as_bytes()).await.unwrap();
        let sent = received(two.web.recorder(), BEFORE).await;
        revoke(&mut lab);
        let answer = say(&mut stream, "z".repeat(BEFORE)).await;
        assert_eq!((answer.status, answer.reason()), (403, "policy-changed"));
        // What goes on as a body is never taken for a request.
        cut(&mut stream).await;
        cut_off(two.web.recorder(), sent, 0).await;
        closed_once(&lab, "web.test", 0).await;
    });
    let begin = head("/upload", "api.test") + &"y".repeat(BEFORE);
    let mut lab = two.lab();
    run(async {
        let stream = lab.connect("api.test:443").await.unwrap();
        let mut stream = lab.tls(stream, "api.test", &[b"http/1.1"]).await.unwrap();
        stream.write_all(begin.as_bytes()).await.unwrap();
        let sent = received(two.api.recorder(), BEFORE).await;
        revoke(&mut lab);
        let answer = say(&mut stream, "z".repeat(BEFORE)).await;
        assert_eq!((answer.status, answer.reason()), (403, "policy-changed"));
        cut_off(two.api.recorder(), sent, ALERT).await;
        closed_once(&lab, "api.test", 0).await;
    });
}

#[test]
fn an_upload_over_http2_is_reset_at_the_upstream_and_refused() {
    let two = Two::new();
    let mut lab = two.lab();
    run(async {
        let stream = lab.connect("api.test:443").await.unwrap();
        let stream = lab.tls(stream, "api.test", &[b"h2"]).await.unwrap();
        let (client, connection) = ::h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let request = Request::post("https://api.test/upload").body(()).unwrap();
        let (answer, mut upload) = client.send_request(request, false).unwrap();
        upload
            .send_data(Bytes::from(vec![b'y'; BEFORE]), false)
            .unwrap();
        let sent = received(two.api.recorder(), BEFORE).await;
        revoke(&mut lab);
        // It may have been told already.
        let _ = upload.send_data(Bytes::from(vec![b'z'; BEFORE]), false);
        let answer = answer.await.unwrap();
        assert_eq!(answer.headers()["x-sbx-reason"], "policy-changed");
        assert_eq!(answer.status(), 403);
        // A reset, a farewell and the alert, each sealed. The stand-in is not told of a body that was reset.
        closed(two.api.recorder()).await;
        assert!(two.api.recorder().bytes_received() <= sent + 128);
        closed_once(&lab, "api.test", 0).await;
    });
}

#[test]
fn a_body_that_was_to_be_read_first_is_refused_once_and_not_sent() {
    let two = Two::new();
    let mut lab = two.lab();
    run(async {
        let mut stream = lab.proxy().await;
        // Looked into, because of the placeholder of `api.test`, before anything goes on.
        let request = "POST http://web.test/upload HTTP/1.1\r\nHost: web.test\r\nContent-Length: 10\r\n\r\nhello";
        stream.write_all(request.as_bytes()).await.unwrap();
        // Judged by now: what the same guest asks later has been answered.
        assert_eq!(lab.connect("a b").await.err().unwrap().0, 400);
        revoke(&mut lab);
        let answer = say(&mut stream, "world").await;
        assert_eq!((answer.status, answer.reason()), (403, "policy-changed"));
        assert_eq!(two.web.recorder().connections(), 0);
        closed_once(&lab, "web.test", 0).await;
    });
}

#[test]
fn a_tunnel_whose_guest_has_not_said_whom_it_wants_is_closed_too() {
    let web = EchoUpstream::start_tls(&["web.test"]).unwrap();
    let mut lab = Setup::new(&["allow web.test"])
        .tls_upstream("web.test", &web)
        .start();
    run(async {
        for begun in [0, 20] {
            lab.forget_records();
            let mut stream = lab.connect("web.test:443").await.unwrap();
            let hello = Hello::new("web.test").bytes();
            stream.write_all(&hello[..begun]).await.unwrap();
            revoke(&mut lab);
            assert!(stream.read_u8().await.is_err());
            assert!(stream.was_reset());
            closed(web.recorder()).await;
            assert_eq!(web.recorder().bytes_received(), 0);
            closed_once(&lab, "web.test", 0).await;
            tokio::task::block_in_place(|| lab.set_rules(&["allow web.test"]));
        }
    });
}
