//! Endpoints that issue credentials: what they answer goes to the daemon first, or they are not asked at all.

use sbx_credentials::stray::Strays;
use sbx_policy::{HttpMatch, HttpRequest, Methods, Target};
use sbx_wire::gateway::{Answer, Issuer};
use sbx_wire::secret::SecretText;

use super::Hosts;
use super::bind::check_placeholder;
use crate::desk::Desk;
use crate::generation::ConfigError;

/// What the daemon makes of an errand, or why nothing.
pub type Told = Result<Tell, String>;

/// What the guest is told.
#[derive(Debug)]
pub struct Tell {
    /// The body.
    pub body: SecretText,
    /// A status other than that of success.
    pub status: Option<u16>,
}

/// Where errands are handed over.
pub type IssuerDesk = Desk<Errand, Told>;

/// What the daemon has to deal with.
#[derive(Debug)]
pub enum Errand {
    /// An issuer has answered.
    Issued {
        /// Service of the issuer.
        service: String,
        /// Path of the request.
        path: String,
        /// Body of the answer.
        body: SecretText,
        /// Host that was asked.
        host: String,
        /// Body of the request, unless it has none.
        asked: Option<SecretText>,
    },
    /// The guest wants to exchange a placeholder.
    Exchange {
        /// Service of the issuer.
        service: String,
        /// Body of the request.
        body: SecretText,
    },
}

impl Errand {
    /// As the daemon is told.
    pub fn tell(&self) -> Answer {
        match self {
            Self::Issued {
                service,
                path,
                body,
                host,
                asked,
            } => Answer::Issued {
                service: service.clone(),
                path: path.clone(),
                body: body.clone(),
                host: host.clone(),
                asked: asked.clone(),
            },
            Self::Exchange { service, body } => Answer::Exchange {
                service: service.clone(),
                body: body.clone(),
            },
        }
    }
}

/// An endpoint that issues credentials.
#[derive(Debug)]
pub struct BoundIssuer {
    /// Service name.
    pub service: String,
    hosts: Hosts,
    requests: HttpMatch,
    /// The daemon keeps what it issues.
    pub kept: bool,
    exchanged: Option<Strays>,
}

impl BoundIssuer {
    /// Checks the configuration's.
    pub(super) fn new(issuer: &Issuer) -> Result<Self, ConfigError> {
        let bad = |text| ConfigError::Credential {
            service: issuer.service.clone(),
            text,
        };
        if issuer.hosts.is_empty() {
            return Err(bad("its issuer has no host"));
        }
        for placeholder in &issuer.exchanged {
            check_placeholder(&issuer.service, placeholder)?;
        }
        let exchanged: Vec<&str> = issuer.exchanged.iter().map(String::as_str).collect();
        let methods = issuer.methods.parse();
        let path = issuer.path.parse();
        Ok(Self {
            service: issuer.service.clone(),
            hosts: Hosts::parse("issuer host", &issuer.hosts)?,
            requests: HttpMatch {
                methods: methods.map_err(|_| bad("the methods of its issuer are none"))?,
                path: path.map_err(|_| bad("the path of its issuer is no pattern"))?,
            },
            kept: issuer.kept,
            exchanged: Strays::new(&exchanged),
        })
    }

    pub(super) fn is_at(&self, target: &Target) -> bool {
        self.hosts.contains(target)
    }

    /// Whether it depends on the method.
    pub(super) fn minds_methods(&self) -> bool {
        self.requests.methods != Methods::ANY
    }

    /// Whether the request is one of those that are answered with credentials. Where it may be read in more than one way,
    /// one of them is enough.
    pub(super) fn is_asked(&self, request: &HttpRequest) -> bool {
        self.requests.denies(request)
    }

    /// Whether a request's body carries a placeholder that the daemon exchanges.
    pub fn exchanges(&self, body: &[u8]) -> bool {
        let found = |exchanged: &Strays| exchanged.find(body).is_some();
        self.exchanged.as_ref().is_some_and(found)
    }
}
