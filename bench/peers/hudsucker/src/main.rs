//! The least that a careful person would write on the hudsucker crate: a host list, a header replaced, TCP_NODELAY
//! on both sides. Names lead to 127.0.0.1, as the other proxies of the comparison are told.
//!
//! Arguments: port, CA certificate, CA key, trusted root, host list, secret.

use std::collections::HashSet;
use std::error::Error;
use std::future::{Ready, ready};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{env, fs, io, iter};

use http::{HeaderValue, Method, Request, Response, StatusCode};
use hudsucker::certificate_authority::RcgenAuthority;
use hudsucker::rcgen::{Issuer, KeyPair};
use hudsucker::rustls::crypto::aws_lc_rs;
use hudsucker::rustls::pki_types::CertificateDer;
use hudsucker::rustls::pki_types::pem::PemObject;
use hudsucker::rustls::{ClientConfig, RootCertStore};
use hudsucker::{Body, HttpContext, HttpHandler, Proxy, RequestOrResponse};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::net::TcpSocket;
use tower_service::Service;

/// Host names, and domains with a dot in front that stand for all names below.
#[derive(Clone)]
struct Rules {
    hosts: Arc<HashSet<String>>,
    secret: HeaderValue,
}

impl Rules {
    fn allow(&self, host: &str) -> bool {
        let below = |(at, _)| self.hosts.contains(&host[at..]);
        self.hosts.contains(host) || host.match_indices('.').any(below)
    }
}

impl HttpHandler for Rules {
    async fn handle_request(
        &mut self,
        _: &HttpContext,
        mut request: Request<Body>,
    ) -> RequestOrResponse {
        if !request.uri().host().is_some_and(|host| self.allow(host)) {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::FORBIDDEN;
            return answer.into();
        }
        if request.method() != Method::CONNECT {
            let headers = request.headers_mut();
            headers.insert("x-api-key", self.secret.clone());
        }
        request.into()
    }
}

#[derive(Clone)]
struct Loopback;

impl Service<Name> for Loopback {
    type Response = iter::Once<SocketAddr>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(iter::once(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))))
    }
}

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [port, certificate, key, root, hosts, secret] = words.as_slice() else {
        return Err("six arguments".into());
    };
    let key = KeyPair::from_pem(&fs::read_to_string(key)?)?;
    let issuer = Issuer::from_ca_cert_pem(&fs::read_to_string(certificate)?, key)?;
    let authority = RcgenAuthority::new(issuer, 1_000, aws_lc_rs::default_provider());
    let rules = Rules {
        hosts: Arc::new(fs::read_to_string(hosts)?.lines().map(str::to_owned).collect()),
        secret: HeaderValue::from_str(secret)?,
    };
    let tls = client_tls(root)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Accepted sockets inherit it.
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.set_nodelay(true)?;
        socket.bind(address)?;
        let mut http = HttpConnector::new_with_resolver(Loopback);
        http.set_nodelay(true);
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let proxy = Proxy::builder()
            .with_listener(socket.listen(1024)?)
            .with_ca(authority)
            .with_http_connector(connector)
            .with_http_handler(rules)
            .build()?;
        Ok(proxy.start().await?)
    })
}

fn client_tls(root: &str) -> Outcome<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root)?)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
