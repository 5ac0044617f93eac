//! What every proxy of the comparison is given: a certificate authority, a host list, an upstream, a secret.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rcgen::{KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sbx_wire::gateway::{Authority, PublicKey};

use super::upstream;

/// The host that most requests go to.
pub(crate) const HOST: &str = "api.bench.test";
/// Below it are the names that are new with every connection.
pub(crate) const NEW_NAMES: &str = ".names.test";
/// How many of those there are.
pub(crate) const NAMES: usize = 9_000;
/// Other hosts on everybody's list.
const OTHERS: usize = 1_000;
/// How long an intermediate is good for.
const LIFE: Duration = Duration::from_hours(24);
/// What the upstream insists on.
pub(crate) const SECRET: &str = "the-real-value-that-the-guest-never-sees";

/// The stage. Its folder goes with it.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
    /// The authority of the proxies.
    root: CertifiedIssuer<'static, KeyPair>,
    /// Its certificate, for their clients.
    pub(crate) root_pem: String,
    /// The upstream's own.
    pub(crate) upstream_root_pem: String,
    /// Where the upstream listens.
    pub(crate) upstream: SocketAddr,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>, String> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(text)?;
    CertifiedIssuer::self_signed(authority_params(name), key).map_err(text)
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Stage {
    /// Sets everything up and starts the upstream.
    pub(crate) fn new() -> Result<Self, String> {
        let folder = tempfile::Builder::new()
            .prefix("sbx-bench-")
            .tempdir()
            .map_err(text)?;
        // A proxy that is started by root becomes another user.
        let all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(folder.path(), all).map_err(text)?;
        let root = authority("bench proxies")?;
        let upstream_root = authority("bench upstream")?;
        let upstream = upstream::start(server_config(&upstream_root)?, SECRET)?;
        let stage = Self {
            root_pem: root.pem(),
            upstream_root_pem: upstream_root.pem(),
            root,
            upstream,
            folder,
        };
        let root_key = stage.root.key().serialize_pem();
        stage.write("ca.pem", &stage.root_pem)?;
        stage.write("ca.key", &root_key)?;
        stage.write("ca-and-key.pem", &format!("{root_key}{}", stage.root_pem))?;
        stage.write("upstream.pem", &stage.upstream_root_pem)?;
        stage.write("list", &Self::hosts().join("\n"))?;
        Ok(stage)
    }

    /// An intermediate for a gateway's key.
    pub(crate) fn issue(&self, key: PublicKey) -> Result<Authority, String> {
        let mut params = authority_params("bench sandbox");
        params.not_after = (SystemTime::now() + LIFE).into();
        let not_after_s = u64::try_from(params.not_after.unix_timestamp()).map_err(text)?;
        let intermediate = params.signed_by(&Subject(key), &self.root).map_err(text)?;
        Ok(Authority {
            certificate_pem: intermediate.pem(),
            not_after_s,
            root_pem: self.root_pem.clone(),
        })
    }

    /// A file of the stage.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub(crate) fn text_path(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file of the stage and returns where it is.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf, String> {
        let path = self.path(name);
        std::fs::write(&path, content).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path)
    }

    /// Makes a folder in which any user may write.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.path(name);
        std::fs::create_dir_all(&path).map_err(text)?;
        let all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&path, all).map_err(text)?;
        Ok(path)
    }

    /// The list: hosts, and a domain with a dot in front for all below it.
    pub(crate) fn hosts() -> Vec<String> {
        let others = (0..OTHERS).map(|number| format!("host{number}.elsewhere.example"));
        [HOST.to_owned(), NEW_NAMES.to_owned()]
            .into_iter()
            .chain(others)
            .collect()
    }

    /// Every name that requests go to.
    pub(crate) fn names() -> impl Iterator<Item = String> {
        let new = (0..NAMES).map(|number| format!("n{number}{NEW_NAMES}"));
        std::iter::once(HOST.to_owned()).chain(new)
    }
}

/// A public key to issue for.
struct Subject(PublicKey);

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn server_config(root: &CertifiedIssuer<'static, KeyPair>) -> Result<ServerConfig, String> {
    let names = vec![HOST.to_owned(), format!("*{NEW_NAMES}")];
    let mut params = CertificateParams::new(names).map_err(text)?;
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(text)?;
    let leaf = params.signed_by(&key, root).map_err(text)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(text)?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .map_err(text)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A port of the loopback interface that is free at the moment.
pub(crate) fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
    listener.local_addr().map_err(text)
}
