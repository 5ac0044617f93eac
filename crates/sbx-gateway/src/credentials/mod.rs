//! What the gateway knows of secrets: which hosts each is bound to, how it is written, and what must not leave or come
//! back there. Made once for a generation; a [`Bound`] says all of it about one target.

mod aws;
mod bind;
mod bound;
pub mod given;
mod hosts;
pub mod issuers;
mod places;
pub mod registries;
mod sought;
mod supplied;
pub mod values;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::{AUTHORIZATION, HeaderName};
use sbx_credentials::stray::Strays;
use sbx_policy::{HttpRequest, Target};
use sbx_wire::gateway::{Credential, HandedIn, Issuer, Withdrawn};

use crate::generation::ConfigError;
use crate::limits;

pub use self::aws::AwsForm;
pub use self::bound::{Bound, Owner};
use self::given::Given;
pub use self::hosts::Hosts;
use self::issuers::BoundIssuer;
use self::registries::RegistryForm;
pub use self::sought::Sought;
pub use self::supplied::{Material, Part, Supplied, Supply};

/// A credential as the connector writes it.
#[derive(Debug)]
pub struct BoundCredential {
    /// Service name.
    pub service: String,
    /// What the guest holds instead.
    pub placeholder: String,
    /// What it is bound to.
    pub hosts: Hosts,
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
        let form = self.aws();
        let id = form.map(|form| form.placeholder.access_key_id.as_str());
        let token = form.and_then(AwsForm::token);
        let own = std::iter::once(self.placeholder.as_str());
        own.chain(id).chain(token)
    }

    /// Whether its placeholder may go to a target that it is bound to. Those of a registry's tokens do not go where
    /// tokens are issued.
    fn stays_at(&self, target: &Target) -> bool {
        match &self.form {
            Form::Registry(form) => form.target == *target,
            Form::Header { .. } | Form::Replace { .. } | Form::Login | Form::Aws(_) => true,
        }
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
    /// Into the place of its placeholder, where that is a whole login and nowhere else.
    Login,
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
            Self::Replace { .. } | Self::Login | Self::Aws(_) => None,
        }
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
    /// What was written so far.
    pub given: Option<&'a Arc<Given>>,
}

/// Everything that was configured.
#[derive(Debug, Default)]
pub struct Credentials {
    all: Vec<Arc<BoundCredential>>,
    owners: Vec<Owner>,
    unbound: Arc<Bound>,
    /// For targets to which nothing is bound any more.
    formerly: Arc<Bound>,
    given: Arc<Given>,
    issuers: Vec<Arc<BoundIssuer>>,
    made: Mutex<Made>,
}

/// What was made so far.
#[derive(Debug, Default)]
struct Made {
    /// By target, as they come up.
    by_target: HashMap<Target, Arc<Bound>>,
    /// By what is bound there: to look for placeholders is prepared once for all names of a pattern.
    by_bindings: HashMap<Vec<Binding>, Arc<Bound>>,
}

/// A credential that is bound to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Binding {
    /// Its place among all.
    number: usize,
    /// Whether its placeholder may go there.
    stays: bool,
}

