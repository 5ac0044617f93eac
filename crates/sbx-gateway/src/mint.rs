//! Certificates for the hosts of opened connections, signed by the sandbox's own intermediate.
//!
//! The intermediate's key is made here when the process starts and never leaves its memory: the daemon gets the
//! public half and signs it ([`SigningKey`], [`Mint::new`]). A leaf is made for a name that the decision room has
//! judged, either to let its requests through or to tell the client why it is blocked; its key, too, stays here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber, SignatureAlgorithm,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use sbx_policy::Host;
use sbx_wire::gateway::{Authority, PublicKey};

use crate::limits;

/// The guest's clock may be behind ours by this.
const BACKDATED: Duration = Duration::from_hours(24);
/// How long a leaf is good for, unless the intermediate ends earlier.
const LIFETIME: Duration = Duration::from_hours(24);
/// Age at which a cached leaf is replaced, which leaves half of its life for a guest whose clock is ahead.
const REPLACED: Duration = Duration::from_hours(12);
/// Name of the certificate that is made to check an authority (RFC 6761, section 6.4).
const CHECK: &str = "check.invalid";

/// Why no certificate can be minted.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// Key or certificate is not what it should be.
    #[error("the certificate authority is not usable: {0}")]
    Authority(#[from] rcgen::Error),
    /// The PEM text of the certificate is broken.
    #[error("the certificate authority is not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// It was issued for another key, by another root, or is not in force.
    #[error("the certificate authority does not check out: {0}")]
    Check(String),
    /// rustls refused what was minted.
    #[error("cannot use the minted certificate: {0}")]
    Tls(#[from] rustls::Error),
    /// No serial number.
    #[error(transparent)]
    Random(#[from] crate::NoRandomness),
    /// The intermediate has ended, and no daemon has brought another one.
    #[error("the certificate authority has ended")]
    Ended,
}

/// The key of the sandbox's intermediate: made once for each life of the process.
#[derive(Clone)]
pub struct SigningKey(Arc<KeyPair>);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    /// A new key (ECDSA, P-256).
    pub fn generate() -> Result<Self, MintError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Self(Arc::new(key)))
    }

    /// What the daemon signs.
    pub fn public(&self) -> Result<PublicKey, MintError> {
        let point = self.0.der_bytes();
        PublicKey::try_from(point).map_err(|error| MintError::Check(error.to_string()))
    }
}

impl PublicKeyData for SigningKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl rcgen::SigningKey for SigningKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

/// What is offered to a client of the guest (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2 and nothing else.
    H2,
    /// HTTP/1.1 and nothing else.
    H1,
    /// Whichever of the two the client likes better.
    Any,
}

impl Alpn {
    const COUNT: usize = 3;

    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::H2 => vec![b"h2".to_vec()],
            Self::H1 => vec![b"http/1.1".to_vec()],
            Self::Any => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        }
    }
}

/// What a leaf is for. Names that are only told that they are blocked cannot push the others out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Requests to an allowed host.
    Requests,
    /// The page that says why the host is blocked.
    BlockPage,
}

/// Mints and remembers leaf certificates.
pub struct Mint {
    authority: Authority,
    issuer: Issuer<'static, SigningKey>,
    intermediate: CertificateDer<'static>,
    not_after: SystemTime,
    /// One key for all leaves: it lives in this process only, and a new key for each would double the
    /// cost of a new host.
    key: KeyPair,
    signer: Arc<dyn rustls::sign::SigningKey>,
    /// What all connections have in common, their remembered sessions included (a session is taken up again
    /// for its own server name only).
    common: ServerConfig,
    allowed: Mutex<Cache>,
    blocked: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    leaves: HashMap<Host, Arc<Leaf>>,
    clock: u64,
}

impl Cache {
    /// To look for the leaf that was used longest ago costs as much as all that are kept: so a quarter goes at once.
    fn forget_a_quarter(&mut self) {
        use std::sync::atomic::Ordering::Relaxed;
        let used = |leaf: &Arc<Leaf>| leaf.used.load(Relaxed);
        let mut ages: Vec<u64> = self.leaves.values().map(used).collect();
        let last = ages.len() / 4;
        let (_, age, _) = ages.select_nth_unstable(last);
        let age = *age;
        self.leaves.retain(|_, leaf| used(leaf) > age);
    }
}

struct Leaf {
    certified: Arc<CertifiedKey>,
    configs: [[OnceLock<Arc<ServerConfig>>; 2]; Alpn::COUNT],
    minted: SystemTime,
    used: std::sync::atomic::AtomicU64,
}

impl std::fmt::Debug for Mint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mint")
    }
}

/// Placeholder in [`Mint::common`], replaced for each host.
#[derive(Debug)]
struct NoCertificate;

impl rustls::server::ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

