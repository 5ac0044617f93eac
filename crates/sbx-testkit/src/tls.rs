//! A certificate authority of its own for each stand-in.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

const DAY: Duration = Duration::from_hours(24);

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A name is not usable in a certificate, or key generation failed.
    #[error("cannot make a test certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// rustls refused the certificate or key.
    #[error("cannot set up TLS: {0}")]
    Config(#[from] rustls::Error),
}

/// What is wrong with a server's certificate, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Certificate {
    /// Nothing.
    #[default]
    Valid,
    /// It ended yesterday.
    Expired,
    /// It is signed by itself and by no root.
    SelfSigned,
}

/// A root certificate authority. It lives as long as the value and its key never leaves the process.
pub struct TestRoot {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl TestRoot {
    /// A new root with a P-256 key and the given common name.
    pub fn new(common_name: &str) -> Result<Self, TlsError> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params
            .distinguished_name
            .push(DnType::OrganizationName, "sbx test kit");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { issuer })
    }

    /// The root certificate as PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The root certificate as DER.
    pub fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// Writes the PEM to `path`, replacing what is there.
    pub fn write_pem(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.pem())
    }

    /// A new leaf for `names` (DNS names or IP addresses) and its key (PKCS#8), as PEM: for a server that is another
    /// program.
    pub fn leaf_pem(&self, names: &[&str]) -> Result<(String, String), TlsError> {
        let (leaf, key) = self.leaf(Certificate::Valid, names)?;
        Ok((leaf.pem(), key.serialize_pem()))
    }

    fn leaf(
        &self,
        certificate: Certificate,
        names: &[&str],
    ) -> Result<(rcgen::Certificate, KeyPair), TlsError> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names.clone())?;
        if let Some(first) = names.first() {
            params
                .distinguished_name
                .push(DnType::CommonName, first.as_str());
        }
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        if certificate == Certificate::Expired {
            let now = SystemTime::now();
            params.not_before = (now - 30 * DAY).into();
            params.not_after = (now - DAY).into();
        }
        let leaf = match certificate {
            Certificate::SelfSigned => params.self_signed(&key)?,
            _ => params.signed_by(&key, &self.issuer)?,
        };
        Ok((leaf, key))
    }

    /// A server configuration with a new leaf for `names` (DNS names or IP addresses), offering the
    /// application protocols in the given order. TLS 1.2 and 1.3.
    pub fn server_config(&self, names: &[&str], alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
        self.server_config_with(Certificate::Valid, names, alpn)
    }

    /// As [`TestRoot::server_config`], with a certificate that may be wrong.
    pub fn server_config_with(
        &self,
        certificate: Certificate,
        names: &[&str],
        alpn: &[&[u8]],
    ) -> Result<ServerConfig, TlsError> {
        let (leaf, key) = self.leaf(certificate, names)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)?;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }
}

/// The crypto provider, chosen explicitly: nothing here depends on a process-wide default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
