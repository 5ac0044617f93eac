//! Sandboxes run on during an upgrade, with gateways of the version that they were started by. Those refuse a configuration as
//! a whole that has something in it that they do not know, and would go on with an old policy. Each gets what it knows; what it
//! would have to know to keep a placeholder from going out is closed for it instead.

use sbx_policy::{CreatedVia, Decision, Protocols, ResourcePattern, Rule, Scope};
use sbx_wire::gateway::{Aws, Credential, GatewayConfig, Withdrawn};

/// The rule that closes hosts to a gateway that cannot write their credentials. Shown in the log of connections.
const RULE: &str = "sbx-older-gateway";
const RULE_NAME: &str =
    "the gateway of this sandbox is older than sbx; stop the sandbox and start it";

/// What is said of a credential that a gateway would not understand. The guest reads it.
const TOO_OLD: &str = "the gateway of this sandbox is older than sbx and cannot write it; the user has to stop the sandbox and start it";

/// What a gateway of an older version is told.
#[derive(Debug)]
pub(crate) struct Older {
    /// The configuration.
    pub(crate) config: GatewayConfig,
    /// Nothing is missing that it could do anything with.
    pub(crate) complete: bool,
}

/// For gateways that do not understand a configuration, the newest first; none, if all of them do.
pub(crate) fn older(config: &GatewayConfig) -> Vec<Older> {
    let logins = before_logins(config);
    // One that knows less knows nothing of what came later either.
    let without = logins.as_ref().map_or(config, |older| &older.config);
    let endpoints = before_endpoints(without);
    let without = endpoints.as_ref().map_or(without, |older| &older.config);
    let handing_in = before_handing_in(without);
    let without = handing_in.as_ref().map_or(without, |older| &older.config);
    let registries = before_registries(without);
    let without = registries.as_ref().map_or(without, |older| &older.config);
    let signatures = before_signatures(without);
    let first = first(config);
    logins
        .into_iter()
        .chain(endpoints)
        .chain(handing_in)
        .chain(registries)
        .chain(signatures)
        .chain(first)
        .collect()
}

/// For those that would write the token of a sign-in anywhere in a head. `None`: it is not needed.
fn before_logins(config: &GatewayConfig) -> Option<Older> {
    let of_sign_in = |one: &Credential| one.replace.is_some_and(|replace| replace.login);
    if !config.credentials.iter().any(of_sign_in) {
        return None;
    }
    let mut older = config.clone();
    for credential in older.credentials.iter_mut().filter(|one| of_sign_in(one)) {
        credential.replace = None;
        close(credential);
    }
    Some(Older {
        config: older,
        complete: false,
    })
}

/// For those that sign for hosts of AWS alone. `None`: it is not needed.
fn before_endpoints(config: &GatewayConfig) -> Option<Older> {
    let of_endpoint = |one: &Credential| one.aws.as_ref().is_some_and(|aws| aws.scope.is_some());
    if !config.credentials.iter().any(of_endpoint) {
        return None;
    }
    let mut older = config.clone();
    for credential in older.credentials.iter_mut().filter(|one| of_endpoint(one)) {
        // Its placeholders are those of the one for AWS's hosts, and so known.
        credential.aws = None;
        close(credential);
    }
    Some(Older {
        config: older,
        complete: false,
    })
}

/// For those that hand in no keys of AWS: they sign, and refuse what is signed with any other key. `None`: it is not needed.
fn before_handing_in(config: &GatewayConfig) -> Option<Older> {
    let hands_in = |aws: &Aws| aws.handed_in.is_some();
    let mut signing = config.credentials.iter().filter_map(|one| one.aws.as_ref());
    if !signing.any(hands_in) {
        return None;
    }
    let mut older = config.clone();
    for aws in older
        .credentials
        .iter_mut()
        .filter_map(|one| one.aws.as_mut())
    {
        aws.handed_in = None;
    }
    Some(Older {
        config: older,
        complete: false,
    })
}

/// For those that know every form but logins of registries. `None`: it is not needed.
fn before_registries(config: &GatewayConfig) -> Option<Older> {
    if config.credentials.iter().all(|one| one.registry.is_none()) {
        return None;
    }
    let mut older = config.clone();
    for credential in &mut older.credentials {
        if credential.registry.take().is_some() {
            close(credential);
        }
    }
    Some(Older {
        config: older,
        complete: false,
    })
}

/// For those that know every form but that of AWS. `None`: it is not needed.
fn before_signatures(config: &GatewayConfig) -> Option<Older> {
    if config.credentials.iter().all(|one| one.aws.is_none()) {
        return None;
    }
    let mut older = config.clone();
    for credential in &mut older.credentials {
        if let Some(aws) = credential.aws.take() {
            older.withdrawn.push(Withdrawn {
                service: credential.service.clone(),
                placeholder: aws.placeholder_id,
            });
            close(credential);
        }
    }
    Some(Older {
        config: older,
        complete: false,
    })
}

