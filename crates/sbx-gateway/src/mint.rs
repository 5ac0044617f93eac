//! Certificates for the hosts of opened connections, signed by the sandbox's own intermediate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sbx_policy::Host;
use sbx_wire::gateway::Authority;

use crate::limits;

/// The guest's clock may be behind ours by this.
const BACKDATED: Duration = Duration::from_hours(24);
/// How long a leaf is good for; a gateway that lives longer mints another one.
const LIFETIME: Duration = Duration::from_hours(72);
/// Age at which a cached leaf is replaced.
const REPLACED: Duration = Duration::from_hours(24);

/// Why no certificate can be minted.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// Key or certificate is not what it should be.
    #[error("the certificate authority is not usable: {0}")]
    Authority(#[from] rcgen::Error),
    /// The PEM text of the certificate is broken.
    #[error("the certificate authority is not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// rustls refused what was minted.
    #[error("cannot use the minted certificate: {0}")]
    Tls(#[from] rustls::Error),
}

/// Mints and remembers leaf certificates.
pub struct Mint {
    issuer: Issuer<'static, KeyPair>,
    intermediate: CertificateDer<'static>,
    /// One key for all leaves: it lives in this process only, and a new key for each would double the
    /// cost of a new host.
    key: KeyPair,
    provider: Arc<CryptoProvider>,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    leaves: HashMap<Host, Leaf>,
    clock: u64,
}

struct Leaf {
    config: Arc<ServerConfig>,
    minted: SystemTime,
    used: u64,
}

impl std::fmt::Debug for Mint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mint")
    }
}

impl Mint {
    /// A mint for the given intermediate.
    pub fn new(authority: &Authority, provider: Arc<CryptoProvider>) -> Result<Self, MintError> {
        let signing = KeyPair::from_pem(authority.key_pem.expose())?;
        let issuer = Issuer::from_ca_cert_pem(&authority.certificate_pem, signing)?;
        let intermediate = CertificateDer::from_pem_slice(authority.certificate_pem.as_bytes())?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mint = Self {
            issuer,
            intermediate,
            key,
            provider,
            cache: Mutex::default(),
        };
        // A key that does not belong to the certificate shows here and not at the first connection.
        mint.leaf(&Host::parse("check.invalid").unwrap_or(Host::HostService))?;
        Ok(mint)
    }

    /// The server side of TLS for a host: leaf and intermediate, HTTP/2 and HTTP/1.1.
    pub fn server_config(&self, host: &Host) -> Result<Arc<ServerConfig>, MintError> {
        {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.clock += 1;
            let clock = cache.clock;
            if let Some(leaf) = cache.leaves.get_mut(host)
                && leaf.minted.elapsed().is_ok_and(|age| age < REPLACED)
            {
                leaf.used = clock;
                return Ok(leaf.config.clone());
            }
        }
        let config = Arc::new(self.leaf(host)?);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.leaves.len() >= limits::LEAVES {
            let oldest = cache.leaves.iter().min_by_key(|(_, leaf)| leaf.used);
            if let Some(oldest) = oldest.map(|(host, _)| host.clone()) {
                cache.leaves.remove(&oldest);
            }
        }
        let used = cache.clock;
        let leaf = Leaf {
            config: config.clone(),
            minted: SystemTime::now(),
            used,
        };
        cache.leaves.insert(host.clone(), leaf);
        Ok(config)
    }

    fn leaf(&self, host: &Host) -> Result<ServerConfig, MintError> {
        let names = match host {
            Host::HostService => {
                let names = sbx_policy::HOST_SERVICE_NAMES
                    .iter()
                    .map(ToString::to_string);
                names.chain(["127.0.0.1".to_owned()]).collect()
            }
            // rcgen makes an address out of a text that is one.
            host => vec![host.to_string()],
        };
        let mut params = CertificateParams::new(names)?;
        let common: String = host.to_string().chars().take(64).collect();
        params.distinguished_name.push(DnType::CommonName, common);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = SystemTime::now();
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + LIFETIME).into();
        let leaf = params.signed_by(&self.key, &self.issuer)?;
        let chain = vec![leaf.der().clone(), self.intermediate.clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}
