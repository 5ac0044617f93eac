use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sbx_testkit::EchoUpstream;
use sbx_testkit::recorder::Event;
use sbx_testkit::upstream::TcpEcho;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::Client;

fn tls() -> (EchoUpstream, Client) {
    let upstream = EchoUpstream::start_tls(&["api.example"]).unwrap();
    let client = Client::new("api.example", upstream.address(), upstream.root_pem());
    (upstream, client)
}

fn plain() -> (EchoUpstream, Client) {
    let upstream = EchoUpstream::start().unwrap();
    let client = Client::new("api.example", upstream.address(), None);
    (upstream, client)
}

#[test]
fn echo_shows_the_headers_over_both_versions() {
    let (upstream, client) = tls();
    for (flag, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        let answer = client.get("/echo?x=1", &[flag, "-H", "X-Thing: yes", "--data", "body"]);
        let seen = answer.json();
        assert_eq!(seen["version"], version);
        assert_eq!(seen["headers"]["x-thing"], "yes");
        assert_eq!(seen["body"], "body");
    }
    let requests = upstream.recorder().requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(
        (requests[1].path.as_str(), requests[1].body_bytes),
        ("/echo", 4)
    );
    let sni = upstream
        .recorder()
        .entries()
        .into_iter()
        .find_map(|entry| match entry.event {
            Event::Handshake { sni, .. } => sni,
            _ => None,
        });
    assert_eq!(sni.as_deref(), Some("api.example"));
}

#[test]
fn unvisited_upstream_has_zero_bytes_and_a_bare_connection_is_seen() {
    let (upstream, _) = tls();
    assert_eq!(
        (
            upstream.recorder().connections(),
            upstream.recorder().bytes_received()
        ),
        (0, 0)
    );
    let mut stream = TcpStream::connect(upstream.address()).unwrap();
    stream.write_all(b"12345").unwrap();
    drop(stream);
    let closed = upstream
        .recorder()
        .wait_until(Duration::from_secs(10), |entries| {
            entries
                .iter()
                .any(|e| matches!(e.event, Event::Closed { received: 5, .. }))
        });
    assert!(closed, "{:?}", upstream.recorder().entries());
    assert_eq!(
        (
            upstream.recorder().connections(),
            upstream.recorder().bytes_received()
        ),
        (1, 5)
    );
}

#[test]
fn events_arrive_one_by_one_with_pauses() {
    let (upstream, _) = plain();
    let mut stream = TcpStream::connect(upstream.address()).unwrap();
    stream
        .write_all(b"GET /sse?events=3&delay_ms=100 HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    let mut arrivals = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        if line.starts_with("data: ") {
            arrivals.push(Instant::now());
        }
        if arrivals.len() == 3 {
            break;
        }
    }
    assert!(
        arrivals[2] - arrivals[0] >= Duration::from_millis(150),
        "{arrivals:?}"
    );
}

#[test]
fn big_answers_and_uploads_are_streamed_and_counted() {
    let (upstream, client) = tls();
    let answer = client.get("/big?size=3000001", &[]);
    assert_eq!((answer.code, answer.body.len()), (0, 3_000_001));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![7; 2_000_003]).unwrap();
    let data = format!("@{}", file.path().display());
    let answer = client.get("/upload", &["--data-binary", &data]);
    assert_eq!(answer.json(), json!({ "received": 2_000_003 }));
    let recorder = upstream.recorder();
    assert_eq!(recorder.requests()[1].body_bytes, 2_000_003);
    assert!(recorder.bytes_received() > 2_000_003 && recorder.bytes_sent() > 3_000_001);
}

#[test]
fn status_redirect_slow_and_cut_behave_as_asked() {
    let (_upstream, client) = plain();
    assert_eq!(client.get("/status?code=418", &[]).status, 418);
    let answer = client.get("/redirect?to=http://other.example/", &[]);
    assert!(answer.status == 302 && answer.has_header("location: http://other.example/"));
    let start = Instant::now();
    assert_eq!(client.get("/slow?delay_ms=300", &[]).status, 200);
    assert!(start.elapsed() >= Duration::from_millis(300));
    let cut = client.get("/cut?after=500", &[]);
    assert_eq!((cut.code, cut.body.len()), (18, 500));
}

#[test]
fn websocket_echoes_frames_unmasked() {
    let (upstream, _) = plain();
    let mut stream = TcpStream::connect(upstream.address()).unwrap();
    stream
        .write_all(
            b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
              sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    // The example of RFC 6455, section 1.3.
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    // Section 5.7: a masked "Hello".
    stream
        .write_all(&[
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ])
        .unwrap();
    let mut frame = [0; 7];
    reader.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x81\x05Hello");
    stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [0x88, 0]);
}

#[tokio::test]
async fn websocket_over_http2_echoes_too() {
    let upstream = EchoUpstream::start().unwrap();
    let stream = tokio::net::TcpStream::connect(upstream.address())
        .await
        .unwrap();
    let io = TokioIo::new(stream);
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    // The server's settings must have arrived before an extended CONNECT is allowed.
    let plain = hyper::Request::get("http://a/echo")
        .body(Empty::<Bytes>::new())
        .unwrap();
    assert_eq!(client.send_request(plain).await.unwrap().status(), 200);
    let connect = hyper::Request::connect("http://a/ws")
        .extension(hyper::ext::Protocol::from_static("websocket"))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = client.send_request(connect).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    stream.write_all(b"\x81\x82\0\0\0\0hi").await.unwrap();
    let mut frame = [0; 4];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame, b"\x81\x02hi");
}

#[test]
fn raw_echo_returns_everything_and_closes_after_the_client() {
    let echo = TcpEcho::start().unwrap();
    let mut stream = TcpStream::connect(echo.address()).unwrap();
    stream.write_all(b"over and out").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).unwrap();
    assert_eq!(back, "over and out");
    assert_eq!(
        (
            echo.recorder().bytes_received(),
            echo.recorder().bytes_sent()
        ),
        (12, 12)
    );
}

#[test]
fn dropped_upstream_ends_its_connections_and_frees_its_port() {
    let upstream = EchoUpstream::start().unwrap();
    let address = upstream.address();
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET /sse?events=1000&delay_ms=1000 HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    let mut first = [0; 1];
    stream.read_exact(&mut first).unwrap();
    drop(upstream);
    let mut rest = Vec::new();
    // Either a clean end or a reset; both say that the server is gone.
    let _ = stream.read_to_end(&mut rest);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn addresses_beyond_loopback_are_refused() {
    let echo = TcpEcho::start_with("0.0.0.0:0".parse().unwrap(), sbx_testkit::Recorder::new());
    assert!(
        echo.unwrap_err()
            .to_string()
            .contains("not a loopback address")
    );
}
