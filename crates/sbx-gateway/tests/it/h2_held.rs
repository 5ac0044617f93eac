//! What is held over HTTP/2 for somebody who takes nothing of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::h2::{SendStream, client, server};
use bytes::Bytes;
use hyper::http::{Request, Response};
use sbx_testkit::TestRoot;
use tokio::sync::Notify;

use crate::guest::Stream;
use crate::lab::{Lab, Setup, run, runtime};

const API: &str = "api.test";
/// Requests at a time on one connection.
const REQUESTS: usize = 64;
/// The largest window there is (RFC 9113, section 6.9.1).
const WIDEST: u32 = (1 << 31) - 1;
/// Nothing moves any more.
const STILL: Duration = Duration::from_secs(2);
const MIB: usize = 1 << 20;

/// A server over HTTP/2 that answers heads at once.
struct Server {
    address: SocketAddr,
    root: String,
    /// Bytes that its connections have given it room for, and that it sent then.
    sent: Arc<AtomicUsize>,
    /// Its answers have bodies from here on.
    speak: Arc<Notify>,
}

/// What it does once it has all requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Sends,
    ReadsNothing,
}

impl Server {
    fn start(then: Then) -> Self {
        let root = TestRoot::new("stand-in root").unwrap();
        let config = root.server_config(&[API], &[b"h2"]).unwrap();
        let _inside = runtime().enter();
        // A small buffer, so that the kernel's part in what is on its way is one too.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(8).unwrap();
        let address = listener.local_addr().unwrap();
        let (sent, speak) = (Arc::default(), Arc::new(Notify::new()));
        let (count, spoken) = (Arc::clone(&sent), Arc::clone(&speak));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        runtime().spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            let mut builder = server::Builder::new();
            builder
                .initial_window_size(WIDEST)
                .initial_connection_window_size(WIDEST);
            let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
            let mut bodies = Vec::new();
            for _ in 0..REQUESTS {
                let (request, mut respond) = connection.accept().await.unwrap().unwrap();
                let answer = Response::new(());
                let answer = respond.send_response(answer, false).unwrap();
                if then == Then::Sends {
                    let (count, spoken) = (Arc::clone(&count), Arc::clone(&spoken));
                    tokio::spawn(async move {
                        spoken.notified().await;
                        fill(answer, &count).await;
                    });
                } else {
                    bodies.push((request, answer));
                }
            }
            if then == Then::Sends {
                while connection.accept().await.is_some() {}
            } else {
                // Its heads go out, and then nothing is read.
                let driven = tokio::time::timeout(Duration::from_millis(300), connection.accept());
                assert!(driven.await.is_err(), "a request too many");
                std::future::pending::<()>().await;
            }
        });
        Self {
            address,
            root: root.pem(),
            sent,
            speak,
        }
    }

    fn lab(&self) -> Lab {
        let mut setup = Setup::new(&["allow api.test"]).send_to("api.test:443", self.address);
        setup.file.upstream.extra_roots_pem.push(self.root.clone());
        setup.credential(API).start()
    }
}

/// Sends as long as there is room.
async fn fill(mut body: SendStream<Bytes>, count: &AtomicUsize) {
    loop {
        body.reserve_capacity(64 * 1024);
        let room = std::future::poll_fn(|cx| body.poll_capacity(cx));
        let Ok(Some(Ok(room))) = tokio::time::timeout(STILL, room).await else {
            return;
        };
        if body.send_data(Bytes::from(vec![0; room]), false).is_err() {
            return;
        }
        count.fetch_add(room, Ordering::Relaxed);
    }
}

/// Bytes, once they grow no more.
async fn still(count: &AtomicUsize) -> usize {
    let mut before = 0;
    loop {
        tokio::time::sleep(STILL).await;
        let now = count.load(Ordering::Relaxed);
        if now == before {
            return now;
        }
        before = now;
    }
}

type Connection = client::Connection<tokio_rustls::client::TlsStream<Stream>, Bytes>;

async fn guest(lab: &Lab) -> (client::SendRequest<Bytes>, Connection) {
    let stream = lab.connect("api.test:443").await.unwrap();
    let stream = lab.tls(stream, API, &[b"h2"]).await.unwrap();
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(WIDEST)
        .initial_connection_window_size(WIDEST);
    builder.handshake(stream).await.unwrap()
}

#[test]
fn answers_over_http2_of_a_guest_that_does_not_read_are_held_in_small_part_only() {
    let server = Server::start(Then::Sends);
    let lab = server.lab();
    run(async {
        let (mut client, mut connection) = guest(&lab).await;
        let asking = async {
            let mut answers = Vec::new();
            for _ in 0..REQUESTS {
                client = client.ready().await.unwrap();
                let request = Request::get("https://api.test/").body(()).unwrap();
                answers.push(client.send_request(request, true).unwrap().0);
            }
            let mut heads = Vec::new();
            for answer in answers {
                heads.push(answer.await.unwrap());
            }
            heads
        };
        let heads = tokio::select! {
            heads = asking => heads,
            ended = &mut connection => panic!("{ended:?}"),
        };
        // From here on the guest reads nothing.
        server.speak.notify_waiters();
        let sent = still(&server.sent).await;
        // The window of the connection to the upstream, one buffer for each request, and what TCP holds to the guest.
        assert!((MIB / 2..8 * MIB).contains(&sent), "{sent}");
        drop((heads, connection));
    });
}

#[test]
fn bodies_over_http2_for_an_upstream_that_does_not_read_are_held_in_small_part_only() {
    let server = Server::start(Then::ReadsNothing);
    let lab = server.lab();
    run(async {
        let (mut client, connection) = guest(&lab).await;
        tokio::spawn(connection);
        let mut bodies = Vec::new();
        let mut answers = Vec::new();
        for _ in 0..REQUESTS {
            client = client.ready().await.unwrap();
            let request = Request::post("https://api.test/").body(()).unwrap();
            let (answer, body) = client.send_request(request, false).unwrap();
            answers.push(answer);
            bodies.push(body);
        }
        for answer in answers {
            assert_eq!(answer.await.unwrap().status(), 200);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let sent = Arc::new(AtomicUsize::new(0));
        for body in bodies {
            let sent = Arc::clone(&sent);
            tokio::spawn(async move { fill(body, &sent).await });
        }
        let sent = still(&sent).await;
        // The window of the guest's connection, one buffer for each request, and what TCP holds to the upstream.
        assert!((MIB..16 * MIB).contains(&sent), "{sent}");
    });
}
