//! Endpoints, authentication, errors.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::conversation::{self, Conversation};
use super::stream::{self, id, tokens};
use super::{State, side};
use crate::http::{self, Reply};
use crate::recorder::Event;
use crate::script::{Block, Expect, Fault, Script, Turn};

/// Name in the record.
pub(super) const NAME: &str = "anthropic";

/// The original's limit for a request to the Messages API: 32 MB.
const BODY_LIMIT: usize = 32 * 1024 * 1024;

/// An error as the API reports it.
pub(super) struct ApiError {
    status: u16,
    kind: String,
    message: String,
}

impl ApiError {
    fn new(status: u16, kind: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind: kind.to_owned(),
            message: message.into(),
        }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", message)
    }

    fn reply(&self, request_id: &str) -> Reply {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        http::json(status, &error_body(&self.kind, &self.message, request_id))
    }
}

pub(super) fn error_body(kind: &str, message: &str, request_id: &str) -> Value {
    json!({
        "type": "error",
        "error": { "type": kind, "message": message },
        "request_id": request_id,
    })
}

/// What to do with a request once it was understood.
pub(super) enum Action {
    Turn {
        index: usize,
        script: Box<Script>,
        fault: Option<Fault>,
    },
    Side,
    Refused {
        turn: usize,
        detail: String,
    },
}

/// Answers one request.
pub(super) async fn handle(state: Arc<State>, request: hyper::Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let body = http::read_body(body, BODY_LIMIT).await;
    let bytes = body.as_deref().unwrap_or_default();
    let outcome = match &body {
        Some(bytes) => route(&state, &parts, bytes),
        None => Err(ApiError::new(
            413,
            "request_too_large",
            "Request exceeds the maximum size",
        )),
    };
    let note = match &outcome {
        Ok(Outcome::Message(
            _,
            Action::Turn {
                index, fault: None, ..
            },
        )) => format!("turn {index}"),
        Ok(Outcome::Message(_, Action::Turn { index, .. })) => format!("fault before turn {index}"),
        Ok(Outcome::Message(_, Action::Side)) => "side".to_owned(),
        Ok(Outcome::Message(_, Action::Refused { .. })) => "off script".to_owned(),
        Ok(Outcome::Plain(_)) => "auxiliary".to_owned(),
        Err(error) => error.kind.clone(),
    };
    let seq = http::record(
        &state.recorder,
        NAME,
        &parts,
        bytes.len() as u64,
        Some(bytes),
        note,
    );
    let request_id = id("req_01", seq);
    let reply = match outcome {
        Ok(Outcome::Plain(value)) => http::json(StatusCode::OK, &value),
        Ok(Outcome::Message(request, action)) => {
            answer(&state, &request, action, bytes.len(), seq, &request_id).await
        }
        Err(error) => error.reply(&request_id),
    };
    state.recorder.push(Event::Answered {
        seq,
        status: reply.status(),
    });
    reply
        .with_header("request-id", &request_id)
        .with_header(
            "anthropic-organization-id",
            "00000000-0000-4000-8000-000000000000",
        )
        .with_header("via", "1.1 google")
        .with_header("cf-cache-status", "DYNAMIC")
}

enum Outcome {
    Plain(Value),
    Message(Value, Action),
}

fn route(state: &State, parts: &Parts, body: &[u8]) -> Result<Outcome, ApiError> {
    let path = parts.uri.path();
    let known = match path {
        "/v1/messages" | "/v1/messages/count_tokens" => Method::POST,
        _ if path == "/v1/models" || path.starts_with("/v1/models/") => Method::GET,
        _ => return Err(ApiError::new(404, "not_found_error", "Not Found")),
    };
    if parts.method != known {
        return Err(ApiError::new(
            405,
            "invalid_request_error",
            "Method Not Allowed",
        ));
    }
    authenticate(state, parts)?;
    if !parts.headers.contains_key("anthropic-version") {
        return Err(ApiError::invalid("anthropic-version: header is required"));
    }
    if known == Method::GET {
        return models(path).map(Outcome::Plain);
    }
    let request: Value = serde_json::from_slice(body).map_err(|error| {
        ApiError::invalid(format!("The request body is not valid JSON: {error}"))
    })?;
    if !request["model"].is_string() {
        return Err(ApiError::invalid("model: Field required"));
    }
    let messages = request["messages"].as_array();
    let messages = messages.ok_or_else(|| ApiError::invalid("messages: Field required"))?;
    if messages.is_empty() {
        return Err(ApiError::invalid(
            "messages: at least one message is required",
        ));
    }
    if path.ends_with("count_tokens") {
        return Ok(Outcome::Plain(
            json!({ "input_tokens": tokens(body.len()) }),
        ));
    }
    if !request["max_tokens"].is_u64() {
        return Err(ApiError::invalid("max_tokens: Field required"));
    }
    let conversation = conversation::read(messages).map_err(ApiError::invalid)?;
    let action = choose(state, &request, &conversation);
    Ok(Outcome::Message(request, action))
}

fn authenticate(state: &State, parts: &Parts) -> Result<(), ApiError> {
    let header = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let refused = |message: &str| Err(ApiError::new(401, "authentication_error", message));
    let play = state.play.lock().unwrap_or_else(PoisonError::into_inner);
    let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let expected_key = play.script.api_key.as_deref();
    match (header("x-api-key"), bearer) {
        (None, None) => refused("x-api-key header is required"),
        (Some(key), _) if expected_key != Some(key) => refused("invalid x-api-key"),
        // Claude Code with an `apiKeyHelper` sends the key in both headers, so the key passes as a bearer
        // beside itself. Anything else there is refused: a placeholder must not get through unnoticed.
        (Some(key), Some(token)) if key == token => Ok(()),
        (Some(_), None) => Ok(()),
        (_, Some(token)) if play.script.bearer.as_deref() == Some(token) => Ok(()),
        (_, Some(_)) => refused("Invalid bearer token"),
    }
}

