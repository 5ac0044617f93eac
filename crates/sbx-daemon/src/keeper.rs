//! Keeps values that are fetched or read from the keychain for the sandboxes that run: fetches them before their time is over,
//! and tells the gateways when one came, changed, or is no longer to be used.

use crate::attempts::Attempts;
use crate::credentials;
use crate::daemon::Daemon;
use crate::sandbox::Sandbox;
use crate::storing;
use sbx_secrets::{Held, Key, Person, Secret, Shown};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Time for the values of a sandbox that starts; those that take longer come when they come.
const SETTLE: Duration = Duration::from_secs(10);

/// How often it is looked for sandboxes that began to run, where there is anything to keep. What they need at once they have
/// from [`settle`].
const LOOK: Duration = Duration::from_secs(5);

/// What is in force, and where.
type Wanted = BTreeMap<Key, (Secret, Vec<Arc<Sandbox>>)>;

/// Does so until it is dropped.
pub(crate) async fn keep(daemon: Arc<Daemon>) {
    let mut given: HashMap<Key, Held> = HashMap::new();
    let mut attempts = Attempts::default();
    // What an earlier daemon could not remove.
    let mut look_for_leftovers = true;
    loop {
        if look_for_leftovers && !daemon.secrets().leftovers().is_empty() {
            tokio::spawn(sweep(daemon.clone()));
        }
        let wanted = wanted(&daemon);
        given.retain(|key, _| wanted.contains_key(key));
        let mut next = anything_kept(&daemon).then(|| Instant::now() + LOOK);
        for (key, (secret, sandboxes)) in &wanted {
            let held = daemon.values.held(secret);
            if given.get(key) != Some(&held) {
                tell(&held, key, sandboxes);
                given.insert(key.clone(), held);
            }
            let mut wake = daemon.values.over(secret);
            if !attempts.is_busy(key)
                && let Some(due) = daemon.values.due(secret)
            {
                if due <= Instant::now() {
                    attempts.begin(key, fetch(daemon.clone(), key.clone(), secret.clone()));
                } else {
                    wake = Some(wake.map_or(due, |wake| wake.min(due)));
                }
            }
            next = match (next, wake) {
                (Some(next), Some(wake)) => Some(next.min(wake)),
                (next, wake) => next.or(wake),
            };
        }
        look_for_leftovers = attempts.rest(&daemon.values_changed, next).await;
    }
}

async fn sweep(daemon: Arc<Daemon>) {
    let _turn = daemon.storing.lock().await;
    storing::sweep(&daemon, Person::Absent).await;
}

async fn fetch(daemon: Arc<Daemon>, key: Key, secret: Secret) {
    if let Err(failure) = daemon.values.fetch(&secret, Person::Absent).await {
        tracing::warn!(name = key.name, scope = %key.scope, why = failure.sentence, "no value");
    }
}

fn tell(held: &Held, key: &Key, sandboxes: &[Arc<Sandbox>]) {
    let available = matches!(held, Held::Value(_));
    tracing::info!(name = key.name, scope = %key.scope, available, "value for the gateways");
    for sandbox in sandboxes {
        sandbox.gateway.request();
    }
}

fn anything_kept(daemon: &Daemon) -> bool {
    let vault = daemon.secrets();
    vault.all().iter().any(|shown| match shown {
        Shown::Known(secret) => daemon.values.is_kept(secret),
        Shown::Newer(_) => false,
    })
}

/// What is kept for sandboxes that run.
fn wanted(daemon: &Daemon) -> Wanted {
    let running = daemon.sandboxes().into_iter();
    let running: Vec<Arc<Sandbox>> = running.filter(|sandbox| sandbox.is_running()).collect();
    let vault = daemon.secrets();
    let mut wanted = Wanted::new();
    for sandbox in running {
        for secret in vault.in_force(&sandbox.name) {
            if credentials::is_given(secret) && daemon.values.is_kept(secret) {
                let entry = wanted.entry(secret.key.clone());
                let (_, sandboxes) = entry.or_insert_with(|| (secret.clone(), Vec::new()));
                sandboxes.push(sandbox.clone());
            }
        }
    }
    wanted
}

/// Fetches what a sandbox that starts needs, as far as it comes in time; what somebody should know about the rest.
pub(crate) async fn settle(daemon: &Arc<Daemon>, sandbox: &str) -> Vec<String> {
    let secrets: Vec<Secret> = {
        let vault = daemon.secrets();
        let in_force = vault.in_force(sandbox).into_iter();
        let kept = in_force
            .filter(|secret| credentials::is_given(secret) && daemon.values.is_kept(secret));
        kept.cloned().collect()
    };
    let mut fetching = JoinSet::new();
    for secret in &secrets {
        if matches!(daemon.values.held(secret), Held::Unavailable(_)) {
            fetching.spawn(fetch(daemon.clone(), secret.key.clone(), secret.clone()));
        }
    }
    // What does not come in time goes on, and the keeper hears of it.
    let in_time = async { while fetching.join_next().await.is_some() {} };
    if tokio::time::timeout(SETTLE, in_time).await.is_err() {
        fetching.detach_all();
    }
    let missing = secrets.iter().filter_map(|secret| {
        let Held::Unavailable(why) = credentials::held(daemon, secret) else {
            return None;
        };
        Some(format!(
            "the secret {} is not available: {why}",
            secret.key.name
        ))
    });
    missing.collect()
}
