//! The table of services.

use sbx_credentials::services::{Scheme, Service, TABLE, bindings};
use sbx_credentials::sigv4::Endpoint;
use sbx_policy::ResourcePattern;
use std::collections::BTreeSet;

/// Random enough for a test: no two calls alike.
fn fill() -> impl FnMut(&mut [u8]) -> Result<(), std::convert::Infallible> {
    let mut state: u32 = 1;
    move |bytes: &mut [u8]| {
        for byte in bytes {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = state.to_be_bytes()[0];
        }
        Ok(())
    }
}

fn service(name: &str) -> &'static Service {
    Service::find(name).unwrap()
}

#[test]
fn rows_are_in_order_and_every_host_and_header_is_usable() {
    assert!(TABLE.is_sorted_by(|a, b| a.name < b.name));
    for service in TABLE {
        let name = service.name;
        assert!(!service.parts.is_empty() && !service.forms.is_empty());
        assert!(
            service.parts.is_sorted_by_key(|part| part.optional),
            "{name}"
        );
        for form in service.forms {
            for host in form.hosts {
                let pattern = ResourcePattern::parse(host).unwrap();
                assert!(pattern.host.is_name() && pattern.port.is_none(), "{host}");
            }
            if let Scheme::Header { name, format } = form.scheme {
                assert_eq!(name, name.to_ascii_lowercase());
                assert_eq!(format.matches("%s").count(), 1, "{format}");
            }
        }
    }
}

#[test]
fn services_are_found_by_name_and_by_variable() {
    assert_eq!(service("anthropic").name, "anthropic");
    assert_eq!(service("ANTHROPIC_API_KEY").name, "anthropic");
    assert_eq!(service("GITHUB_TOKEN").name, "github");
    assert!(Service::find("nope").is_none());
    // A variable names one service.
    let mut seen = BTreeSet::new();
    for name in TABLE
        .iter()
        .flat_map(|service| service.parts)
        .flat_map(|part| part.import)
    {
        assert!(seen.insert(name), "{name} is read by two services");
    }
}

#[test]
fn placeholders_have_the_shape_of_a_key_and_never_repeat() {
    let mut fill = fill();
    for service in TABLE {
        let (a, b) = (
            service.placeholder(&mut fill).unwrap(),
            service.placeholder(&mut fill).unwrap(),
        );
        assert_ne!(a, b);
        // Long enough that it is found by nobody by chance, and never by accident in other text.
        assert!(a.len() >= 32, "{} {a}", service.name);
        assert!(a.bytes().all(|byte| byte.is_ascii_graphic()), "{a}");
    }
    let mut shape = |name: &str| service(name).placeholder(&mut fill).unwrap();
    let anthropic = shape("anthropic");
    assert!(anthropic.starts_with("sk-ant-api03-") && anthropic.ends_with("AA"));
    assert_eq!(anthropic.len(), 108);
    let google = shape("google");
    assert!(google.starts_with("AIza") && google.len() == 39, "{google}");
    let github = shape("github");
    assert!(github.starts_with("gho_") && github.len() == 40, "{github}");
    let openai = shape("openai");
    assert!(
        openai.starts_with("sk-proj-")
            && openai.len() == 164
            && openai[82..].starts_with("T3BlbkFJ")
    );
    let aws = shape("aws");
    let (id, secret) = aws.split_once(':').unwrap();
    assert!(
        id.starts_with("AKIA") && id.len() == 20 && secret.len() == 40,
        "{aws}"
    );
}

