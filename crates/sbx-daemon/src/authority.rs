//! Certificate authorities: one root per installation, whose key never leaves the daemon, and for each
//! sandbox a short-lived intermediate, whose key only its gateway gets.

use crate::error::io_report;
use crate::files;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use sbx_wire::gateway::Authority;
use sbx_wire::report::Report;
use sbx_wire::secret::SecretText;
use std::path::Path;
use std::time::{Duration, SystemTime};

const FOLDER: &str = "ca";
const CERTIFICATE: &str = "root.pem";
const KEY: &str = "root.key";
const DAY: Duration = Duration::from_hours(24);
/// Guests' clocks may be behind ours.
const BACKDATED: Duration = DAY;
/// Ten years: guests trust the root from their creation on.
const ROOT_DAYS: u32 = 3653;
/// Life of an intermediate; a new one is issued at each start and adoption.
const INTERMEDIATE_DAYS: u32 = 30;
/// Age at which a gateway that runs on is given a new intermediate.
pub(crate) const RENEW: Duration = Duration::from_hours(10 * 24);

/// The root of this installation.
pub(crate) struct Root {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Root")
    }
}

impl Root {
    /// Opens the root below the state folder, made when there is none. A broken one is set aside, with a
    /// notice: running guests trust the old root until they are started again.
    pub(crate) fn open(state: &Path, notices: &mut Vec<String>) -> Result<Self, Report> {
        let folder = state.join(FOLDER);
        files::private_dir(&folder)?;
        let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
        match load(&certificate, &key) {
            Ok(Some(root)) => return Ok(root),
            Ok(None) => {}
            Err(Broken(why)) => {
                for path in [&certificate, &key] {
                    if path.exists() {
                        files::set_aside(path)?;
                    }
                }
                notices.push(format!(
                    "the certificate authority was broken ({why}) and was made anew: \
                     restart running sandboxes so that they trust the new one"
                ));
            }
        }
        let made = make().map_err(|error| bug(&error))?;
        // The key first: a certificate without its key would look like a whole authority.
        files::replace(&key, made.key.expose().as_bytes())?;
        files::replace(&certificate, made.certificate_pem.as_bytes())?;
        load(&certificate, &key)
            .map_err(|Broken(why)| Report::bug("authority", why))?
            .ok_or_else(|| io_report("read", &certificate, &std::io::ErrorKind::NotFound.into()))
    }

    /// The certificate that guests trust, PEM.
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A new intermediate for one sandbox. It can sign leaves only.
    pub(crate) fn intermediate(&self, sandbox: &str) -> Result<Authority, Report> {
        let issue = || -> Result<Authority, rcgen::Error> {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let name = format!("sbx sandbox {sandbox}")
                .chars()
                .take(64)
                .collect::<String>();
            let params = params(&name, BasicConstraints::Constrained(0), INTERMEDIATE_DAYS)?;
            let certificate = params.signed_by(&key, &self.issuer)?;
            Ok(Authority {
                certificate_pem: certificate.pem(),
                key_pem: SecretText::new(key.serialize_pem()),
                root_pem: self.certificate_pem.clone(),
            })
        };
        issue().map_err(|error| bug(&error))
    }
}

struct Made {
    certificate_pem: String,
    key: SecretText,
}

/// Why files are no authority.
struct Broken(String);

fn make() -> Result<Made, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let params = params(
        "sbx root of this machine",
        BasicConstraints::Constrained(1),
        ROOT_DAYS,
    )?;
    let certificate = params.self_signed(&key)?;
    Ok(Made {
        certificate_pem: certificate.pem(),
        key: SecretText::new(key.serialize_pem()),
    })
}

fn params(
    name: &str,
    constraints: BasicConstraints,
    days: u32,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params
        .distinguished_name
        .push(DnType::OrganizationName, "sbx");
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + DAY * days).into();
    Ok(params)
}

fn load(certificate: &Path, key: &Path) -> Result<Option<Root>, Broken> {
    let read = |path: &Path| -> Result<Option<String>, Broken> {
        let bytes = files::read(path).map_err(|error| Broken(error.to_string()))?;
        bytes
            .map(|bytes| String::from_utf8(bytes).map_err(|_| Broken("not text".to_owned())))
            .transpose()
    };
    let (certificate_pem, key_pem) = match (read(certificate)?, read(key)?) {
        (None, _) => return Ok(None),
        (Some(_), None) => return Err(Broken("its key is missing".to_owned())),
        (Some(certificate), Some(key)) => (certificate, SecretText::new(key)),
    };
    let broken = |error: rcgen::Error| Broken(error.to_string());
    let key = KeyPair::from_pem(key_pem.expose()).map_err(broken)?;
    let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(broken)?;
    Ok(Some(Root {
        certificate_pem,
        issuer,
    }))
}

fn bug(error: &rcgen::Error) -> Report {
    Report::bug(
        "authority",
        format!("no certificate could be issued: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn root_is_kept_its_key_is_private_and_intermediates_differ() {
        let dir = tempfile::tempdir().unwrap();
        let mut notices = Vec::new();
        let first = Root::open(dir.path(), &mut notices).unwrap();
        let again = Root::open(dir.path(), &mut notices).unwrap();
        assert_eq!(first.certificate_pem(), again.certificate_pem());
        let key = dir.path().join("ca/root.key");
        assert_eq!(
            std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let (a, b) = (
            again.intermediate("a").unwrap(),
            again.intermediate("a").unwrap(),
        );
        assert_ne!(a.key_pem, b.key_pem);
        assert_ne!(a.certificate_pem, first.certificate_pem());
        assert!(notices.is_empty());
    }

    #[test]
    fn broken_root_is_set_aside_with_a_notice() {
        let dir = tempfile::tempdir().unwrap();
        Root::open(dir.path(), &mut Vec::new()).unwrap();
        std::fs::write(dir.path().join("ca/root.key"), "x").unwrap();
        let mut notices = Vec::new();
        Root::open(dir.path(), &mut notices).unwrap();
        assert_eq!(notices.len(), 1);
    }
}
