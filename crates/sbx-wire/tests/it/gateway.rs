//! Gateway control and records. A gateway that ran when sbx was upgraded is driven by the new daemon; one that is
//! restarted is of the new version and starts from the file that the old daemon wrote.

use crate::frozen::{self, Row};
use sbx_wire::browser::Address;
use sbx_wire::gateway::{
    Answer, Authority, Aws, AwsScope, Command, Credential, EgressRecord, GatewayConfig,
    GatewayFile, HandedIn, Issuer, ProxyKind, PublicKey, Registry, Replace, Upstream, Withdrawn,
};
use sbx_wire::secret::SecretText;
use sbx_wire::ssh_agent::{self, Hash, Hex, Purpose};
use serde_json::{Value, json};

const FILE: &str = "gateway-v1.txt";

pub(crate) fn file() -> GatewayFile {
    let policy = json!({
        "generation": 7,
        "rules": [
            {"id": "r1", "name": "one", "scope": "global", "decision": "allow",
             "resources": ["api.test:443", "**.example"], "protocols": ["tcp"], "created_via": "added",
             "http": {"methods": "GET,HEAD", "path": "/a/**"}},
            {"id": "r2", "name": null, "scope": "sandbox:box", "decision": "deny",
             "resources": ["192.0.2.0/24"], "protocols": ["tcp", "udp"], "created_via": "provisioned", "http": null}
        ],
        "governed": false
    });
    GatewayFile {
        sandbox: "box".into(),
        policy: serde_json::from_value(policy).unwrap(),
        upstream: Upstream {
            overrides: [("api.test:443".to_owned(), ([127, 0, 0, 1], 8443).into())].into(),
            extra_roots_pem: vec!["pem".into()],
            resolvers: vec![([192, 0, 2, 53], 53).into()],
            udp_egress: true,
        },
        credential_hosts: vec!["api.test".into()],
    }
}

fn config() -> GatewayConfig {
    GatewayConfig {
        file: file(),
        credentials: vec![Credential {
            service: "anthropic".into(),
            hosts: vec!["api.test".into()],
            header: "x-api-key".into(),
            format: "%s".into(),
            placeholder: "sk-placeholder".into(),
            value: SecretText::new("value".into()),
            basic_user: None,
            replace: None,
            unavailable: None,
            on_demand: false,
            conversation: false,
            aws: None,
            registry: None,
        }],
        withdrawn: Vec::new(),
        issuers: Vec::new(),
        authority: Authority {
            certificate_pem: "leaf".into(),
            not_after_s: 1_700_000_000,
            root_pem: "root".into(),
        },
    }
}

/// Credentials in the forms that came after the first version.
fn config_of_all_forms() -> GatewayConfig {
    let mut config = config();
    let one = config.credentials[0].clone();
    config.credentials.extend([
        Credential {
            format: "Basic %s".into(),
            basic_user: Some("x-access-token".into()),
            ..one.clone()
        },
        Credential {
            header: String::new(),
            format: String::new(),
            replace: Some(Replace {
                body: true,
                login: false,
            }),
            on_demand: true,
            ..one.clone()
        },
        Credential {
            unavailable: Some("The keychain is locked".into()),
            conversation: true,
            ..one
        },
    ]);
    config.withdrawn.push(Withdrawn {
        service: "github".into(),
        placeholder: "gho_placeholder".into(),
    });
    config
}

/// What somebody signed in for.
fn config_of_a_sign_in() -> GatewayConfig {
    let mut config = config();
    let one = config.credentials[0].clone();
    config.credentials = vec![Credential {
        header: String::new(),
        format: String::new(),
        replace: Some(Replace {
            body: false,
            login: true,
        }),
        ..one
    }];
    config
}

fn config_with_issuers() -> GatewayConfig {
    let mut config = config();
    config.issuers.push(Issuer {
        service: "anthropic".into(),
        hosts: vec!["login.test".into()],
        methods: "POST".into(),
        path: "/oauth/token".into(),
        kept: true,
        exchanged: vec!["sk-refresh-placeholder".into()],
    });
    config
}

/// A credential of AWS.
fn config_of_aws() -> GatewayConfig {
    let mut config = config();
    let one = config.credentials[0].clone();
    config.credentials = vec![Credential {
        service: "aws".into(),
        header: String::new(),
        format: String::new(),
        placeholder: "placeholder+secret".into(),
        aws: Some(Aws {
            placeholder_id: "AKIAPLACEHOLDER".into(),
            handed_in: None,
            scope: None,
        }),
        ..one
    }];
    config
}

/// A credential of AWS for an endpoint with a name of its own.
fn config_of_an_endpoint() -> GatewayConfig {
    let mut config = config_of_aws();
    if let Some(aws) = &mut config.credentials[0].aws {
        aws.scope = Some(AwsScope {
            service: "s3".into(),
            region: "us-east-1".into(),
        });
    }
    config
}

/// A credential of AWS whose keys are handed in.
fn config_that_hands_in() -> GatewayConfig {
    let mut config = config_of_aws();
    if let Some(aws) = &mut config.credentials[0].aws {
        aws.handed_in = Some(HandedIn {
            token: "token-placeholder".into(),
            ids: vec!["ASIAHANDEDIN".into()],
        });
    }
    config
}

