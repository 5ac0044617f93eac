//! What a sandbox is given of what is stored: placeholders and variables inside, values for its gateway.

mod endpoints;
pub(crate) mod handing_in;
mod issuing;
mod registries;

use crate::agents;
use crate::daemon::Daemon;
use crate::record::{GivenCustom, Record};
use crate::sandbox::Sandbox;
use crate::services::{self, Binding, Scheme, Service, TABLE, bindings};
use crate::sign_ins;
use sbx_agents::Tokens;
use sbx_secrets::{Custom, Held, Kind, Registry, Scope, Secret, Vault};
use sbx_wire::gateway::{Aws, Credential, Issuer, Replace, Withdrawn};
use sbx_wire::report::Report;
use sbx_wire::secret::SecretText;
use std::collections::{BTreeMap, BTreeSet};

/// Placeholders of custom secrets that are remembered for a sandbox.
const MAX_CUSTOM: usize = 256;

/// What is in force for one sandbox.
struct InForce<'a> {
    services: BTreeMap<&'static str, (&'static Service, &'a Secret)>,
    custom: Vec<(&'a Custom, &'a Secret)>,
    issued: Vec<issuing::Issued<'a>>,
    registries: Vec<(&'a Registry, &'a Secret)>,
}

impl<'a> InForce<'a> {
    fn of(vault: &'a Vault, sandbox: &str) -> Self {
        let mut found = Self {
            services: BTreeMap::new(),
            custom: Vec::new(),
            issued: sign_ins::in_force(vault, sandbox).collect(),
            registries: Vec::new(),
        };
        for secret in vault.in_force(sandbox) {
            match &secret.kind {
                Kind::Custom(custom) => found.custom.push((custom, secret)),
                Kind::Service | Kind::Aws(_) => {
                    if let Some(service) = Service::find(&secret.key.name) {
                        found.services.insert(service.name, (service, secret));
                    }
                }
                Kind::Registry(registry) => found.registries.push((registry, secret)),
                Kind::SignIn(_) => {}
            }
        }
        found
    }

    /// Services of which somebody signed in, and no key is stored.
    fn signed_in(&self) -> BTreeSet<&str> {
        let services = self.issued.iter();
        let services = services.map(|(_, sign_in, _)| sign_in.service.as_str());
        services
            .filter(|name| !self.services.contains_key(name))
            .collect()
    }

    fn bindings(&self) -> Vec<Binding> {
        let stored: Vec<&'static Service> = self.services.values().map(|(one, _)| *one).collect();
        bindings(&stored)
    }
}

/// Names of what is injected for the sandbox.
pub(crate) fn names(vault: &Vault, sandbox: &str) -> Vec<String> {
    let found = InForce::of(vault, sandbox);
    let services = found.services.keys().copied().chain(found.signed_in());
    let services = services.map(str::to_owned);
    let custom = found.custom.iter().map(|(_, secret)| secret);
    let registries = found.registries.iter().map(|(_, secret)| secret);
    let others = custom.chain(registries);
    services
        .chain(others.map(|secret| secret.key.name.clone()))
        .collect()
}

/// What stands for the tokens of a sign-in at the service, where no key of it is stored.
pub(crate) fn tokens(vault: &Vault, sandbox: &str, service: &str) -> Option<Tokens> {
    let found = InForce::of(vault, sandbox);
    if found.services.contains_key(service) {
        return None;
    }
    found
        .issued
        .iter()
        .find_map(|one| issuing::tokens(one, service))
}

