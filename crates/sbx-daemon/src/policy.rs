//! The policy verbs, on the stored document.

use crate::random;
use crate::store::Policy;
use sbx_policy::{
    Caution, CheckReport, CreatedVia, Decision, DenyKind, DocumentError, Evaluator, HttpMatch,
    HttpMatchError, HttpRequest, Intent, IntentKind, PathPattern, Port, Preset, Protocols,
    ResourcePattern, Rule, RuleError, Scope, Target, Transport,
};
use sbx_wire::api::{AddRule, AddedRule, Check, RemoveRule, RemovedRules, RuleView};
use sbx_wire::name::SandboxName;
use sbx_wire::report::Report;

/// Largest policy as JSON, bytes: gateways take lines of [`sbx_wire::gateway::MAX_LINE`], with certificates and
/// credentials beside the policy.
const MAX_POLICY: usize = 8 << 20;
const _: () = assert!(MAX_POLICY * 2 <= sbx_wire::gateway::MAX_LINE);
/// Resources of a new rule that are asked about whether a deny overrules them.
const MAX_ASKED: usize = 100;

/// What is missing before `policy init`.
pub(crate) fn not_initialized() -> Report {
    Report::user(
        "policy-not-initialized",
        "the global network policy has not been initialized",
        "sbx policy init balanced   (or: allow-all, deny-all)",
    )
}

/// `policy init`: the preset's rules. With `replace`, those of an earlier preset go.
pub(crate) fn init(policy: &mut Policy, preset: &str, replace: bool) -> Result<(), Report> {
    let preset: Preset = preset.parse().map_err(|error: sbx_policy::UnknownPreset| {
        Report::user(
            "preset-unknown",
            error.to_string(),
            "sbx policy init balanced",
        )
    })?;
    if let Some(current) = &policy.preset
        && !replace
    {
        return Err(Report::user(
            "policy-already-initialized",
            format!("the global network policy is initialized already ({current})"),
            format!("sbx policy set-default {preset} to replace it; sbx policy ls shows the rules"),
        ));
    }
    policy
        .document
        .rules
        .retain(|rule| rule.created_via != CreatedVia::Default || rule.scope != Scope::Global);
    for rule in sbx_policy::preset(preset) {
        policy
            .document
            .add(rule)
            .map_err(|error| document_report(&error))?;
    }
    policy.preset = Some(preset.as_str().to_owned());
    Ok(())
}

/// `policy reset`: everything that the user may change goes, and with it the choice of a preset. Returns how many
/// rules that were.
pub(crate) fn reset(policy: &mut Policy) -> usize {
    let before = policy.document.rules.len();
    policy
        .document
        .rules
        .retain(|rule| !rule.scope.is_editable());
    policy.preset = None;
    before - policy.document.rules.len()
}

/// The rule that a request asks for.
pub(crate) fn parse_rule(request: &AddRule) -> Result<Rule, Report> {
    let decision = if request.allow {
        Decision::Allow
    } else {
        Decision::Deny
    };
    let http = http_match(request.method.as_deref(), request.path.as_deref())?;
    let protocols = match (request.protocols.is_empty(), &http) {
        (true, None) => Protocols::default_for(decision),
        (true, Some(_)) => Protocols::TCP,
        (false, _) => {
            let parsed = request.protocols.iter().map(|text| transport(text));
            parsed.collect::<Result<Vec<Transport>, _>>()?.into()
        }
    };
    let mut resources: Vec<ResourcePattern> = Vec::new();
    for text in &request.resources {
        for resource in parse_resources(text)? {
            if !resources.contains(&resource) {
                resources.push(resource);
            }
        }
    }
    let rule = Rule {
        id: random::uuid()?,
        name: None,
        scope: scope(request.sandbox.as_deref())?,
        decision,
        resources,
        protocols,
        created_via: CreatedVia::Added,
        http,
    };
    rule.review().map_err(|error| rule_report(&error))?;
    Ok(rule)
}

/// Adds a rule; one that says exactly the same already is returned instead. `sandbox_id`: of the sandbox that it is
/// for.
pub(crate) fn add(
    policy: &mut Policy,
    rule: &Rule,
    sandbox_id: Option<String>,
) -> Result<AddedRule, Report> {
    let view = |policy: &Policy, rule: &Rule| {
        RuleView::new(rule, policy.document.is_active(rule), sandbox_id)
    };
    if let Some(same) = policy.document.same(rule) {
        return Ok(AddedRule {
            rule: view(policy, same),
            added: false,
            cautions: Vec::new(),
        });
    }
    let cautions = policy
        .document
        .add(rule.clone())
        .map_err(|error| document_report(&error))?;
    let size = serde_json::to_vec(&policy.document).map_or(usize::MAX, |json| json.len());
    if size > MAX_POLICY {
        return Err(Report::user(
            "policy-too-large",
            "the policy would be larger than 8 MiB",
            "fewer rules with wildcards, e.g. `**.example.com`, or address ranges",
        ));
    }
    let mut cautions: Vec<String> = cautions.iter().map(Caution::to_string).collect();
    cautions.extend(overruled(policy, rule));
    Ok(AddedRule {
        rule: view(policy, rule),
        added: true,
        cautions,
    })
}

