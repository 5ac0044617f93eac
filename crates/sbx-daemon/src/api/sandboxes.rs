//! `/v1/sandboxes`.

use super::{Nothing, Shared, nothing, parse, stream};
use crate::daemon::Daemon;
use crate::error::ApiResult;
use crate::events::Events;
use crate::personalise::session_variables;
use crate::sandbox::Sandbox;
use crate::{create as creation, guard, lifecycle, removal, settings};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use sbx_wire::api::{Attach, Create, Event, Sandboxes, Start, Stopped};
use sbx_wire::report::Report;
use serde::Deserialize;
use std::sync::Arc;

/// What may stand behind the `?` of a removal.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Removal {
    #[serde(default)]
    force: bool,
    /// An id: see [`lifecycle::Removal`].
    only_stopped: Option<String>,
}

pub(super) async fn list(State(daemon): Shared) -> Json<Sandboxes> {
    let sandboxes = daemon.sandboxes();
    Json(Sandboxes {
        sandboxes: sandboxes
            .iter()
            .map(|sandbox| daemon.show(sandbox))
            .collect(),
    })
}

pub(super) async fn inspect(
    State(daemon): Shared,
    Path(name): Path<String>,
) -> ApiResult<Json<sbx_wire::api::Sandbox>> {
    let sandbox = daemon.sandbox(&name)?;
    Ok(Json(daemon.show(&sandbox)))
}

pub(super) async fn guard(
    State(daemon): Shared,
    Path(name): Path<String>,
) -> ApiResult<Json<sbx_wire::api::Guarded>> {
    let sandbox = daemon.sandbox(&name);
    let found = match &sandbox {
        Ok(sandbox) => guard::report(&daemon, sandbox).await,
        Err(report) => Err(report.clone()),
    };
    // It may have gone while its files were read.
    let gone = daemon.sandbox(&name).is_err();
    match daemon.reports.get(&name).filter(|_| gone) {
        Some(kept) => Ok(Json(kept)),
        None => Ok(Json(found?)),
    }
}

pub(super) async fn told(State(daemon): Shared, Path(name): Path<String>, body: Bytes) -> Nothing {
    guard::told(&daemon, &name, parse(&body)?).await?;
    Ok(nothing())
}

pub(super) async fn create(State(daemon): Shared, body: Bytes) -> ApiResult<Response> {
    let request: Create = parse(&body)?;
    let remove = request.remove;
    let checked = creation::check(&daemon, request).await?;
    let (events, receiver) = Events::new();
    // On its own: it goes on, or cleans up, when the client has gone.
    tokio::spawn(async move {
        let mut made = creation::create(&daemon, checked, &events).await;
        if let Ok(sandbox) = &made
            && remove
            && let Err(report) = removal::mark(&daemon, sandbox).await
        {
            made = Err(report);
        }
        events
            .send(last(&daemon, made.map(|sandbox| (sandbox, true))))
            .await;
    });
    Ok(stream(receiver))
}

pub(super) async fn start(
    State(daemon): Shared,
    Path(name): Path<String>,
    body: Bytes,
) -> ApiResult<Response> {
    let Start { remove } = parse(&body)?;
    daemon.require_policy()?;
    let sandbox = daemon.sandbox(&name)?;
    let (events, receiver) = Events::new();
    tokio::spawn(async move {
        let mut started = lifecycle::start(&daemon, &sandbox, &events).await;
        if started.is_ok()
            && remove
            && let Err(report) = removal::mark(&daemon, &sandbox).await
        {
            started = Err(report);
        }
        events
            .send(last(&daemon, started.map(|started| (sandbox, started))))
            .await;
    });
    Ok(stream(receiver))
}

pub(super) async fn stop(
    State(daemon): Shared,
    Path(name): Path<String>,
) -> ApiResult<Json<Stopped>> {
    let sandbox = daemon.sandbox(&name)?;
    let stopped = detached(async move { lifecycle::stop(&daemon, &sandbox, None).await }).await?;
    Ok(Json(stopped))
}

pub(super) async fn remove(
    State(daemon): Shared,
    Path(name): Path<String>,
    query: Result<Query<Removal>, QueryRejection>,
) -> Nothing {
    let Query(removal) = query
        .map_err(|error| Report::user("bad-request", error.body_text(), "sbx rm --force NAME"))?;
    let wanted = lifecycle::Removal {
        force: removal.force,
        only_stopped: removal.only_stopped,
    };
    detached(async move {
        lifecycle::remove(&daemon, &name, &wanted)
            .await
            .map_err(|error| error.0)
    })
    .await?;
    Ok(nothing())
}

/// Work that is not left half-done when its client goes away.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Report>> + Send + 'static,
) -> Result<T, Report> {
    tokio::spawn(work)
        .await
        .map_err(|error| Report::bug("task", format!("a task of the daemon failed: {error}")))?
}

fn last(daemon: &Daemon, outcome: Result<(Arc<Sandbox>, bool), Report>) -> Event {
    match outcome {
        Ok((sandbox, started)) => {
            let record = sandbox.record();
            Event::Done(Box::new(Attach {
                socket: sandbox.supervisor_socket(),
                agent_command: record.agent_command.clone(),
                workdir: record.workdir.clone(),
                env: session_variables(daemon, &record),
                detach_keys: settings::detach_keys(daemon.store().settings()),
                sandbox: daemon.show(&sandbox),
                started,
            }))
        }
        Err(report) => {
            tracing::warn!(
                code = report.code,
                message = report.message,
                "request failed"
            );
            Event::Failed(report)
        }
    }
}
