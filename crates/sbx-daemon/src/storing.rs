//! Where values that are stored go: into the vault, into the keychain, or nowhere because they are fetched.

use crate::daemon::Daemon;
use crate::random;
use crate::services;
use crate::settings::{self, WantedStore};
use sbx_secrets::{
    FETCH_LIMIT, FILE_STORE, InKeychain, KEYCHAIN_STORE, Key, Kind, Origin, Person, Recipe,
    Refresh, Secret, Source, Trouble, Verdict, fetch, mask,
};
use sbx_wire::api::Fetched;
use sbx_wire::report::Report;
use sbx_wire::secret::SecretText;

/// Something that is to be stored.
pub(crate) struct Wanted {
    /// As what.
    pub(crate) key: Key,
    /// What it is.
    pub(crate) kind: Kind,
    /// The value, unless it is fetched.
    pub(crate) value: Option<SecretText>,
    /// How it is fetched.
    pub(crate) fetched: Option<Fetched>,
    /// Whether the keychain may ask for a password.
    pub(crate) person: Person,
}

/// Stores it; what somebody should know about that. [`Daemon::storing`] is held.
pub(crate) async fn store(
    daemon: &Daemon,
    wanted: Wanted,
) -> Result<(Secret, Vec<String>), Report> {
    let mut notices = Vec::new();
    let name = wanted.key.name.clone();
    let (source, value) = match (wanted.value, wanted.fetched) {
        (Some(value), None) => {
            let value = services::accepted(&name, &value, false)?;
            let source = place(daemon, &wanted.key, &value, wanted.person, &mut notices).await?;
            (source, Some(value))
        }
        (None, Some(fetched)) => {
            let usual = match &wanted.kind {
                Kind::Custom(_) => Refresh::OnDemand,
                kind if kind.is_service() && services::signs(&name) => Refresh::AWS,
                Kind::Service | Kind::Aws(_) | Kind::Registry(_) | Kind::SignIn(_) => {
                    Refresh::SERVICES
                }
            };
            let recipe = recipe(&fetched, usual)?;
            let value = if fetched.unverified {
                None
            } else {
                let value = verify(&recipe, fetched.show_error).await?;
                services::accepted(&name, &value, true)?;
                Some(value)
            };
            (Source::Recipe(recipe), value)
        }
        _ => {
            return Err(Report::user(
                "no-value",
                "a secret has a value, or a way to fetch it, and not both",
                "sbx secret set --help",
            ));
        }
    };
    let secret = Secret {
        key: wanted.key,
        kind: wanted.kind,
        source,
    };
    daemon.secrets().put(secret.clone())?;
    match value {
        Some(value) if daemon.values.is_kept(&secret) => daemon.values.note(&secret, value),
        _ => daemon.values.forget(&secret.key),
    }
    notices.extend(sweep(daemon, wanted.person).await);
    Ok((secret, notices))
}

/// Puts a value where values go.
async fn place(
    daemon: &Daemon,
    key: &Key,
    value: &SecretText,
    person: Person,
    notices: &mut Vec<String>,
) -> Result<Source, Report> {
    if !uses_keychain(daemon, notices).await? {
        return Ok(Source::File(value.clone()));
    }
    let id = random::hex(32)?;
    daemon.secrets().announce(&id)?;
    let label = format!("sbx: {} {}", key.name, key.scope);
    let keychain = daemon.values.keychain();
    let kept = keychain.set(&id, &label, value.clone(), person).await;
    kept.map_err(|trouble| refused(&trouble))?;
    Ok(Source::Keychain(InKeychain {
        id,
        mask: mask(value.expose()),
    }))
}

/// Never the file instead of the keychain: whoever has one expects the value there.
fn refused(trouble: &Trouble) -> Report {
    Report::environment(
        "keychain",
        format!("the secret is not stored: {trouble}"),
        "unlock the keychain, or run sbx settings set secrets.store file to keep secrets in an encrypted file",
    )
}