#[test]
fn a_credential_of_several_parts_is_read_and_given_in_parts() {
    let aws = service("aws");
    let given: Vec<_> = aws.guest_variables("AKIAX:secret").collect();
    assert_eq!(
        given,
        [
            ("AWS_ACCESS_KEY_ID", "AKIAX"),
            ("AWS_SECRET_ACCESS_KEY", "secret")
        ]
    );
    let github: Vec<_> = service("github").guest_variables("gho_x").collect();
    assert_eq!(github, [("GH_TOKEN", "gho_x"), ("GITHUB_TOKEN", "gho_x")]);

    let of = |set: &'static [(&str, &str)]| {
        aws.from_variables(move |name| {
            let found = set.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    };
    assert_eq!(of(&[("AWS_ACCESS_KEY_ID", "A")]), None);
    assert_eq!(
        of(&[("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "s")]).as_deref(),
        Some("A:s")
    );
    assert_eq!(
        of(&[
            ("AWS_ACCESS_KEY_ID", "A"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("AWS_SESSION_TOKEN", "t")
        ])
        .as_deref(),
        Some("A:s:t")
    );
}

#[test]
fn a_host_of_two_services_is_left_to_the_one_that_is_for_it() {
    let of = |names: &[&str]| {
        let stored: Vec<_> = names.iter().map(|name| service(name)).collect();
        let mut hosts = Vec::new();
        for binding in bindings(&stored) {
            for host in binding.hosts {
                hosts.push(format!("{} {host}", binding.service.name));
            }
        }
        hosts
    };
    let both = of(&["copilot", "github"]);
    assert!(
        both.contains(&"github api.github.com".to_owned()),
        "{both:?}"
    );
    assert!(both.contains(&"copilot api.githubcopilot.com".to_owned()));
    let mut hosts: Vec<_> = both
        .iter()
        .filter_map(|text| text.split(' ').nth(1))
        .collect();
    let count = hosts.len();
    hosts.sort_unstable();
    hosts.dedup();
    assert_eq!(hosts.len(), count, "{both:?}");
    assert!(of(&["github"]).contains(&"github api.githubcopilot.com".to_owned()));
    assert!(of(&["copilot"]).contains(&"copilot api.github.com".to_owned()));
    assert_eq!(of(&[]).len(), 0);
}

#[test]
fn the_key_of_aws_is_bound_to_the_hosts_of_each_part_and_to_no_others() {
    // Whether bodies there quote what the agent has seen; `None`: the key is not bound there.
    let found = |host: &str| {
        let host = sbx_policy::Host::parse(host).unwrap();
        let mut forms = service("aws").forms.iter();
        let is_there = |host: &sbx_policy::Host, pattern: &&&str| {
            let pattern = ResourcePattern::parse(pattern).unwrap();
            pattern.host.matches(host)
        };
        let form = forms.find(|form| form.hosts.iter().any(|pattern| is_there(&host, &pattern)));
        form.map(|form| form.conversation)
    };
    for partition in [
        "us-east-1.amazonaws.com",
        "us-gov-west-1.amazonaws.com",
        "us-east-1.api.aws",
        "cn-north-1.amazonaws.com.cn",
        "cn-north-1.api.amazonwebservices.com.cn",
        "eusc-de-east-1.amazonaws.eu",
        "eusc-de-east-1.api.amazonwebservices.eu",
    ] {
        for name in ["sts", "iam", "bucket.s3", "bedrock", "api.ecr"] {
            let host = format!("{name}.{partition}");
            assert!(Endpoint::of(&host).is_ok(), "{host}");
            assert_eq!(found(&host), Some(false), "{host}");
        }
        for name in [
            "bedrock-runtime",
            "bedrock-runtime-fips",
            "bedrock-agent-runtime",
        ] {
            let host = format!("{name}.{partition}");
            assert!(Endpoint::of(&host).is_ok(), "{host}");
            assert_eq!(found(&host), Some(true), "{host}");
        }
    }
    for (host, conversation) in [
        ("sts.amazonaws.com", Some(false)),
        ("vpce-1a.sqs.us-east-1.vpce.amazonaws.com", Some(false)),
        (
            "vpce-1a.bedrock-runtime.us-east-1.vpce.amazonaws.com",
            Some(true),
        ),
        (
            "vpce-1a.bedrock-runtime.cn-north-1.vpce.amazonaws.com.cn",
            Some(true),
        ),
        ("bedrock-mantle.us-east-1.api.aws", Some(true)),
        ("abc.lambda-url.us-east-1.on.aws", Some(false)),
        ("shop.on.aws", None),
        ("docs.aws", None),
        ("amazonaws.com.evil.test", None),
        ("sts.us-east-1.amazonaws.com.tw", None),
    ] {
        assert_eq!(found(host), conversation, "{host}");
    }
}