fn models(path: &str) -> Result<Value, ApiError> {
    let model = |id: &str| json!({ "type": "model", "id": id, "display_name": id, "created_at": "2025-09-29T00:00:00Z" });
    let ids = ["claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5"];
    match path.strip_prefix("/v1/models/") {
        None => Ok(json!({
            "data": ids.map(model),
            "has_more": false,
            "first_id": ids[0],
            "last_id": ids[2],
        })),
        Some(id) if id.starts_with("claude-") => Ok(model(id)),
        Some(id) => Err(ApiError::new(
            404,
            "not_found_error",
            format!("model: {id}"),
        )),
    }
}

/// Finds what the request is for, and looks at the expectations of the turn.
fn choose(state: &State, request: &Value, conversation: &Conversation) -> Action {
    let mut play = state.play.lock().unwrap_or_else(PoisonError::into_inner);
    let offered: Vec<&str> = request["tools"]
        .as_array()
        .map(|tools| {
            tools
                .iter()
                .filter_map(|tool| tool["name"].as_str())
                .collect()
        })
        .unwrap_or_default();
    let missing = play
        .script
        .tools()
        .find(|tool| !offered.contains(tool))
        .map(str::to_owned);
    let small = request["model"]
        .as_str()
        .is_some_and(|model| model.contains("haiku"));
    if offered.is_empty() || (small && missing.is_some()) {
        return Action::Side;
    }
    let Some(index) = play
        .script
        .turn_for(conversation.results, conversation.spoken)
    else {
        let detail = format!("no turn follows {} tool results", conversation.results);
        return refuse(state, play.script.turns.len(), detail);
    };
    if let Some(tool) = missing {
        let detail = format!("the client does not offer the tool {tool}, only {offered:?}");
        return refuse(state, index, detail);
    }
    if let Err(detail) = expectations(state, index, &play.script.turns[index], conversation) {
        return Action::Refused {
            turn: index,
            detail,
        };
    }
    let fault = play.script.turns[index]
        .faults
        .get(play.faults_served[index])
        .cloned();
    if fault.is_some() {
        play.faults_served[index] += 1;
    }
    Action::Turn {
        index,
        script: Box::new(play.script.clone()),
        fault,
    }
}

fn expectations(
    state: &State,
    index: usize,
    turn: &Turn,
    conversation: &Conversation,
) -> Result<(), String> {
    if conversation.results == 0 || conversation.spoken > 0 {
        return Ok(());
    }
    let usual = Expect::default();
    let checked = conversation.check(turn.expect.as_ref().unwrap_or(&usual));
    let (passed, detail) = match &checked {
        Ok(text) => (true, text.clone()),
        Err(text) => (false, text.clone()),
    };
    state.recorder.push(Event::Assertion {
        turn: index,
        passed,
        detail,
    });
    checked.map(|_| ())
}

fn refuse(state: &State, turn: usize, detail: String) -> Action {
    state.recorder.push(Event::Assertion {
        turn,
        passed: false,
        detail: detail.clone(),
    });
    Action::Refused { turn, detail }
}

async fn answer(
    state: &Arc<State>,
    request: &Value,
    action: Action,
    body_len: usize,
    seq: u64,
    request_id: &str,
) -> Reply {
    let mut message = stream::Message {
        id: id("msg_01", seq),
        request_id: request_id.to_owned(),
        model: request["model"].as_str().unwrap_or_default().to_owned(),
        input_tokens: tokens(body_len),
        content: Vec::new(),
        stop_reason: "end_turn".to_owned(),
        delay: Duration::ZERO,
        seq,
        turn: None,
        broken: None,
    };
    match action {
        Action::Side => message.content = vec![Block::text(&side::answer(request))],
        Action::Refused { turn, detail } => {
            let text = format!("The stand-in stops here, turn {turn} does not hold: {detail}");
            message.content = vec![Block::text(&text)];
        }
        Action::Turn {
            index,
            mut script,
            fault,
        } => {
            let last = index + 1 == script.turns.len();
            let turn = script.turns.swap_remove(index);
            message.stop_reason = turn.stop_reason().to_owned();
            message.content = turn.content;
            message.delay = Duration::from_millis(script.delay_ms);
            message.turn = Some((index, last));
            match fault {
                Some(Fault::Status {
                    status,
                    kind,
                    message,
                    headers,
                }) => {
                    let reply = ApiError {
                        status,
                        kind,
                        message,
                    }
                    .reply(request_id);
                    return headers
                        .iter()
                        .fold(reply, |reply, (n, v)| reply.with_header(n, v));
                }
                Some(Fault::Hangup) => return Reply::Hangup,
                Some(Fault::Stall { millis }) => {
                    tokio::time::sleep(Duration::from_millis(millis.min(600_000))).await;
                }
                Some(Fault::StreamError {
                    kind,
                    message: text,
                }) => {
                    message.broken = Some(stream::Broken::Error {
                        kind,
                        message: text,
                    });
                }
                Some(Fault::Cut) => message.broken = Some(stream::Broken::Cut),
                None => {}
            }
        }
    }
    if request["stream"] == true {
        message.stream(state.recorder.clone())
    } else {
        message.whole(&state.recorder)
    }
}
