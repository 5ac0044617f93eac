//! `/v1/policy`.

use super::{Nothing, Shared, nothing, parse, stream};
use crate::daemon::Daemon;
use crate::error::ApiResult;
use crate::sandbox::Sandbox;
use crate::{image, policy, policy_follow, policy_log, settings};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use sbx_policy::{CheckReport, Decision, Rule};
use sbx_wire::api::{
    AddRule, AddedRule, Check, PolicyInit, PolicyLog, PolicyReset, PolicyState, RemoveRule,
    RemovedRules, RuleView, Unconfirmed,
};
use sbx_wire::report::Report;
use serde::Deserialize;
use std::sync::Arc;

/// What may stand behind the `?`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    sandbox: Option<String>,
    #[serde(default)]
    limit: usize,
    decision: Option<Decision>,
    host: Option<String>,
    #[serde(default)]
    since_ms: u64,
}

impl Wanted {
    fn parse(query: Result<Query<Self>, QueryRejection>) -> Result<Self, Report> {
        query.map(|Query(wanted)| wanted).map_err(|error| {
            Report::user(
                "bad-request",
                error.body_text(),
                "sbx policy log --limit 10",
            )
        })
    }

    fn filter(&self) -> Result<policy_log::Filter, Report> {
        Ok(policy_log::Filter {
            decision: self.decision,
            hosts: match &self.host {
                Some(text) => policy::parse_resources(text)?,
                None => Vec::new(),
            },
            since_ms: self.since_ms,
        })
    }

    fn sandboxes(&self, daemon: &Daemon) -> Result<Vec<Arc<Sandbox>>, Report> {
        match &self.sandbox {
            Some(name) => Ok(vec![daemon.sandbox(name)?]),
            None => Ok(daemon.sandboxes()),
        }
    }
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

pub(super) async fn reset(State(daemon): Shared) -> ApiResult<Json<PolicyReset>> {
    let removed = daemon
        .store()
        .change_policy(|stored| Ok(policy::reset(stored)))?;
    tracing::info!(removed, "policy reset");
    daemon.push(None).await?;
    let sandboxes = daemon.sandboxes();
    let running = sandboxes.iter().filter(|sandbox| sandbox.is_running());
    Ok(Json(PolicyReset {
        removed,
        running: running.map(|sandbox| sandbox.name.clone()).collect(),
    }))
}

pub(super) async fn list(
    State(daemon): Shared,
    query: Result<Query<Wanted>, QueryRejection>,
) -> ApiResult<Json<PolicyState>> {
    let wanted = Wanted::parse(query)?;
    let sandboxes = wanted.sandboxes(&daemon)?;
    let unconfirmed = sandboxes
        .iter()
        .filter(|sandbox| sandbox.is_running())
        .filter_map(|sandbox| {
            Some(Unconfirmed {
                sandbox: sandbox.name.clone(),
                reason: sandbox.gateway.behind()?,
            })
        })
        .collect();
    let (initialized, preset, document) = {
        let store = daemon.store();
        let stored = store.policy();
        let document = match &wanted.sandbox {
            Some(name) => stored.for_sandbox(Some(name)),
            None => stored.document.clone(),
        };
        (stored.preset.is_some(), stored.preset.clone(), document)
    };
    let rules = document.rules.iter();
    let view =
        |rule: &Rule| RuleView::new(rule, document.is_active(rule), sandbox_id(&daemon, rule));
    Ok(Json(PolicyState {
        initialized,
        preset,
        generation: document.generation,
        rules: rules.map(view).collect(),
        unconfirmed,
    }))
}

/// Id of the one sandbox that the rule is for.
fn sandbox_id(daemon: &Daemon, rule: &Rule) -> Option<String> {
    let sandbox = daemon.sandbox(rule.scope.sandbox()?).ok()?;
    Some(sandbox.id.clone())
}

pub(super) async fn add(State(daemon): Shared, body: Bytes) -> ApiResult<Json<AddedRule>> {
    let request: AddRule = parse(&body)?;
    if let Some(name) = &request.sandbox {
        daemon.sandbox(name)?;
    }
    daemon.require_policy()?;
    let rule = policy::parse_rule(&request)?;
    let sandbox_id = sandbox_id(&daemon, &rule);
    let known = {
        let store = daemon.store();
        let stored = store.policy();
        let known = stored.document.same(&rule);
        known
            .map(|known| RuleView::new(known, stored.document.is_active(known), sandbox_id.clone()))
    };
    if let Some(rule) = known {
        return Ok(Json(AddedRule {
            rule,
            added: false,
            cautions: Vec::new(),
        }));
    }
    let done = {
        let mut store = daemon.store();
        let udp = settings::opens_udp(store.settings());
        store.change_policy(|stored| policy::add(stored, udp, &rule, sandbox_id))?
    };
    let added = &done.rule;
    tracing::info!(rule = added.id, scope = %added.scope, decision = ?added.decision, "rule added");
    daemon.push(request.sandbox.as_deref()).await?;
    Ok(Json(done))
}

pub(super) async fn remove(State(daemon): Shared, body: Bytes) -> ApiResult<Json<RemovedRules>> {
    let request: RemoveRule = parse(&body)?;
    if let Some(name) = &request.sandbox {
        daemon.sandbox(name)?;
    }
    let done = daemon
        .store()
        .change_policy(|stored| policy::remove(stored, &request))?;
    tracing::info!(?done, "rules removed");
    daemon.push(request.sandbox.as_deref()).await?;
    Ok(Json(done))
}

pub(super) async fn check(State(daemon): Shared, body: Bytes) -> ApiResult<Json<CheckReport>> {
    let request: Check = parse(&body)?;
    if let Some(name) = &request.sandbox {
        daemon.sandbox(name)?;
    }
    daemon.require_policy()?;
    let (stored, udp) = {
        let store = daemon.store();
        (
            store.policy().clone(),
            settings::opens_udp(store.settings()),
        )
    };
    // A large policy takes a while to index.
    let result = image::blocking(move || policy::check(&stored, udp, &request));
    Ok(Json(result.await??))
}

pub(super) async fn log(
    State(daemon): Shared,
    query: Result<Query<Wanted>, QueryRejection>,
) -> ApiResult<Json<PolicyLog>> {
    let wanted = Wanted::parse(query)?;
    let filter = wanted.filter()?;
    let folders: Vec<_> = wanted
        .sandboxes(&daemon)?
        .iter()
        .map(|s| (s.name.clone(), s.dir.clone()))
        .collect();
    Ok(Json(
        image::blocking(move || policy_log::read(&folders, &filter, wanted.limit)).await?,
    ))
}

pub(super) async fn follow(
    State(daemon): Shared,
    query: Result<Query<Wanted>, QueryRejection>,
) -> ApiResult<Response> {
    let wanted = Wanted::parse(query)?;
    let filter = wanted.filter()?;
    wanted.sandboxes(&daemon)?;
    Ok(stream(policy_follow::start(daemon, wanted.sandbox, filter)))
}
