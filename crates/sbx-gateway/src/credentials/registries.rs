//! Logins of registries of images: which requests get one, and the tokens that are issued for it.
//!
//! Tokens are good for minutes and a client that is refused one asks for another, so they live here and nowhere else: as
//! long as they are good, a bounded number of them, none after the process. The client holds placeholders, which begin
//! with that of the login: so they are found wherever they are sent, also when nobody knows any more what they stood for.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use sbx_credentials::oauth::{Good, Issued};
use sbx_credentials::registry::{bearer_realm, is_interface};
use sbx_credentials::shape::{self, Alphabet};
use sbx_credentials::stray::Strays;
use sbx_policy::Target;
use sbx_wire::browser::Address;
use sbx_wire::secret::SecretText;
use tokio::time::Instant;

use super::bind::header;
use super::{BoundCredential, Form, Material, Part, Supplied, Supply};
use crate::limits;

/// Random characters of a token's placeholder.
const RANDOM: usize = 32;

/// Where tokens are issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its host and port.
    pub target: Target,
    path: String,
}

impl Endpoint {
    /// `None`: it is not `https`, or has a query or a fragment.
    pub fn of(address: &Address) -> Option<Self> {
        let text = address.as_str();
        let plain = text.starts_with("https://") && !text.contains(['?', '#']);
        plain.then(|| Self {
            target: address.target().clone(),
            path: address.path().to_owned(),
        })
    }

    fn is_at(&self, target: &Target, path: &str) -> bool {
        self.target == *target && self.path == path
    }
}

/// The login of a registry.
#[derive(Debug)]
pub struct RegistryForm {
    /// The registry.
    pub target: Target,
    /// Its user.
    pub user: String,
    /// Where its tokens are issued; `None`: where it says itself, if that is on its own host and port.
    pub endpoint: Option<Endpoint>,
}

/// What a request has to do with a login.
#[derive(Debug, PartialEq, Eq)]
pub enum Use {
    /// Nothing.
    Nothing,
    /// It is made with the login.
    Login,
    /// It asks for a token, with the login.
    Issue,
    /// It carries the placeholder of a token.
    Token(String),
}

impl BoundCredential {
    /// What a request over TLS has to do with the login. A login of the guest's own stays what it is.
    pub fn registry_use(
        &self,
        form: &RegistryForm,
        target: &Target,
        parts: &Parts,
        registries: &Registries,
    ) -> Use {
        let path = parts.uri.path();
        let mut logins = parts.headers.get_all(AUTHORIZATION).iter().peekable();
        if logins.peek().is_some() {
            let mut ours = logins.filter(|login| self.is_in(login.as_bytes()));
            return match ours.next() {
                Some(login) if *target == form.target => Use::Token(bearer(login)),
                _ => Use::Nothing,
            };
        }
        let issues = match &form.endpoint {
            Some(endpoint) => endpoint.is_at(target, path),
            None => *target == form.target && registries.issues(target, path),
        };
        if issues {
            // The other method is for clients that have a login or a token themselves.
            return match parts.method {
                Method::GET => Use::Issue,
                _ => Use::Nothing,
            };
        }
        let takes_logins = form.endpoint.is_none() && *target == form.target;
        if takes_logins && is_interface(path) {
            Use::Login
        } else {
            Use::Nothing
        }
    }
}

/// The token of a header; nothing, if it is there in another way.
fn bearer(login: &HeaderValue) -> String {
    let token = login.to_str().ok().and_then(|text| text.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    token.map_or_else(String::new, |(_, token)| token.trim().to_owned())
}

impl Supplied {
    /// In the place of a token that is not known any more: its placeholder is taken out, and the registry says where
    /// there are others.
    #[must_use]
    pub fn without_value(&self) -> Self {
        let nothing = Material {
            header: None,
            text: SecretText::new(String::new()),
            keys: None,
        };
        Self {
            credential: self.credential.clone(),
            material: Arc::new(nothing),
            part: Part::Value,
        }
    }
}

/// Why a token is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// It cannot stand in a header.
    #[error("what it issued cannot be sent")]
    Unfit,
    /// There is no placeholder for it.
    #[error("the system gave no randomness")]
    Randomness,
}

