//! Another access token for a sign-in (RFC 6749, section 6).

use super::{OVER, of, with_answer};
use crate::clock;
use crate::daemon::Daemon;
use crate::token_endpoint::{self, Head, Question, Told};
use sbx_credentials::oauth::{Document, Issued};
use sbx_credentials::services::{Kept, Service};
use sbx_secrets::{Key, Secret, SignIn, Standing};
use sbx_wire::secret::SecretText;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Between a failed attempt and the next one.
pub(crate) const RETRY: Duration = Duration::from_secs(15);
/// A guest that asks for another token gets the one that there is if that is no older than this part of its time, and than
/// [`FRESHEST_MS`]: many may ask at once, and one that asks without end must not cost the user the account.
const FRESH: u64 = 100;
const FRESHEST_MS: u64 = 30_000;
/// Longest code of an error that is passed on, bytes.
const MAX_CODE: usize = 60;

/// Held while a token is refreshed; what the last attempt failed of.
#[derive(Debug, Default)]
pub(crate) struct Flight(tokio::sync::Mutex<Option<(Instant, String)>>);

/// When a token is refreshed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// When it is due.
    Due,
    /// When it is older than a moment: the guest asks for another one.
    Asked,
}

/// Why there is no token; a sentence that the guest may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// There will be none before somebody signs in again.
    Ended(String),
    /// There may be one later.
    Later(String),
}

impl Trouble {
    /// The sentence.
    pub(crate) fn sentence(self) -> String {
        match self {
            Self::Ended(sentence) | Self::Later(sentence) => sentence,
        }
    }
}

/// The sign-in with a token that is good, refreshed if need be. Once begun a refresh goes on to its end: its answer may be
/// the only one that names the next refresh token.
pub(crate) async fn refreshed(
    daemon: &Arc<Daemon>,
    key: &Key,
    when: When,
) -> Result<Secret, Trouble> {
    let (daemon, key) = (daemon.clone(), key.clone());
    let work = tokio::spawn(async move { one_at_a_time(&daemon, &key, when).await });
    let broken = |_| Err(Trouble::Later("the host could not refresh it".to_owned()));
    work.await.unwrap_or_else(broken)
}

async fn one_at_a_time(daemon: &Arc<Daemon>, key: &Key, when: When) -> Result<Secret, Trouble> {
    let flight = daemon.sign_ins.flight(key);
    let mut failed = flight.0.lock().await;
    let secret = daemon.secrets().get(key).cloned();
    let secret = secret.ok_or_else(|| {
        daemon.sign_ins.forget(key);
        Trouble::Ended("it is not stored any more".to_owned())
    })?;
    let (sign_in, _) = of(&secret).ok_or_else(|| Trouble::Ended(OVER.to_owned()))?;
    let now = clock::unix_ms();
    let standing = sign_in.standing(now);
    let enough = match when {
        When::Due => standing == Standing::Good,
        When::Asked => standing == Standing::Good && is_fresh(sign_in, now),
    };
    if enough {
        return Ok(secret);
    }
    let still_good = |trouble: Trouble| match (when, standing) {
        (When::Due, Standing::Due | Standing::Good) => Ok(secret.clone()),
        _ => Err(trouble),
    };
    if let Some((at, why)) = &*failed
        && at.elapsed() < RETRY
    {
        return still_good(Trouble::Later(why.clone()));
    }
    let service = sign_in.service.clone();
    match attempt(daemon, &secret, sign_in).await {
        Ok(secret) => {
            *failed = None;
            tracing::info!(service, name = key.name, scope = %key.scope, "refreshed");
            drop(failed);
            told(daemon, key).await;
            Ok(secret)
        }
        Err(Trouble::Ended(why)) => {
            tracing::warn!(service, name = key.name, scope = %key.scope, why, "sign-in ended");
            daemon.sign_ins.forget(key);
            drop(failed);
            told(daemon, key).await;
            Err(Trouble::Ended(why))
        }
        Err(Trouble::Later(why)) => {
            tracing::warn!(service, name = key.name, scope = %key.scope, why, "not refreshed");
            *failed = Some((Instant::now(), why.clone()));
            still_good(Trouble::Later(why))
        }
    }
}

fn is_fresh(sign_in: &SignIn, now_ms: u64) -> bool {
    let time = sign_in
        .expires_ms
        .map(|expires| expires.saturating_sub(sign_in.got_ms));
    let fresh = time.map_or(FRESHEST_MS, |time| (time / FRESH).min(FRESHEST_MS));
    now_ms.abs_diff(sign_in.got_ms) < fresh
}

/// Brings it to the gateways concerned.
async fn told(daemon: &Arc<Daemon>, key: &Key) {
    daemon.sign_ins.changed.notify_one();
    if let Err(error) = daemon.push_secrets(key.scope.sandbox()).await {
        tracing::warn!(report = %error.0, "a refreshed token is not everywhere");
    }
}

/// How the service's sign-ins are kept that are known by this host ([`sbx_credentials::services::Endpoint::home`]).
pub(crate) fn kept(service: &str, host: &str) -> Option<&'static Kept> {
    let endpoints = Service::find(service)?.issuing.iter();
    let mut kept = endpoints.filter(|endpoint| endpoint.home() == host);
    kept.find_map(|endpoint| endpoint.kept)
}

