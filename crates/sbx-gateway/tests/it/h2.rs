//! HTTP/2 on opened connections: the version that the upstream chose, and what gRPC needs of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::h2::{Reason, RecvStream, SendStream};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use hyper::http::{HeaderMap, Request, Response};
use sbx_testkit::recorder::{Entry, Event};
use sbx_testkit::{EchoUpstream, TestRoot};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::lab::{Lab, SECRET, Setup, get, h1, h2 as h2_client, run, runtime, send, text};

const API: &str = "api.test";
const H2: &[u8] = b"h2";
const H1: &[u8] = b"http/1.1";

fn upstream(alpn: &[&str]) -> EchoUpstream {
    EchoUpstream::start_with(sbx_testkit::upstream::Options {
        tls_names: vec![API.to_owned(), "other.test".to_owned()],
        alpn: alpn.iter().map(ToString::to_string).collect(),
        ..sbx_testkit::upstream::Options::default()
    })
    .unwrap()
}

fn lab_for(upstream: &EchoUpstream) -> Lab {
    Setup::new(&["allow api.test", "allow other.test"])
        .tls_upstream(API, upstream)
        .credential(API)
        .start()
}

/// The protocol that the gateway answers with; an error if it refuses the handshake.
async fn chosen(lab: &Lab, offered: &[&[u8]]) -> std::io::Result<Option<Vec<u8>>> {
    let stream = lab.connect("api.test:443").await.unwrap();
    let stream = lab.tls(stream, API, offered).await?;
    Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
}

#[test]
fn a_client_is_offered_exactly_what_the_upstream_chose() {
    for (upstream_speaks, offered, want) in [
        (&["h2", "http/1.1"][..], &[H2, H1][..], Some(H2)),
        (&["http/1.1"], &[H2, H1], Some(H1)),
        (&["h2"], &[H2, H1], Some(H2)),
        (&[], &[H2, H1], Some(H1)),
        (&["h2", "http/1.1"], &[H1], Some(H1)),
        (&["h2", "http/1.1"], &[H2], Some(H2)),
        (&["h2", "http/1.1"], &[], None),
    ] {
        let upstream = upstream(upstream_speaks);
        let lab = lab_for(&upstream);
        run(async {
            // The second time what is known of the upstream is enough.
            for _ in 0..2 {
                let got = chosen(&lab, offered).await.unwrap();
                assert_eq!(got.as_deref(), want, "{upstream_speaks:?} {offered:?}");
            }
        });
    }
}

#[test]
fn a_client_that_speaks_nothing_that_the_upstream_speaks_is_refused_as_the_upstream_would() {
    let upstream = upstream(&[]);
    let lab = lab_for(&upstream);
    run(async {
        let refused = chosen(&lab, &[H2]).await.unwrap_err();
        assert!(
            refused.to_string().contains("NoApplicationProtocol"),
            "{refused}"
        );
        lab.one_record("upstream-tls", API).await;
        assert_eq!(upstream.recorder().requests().len(), 0);
    });
}

#[test]
fn the_connection_that_was_dialled_first_carries_the_first_request_and_others_share_it() {
    for (speaks, alpn) in [("h2", H2), ("http/1.1", H1)] {
        let upstream = upstream(&[speaks]);
        let lab = lab_for(&upstream);
        run(async {
            for round in 0..3 {
                let stream = lab.connect("api.test:443").await.unwrap();
                let stream = lab.tls(stream, API, &[H2, H1]).await.unwrap();
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
                let response = if speaks == "h2" {
                    let request = get("https://api.test/echo", API);
                    h2_client(stream).await.send_request(request).await
                } else {
                    send(&mut h1(stream).await, get("/echo", API)).await
                };
                assert_eq!(text(response.unwrap()).await.0, 200, "{round}");
            }
            assert_eq!(upstream.recorder().connections(), 1, "{speaks}");
            let requests = upstream.recorder().requests();
            assert!(
                requests
                    .iter()
                    .all(|r| r.header("x-api-key") == Some(SECRET))
            );
        });
    }
}

