//! The rules of a decision, written down once more without any cleverness: every rule is looked at, patterns are
//! matched from their text. The evaluator has to agree with it.

use std::net::IpAddr;

use sbx_policy::{
    Decision, Host, HttpMatch, HttpRequest, Intent, IntentKind, PolicyDocument, Rule, Transport,
};

/// Spellings of the services of the host: a deny of any of them counts, an allow has to be `localhost`.
const HOST: [&str; 8] = [
    "localhost",
    "host.docker.internal",
    "host.sbx.internal",
    "gateway.docker.internal",
    "gateway.sbx.internal",
    "127.0.0.1",
    "::1",
    "192.168.127.1",
];

/// Ports of resolvers: closed over UDP.
const RESOLVERS: [u16; 4] = [53, 853, 5353, 5355];

/// Whether the intent may pass, addresses aside, where rules may open UDP.
pub(crate) fn may_pass(policy: &PolicyDocument, intent: &Intent) -> bool {
    if intent.transport == Transport::Udp && RESOLVERS.contains(&intent.port.get()) {
        return false;
    }
    let rules: Vec<&Rule> = policy
        .rules
        .iter()
        .filter(|rule| concerns(policy, rule, intent))
        .collect();
    let of = |decision: Decision| rules.iter().filter(move |rule| rule.decision == decision);
    let request = match (intent.transport, intent.kind) {
        (Transport::Tcp, IntentKind::Http) => intent.http.as_ref(),
        _ => None,
    };
    let inspected =
        request.is_some() || (intent.transport == Transport::Tcp && intent.kind == IntentKind::Tls);
    let denied = of(Decision::Deny).any(|rule| match (&rule.http, request) {
        (None, _) => true,
        (Some(http), Some(request)) => covers(http, request, false),
        (Some(_), None) => !inspected,
    });
    let allowed = of(Decision::Allow).any(|rule| match (&rule.http, request) {
        (None, _) => true,
        (Some(http), Some(request)) => covers(http, request, true),
        (Some(_), None) => inspected,
    });
    allowed && !denied
}

/// Whether the rule is about this sandbox, transport, host and port.
fn concerns(policy: &PolicyDocument, rule: &Rule, intent: &Intent) -> bool {
    let counts =
        !policy.governed || rule.decision == Decision::Deny || rule.scope.to_string() == "org";
    let scope = rule.scope.to_string();
    let sandbox = match scope.split_once(':') {
        None => true,
        Some((_, name)) => name.rsplit('@').next() == Some(&*intent.sandbox),
    };
    counts
        && sandbox
        && rule
            .protocols
            .iter()
            .any(|transport| transport == intent.transport)
        && rule.resources.iter().any(|resource| {
            let pattern = resource.host.to_string();
            let host = match (&intent.host, rule.decision) {
                (Host::HostService, Decision::Deny) => {
                    HOST.iter().any(|spelling| spells(&pattern, spelling))
                }
                (host, _) => naive(&pattern, host),
            };
            host && resource.port.is_none_or(|port| port == intent.port)
        })
}

/// Whether the pattern covers the text, taken for a name or an address and nothing more.
fn spells(pattern: &str, text: &str) -> bool {
    let covered = match text.parse::<IpAddr>() {
        Ok(ip) => address_matches(pattern, ip),
        Err(_) => name_matches(pattern, text),
    };
    pattern == "localhost" || covered
}

