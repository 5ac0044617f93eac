//! `/v1/secrets`. Values go in and never come out.

use super::{Shared, parse};
use crate::consent;
use crate::custom::{self, REGISTRY};
use crate::daemon::Daemon;
use crate::endpoints;
use crate::error::ApiResult;
use crate::services;
use crate::short_lived;
use crate::storing::{self, Wanted};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use sbx_secrets::{AwsUse, Custom, Key, Kind, Person, SIGN_IN, Scope, Secret, Shown};
use sbx_wire::api::{
    AskConsent, AwaitConsent, AwsEndpoint, Consent, CustomRow, RemoveSecret, RemovedSecret,
    RemovedSecrets, SecretRow, Secrets, SetCustom, SetRegistry, SetSecret, StoredSecret,
};
use sbx_wire::report::Report;
use tokio::sync::MutexGuard;

pub(super) async fn list(State(daemon): Shared) -> Json<Secrets> {
    let store = storing::next_store(&daemon);
    let vault = daemon.secrets();
    let mut secrets = Vec::new();
    let mut custom = Vec::new();
    for shown in vault.all() {
        match shown {
            Shown::Known(secret) => match &secret.kind {
                Kind::Custom(about) => custom.push(custom_row(secret, about)),
                Kind::Service => secrets.push(row(secret, "service")),
                Kind::Aws(used) => {
                    let mut row = row(secret, "service");
                    row.secret.push_str(&besides(used));
                    secrets.push(row);
                }
                Kind::Registry(_) => secrets.push(row(secret, "registry")),
                Kind::SignIn(sign_in) => {
                    let mut row = row(secret, "oauth");
                    if let Some(account) = &sign_in.account {
                        row.secret = format!("{} ({account})", row.secret);
                    }
                    secrets.push(row);
                }
            },
            Shown::Newer(key) => secrets.push(SecretRow {
                scope: key.scope.to_string(),
                kind: "service".to_owned(),
                name: key.name,
                secret: "of a newer sbx, not used".to_owned(),
                store: String::new(),
            }),
        }
    }
    Json(Secrets {
        secrets,
        custom,
        store,
    })
}

/// What of a key of AWS was asked for besides.
fn besides(used: &AwsUse) -> String {
    let mut text = String::new();
    if used.short_lived.is_some() {
        text.push_str(" (keys of 15 minutes inside)");
    }
    let endpoints = used.endpoints.iter().map(AwsEndpoint::to_string);
    let endpoints: Vec<String> = endpoints.collect();
    if !endpoints.is_empty() {
        text.push_str(&format!(" (also for {})", endpoints.join(", ")));
    }
    text
}

fn row(secret: &Secret, kind: &str) -> SecretRow {
    SecretRow {
        scope: secret.key.scope.to_string(),
        kind: kind.to_owned(),
        name: plain_name(&secret.key),
        secret: secret.source.shown(),
        store: secret.source.store().to_owned(),
    }
}

fn custom_row(secret: &Secret, about: &Custom) -> CustomRow {
    CustomRow {
        scope: secret.key.scope.to_string(),
        name: secret.key.name.clone(),
        targets: about.hosts.clone(),
        env: about.env.clone(),
        placeholder: about.placeholder.clone(),
        in_body: about.in_body,
        secret: secret.source.shown(),
        store: secret.source.store().to_owned(),
    }
}

/// The host of a registry, the service of a sign-in; everything else as it is stored.
fn plain_name(key: &Key) -> String {
    if let Some(service) = signed_in(key) {
        return service.to_owned();
    }
    let host = key.name.strip_prefix(REGISTRY);
    host.unwrap_or(&key.name).to_owned()
}

/// The service of a sign-in.
fn signed_in(key: &Key) -> Option<&str> {
    let (service, _number) = key.name.strip_prefix(SIGN_IN)?.rsplit_once(':')?;
    Some(service)
}

