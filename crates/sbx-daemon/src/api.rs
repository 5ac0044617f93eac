//! The local API's routes: each handler parses into a typed request and answers with a typed document.

mod cache;
mod policy;
mod sandboxes;
mod secrets;
mod settings;

use crate::daemon::Daemon;
use crate::error::{ApiError, ApiResult};
use crate::lifecycle;
use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use http_body_util::channel::Channel;
use sbx_wire::api::{DaemonStatus, MAX_REQUEST, Shutdown};
use sbx_wire::report::Report;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The daemon, as handlers get it.
type Shared = State<Arc<Daemon>>;
/// The answer of requests that have nothing to say.
type Nothing = ApiResult<Json<Value>>;

/// All routes.
pub(crate) fn router(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/shutdown", post(shutdown))
        .route(
            "/v1/sandboxes",
            get(sandboxes::list).post(sandboxes::create),
        )
        .route("/v1/sandboxes/{name}", get(sandboxes::inspect))
        .route("/v1/sandboxes/{name}", delete(sandboxes::remove))
        .route("/v1/sandboxes/{name}/guard", get(sandboxes::guard))
        .route("/v1/sandboxes/{name}/guard/told", post(sandboxes::told))
        .route("/v1/sandboxes/{name}/start", post(sandboxes::start))
        .route("/v1/sandboxes/{name}/stop", post(sandboxes::stop))
        .route("/v1/cache/prune", post(cache::prune))
        .route("/v1/policy", get(policy::list))
        .route("/v1/policy/init", post(policy::init))
        .route("/v1/policy/reset", post(policy::reset))
        .route("/v1/policy/rules", post(policy::add))
        .route("/v1/policy/rules/remove", post(policy::remove))
        .route("/v1/policy/check", post(policy::check))
        .route("/v1/policy/log", get(policy::log))
        .route("/v1/policy/log/follow", get(policy::follow))
        .route("/v1/secrets", get(secrets::list).post(secrets::set))
        .route("/v1/secrets/custom", post(secrets::set_custom))
        .route("/v1/secrets/registry", post(secrets::set_registry))
        .route("/v1/secrets/consent", post(secrets::ask_consent))
        .route("/v1/secrets/consent/wait", post(secrets::await_consent))
        .route("/v1/secrets/remove", post(secrets::remove))
        .route("/v1/settings", get(settings::list).post(settings::set))
        .route("/v1/settings/unset", post(settings::unset))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(daemon)
}

/// `{}`.
fn nothing() -> Json<Value> {
    Json(json!({}))
}

/// A request body. What does not parse is our client's mistake or another version's.
fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        // The parser's words can quote a value of the body, which may be a secret.
        let place = format!("line {}, column {}", error.line(), error.column());
        let message = format!("the request is not understood ({place})");
        Report::user(
            "bad-request",
            message,
            "use the sbx of the daemon's version: sbx version",
        )
        .into()
    })
}

/// One JSON document a line, as they come.
fn stream<T: Serialize + Send + 'static>(mut events: mpsc::Receiver<T>) -> Response {
    let (mut sender, body) = Channel::<Bytes>::new(16);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let Ok(mut line) = serde_json::to_vec(&event) else {
                continue;
            };
            line.push(b'\n');
            if sender.send_data(line.into()).await.is_err() {
                return; // nobody listens any more
            }
        }
    });
    let mut response = Response::new(Body::new(body));
    let kind = axum::http::HeaderValue::from_static("application/x-ndjson");
    response
        .headers_mut()
        .insert(axum::http::header::CONTENT_TYPE, kind);
    response
}

async fn unknown() -> ApiError {
    Report::user(
        "no-such-request",
        "the daemon knows no such request",
        "use the sbx of the daemon's version: sbx version",
    )
    .into()
}

async fn status(State(daemon): Shared) -> Json<DaemonStatus> {
    Json(DaemonStatus {
        status: "running".to_owned(),
        socket: daemon.home.daemon_socket(),
        logs: daemon.home.daemon_log(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: daemon.started.elapsed().as_secs(),
        policy_initialized: daemon.store().policy().preset.is_some(),
        small_kernel: daemon.small.status(),
        notices: daemon.notices(),
        snapshots: daemon.snapshots(),
    })
}

async fn shutdown(State(daemon): Shared, body: Bytes) -> Nothing {
    let request: Shutdown = parse(&body)?;
    let mut outcome = Ok(());
    if request.stop_sandboxes {
        let mut stops = tokio::task::JoinSet::new();
        let grace = request.grace_s.map(|s| Duration::from_secs(s.into()));
        for sandbox in daemon.sandboxes() {
            let daemon = daemon.clone();
            stops.spawn(async move { lifecycle::stop(&daemon, &sandbox, grace).await });
        }
        while let Some(stopped) = stops.join_next().await {
            // The others are stopped all the same.
            if let Ok(Err(error)) = stopped {
                outcome = Err(error);
            }
        }
    }
    outcome?;
    daemon.ending.send_replace(true);
    Ok(nothing())
}
