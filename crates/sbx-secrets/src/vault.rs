//! Everything stored: one file, encrypted with age to an identity that lies beside it (both mode 0600).
//!
//! The encryption keeps values, and what is said about them, out of backups, indexes and stray copies of one file; it does
//! not protect against the user, who can read both files.

use crate::document::{self, Document, Entry, Unusable, Verdict};
use crate::secret::{Key, Kind, Scope, Secret, Source};
use age::secrecy::ExposeSecret;
use age::x25519;
use sbx_files as files;
use sbx_wire::report::Report;
use sbx_wire::secret::SecretText;
use std::path::{Path, PathBuf};

/// What lists say about values in the file.
pub const FILE_STORE: &str = "encrypted file";
/// And about those in the keychain.
pub const KEYCHAIN_STORE: &str = "keychain";
/// Folder below the state folder.
pub const FOLDER: &str = "secrets";
const IDENTITY: &str = "identity";
const FILE: &str = "secrets.age";

/// See the module.
pub struct Vault {
    file: PathBuf,
    identity: x25519::Identity,
    document: Document,
    /// The file is of a newer version, with this schema.
    newer: Option<u64>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault")
    }
}

/// An entry as it may be shown.
#[derive(Debug)]
pub enum Shown<'a> {
    /// One that is understood.
    Known(&'a Secret),
    /// One of a newer version: kept and not used.
    Newer(Key),
}

impl Vault {
    /// Opens the store below the state folder, made when there is none. A file that cannot be decrypted is set aside, with a
    /// notice.
    ///
    /// # Errors
    /// A folder or a file that cannot be read or written.
    pub fn open(state: &Path, notices: &mut Vec<String>) -> Result<Self, Report> {
        let folder = state.join(FOLDER);
        files::private_dir(&folder)?;
        let (file, key) = (folder.join(FILE), folder.join(IDENTITY));
        let identity = identity(&key, notices)?;
        let content =
            files::read(&file).map_err(|error| files::io_report("read", &file, &error))?;
        let mut newer = None;
        let document = match content.map(|bytes| document::open(&identity, &bytes)) {
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

    /// Whether something is stored under this key, understood or not.
    pub fn holds(&self, key: &Key) -> bool {
        self.entry(key).is_some()
    }

    /// What is stored under this key.
    pub fn get(&self, key: &Key) -> Option<&Secret> {
        self.entry(key)?.known()
    }

    fn entry(&self, key: &Key) -> Option<&Entry> {
        self.document
            .secrets
            .iter()
            .find(|entry| entry.key() == *key)
    }

    /// What was found when a keychain was looked for; `None`: it was not.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.document.keychain.as_ref()
    }

    /// Notes what was found, or that it is to be looked for again.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn set_verdict(&mut self, verdict: Option<Verdict>) -> Result<(), Report> {
        if self.document.keychain == verdict {
            return Ok(());
        }
        let mut document = self.document.clone();
        document.keychain = verdict;
        self.keep(document)
    }

