//! `policy rm`.

use super::parse::{http_match, parse_resources, scope};
use crate::store::Policy;
use sbx_policy::{HttpMatch, ResourcePattern, Rule, Scope};
use sbx_wire::api::{RemoveRule, RemovedRules};
use sbx_wire::report::Report;

/// Removes by id or by resource.
pub(crate) fn remove(policy: &mut Policy, request: &RemoveRule) -> Result<RemovedRules, Report> {
    match (&request.id, &request.resource) {
        (Some(id), None) if request.method.is_none() && request.path.is_none() => {
            remove_by_id(policy, id, request.sandbox.as_deref())
        }
        (None, Some(text)) => {
            let scope = scope(request.sandbox.as_deref())?;
            let http = http_match(request.method.as_deref(), request.path.as_deref())?;
            remove_resources(policy, &scope, &parse_resources(text)?, http.as_ref())
        }
        _ => Err(Report::user(
            "rule-unnamed",
            "name a rule either by its id or by its resource (with method and path, if it has them)",
            "sbx policy rm network --id ID",
        )),
    }
}

fn absent(what: String, hint: impl Into<String>) -> Report {
    Report::user("rule-not-found", what, hint)
}

fn remove_by_id(
    policy: &mut Policy,
    id: &str,
    sandbox: Option<&str>,
) -> Result<RemovedRules, Report> {
    let shown: String = id.chars().filter(|c| !c.is_control()).take(80).collect();
    let list = "sbx policy ls --wide";
    let rule = policy.document.rules.iter().find(|rule| rule.id == *id);
    let rule =
        rule.ok_or_else(|| absent(format!("there is no rule with the id {shown:?}"), list))?;
    if let Some(sandbox) = sandbox
        && rule.scope.sandbox() != Some(sandbox)
    {
        let what = format!("rule {shown} does not belong to sandbox '{sandbox}'");
        return Err(absent(what, list));
    }
    if !rule.scope.is_editable() {
        return Err(Report::user(
            "rule-not-editable",
            format!("rule {shown} was not made by you (scope: {})", rule.scope),
            "sbx policy deny network with the same resource overrides it",
        ));
    }
    policy.document.remove(id);
    Ok(RemovedRules {
        removed: vec![id.to_owned()],
        narrowed: Vec::new(),
    })
}

/// All of the resources, or none when one of them is in no rule.
fn remove_resources(
    policy: &mut Policy,
    scope: &Scope,
    resources: &[ResourcePattern],
    http: Option<&HttpMatch>,
) -> Result<RemovedRules, Report> {
    let mut touched: Vec<String> = Vec::new();
    for resource in resources {
        let rules = &policy.document.rules;
        let hit = |rule: &&Rule| {
            rule.scope == *scope && rule.http.as_ref() == http && rule.resources.contains(resource)
        };
        let hits: Vec<String> = rules
            .iter()
            .filter(hit)
            .map(|rule| rule.id.clone())
            .collect();
        if hits.is_empty() {
            return Err(no_such_resource(rules, scope, resource, http));
        }
        for id in hits {
            if !touched.contains(&id) {
                touched.push(id);
            }
        }
    }
    for resource in resources {
        policy.document.remove_resource(scope, resource, http);
    }
    let left = |id: &String| policy.document.rules.iter().any(|rule| rule.id == *id);
    let (narrowed, removed) = touched.into_iter().partition(left);
    Ok(RemovedRules { removed, narrowed })
}

/// Says where the resource is instead, if it is anywhere.
fn no_such_resource(
    rules: &[Rule],
    scope: &Scope,
    resource: &ResourcePattern,
    http: Option<&HttpMatch>,
) -> Report {
    let elsewhere = rules.iter().find(|rule| {
        let own = matches!(rule.scope, Scope::Global | Scope::Sandbox(_));
        own && rule.resources.contains(resource)
    });
    let hint = elsewhere.map_or("sbx policy ls --wide".to_owned(), |rule| {
        sbx_policy::removal_command(resource, rule.http.as_ref(), &rule.scope)
    });
    let with = if http.is_some() {
        " with this method and path"
    } else {
        ""
    };
    absent(
        format!("no rule of scope {scope} has the resource {resource}{with}"),
        hint,
    )
}