/// What is known of registries. See the module.
#[derive(Debug, Default)]
pub struct Registries(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The path of each on its own host.
    endpoints: HashMap<Target, String>,
    /// The oldest first.
    tokens: VecDeque<Token>,
}

#[derive(Debug)]
struct Token {
    until: Instant,
    /// What it was issued for, as it was written.
    login: Option<HeaderValue>,
    supplied: Supplied,
}

impl Registries {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes where a registry says that its tokens are issued. Another host counts only where somebody has named it.
    pub fn learn(&self, registry: &Target, headers: &HeaderMap) {
        let challenges = headers.get_all(WWW_AUTHENTICATE).iter();
        let mut realms = challenges.filter_map(|value| bearer_realm(value.to_str().ok()?));
        let Some(realm) = realms.next() else { return };
        let address = realm.split(['?', '#']).next().unwrap_or_default().parse();
        let endpoint = address.ok().and_then(|address| Endpoint::of(&address));
        let own = endpoint.filter(|one| one.target == *registry && !is_interface(&one.path));
        let Some(endpoint) = own else {
            tracing::info!(%registry, "its tokens are issued elsewhere, and nobody has named that endpoint");
            return;
        };
        let mut state = self.lock();
        if state.endpoints.len() >= limits::REGISTRIES && !state.endpoints.contains_key(registry) {
            state.endpoints.clear();
        }
        state.endpoints.insert(registry.clone(), endpoint.path);
    }

    fn issues(&self, registry: &Target, path: &str) -> bool {
        let state = self.lock();
        let endpoint = state.endpoints.get(registry);
        endpoint.is_some_and(|known| known == path)
    }

    /// Keeps a token that was issued for a login. Returns its placeholder.
    ///
    /// # Errors
    /// It cannot be used, or there is no placeholder.
    pub fn keep(&self, login: &Supplied, issued: &Issued) -> Result<String, NotKept> {
        let own = shape::random(Alphabet::Base62, RANDOM, crate::random);
        let own = own.map_err(|_| NotKept::Randomness)?;
        let placeholder = format!("{}-{own}", login.credential.placeholder);
        let text = SecretText::new(issued.access.clone());
        let header = header(("Bearer ", ""), None, &text).map_err(|_| NotKept::Unfit)?;
        let supplied = Supplied {
            credential: Arc::new(BoundCredential {
                service: login.credential.service.clone(),
                finder: Strays::new(&[&placeholder]),
                placeholder: placeholder.clone(),
                hosts: login.credential.hosts.clone(),
                form: Form::Header {
                    name: AUTHORIZATION,
                    around: ("Bearer ".to_owned(), String::new()),
                    basic_user: None,
                },
                // It comes from here alone.
                supply: Supply::OnDemand,
                conversation: false,
            }),
            material: Arc::new(Material {
                header: Some(header),
                text,
                keys: None,
            }),
            part: Part::Token,
        };
        let good = match issued.good {
            Good::For(seconds) => Duration::from_secs(seconds),
            Good::Unsaid | Good::Until(_) => limits::REGISTRY_TOKEN,
        };
        let good = good.clamp(limits::REGISTRY_TOKEN, limits::REGISTRY_TOKEN_LONGEST);
        let now = Instant::now();
        let mut state = self.lock();
        state.tokens.retain(|token| now < token.until);
        if state.tokens.len() >= limits::REGISTRY_TOKENS {
            state.tokens.pop_front();
        }
        state.tokens.push_back(Token {
            until: now + good + limits::REGISTRY_TOKEN_GRACE,
            login: login.material.header.clone(),
            supplied,
        });
        Ok(placeholder)
    }

    /// The token that a placeholder stands for, if it was issued for this login as it is now.
    pub fn token(&self, placeholder: &str, login: &Supplied) -> Option<Supplied> {
        let now = Instant::now();
        let mut state = self.lock();
        state.tokens.retain(|token| now < token.until);
        let mut tokens = state.tokens.iter();
        let token = tokens.find(|token| token.supplied.credential.placeholder == placeholder)?;
        (token.login == login.material.header).then(|| token.supplied.clone())
    }
}

#[cfg(test)]
#[path = "registries_tests.rs"]
mod tests;