/// Whether the next value goes to the keychain. The first time a keychain is looked for, and what was found is said.
async fn uses_keychain(daemon: &Daemon, notices: &mut Vec<String>) -> Result<bool, Report> {
    let wanted = settings::secret_store(daemon.store().settings())?;
    match wanted {
        WantedStore::File => return Ok(false),
        WantedStore::Keychain => return Ok(true),
        WantedStore::Auto => {}
    }
    let known = daemon.secrets().verdict().map(|verdict| verdict.found);
    if let Some(found) = known {
        return Ok(found);
    }
    let why = match daemon.values.keychain().probe().await {
        Ok(()) => None,
        Err(trouble) => Some(trouble.to_string()),
    };
    notices.push(match &why {
        None => "Secrets are kept in the keychain of this session from now on".to_owned(),
        Some(why) => format!(
            "No keychain detected - this secret will be stored on disk, encrypted, protected by file permissions rather \
             than a password ({why})"
        ),
    });
    let verdict = Verdict {
        found: why.is_none(),
        why: why.unwrap_or_default(),
    };
    let found = verdict.found;
    daemon.secrets().set_verdict(Some(verdict))?;
    Ok(found)
}

/// Where the next value goes, for people.
pub(crate) fn next_store(daemon: &Daemon) -> String {
    let wanted = settings::secret_store(daemon.store().settings()).unwrap_or_default();
    let found = daemon.secrets().verdict().map(|verdict| verdict.found);
    match (wanted, found) {
        (WantedStore::File, _) | (WantedStore::Auto, Some(false)) => FILE_STORE.to_owned(),
        (WantedStore::Keychain, _) | (WantedStore::Auto, Some(true)) => KEYCHAIN_STORE.to_owned(),
        (WantedStore::Auto, None) => {
            format!("{KEYCHAIN_STORE}, or {FILE_STORE} where there is none")
        }
    }
}

fn recipe(fetched: &Fetched, usual: Refresh) -> Result<Recipe, Report> {
    let unusable = |why: &str| Report::user("secret-source", why, "sbx secret set --help");
    let account = |_: &str| fetched.account.clone();
    let origin = match (&fetched.command, &fetched.reference) {
        (Some(command), None) => Origin::of_command(command),
        (None, Some(reference)) => Origin::of_reference(reference, account),
        _ => Err("a value is fetched by a command or by a reference"),
    };
    let refresh = match &fetched.refresh {
        Some(text) => text.parse(),
        None => Ok(usual),
    };
    Ok(Recipe {
        origin: origin.map_err(unusable)?,
        refresh: refresh.map_err(unusable)?,
    })
}

async fn verify(recipe: &Recipe, show_error: bool) -> Result<SecretText, Report> {
    fetch(recipe, FETCH_LIMIT).await.map_err(|failure| {
        let mut message = format!("the value cannot be fetched: {}", failure.sentence);
        let mut hint = "store it with --no-verify if it cannot be had yet";
        if show_error && !failure.error_output.is_empty() {
            message.push_str(&format!("\n{}", failure.error_output));
        } else if !failure.error_output.is_empty() {
            hint = "--show-error shows what it said";
        }
        Report::user("secret-source-failed", message, hint)
    })
}

/// Removes from the keychain what is of no use there; what could not be removed. [`Daemon::storing`] is held.
pub(crate) async fn sweep(daemon: &Daemon, person: Person) -> Vec<String> {
    let leftovers: Vec<String> = daemon.secrets().leftovers().to_vec();
    for id in leftovers {
        let removed = daemon.values.keychain().remove(&id, person).await;
        if let Err(trouble) = removed {
            return vec![format!(
                "a value that is not used any more is still in the keychain ({trouble}); sbx removes it when it can"
            )];
        }
        if let Err(report) = daemon.secrets().cleared(&id) {
            tracing::warn!(%report, "keychain");
        }
    }
    Vec::new()
}