/// What a new allow does not open, because a deny covers it.
fn overruled(policy: &Policy, rule: &Rule) -> Vec<String> {
    let rules = &policy.document.rules;
    let denies = rules.iter().any(|rule| rule.decision == Decision::Deny);
    if rule.decision == Decision::Deny || !denies {
        return Vec::new();
    }
    let evaluator = Evaluator::new(&policy.document);
    let sandbox = rule.scope.sandbox().unwrap_or_default();
    let denial = |resource: &ResourcePattern| {
        // A wildcard is no host: what it covers is decided name by name.
        let host = resource.host.to_string().parse().ok()?;
        let transport = rule.protocols.iter().next()?;
        let port = resource.port.unwrap_or(Port::HTTPS);
        let verdict = evaluator.decide(&Intent::new(
            sandbox,
            transport,
            IntentKind::Tls,
            host,
            port,
        ));
        let explicit = verdict.deny_kind == Some(DenyKind::Explicit);
        let deny = verdict.rule.filter(|_| explicit)?;
        Some(format!("{resource} stays denied: {deny} counts first"))
    };
    rule.resources
        .iter()
        .take(MAX_ASKED)
        .filter_map(denial)
        .collect()
}

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

/// `policy check`.
pub(crate) fn check(policy: &Policy, request: &Check) -> Result<CheckReport, Report> {
    let protocol = if request.protocol.is_empty() {
        "tcp"
    } else {
        &request.protocol
    };
    let transport = transport(protocol)?;
    let parsed = Target::parse(&request.target).map_err(|error| {
        Report::user(
            "target-invalid",
            format!("not a destination: {error}"),
            "sbx policy check network example.com:443",
        )
    })?;
    let http = http_request(request, transport)?;
    // With the rules for other sandboxes: they do not decide, but one of them may be what was meant.
    let evaluator = Evaluator::new(&policy.document);
    Ok(sbx_policy::check(
        &evaluator,
        request.sandbox.as_deref(),
        transport,
        &parsed,
        http,
    ))
}

fn http_request(request: &Check, transport: Transport) -> Result<Option<HttpRequest>, Report> {
    let refuse = |text: String| {
        let hint = "sbx policy check network api.example.com --method GET --path /v1/x";
        Report::user("request-invalid", text, hint)
    };
    let Some(method) = &request.method else {
        return match request.path {
            Some(_) => Err(refuse(
                "a path is asked about together with a method".to_owned(),
            )),
            None => Ok(None),
        };
    };
    if transport == Transport::Udp {
        return Err(refuse("method and path are about TCP".to_owned()));
    }
    // RFC 9110, section 5.6.2: a token.
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if method.is_empty() || method.len() > 32 || !method.bytes().all(token) {
        return Err(refuse(
            "the method is not one: write GET, POST, …".to_owned(),
        ));
    }
    let in_url = || {
        let (_, rest) = request.target.split_once("://")?;
        rest.find('/').map(|at| rest[at..].to_owned())
    };
    let path = request.path.clone().or_else(in_url);
    let path = path.unwrap_or_else(|| "/".to_owned());
    let path = path.split('#').next().unwrap_or("/");
    HttpRequest::parse(&method.to_ascii_uppercase(), path)
        .map(Some)
        .map_err(|error| refuse(error.to_string()))
}

/// The method and path of a rule.
fn http_match(method: Option<&str>, path: Option<&str>) -> Result<Option<HttpMatch>, Report> {
    let refuse = |text: String| {
        let hint = "sbx policy allow network api.example.com --method GET,POST --path '/v1/**'";
        Report::user("http-invalid", text, hint)
    };
    let parsed = |error: HttpMatchError| refuse(error.to_string());
    match (method, path) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(refuse(
            "a path needs a method: ANY stands for all of them".to_owned(),
        )),
        (Some(method), path) => Ok(Some(HttpMatch {
            methods: method.parse().map_err(parsed)?,
            path: path.map_or(Ok(PathPattern::everything()), |path| {
                path.parse().map_err(parsed)
            })?,
        })),
    }
}

fn scope(sandbox: Option<&str>) -> Result<Scope, Report> {
    let Some(name) = sandbox else {
        return Ok(Scope::Global);
    };
    let name = SandboxName::parse(name)
        .map_err(|error| Report::user("name-invalid", error.to_string(), "sbx ls"))?;
    Ok(Scope::Sandbox(name.as_str().to_owned()))
}

fn transport(text: &str) -> Result<Transport, Report> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Transport::Tcp),
        "udp" => Ok(Transport::Udp),
        _ => Err(Report::user(
            "protocol-unknown",
            format!(
                "{:?} is not a protocol",
                text.chars().take(20).collect::<String>()
            ),
            "write tcp, udp or tcp,udp",
        )),
    }
}

/// A comma list of resources, as rules and filters of the log have them.
pub(crate) fn parse_resources(text: &str) -> Result<Vec<ResourcePattern>, Report> {
    ResourcePattern::parse_list(text).map_err(|error| {
        let hint = error
            .hint()
            .unwrap_or_else(|| "sbx policy allow network example.com:443".to_owned());
        Report::user("resource-invalid", error.to_string(), hint)
    })
}

fn rule_report(error: &RuleError) -> Report {
    let code = match error {
        RuleError::TooBroad { .. } | RuleError::LoopbackNeedsPort(_) => "resource-invalid",
        _ => "rule-invalid",
    };
    let hint = error
        .hint()
        .unwrap_or_else(|| "sbx policy allow network example.com".to_owned());
    Report::user(code, error.to_string(), hint)
}

fn document_report(error: &DocumentError) -> Report {
    if let DocumentError::Rule(error) = error {
        return rule_report(error);
    }
    let code = match error {
        DocumentError::Conflict { .. } => "policy-conflict",
        _ => "rule-invalid",
    };
    let hint = error
        .hint()
        .unwrap_or_else(|| "sbx policy ls --wide".to_owned());
    Report::user(code, error.to_string(), hint)
}