/// Asks for another token, and stores what came of it. Where somebody has signed in again meanwhile that says nothing about
/// what is stored now, which is what it gives then.
async fn attempt(daemon: &Daemon, secret: &Secret, sign_in: &SignIn) -> Result<Secret, Trouble> {
    let outcome = ask(daemon, sign_in).await;
    let key = &secret.key;
    let mut vault = daemon.secrets();
    let stored = vault.get(key).cloned();
    let stored = stored.ok_or_else(|| Trouble::Ended("it is not stored any more".to_owned()))?;
    let (now, _) = of(&stored).ok_or_else(|| Trouble::Ended(OVER.to_owned()))?;
    if now.refresh != sign_in.refresh {
        return Ok(stored);
    }
    match outcome {
        Ok((answer, issued)) => {
            let new = with_answer(key.clone(), now.clone(), &issued, answer)
                .map_err(|report| Trouble::Later(report.message))?;
            vault.put(new.clone()).map_err(|report| {
                tracing::error!(%report, "a refreshed token cannot be stored");
                Trouble::Later("the host cannot store it".to_owned())
            })?;
            Ok(new)
        }
        Err(trouble) => {
            if matches!(trouble, Trouble::Ended(_))
                && let Err(report) = vault.remove(|other| other == key)
            {
                tracing::error!(%report, "sign-in not removed");
            }
            Err(trouble)
        }
    }
}

async fn ask(daemon: &Daemon, sign_in: &SignIn) -> Result<(Document, Issued), Trouble> {
    let kept = kept(&sign_in.service, &sign_in.host);
    let kept = kept.ok_or_else(|| Trouble::Ended(OVER.to_owned()))?;
    let (Some(refreshed), Some(refresh)) = (&kept.refreshed, &sign_in.refresh) else {
        return Err(Trouble::Later(OVER.to_owned()));
    };
    let client = sign_in.client.as_deref().or(refreshed.client);
    let question = Question {
        host: refreshed.host,
        path: refreshed.path,
        head: if refreshed.json {
            Head::Json
        } else {
            Head::Form
        },
        body: body(sign_in, refresh, client, refreshed.json),
    };
    let told = token_endpoint::ask(daemon, &question).await;
    understood(&told.map_err(Trouble::Later)?, refreshed.host, kept)
}

fn body(sign_in: &SignIn, refresh: &SecretText, client: Option<&str>, json: bool) -> SecretText {
    let pairs = [
        ("grant_type", Some("refresh_token")),
        ("refresh_token", Some(refresh.expose())),
        ("client_id", client),
        (
            "client_secret",
            sign_in.client_secret.as_ref().map(SecretText::expose),
        ),
    ];
    let pairs = pairs
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let document = if json {
        let fields = pairs.map(|(name, value)| (name, Value::from(value)));
        Document::Json(fields.collect())
    } else {
        Document::Form(
            pairs
                .map(|(name, value)| (name, value.to_owned()))
                .collect(),
        )
    };
    SecretText::new(document.body())
}

/// What the endpoint answered.
fn understood(told: &Told, host: &str, kept: &Kept) -> Result<(Document, Issued), Trouble> {
    let document = Document::parse(told.body.expose());
    if (200..300).contains(&told.status)
        && let Some(answer) = &document
        && let Some(issued) = Issued::of(answer, kept.token)
    {
        return Ok((answer.clone(), issued));
    }
    let code = document.as_ref().and_then(code);
    let shown = code.as_deref().unwrap_or("no code of an error");
    let sentence = format!("{host} answered {} ({shown})", told.status);
    let is_end = |code: &String| code == "invalid_grant" || code.starts_with("refresh_token_");
    // Some say so with a status of success.
    if told.status < 500 && told.status != 429 && code.as_ref().is_some_and(is_end) {
        Err(Trouble::Ended(format!(
            "the sign-in has ended: {sentence}; sign in again"
        )))
    } else {
        Err(Trouble::Later(sentence))
    }
}

/// The code of an error, as the RFC has it or inside of an object.
fn code(document: &Document) -> Option<String> {
    let plain = |code: &&str| {
        code.len() <= MAX_CODE
            && code
                .bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_lowercase())
    };
    let inside = || match document {
        Document::Json(fields) => fields.get("error")?.get("code")?.as_str(),
        Document::Form(_) => None,
    };
    let found = document
        .text("error")
        .or_else(inside)
        .or_else(|| document.text("code"));
    found.filter(plain).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_that_the_sign_in_has_ended_ends_it() {
        let kept = kept("openai", "auth.openai.com").unwrap();
        let outcome = |status: u16, body: &str| {
            let body = SecretText::new(body.to_owned());
            understood(&Told { status, body }, "login.test", kept).map(|_| ())
        };
        let token = r#"{"access_token":"0123456789abcdef"}"#;
        assert_eq!(outcome(200, token), Ok(()));
        for (status, body) in [
            (400, r#"{"error":"invalid_grant"}"#),
            (200, "error=invalid_grant"),
            (
                401,
                r#"{"error":{"code":"refresh_token_reused","message":"x"}}"#,
            ),
        ] {
            let ended = outcome(status, body);
            assert!(matches!(ended, Err(Trouble::Ended(_))), "{body}");
        }
        for (status, body) in [
            (200, "{}"),
            (400, r#"{"error":"invalid_request"}"#),
            (429, r#"{"error":"invalid_grant"}"#),
            (503, r#"{"error":"invalid_grant"}"#),
            (401, "<html>"),
            (500, token),
        ] {
            let later = outcome(status, body);
            assert!(matches!(later, Err(Trouble::Later(_))), "{status} {body}");
        }
        // Nothing of an answer is repeated that is no code.
        let Err(Trouble::Later(said)) = outcome(400, r#"{"error":"A secret: 1234"}"#) else {
            panic!("it is no end");
        };
        assert!(!said.contains("1234"), "{said}");
    }
}