/// Logins of registries.
fn config_of_registries() -> GatewayConfig {
    let mut config = config();
    let one = config.credentials[0].clone();
    let login = |auth_endpoint: Option<&str>| Credential {
        service: "registry:api.test".into(),
        header: String::new(),
        format: String::new(),
        placeholder: "sbx-registry-placeholder".into(),
        basic_user: Some("me".into()),
        registry: Some(Registry {
            auth_endpoint: auth_endpoint.map(|url| url.parse().unwrap()),
        }),
        ..one.clone()
    };
    config.credentials = vec![login(None), login(Some("https://login.test/token"))];
    config
}

fn hands_in(config: &GatewayConfig) -> bool {
    let aws = config.credentials[0].aws.as_ref();
    aws.is_some_and(|aws| aws.handed_in.is_some())
}

fn has_scope(config: &GatewayConfig) -> bool {
    let aws = config.credentials[0].aws.as_ref();
    aws.is_some_and(|aws| aws.scope.is_some())
}

fn command_name(command: &Command) -> &'static str {
    match command {
        Command::Configure(config) if !config.issuers.is_empty() => "configure-with-issuers",
        Command::Configure(config) if hands_in(config) => "configure-aws-handed-in",
        Command::Configure(config) if has_scope(config) => "configure-aws-endpoint",
        Command::Configure(config) if config.credentials[0].aws.is_some() => "configure-aws",
        Command::Configure(config) if config.credentials[0].replace.is_some() => {
            "configure-sign-in"
        }
        Command::Configure(config) if config.credentials[0].registry.is_some() => {
            "configure-registries"
        }
        Command::Configure(config) if config.credentials.len() > 1 => "configure-all-forms",
        Command::Configure(_) => "configure",
        Command::AwaitValue => "await-value",
        Command::AwaitIssued => "await-issued",
        Command::IssuedHandled {
            status: Some(_), ..
        } => "exchange-refused",
        Command::IssuedHandled { body: Some(_), .. } => "issued",
        Command::IssuedHandled { body: None, .. } => "not-issued",
        Command::Value { problem: None, .. } => "value",
        Command::Value {
            problem: Some(_), ..
        } => "no-value",
        Command::CertificateRequest => "certificate-request",
        Command::Status => "status",
        Command::AwaitPage => "await-page",
        Command::AwaitAgent => "await-agent",
        Command::AgentHandled { reply } => match reply {
            ssh_agent::Reply::Keys { .. } => "agent-keys",
            ssh_agent::Reply::Signature { .. } => "agent-signature",
            ssh_agent::Reply::Refused { .. } => "agent-refused",
        },
        Command::PageHandled { problem: None } => "page-opened",
        Command::PageHandled { problem: Some(_) } => "page-refused",
    }
}

#[test]
fn commands_are_encoded_as_in_version_1() {
    let all = vec![
        Command::Configure(Box::new(config())),
        Command::CertificateRequest,
        Command::Status,
        Command::AwaitPage,
        Command::PageHandled { problem: None },
        Command::PageHandled {
            problem: Some("no".into()),
        },
        Command::Configure(Box::new(config_of_all_forms())),
        Command::Configure(Box::new(config_with_issuers())),
        Command::AwaitIssued,
        Command::IssuedHandled {
            body: Some(SecretText::new("{}".into())),
            problem: None,
            status: None,
        },
        Command::IssuedHandled {
            body: None,
            problem: Some("no".into()),
            status: None,
        },
        Command::IssuedHandled {
            body: Some(SecretText::new("{}".into())),
            problem: None,
            status: Some(400),
        },
        Command::AwaitAgent,
        Command::AgentHandled {
            reply: ssh_agent::Reply::Keys {
                keys: vec![ssh_agent::Key {
                    key: Hex(vec![1, 0xab]),
                    comment: "me".into(),
                }],
            },
        },
        Command::AgentHandled {
            reply: ssh_agent::Reply::Signature {
                signature: Hex(vec![2]),
            },
        },
        Command::AgentHandled {
            reply: ssh_agent::Reply::Refused { why: "no".into() },
        },
        Command::Configure(Box::new(config_of_aws())),
        Command::Configure(Box::new(config_that_hands_in())),
        Command::Configure(Box::new(config_of_an_endpoint())),
        Command::Configure(Box::new(config_of_registries())),
        Command::Configure(Box::new(config_of_a_sign_in())),
        Command::AwaitValue,
        Command::Value {
            service: "custom".into(),
            value: Some(SecretText::new("value".into())),
            problem: None,
        },
        Command::Value {
            service: "custom".into(),
            value: None,
            problem: Some("no".into()),
        },
    ];
    let table: Vec<Row<Command>> = all.into_iter().map(|m| (command_name(&m), m)).collect();
    frozen::json(FILE, "command.", &table);
}