/// Hosts that the sandbox's gateway lets nothing through to before it has their credentials, and whose connections it
/// opens.
pub(crate) fn hosts(vault: &Vault, record: &Record) -> Vec<String> {
    let found = InForce::of(vault, record.name.as_str());
    // What was signed with a placeholder looks like any other request; it is refused also when there is no key any more.
    let signed = TABLE.iter().filter(|service| {
        service.signs()
            && record.placeholders.contains_key(service.name)
            && !found.services.contains_key(service.name)
    });
    let signed: Vec<&Service> = signed.collect();
    let mut hosts: Vec<String> = found
        .bindings()
        .into_iter()
        .chain(bindings(&signed))
        .flat_map(|binding| binding.hosts)
        .map(str::to_owned)
        .chain(
            found
                .custom
                .iter()
                .flat_map(|(custom, _)| custom.hosts.clone()),
        )
        .chain(endpoints::hosts(&found))
        .chain(issuing::hosts(&found))
        .chain(registries::hosts(&found))
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// Gives the sandbox a placeholder for everything that is in force for it and that it has none for; whether there was
/// anything. `new`: it is being made, so that it also gets the variables of custom secrets.
pub(crate) fn give(daemon: &Daemon, record: &mut Record, new: bool) -> Result<bool, Report> {
    let vault = daemon.secrets();
    let found = InForce::of(&vault, record.name.as_str());
    let of_agent = agents::service(record.agent).and_then(Service::find);
    let stored = found.services.values().map(|(service, _)| *service);
    let mut given = issuing::give(&found, record)
        | registries::give(&found, record)?
        | handing_in::give(&found, record)?;
    for service in stored.chain(of_agent) {
        if !record.placeholders.contains_key(service.name) {
            let placeholder = services::placeholder(service)?;
            record
                .placeholders
                .insert(service.name.to_owned(), placeholder);
            given = true;
        }
    }
    for (custom, secret) in found.custom {
        let mut known = record.custom.iter();
        if !known.any(|known| known.placeholder == custom.placeholder) {
            record.custom.push(GivenCustom {
                name: secret.key.name.clone(),
                placeholder: custom.placeholder.clone(),
                env: custom.env.clone().filter(|_| new),
            });
            given = true;
        }
    }
    // The oldest are of secrets that were removed long ago: what they stood for is not stored any more.
    let beyond = record.custom.len().saturating_sub(MAX_CUSTOM);
    record.custom.drain(..beyond);
    Ok(given)
}

/// Variables for what is stored: the placeholder where there is something, and in every case which mode a service is in.
pub(crate) fn variables(daemon: &Daemon, record: &Record) -> Vec<(String, String)> {
    let vault = daemon.secrets();
    let found = InForce::of(&vault, record.name.as_str());
    let signed_in = found.signed_in();
    let handed_in = handing_in::variables(&found, record);
    let mut variables = Vec::new();
    for service in TABLE {
        let stored = found.services.contains_key(service.name);
        let placeholder = record.placeholders.get(service.name).filter(|_| stored);
        let handed_in = handed_in.as_ref().filter(|_| service.signs());
        let placeholder = placeholder.filter(|_| handed_in.is_none());
        let mode = if handed_in.is_some() {
            "short-lived"
        } else if placeholder.is_some() {
            "apikey"
        } else if signed_in.contains(service.name) {
            "oauth"
        } else {
            "none"
        };
        let upper = service.name.to_ascii_uppercase().replace('-', "_");
        variables.push((format!("SBX_CRED_{upper}_MODE"), mode.to_owned()));
        variables.extend(handed_in.into_iter().flatten().cloned());
        for (name, text) in placeholder
            .into_iter()
            .flat_map(|text| service.guest_variables(text))
        {
            variables.push((name.to_owned(), text.to_owned()));
        }
    }
    for (custom, _) in found.custom {
        let mut known = record.custom.iter();
        let given = known.find(|known| known.placeholder == custom.placeholder);
        if let Some(name) = given.and_then(|given| given.env.clone()) {
            // What somebody chose by name stands above what is usual.
            variables.retain(|(other, _)| *other != name);
            variables.push((name, custom.placeholder.clone()));
        }
    }
    variables
}

/// What a gateway is given.
pub(crate) struct ForGateway {
    /// What it writes into requests.
    pub(crate) credentials: Vec<Credential>,
    /// What it is to stop.
    pub(crate) withdrawn: Vec<Withdrawn>,
    /// Whose answers it hands over, or whom it does not ask.
    pub(crate) issuers: Vec<Issuer>,
}

/// What the sandbox's gateway is given.
pub(crate) fn for_gateway(daemon: &Daemon, sandbox: &Sandbox) -> ForGateway {
    let record = sandbox.record();
    let vault = daemon.secrets();
    let found = InForce::of(&vault, &sandbox.name);
    let mut credentials = Vec::new();
    for binding in found.bindings() {
        let name = binding.service.name;
        let placeholder = record.placeholders.get(name);
        if let (Some(placeholder), Some((_, secret))) = (placeholder, found.services.get(name)) {
            let hosts = binding.hosts.iter().map(|host| (*host).to_owned());
            let held = held(daemon, secret);
            let base = base(name, hosts.collect(), placeholder, held);
            credentials.extend(written(&binding, base));
        }
    }
    credentials.extend(endpoints::credentials(&found, &credentials));
    handing_in::add(&found, &record, &mut credentials);
    let issued = found.issued.iter();
    let issued: Vec<Credential> = issued
        .flat_map(|one| issuing::credentials(one, &credentials))
        .collect();
    credentials.extend(issued);
    for (custom, secret) in &found.custom {
        let hosts = custom.hosts.clone();
        let held = held(daemon, secret);
        let base = base(&secret.key.name, hosts, &custom.placeholder, held);
        credentials.push(Credential {
            replace: Some(Replace {
                body: custom.in_body,
                login: false,
            }),
            ..base
        });
    }
    credentials.extend(registries::credentials(daemon, &found, &record));
    let of_services = record.placeholders.iter().flat_map(|(name, placeholder)| {
        let service = TABLE.iter().find(|service| service.name == name);
        let parts = match service {
            Some(service) => service.placeholder_parts(placeholder),
            None => vec![placeholder.as_str()],
        };
        parts.into_iter().map(move |part| (name, part))
    });
    let of_custom = record.custom.iter();
    let of_custom = of_custom.map(|custom| (&custom.name, custom.placeholder.as_str()));
    let mut withdrawn: Vec<Withdrawn> = of_services
        .chain(of_custom)
        .filter(|(_, placeholder)| !credentials.iter().any(|one| is_of(one, placeholder)))
        .map(|(service, placeholder)| Withdrawn {
            service: service.clone(),
            placeholder: placeholder.to_owned(),
        })
        .collect();
    withdrawn.extend(issuing::withdrawn(&found, &record));
    withdrawn.extend(handing_in::withdrawn(&found, &record));
    ForGateway {
        issuers: issuing::issuers(&found, &record),
        credentials,
        withdrawn,
    }
}

fn is_of(credential: &Credential, placeholder: &str) -> bool {
    let of_aws = credential.aws.as_ref().is_some_and(|aws| {
        let mut tokens = aws.handed_in.iter();
        aws.placeholder_id == placeholder || tokens.any(|one| one.token == placeholder)
    });
    credential.placeholder == placeholder || of_aws
}

/// What there is of a secret's value now, as a gateway takes it.
pub(crate) fn held(daemon: &Daemon, secret: &Secret) -> Held {
    match daemon.values.held(secret) {
        Held::Value(value) => match services::usable(&secret.key.name, &value) {
            Ok(value) => Held::Value(value),
            Err(problem) => Held::Unavailable(format!("its value {problem}")),
        },
        other => other,
    }
}

fn nothing() -> SecretText {
    SecretText::new(String::new())
}

/// Whether sandboxes are given anything for it.
pub(crate) fn is_given(secret: &Secret) -> bool {
    match secret.kind {
        Kind::Custom(_) | Kind::SignIn(_) => true,
        Kind::Registry(_) => secret.key.scope != Scope::Host,
        Kind::Service | Kind::Aws(_) => Service::find(&secret.key.name).is_some(),
    }
}

/// A credential with its value, and without a form.
fn base(name: &str, hosts: Vec<String>, placeholder: &str, held: Held) -> Credential {
    let (value, unavailable, on_demand) = match held {
        Held::Value(value) => (value, None, false),
        Held::OnDemand => (nothing(), None, true),
        Held::Unavailable(why) => (nothing(), Some(why), false),
    };
    Credential {
        service: name.to_owned(),
        hosts,
        header: String::new(),
        format: String::new(),
        placeholder: placeholder.to_owned(),
        value,
        basic_user: None,
        replace: None,
        unavailable,
        on_demand,
        conversation: false,
        aws: None,
        registry: None,
    }
}

/// A credential in the form of a service; `None`: its placeholder is of another form, because a hand changed it.
fn written(binding: &Binding, base: Credential) -> Option<Credential> {
    let conversation = binding.form.conversation;
    match binding.form.scheme {
        Scheme::Header { name, format } => Some(Credential {
            header: name.to_owned(),
            format: format.to_owned(),
            conversation,
            ..base
        }),
        Scheme::Basic { user } => Some(Credential {
            header: "authorization".to_owned(),
            format: "Basic %s".to_owned(),
            basic_user: Some(user.to_owned()),
            conversation,
            ..base
        }),
        Scheme::Sigv4 => {
            let parts = binding.service.placeholder_parts(&base.placeholder);
            let [id, secret] = parts[..] else {
                return None;
            };
            let (placeholder_id, placeholder) = (id.to_owned(), secret.to_owned());
            Some(Credential {
                placeholder,
                aws: Some(Aws {
                    placeholder_id,
                    handed_in: None,
                    scope: None,
                }),
                conversation,
                ..base
            })
        }
    }
}
