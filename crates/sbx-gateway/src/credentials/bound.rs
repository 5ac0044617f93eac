//! What concerns requests to one target.

use std::sync::Arc;

use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use sbx_credentials::stray::Strays;

use super::{BoundCredential, Form, Sought};

/// A placeholder that the guest may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Whose it is.
    pub service: String,
    /// Nothing is stored for it any more.
    pub withdrawn: bool,
    pub(super) placeholder: String,
}

/// What concerns requests to one target.
#[derive(Debug, Default)]
pub struct Bound {
    /// Credentials that are written there.
    pub credentials: Vec<Arc<BoundCredential>>,
    /// Placeholders that must not go there.
    pub strays: Option<Arc<Strays>>,
    pub(super) owners: Vec<Owner>,
    /// Values that may come back from there. `None`: nothing was ever bound.
    pub sought: Option<Sought>,
    /// Bodies quote whatever the agent has seen: a stray placeholder in one is made unreadable.
    pub conversation: bool,
}

impl Bound {
    /// Whose a stray placeholder is, by the number that [`Strays`] gave.
    pub fn owner(&self, number: usize) -> &Owner {
        &self.owners[number]
    }

    /// The first placeholder in the head of a request that must not go there.
    pub fn stray(&self, parts: &Parts) -> Option<&Owner> {
        let strays = self.strays.as_ref()?;
        let uri = parts.uri.to_string();
        let values = parts.headers.values().map(HeaderValue::as_bytes);
        let mut texts = std::iter::once(uri.as_bytes()).chain(values);
        let number = texts.find_map(|text| strays.find(text))?;
        Some(self.owner(number))
    }

    /// Whether a value is written into the body.
    pub fn writes_bodies(&self) -> bool {
        let in_body = |credential: &Arc<BoundCredential>| {
            matches!(credential.form, Form::Replace { body: true })
        };
        self.credentials.iter().any(in_body)
    }
}

#[cfg(test)]
mod tests {
    use sbx_policy::{Port, Target};
    use sbx_wire::gateway::Credential;
    use sbx_wire::secret::SecretText;

    use super::super::{Configured, Credentials};
    use super::*;
    use crate::limits;

    fn credential(service: &str, hosts: &[&str]) -> Credential {
        Credential {
            service: service.to_owned(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            header: "authorization".to_owned(),
            format: "Bearer %s".to_owned(),
            placeholder: format!("sbx-placeholder-{service}"),
            value: SecretText::new(format!("value-of-{service}")),
            basic_user: None,
            replace: None,
            unavailable: None,
            on_demand: false,
            conversation: false,
            aws: None,
            registry: None,
        }
    }

    #[test]
    fn names_share_what_was_made_where_the_same_is_bound_and_only_there() {
        let configured = [
            credential("one", &["**.names.test", "alone.test"]),
            credential("two", &["b.names.test"]),
        ];
        let all = Credentials::new(&Configured {
            credentials: &configured,
            ..Configured::default()
        })
        .unwrap();
        let of = |host: &str| all.of(&Target::parse_authority(host, Port::HTTPS).unwrap());
        assert!(Arc::ptr_eq(&of("a.names.test"), &of("c.names.test")));
        assert!(Arc::ptr_eq(&of("a.names.test"), &of("alone.test")));
        let services = |host: &str| -> Vec<String> {
            let bound = of(host);
            let bound = bound.credentials.iter();
            bound.map(|one| one.service.clone()).collect()
        };
        assert_eq!(services("a.names.test"), ["one"]);
        assert_eq!(services("b.names.test"), ["one", "two"]);
        assert!(services("other.test").is_empty());
        let stray = |host: &str| {
            let bound = of(host);
            let strays = bound.strays.as_ref()?;
            let number = strays.find(b"sbx-placeholder-two")?;
            Some(bound.owner(number).service.clone())
        };
        assert_eq!(stray("a.names.test").as_deref(), Some("two"));
        assert_eq!(stray("b.names.test"), None);
        assert_eq!(stray("other.test").as_deref(), Some("two"));
    }

    #[test]
    fn what_is_kept_ready_is_for_so_many_targets_and_then_made_again() {
        let all = [credential("one", &["*.test"])];
        let configured = Configured {
            credentials: &all,
            ..Configured::default()
        };
        let credentials = Credentials::new(&configured).unwrap();
        let of = |number: usize| {
            let name = format!("h{number}.test");
            credentials.of(&Target::parse_authority(&name, Port::HTTPS).unwrap())
        };
        let first = of(0);
        for number in 1..limits::BOUND_TARGETS {
            of(number);
        }
        assert!(Arc::ptr_eq(&first, &of(0)), "kept");
        of(limits::BOUND_TARGETS);
        assert!(!Arc::ptr_eq(&first, &of(0)), "made again");
    }
}
