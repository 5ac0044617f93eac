//! `/v1/policy`.

use super::{Nothing, Shared, nothing, parse};
use crate::error::ApiResult;
use crate::{image, policy, policy_log};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use sbx_policy::Rule;
use sbx_wire::api::{
    AddRule, Check, CheckResult, PolicyInit, PolicyLog, PolicyState, RemoveRule, RemovedRules,
};
use sbx_wire::report::Report;
use serde::Deserialize;

/// What may stand behind the `?`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    sandbox: Option<String>,
    #[serde(default)]
    limit: usize,
}

fn filter(query: Result<Query<Filter>, QueryRejection>) -> Result<Filter, Report> {
    query.map(|Query(filter)| filter).map_err(|error| {
        Report::user(
            "bad-request",
            error.body_text(),
            "sbx policy log --limit 10",
        )
    })
}

pub(super) async fn init(State(daemon): Shared, body: Bytes) -> Nothing {
    let request: PolicyInit = parse(&body)?;
    daemon
        .store()
        .change_policy(|stored| policy::init(stored, &request.preset, request.replace))?;
    tracing::info!(preset = request.preset, "policy initialised");
    daemon.push(None).await?;
    Ok(nothing())
}

pub(super) async fn list(
    State(daemon): Shared,
    query: Result<Query<Filter>, QueryRejection>,
) -> ApiResult<Json<PolicyState>> {
    let filter = filter(query)?;
    if let Some(name) = &filter.sandbox {
        daemon.sandbox(name)?;
    }
    let store = daemon.store();
    let stored = store.policy();
    let document = match &filter.sandbox {
        Some(name) => stored.for_sandbox(Some(name)),
        None => stored.document.clone(),
    };
    Ok(Json(PolicyState {
        initialized: stored.preset.is_some(),
        preset: stored.preset.clone(),
        generation: document.generation,
        rules: document.rules,
    }))
}

pub(super) async fn add(State(daemon): Shared, body: Bytes) -> ApiResult<Json<Rule>> {
    let request: AddRule = parse(&body)?;
    if let Some(name) = &request.sandbox {
        daemon.sandbox(name)?;
    }
    daemon.require_policy()?;
    let rule = policy::parse_rule(&request)?;
    let known = policy::same(daemon.store().policy(), &rule).cloned();
    if let Some(known) = known {
        return Ok(Json(known));
    }
    let added = daemon
        .store()
        .change_policy(|stored| policy::add(stored, rule))?;
    tracing::info!(rule = added.id, scope = %added.scope, decision = ?added.decision, "rule added");
    daemon.push(request.sandbox.as_deref()).await?;
    Ok(Json(added))
}

pub(super) async fn remove(State(daemon): Shared, body: Bytes) -> ApiResult<Json<RemovedRules>> {
    let request: RemoveRule = parse(&body)?;
    if let Some(name) = &request.sandbox {
        daemon.sandbox(name)?;
    }
    let removed = daemon
        .store()
        .change_policy(|stored| policy::remove(stored, &request))?;
    tracing::info!(?removed, "rules removed");
    daemon.push(request.sandbox.as_deref()).await?;
    Ok(Json(RemovedRules { removed }))
}

pub(super) async fn check(State(daemon): Shared, body: Bytes) -> ApiResult<Json<CheckResult>> {
    let request: Check = parse(&body)?;
    if let Some(name) = &request.sandbox {
        daemon.sandbox(name)?;
    }
    daemon.require_policy()?;
    let stored = daemon.store().policy().clone();
    // A large policy takes a while to index.
    let result = image::blocking(move || {
        policy::check(
            &stored,
            &request.target,
            request.sandbox.as_deref(),
            &request.protocol,
        )
    });
    Ok(Json(result.await??))
}

pub(super) async fn log(
    State(daemon): Shared,
    query: Result<Query<Filter>, QueryRejection>,
) -> ApiResult<Json<PolicyLog>> {
    let filter = filter(query)?;
    let sandboxes = match &filter.sandbox {
        Some(name) => vec![daemon.sandbox(name)?],
        None => daemon.sandboxes(),
    };
    let folders: Vec<_> = sandboxes
        .iter()
        .map(|s| (s.name.clone(), s.dir.clone()))
        .collect();
    Ok(Json(
        image::blocking(move || policy_log::read(&folders, filter.limit)).await?,
    ))
}
