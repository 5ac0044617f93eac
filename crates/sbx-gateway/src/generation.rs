//! One immutable policy generation: everything that decisions and connections work from. A new
//! configuration makes a new one, which replaces the old in one step or not at all.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use sbx_policy::{
    DenyKind, Evaluator, HostName, Intent, PolicyDocument, Port, Target, TargetError, Verdict,
};
use sbx_wire::gateway::{GatewayConfig, GatewayFile};

use crate::connector::Upstreams;
use crate::credentials::{BoundCredential, Configured, Credentials, Hosts};
use crate::limits;
use crate::mint::{Mint, MintError, SigningKey};
use crate::pins::synthetic_addresses;
use crate::reason::Reason;

/// Why a configuration is refused. The last good one stays.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A host in overrides or credentials is not one.
    #[error("{what} {text:?}: {source}")]
    Target {
        /// Where it stands.
        what: &'static str,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        source: TargetError,
    },
    /// A root certificate is not PEM, or not a certificate that can be trusted.
    #[error("extra root certificate {index}: {text}")]
    Root {
        /// Which, from 0.
        index: usize,
        /// What is wrong.
        text: String,
    },
    /// A credential cannot be written into a request. Never shows its value.
    #[error("credential {service:?}: {text}")]
    Credential {
        /// The service.
        service: String,
        /// What is wrong.
        text: &'static str,
    },
    /// The certificate authority is not usable.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// TLS cannot be set up.
    #[error("upstream TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// What the host gives to every generation; read before the jail closed.
#[derive(Debug, Clone)]
pub struct HostTrust {
    /// Roots of the operating system.
    pub roots: Vec<CertificateDer<'static>>,
    /// Resolvers of the host, used when the configuration names none.
    pub resolvers: Vec<SocketAddr>,
    /// The one crypto provider.
    pub provider: Arc<CryptoProvider>,
}

/// An immutable policy generation.
#[derive(Debug)]
pub struct Generation {
    /// Its number.
    pub number: u64,
    /// Sandbox name.
    pub sandbox: Arc<str>,
    /// The one evaluator.
    pub evaluator: Evaluator,
    /// Ports that stand for all when an address is judged before the port is known: those that rules
    /// about addresses name, and one that stands for every other.
    pub address_ports: BTreeSet<Port>,
    /// Where overridden targets are really dialled.
    pub overrides: HashMap<Target, SocketAddr>,
    /// Addresses for the names of overrides.
    pub synthetic: HashMap<HostName, Ipv4Addr>,
    /// DNS servers to ask.
    pub resolvers: Vec<SocketAddr>,
    /// TLS towards upstreams.
    pub client_tls: ClientTls,
    /// Credentials, by what they are bound to.
    pub credentials: Credentials,
    /// Hosts that need a credential although it is not here yet.
    credential_hosts: Hosts,
    /// The certificate authority, once received.
    pub mint: Option<Arc<Mint>>,
    /// Whether credentials and certificate authority have been received.
    pub configured: bool,
    /// Connections to upstreams that wait for the next request.
    pub upstreams: Arc<Upstreams>,
    /// Why everything is denied, if it is because there is no usable policy.
    pub problem: Option<String>,
}

impl Generation {
    /// From the file alone: no secrets.
    pub fn from_file(file: GatewayFile, host: &HostTrust) -> Result<Self, ConfigError> {
        Self::build(file, Credentials::default(), None, host)
    }

    /// From the daemon's whole configuration. `key`: what the authority was issued for. What `before` has minted is
    /// kept if the authority is the same.
    pub fn from_config(
        config: GatewayConfig,
        host: &HostTrust,
        key: &SigningKey,
        before: &Self,
    ) -> Result<Self, ConfigError> {
        let GatewayConfig {
            file,
            credentials,
            withdrawn,
            issuers,
            authority,
        } = config;
        let credentials = Credentials::new(&Configured {
            credentials: &credentials,
            withdrawn: &withdrawn,
            issuers: &issuers,
            given: Some(before.credentials.given()),
        })?;
        let kept = before.mint.as_ref().filter(|mint| mint.is_of(&authority));
        let mint = match kept {
            Some(mint) => mint.clone(),
            None => Arc::new(Mint::new(&authority, key, &host.provider)?),
        };
        Self::build(file, credentials, Some(mint), host)
    }

    /// Denies everything, because of `problem`.
    pub fn closed(problem: String, host: &HostTrust) -> Result<Self, ConfigError> {
        let file = GatewayFile {
            sandbox: String::new(),
            policy: PolicyDocument::default(),
            upstream: sbx_wire::gateway::Upstream::default(),
            credential_hosts: Vec::new(),
        };
        Ok(Self {
            problem: Some(problem),
            ..Self::build(file, Credentials::default(), None, host)?
        })
    }

