//! What the settings say of the way out: where hosts really are, which roots are trusted, who answers DNS.

use crate::files;
use crate::store::StoredSetting;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sbx_policy::{Port, Target};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Most overrides or resolvers.
const MAX_ENTRIES: usize = 1000;
/// Largest file of extra roots, bytes.
const MAX_PEM: u64 = 1 << 20;

pub(super) fn overrides(text: &str) -> Result<BTreeMap<String, SocketAddr>, String> {
    let raw: BTreeMap<String, String> =
        serde_json::from_str(text).map_err(|error| format!("not a map of texts: {error}"))?;
    if raw.len() > MAX_ENTRIES {
        return Err(format!("more than {MAX_ENTRIES} entries"));
    }
    raw.iter()
        .map(|(host, address)| {
            let target = Target::parse_authority(host, Port::HTTPS)
                .map_err(|error| format!("{host:?}: {error}"))?;
            let address: SocketAddr = address
                .parse()
                .map_err(|_| format!("{address:?} is not an address with a port"))?;
            if address.port() == 0 {
                Err("port 0 cannot be dialled".to_owned())
            } else {
                Ok((target.to_string(), address))
            }
        })
        .collect()
}

pub(super) fn resolvers(text: &str) -> Result<Vec<SocketAddr>, String> {
    let raw: Vec<String> =
        serde_json::from_str(text).map_err(|error| format!("not a list of texts: {error}"))?;
    if raw.len() > MAX_ENTRIES {
        return Err(format!("more than {MAX_ENTRIES} entries"));
    }
    raw.iter()
        .map(|text| {
            text.parse::<IpAddr>()
                .map(|ip| SocketAddr::new(ip, 53))
                .or_else(|_| text.parse())
                .map_err(|_| format!("{text:?} is not an address"))
        })
        .collect()
}

pub(super) fn extra_roots(text: &str) -> Result<StoredSetting, String> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(format!("{text:?} is not an absolute path"));
    }
    let size = std::fs::metadata(path).map_err(|error| format!("{text}: {error}"))?;
    if !size.is_file() || size.len() > MAX_PEM {
        return Err(format!("{text} is not a file of at most 1 MiB"));
    }
    let bytes = files::read(path)
        .map_err(|error| format!("{text}: {error}"))?
        .unwrap_or_default();
    let mut count = 0;
    let mut store = RootCertStore::empty();
    // Only the certificates are kept: a file may hold a key beside them.
    let mut kept = String::new();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| format!("{text}: {error}"))?;
        count += 1;
        kept.push_str(&pem(&certificate));
        // The check that the gateway makes: what is stored is never refused there.
        store
            .add(certificate)
            .map_err(|error| format!("{text}: certificate {count}: {error}"))?;
    }
    if count == 0 {
        return Err(format!("{text} holds no certificate"));
    }
    Ok(StoredSetting {
        value: text.to_owned(),
        content: Some(kept),
    })
}

/// PEM text of a certificate (RFC 7468, 5).
fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}
