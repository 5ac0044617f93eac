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
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// What `secret ls` says about where values are.
pub(crate) const STORE: &str = "encrypted file";
pub(crate) const FOLDER: &str = "secrets";
const IDENTITY: &str = "identity";
const FILE: &str = "secrets.age";
const SCHEMA: u32 = 1;
/// Scope of a secret that every sandbox may use, as it is shown.
const GLOBAL: &str = "(global)";

/// A higher schema is of a version that this one does not understand: the file is left as it is and nothing is stored.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Document {
    schema: u32,
    secrets: Vec<Entry>,
    /// Fields that a newer version added; written back as they were read.
    #[serde(flatten)]
    newer: Map<String, Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Known(Secret),
    /// Of a newer version: kept and never used, because what is not understood could bind it to something.
    Newer(Value),
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
    /// The file is of a newer version, with this schema.
    newer: Option<u64>,
}

/// Why a file is not used.
enum Unusable {
    Newer(u64),
    Broken(String),
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
        let mut newer = None;
        let document = match content.map(|bytes| decode(&identity, &bytes)) {
            None => Document::default(),
            Some(Ok(document)) => document,
            Some(Err(Unusable::Newer(schema))) => {
                notices.push(format!(
                    "{} was written by a newer sbx (schema {schema}): no secret is used, and the file is left as it is",
                    file.display()
                ));
                newer = Some(schema);
                Document::default()
            }
            Some(Err(Unusable::Broken(why))) => {
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
            newer,
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
            .find(|entry| entry.is(service, sandbox))
        {
            Some(entry) if force => *entry = Entry::new(service, sandbox, value),
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
            None => document.secrets.push(Entry::new(service, sandbox, value)),
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
        document.secrets.retain(|entry| !entry.is(service, sandbox));
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
            .retain(|entry| entry.sandbox() != Some(sandbox));
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
                .find(|entry| entry.is(service, sandbox))
        };
        // The sandbox's own one counts also when it is not understood.
        match find(Some(sandbox)).or_else(|| find(None))? {
            Entry::Known(secret) => Some(&secret.value),
            Entry::Newer(_) => None,
        }
    }

    /// What may be shown.
    pub(crate) fn rows(&self) -> Vec<SecretRow> {
        let mut rows: Vec<SecretRow> = self
            .document
            .secrets
            .iter()
            .map(|entry| SecretRow {
                scope: scope(entry.sandbox()).to_owned(),
                kind: "service".to_owned(),
                name: entry.service().to_owned(),
                secret: match entry {
                    Entry::Known(secret) => mask(secret.value.expose()),
                    Entry::Newer(_) => "of a newer sbx, not used".to_owned(),
                },
            })
            .collect();
        rows.sort_by(|a, b| (&a.scope, &a.name).cmp(&(&b.scope, &b.name)));
        rows
    }

    fn keep(&mut self, mut document: Document) -> Result<(), Report> {
        if let Some(schema) = self.newer {
            return Err(Report::user(
                "state-too-new",
                format!(
                    "{} was written by a newer sbx (schema {schema}) and is left as it is",
                    self.file.display()
                ),
                "use that version of sbx, or move the file away",
            ));
        }
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

impl Entry {
    fn new(service: &Service, sandbox: Option<&str>, value: SecretText) -> Self {
        Self::Known(Secret {
            service: service.name.to_owned(),
            sandbox: sandbox.map(str::to_owned),
            value,
        })
    }

    fn service(&self) -> &str {
        match self {
            Self::Known(secret) => &secret.service,
            Self::Newer(value) => value["service"].as_str().unwrap_or("?"),
        }
    }

    fn sandbox(&self) -> Option<&str> {
        match self {
            Self::Known(secret) => secret.sandbox.as_deref(),
            Self::Newer(value) => value["sandbox"].as_str(),
        }
    }

    fn is(&self, service: &Service, sandbox: Option<&str>) -> bool {
        self.service() == service.name && self.sandbox() == sandbox
    }
}

fn read_identity(path: &Path) -> Result<Option<x25519::Identity>, Report> {
    let content = files::read(path).map_err(|error| io_report("read", path, &error))?;
    let text = content
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(SecretText::new);
    Ok(text.and_then(|text| text.expose().trim().parse().ok()))
}

fn decode(identity: &x25519::Identity, sealed: &[u8]) -> Result<Document, Unusable> {
    let broken = |why: &str| Unusable::Broken(why.to_owned());
    let text = age::decrypt(identity, sealed).map_err(|error| broken(&error.to_string()))?;
    let text = SecretText::new(String::from_utf8(text).map_err(|_| broken("not text"))?);
    // The error of the parser could quote a value.
    let strange = |_| broken("not the expected document");
    let value: Value = serde_json::from_str(text.expose()).map_err(strange)?;
    match value["schema"].as_u64() {
        Some(schema) if schema > u64::from(SCHEMA) => return Err(Unusable::Newer(schema)),
        Some(schema) if schema == u64::from(SCHEMA) => {}
        _ => return Err(broken("another version")),
    }
    serde_json::from_value(value).map_err(strange)
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
    fn secrets_of_a_newer_version_are_kept_and_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let mut secrets = Secrets::open(dir.path(), &mut Vec::new()).unwrap();
        let text = |value: &str| SecretText::new(value.to_owned());
        secrets
            .set(anthropic(), None, text("global"), false)
            .unwrap();
        let seal = |secrets: &Secrets, value: &Value| {
            let sealed = age::encrypt(&secrets.identity.to_public(), value.to_string().as_bytes());
            files::replace(&secrets.file, &sealed.unwrap()).unwrap();
        };
        let bound = serde_json::json!({"service": "anthropic", "sandbox": "box", "value": "v", "only": "x.test"});
        let known = serde_json::json!({"service": "anthropic", "sandbox": null, "value": "global"});
        let mut document = serde_json::json!({"schema": 1, "secrets": [bound, known], "more": 7});
        seal(&secrets, &document);
        let mut again = Secrets::open(dir.path(), &mut Vec::new()).unwrap();
        assert!(again.get(anthropic(), "box").is_none());
        let global = again.get(anthropic(), "other").unwrap();
        assert_eq!(global.expose(), "global");
        again
            .set(anthropic(), Some("other"), text("own"), false)
            .unwrap();
        let sealed = files::read(&again.file).unwrap().unwrap();
        let kept = age::decrypt(&again.identity, &sealed).unwrap();
        let kept: Value = serde_json::from_slice(&kept).unwrap();
        assert_eq!(
            (&kept["more"], &kept["secrets"][0]),
            (&document["more"], &bound)
        );

        // A schema that is not ours: nothing is used, nothing is written.
        document["schema"] = 2.into();
        seal(&secrets, &document);
        let before = files::read(&secrets.file).unwrap();
        let mut notices = Vec::new();
        let mut newer = Secrets::open(dir.path(), &mut notices).unwrap();
        assert!(notices[0].contains("newer sbx"), "{notices:?}");
        assert!(newer.rows().is_empty());
        let refused = newer.set(anthropic(), None, text("x"), true).unwrap_err();
        assert_eq!(refused.code, "state-too-new");
        assert_eq!(files::read(&secrets.file).unwrap(), before);
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
