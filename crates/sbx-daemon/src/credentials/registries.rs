//! What the gateway is told of logins of registries. The guest is given nothing: a client inside needs no login where the
//! gateway has one. What the tokens that it is issued begin with inside is the sandbox's own.

use super::{InForce, base, held};
use crate::custom;
use crate::daemon::Daemon;
use crate::random;
use crate::record::Record;
use sbx_credentials::shape::{self, Alphabet, Piece, Shape};
use sbx_secrets::{Held, Registry, Secret};
use sbx_wire::browser::Address;
use sbx_wire::gateway::{self, Credential};
use sbx_wire::report::Report;

/// Registries that a sandbox has a placeholder for, those whose login was removed included.
const MAX_REGISTRIES: usize = 256;
const PLACEHOLDER: Shape = &[
    Piece::Text("sbx-registry-"),
    Piece::Random(Alphabet::Base62, 32),
];

/// The host of a login, with its port if that is not 443.
fn host(secret: &Secret) -> Option<&str> {
    secret.key.name.strip_prefix(custom::REGISTRY)
}

/// Where its tokens are issued. The error: it is no endpoint, although it is stored.
fn endpoint(registry: &Registry) -> Result<Option<Address>, ()> {
    let named = registry.auth_endpoint.as_deref();
    named.map(|url| custom::endpoint(url).ok_or(())).transpose()
}

/// Hosts of both.
pub(super) fn hosts(found: &InForce<'_>) -> Vec<String> {
    let mut hosts = Vec::new();
    for (registry, secret) in &found.registries {
        hosts.extend(host(secret).map(str::to_owned));
        if let Ok(Some(endpoint)) = endpoint(registry) {
            hosts.push(custom::authority(endpoint.target()));
        }
    }
    hosts
}

/// Gives the sandbox what it has no placeholder for yet; whether there was anything.
pub(super) fn give(found: &InForce<'_>, record: &mut Record) -> Result<bool, Report> {
    let mut given = false;
    for (_, secret) in &found.registries {
        let name = &secret.key.name;
        if !record.placeholders.contains_key(name) {
            make_room(found, record);
            let placeholder = shape::render(PLACEHOLDER, random::fill)?;
            record.placeholders.insert(name.clone(), placeholder);
            given = true;
        }
    }
    Ok(given)
}

/// Tokens of a login that was removed are good for minutes: nobody has to know their placeholders for ever.
fn make_room(found: &InForce<'_>, record: &mut Record) {
    let is_its = |name: &String| name.starts_with(custom::REGISTRY);
    if record
        .placeholders
        .keys()
        .filter(|name| is_its(name))
        .count()
        < MAX_REGISTRIES
    {
        return;
    }
    let stands = |name: &String| {
        let mut in_force = found.registries.iter();
        in_force.any(|(_, secret)| secret.key.name == *name)
    };
    record
        .placeholders
        .retain(|name, _| !is_its(name) || stands(name));
}

/// The logins.
pub(super) fn credentials(
    daemon: &Daemon,
    found: &InForce<'_>,
    record: &Record,
) -> Vec<Credential> {
    let of = |(registry, secret): &(&Registry, &Secret)| {
        let host = host(secret)?;
        let placeholder = record.placeholders.get(&secret.key.name)?;
        let endpoint = endpoint(registry);
        let held = match endpoint {
            Ok(_) => held(daemon, secret),
            Err(()) => Held::Unavailable("its authorisation endpoint cannot be read".to_owned()),
        };
        let base = base(&secret.key.name, vec![host.to_owned()], placeholder, held);
        Some(Credential {
            basic_user: Some(registry.username.clone()),
            registry: Some(gateway::Registry {
                auth_endpoint: endpoint.unwrap_or_default(),
            }),
            ..base
        })
    };
    found.registries.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sbx_secrets::{Key, Kind, Scope, Source};
    use sbx_wire::secret::SecretText;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn secret(host: &str) -> Secret {
        Secret {
            key: Key {
                name: format!("{}{host}", custom::REGISTRY),
                scope: Scope::Global,
            },
            kind: Kind::Service,
            source: Source::File(SecretText::new("password".to_owned())),
        }
    }

    #[test]
    fn placeholders_of_logins_that_were_removed_are_bounded() {
        let record = json!({
            "schema": 1, "id": "00000000000a", "name": "one", "agent": "shell", "workspaces": [], "env": [],
            "cpus": 1, "memory_mib": 512, "accel_wanted": null, "accel": "tcg", "image": "base-0",
            "agent_command": ["bash"], "workdir": "/", "machine_id": "0".repeat(32),
            "placeholders": {"anthropic": "sk-ant-placeholder"},
            "created_at": "2026-01-01T00:00:00Z", "last_used_at": null,
        });
        let mut record = Record::parse("00000000000a", record.to_string().as_bytes()).unwrap();
        let registry = Registry {
            username: "u".to_owned(),
            auth_endpoint: None,
            all_sandboxes: true,
        };
        for number in 0..MAX_REGISTRIES {
            let (name, text) = (
                secret(&format!("r{number}.test")).key.name,
                "sbx-registry-x",
            );
            record.placeholders.insert(name, text.to_owned());
        }
        let (old, new) = (secret("r7.test"), secret("new.test"));
        let found = InForce {
            services: BTreeMap::new(),
            custom: Vec::new(),
            issued: Vec::new(),
            registries: vec![(&registry, &old), (&registry, &new)],
        };
        assert!(give(&found, &mut record).unwrap());
        assert!(!give(&found, &mut record).unwrap());
        let names: Vec<&str> = record.placeholders.keys().map(String::as_str).collect();
        let wanted = ["anthropic", "registry:new.test", "registry:r7.test"];
        assert_eq!(names, wanted);
        assert_eq!(record.placeholders[wanted[2]], "sbx-registry-x");
    }
}