#[test]
fn a_hundred_requests_that_come_at_once_share_a_connection_and_one_more_opens_another() {
    let upstream = upstream(&["h2"]);
    let lab = lab_for(&upstream);
    run(async {
        let guest = async || {
            let stream = lab.connect("api.test:443").await.unwrap();
            h2_client(lab.tls(stream, API, &[H2, H1]).await.unwrap()).await
        };
        let slow = |guest: &SendRequest<Full<Bytes>>| {
            let mut guest = guest.clone();
            tokio::spawn(async move {
                let request = get("https://api.test/slow?delay_ms=100000", API);
                guest.send_request(request).await
            })
        };
        let asked = async |number: usize| {
            let all = |entries: &[Entry]| {
                let requests = entries
                    .iter()
                    .filter(|entry| matches!(entry.event, Event::Request(_)));
                requests.count() == number
            };
            let recorder = upstream.recorder();
            assert!(recorder.until(Duration::from_secs(20), all).await);
            recorder.connections()
        };
        let (mut open, mut number) = (Vec::new(), 0);
        for (more, connections) in [(60, 1), (40, 1), (1, 2)] {
            let guest = guest().await;
            open.extend((0..more).map(|_| slow(&guest)));
            number += more;
            assert_eq!(asked(number).await, connections, "{number}");
        }
        drop(open);
    });
}

#[test]
fn a_request_to_another_host_on_the_same_connection_is_421_and_the_connection_goes_on() {
    let upstream = upstream(&["h2"]);
    let lab = lab_for(&upstream);
    run(async {
        let stream = lab.connect("api.test:443").await.unwrap();
        let stream = lab.tls(stream, API, &[H2]).await.unwrap();
        let mut client = h2_client(stream).await;
        let other = get("https://other.test/echo", "other.test");
        let response = client.send_request(other).await.unwrap();
        assert_eq!(response.headers()["x-sbx-reason"], "host-mismatch");
        assert_eq!(text(response).await.0, 421);
        lab.one_record("host-mismatch", "other.test").await;
        let own = client.send_request(get("https://api.test/echo", API)).await;
        assert_eq!(text(own.unwrap()).await.0, 200);
        assert_eq!(upstream.recorder().requests().len(), 1);
        // `:authority` and `host` that differ are nobody's good faith.
        let mut both = get("https://api.test/echo", API);
        both.headers_mut()
            .insert("host", "other.test".parse().unwrap());
        let response = client.send_request(both).await.unwrap();
        assert_eq!(text(response).await.0, 400);
    });
}

#[test]
fn a_websocket_over_http2_is_not_offered() {
    let upstream = upstream(&["h2", "http/1.1"]);
    let lab = lab_for(&upstream);
    run(async {
        let stream = lab.connect("api.test:443").await.unwrap();
        let stream = lab.tls(stream, API, &[H2]).await.unwrap();
        let (client, connection) = ::h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let first = Request::get("https://api.test/echo").body(()).unwrap();
        let (answer, _) = client.send_request(first, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        assert!(!client.is_extended_connect_protocol_enabled());
        // All the same.
        let mut connect = Request::connect("https://api.test/ws").body(()).unwrap();
        connect
            .extensions_mut()
            .insert(::h2::ext::Protocol::from_static("websocket"));
        let (answer, _) = client.send_request(connect, false).unwrap();
        assert!(answer.await.is_err() || upstream.recorder().requests().len() == 1);
        assert_eq!(upstream.recorder().requests().len(), 1);
        driver.abort();
    });
}

/// What a [`Grpc`] upstream saw of a call's end.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Ended,
    Reset(Reason),
}

/// A server of calls as gRPC makes them, which says exactly what is sent.
struct Grpc {
    address: SocketAddr,
    root: String,
    seen: UnboundedReceiver<Seen>,
    metadata: Arc<Mutex<HeaderMap>>,
    connections: Arc<AtomicUsize>,
}

impl Grpc {
    async fn start() -> Self {
        let root = TestRoot::new("gRPC stand-in root").unwrap();
        let config = root.server_config(&[API], &[H2]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = unbounded_channel();
        let metadata = Arc::new(Mutex::new(HeaderMap::new()));
        let kept = metadata.clone();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        runtime().spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                count.fetch_add(1, Ordering::Relaxed);
                let (sender, kept) = (sender.clone(), kept.clone());
                tokio::spawn(async move {
                    let mut connection = ::h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        kept.lock().unwrap().clone_from(request.headers());
                        tokio::spawn(call(request, respond, sender.clone()));
                    }
                });
            }
        });
        Self {
            address,
            root: root.pem(),
            seen,
            metadata,
            connections,
        }
    }

    fn lab(&self) -> Lab {
        let mut setup = Setup::new(&["allow api.test"])
            .send_to("api.test:443", self.address)
            .credential(API);
        setup.file.upstream.extra_roots_pem.push(self.root.clone());
        setup.start()
    }
}

fn grpc_headers() -> hyper::http::response::Builder {
    Response::builder().header("content-type", "application/grpc")
}

