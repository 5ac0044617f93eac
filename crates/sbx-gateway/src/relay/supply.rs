//! The values that a request needs: they are here, have to be asked for, or cannot be had, and then nothing is sent.

use std::sync::Arc;

use hyper::body::Body;
use hyper::http::request::Parts;

use super::headers::asks_for_websocket;
use crate::credentials::registries::Use;
use crate::credentials::{BoundCredential, Form, Owner, Part, Supplied, Supply};
use crate::decision::{Denial, Grant};
use crate::gateway::Gateway;
use crate::reason::Reason;

/// What a request needs.
#[derive(Default)]
pub(super) struct Needed {
    /// The values of the credentials that are written into it.
    pub(super) supplied: Vec<Supplied>,
    /// It asks for a token of a registry, with this login.
    pub(super) issues: Option<Supplied>,
}

/// The values of the credentials that are written into this request.
pub(super) async fn supply<B: Body>(
    gateway: &Gateway,
    grant: &Grant,
    (parts, body): (&Parts, &B),
    tls: bool,
) -> Result<Needed, Denial> {
    let mut needed = Needed::default();
    needed.supplied.reserve(grant.bound.credentials.len());
    for credential in &grant.bound.credentials {
        let registry = match &credential.form {
            Form::Registry(form) => {
                let known = &gateway.registries;
                Some(credential.registry_use(form, &grant.target, parts, known))
            }
            Form::Header { .. } | Form::Replace { .. } | Form::Login | Form::Aws(_) => None,
        };
        match registry {
            Some(Use::Nothing) => continue,
            Some(Use::Issue) if needed.issues.is_some() => continue,
            Some(Use::Token(_)) if !tls => return Err(in_the_clear(grant, credential)),
            Some(_) if !tls => continue,
            _ => {}
        }
        let material = match &credential.supply {
            Supply::Here(material) => material.clone(),
            _ if !is_needed(credential, parts, body) => continue,
            Supply::Unavailable(why) => return Err(unavailable(grant, credential, why)),
            Supply::OnDemand => {
                // Apart: few requests have to wait for somebody.
                let asked = Box::pin(gateway.values.ask(&credential.service)).await;
                let value = asked.map_err(|why| unavailable(grant, credential, &why))?;
                let material = credential.material(&value);
                Arc::new(material.map_err(|why| unavailable(grant, credential, why))?)
            }
        };
        let one = Supplied {
            credential: credential.clone(),
            material,
            part: match registry {
                Some(Use::Issue) => Part::Asks,
                _ => Part::Value,
            },
        };
        let one = match registry {
            Some(Use::Token(placeholder)) => {
                let token = gateway.registries.token(&placeholder, &one);
                token.unwrap_or_else(|| one.without_value())
            }
            Some(Use::Issue) => {
                needed.issues = Some(one.clone());
                one
            }
            _ => one,
        };
        if let Some(sought) = &grant.bound.sought {
            sought.give(&one);
        }
        needed.supplied.push(one);
    }
    Ok(needed)
}

/// A token of a registry is for nobody on the way.
fn in_the_clear(grant: &Grant, credential: &BoundCredential) -> Denial {
    let service = &credential.service;
    let text = format!("The request carries the placeholder of {service}, and is not encrypted");
    let reason = Reason::PlaceholderToUnboundHost;
    Denial::new(&grant.generation, &grant.target, reason, text)
}

fn is_needed<B: Body>(credential: &BoundCredential, parts: &Parts, body: &B) -> bool {
    match credential.form {
        Form::Header { .. } | Form::Aws(_) | Form::Registry(_) => true,
        Form::Replace { body: in_body } => {
            // Messages are what the body is elsewhere.
            let more = !body.is_end_stream() || asks_for_websocket(parts);
            in_body && more || credential.is_in_head(parts)
        }
        Form::Login => credential.is_in_head(parts),
    }
}

fn unavailable(grant: &Grant, credential: &BoundCredential, why: &str) -> Denial {
    let text = format!(
        "The credential of {} cannot be had: {why}",
        credential.service
    );
    Denial::new(
        &grant.generation,
        &grant.target,
        Reason::CredentialUnavailable,
        text,
    )
}

/// What is said about a placeholder that may go there, but not in the place where it stands in the head: the host might
/// keep what it is sent there, show it, or answer what tells of it.
pub(super) fn misplaced(grant: &Grant, parts: &Parts) -> Option<Denial> {
    let mut credentials = grant.bound.credentials.iter();
    let credential = credentials.find(|one| one.is_misplaced(parts))?;
    let service = &credential.service;
    let text = format!(
        "The request carries the placeholder of {service} in a place where it stands for nothing"
    );
    let reason = Reason::PlaceholderToUnboundHost;
    Some(Denial::new(&grant.generation, &grant.target, reason, text))
}

/// What is said about a placeholder that must not go there.
pub(super) fn stray(grant: &Grant, owner: &Owner) -> Denial {
    let service = &owner.service;
    let (reason, text) = if owner.withdrawn {
        let text = format!(
            "The request carries the placeholder of {service}, for which no secret is stored any more"
        );
        (Reason::CredentialWithdrawn, text)
    } else {
        let text = format!(
            "The request carries the placeholder of {service}, which is not bound to this host"
        );
        (Reason::PlaceholderToUnboundHost, text)
    };
    Denial::new(&grant.generation, &grant.target, reason, text)
}
