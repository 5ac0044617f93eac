//! Endpoints, authentication, errors.

use std::sync::{Arc, PoisonError};

use hyper::body::Incoming;
use hyper::header::UPGRADE;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::play::Ask;
use super::{State, chat, gemini, github, play, responses};
use crate::http::{self, Reply};
use crate::recorder::Event;

/// Name in the record.
pub(super) const NAME: &str = "model";

/// Longest request that is read: agents send their whole conversation.
const BODY_LIMIT: usize = 32 * 1024 * 1024;

/// Whose API a path belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    Responses,
    Chat,
    Models,
    Gemini,
    GitHub,
}

fn api(method: &Method, path: &str) -> Option<Api> {
    let post = method == Method::POST;
    // GitHub Copilot has OpenAI's paths without their version.
    match path.strip_prefix("/v1").unwrap_or(path) {
        "/responses" => Some(Api::Responses),
        "/chat/completions" if post => Some(Api::Chat),
        "/models" if !post => Some(Api::Models),
        _ if post && path.starts_with("/v1beta/models/") => Some(Api::Gemini),
        _ if !post && path.starts_with("/copilot_internal/") => Some(Api::GitHub),
        _ => None,
    }
}

/// Answers one request.
pub(super) async fn handle(state: Arc<State>, request: hyper::Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let body = http::read_body(body, BODY_LIMIT).await;
    let bytes = body.as_deref().unwrap_or_default();
    let path = parts.uri.path();
    let api = api(&parts.method, path);
    let refused = api.and_then(|api| refuse(&state, &parts, api));
    let note = match (&refused, api) {
        (Some(_), _) => "refused".to_owned(),
        (None, Some(api)) => format!("{api:?}").to_lowercase(),
        (None, None) => "unknown".to_owned(),
    };
    let record = |note: String| {
        let length = bytes.len() as u64;
        http::record(&state.recorder, NAME, &parts, length, Some(bytes), note)
    };
    let seq = record(note);
    let reply = match (refused, api) {
        (Some(reply), _) => reply,
        (None, None) => github::not_found(),
        (None, Some(Api::Models)) => http::json(StatusCode::OK, &models(path)),
        (None, Some(Api::GitHub)) => github::internal(path),
        (None, Some(api)) => ask(&state, &parts, api, bytes, seq),
    };
    state.recorder.push(Event::Answered {
        seq,
        status: reply.status(),
    });
    reply.with_header("x-request-id", &format!("req_{seq:016x}"))
}

/// The model is asked.
fn ask(state: &Arc<State>, parts: &Parts, api: Api, bytes: &[u8], seq: u64) -> Reply {
    let request: Value = match serde_json::from_slice(bytes) {
        Ok(request) => request,
        Err(error) => return invalid(api, &format!("the body is not JSON: {error}")),
    };
    let path = parts.uri.path();
    let read: fn(&Value) -> Result<Ask, String> = match api {
        Api::Responses => responses::read,
        Api::Chat => chat::read,
        _ => gemini::read,
    };
    let mut ask = match read(&request) {
        Ok(ask) => ask,
        Err(why) => return invalid(api, &why),
    };
    if api == Api::Gemini {
        let rest = path.trim_start_matches("/v1beta/models/");
        let (model, verb) = rest.split_once(':').unwrap_or((rest, ""));
        if verb == "countTokens" {
            let count = crate::anthropic::stream::tokens(bytes.len());
            return http::json(StatusCode::OK, &json!({ "totalTokens": count }));
        }
        model.clone_into(&mut ask.model);
        ask.stream = verb == "streamGenerateContent";
    }
    let answer = play::answer(state, ask, seq);
    match api {
        Api::Responses => responses::reply(answer, state.recorder.clone()),
        Api::Chat => chat::reply(answer, state.recorder.clone()),
        _ => gemini::reply(answer, state.recorder.clone()),
    }
}

/// Why a request is not answered: its key, or a protocol that is not spoken here.
fn refuse(state: &State, parts: &Parts, api: Api) -> Option<Reply> {
    let header = |name: &str| {
        let value = parts.headers.get(name)?;
        value.to_str().ok()
    };
    let play = state.play.lock().unwrap_or_else(PoisonError::into_inner);
    let given = match api {
        Api::Gemini => header("x-goog-api-key"),
        _ => header("authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            ["bearer", "token"]
                .contains(&scheme.to_ascii_lowercase().as_str())
                .then_some(token)
        }),
    };
    let known = given.is_some() && given == play.script.api_key.as_deref();
    if !known && !state.open {
        let message = "Incorrect API key provided";
        return Some(error(api, StatusCode::UNAUTHORIZED, message));
    }
    if api == Api::Responses && parts.headers.contains_key(UPGRADE) {
        let message = "WebSockets are not served here";
        return Some(error(api, StatusCode::UPGRADE_REQUIRED, message));
    }
    None
}

fn invalid(api: Api, why: &str) -> Reply {
    error(api, StatusCode::BAD_REQUEST, why)
}

fn error(api: Api, status: StatusCode, message: &str) -> Reply {
    let code = status.as_u16();
    let body = match api {
        Api::Gemini => json!({ "error": {
            "code": code, "message": message,
            "status": if code == 401 { "UNAUTHENTICATED" } else { "INVALID_ARGUMENT" },
        }}),
        Api::GitHub => json!({ "message": message, "status": code.to_string() }),
        _ => json!({ "error": {
            "message": message, "type": "invalid_request_error", "param": null,
            "code": if code == 401 { "invalid_api_key" } else { "invalid_request" },
        }}),
    };
    http::json(status, &body)
}

/// OpenAI's list, which model servers share; GitHub's says what each model can do.
fn models(path: &str) -> Value {
    if path == "/models" {
        return github::models();
    }
    let model = |id: &str| json!({ "id": id, "object": "model", "created": 1_760_000_000, "owned_by": "stand-in" });
    let models = ["gpt-5", "gpt-5-mini", "local-model"].map(model);
    json!({ "object": "list", "data": models })
}
