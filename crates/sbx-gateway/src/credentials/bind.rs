//! From the configuration's credential to one that can be written.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{HeaderName, HeaderValue};
use sbx_credentials::sigv4::{self, Keys, Placeholder};
use sbx_credentials::stray::Strays;
use sbx_policy::{Port, Target};
use sbx_wire::gateway::{Aws, Credential, Registry, Replace};
use sbx_wire::secret::SecretText;

use super::registries::{Endpoint, RegistryForm};
use super::{AwsForm, BoundCredential, Form, Hosts, Material, Supply};
use crate::generation::ConfigError;

/// Headers that say how a message is framed or where it goes; a credential is none of them.
const NEVER_CREDENTIAL: [&str; 8] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
];

/// Shortest placeholder: a shorter one would be found by accident.
const SHORTEST_PLACEHOLDER: usize = 8;

/// Checks everything that could keep it from being written.
pub(super) fn bind(credential: &Credential) -> Result<BoundCredential, ConfigError> {
    let bad = |text| ConfigError::Credential {
        service: credential.service.clone(),
        text,
    };
    if credential.hosts.is_empty() {
        return Err(bad("it is bound to no host"));
    }
    check_placeholder(&credential.service, &credential.placeholder)?;
    let form = form(credential).map_err(bad)?;
    let mut hosts = Hosts::parse("credential host", &credential.hosts)?;
    if let Form::Registry(form) = &form
        && let Some(endpoint) = &form.endpoint
    {
        hosts.add(endpoint.target.clone());
    }
    let mut bound = BoundCredential {
        service: credential.service.clone(),
        placeholder: credential.placeholder.clone(),
        hosts,
        form,
        supply: Supply::OnDemand,
        finder: Strays::new(&[&credential.placeholder]),
        conversation: credential.conversation,
    };
    bound.supply = match &credential.unavailable {
        Some(why) => Supply::Unavailable(why.clone()),
        None if credential.on_demand => Supply::OnDemand,
        None => Supply::Here(bound.material(&credential.value).map_err(bad)?.into()),
    };
    Ok(bound)
}

/// A placeholder that can be looked for.
pub(super) fn check_placeholder(service: &str, placeholder: &str) -> Result<(), ConfigError> {
    let text = if placeholder.len() < SHORTEST_PLACEHOLDER {
        "the placeholder is shorter than 8 bytes"
    } else if !placeholder.bytes().all(|byte| byte.is_ascii_graphic()) {
        "the placeholder has other characters than visible ones of ASCII"
    } else {
        return Ok(());
    };
    Err(ConfigError::Credential {
        service: service.to_owned(),
        text,
    })
}

fn form(credential: &Credential) -> Result<Form, &'static str> {
    if let Some(aws) = &credential.aws {
        return aws_form(credential, aws);
    }
    if let Some(registry) = &credential.registry {
        return registry_form(credential, registry);
    }
    if let Some(replace) = credential.replace {
        return if credential.header.is_empty() && credential.format.is_empty() {
            match replace {
                Replace { login: false, body } => Ok(Form::Replace { body }),
                Replace { body: false, .. } => Ok(Form::Login),
                _ => Err("it is replaced both in logins alone and in bodies"),
            }
        } else {
            Err("it is both written into a header and replaced")
        };
    }
    let name = HeaderName::from_bytes(credential.header.as_bytes())
        .map_err(|_| "the header is not a header name")?;
    if NEVER_CREDENTIAL.contains(&name.as_str()) {
        return Err("the header cannot carry a credential");
    }
    let around = credential.format.split_once("%s");
    let (before, after) = around.ok_or("the format has no %s")?;
    if after.contains("%s") {
        return Err("the format has more than one %s");
    }
    check_user(credential.basic_user.as_deref().unwrap_or_default())?;
    Ok(Form::Header {
        name,
        around: (before.to_owned(), after.to_owned()),
        basic_user: credential.basic_user.clone(),
    })
}