fn trailers(status: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers.insert("x-detail-bin", "AAEC".parse().unwrap());
    trailers
}

async fn call(
    request: Request<RecvStream>,
    mut respond: ::h2::server::SendResponse<Bytes>,
    seen: UnboundedSender<Seen>,
) {
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    match path.as_str() {
        "/echo" => {
            let answer = grpc_headers().body(()).unwrap();
            let mut stream = respond.send_response(answer, false).unwrap();
            while let Some(piece) = body.data().await {
                let Ok(piece) = piece else {
                    break;
                };
                let _ = body.flow_control().release_capacity(piece.len());
                stream.send_data(piece, false).unwrap();
            }
            stream.send_trailers(trailers("0")).unwrap();
            let _ = seen.send(Seen::Ended);
        }
        "/trailers-only" => {
            let answer = grpc_headers().header("grpc-status", "12").body(());
            respond.send_response(answer.unwrap(), true).unwrap();
        }
        "/tied" => {
            let answer = Response::builder().status(401);
            let answer = answer.header("www-authenticate", "NTLM").body(());
            respond.send_response(answer.unwrap(), true).unwrap();
        }
        "/reset" => respond.send_reset(Reason::ENHANCE_YOUR_CALM),
        "/reset-later" => {
            let answer = grpc_headers().body(()).unwrap();
            let mut stream = respond.send_response(answer, false).unwrap();
            stream
                .send_data(Bytes::from_static(b"some"), false)
                .unwrap();
            // Once the client has told that it has got this.
            let _ = body.data().await;
            stream.send_reset(Reason::REFUSED_STREAM);
        }
        "/slow" => {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            let _ = seen.send(Seen::Reset(reason.unwrap()));
        }
        other => panic!("{other}"),
    }
}

type Client = ::h2::client::SendRequest<Bytes>;

