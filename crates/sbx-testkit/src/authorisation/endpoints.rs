//! Requests and answers.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::state::{Code, State};
use crate::http::{self, Reply};
use crate::recorder::{Event, Recorder};

/// Name in the record.
pub(super) const NAME: &str = "authorisation";
/// Largest body that is read.
const LIMIT: usize = 64 * 1024;
/// How often one that is held looks whether it still is.
const HELD: Duration = Duration::from_millis(5);
const SOMEBODY: &str = "me@example.test";

/// Answers one request.
pub(super) async fn handle(
    state: Arc<State>,
    recorder: Recorder,
    request: hyper::Request<Incoming>,
) -> Reply {
    let (parts, body) = request.into_parts();
    let body = http::read_body(body, LIMIT).await.unwrap_or_default();
    let length = body.len() as u64;
    let seq = http::record(&recorder, NAME, &parts, length, Some(&body), String::new());
    let reply = route(&state, &parts, &body).await;
    recorder.push(Event::Answered {
        seq,
        status: reply.status(),
    });
    reply
}

async fn route(state: &State, parts: &Parts, body: &Bytes) -> Reply {
    let path = parts.uri.path();
    if parts.method == Method::GET && path.ends_with("/authorize") {
        return authorise(state, parts);
    }
    if path == "/auth/poll" {
        return poll(state, parts);
    }
    let key = {
        let inner = state.lock();
        let mut keys = inner.options.keys.iter();
        keys.find(|(at, _)| at == path).cloned()
    };
    if let Some((_, name)) = key {
        let prefix = if name == "token" {
            "tid=1;exp=2000000000:"
        } else {
            "sk-ant-api03-"
        };
        let mut inner = state.lock();
        let token = inner.key(prefix, SOMEBODY);
        let until = SystemTime::now() + inner.options.lifetime;
        let until = until.duration_since(UNIX_EPOCH).unwrap_or_default();
        let body = json!({ name: token, "expires_at": until.as_secs() });
        return http::json(StatusCode::OK, &body);
    }
    let asked = Asked(body);
    match asked.text("grant_type").as_deref() {
        Some("authorization_code") => {
            let outcome = state.lock().exchange(|name| asked.text(name));
            tokens(parts, outcome, StatusCode::BAD_REQUEST)
        }
        Some("refresh_token") => refresh(state, parts, &asked).await,
        Some("urn:ietf:params:oauth:grant-type:device_code") => {
            let code = asked.text("device_code").unwrap_or_default();
            let mut inner = state.lock();
            let outcome = match inner.spend(&code) {
                Some(code) => Ok(inner.sign_in(&code.account)),
                None => Err("authorization_pending"),
            };
            tokens(parts, outcome, StatusCode::OK)
        }
        _ => guarded(state, parts),
    }
}

/// What is asked, JSON or a form.
struct Asked<'a>(&'a Bytes);

impl Asked<'_> {
    fn text(&self, name: &str) -> Option<String> {
        if let Ok(value) = serde_json::from_slice::<Value>(self.0) {
            return value[name].as_str().map(str::to_owned);
        }
        let text = std::str::from_utf8(self.0).ok()?;
        field(text, name)
    }
}