/// A colon would end the name there (RFC 7617, section 2).
fn check_user(user: &str) -> Result<(), &'static str> {
    if user.contains(':') {
        return Err("the user of a Basic login has a colon");
    }
    Ok(())
}

fn registry_form(credential: &Credential, registry: &Registry) -> Result<Form, &'static str> {
    let elsewhere = !credential.header.is_empty() || !credential.format.is_empty();
    if elsewhere || credential.replace.is_some() {
        return Err("it is both the login of a registry and written otherwise");
    }
    let [host] = credential.hosts.as_slice() else {
        return Err("a registry has one host");
    };
    let target = Target::parse_authority(host, Port::HTTPS);
    let user = credential.basic_user.clone();
    let user = user.ok_or("the login of a registry has no user")?;
    check_user(&user)?;
    let endpoint = registry.auth_endpoint.as_ref().map(|address| {
        Endpoint::of(address).ok_or("its authorisation endpoint is no https URL without a query")
    });
    Ok(Form::Registry(RegistryForm {
        target: target.map_err(|_| "the host of a registry is a name or an address")?,
        user,
        endpoint: endpoint.transpose()?,
    }))
}

fn aws_form(credential: &Credential, aws: &Aws) -> Result<Form, &'static str> {
    let elsewhere = !credential.header.is_empty() || !credential.format.is_empty();
    if elsewhere || credential.replace.is_some() {
        return Err("it is both signed with and written");
    }
    check_placeholder(&credential.service, &aws.placeholder_id)
        .map_err(|_| "the placeholder of the access key id is none")?;
    if let Some(handed_in) = &aws.handed_in {
        check_placeholder(&credential.service, &handed_in.token)
            .map_err(|_| "the token of keys that are handed in is none")?;
    }
    let own = aws.scope.as_ref().map(|scope| {
        let own = sigv4::Endpoint::own(&scope.service, &scope.region);
        own.ok_or("its endpoints are of no service and region that can be signed for")
    });
    Ok(Form::Aws(AwsForm {
        handed_in: aws.handed_in.clone(),
        own: own.transpose()?,
        placeholder: Placeholder {
            access_key_id: aws.placeholder_id.clone(),
            secret: credential.placeholder.clone().into(),
        },
    }))
}

impl BoundCredential {
    /// Makes a value ready to be written; on error why it cannot be. Never shows the value.
    pub fn material(&self, value: &SecretText) -> Result<Material, &'static str> {
        let unfit = "the value cannot stand in a header";
        let mut keys = None;
        let header = match &self.form {
            Form::Header {
                around: (before, after),
                basic_user,
                ..
            } => Some(header((before, after), basic_user.as_deref(), value)?),
            Form::Registry(form) => Some(header(("Basic ", ""), Some(&form.user), value)?),
            Form::Aws(_) => {
                let found = Keys::parse(value.expose());
                keys = Some(found.map_err(|_| "the value is no key of AWS")?);
                None
            }
            Form::Replace { .. } | Form::Login => {
                HeaderValue::from_str(value.expose()).map_err(|_| unfit)?;
                None
            }
        };
        if value.expose().is_empty() {
            return Err("the value is empty");
        }
        let text = value.clone();
        Ok(Material { header, text, keys })
    }
}

/// The value of a header. `user`: of a `Basic` login.
pub(super) fn header(
    (before, after): (&str, &str),
    user: Option<&str>,
    value: &SecretText,
) -> Result<HeaderValue, &'static str> {
    let written = match user {
        Some(user) => STANDARD.encode(format!("{user}:{}", value.expose())),
        None => value.expose().to_owned(),
    };
    let text = SecretText::new(format!("{before}{written}{after}"));
    drop(SecretText::new(written));
    let header = HeaderValue::from_str(text.expose());
    let mut header = header.map_err(|_| "the value cannot stand in a header")?;
    header.set_sensitive(true);
    Ok(header)
}