    fn build(
        file: GatewayFile,
        credentials: Credentials,
        mint: Option<Arc<Mint>>,
        host: &HostTrust,
    ) -> Result<Self, ConfigError> {
        let mut overrides = HashMap::new();
        for (text, address) in &file.upstream.overrides {
            overrides.insert(parse_target("upstream override", text)?, *address);
        }
        let names = overrides
            .keys()
            .filter_map(|target| target.host.name().cloned());
        let synthetic = synthetic_addresses(names);
        let credential_hosts = Hosts::parse("credential host", &file.credential_hosts)?;
        let roots = Arc::new(roots(&file.upstream.extra_roots_pem, host)?);
        let resolvers = match file.upstream.resolvers.as_slice() {
            [] => host.resolvers.clone(),
            named => named.to_vec(),
        };
        let address_ports = address_ports(&file.policy);
        Ok(Self {
            number: file.policy.generation,
            sandbox: file.sandbox.into(),
            evaluator: Evaluator::of(file.policy)
                .opening_udp(file.upstream.udp_egress)
                .knowing_what_is_near(sbx_policy::what_is_near),
            address_ports,
            overrides,
            synthetic,
            resolvers,
            client_tls: ClientTls::new(&roots, host)?,
            credentials,
            credential_hosts,
            configured: mint.is_some(),
            mint,
            upstreams: Arc::default(),
            problem: None,
        })
    }

    /// Whether connections to the target have to be opened to write a credential into them.
    pub fn needs_credential(&self, target: &Target) -> bool {
        self.credential_hosts.contains(target) || self.credentials.covers(target)
    }
}

fn address_ports(policy: &PolicyDocument) -> BTreeSet<Port> {
    let resources = policy.rules.iter().flat_map(|rule| &rule.resources);
    let about_addresses = resources.filter(|resource| !resource.host.is_name());
    about_addresses
        .filter_map(|resource| resource.port)
        .chain([Port::HTTPS])
        .collect()
}

fn parse_target(what: &'static str, text: &str) -> Result<Target, ConfigError> {
    Target::parse_authority(text, Port::HTTPS).map_err(|source| ConfigError::Target {
        what,
        text: text.to_owned(),
        source,
    })
}

fn roots(extra: &[String], host: &HostTrust) -> Result<RootCertStore, ConfigError> {
    let mut store = RootCertStore::empty();
    // The system's own store may hold certificates that webpki does not take; the others count.
    store.add_parsable_certificates(host.roots.iter().cloned());
    for (index, pem) in extra.iter().enumerate() {
        let bad = |text: String| ConfigError::Root { index, text };
        let mut found = false;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            store
                .add(certificate)
                .map_err(|error| bad(error.to_string()))?;
            found = true;
        }
        if !found {
            return Err(bad("there is no certificate in it".to_owned()));
        }
    }
    Ok(store)
}

/// TLS towards upstreams (1.2 and 1.3, no early data), by what is offered. They share their remembered sessions.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// HTTP/2 and HTTP/1.1.
    pub any: Arc<ClientConfig>,
    /// HTTP/2 alone.
    pub h2: Arc<ClientConfig>,
    /// HTTP/1.1 alone.
    pub h1: Arc<ClientConfig>,
}

impl ClientTls {
    fn new(roots: &Arc<RootCertStore>, host: &HostTrust) -> Result<Self, rustls::Error> {
        let common = ClientConfig::builder_with_provider(host.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let offering = |protocols: &[&[u8]]| {
            let mut config = common.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            any: offering(&[b"h2", b"http/1.1"]),
            h2: offering(&[b"h2"]),
            h1: offering(&[b"http/1.1"]),
        })
    }
}

impl Generation {
    /// Whether something that is open may stay so, into which the values of these credentials are written. `beside`: none
    /// of these may be denied, see [`crate::decision::Grant::beside`].
    ///
    /// # Errors
    /// What changed.
    pub fn keeps(
        &self,
        intent: &Intent,
        beside: &[Intent],
        written: &[Arc<BoundCredential>],
    ) -> Result<(), Reason> {
        let (target, granted, verdict) = self.judge_again(intent);
        // Any of its addresses may be the one that was dialled.
        if !verdict.is_allowed() || verdict.pinned.len() < granted {
            return Err(Reason::PolicyChanged);
        }
        // As when it was opened: nobody can see which name was meant.
        let mut beside_it = beside.iter();
        let is_denied = |one| self.judge_again(one).2.deny_kind == Some(DenyKind::Explicit);
        if beside.len() > limits::NAMES_BESIDE || beside_it.any(is_denied) {
            return Err(Reason::PolicyChanged);
        }
        let mut written = written.iter();
        if written.any(|one| !self.credentials.still_binds(&target, one)) {
            return Err(Reason::CredentialWithdrawn);
        }
        Ok(())
    }

    /// Asks again what was asked when something was opened: about which target, how many addresses it was granted, and
    /// the answer. An override keeps its target out of the address check, as it did then.
    fn judge_again(&self, intent: &Intent) -> (Target, usize, Verdict) {
        let mut intent = intent.clone();
        let target = Target {
            host: intent.host.clone(),
            port: intent.port,
        };
        if self.overrides.contains_key(&target) {
            intent.resolved = None;
        }
        let granted = intent.resolved.as_ref().map_or(0, Vec::len);
        let verdict = self.evaluator.decide(&intent);
        (target, granted, verdict)
    }
}