impl Credentials {
    /// From the configuration.
    pub fn new(config: &Configured<'_>) -> Result<Self, ConfigError> {
        let Configured {
            credentials,
            withdrawn,
            issuers,
            given,
        } = *config;
        let given = given.cloned().unwrap_or_default();
        let mut all = Vec::with_capacity(credentials.len());
        let mut owners: Vec<Owner> = Vec::new();
        for credential in credentials {
            let bound = Arc::new(bind::bind(credential)?);
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
            all.push(bound);
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
        let (unbound, formerly) = nothing_bound(&owners, &given);
        Ok(Self {
            all,
            owners,
            unbound,
            formerly,
            given,
            issuers: bound_issuers,
            made: Mutex::default(),
        })
    }

    /// Whether requests to the target have to be looked at: a credential is bound to it or was, or it issues some.
    pub fn covers(&self, target: &Target) -> bool {
        self.binds(target) || self.has_issuer(target) || self.given.was_bound(target)
    }

    fn binds(&self, target: &Target) -> bool {
        self.all.iter().any(|one| one.hosts.contains(target))
    }

    /// Whether a credential that was bound to the target is bound to it now, with whatever value.
    pub fn still_binds(&self, target: &Target, one: &BoundCredential) -> bool {
        self.all.iter().any(|own| {
            let rest = one.placeholder.strip_prefix(&own.placeholder);
            // A token's has more behind that of the login that it was issued for.
            let of_login = matches!(own.form, Form::Registry(_));
            own.service == one.service
                && rest.is_some_and(|rest| rest.is_empty() || of_login && rest.starts_with('-'))
                && own.hosts.contains(target)
        })
    }

    /// What was written so far, of all generations.
    pub fn given(&self) -> &Arc<Given> {
        &self.given
    }

    /// They are in force from now on.
    pub fn settle(&self) {
        self.given.settle(&self.all);
    }

    /// How keys of AWS are handed in, if they are.
    pub fn handed_in(&self) -> Option<&HandedIn> {
        let mut forms = self.all.iter().filter_map(|credential| credential.aws());
        forms.find_map(|form| form.handed_in.as_ref())
    }

    /// Whether the target issues credentials to some requests.
    pub fn has_issuer(&self, target: &Target) -> bool {
        self.issuers.iter().any(|issuer| issuer.is_at(target))
    }

    /// Whether the target issues them to requests with some methods only.
    pub fn issues_by_method(&self, target: &Target) -> bool {
        let mut issuers = self.issuers.iter();
        issuers.any(|issuer| issuer.is_at(target) && issuer.minds_methods())
    }

    /// The issuer that the request asks.
    pub fn issuer(&self, target: &Target, request: &HttpRequest) -> Option<&Arc<BoundIssuer>> {
        let mut issuers = self.issuers.iter();
        issuers.find(|issuer| issuer.is_at(target) && issuer.is_asked(request))
    }

    /// What concerns requests to the target.
    pub fn of(&self, target: &Target) -> Arc<Bound> {
        if !self.binds(target) {
            let was_bound = self.given.was_bound(target);
            let bound = if was_bound {
                &self.formerly
            } else {
                &self.unbound
            };
            return bound.clone();
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bound) = made.by_target.get(target) {
            return bound.clone();
        }
        // A pattern takes in as many names as a guest can think of.
        if made.by_target.len() >= limits::BOUND_TARGETS {
            *made = Made::default();
        }
        let bindings = self.bindings(target);
        let make = || Arc::new(self.make(&bindings));
        let known = made.by_bindings.entry(bindings.clone());
        let bound = known.or_insert_with(make).clone();
        made.by_target.insert(target.clone(), bound.clone());
        bound
    }

    /// What is bound to a target: all that [`Bound`] depends on.
    fn bindings(&self, target: &Target) -> Vec<Binding> {
        let all = self.all.iter().enumerate();
        let here = all.filter(|(_, credential)| credential.hosts.contains(target));
        let binding = |(number, credential): (usize, &Arc<BoundCredential>)| Binding {
            number,
            stays: credential.stays_at(target),
        };
        here.map(binding).collect()
    }

    fn make(&self, bindings: &[Binding]) -> Bound {
        let credential = |binding: &Binding| (self.all[binding.number].clone(), binding.stays);
        let mut bound: Vec<_> = bindings.iter().map(credential).collect();
        let conversation = bound.iter().any(|(credential, _)| credential.conversation);
        // A request has one signature, whichever of its patterns the key is bound by.
        let mut signs = false;
        bound.retain(|(credential, _)| {
            !matches!(credential.form, Form::Aws(_)) || !std::mem::replace(&mut signs, true)
        });
        let belongs = |owner: &&Owner| {
            let mut staying = bound.iter().filter(|(_, stays)| *stays);
            staying.any(|(credential, _)| {
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
        let credentials: Vec<_> = bound
            .iter()
            .map(|(credential, _)| credential.clone())
            .collect();
        Bound {
            strays: strays(&owners),
            owners,
            sought: Some(Sought::new(&self.given, &credentials)),
            conversation,
            credentials,
        }
    }
}

/// For targets to which nothing is bound: to which nothing ever was, and to which something was.
fn nothing_bound(owners: &[Owner], given: &Arc<Given>) -> (Arc<Bound>, Arc<Bound>) {
    let strays = strays(owners);
    let bound = |sought| Bound {
        strays: strays.clone(),
        owners: owners.to_vec(),
        sought,
        ..Bound::default()
    };
    let formerly = bound(Some(Sought::new(given, &[])));
    (Arc::new(bound(None)), Arc::new(formerly))
}

fn strays(owners: &[Owner]) -> Option<Arc<Strays>> {
    let placeholders: Vec<&str> = owners
        .iter()
        .map(|owner| owner.placeholder.as_str())
        .collect();
    Strays::new(&placeholders).map(Arc::new)
}