pub(super) async fn set(State(daemon): Shared, body: Bytes) -> ApiResult<Json<StoredSecret>> {
    let request: SetSecret = parse(&body)?;
    let service = services::find(&request.service)?;
    let key = key(&daemon, service.name, request.sandbox.as_deref())?;
    let turn = daemon.storing.lock().await;
    if daemon.secrets().holds(&key) && !request.force {
        return Err(exists(service.name, &key).into());
    }
    let short_lived = request.short_lived.as_ref();
    let short_lived = short_lived.map(|wanted| short_lived::of_request(service.name, wanted));
    let short_lived = short_lived.transpose()?;
    let hands_in = short_lived.is_some();
    let (endpoints, notices) = endpoints::of_request(service.name, &request.endpoints)?;
    let wanted = Wanted {
        key,
        kind: if hands_in || !endpoints.is_empty() {
            Kind::Aws(AwsUse {
                short_lived,
                endpoints,
            })
        } else {
            Kind::Service
        },
        value: request.value,
        fetched: request.fetched,
        person: person(request.person),
    };
    let mut stored = store(&daemon, wanted, turn).await?;
    stored.notices.extend(notices);
    if hands_in {
        stored.notices.push(short_lived::NOTICE.to_owned());
    }
    Ok(Json(stored))
}

pub(super) async fn set_custom(
    State(daemon): Shared,
    body: Bytes,
) -> ApiResult<Json<StoredSecret>> {
    let request: SetCustom = parse(&body)?;
    let scope = key(&daemon, "", request.sandbox.as_deref())?.scope;
    let turn = daemon.storing.lock().await;
    let (name, custom) = custom::of_request(&daemon.secrets(), &request, &scope)?;
    let key = Key { name, scope };
    if daemon.secrets().holds(&key) && !request.force {
        return Err(exists(&key.name, &key).into());
    }
    let wanted = Wanted {
        key,
        kind: Kind::Custom(custom),
        value: request.value,
        fetched: request.fetched,
        person: person(request.person),
    };
    Ok(Json(store(&daemon, wanted, turn).await?))
}

pub(super) async fn set_registry(
    State(daemon): Shared,
    body: Bytes,
) -> ApiResult<Json<StoredSecret>> {
    let request: SetRegistry = parse(&body)?;
    let (host, registry) = custom::registry(&request)?;
    let mut key = key(
        &daemon,
        &format!("{REGISTRY}{host}"),
        request.sandbox.as_deref(),
    )?;
    if key.scope == Scope::Global && !registry.all_sandboxes {
        key.scope = Scope::Host;
    }
    let turn = daemon.storing.lock().await;
    if daemon.secrets().holds(&key) && !request.force {
        return Err(exists(&host, &key).into());
    }
    let wanted = Wanted {
        key,
        kind: Kind::Registry(registry),
        value: Some(request.password),
        fetched: None,
        person: person(request.person),
    };
    Ok(Json(store(&daemon, wanted, turn).await?))
}

fn person(present: bool) -> Person {
    if present {
        Person::Present
    } else {
        Person::Absent
    }
}

/// What is stored for a sandbox, which has to exist, or for all.
fn key(daemon: &Daemon, name: &str, sandbox: Option<&str>) -> Result<Key, Report> {
    if let Some(name) = sandbox {
        daemon.sandbox(name)?;
    }
    Ok(Key {
        name: name.to_owned(),
        scope: Scope::of(sandbox),
    })
}

fn exists(what: &str, key: &Key) -> Report {
    Report::user(
        "secret-exists",
        format!("there is a secret for {what} already ({})", key.scope),
        "the same command with --force",
    )
}

/// Stores it and brings it to the sandboxes concerned.
async fn store(
    daemon: &Daemon,
    wanted: Wanted,
    turn: MutexGuard<'_, ()>,
) -> ApiResult<StoredSecret> {
    let (secret, notices) = storing::store(daemon, wanted).await?;
    drop(turn);
    let key = &secret.key;
    tracing::info!(name = key.name, scope = %key.scope, store = secret.source.store(), "secret stored");
    daemon.push_secrets(key.scope.sandbox()).await?;
    Ok(answer(&secret, notices))
}