fn answer_name(answer: &Answer) -> &'static str {
    match answer {
        Answer::Configured { .. } => "configured",
        Answer::CertificateRequest { .. } => "certificate-request",
        Answer::Refused { .. } => "refused",
        Answer::OpenPage { .. } => "open-page",
        Answer::ValueNeeded { .. } => "value-needed",
        Answer::Issued { asked: None, .. } => "issued",
        Answer::Issued { asked: Some(_), .. } => "issued-to-client",
        Answer::Exchange { .. } => "exchange",
        Answer::AgentAsked { request } => match request {
            ssh_agent::Request::Keys => "agent-asked-keys",
            ssh_agent::Request::Sign { purpose, .. } => match purpose {
                Purpose::Message { .. } => "agent-asked-message",
                Purpose::Login { .. } => "agent-asked-login",
            },
        },
        Answer::Status { problem: None, .. } => "status",
        Answer::Status {
            problem: Some(_), ..
        } => "status-with-problem",
    }
}

#[test]
fn answers_are_encoded_as_in_version_1() {
    let mut point = [7; PublicKey::LENGTH];
    point[0] = 4;
    let status = |problem: Option<&str>| Answer::Status {
        generation: 7,
        attached: true,
        connections: 3,
        configured: true,
        problem: problem.map(str::to_owned),
    };
    let all = vec![
        Answer::Configured { generation: 7 },
        Answer::CertificateRequest {
            public_key: PublicKey::try_from(&point[..]).unwrap(),
        },
        Answer::Refused {
            reason: "no".into(),
        },
        Answer::OpenPage {
            address: Address::try_from("https://login.test/a?b=c".to_owned()).unwrap(),
        },
        status(None),
        status(Some("broken")),
        Answer::ValueNeeded {
            service: "custom".into(),
        },
        Answer::Issued {
            service: "anthropic".into(),
            path: "/oauth/token".into(),
            body: SecretText::new("{}".into()),
            host: String::new(),
            asked: None,
        },
        Answer::Issued {
            service: "anthropic".into(),
            path: "/oauth/token".into(),
            body: SecretText::new("{}".into()),
            host: "login.test".into(),
            asked: Some(SecretText::new("{}".into())),
        },
        Answer::Exchange {
            service: "anthropic".into(),
            body: SecretText::new("{}".into()),
        },
        Answer::AgentAsked {
            request: ssh_agent::Request::Keys,
        },
        Answer::AgentAsked {
            request: ssh_agent::Request::Sign {
                key: Hex(vec![1]),
                purpose: Purpose::Message {
                    namespace: "git".into(),
                    hash: Hash::Sha512,
                    digest: Hex(vec![2]),
                },
                flags: 0,
            },
        },
        Answer::AgentAsked {
            request: ssh_agent::Request::Sign {
                key: Hex(vec![1]),
                purpose: Purpose::Login {
                    session: Hex(vec![3]),
                    user: "me".into(),
                    algorithm: "ssh-ed25519".into(),
                    host: None,
                },
                flags: 4,
            },
        },
    ];
    let table: Vec<Row<Answer>> = all.into_iter().map(|m| (answer_name(&m), m)).collect();
    frozen::json(FILE, "answer.", &table);
}

#[test]
fn records_are_encoded_as_in_version_1() {
    let kinds = [
        ("forward", ProxyKind::Forward),
        ("forward-bypass", ProxyKind::ForwardBypass),
        ("transparent", ProxyKind::Transparent),
        ("network", ProxyKind::Network),
        ("dns", ProxyKind::Dns),
        ("browser-open", ProxyKind::BrowserOpen),
        ("ssh-agent", ProxyKind::SshAgent),
    ];
    let record = |proxy| EgressRecord {
        time_ms: 1_700_000_000_123,
        sandbox: "box".into(),
        kind: "network".into(),
        host: "api.test".into(),
        port: 443,
        proxy,
        allowed: true,
        rule: Some("r1".into()),
        rule_text: Some("api.test:443".into()),
        reason: "allowed-by-rule".into(),
        method: Some("GET".into()),
        path: Some("/a".into()),
        credential: Some("anthropic".into()),
        alert: None,
        generation: 7,
    };
    let mut table: Vec<Row<EgressRecord>> = kinds
        .into_iter()
        .map(|(name, kind)| (name, record(kind)))
        .collect();
    let alert = EgressRecord {
        alert: Some("value-in-answer".into()),
        ..record(ProxyKind::Forward)
    };
    table.push(("alert", alert));
    frozen::json(FILE, "record.", &table);
}

#[test]
fn a_file_of_the_first_days_is_read_and_one_with_more_is_refused() {
    frozen::json(FILE, "file.", &[("gateway-json", file())]);
    let mut old: Value = serde_json::to_value(file()).unwrap();
    old.as_object_mut().unwrap().remove("credential_hosts");
    old["upstream"].as_object_mut().unwrap().remove("resolvers");
    old["upstream"]
        .as_object_mut()
        .unwrap()
        .remove("udp_egress");
    serde_json::from_value::<GatewayFile>(old.clone()).unwrap();
    // What is not understood could be a restriction: such a file opens nothing, and the daemon writes it anew.
    old["only_on_weekdays"] = json!(true);
    assert!(serde_json::from_value::<GatewayFile>(old).is_err());
}
