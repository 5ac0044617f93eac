//! Tokens that were issued: made into something stored, refreshed on the host, and how they stand.
//!
//! A token is refreshed when it is about to be no longer good, or when the guest asks for another one; once at a time,
//! and to its end whoever waits for it. A sign-in that the issuer has ended is removed.

mod refresh;

use crate::attempts::Attempts;
use crate::clock;
use crate::daemon::Daemon;
use crate::random;
use crate::sandbox::Sandbox;
pub(crate) use refresh::{Trouble, When, kept, refreshed};
use sbx_credentials::oauth::{self, Document, Good, Issued};
use sbx_credentials::services::{Endpoint, Service};
use sbx_secrets::{
    Held, Key, Kind, SIGN_IN, Scope, Secret, Shown, SignIn, Source, Standing, Vault, put_in_front,
};
use sbx_wire::report::Report;
use sbx_wire::secret::SecretText;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Most of one sandbox, or of those for all. Beyond, the oldest is forgotten, first of those that can give nothing more.
pub(crate) const MAX_SIGN_INS: usize = 16;
/// How long it is waited at most until the clock is looked at again, because it goes on while the machine sleeps.
const LOOK: Duration = Duration::from_secs(30);

/// What is known beside what is stored.
#[derive(Debug, Default)]
pub(crate) struct SignIns {
    flights: Mutex<HashMap<Key, Arc<refresh::Flight>>>,
    /// Something was stored or removed, or another sandbox runs.
    pub(crate) changed: Notify,
}

impl SignIns {
    fn flight(&self, key: &Key) -> Arc<refresh::Flight> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.entry(key.clone()).or_default().clone()
    }

    /// Forgets what is known of one that was removed.
    pub(crate) fn forget(&self, key: &Key) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(key);
    }
}

/// The sign-in that a secret is.
pub(crate) fn of(secret: &Secret) -> Option<(&SignIn, &SecretText)> {
    match (&secret.kind, &secret.source) {
        (Kind::SignIn(sign_in), Source::File(value)) => Some((sign_in, value)),
        _ => None,
    }
}

/// Those that are in force for a sandbox.
pub(crate) fn in_force<'a>(
    vault: &'a Vault,
    sandbox: &str,
) -> impl Iterator<Item = (&'a Secret, &'a SignIn, &'a SecretText)> {
    let all = vault.in_force(sandbox).into_iter();
    all.filter_map(|secret| of(secret).map(|(sign_in, value)| (secret, sign_in, value)))
}

/// What a gateway can be given of one.
pub(crate) fn held(sign_in: &SignIn, value: &SecretText) -> Held {
    let standing = sign_in.standing(clock::unix_ms());
    match standing {
        Standing::Good => Held::Value(value.clone()),
        Standing::Due => Held::OnDemand,
        Standing::Over if sign_in.refresh.is_some() => Held::OnDemand,
        Standing::Over => Held::Unavailable(OVER.to_owned()),
    }
}

/// What is said of one that is over.
const OVER: &str = "what was issued is no longer good and cannot be refreshed; sign in again";

/// An answer that issued something, and what is known of how it came.
pub(crate) struct New<'a> {
    pub(crate) service: &'static Service,
    pub(crate) endpoint: &'static Endpoint,
    pub(crate) answer: Document,
    pub(crate) issued: Issued,
    /// What was asked for it.
    pub(crate) asked: Option<&'a Document>,
}

/// Stores what was issued for a scope; what the guest is told. One of the same account is replaced, and the placeholders
/// that stand for it go on.
pub(crate) fn store(daemon: &Daemon, scope: &Scope, new: New<'_>) -> Result<Secret, Report> {
    let account = new.issued.account(&new.answer);
    let asked = |name| new.asked?.text(name).map(str::to_owned);
    let client = asked("client_id");
    let mut vault = daemon.secrets();
    let before = ours(&vault, scope).find(|(_, one)| {
        account.is_some()
            && one.account == account
            && one.service == new.service.name
            && one.host == new.endpoint.home()
            && one.client == client
    });
    let (key, mut sign_in) = match before {
        Some((secret, sign_in)) => (secret.key.clone(), sign_in.clone()),
        None => {
            let name = format!("{SIGN_IN}{}:{}", new.service.name, random::hex(8)?);
            let scope = scope.clone();
            (
                Key { name, scope },
                unnamed(new.service.name, new.endpoint.home()),
            )
        }
    };
    sign_in.account = account;
    sign_in.client = client;
    sign_in.client_secret = asked("client_secret").map(SecretText::new);
    // Those of an earlier sign-in may not be told apart from this one's.
    sign_in.refresh = None;
    let secret = with_answer(key, sign_in, &new.issued, new.answer)?;
    let beyond = beyond(&vault, &secret.key);
    if !beyond.is_empty() {
        vault.remove(|key| beyond.contains(key))?;
        for key in &beyond {
            daemon.sign_ins.forget(key);
        }
    }
    vault.put(secret.clone())?;
    drop(vault);
    daemon.sign_ins.changed.notify_one();
    Ok(secret)
}

fn unnamed(service: &str, host: &str) -> SignIn {
    SignIn {
        service: service.to_owned(),
        host: host.to_owned(),
        account: None,
        client: None,
        client_secret: None,
        refresh: None,
        accesses: Vec::new(),
        refreshes: Vec::new(),
        ids: Vec::new(),
        told: String::new(),
        got_ms: 0,
        expires_ms: None,
    }
}

fn ours<'a>(vault: &'a Vault, scope: &Scope) -> impl Iterator<Item = (&'a Secret, &'a SignIn)> {
    let all = vault.all().into_iter();
    all.filter_map(|shown| match shown {
        Shown::Known(secret) => Some((secret, of(secret)?.0)),
        Shown::Newer(_) => None,
    })
    .filter(|(secret, _)| secret.key.scope == *scope)
}