fn covers(http: &HttpMatch, request: &HttpRequest, exactly: bool) -> bool {
    let methods = http.methods.to_string();
    let listed = |token: &str| methods.split(',').any(|word| word == token);
    let method = methods == "ANY"
        || match request.method {
            Some(method) => listed(&method.to_string()),
            // The one of the generated methods that is another's in lower case.
            None => !exactly && *request == get_in_lower_case(request) && listed("GET"),
        };
    let path = request.path.to_string();
    let pattern = http.path.to_string();
    let pattern: Vec<&str> = pattern.split('/').filter(|s| !s.is_empty()).collect();
    let mut readings = vec![path.clone()];
    if !exactly {
        let slashes = |path: &str| path.replace("%2F", "/").replace("%5C", "/");
        let bare: Vec<&str> = path
            .split('/')
            .map(|s| s.split(';').next().unwrap())
            .collect();
        readings.extend([slashes(&path), slashes(&bare.join("/"))]);
    }
    let passes = |(n, reading): (usize, &String)| {
        let segments: Vec<String> = reading
            .split('/')
            .filter(|s| !s.is_empty() && (n == 0 || !s.starts_with(';')))
            .map(str::to_owned)
            .collect();
        path_matches(&pattern, &segments, exactly)
    };
    method && readings.iter().enumerate().any(passes)
}

fn get_in_lower_case(like: &HttpRequest) -> HttpRequest {
    HttpRequest::parse("get", like.path.as_str()).unwrap()
}

fn path_matches(pattern: &[&str], path: &[String], exactly: bool) -> bool {
    match (pattern, path) {
        ([], []) => true,
        (["**", rest @ ..], _) => {
            path_matches(rest, path, exactly)
                || (!path.is_empty() && path_matches(pattern, &path[1..], exactly))
        }
        ([p, rest @ ..], [s, more @ ..]) => {
            let bare = s.split(';').next().unwrap_or_default().to_lowercase();
            let here = glob(p.as_bytes(), s.as_bytes())
                || (!exactly && glob(p.to_lowercase().as_bytes(), bare.as_bytes()))
                || (!exactly && glob(p.to_lowercase().as_bytes(), s.to_lowercase().as_bytes()));
            here && path_matches(rest, more, exactly)
        }
        _ => false,
    }
}

/// Whether a pattern, by its text, covers the host.
pub(crate) fn naive(pattern: &str, host: &Host) -> bool {
    match host {
        Host::HostService => pattern == "localhost",
        Host::Ip(ip) => address_matches(pattern, *ip),
        Host::Name(name) => pattern != "localhost" && name_matches(pattern, name.as_str()),
    }
}

fn address_matches(pattern: &str, ip: IpAddr) -> bool {
    let net = pattern.parse::<ipnet::IpNet>().ok();
    let net = net.or_else(|| pattern.parse::<IpAddr>().ok().map(Into::into));
    pattern == "**" || net.is_some_and(|net| net.contains(&ip))
}

fn name_matches(pattern: &str, name: &str) -> bool {
    if pattern.contains(['/', ':']) || pattern.parse::<IpAddr>().is_ok() {
        return false;
    }
    let labels: Vec<&str> = name.split('.').collect();
    match pattern.strip_prefix('.') {
        Some(rest) => {
            let rest: Vec<&str> = rest.split('.').collect();
            labels.len() >= rest.len() && same(&rest, &labels[labels.len() - rest.len()..])
        }
        None => same(&pattern.split('.').collect::<Vec<_>>(), &labels),
    }
}

fn same(pattern: &[&str], labels: &[&str]) -> bool {
    match (pattern, labels) {
        ([], []) => true,
        (["**", rest @ ..], [_, more @ ..]) => same(rest, more) || same(pattern, more),
        ([p, rest @ ..], [l, more @ ..]) => glob(p.as_bytes(), l.as_bytes()) && same(rest, more),
        _ => false,
    }
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            glob(rest, text) || (!text.is_empty() && glob(pattern, &text[1..]))
        }
        ([b'?', rest @ ..], [_, more @ ..]) => glob(rest, more),
        ([b'[', rest @ ..], [c, more @ ..]) => {
            let close = rest.iter().position(|b| *b == b']').unwrap();
            let set = &rest[..close];
            let range = |w: &[u8]| w[1] == b'-' && (w[0]..=w[2]).contains(c);
            (set.contains(c) || set.windows(3).any(range)) && glob(&rest[close + 1..], more)
        }
        ([p, rest @ ..], [c, more @ ..]) => p == c && glob(rest, more),
        _ => false,
    }
}
