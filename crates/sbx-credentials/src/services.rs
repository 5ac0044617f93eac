//! The services whose credentials the gateway can write into requests: what their clients read, where they send it and
//! how, and what their keys look like. Data; [`TABLE`] has a row for each.

mod issuing;
mod table;

use crate::shape::{self, Shape};
pub use table::TABLE;

/// A service.
#[derive(Debug)]
pub struct Service {
    /// Its name on the command line, e.g. `anthropic`.
    pub name: &'static str,
    /// What its credential consists of, usually one key. The value is that of all parts with [`SEPARATOR`] between.
    pub parts: &'static [Part],
    /// Where requests go and how the credential stands in them.
    pub forms: &'static [Form],
    /// Calls that are answered with credentials.
    pub issuing: &'static [Endpoint],
    /// How somebody agrees in the host's browser.
    pub consent: Option<&'static Consent>,
}

/// Between the parts of a credential; no part that has company holds one.
pub const SEPARATOR: char = ':';

/// A part of a credential.
#[derive(Debug)]
pub struct Part {
    /// Variables of the host that hold it, in the order in which they count; also other names for the service.
    pub import: &'static [&'static str],
    /// Variables that hold its placeholder in a sandbox.
    pub guest: &'static [&'static str],
    /// What it looks like.
    pub shape: Shape,
    /// Whether it may be missing. Only the last ones may.
    pub optional: bool,
}

/// How the credential stands in requests to some hosts.
#[derive(Debug)]
pub struct Form {
    /// Hosts, as names (port 443) or patterns of the network rules.
    pub hosts: &'static [&'static str],
    /// How it is written.
    pub scheme: Scheme,
    /// Whether requests quote what the agent has seen, as a conversation with a model does.
    pub conversation: bool,
    /// Whether the hosts are left to another service that is stored and bound to them.
    pub yields: bool,
}

/// How a credential is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Into a header; `%s` in the format stands for it.
    Header {
        /// Its name, lower case.
        name: &'static str,
        /// Its value.
        format: &'static str,
    },
    /// As the password of a `Basic` login (RFC 7617).
    Basic {
        /// The user's name in it.
        user: &'static str,
    },
    /// By a signature (AWS Signature Version 4) made with it.
    Sigv4,
}

/// A call that is answered with a credential: kept on the host, or refused.
#[derive(Debug)]
pub struct Endpoint {
    /// Host, as in [`Form::hosts`].
    pub host: &'static str,
    /// Methods, as in the network rules.
    pub methods: &'static str,
    /// Path, as in the network rules.
    pub path: &'static str,
    /// How its answer is kept; `None`: the call is refused, where a credential of the service is written.
    pub kept: Option<&'static Kept>,
}

impl Endpoint {
    /// The host by which what it issues is known: of the endpoint that refreshes it, which may be the same under another
    /// name, else its own. What a service issues under one is kept in one way.
    pub fn home(&self) -> &'static str {
        let refreshed = self.kept.and_then(|kept| kept.refreshed.as_ref());
        refreshed.map_or(self.host, |refreshed| refreshed.host)
    }
}

/// What becomes of an answer that is kept.
#[derive(Debug)]
pub struct Kept {
    /// The call needs no credential of the service: it holds in every sandbox.
    pub sign_in: bool,
    /// Hosts where what it issues is good.
    pub resources: &'static [&'static str],
    /// Whether requests to those quote what the agent has seen, as in [`Form::conversation`].
    pub conversation: bool,
    /// Names of the token in the answer, the first that is there.
    pub token: &'static [&'static str],
    /// How it is refreshed, if it can be.
    pub refreshed: Option<Refreshed>,
}

/// How tokens are refreshed (RFC 6749, section 6).
#[derive(Debug)]
pub struct Refreshed {
    /// Host of the token endpoint.
    pub host: &'static str,
    /// Its path.
    pub path: &'static str,
    /// Id of the client that is usual, where the sign-in named none.
    pub client: Option<&'static str>,
    /// Whether it is asked in JSON, and not in a form.
    pub json: bool,
}