/// A field of a form or a query, decoded.
fn field(text: &str, name: &str) -> Option<String> {
    text.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| decoded(value))
    })
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match (
            byte,
            digits.and_then(|two| u8::from_str_radix(two, 16).ok()),
        ) {
            (b'%', Some(decoded)) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn authorise(state: &State, parts: &Parts) -> Reply {
    let query = parts.uri.query().unwrap_or_default();
    let ask = |name| field(query, name);
    let (Some(redirect), Some(client)) = (ask("redirect_uri"), ask("client_id")) else {
        return http::json(
            StatusCode::BAD_REQUEST,
            &json!({ "error": "invalid_request" }),
        );
    };
    if ask("code_challenge_method").as_deref() != Some("S256") {
        return http::json(
            StatusCode::BAD_REQUEST,
            &json!({ "error": "invalid_request" }),
        );
    }
    let code = state.lock().code(Code {
        account: ask("login_hint").unwrap_or_else(|| SOMEBODY.to_owned()),
        client: Some(client),
        redirect: Some(redirect.clone()),
        challenge: ask("code_challenge"),
    });
    let back = field(query, "state").unwrap_or_default();
    let to = format!("{redirect}?code={code}&state={back}");
    http::whole(StatusCode::FOUND, "text/plain", "").with_header("location", &to)
}

fn poll(state: &State, parts: &Parts) -> Reply {
    let uuid = http::query_param(parts, "uuid")
        .unwrap_or_default()
        .to_owned();
    let mut inner = state.lock();
    let Some(code) = inner.spend(&uuid) else {
        return http::json(StatusCode::NOT_FOUND, &json!({}));
    };
    let issued = inner.sign_in(&code.account);
    let camel = json!({
        "accessToken": issued["access_token"],
        "refreshToken": issued["refresh_token"],
        "authId": format!("auth|{}", code.account),
    });
    http::json(StatusCode::OK, &camel)
}

async fn refresh(state: &State, parts: &Parts, asked: &Asked<'_>) -> Reply {
    let delay = {
        let mut inner = state.lock();
        inner.now += 1;
        inner.counts.at_a_time = inner.counts.at_a_time.max(inner.now);
        inner.options.delay
    };
    tokio::time::sleep(delay).await;
    while state.lock().held {
        tokio::time::sleep(HELD).await;
    }
    let mut inner = state.lock();
    inner.now -= 1;
    let (left, status) = inner.failing;
    if left > 0 {
        inner.failing.0 -= 1;
        inner.counts.refused += 1;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        return http::whole(status, "text/html", "<html>try again later</html>");
    }
    let token = asked.text("refresh_token").unwrap_or_default();
    let outcome = inner.refresh(&token);
    if outcome.is_err() {
        inner.counts.refused += 1;
    }
    tokens(parts, outcome, StatusCode::BAD_REQUEST)
}

fn tokens(parts: &Parts, outcome: Result<Value, &'static str>, refused: StatusCode) -> Reply {
    let (status, body) = match outcome {
        Ok(issued) => (StatusCode::OK, issued),
        Err(code) => (refused, json!({ "error": code, "error_description": "no" })),
    };
    let header = |name| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let form = header("content-type").is_some_and(|kind| kind.contains("form"));
    let accepts = header(ACCEPT.as_str()).is_some_and(|kind| kind.contains("json"));
    if !form || accepts {
        return http::json(status, &body);
    }
    let pairs = ["access_token", "refresh_token", "token_type", "error"];
    let pair = |name: &&str| Some(format!("{name}={}", body[*name].as_str()?));
    let text: Vec<String> = pairs.iter().filter_map(pair).collect();
    http::whole(status, "application/x-www-form-urlencoded", text.join("&"))
}

fn guarded(state: &State, parts: &Parts) -> Reply {
    let bearer = bearer(&parts.headers).unwrap_or_default();
    match state.lock().account(&bearer) {
        Some(account) => {
            let body = json!({ "account": account, "path": parts.uri.path() });
            http::json(StatusCode::OK, &body)
        }
        None => http::json(
            StatusCode::UNAUTHORIZED,
            &json!({ "error": "invalid_token" }),
        )
        .with_header("www-authenticate", "Bearer error=\"invalid_token\""),
    }
}

/// The token of a request: as a bearer's, or where clients put keys.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let own = text("x-api-key").map(str::to_owned);
    own.or_else(|| {
        let (scheme, token) = text(AUTHORIZATION.as_str())?.split_once(' ')?;
        let known = ["bearer", "token"].contains(&scheme.to_ascii_lowercase().as_str());
        known.then(|| token.to_owned())
    })
}