fn answer(secret: &Secret, notices: Vec<String>) -> StoredSecret {
    let key = &secret.key;
    StoredSecret {
        name: plain_name(key),
        scope: key.scope.to_string(),
        secret: secret.source.shown(),
        store: secret.source.store().to_owned(),
        placeholder: match &secret.kind {
            Kind::Custom(custom) => Some(custom.placeholder.clone()),
            Kind::Service | Kind::Aws(_) | Kind::Registry(_) | Kind::SignIn(_) => None,
        },
        notices,
    }
}

pub(super) async fn ask_consent(State(daemon): Shared, body: Bytes) -> ApiResult<Json<Consent>> {
    let request: AskConsent = parse(&body)?;
    let service = services::find(&request.service)?;
    Ok(Json(consent::ask(&daemon, service).await?))
}

pub(super) async fn await_consent(
    State(daemon): Shared,
    body: Bytes,
) -> ApiResult<Json<StoredSecret>> {
    let request: AwaitConsent = parse(&body)?;
    let secret = consent::wait(&daemon, &request.id).await?;
    daemon.push_secrets(None).await?;
    Ok(Json(answer(&secret, Vec::new())))
}

pub(super) async fn remove(State(daemon): Shared, body: Bytes) -> ApiResult<Json<RemovedSecrets>> {
    let request: RemoveSecret = parse(&body)?;
    if let Some(name) = &request.sandbox {
        daemon.sandbox(name)?;
    }
    let turn = daemon.storing.lock().await;
    let meant = meant(&daemon, &request)?;
    let removed = daemon.secrets().remove(|key| meant.contains(key))?;
    for key in &removed {
        daemon.values.forget(key);
        daemon.sign_ins.forget(key);
        tracing::info!(name = key.name, scope = %key.scope, "secret removed");
    }
    // At once: the keychain may take its time.
    daemon.push_secrets(None).await?;
    let notices = storing::sweep(&daemon, person(request.person)).await;
    drop(turn);
    let rows = removed.iter().map(|key| RemovedSecret {
        scope: key.scope.to_string(),
        name: plain_name(key),
    });
    Ok(Json(RemovedSecrets {
        removed: rows.collect(),
        notices,
    }))
}

/// The keys of what is to be removed; at least one.
fn meant(daemon: &Daemon, request: &RemoveSecret) -> Result<Vec<Key>, Report> {
    let scope = Scope::of(request.sandbox.as_deref());
    let service = request.service.as_deref().map(services::find).transpose()?;
    let vault = daemon.secrets();
    let keys = vault.all().into_iter().filter_map(|shown| {
        let (key, kind) = match shown {
            Shown::Known(secret) => (secret.key.clone(), Some(&secret.kind)),
            Shown::Newer(key) => (key, None),
        };
        let is_meant = if let Some(service) = service {
            let is_its = key.name == service.name || signed_in(&key) == Some(service.name);
            is_its && key.scope == scope
        } else if let Some(host) = &request.registry {
            key.name.strip_prefix(REGISTRY) == Some(host)
                && match (request.all_sandboxes, &request.sandbox) {
                    (true, _) => key.scope == Scope::Global,
                    (false, Some(_)) => key.scope == scope,
                    (false, None) => key.scope.sandbox().is_none(),
                }
        } else if let Some(placeholder) = &request.placeholder {
            matches!(kind, Some(Kind::Custom(custom)) if custom.placeholder == *placeholder)
        } else {
            request.all && key.scope == scope
        };
        is_meant.then_some(key)
    });
    let keys: Vec<Key> = keys.collect();
    if keys.is_empty() {
        let what = service.map(|service| service.name.to_owned());
        let what = what.or_else(|| request.registry.clone());
        let what = what.or_else(|| request.placeholder.clone());
        let what: String = what
            .map(|what| format!(" for {}", what.chars().take(80).collect::<String>()))
            .unwrap_or_default();
        return Err(Report::user(
            "secret-not-found",
            format!("there is no secret{what} ({scope})"),
            "sbx secret ls",
        ));
    }
    Ok(keys)
}
