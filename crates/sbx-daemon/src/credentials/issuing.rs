//! What the gateway is told of tokens that were issued, and of the endpoints that issue some.

use super::InForce;
use crate::record::{GivenIssued, Record};
use crate::services::TABLE;
use crate::sign_ins;
use sbx_agents::Tokens;
use sbx_credentials::oauth::{claims, own_part};
use sbx_credentials::services::{Endpoint, Service};
use sbx_secrets::{Secret, SignIn};
use sbx_wire::gateway::{Credential, Issuer, Replace, Withdrawn};
use sbx_wire::secret::SecretText;
use serde_json::Value;

/// Placeholders of tokens that are remembered for a sandbox.
const MAX_ISSUED: usize = 256;

/// A sign-in, with its access token.
pub(super) type Issued<'a> = (&'a Secret, &'a SignIn, &'a SecretText);

/// Endpoints that issue something to the sandbox: where one signs in, and what a credential that is written gives access to.
fn endpoints<'a>(
    found: &'a InForce<'_>,
) -> impl Iterator<Item = (&'static Service, &'static Endpoint)> + 'a {
    let is_stored = |service: &Service| {
        let mut signed_in = found.issued.iter();
        found.services.contains_key(service.name)
            || signed_in.any(|(_, one, _)| one.service == service.name)
    };
    TABLE.iter().flat_map(move |service| {
        let stored = is_stored(service);
        let endpoints = service.issuing.iter();
        let here = endpoints
            .filter(move |endpoint| stored || endpoint.kept.is_some_and(|kept| kept.sign_in));
        here.map(move |endpoint| (service, endpoint))
    })
}

/// Hosts of both.
pub(super) fn hosts(found: &InForce<'_>) -> Vec<String> {
    let mut hosts: Vec<String> = endpoints(found)
        .map(|(_, endpoint)| endpoint.host.to_owned())
        .collect();
    for (_, sign_in, _) in &found.issued {
        hosts.extend(resources(sign_in));
    }
    hosts
}

fn resources(sign_in: &SignIn) -> Vec<String> {
    let kept = sign_ins::kept(&sign_in.service, &sign_in.host);
    let hosts = kept.map_or(&[][..], |kept| kept.resources);
    hosts.iter().map(|host| (*host).to_owned()).collect()
}

/// How the access token of a sign-in is written in the place of what stands for it. `keys`: those of services; one of the
/// same service is written instead.
pub(super) fn credentials(issued: &Issued<'_>, keys: &[Credential]) -> Vec<Credential> {
    let (secret, sign_in, value) = issued;
    let keys: Vec<&Credential> = keys
        .iter()
        .filter(|key| key.service == sign_in.service)
        .collect();
    let kept = sign_ins::kept(&sign_in.service, &sign_in.host);
    let Some(kept) = kept else { return Vec::new() };
    let mut credentials = Vec::new();
    for placeholder in &sign_in.accesses {
        for key in &keys {
            credentials.push(Credential {
                placeholder: placeholder.clone(),
                ..(*key).clone()
            });
        }
        if keys.is_empty() {
            let held = sign_ins::held(sign_in, value);
            let hosts = resources(sign_in);
            credentials.push(Credential {
                replace: Some(Replace {
                    body: false,
                    login: true,
                }),
                conversation: kept.conversation,
                ..super::base(&secret.key.name, hosts, placeholder, held)
            });
        }
    }
    credentials
}

/// What stands for its tokens, if it is of that service and a client may read who signed in.
pub(super) fn tokens((_, sign_in, _): &Issued<'_>, service: &str) -> Option<Tokens> {
    if sign_in.service != service {
        return None;
    }
    let id = sign_in.ids.first()?;
    Some(Tokens {
        access: sign_in.accesses.first()?.clone(),
        refresh: sign_in.refreshes.first()?.clone(),
        id: id.clone(),
        claims: Value::Object(claims(id)?),
    })
}

/// The endpoints as the gateway is told.
pub(super) fn issuers(found: &InForce<'_>, record: &Record) -> Vec<Issuer> {
    let issuer = |(service, endpoint): (&'static Service, &'static Endpoint)| Issuer {
        service: service.name.to_owned(),
        hosts: vec![endpoint.host.to_owned()],
        methods: endpoint.methods.to_owned(),
        path: endpoint.path.to_owned(),
        kept: endpoint.kept.is_some(),
        exchanged: match endpoint.kept {
            Some(kept) if kept.refreshed.is_some() => exchanged(record, service.name),
            _ => Vec::new(),
        },
    };
    endpoints(found).map(issuer).collect()
}

/// Also those of sign-ins that are gone: whoever asks is told so as a client understands it.
fn exchanged(record: &Record, service: &str) -> Vec<String> {
    let of_service = |one: &&GivenIssued| one.exchanged && one.service == service;
    let issued = record.issued.iter().filter(of_service);
    issued.map(|one| one.placeholder.clone()).collect()
}

/// What stands for nothing any more.
pub(super) fn withdrawn(found: &InForce<'_>, record: &Record) -> Vec<Withdrawn> {
    let stands = |own: &str| {
        let mut issued = found.issued.iter();
        issued.any(|(_, one, _)| one.placeholders().any(|(text, _)| own_part(text) == own))
    };
    let gone = record
        .issued
        .iter()
        .filter(|one| !one.exchanged && !stands(&one.placeholder));
    gone.map(|one| Withdrawn {
        service: one.service.clone(),
        placeholder: one.placeholder.clone(),
    })
    .collect()
}

/// Notes what the guest is told of sign-ins; whether there was anything new.
pub(super) fn give(found: &InForce<'_>, record: &mut Record) -> bool {
    let mut given = false;
    for (_, sign_in, _) in &found.issued {
        for (placeholder, exchanged) in sign_in.placeholders() {
            let own = own_part(placeholder);
            if !record.issued.iter().any(|known| known.placeholder == own) {
                record.issued.push(GivenIssued {
                    service: sign_in.service.clone(),
                    placeholder: own.to_owned(),
                    exchanged,
                });
                given = true;
            }
        }
    }
    let beyond = record.issued.len().saturating_sub(MAX_ISSUED);
    record.issued.drain(..beyond);
    given
}
