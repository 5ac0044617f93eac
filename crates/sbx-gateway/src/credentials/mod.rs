//! What the gateway knows of secrets: which hosts each is bound to, how it is written, and what must not leave or come
//! back there. Made once for a generation; a [`Bound`] says all of it about one target.

mod bind;
mod hosts;
pub mod issuers;
pub mod registries;
pub mod values;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use sbx_credentials::scrub::Scrub;
use sbx_credentials::sigv4::{Keys, Placeholder};
use sbx_credentials::stray::Strays;
use sbx_policy::{HttpRequest, Target};
use sbx_wire::gateway::{Credential, Issuer, Withdrawn};
use sbx_wire::secret::SecretText;

use crate::generation::ConfigError;
use crate::limits;

pub use self::hosts::Hosts;
use self::issuers::BoundIssuer;
use self::registries::RegistryForm;

/// A credential as the connector writes it.
#[derive(Debug)]
pub struct BoundCredential {
    /// Service name.
    pub service: String,
    /// What the guest holds instead.
    pub placeholder: String,
    /// Where it goes.
    pub form: Form,
    /// Whether it is here.
    pub supply: Supply,
    /// Finds its placeholder.
    finder: Option<Strays>,
    /// Bodies to its hosts quote whatever the agent has seen.
    conversation: bool,
}

impl BoundCredential {
    /// Whether a text holds its placeholder.
    pub fn is_in(&self, text: &[u8]) -> bool {
        let found = |finder: &Strays| finder.find(text).is_some();
        self.finder.as_ref().is_some_and(found)
    }

    /// Everything real that may come back, each with what the guest knows instead.
    pub fn values<'a>(&'a self, material: &'a Material) -> Vec<(&'a str, &'a str)> {
        let placeholder = self.placeholder.as_str();
        let (Form::Aws(form), Some(keys)) = (&self.form, &material.keys) else {
            return vec![(material.text.expose(), placeholder)];
        };
        let id = form.placeholder.access_key_id.as_str();
        let mut pairs = vec![(keys.secret(), placeholder), (keys.access_key_id(), id)];
        // The guest has no token.
        pairs.extend(keys.session_token().map(|token| (token, placeholder)));
        pairs
    }

    /// Everything that the guest may hold of it.
    fn placeholders(&self) -> impl Iterator<Item = &str> {
        let id = match &self.form {
            Form::Aws(form) => Some(form.placeholder.access_key_id.as_str()),
            Form::Header { .. } | Form::Replace { .. } | Form::Registry(_) => None,
        };
        std::iter::once(self.placeholder.as_str()).chain(id)
    }

    /// Whether its placeholder may go to a target that it is bound to. Those of a registry's tokens do not go where
    /// tokens are issued.
    fn stays_at(&self, target: &Target) -> bool {
        match &self.form {
            Form::Registry(form) => form.target == *target,
            Form::Header { .. } | Form::Replace { .. } | Form::Aws(_) => true,
        }
    }

    /// Whether the head of a request holds its placeholder.
    pub fn is_in_head(&self, parts: &Parts) -> bool {
        let mut values = parts.headers.values();
        values.any(|value| self.is_in(value.as_bytes()))
            || self.is_in(parts.uri.to_string().as_bytes())
    }
}

/// Where a credential goes.
#[derive(Debug)]
pub enum Form {
    /// Into this header, whatever the guest sent there.
    Header {
        /// Header to overwrite.
        name: HeaderName,
        /// What stands before the value, and behind it.
        around: (String, String),
        /// User of a `Basic` login.
        basic_user: Option<String>,
    },
    /// Into the place of its placeholder, where the guest wrote one.
    Replace {
        /// Also in the body.
        body: bool,
    },
    /// Requests that are signed with the placeholder are signed anew.
    Aws(AwsForm),
    /// Into requests to a registry of images, and where its tokens are issued.
    Registry(RegistryForm),
}

impl Form {
    /// The header that is written over.
    pub fn header(&self) -> Option<HeaderName> {
        match self {
            Self::Header { name, .. } => Some(name.clone()),
            Self::Registry(_) => Some(AUTHORIZATION),
            Self::Replace { .. } | Self::Aws(_) => None,
        }
    }
}

/// How requests to AWS are signed.
#[derive(Debug)]
pub struct AwsForm {
    /// What the guest holds.
    pub placeholder: Placeholder,
}

/// Whether a value is here.
#[derive(Debug)]
pub enum Supply {
    /// It is.
    Here(Arc<Material>),
    /// It cannot be had; why, for the guest.
    Unavailable(String),
    /// It is asked for when it is needed.
    OnDemand,
}

/// A value, ready to be written.
#[derive(Debug)]
pub struct Material {
    /// The value of the header. Marked sensitive: its `Debug` shows nothing.
    pub header: Option<HeaderValue>,
    /// The value itself.
    pub text: SecretText,
    /// The key of AWS.
    pub keys: Option<Keys>,
}

/// A credential with the value that is written for one request.
#[derive(Debug, Clone)]
pub struct Supplied {
    /// The credential.
    pub credential: Arc<BoundCredential>,
    /// The value.
    pub material: Arc<Material>,
}

/// A placeholder that the guest may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Whose it is.
    pub service: String,
    /// Nothing is stored for it any more.
    pub withdrawn: bool,
    placeholder: String,
}