impl Mint {
    /// A mint for the intermediate that was issued for `key`.
    pub fn new(
        authority: &Authority,
        key: &SigningKey,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, MintError> {
        let issuer = Issuer::from_ca_cert_pem(&authority.certificate_pem, key.clone())?;
        let intermediate = CertificateDer::from_pem_slice(authority.certificate_pem.as_bytes())?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der)?;
        let mut common = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(NoCertificate));
        // Enough for one connection after the other; each costs as much as a small request.
        common.send_tls13_tickets = 1;
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(authority.not_after_s);
        let mint = Self {
            authority: authority.clone(),
            issuer,
            intermediate,
            not_after,
            key,
            signer,
            common,
            allowed: Mutex::default(),
            blocked: Mutex::default(),
        };
        // A key that does not belong to the certificate shows here and not at the first connection.
        if !mint.is_in_force() {
            return Err(MintError::Ended);
        }
        mint.check(provider)?;
        Ok(mint)
    }

    /// Whether this is the mint of that authority.
    pub fn is_of(&self, authority: &Authority) -> bool {
        self.authority.certificate_pem == authority.certificate_pem
            && self.authority.root_pem == authority.root_pem
            && self.authority.not_after_s == authority.not_after_s
    }

    /// Whether the intermediate is still in force.
    pub fn is_in_force(&self) -> bool {
        SystemTime::now() < self.not_after
    }

    /// Looks at a leaf as the guest will.
    fn check(&self, provider: &Arc<CryptoProvider>) -> Result<(), MintError> {
        let bad = |error: &dyn std::fmt::Display| MintError::Check(error.to_string());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(
            self.authority.root_pem.as_bytes(),
        )?)?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error| bad(&error))?;
        let leaf = self.certificate(&Host::parse(CHECK).map_err(|error| bad(&error))?)?;
        let name = ServerName::try_from(CHECK).map_err(|error| bad(&error))?;
        let chain = std::slice::from_ref(&self.intermediate);
        verifier
            .verify_server_cert(&leaf, chain, &name, &[], UnixTime::now())
            .map_err(|error| bad(&error))?;
        Ok(())
    }

    /// The server side of TLS for a host: leaf and intermediate, offering what `alpn` says. `own_order`: the order of the
    /// client's cipher suites counts; else it is ours.
    pub fn server_config(
        &self,
        host: &Host,
        alpn: Alpn,
        own_order: bool,
        purpose: Purpose,
    ) -> Result<Arc<ServerConfig>, MintError> {
        let leaf = self.leaf(host, purpose)?;
        let config = leaf.configs[alpn as usize][usize::from(own_order)].get_or_init(|| {
            let mut config = self.common.clone();
            config.ignore_client_order = !own_order;
            config.cert_resolver = Arc::new(SingleCertAndKey::from(leaf.certified.clone()));
            config.alpn_protocols = alpn.protocols();
            Arc::new(config)
        });
        Ok(config.clone())
    }

    fn leaf(&self, host: &Host, purpose: Purpose) -> Result<Arc<Leaf>, MintError> {
        use std::sync::atomic::Ordering::Relaxed;
        if !self.is_in_force() {
            return Err(MintError::Ended);
        }
        let cache = match purpose {
            Purpose::Requests => &self.allowed,
            Purpose::BlockPage => &self.blocked,
        };
        {
            let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.clock += 1;
            if let Some(leaf) = cache.leaves.get(host)
                && leaf.minted.elapsed().is_ok_and(|age| age < REPLACED)
            {
                leaf.used.store(cache.clock, Relaxed);
                return Ok(leaf.clone());
            }
        }
        let chain = vec![self.certificate(host)?, self.intermediate.clone()];
        let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        let leaf = Arc::new(Leaf {
            certified: Arc::new(CertifiedKey::new(chain, self.signer.clone())),
            configs: Default::default(),
            minted: SystemTime::now(),
            used: cache.clock.into(),
        });
        if cache.leaves.len() >= limits::LEAVES {
            cache.forget_a_quarter();
        }
        cache.leaves.insert(host.clone(), leaf.clone());
        Ok(leaf)
    }

    fn certificate(&self, host: &Host) -> Result<CertificateDer<'static>, MintError> {
        let names = match host {
            Host::HostService => {
                let names = sbx_policy::HOST_SERVICE_NAMES.map(str::to_owned);
                let addresses = sbx_policy::HOST_SERVICE_ADDRESSES.map(|ip| ip.to_string());
                names.into_iter().chain(addresses).collect()
            }
            // rcgen makes an address out of a text that is one.
            host => vec![host.to_string()],
        };
        let mut params = CertificateParams::new(names)?;
        let common: String = host.to_string().chars().take(64).collect();
        params.distinguished_name.push(DnType::CommonName, common);
        // Of its own, as clients insist on (RFC 5280, section 4.1.2.2): made from the key it would be the same for all.
        let mut serial = [0; 16];
        crate::random(&mut serial)?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = SystemTime::now();
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + LIFETIME).min(self.not_after).into();
        Ok(params.signed_by(&self.key, &self.issuer)?.der().clone())
    }
}
