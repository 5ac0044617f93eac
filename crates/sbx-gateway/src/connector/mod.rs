//! Room 4: dials what the decision pinned and writes the credential that the decision named. Resolves
//! nothing, parses nothing, decides nothing.

pub mod aws;
mod bulk;
mod http;
mod message;
mod upstreams;

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use sbx_policy::Host;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use self::bulk::Below;
use crate::adapter::hello::Offers;
use crate::decision::Grant;
use crate::limits;
use crate::reason::Reason;

pub use http::{RequestBody, SendError, Sender, Sent};
pub use message::prepare;
pub use upstreams::{Upstream, Upstreams};

/// Why an upstream cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No granted address accepted a connection.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, #[source] io::Error),
    /// The certificate is not valid for the host.
    #[error("the certificate of {0} is not valid: {1}")]
    Certificate(String, #[source] io::Error),
    /// The handshake failed for another reason.
    #[error("the TLS handshake with {0} failed: {1}")]
    Tls(String, #[source] io::Error),
}

impl DialError {
    /// Whether somebody is there and wants no connection, and not that there is no way or no answer.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Connect(_, error) if is_refused(error))
    }

    /// The code for records.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Connect(..) => Reason::UpstreamUnreachable,
            Self::Certificate(..) => Reason::UpstreamCertificate,
            Self::Tls(..) => Reason::UpstreamTls,
        }
    }
}

/// Connects to the first granted address that accepts.
pub async fn dial(grant: &Grant) -> Result<TcpStream, DialError> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in grant.addresses.iter().take(limits::DIALS) {
        match tokio::time::timeout(limits::CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small writes must leave at once; a socket that refuses is as good as any.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            // A host without IPv6 has no way to `::1`: that somebody on the other address wants no connection says more.
            Ok(Err(error)) if is_refused(&last) && has_no_way(&error) => {}
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(DialError::Connect(grant.target.to_string(), last))
}

fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// Whether this machine cannot even try: it has no such addresses.
fn has_no_way(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::NetworkUnreachable
    ) || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// TLS on top, verified for the host that was judged, whatever address was dialled.
async fn dial_tls(
    grant: &Grant,
    stream: TcpStream,
    offers: Offers,
) -> Result<TlsStream<Below<TcpStream>>, DialError> {
    let configs = &grant.generation.client_tls;
    let config = match (offers.h2, offers.h1) {
        (true, true) => &configs.any,
        (true, false) => &configs.h2,
        _ => &configs.h1,
    };
    let target = grant.target.to_string();
    let name = match &grant.target.host {
        Host::Ip(ip) => Ok(ServerName::from(*ip)),
        host => ServerName::try_from(host.to_string()),
    };
    let name = name.map_err(|error| DialError::Tls(target.clone(), io::Error::other(error)))?;
    let handshake = TlsConnector::from(Arc::clone(config)).connect(name, Below::new(stream));
    match tokio::time::timeout(limits::UPSTREAM_TLS, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if is_certificate(&error) => Err(DialError::Certificate(target, error)),
        Ok(Err(error)) => Err(DialError::Tls(target, error)),
        Err(_) => Err(DialError::Tls(target, io::ErrorKind::TimedOut.into())),
    }
}

fn is_certificate(error: &io::Error) -> bool {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        inner,
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    )
}