/// What concerns requests to one target.
#[derive(Debug, Default)]
pub struct Bound {
    /// Credentials that are written there.
    pub credentials: Vec<Arc<BoundCredential>>,
    /// Placeholders that must not go there.
    pub strays: Option<Arc<Strays>>,
    owners: Vec<Owner>,
    /// Values that may come back from there, of those that are here.
    pub scrub: Option<Arc<Scrub>>,
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

/// What the configuration says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Configured<'a> {
    /// Credentials to write.
    pub credentials: &'a [Credential],
    /// Placeholders of what was removed.
    pub withdrawn: &'a [Withdrawn],
    /// Endpoints that issue credentials.
    pub issuers: &'a [Issuer],
}

/// Everything that was configured.
#[derive(Debug, Default)]
pub struct Credentials {
    all: Vec<(Hosts, Arc<BoundCredential>)>,
    owners: Vec<Owner>,
    unbound: Arc<Bound>,
    issuers: Vec<Arc<BoundIssuer>>,
    /// By target, as they come up.
    made: Mutex<HashMap<Target, Arc<Bound>>>,
}

impl Credentials {
    /// From the configuration.
    pub fn new(config: &Configured<'_>) -> Result<Self, ConfigError> {
        let Configured {
            credentials,
            withdrawn,
            issuers,
        } = *config;
        let mut all = Vec::with_capacity(credentials.len());
        let mut owners: Vec<Owner> = Vec::new();
        for credential in credentials {
            let mut hosts = Hosts::parse("credential host", &credential.hosts)?;
            let bound = Arc::new(bind::bind(credential)?);
            if let Form::Registry(form) = &bound.form
                && let Some(endpoint) = &form.endpoint
            {
                hosts.add(endpoint.target.clone());
            }
            for placeholder in bound.placeholders() {
                let owner = Owner {
                    service: credential.service.clone(),
                    withdrawn: false,
                    placeholder: placeholder.to_owned(),
                };
                if !owners.contains(&owner) {
                    owners.push(owner);
                }
            }
            all.push((hosts, bound));
        }
        for Withdrawn {
            service,
            placeholder,
        } in withdrawn
        {
            bind::check_placeholder(service, placeholder)?;
            owners.push(Owner {
                service: service.clone(),
                withdrawn: true,
                placeholder: placeholder.clone(),
            });
        }
        let mut bound_issuers = Vec::with_capacity(issuers.len());
        for issuer in issuers {
            bound_issuers.push(Arc::new(BoundIssuer::new(issuer)?));
            owners.extend(issuer.exchanged.iter().map(|placeholder| Owner {
                service: issuer.service.clone(),
                withdrawn: false,
                placeholder: placeholder.clone(),
            }));
        }
        let unbound = Arc::new(Bound {
            strays: strays(&owners),
            owners: owners.clone(),
            ..Bound::default()
        });
        Ok(Self {
            all,
            owners,
            unbound,
            issuers: bound_issuers,
            made: Mutex::default(),
        })
    }

    /// Whether requests to the target have to be looked at: a credential is bound to it, or it issues some.
    pub fn covers(&self, target: &Target) -> bool {
        self.binds(target) || self.has_issuer(target)
    }

    fn binds(&self, target: &Target) -> bool {
        self.all.iter().any(|(hosts, _)| hosts.contains(target))
    }

    /// Whether the target issues credentials to some requests.
    pub fn has_issuer(&self, target: &Target) -> bool {
        self.issuers.iter().any(|issuer| issuer.is_at(target))
    }

    /// The issuer that the request asks.
    pub fn issuer(&self, target: &Target, request: &HttpRequest) -> Option<&Arc<BoundIssuer>> {
        let mut issuers = self.issuers.iter();
        issuers.find(|issuer| issuer.is_at(target) && issuer.is_asked(request))
    }

    /// What concerns requests to the target.
    pub fn of(&self, target: &Target) -> Arc<Bound> {
        if !self.binds(target) {
            return self.unbound.clone();
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bound) = made.get(target) {
            return bound.clone();
        }
        // A pattern takes in as many names as a guest can think of.
        if made.len() >= limits::BOUND_TARGETS {
            made.clear();
        }
        let bound = Arc::new(self.make(target));
        made.insert(target.clone(), bound.clone());
        bound
    }

    fn make(&self, target: &Target) -> Bound {
        let here = self.all.iter().filter(|(hosts, _)| hosts.contains(target));
        let mut credentials: Vec<_> = here.map(|(_, credential)| credential.clone()).collect();
        let conversation = credentials.iter().any(|credential| credential.conversation);
        // A request has one signature, whichever of its patterns the key is bound by.
        let mut signs = false;
        credentials.retain(|credential| {
            !matches!(credential.form, Form::Aws(_)) || !std::mem::replace(&mut signs, true)
        });
        let belongs = |owner: &&Owner| {
            let mut staying = credentials.iter().filter(|one| one.stays_at(target));
            staying.any(|credential| {
                credential
                    .placeholders()
                    .any(|one| one == owner.placeholder)
            })
        };
        let owners: Vec<Owner> = self
            .owners
            .iter()
            .filter(|owner| !belongs(owner))
            .cloned()
            .collect();
        let values = credentials
            .iter()
            .flat_map(|credential| match &credential.supply {
                Supply::Here(material) => credential.values(material),
                Supply::Unavailable(_) | Supply::OnDemand => Vec::new(),
            });
        Bound {
            strays: strays(&owners),
            owners,
            scrub: Scrub::new(values).map(Arc::new),
            conversation,
            credentials,
        }
    }
}

fn strays(owners: &[Owner]) -> Option<Arc<Strays>> {
    let placeholders: Vec<&str> = owners
        .iter()
        .map(|owner| owner.placeholder.as_str())
        .collect();
    Strays::new(&placeholders).map(Arc::new)
}