/// Has every request to its hosts refused, with the reason, by a gateway that knows this.
fn close(credential: &mut Credential) {
    *credential = Credential {
        // It has to have a form. Nothing is ever written in it.
        header: "authorization".to_owned(),
        format: "%s".to_owned(),
        value: sbx_wire::secret::SecretText::new(String::new()),
        unavailable: Some(TOO_OLD.to_owned()),
        on_demand: false,
        ..credential.clone()
    };
}

/// For those of the first version: a credential was a value, for a header, at hosts with names. Of any other the hosts are
/// closed by a rule, or its placeholder would go there. It stopped no placeholder of what is not stored, made nothing
/// unreadable, and let issuers be.
fn first(config: &GatewayConfig) -> Option<Older> {
    let is_first = |credential: &Credential| {
        credential.basic_user.is_none()
            && credential.replace.is_none()
            && credential.unavailable.is_none()
            && credential.aws.is_none()
            && credential.registry.is_none()
            && !credential.on_demand
            && !credential.hosts.iter().any(|host| is_pattern(host))
    };
    let complete = config.credentials.iter().all(is_first);
    let plain = config.credentials.iter().all(|one| !one.conversation);
    let hosts = &config.file.credential_hosts;
    let patterns = hosts.iter().any(|host| is_pattern(host));
    if complete && plain && !patterns && config.withdrawn.is_empty() && config.issuers.is_empty() {
        return None;
    }
    let mut older = config.clone();
    older.withdrawn.clear();
    older.issuers.clear();
    let mut closed: Vec<String> = Vec::new();
    older.credentials.retain(|credential| {
        let kept = is_first(credential);
        if !kept {
            closed.extend(credential.hosts.iter().cloned());
        }
        kept
    });
    for credential in &mut older.credentials {
        credential.conversation = false;
    }
    older.file.credential_hosts.retain(|host| !is_pattern(host));
    older.file.policy.rules.extend(closing(&closed));
    Some(Older {
        config: older,
        complete: complete && !patterns,
    })
}

/// A deny of all these; a deny stands above every allow.
fn closing(hosts: &[String]) -> Option<Rule> {
    let mut resources: Vec<ResourcePattern> = hosts
        .iter()
        // What cannot be named closes everything.
        .filter_map(|host| host.parse().or_else(|_| "**".parse()).ok())
        .collect();
    resources.dedup();
    (!resources.is_empty()).then(|| Rule {
        id: RULE.to_owned(),
        name: Some(RULE_NAME.to_owned()),
        scope: Scope::Global,
        decision: Decision::Deny,
        resources,
        protocols: Protocols::ALL,
        created_via: CreatedVia::Provisioned,
        http: None,
    })
}

fn is_pattern(host: &str) -> bool {
    host.starts_with('.') || host.contains(['*', '?', '['])
}

#[cfg(test)]
mod tests {
    use super::*;
    use sbx_wire::gateway::{Authority, GatewayFile, Replace, Upstream};
    use sbx_wire::secret::SecretText;
    use serde_json::json;

    #[test]
    fn a_gateway_that_would_write_a_sign_in_s_token_anywhere_has_its_hosts_closed() {
        let policy = json!({"generation": 7, "rules": [], "governed": false});
        let custom = Credential {
            service: "custom".to_owned(),
            hosts: vec!["api.test".to_owned()],
            header: String::new(),
            format: String::new(),
            placeholder: "placeholder".to_owned(),
            value: SecretText::new("value".to_owned()),
            basic_user: None,
            replace: Some(Replace {
                body: false,
                login: false,
            }),
            unavailable: None,
            on_demand: false,
            conversation: false,
            aws: None,
            registry: None,
        };
        let sign_in = Credential {
            replace: Some(Replace {
                body: false,
                login: true,
            }),
            on_demand: true,
            ..custom.clone()
        };
        let mut config = GatewayConfig {
            file: GatewayFile {
                sandbox: "box".to_owned(),
                policy: serde_json::from_value(policy).unwrap(),
                upstream: Upstream::default(),
                credential_hosts: vec!["api.test".to_owned()],
            },
            credentials: vec![custom.clone()],
            withdrawn: Vec::new(),
            issuers: Vec::new(),
            authority: Authority {
                certificate_pem: String::new(),
                not_after_s: 0,
                root_pem: String::new(),
            },
        };
        // One of the first version knows neither of them.
        let complete = |config: &GatewayConfig| -> Vec<bool> {
            older(config).iter().map(|one| one.complete).collect()
        };
        assert_eq!(complete(&config), [false]);
        config.credentials.push(sign_in);
        assert_eq!(complete(&config), [false, false]);
        let credentials = older(&config).remove(0).config.credentials;
        let [same, closed] = &credentials[..] else {
            panic!("{credentials:?}")
        };
        assert_eq!(same.replace, custom.replace);
        assert_eq!(same.value.expose(), "value");
        assert_eq!((closed.replace, closed.on_demand), (None, false));
        assert_eq!(
            (closed.value.expose(), closed.header.as_str()),
            ("", "authorization")
        );
        assert_eq!(closed.unavailable.as_deref(), Some(TOO_OLD));
    }
}