/// Those of the same scope that there is no room for beside this one.
fn beyond(vault: &Vault, new: &Key) -> Vec<Key> {
    let now = clock::unix_ms();
    let mut others: Vec<(bool, u64, Key)> = ours(vault, &new.scope)
        .filter(|(secret, _)| secret.key != *new)
        .map(|(secret, one)| {
            let useful = one.refresh.is_some() || one.standing(now) != Standing::Over;
            (useful, one.got_ms, secret.key.clone())
        })
        .collect();
    others.sort();
    let count = (others.len() + 1).saturating_sub(MAX_SIGN_INS);
    others
        .into_iter()
        .take(count)
        .map(|(.., key)| key)
        .collect()
}

/// The secret with what an answer brought.
fn with_answer(
    key: Key,
    mut sign_in: SignIn,
    issued: &Issued,
    answer: Document,
) -> Result<Secret, Report> {
    renew(&mut sign_in.accesses, Some(&issued.access))?;
    renew(&mut sign_in.refreshes, issued.refresh.as_deref())?;
    renew(&mut sign_in.ids, issued.id.as_deref())?;
    let tokens = [
        (Some(&issued.access), &sign_in.accesses),
        (issued.refresh.as_ref(), &sign_in.refreshes),
        (issued.id.as_ref(), &sign_in.ids),
    ];
    let instead: Vec<(&str, &str)> = tokens
        .iter()
        .filter_map(|(token, stands)| Some((token.as_ref()?.as_str(), stands.first()?.as_str())))
        .collect();
    sign_in.told = answer.told(&instead).body();
    sign_in.got_ms = clock::unix_ms();
    sign_in.expires_ms = match issued.good {
        Good::Unsaid => None,
        Good::For(seconds) => Some(sign_in.got_ms.saturating_add(seconds.saturating_mul(1000))),
        Good::Until(seconds) => Some(seconds.saturating_mul(1000)),
    };
    if let Some(refresh) = &issued.refresh {
        sign_in.refresh = Some(SecretText::new(refresh.clone()));
    }
    Ok(Secret {
        key,
        kind: Kind::SignIn(Box::new(sign_in)),
        source: Source::File(SecretText::new(issued.access.clone())),
    })
}

/// Another placeholder where the token shows claims, else the one that there is.
fn renew(placeholders: &mut Vec<String>, token: Option<&str>) -> Result<(), Report> {
    let Some(token) = token else { return Ok(()) };
    let usual = placeholders
        .first()
        .is_some_and(|first| !oauth::has_claims(first));
    if !usual || oauth::has_claims(token) {
        put_in_front(placeholders, oauth::placeholder(token, random::fill)?);
    }
    Ok(())
}

/// What the guest is told again of a sign-in: the newest answer, with the time that is left.
pub(crate) fn told_again(sign_in: &SignIn) -> Option<String> {
    let mut answer = Document::parse(&sign_in.told)?;
    if let Some(expires) = sign_in.expires_ms {
        let left = expires.saturating_sub(clock::unix_ms()) / 1000;
        answer.set_number("expires_in", left);
        answer.set_number("expiresIn", left);
    }
    Some(answer.body())
}

type Wanted = BTreeMap<Key, (SignIn, Vec<Arc<Sandbox>>)>;

/// Refreshes for the sandboxes that run, and tells their gateways when something is over, until it is dropped.
pub(crate) async fn keep(daemon: Arc<Daemon>) {
    let mut known: HashMap<Key, Standing> = HashMap::new();
    let mut attempts = Attempts::default();
    loop {
        let wanted = wanted(&daemon);
        known.retain(|key, _| wanted.contains_key(key));
        let now = clock::unix_ms();
        let mut wake = (!wanted.is_empty()).then_some(LOOK);
        for (key, (sign_in, sandboxes)) in &wanted {
            let standing = sign_in.standing(now);
            let before = known.insert(key.clone(), standing);
            if before.is_some_and(|before| before != standing) {
                for sandbox in sandboxes {
                    sandbox.gateway.request();
                }
            }
            let due = standing != Standing::Good && sign_in.refresh.is_some();
            if due {
                attempts.begin(key, attempt(daemon.clone(), key.clone()));
            }
            if let Some(at) = sign_in.changes_ms(now) {
                let left = Duration::from_millis(at - now);
                wake = Some(wake.map_or(left, |wake| wake.min(left)));
            }
        }
        let until = wake.map(|time| Instant::now() + time);
        attempts.rest(&daemon.sign_ins.changed, until).await;
    }
}

async fn attempt(daemon: Arc<Daemon>, key: Key) {
    let outcome = refreshed(&daemon, &key, When::Due).await;
    let is_good = |secret: &Secret| {
        of(secret).is_some_and(|(one, _)| one.standing(clock::unix_ms()) == Standing::Good)
    };
    if !outcome.as_ref().is_ok_and(is_good) {
        tokio::time::sleep(refresh::RETRY).await;
    }
}

fn wanted(daemon: &Daemon) -> Wanted {
    let running = daemon.sandboxes().into_iter();
    let running: Vec<Arc<Sandbox>> = running.filter(|sandbox| sandbox.is_running()).collect();
    let vault = daemon.secrets();
    let mut wanted = Wanted::new();
    for sandbox in running {
        for (secret, sign_in, _) in in_force(&vault, &sandbox.name) {
            let entry = wanted.entry(secret.key.clone());
            let (_, sandboxes) = entry.or_insert_with(|| (sign_in.clone(), Vec::new()));
            sandboxes.push(sandbox.clone());
        }
    }
    wanted
}