    /// Notes an entry of the keychain that is about to be written: until [`Self::put`] says what it is for, it is a leftover.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn announce(&mut self, id: &str) -> Result<(), Report> {
        let mut document = self.document.clone();
        document.leftovers.push(id.to_owned());
        self.keep(document)
    }

    /// Entries of the keychain that may be there and are of no use.
    pub fn leftovers(&self) -> &[String] {
        &self.document.leftovers
    }

    /// Notes that an entry of the keychain is gone.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn cleared(&mut self, id: &str) -> Result<(), Report> {
        let mut document = self.document.clone();
        document.leftovers.retain(|other| other != id);
        self.keep(document)
    }

    /// Stores a secret, in the place of the one under its key.
    ///
    /// # Errors
    /// The file cannot be written, and nothing has changed; or it is of a newer version.
    pub fn put(&mut self, secret: Secret) -> Result<(), Report> {
        let mut document = self.document.clone();
        let place = document
            .secrets
            .iter_mut()
            .find(|entry| entry.key() == secret.key);
        let used = in_keychain(&secret.source).map(str::to_owned);
        let freed = match place {
            Some(entry) => {
                let before = std::mem::replace(entry, Entry::Known(secret));
                before
                    .known()
                    .and_then(|old| in_keychain(&old.source))
                    .map(str::to_owned)
            }
            None => {
                document.secrets.push(Entry::Known(secret));
                None
            }
        };
        document.leftovers.extend(freed);
        document.leftovers.retain(|id| Some(id) != used.as_ref());
        self.keep(document)
    }

    /// Removes everything that is meant; what it was.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn remove(&mut self, is_meant: impl Fn(&Key) -> bool) -> Result<Vec<Key>, Report> {
        let mut document = self.document.clone();
        document.secrets.retain(|entry| !is_meant(&entry.key()));
        let gone = self
            .document
            .secrets
            .iter()
            .filter(|entry| is_meant(&entry.key()));
        let freed = gone.filter_map(|entry| in_keychain(&entry.known()?.source));
        document.leftovers.extend(freed.map(str::to_owned));
        let all = self.document.secrets.iter().map(Entry::key);
        let removed: Vec<Key> = all.filter(|key| is_meant(key)).collect();
        if !removed.is_empty() {
            self.keep(document)?;
        }
        Ok(removed)
    }

    /// Removes everything that belongs to one sandbox.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn remove_sandbox(&mut self, sandbox: &str) -> Result<(), Report> {
        self.remove(|key| key.scope.sandbox() == Some(sandbox))
            .map(drop)
    }

    /// Everything, in order of scope and name.
    pub fn all(&self) -> Vec<Shown<'_>> {
        let mut entries: Vec<&Entry> = self.document.secrets.iter().collect();
        entries.sort_by_cached_key(|entry| {
            let key = entry.key();
            (key.scope.to_string(), key.name)
        });
        entries
            .into_iter()
            .map(|entry| match entry {
                Entry::Known(secret) => Shown::Known(secret),
                Entry::Newer(_) => Shown::Newer(entry.key()),
            })
            .collect()
    }

    /// What is in force for a sandbox: its own before what is for all. What is for the host alone is not among it.
    pub fn in_force(&self, sandbox: &str) -> Vec<&Secret> {
        let own = Scope::Sandbox(sandbox.to_owned());
        let mut found: Vec<&Secret> = Vec::new();
        for entry in &self.document.secrets {
            let Some(secret) = entry.known() else {
                continue;
            };
            let stands = match &secret.key.scope {
                Scope::Host => false,
                Scope::Sandbox(name) => name == sandbox,
                Scope::Global => !self.is_shadowed(secret, &own),
            };
            if stands {
                found.push(secret);
            }
        }
        found.sort_by(|a, b| a.key.name.cmp(&b.key.name));
        found
    }

    /// Whether a sandbox has something of its own in the place of what is for all; also something that is not understood.
    fn is_shadowed(&self, global: &Secret, own: &Scope) -> bool {
        self.document.secrets.iter().any(|entry| {
            let key = entry.key();
            if key.scope != *own {
                return false;
            }
            key.name == global.key.name
                || match (entry.known().map(|secret| &secret.kind), &global.kind) {
                    (Some(Kind::Custom(one)), Kind::Custom(other)) => {
                        one.env.is_some() && one.env == other.env
                    }
                    _ => false,
                }
        })
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
        document.schema = document::SCHEMA;
        let sealed = document::seal(&self.identity, &document).map_err(|why| {
            Report::bug("secrets", format!("the secrets cannot be encrypted: {why}"))
        })?;
        files::replace(&self.file, &sealed)?;
        self.document = document;
        Ok(())
    }
}

fn in_keychain(source: &Source) -> Option<&str> {
    match source {
        Source::Keychain(place) => Some(&place.id),
        Source::File(_) | Source::Recipe(_) => None,
    }
}

/// The identity that the file is encrypted to, made when there is none.
fn identity(path: &Path, notices: &mut Vec<String>) -> Result<x25519::Identity, Report> {
    let content = files::read(path).map_err(|error| files::io_report("read", path, &error))?;
    let text = content
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(SecretText::new);
    if let Some(identity) = text.and_then(|text| text.expose().trim().parse().ok()) {
        return Ok(identity);
    }
    if path.exists() {
        let aside = files::set_aside(path)?;
        notices.push(format!(
            "the secrets' identity was broken; it is kept as {}",
            aside.display()
        ));
    }
    let identity = x25519::Identity::generate();
    files::replace(path, identity.to_string().expose_secret().as_bytes())?;
    Ok(identity)
}
