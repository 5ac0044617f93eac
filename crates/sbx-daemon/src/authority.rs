//! Certificate authorities: one root per installation, whose key never leaves the daemon, and for each
//! sandbox a short-lived intermediate, whose key its gateway made and never gives away.

use crate::error::io_report;
use crate::files;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};
use sbx_wire::gateway::{Authority, PublicKey};
use sbx_wire::report::Report;
use sbx_wire::secret::SecretText;
use sbx_wire::trust::ROOT_NAME;
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
/// Life of an intermediate. A gateway opens no connection with one that has ended, so this is also for how long
/// sandboxes whose daemon is gone reach hosts that need a credential.
const INTERMEDIATE_DAYS: u32 = 7;
/// Age at which a gateway that runs on is given a new intermediate, by the wall clock.
const RENEW: Duration = Duration::from_hours(2 * 24);

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

    /// A new intermediate for one sandbox's gateway. It can sign certificates of TLS servers only. Not constrained
    /// to names: block pages have to be delivered for whatever name the guest asks.
    pub(crate) fn intermediate(&self, sandbox: &str, key: PublicKey) -> Result<Issued, Report> {
        let name = format!("sbx sandbox {sandbox}")
            .chars()
            .take(64)
            .collect::<String>();
        let issued = SystemTime::now();
        let not_after = issued + DAY * INTERMEDIATE_DAYS;
        let issue = || -> Result<String, rcgen::Error> {
            let mut params = params(&name, BasicConstraints::Constrained(0), issued, not_after)?;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            Ok(params.signed_by(&Subject(key), &self.issuer)?.pem())
        };
        let since_epoch = not_after.duration_since(SystemTime::UNIX_EPOCH);
        Ok(Issued {
            authority: Authority {
                certificate_pem: issue().map_err(|error| bug(&error))?,
                not_after_s: since_epoch.unwrap_or_default().as_secs(),
                root_pem: self.certificate_pem.clone(),
            },
            issued,
        })
    }
}

/// An intermediate and when it was issued.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) authority: Authority,
    issued: SystemTime,
}

impl Issued {
    /// Whether it is time for the next one. A clock that was set back counts as such a time too.
    pub(crate) fn is_due(&self) -> bool {
        self.issued.elapsed().map_or(true, |age| age >= RENEW)
    }
}

/// The key that an intermediate is issued for.
struct Subject(PublicKey);

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
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
    let now = SystemTime::now();
    let params = params(
        ROOT_NAME.0,
        BasicConstraints::Constrained(1),
        now,
        now + DAY * ROOT_DAYS,
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
    issued: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params
        .distinguished_name
        .push(DnType::OrganizationName, ROOT_NAME.1);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (issued - BACKDATED).into();
    params.not_after = not_after.into();
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
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use std::os::unix::fs::PermissionsExt;

    fn public_key() -> PublicKey {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        PublicKey::try_from(key.der_bytes()).unwrap()
    }

    #[test]
    fn root_is_kept_and_its_key_is_private() {
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
        assert!(notices.is_empty());
    }

    #[test]
    fn intermediate_is_of_the_key_asked_for_short_lived_and_renewed_well_before_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path(), &mut Vec::new()).unwrap();
        let key = public_key();
        let mut issued = root.intermediate("a", key).unwrap();
        let der = CertificateDer::from_pem_slice(issued.authority.certificate_pem.as_bytes());
        let der = der.unwrap();
        let holds = |part: &[u8]| der.windows(part.len()).any(|window| window == part);
        assert!(holds(key.as_bytes()));
        // Basic constraints (RFC 5280, section 4.2.1.9): an authority, and none below it.
        assert!(holds(&[0x30, 6, 1, 1, 0xff, 2, 1, 0]));
        let now = crate::clock::unix_s();
        let week = DAY.as_secs() * 7;
        assert!((now + week - 60..=now + week).contains(&issued.authority.not_after_s));
        assert!(!issued.is_due());
        issued.issued -= RENEW;
        assert!(issued.is_due());
        assert!(RENEW < DAY * INTERMEDIATE_DAYS / 2);
        issued.issued = SystemTime::now() + DAY;
        assert!(issued.is_due(), "the clock was set back");
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
