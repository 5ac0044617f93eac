//! Asks a token endpoint (RFC 6749, section 3.2), over TLS that is verified with the host's roots and those of the settings.

use crate::daemon::Daemon;
use crate::settings;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sbx_wire::gateway::{MAX_ISSUED, Upstream};
use sbx_wire::secret::SecretText;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Time for a connection, and for everything.
const CONNECT: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(30);
/// Addresses of the host that are tried.
const ADDRESSES: usize = 4;
const HTTPS: u16 = 443;

/// What is asked, and where.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    /// Host, port 443.
    pub(crate) host: &'a str,
    /// Path.
    pub(crate) path: &'a str,
    /// Its headers.
    pub(crate) head: Head,
    /// Body.
    pub(crate) body: SecretText,
}

/// What stands in front of a body.
#[derive(Debug)]
pub(crate) enum Head {
    /// JSON.
    Json,
    /// A form.
    Form,
    /// These headers and no others: they are signed.
    Signed(HeaderMap),
}

impl Head {
    fn headers(&self) -> HeaderMap {
        let media_type = match self {
            Self::Json => "application/json",
            Self::Form => "application/x-www-form-urlencoded",
            Self::Signed(headers) => return headers.clone(),
        };
        let json = HeaderValue::from_static("application/json");
        let media_type = HeaderValue::from_static(media_type);
        [(ACCEPT, json), (CONTENT_TYPE, media_type)]
            .into_iter()
            .collect()
    }
}

/// What came.
#[derive(Debug)]
pub(crate) struct Told {
    /// Status of HTTP.
    pub(crate) status: u16,
    /// Body.
    pub(crate) body: SecretText,
}

/// Asks. The error is a sentence that the guest may read.
pub(crate) async fn ask(daemon: &Daemon, question: &Question<'_>) -> Result<Told, String> {
    let upstream = settings::upstream(daemon.store().settings());
    let host = question.host;
    match tokio::time::timeout(LIMIT, exchange(&upstream, question)).await {
        Ok(Ok(told)) => Ok(told),
        Ok(Err(error)) => Err(format!("{host} cannot be asked: {error}")),
        Err(_) => Err(format!(
            "{host} did not answer within {} s",
            LIMIT.as_secs()
        )),
    }
}

async fn exchange(
    upstream: &Upstream,
    question: &Question<'_>,
) -> Result<Told, Box<dyn Error + Send + Sync>> {
    let Question {
        host,
        path,
        head,
        body,
    } = question;
    let roots = upstream.extra_roots_pem.clone();
    // Reads the host's roots from the disk.
    let config = tokio::task::spawn_blocking(move || trust(&roots)).await??;
    let stream = connect(upstream, host).await?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from((*host).to_owned())?, stream)
        .await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::post(*path)
        .header(HOST, *host)
        .body(Full::new(Bytes::copy_from_slice(body.expose().as_bytes())))?;
    request.headers_mut().extend(head.headers());
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), MAX_ISSUED).collect().await;
    connection.abort();
    let text = String::from_utf8(body?.to_bytes().into());
    let body = text.map_err(|_| "what it answered is no text")?;
    Ok(Told {
        status,
        body: SecretText::new(body),
    })
}

async fn connect(
    upstream: &Upstream,
    host: &str,
) -> Result<TcpStream, Box<dyn Error + Send + Sync>> {
    let addresses: Vec<SocketAddr> = match upstream.overrides.get(&format!("{host}:{HTTPS}")) {
        Some(address) => vec![*address],
        None => tokio::net::lookup_host((host, HTTPS)).await?.collect(),
    };
    let mut last = None;
    for address in addresses.into_iter().take(ADDRESSES) {
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Some(error.to_string()),
            Err(_) => last = Some("no connection in time".to_owned()),
        }
    }
    Err(last
        .unwrap_or_else(|| "it has no address".to_owned())
        .into())
}

fn trust(extra: &[String]) -> Result<ClientConfig, rustls::Error> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for pem in extra {
        let roots = CertificateDer::pem_slice_iter(pem.as_bytes());
        store.add_parsable_certificates(roots.filter_map(Result::ok));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
