//! Calls whose answers are credentials. None may enter the sandbox, so they are refused.

use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::canonical::{decoded, parameters};
use super::claim::Head;
use super::host::Endpoint;
use super::issue_table::{ACTIONS, PATHS, QUERY, STORES};

/// Whether what the service is asked for may stand in the body, as a form ("query protocol"). Such a body has to be
/// there whole, and not compressed, before [`issuing`] can say anything.
pub fn acts_in_body(endpoint: &Endpoint, head: &Head<'_>) -> bool {
    let service = endpoint.service();
    if QUERY.contains(&service) || (endpoint.is_own_store() && is_form(head)) {
        return true;
    }
    // Should a service that gives out something take forms besides its own protocol. What S3 takes are bodies of objects.
    service != "s3" && gives_out(service) && says_form(head)
}

fn gives_out(service: &str) -> bool {
    let mut calls = ACTIONS.iter().chain(PATHS.iter().map(|(call, _)| call));
    calls.any(|call| call.split_once(':').is_some_and(|(of, _)| of == service))
}

/// Stores with the interface of S3 are also STS and IAM at the same host, for what is asked of no bucket, or in a form.
fn is_form(head: &Head<'_>) -> bool {
    head.method == "POST" && segments(head.path).is_empty() || says_form(head)
}

fn says_form(head: &Head<'_>) -> bool {
    let mut types = head.headers.get_all(CONTENT_TYPE).iter();
    let form = b"application/x-www-form-urlencoded";
    let starts = |value: &HeaderValue| {
        let start = value.as_bytes().trim_ascii().get(..form.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(form))
    };
    head.method == "POST" && types.any(starts)
}

/// The call, as `service:Action`, if its answer is a credential. Whether the request is signed makes no difference.
/// `body`: where [`acts_in_body`] asks for it.
pub fn issuing(endpoint: &Endpoint, head: &Head<'_>, body: &[u8]) -> Option<&'static str> {
    let service = endpoint.service();
    let store = endpoint.is_own_store();
    let ours = |call: &&'static str| {
        let of = call.split_once(':').map_or("", |(of, _)| of);
        of == service || (store && STORES.contains(&of))
    };
    let segments = segments(head.path);
    if matches!(service, "s3" | "s3express") && asks_for_session(head) {
        return Some("s3:CreateSession");
    }
    let by_path = PATHS
        .iter()
        .find(|(call, pattern)| ours(call) && matches(pattern, &segments));
    if let Some((call, _)) = by_path {
        return Some(call);
    }
    let in_body = acts_in_body(endpoint, head);
    // The path is a bucket's there, and so is what stands behind it.
    let mut actions = if store && !in_body && !segments.is_empty() {
        Vec::new()
    } else {
        actions(head, &segments)
    };
    if in_body {
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

/// A session of S3's directory buckets, which is a key for some minutes (`GET /?session`).
fn asks_for_session(head: &Head<'_>) -> bool {
    let mut found = parameters(head.query.unwrap_or_default());
    found.any(|(name, _)| name == b"session")
}

/// Everything in the head that may name an action: `X-Amz-Target` (JSON), `Action` (query protocol), and the end of a
/// path of Smithy's RPC protocol.
fn actions(head: &Head<'_>, segments: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let targets = head.headers.get_all("x-amz-target").iter();
    let target = |value: &HeaderValue| {
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
    use super::super::host::Kind;
    use super::super::host_names::SUFFIXES;
    use super::*;
    use http::HeaderMap;

    /// What stands in front of the region in a host of each service that gives out credentials.
    const HOSTS: &[&str] = &[
        "123456789012.s3-control",
        "account-access",
        "airflow",
        "amplifyuibuilder",
        "api.ecr",
        "api.ecr-public",
        "api.sagemaker",
        "api.tunneling.iot",
        "athena",
        "bedrock-agentcore",
        "cloudwatch",
        "codeartifact",
        "codepipeline",
        "cognito-identity",
        "connect",
        "datazone",
        "ec2",
        "eks-auth",
        "elasticmapreduce",
        "emr-containers",
        "emr-serverless",
        "finspace-api",
        "gamelift",
        "glue",
        "iam",
        "iot",
        "kinesisanalytics",
        "lakeformation",
        "license-manager",
        "lightsail",
        "oidc",
        "portal.sso",
        "redshift",
        "redshift-serverless",
        "rolesanywhere",
        "scheduling.deadline",
        "signin",
        "ssm",
        "sts",
    ];

    /// What stands behind it, in every part of AWS that there are hosts of.
    const PARTITIONS: &[&str] = &[
        "us-east-1.amazonaws.com",
        "us-gov-west-1.amazonaws.com",
        "us-east-1.api.aws",
        "cn-north-1.amazonaws.com.cn",
        "cn-northwest-1.api.amazonwebservices.com.cn",
        "eusc-de-east-1.amazonaws.eu",
        "eusc-de-east-1.api.amazonwebservices.eu",
    ];

    /// The hosts of the service that a call is of, one in each part of AWS.
    fn hosts(call: &str) -> Vec<(String, Endpoint)> {
        let (service, _) = call.split_once(':').unwrap();
        let of_partition = |partition: &&str| {
            let mut hosts = HOSTS.iter().map(|host| {
                let host = format!("{host}.{partition}");
                let endpoint = Endpoint::of(&host).unwrap();
                (host, endpoint)
            });
            let found = hosts.find(|(_, endpoint)| endpoint.service() == service);
            found.unwrap_or_else(|| panic!("no host of {service}"))
        };
        PARTITIONS.iter().map(of_partition).collect()
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
    fn every_part_of_aws_that_is_known_has_its_hosts_here() {
        for (suffix, _, kind) in SUFFIXES {
            let one = |known: &&str| known.split_once('.').is_some_and(|(_, end)| end == *suffix);
            let there = PARTITIONS.iter().any(one);
            // Functions give out nothing, and a VPC's names are those of the services behind one more.
            assert_eq!(there, *kind == Kind::Plain, "{suffix}");
        }
    }

    #[test]
    fn every_action_of_the_list_is_recognised_at_its_service_in_every_part_of_aws() {
        for call in ACTIONS {
            for (host, endpoint) in hosts(call) {
                action_is_recognised(call, &host, &endpoint);
            }
        }
    }

    fn action_is_recognised(call: &'static str, host: &str, endpoint: &Endpoint) {
        let none = HeaderMap::new();
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
            assert_eq!(issuing(endpoint, &head, b""), Some(call), "{host}");
        }
        let bare = head(host, "/", "", &none);
        let in_body = issuing(endpoint, &bare, form.as_bytes()).is_some();
        assert_eq!(in_body, acts_in_body(endpoint, &bare), "{host} {call}");
        let other = format!("Action={action}s");
        let other = head(host, "/", &other, &none);
        assert_eq!(issuing(endpoint, &other, b""), None, "{host} {call}");
    }

    #[test]
    fn every_path_of_the_list_is_recognised_at_its_service_in_every_part_of_aws() {
        let none = HeaderMap::new();
        for (call, pattern) in PATHS {
            for (host, endpoint) in hosts(call) {
                let path = format!("/{}", pattern.replace('*', "x%2Fy"));
                let found = |path: &str| issuing(&endpoint, &head(&host, path, "a=b", &none), b"");
                for path in [path.clone(), format!("{path}/"), path.to_ascii_uppercase()] {
                    assert_eq!(found(&path), Some(*call), "{host} {path}");
                }
                assert_eq!(found(&format!("{path}/more")), None, "{host} {path}");
                assert_eq!(found(&format!("/more{path}")), None, "{host} {path}");
            }
        }
    }
}
