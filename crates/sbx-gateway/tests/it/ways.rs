//! The ways on which the guest's HTTP/1.1 reaches the gateway, for attacks that must fail on all of them.

use sbx_testkit::EchoUpstream;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::attack::{Round, rest, say};
use crate::lab::Setup;

/// The ways on which the guest's HTTP/1.1 is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// An absolute URL to the proxy port.
    Proxy,
    /// `CONNECT` to port 80 and clear text in it.
    Port80,
    /// A client that dials by itself.
    Transparent,
    /// Inside of TLS that was opened.
    Opened,
    /// The same, of a client that dials by itself.
    OpenedTransparent,
}

pub(crate) const WAYS: [Way; 4] = [Way::Proxy, Way::Port80, Way::Transparent, Way::Opened];

pub(crate) trait Connection: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Connection for S {}

impl Way {
    pub(crate) async fn open(self, round: &Round<'_>) -> Box<dyn Connection> {
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
            Self::OpenedTransparent => {
                let address = lab.resolve("api.test").await.unwrap()[0];
                let stream = lab.guest().connect(address, 443).await.unwrap();
                Box::new(lab.tls(stream, "api.test", &[b"http/1.1"]).await.unwrap())
            }
        }
    }

    pub(crate) fn host(self) -> &'static str {
        match self {
            Self::Opened | Self::OpenedTransparent => "api.test",
            _ => "web.test",
        }
    }

    /// The request target for a path of the host.
    pub(crate) fn target(self, path: &str) -> String {
        match self {
            Self::Proxy => format!("http://web.test{path}"),
            _ => path.to_owned(),
        }
    }

    /// A request line and the host, without the empty line at the end.
    pub(crate) fn head(self, method: &str, path: &str) -> String {
        format!(
            "{method} {} HTTP/1.1\r\nHost: {}\r\n",
            self.target(path),
            self.host()
        )
    }

    /// The whole attempt was refused: 400, one record, nothing of it upstream.
    pub(crate) async fn refuses(self, round: &Round<'_>, request: impl AsRef<[u8]>) {
        let mut stream = self.open(round).await;
        let shown = format!("{self:?} {}", String::from_utf8_lossy(request.as_ref()));
        let answer = say(&mut stream, request).await;
        assert_eq!(answer.status, 400, "{shown}: {answer:?}");
        // Nothing that follows on the connection is taken for a request.
        let after = rest(&mut stream).await;
        assert!(
            after.is_empty(),
            "{shown}: {}",
            String::from_utf8_lossy(&after)
        );
        if matches!(self, Self::Opened | Self::OpenedTransparent) {
            round.refused_as_bad_inside(&shown).await;
        } else {
            round.refused_as_bad(&shown).await;
        }
    }
}

pub(crate) struct Upstreams {
    pub(crate) plain: EchoUpstream,
    pub(crate) opened: EchoUpstream,
}

impl Upstreams {
    pub(crate) fn new() -> Self {
        Self {
            plain: EchoUpstream::start().unwrap(),
            opened: EchoUpstream::start_tls(&["api.test"]).unwrap(),
        }
    }

    pub(crate) fn setup(&self) -> Setup {
        Setup::new(&["allow web.test", "allow api.test"])
            .send_to("web.test:80", self.plain.address())
            .tls_upstream("api.test", &self.opened)
            .credential("api.test")
    }

    pub(crate) fn watched(&self) -> [&sbx_testkit::Recorder; 2] {
        [self.plain.recorder(), self.opened.recorder()]
    }
}