/// How somebody agrees in a browser (RFC 6749, section 4.1; RFC 7636; RFC 8252, section 7.3).
#[derive(Debug)]
pub struct Consent {
    /// The page, without a query.
    pub page: &'static str,
    /// Endpoint that exchanges the code: its host and path.
    pub token: (&'static str, &'static str),
    /// The client.
    pub client: &'static str,
    /// What is asked for.
    pub scope: &'static str,
    /// More that the page is asked.
    pub more: &'static [(&'static str, &'static str)],
    /// Ports on loopback that the client may be called back on, the first that is free.
    pub ports: &'static [u16],
    /// Path of the call.
    pub callback: &'static str,
}

impl Service {
    /// The service of this name, or with this variable.
    pub fn find(name: &str) -> Option<&'static Self> {
        let by_name = TABLE.iter().find(|service| service.name == name);
        by_name.or_else(|| TABLE.iter().find(|service| service.reads(name)))
    }

    /// Whether requests are signed with its credential.
    pub fn signs(&self) -> bool {
        let mut forms = self.forms.iter();
        forms.any(|form| form.scheme == Scheme::Sigv4)
    }

    /// Whether its credential is taken from that variable of the host.
    pub fn reads(&self, variable: &str) -> bool {
        self.parts
            .iter()
            .any(|part| part.import.contains(&variable))
    }

    /// A new placeholder: random, of the shape that clients accept. `fill` gives random bytes.
    ///
    /// # Errors
    /// That of `fill`.
    pub fn placeholder<E>(
        &self,
        mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<String, E> {
        let mut parts = Vec::new();
        for part in self.parts.iter().filter(|part| !part.optional) {
            parts.push(shape::render(part.shape, &mut fill)?);
        }
        Ok(parts.join(&SEPARATOR.to_string()))
    }

    /// The parts of a placeholder of its, in the order of [`Self::parts`]: each may be seen alone.
    pub fn placeholder_parts<'a>(&self, placeholder: &'a str) -> Vec<&'a str> {
        if self.parts.len() == 1 {
            vec![placeholder]
        } else {
            placeholder.split(SEPARATOR).collect()
        }
    }

    /// The variables of a sandbox and what they hold, from the service's placeholder there.
    pub fn guest_variables<'a>(
        &'static self,
        placeholder: &'a str,
    ) -> impl Iterator<Item = (&'static str, &'a str)> {
        self.parts
            .iter()
            .zip(self.placeholder_parts(placeholder))
            .flat_map(|(part, text)| part.guest.iter().map(move |name| (*name, text)))
    }

    /// The value that the host's variables give, as `variable` reads them; `None` if a part is missing.
    pub fn from_variables(&self, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
        let mut values = Vec::new();
        for part in self.parts {
            let value = part.import.iter().find_map(|name| variable(name));
            match value.filter(|value| !value.is_empty()) {
                Some(value) => values.push(value),
                None if part.optional => break,
                None => return None,
            }
        }
        Some(values.join(&SEPARATOR.to_string()))
    }
}

/// A form of a service, with the hosts that it is in force for.
#[derive(Debug)]
pub struct Binding {
    /// The service.
    pub service: &'static Service,
    /// The form.
    pub form: &'static Form,
    /// Its hosts, without those that are left to another service.
    pub hosts: Vec<&'static str>,
}

/// How the credentials of these services are bound, when they are all there are. What is bound to no host any more is left
/// out.
pub fn bindings(stored: &[&'static Service]) -> Vec<Binding> {
    let firm = |service: &Service, host: &str| {
        let others = stored.iter().filter(|other| other.name != service.name);
        let mut forms = others.flat_map(|other| other.forms);
        forms.any(|form| !form.yields && form.hosts.contains(&host))
    };
    let mut bindings = Vec::new();
    for service in stored {
        for form in service.forms {
            let hosts: Vec<&str> = form
                .hosts
                .iter()
                .copied()
                .filter(|host| !form.yields || !firm(service, host))
                .collect();
            if !hosts.is_empty() {
                bindings.push(Binding {
                    service,
                    form,
                    hosts,
                });
            }
        }
    }
    bindings
}
