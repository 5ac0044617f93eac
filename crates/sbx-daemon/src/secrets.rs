//! Stored secrets: one file, encrypted with age to an identity that lies beside it (both mode 0600).
//!
//! The encryption keeps values out of backups, indexes and stray copies of one file; it does not protect
//! against the user, who can read both files.

use crate::error::io_report;
use crate::files;
use crate::services::Service;
use age::secrecy::ExposeSecret;
use age::x25519;
use sbx_wire::api::SecretRow;
use sbx_wire::report::Report;
use sbx_wire::secret::SecretText;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What `secret ls` says about where values are.
pub(crate) const STORE: &str = "encrypted file";
const FOLDER: &str = "secrets";
const IDENTITY: &str = "identity";
const FILE: &str = "secrets.age";
const SCHEMA: u32 = 1;
/// Scope of a secret that every sandbox may use, as it is shown.
const GLOBAL: &str = "(global)";

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    schema: u32,
    secrets: Vec<Secret>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Secret {
    service: String,
    /// Sandbox name; `None`: global.
    sandbox: Option<String>,
    value: SecretText,
}

/// See the module.
pub(crate) struct Secrets {
    file: PathBuf,
    identity: x25519::Identity,
    document: Document,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// Opens the store below the state folder, made when there is none. A file that cannot be decrypted is
    /// set aside, with a notice.
    pub(crate) fn open(state: &Path, notices: &mut Vec<String>) -> Result<Self, Report> {
        let folder = state.join(FOLDER);
        files::private_dir(&folder)?;
        let (file, key) = (folder.join(FILE), folder.join(IDENTITY));
        let identity = match read_identity(&key)? {
            Some(identity) => identity,
            None => {
                if key.exists() {
                    let aside = files::set_aside(&key)?;
                    notices.push(format!(
                        "the secrets' identity was broken; it is kept as {}",
                        aside.display()
                    ));
                }
                let identity = x25519::Identity::generate();
                files::replace(&key, identity.to_string().expose_secret().as_bytes())?;
                identity
            }
        };
        let content = files::read(&file).map_err(|error| io_report("read", &file, &error))?;
        let document = match content.map(|bytes| decode(&identity, &bytes)) {
            None => Document::default(),
            Some(Ok(document)) => document,
            Some(Err(why)) => {
                let aside = files::set_aside(&file)?;
                notices.push(format!(
                    "the secrets could not be decrypted ({why}); the file is kept as {}: store them again",
                    aside.display()
                ));
                Document::default()
            }
        };
        Ok(Self {
            file,
            identity,
            document,
        })
    }

    /// Stores a secret. Without `force`, an existing one is not replaced.
    pub(crate) fn set(
        &mut self,
        service: &Service,
        sandbox: Option<&str>,
        value: SecretText,
        force: bool,
    ) -> Result<(), Report> {
        service.accepts(value.expose())?;
        let mut document = self.document.clone();
        match document
            .secrets
            .iter_mut()
            .find(|secret| secret.is(service, sandbox))
        {
            Some(secret) if force => secret.value = value,
            Some(_) => {
                return Err(Report::user(
                    "secret-exists",
                    format!(
                        "there is a secret for {} already ({})",
                        service.name,
                        scope(sandbox)
                    ),
                    format!("sbx secret set {} --force{}", service.name, flag(sandbox)),
                ));
            }
            None => document.secrets.push(Secret {
                service: service.name.to_owned(),
                sandbox: sandbox.map(str::to_owned),
                value,
            }),
        }
        self.keep(document)
    }

    /// Removes a secret.
    pub(crate) fn remove(
        &mut self,
        service: &Service,
        sandbox: Option<&str>,
    ) -> Result<(), Report> {
        let mut document = self.document.clone();
        document
            .secrets
            .retain(|secret| !secret.is(service, sandbox));
        if document.secrets.len() == self.document.secrets.len() {
            return Err(Report::user(
                "secret-not-found",
                format!(
                    "there is no secret for {} ({})",
                    service.name,
                    scope(sandbox)
                ),
                "sbx secret ls",
            ));
        }
        self.keep(document)
    }

    /// Removes everything that belongs to one sandbox.
    pub(crate) fn remove_sandbox(&mut self, sandbox: &str) -> Result<(), Report> {
        let mut document = self.document.clone();
        document
            .secrets
            .retain(|secret| secret.sandbox.as_deref() != Some(sandbox));
        if document.secrets.len() == self.document.secrets.len() {
            return Ok(());
        }
        self.keep(document)
    }

    /// The secret of a service for a sandbox: its own one, else the global one.
    pub(crate) fn get(&self, service: &Service, sandbox: &str) -> Option<&SecretText> {
        let find = |sandbox| {
            self.document
                .secrets
                .iter()
                .find(|secret| secret.is(service, sandbox))
        };
        find(Some(sandbox))
            .or_else(|| find(None))
            .map(|secret| &secret.value)
    }

