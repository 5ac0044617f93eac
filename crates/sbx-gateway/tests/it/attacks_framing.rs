//! Attacks on the framing of HTTP/1.1: cases 23 to 29 and 35.

use sbx_testkit::EchoUpstream;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::attack::{Round, hear, rest, say, twice};
use crate::lab::Setup;
use crate::tape::Tape;

/// The ways on which the guest's HTTP/1.1 is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// An absolute URL to the proxy port.
    Proxy,
    /// `CONNECT` to port 80 and clear text in it.
    Port80,
    /// A client that dials by itself.
    Transparent,
    /// Inside of TLS that was opened.
    Opened,
}

const WAYS: [Way; 4] = [Way::Proxy, Way::Port80, Way::Transparent, Way::Opened];

trait Connection: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Connection for S {}

impl Way {
    async fn open(self, round: &Round<'_>) -> Box<dyn Connection> {
        let lab = round.lab;
        match self {
            Self::Proxy => Box::new(lab.proxy().await),
            Self::Port80 => Box::new(lab.connect("web.test:80").await.unwrap()),
            Self::Transparent => {
                let address = lab.resolve("web.test").await.unwrap()[0];
                Box::new(lab.guest().connect(address, 80).await.unwrap())
            }
            Self::Opened => {
                let stream = lab.connect("api.test:443").await.unwrap();
                Box::new(lab.tls(stream, "api.test", &[b"http/1.1"]).await.unwrap())
            }
        }
    }

    fn host(self) -> &'static str {
        match self {
            Self::Opened => "api.test",
            _ => "web.test",
        }
    }

    /// The request target for a path of the host.
    fn target(self, path: &str) -> String {
        match self {
            Self::Proxy => format!("http://web.test{path}"),
            _ => path.to_owned(),
        }
    }

    /// A request line and the host, without the empty line at the end.
    fn head(self, method: &str, path: &str) -> String {
        format!(
            "{method} {} HTTP/1.1\r\nHost: {}\r\n",
            self.target(path),
            self.host()
        )
    }
}

struct Upstreams {
    plain: EchoUpstream,
    opened: EchoUpstream,
}

impl Upstreams {
    fn new() -> Self {
        Self {
            plain: EchoUpstream::start().unwrap(),
            opened: EchoUpstream::start_tls(&["api.test"]).unwrap(),
        }
    }

    fn setup(&self) -> Setup {
        Setup::new(&["allow web.test", "allow api.test"])
            .send_to("web.test:80", self.plain.address())
            .tls_upstream("api.test", &self.opened)
            .credential("api.test")
    }

    fn watched(&self) -> [&sbx_testkit::Recorder; 2] {
        [self.plain.recorder(), self.opened.recorder()]
    }
}

#[test]
fn attack_27_trailers_that_could_change_a_message_stay_here() {
    let tape = Tape::start();
    let setup = Setup::new(&["allow web.test"]).send_to("web.test:80", tape.address);
    twice(setup.start(), &[], async |round| {
        for way in [Way::Proxy, Way::Port80, Way::Transparent] {
            let mut stream = way.open(round).await;
            let head = way.head("POST", "/upload");
            let request = format!(
                "{head}Transfer-Encoding: chunked\r\nTrailer: x-sum\r\nTE: trailers\r\n\r\n5\r\nhello\r\n0\r\n\
                 Authorization: Bearer y\r\nHost: evil.test\r\nContent-Length: 1\r\n\
                 Transfer-Encoding: chunked\r\nConnection: close\r\nX-Api-Key: y\r\nx-sum: 1\r\n\r\n"
            );
            assert_eq!(say(&mut stream, request).await.status, 200, "{way:?}");
            let heard = tape.take().to_ascii_lowercase();
            let (_, trailers) = heard.split_once("\r\n0\r\n").unwrap_or_default();
            for name in [
                "authorization",
                "host",
                "content-length",
                "transfer-encoding",
                "connection",
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
                Way::Port80 | Way::Opened => "host-mismatch",
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
                Way::Port80 | Way::Opened => (403, "host-mismatch"),
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
fn attack_35_a_body_that_nobody_wants_is_never_taken_for_a_request() {
    let upstreams = Upstreams::new();
    let denied = Setup::new(&["allow web.test"]).send_to("web.test:80", upstreams.plain.address());
    twice(denied.start(), &upstreams.watched(), async |round| {
        let hidden = "GET http://web.test/smuggled HTTP/1.1\r\nHost: web.test\r\n\r\n";
        for expect in ["", "Expect: 100-continue\r\n", "Range: bytes=0-1\r\n"] {
            let mut stream = round.lab.proxy().await;
            let request = format!(
                "POST http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n{expect}Content-Length: {}\r\n\r\n{hidden}",
                hidden.len()
            );
            let answer = say(&mut stream, request).await;
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
        // What follows the body of the first request in what was heard is another request or nothing.
        let heard = early.take();
        let (_, body) = heard.split_once("\r\n\r\n").unwrap();
        let after = body
            .find("HTTP/1.1\r\n")
            .map_or("", |_| &body[body.len().min(100)..]);
        assert!(!after.contains("/smuggled"), "{heard}");
        assert!(round.recorded_at_least(2).await.len() <= 3);
    });
}
