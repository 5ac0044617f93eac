//! Calls whose answers are credentials. None may enter the sandbox, so they are refused.

use super::canonical::{decoded, parameters};
use super::claim::Head;
use super::host::Endpoint;
use super::issue_table::{ACTIONS, PATHS, QUERY};

/// Whether what the service is asked for may stand in the body, as a form ("query protocol"). Such a body has to be
/// there whole, and not compressed, before [`issuing`] can say anything.
pub fn acts_in_body(endpoint: &Endpoint) -> bool {
    QUERY.contains(&endpoint.service())
}

/// The call, as `service:Action`, if its answer is a credential. Whether the request is signed makes no difference.
/// `body`: where [`acts_in_body`] asks for it.
pub fn issuing(endpoint: &Endpoint, head: &Head<'_>, body: &[u8]) -> Option<&'static str> {
    let service = endpoint.service();
    let ours = |call: &&'static str| call.split_once(':').is_some_and(|(of, _)| of == service);
    let segments = segments(head.path);
    let by_path = PATHS
        .iter()
        .find(|(call, pattern)| ours(call) && matches(pattern, &segments));
    if let Some((call, _)) = by_path {
        return Some(call);
    }
    let mut actions = actions(head, &segments);
    if acts_in_body(endpoint) {
        actions.extend(of_form(&String::from_utf8_lossy(body)));
    }
    // Without regard to case, should a service be as lenient.
    let is_asked_for = |call: &&'static str| {
        let action = call.split_once(':').map_or("", |(_, action)| action);
        actions
            .iter()
            .any(|asked| asked.trim_ascii().eq_ignore_ascii_case(action.as_bytes()))
    };
    ACTIONS.iter().copied().filter(ours).find(is_asked_for)
}

/// Everything in the head that may name an action: `X-Amz-Target` (JSON), `Action` (query protocol), and the end of a
/// path of Smithy's RPC protocol.
fn actions(head: &Head<'_>, segments: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let targets = head.headers.get_all("x-amz-target").iter();
    let target = |value: &http::HeaderValue| {
        let last = value.as_bytes().rsplit(|byte| *byte == b'.').next();
        last.unwrap_or_default().to_vec()
    };
    let mut actions: Vec<Vec<u8>> = targets.map(target).collect();
    actions.extend(of_form(head.query.unwrap_or_default()));
    actions.extend(segments.last().cloned());
    actions
}

fn of_form(text: &str) -> impl Iterator<Item = Vec<u8>> + '_ {
    let is_action = |name: &[u8]| name.trim_ascii().eq_ignore_ascii_case(b"action");
    let found = parameters(text).filter(move |(name, _)| is_action(name));
    found.map(|(_, value)| value)
}

/// The path's segments, decoded, without empty ones and steps.
fn segments(path: &str) -> Vec<Vec<u8>> {
    let mut segments: Vec<Vec<u8>> = Vec::new();
    for segment in path.split('/').map(|text| decoded(text, false)) {
        match &segment[..] {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    segments
}

/// Whether a path is of a pattern: `*` stands for one segment.
fn matches(pattern: &str, segments: &[Vec<u8>]) -> bool {
    let parts: Vec<&str> = pattern.split('/').collect();
    let same = |(part, segment): (&&str, &Vec<u8>)| {
        *part == "*" || segment.eq_ignore_ascii_case(part.as_bytes())
    };
    parts.len() == segments.len() && parts.iter().zip(segments).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    /// A host of each service that gives out credentials.
    const HOSTS: &[&str] = &[
        "123456789012.s3-control.us-east-1.amazonaws.com",
        "api.ecr-public.us-east-1.amazonaws.com",
        "api.ecr.us-east-1.amazonaws.com",
        "bedrock-agentcore.us-east-1.amazonaws.com",
        "codeartifact.us-east-1.amazonaws.com",
        "codepipeline.us-east-1.amazonaws.com",
        "cognito-identity.us-east-1.amazonaws.com",
        "connect.us-east-1.amazonaws.com",
        "datazone.us-east-1.api.aws",
        "eks-auth.us-east-1.api.aws",
        "finspace-api.us-east-1.amazonaws.com",
        "gamelift.us-east-1.amazonaws.com",
        "iam.amazonaws.com",
        "lakeformation.us-east-1.amazonaws.com",
        "lightsail.us-east-1.amazonaws.com",
        "oidc.us-east-1.amazonaws.com",
        "portal.sso.us-east-1.amazonaws.com",
        "redshift-serverless.us-east-1.amazonaws.com",
        "redshift.us-east-1.amazonaws.com",
        "rolesanywhere.us-east-1.amazonaws.com",
        "scheduling.deadline.us-east-1.amazonaws.com",
        "signin.us-east-1.amazonaws.com",
        "ssm.us-east-1.amazonaws.com",
        "sts.us-east-1.amazonaws.com",
    ];

    fn host(call: &str) -> (&'static str, Endpoint) {
        let (service, _) = call.split_once(':').unwrap();
        let mut hosts = HOSTS
            .iter()
            .map(|host| (*host, Endpoint::of(host).unwrap()));
        let found = hosts.find(|(_, endpoint)| endpoint.service() == service);
        found.unwrap_or_else(|| panic!("no host of {service}"))
    }

    fn head<'a>(host: &'a str, path: &'a str, query: &'a str, headers: &'a HeaderMap) -> Head<'a> {
        Head {
            method: "POST",
            path,
            query: Some(query),
            host,
            headers,
        }
    }

    #[test]
    fn every_action_of_the_list_is_recognised_at_its_service() {
        let none = HeaderMap::new();
        for call in ACTIONS {
            let (host, endpoint) = host(call);
            let (_, action) = call.split_once(':').unwrap();
            let mut named = HeaderMap::new();
            named.insert(
                "x-amz-target",
                format!("Some_20150921.{action}").parse().unwrap(),
            );
            let form = format!("Version=1&Action={action}");
            let rpc = format!("/service/Some/operation/{action}");
            for head in [
                head(host, "/", "", &named),
                head(host, "/", &form, &none),
                head(host, &rpc, "", &none),
            ] {
                assert_eq!(issuing(&endpoint, &head, b""), Some(*call));
            }
            let in_body = issuing(&endpoint, &head(host, "/", "", &none), form.as_bytes());
            assert_eq!(in_body.is_some(), acts_in_body(&endpoint), "{call}");
            let other = format!("Action={action}s");
            let other = head(host, "/", &other, &none);
            assert_eq!(issuing(&endpoint, &other, b""), None, "{call}");
        }
    }

    #[test]
    fn every_path_of_the_list_is_recognised_at_its_service() {
        let none = HeaderMap::new();
        for (call, pattern) in PATHS {
            let (host, endpoint) = host(call);
            let path = format!("/{}", pattern.replace('*', "x%2Fy"));
            let found = |path: &str| issuing(&endpoint, &head(host, path, "a=b", &none), b"");
            for path in [path.clone(), format!("{path}/"), path.to_ascii_uppercase()] {
                assert_eq!(found(&path), Some(*call), "{path}");
            }
            assert_eq!(found(&format!("{path}/more")), None, "{path}");
            assert_eq!(found(&format!("/more{path}")), None, "{path}");
        }
    }
}