    /// What may be shown.
    pub(crate) fn rows(&self) -> Vec<SecretRow> {
        let mut rows: Vec<SecretRow> = self
            .document
            .secrets
            .iter()
            .map(|secret| SecretRow {
                scope: scope(secret.sandbox.as_deref()).to_owned(),
                kind: "service".to_owned(),
                name: secret.service.clone(),
                secret: mask(secret.value.expose()),
            })
            .collect();
        rows.sort_by(|a, b| (&a.scope, &a.name).cmp(&(&b.scope, &b.name)));
        rows
    }

    fn keep(&mut self, mut document: Document) -> Result<(), Report> {
        document.schema = SCHEMA;
        let encode = |document: &Document| -> Result<Vec<u8>, String> {
            let text = serde_json::to_vec(document).map_err(|error| error.to_string())?;
            let sealed = age::encrypt(&self.identity.to_public(), &text);
            // The plain text goes through SecretText, which wipes it.
            drop(SecretText::new(String::from_utf8(text).unwrap_or_default()));
            sealed.map_err(|error| error.to_string())
        };
        let sealed = encode(&document).map_err(|why| {
            Report::bug("secrets", format!("the secrets cannot be encrypted: {why}"))
        })?;
        files::replace(&self.file, &sealed)?;
        self.document = document;
        Ok(())
    }
}

impl Secret {
    fn is(&self, service: &Service, sandbox: Option<&str>) -> bool {
        self.service == service.name && self.sandbox.as_deref() == sandbox
    }
}

fn read_identity(path: &Path) -> Result<Option<x25519::Identity>, Report> {
    let content = files::read(path).map_err(|error| io_report("read", path, &error))?;
    let text = content
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(SecretText::new);
    Ok(text.and_then(|text| text.expose().trim().parse().ok()))
}

fn decode(identity: &x25519::Identity, sealed: &[u8]) -> Result<Document, String> {
    let text = age::decrypt(identity, sealed).map_err(|error| error.to_string())?;
    let text = SecretText::new(String::from_utf8(text).map_err(|_| "not text".to_owned())?);
    // The error of the parser could quote a value.
    let document: Document =
        serde_json::from_str(text.expose()).map_err(|_| "not the expected document".to_owned())?;
    if document.schema == SCHEMA {
        Ok(document)
    } else {
        Err("another version".to_owned())
    }
}

fn scope(sandbox: Option<&str>) -> &str {
    sandbox.unwrap_or(GLOBAL)
}

fn flag(sandbox: Option<&str>) -> String {
    sandbox
        .map(|name| format!(" --sandbox {name}"))
        .unwrap_or_default()
}

/// First characters and last four of a long value, nothing of a short one.
fn mask(value: &str) -> String {
    if value.len() < 24 || !value.is_ascii() {
        return "****...****".to_owned();
    }
    format!("{}****...****{}", &value[..6], &value[value.len() - 4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anthropic() -> &'static Service {
        Service::find("anthropic").unwrap()
    }

    #[test]
    fn own_secret_of_a_sandbox_beats_the_global_one_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut secrets = Secrets::open(dir.path(), &mut Vec::new()).unwrap();
        let text = |value: &str| SecretText::new(value.to_owned());
        secrets
            .set(anthropic(), None, text("global"), false)
            .unwrap();
        secrets
            .set(anthropic(), Some("box"), text("own"), false)
            .unwrap();
        let value = |secrets: &Secrets| {
            secrets
                .get(anthropic(), "box")
                .map(|secret| secret.expose().to_owned())
        };
        assert_eq!(value(&secrets).as_deref(), Some("own"));
        let mut again = Secrets::open(dir.path(), &mut Vec::new()).unwrap();
        assert_eq!(value(&again).as_deref(), Some("own"));
        again.remove_sandbox("box").unwrap();
        assert_eq!(value(&again).as_deref(), Some("global"));
    }

    #[test]
    fn lost_identity_costs_the_secrets_but_not_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let mut secrets = Secrets::open(dir.path(), &mut Vec::new()).unwrap();
        secrets
            .set(anthropic(), None, SecretText::new("x".into()), false)
            .unwrap();
        std::fs::remove_file(dir.path().join("secrets/identity")).unwrap();
        let mut notices = Vec::new();
        let again = Secrets::open(dir.path(), &mut notices).unwrap();
        assert!(again.rows().is_empty());
        assert_eq!(notices.len(), 1);
    }

    #[test]
    fn mask_shows_nothing_of_a_short_value() {
        assert_eq!(mask("short-password"), "****...****");
        assert_eq!(
            mask("sk-ant-api03-0123456789abcdef"),
            "sk-ant****...****cdef"
        );
    }
}