async fn client(lab: &Lab) -> Client {
    let stream = lab.connect("api.test:443").await.unwrap();
    let stream = lab.tls(stream, API, &[H2]).await.unwrap();
    let (client, connection) = ::h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn call_of(path: &str) -> Request<()> {
    Request::post(format!("https://api.test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "1S")
        .header("x-id-bin", "AAEC")
        .body(())
        .unwrap()
}

async fn next(stream: &mut RecvStream) -> Result<Bytes, ::h2::Error> {
    let piece = stream.data().await.unwrap()?;
    stream.flow_control().release_capacity(piece.len()).unwrap();
    Ok(piece)
}

async fn start(client: &mut Client, path: &str) -> (Response<RecvStream>, SendStream<Bytes>) {
    let (answer, upload) = client.send_request(call_of(path), false).unwrap();
    (answer.await.unwrap(), upload)
}

#[test]
fn grpc_streams_both_ways_at_once_and_ends_with_trailers() {
    run(async {
        let mut upstream = Grpc::start().await;
        let lab = tokio::task::block_in_place(|| upstream.lab());
        let mut client = client(&lab).await;
        let (answer, mut upload) = start(&mut client, "/echo").await;
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        let mut body = answer.into_body();
        // Each message comes back before the next one is sent.
        for message in ["one", "two", "three"] {
            upload.send_data(Bytes::from(message), false).unwrap();
            assert_eq!(next(&mut body).await.unwrap(), message);
        }
        upload.send_data(Bytes::new(), true).unwrap();
        while body.data().await.is_some() {}
        let got = body.trailers().await.unwrap().unwrap();
        assert_eq!(got["grpc-status"], "0");
        assert_eq!(got["x-detail-bin"], "AAEC");
        assert_eq!(upstream.seen.recv().await, Some(Seen::Ended));
        let metadata = upstream.metadata.lock().unwrap().clone();
        for (name, value) in [
            ("te", "trailers"),
            ("grpc-timeout", "1S"),
            ("x-id-bin", "AAEC"),
            ("x-api-key", SECRET),
        ] {
            assert_eq!(metadata[name], value);
        }
    });
}

#[test]
fn grpc_errors_without_a_body_and_resets_arrive_as_they_were_sent() {
    run(async {
        let upstream = Grpc::start().await;
        let lab = tokio::task::block_in_place(|| upstream.lab());
        let mut client = client(&lab).await;
        let (answer, _) = start(&mut client, "/trailers-only").await;
        assert_eq!(answer.headers()["grpc-status"], "12");
        assert!(answer.body().is_end_stream(), "one frame, as it was sent");
        let (answer, _upload) = client.send_request(call_of("/reset"), false).unwrap();
        let reset = answer.await.unwrap_err();
        assert_eq!(reset.reason(), Some(Reason::ENHANCE_YOUR_CALM));
        let (answer, mut upload) = start(&mut client, "/reset-later").await;
        let mut body = answer.into_body();
        assert_eq!(next(&mut body).await.unwrap(), "some");
        upload
            .send_data(Bytes::from_static(b"got it"), false)
            .unwrap();
        let reset = next(&mut body).await.unwrap_err();
        assert_eq!(reset.reason(), Some(Reason::REFUSED_STREAM));
    });
}

#[test]
fn a_connection_over_http2_that_a_login_is_tied_to_is_nobody_elses() {
    run(async {
        let upstream = Grpc::start().await;
        let lab = tokio::task::block_in_place(|| upstream.lab());
        let guest = async || {
            let stream = lab.connect("api.test:443").await.unwrap();
            let stream = lab.tls(stream, API, &[H2, H1]).await.unwrap();
            let (client, connection) = ::h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            client.ready().await.unwrap()
        };
        let mut one = guest().await;
        for path in ["/trailers-only", "/tied", "/trailers-only", "/tied"] {
            start(&mut one, path).await;
        }
        assert_eq!(upstream.connections.load(Ordering::Relaxed), 1);
        let mut other = guest().await;
        start(&mut other, "/trailers-only").await;
        assert_eq!(upstream.connections.load(Ordering::Relaxed), 2);
        start(&mut one, "/trailers-only").await;
        assert_eq!(upstream.connections.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_call_that_the_client_gives_up_is_reset_at_the_upstream() {
    run(async {
        let mut upstream = Grpc::start().await;
        let lab = tokio::task::block_in_place(|| upstream.lab());
        let mut client = client(&lab).await;
        let (answer, mut upload) = client.send_request(call_of("/slow"), false).unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(300), answer).await;
        assert!(waited.is_err(), "there is no answer");
        upload.send_reset(Reason::CANCEL);
        assert_eq!(
            upstream.seen.recv().await,
            Some(Seen::Reset(Reason::CANCEL))
        );
        // The connection to the upstream is as good as before.
        let (answer, _) = start(&mut client, "/trailers-only").await;
        assert_eq!(answer.headers()["grpc-status"], "12");
    });
}

#[test]
fn each_stream_is_judged_by_the_newest_policy_and_one_that_is_cut_is_reset() {
    run(async {
        let upstream = Grpc::start().await;
        let mut lab = tokio::task::block_in_place(|| upstream.lab());
        let mut client = client(&lab).await;
        let (answer, mut upload) = start(&mut client, "/echo").await;
        let mut body = answer.into_body();
        upload.send_data(Bytes::from_static(b"one"), false).unwrap();
        assert_eq!(next(&mut body).await.unwrap(), "one");
        tokio::task::block_in_place(|| lab.set_rules(&["allow api.test", "allow b.test"]));
        upload.send_data(Bytes::from_static(b"two"), false).unwrap();
        assert_eq!(next(&mut body).await.unwrap(), "two", "allowed as before");
        tokio::task::block_in_place(|| lab.set_rules(&["deny api.test"]));
        assert!(next(&mut body).await.is_err());
        let cut = lab.one_record("policy-changed", API).await;
        assert!(!cut.allowed);
        let (answer, _) = start(&mut client, "/echo").await;
        assert_eq!(answer.status(), 403);
    });
}

#[test]
fn tls_older_than_1_2_is_refused_and_recorded_on_every_door() {
    let upstream = upstream(&["h2"]);
    let lab = lab_for(&upstream);
    // A whole client hello of a modern client, with the version of TLS 1.1 in it.
    let hello = {
        let roots = rustls::RootCertStore::empty();
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = API.try_into().unwrap();
        let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        assert_eq!(&bytes[9..11], &[3, 3]);
        bytes[10] = 2;
        bytes
    };
    run(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = lab.resolve(API).await.unwrap()[0];
        let doors = [
            lab.connect("api.test:443").await.unwrap(),
            lab.guest().connect(address, 443).await.unwrap(),
        ];
        for mut door in doors {
            door.write_all(&hello).await.unwrap();
            let mut answer = Vec::new();
            let _ = door.read_to_end(&mut answer).await;
            assert!(
                answer.is_empty() || answer[0] == 0x15,
                "an alert: {answer:?}"
            );
        }
        lab.records_that(2, |r| r.reason == "bad-client-hello")
            .await;
        assert_eq!(upstream.recorder().connections(), 0);
    });
}
