//! What GitHub says to Copilot's command line.

use std::time::{SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::http::{self, Reply};

/// Where the account's model lives.
const API: &str = "https://api.githubcopilot.com";

/// GitHub's answer to what it does not have, or does not show to this token.
pub(super) fn not_found() -> Reply {
    let body = json!({
        "message": "Not Found", "documentation_url": "https://docs.github.com/rest", "status": "404",
    });
    http::json(StatusCode::NOT_FOUND, &body)
}

/// The endpoints below `/copilot_internal/`.
pub(super) fn internal(path: &str) -> Reply {
    match path {
        "/copilot_internal/user" => http::json(StatusCode::OK, &user()),
        "/copilot_internal/v2/token" => http::json(StatusCode::OK, &token()),
        _ => not_found(),
    }
}

fn endpoints() -> Value {
    json!({
        "api": API,
        "proxy": "https://copilot-proxy.githubusercontent.com",
        "origin-tracker": "https://origin-tracker.githubusercontent.com",
        "telemetry": "https://copilot-telemetry.githubusercontent.com",
    })
}

fn user() -> Value {
    json!({
        "login": "stand-in", "access_type_sku": "copilot_for_individual", "copilot_plan": "individual",
        "chat_enabled": true, "cli_enabled": true, "is_mcp_enabled": true, "assigned_date": null,
        "can_signup_for_limited": false, "organization_login_list": [], "organization_list": [],
        "endpoints": endpoints(),
    })
}

/// A credential of half an hour, which editors exchange their token for.
fn token() -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let expires = now.map_or(0, |now| now.as_secs()) + 1800;
    json!({
        "token": format!("tid=00000000000000000000000000000000;exp={expires};sku=stand_in:issued"),
        "expires_at": expires, "refresh_in": 1500, "chat_enabled": true, "endpoints": endpoints(),
    })
}

/// One model that Chat Completions serves and one of the Responses API.
pub(super) fn models() -> Value {
    let model = |id: &str, endpoint: &str, default: bool| {
        json!({
            "id": id, "name": id, "object": "model", "vendor": "OpenAI", "version": id, "preview": false,
            "is_chat_default": default, "model_picker_enabled": true, "model_picker_category": "versatile",
            "policy": { "state": "enabled", "terms": "" }, "supported_endpoints": [endpoint],
            "capabilities": {
                "type": "chat", "family": id, "object": "model_capabilities", "tokenizer": "o200k_base",
                "limits": {
                    "max_context_window_tokens": 128_000, "max_output_tokens": 16_000,
                    "max_prompt_tokens": 100_000,
                },
                "supports": { "streaming": true, "tool_calls": true, "parallel_tool_calls": true },
            },
        })
    };
    json!({ "object": "list", "data": [
        model("gpt-5.4", "/chat/completions", true), model("gpt-5.4-mini", "/responses", false),
    ]})
}
