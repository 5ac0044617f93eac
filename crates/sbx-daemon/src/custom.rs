//! Custom secrets and logins of registries, as requests describe them.

use crate::random;
use sbx_credentials::shape::{self, Alphabet};
use sbx_policy::{Port, ResourcePattern, Target};
use sbx_secrets::{Custom, Kind, Registry, Scope, Shown, Vault};
use sbx_wire::api::{SetCustom, SetRegistry};
use sbx_wire::browser::Address;
use sbx_wire::report::Report;

/// What the name of a login of a registry begins with; its host is behind it.
pub(crate) const REGISTRY: &str = "registry:";
/// Most hosts of a custom secret.
const MAX_HOSTS: usize = 64;
/// Longest placeholder, user name or URL, bytes.
const MAX_TEXT: usize = 256;
/// What a placeholder is where nobody chose another.
const USUAL_PLACEHOLDER: &str = "sbx-cs-{rand}";
const RANDOM: &str = "{rand}";
/// Characters in the place of that.
const RANDOM_LENGTH: usize = 32;

fn unusable(why: impl Into<String>) -> Report {
    Report::user("secret-unusable", why, "sbx secret set-custom --help")
}

/// Reads a request: the name under which it is stored in this scope, and what it is. One that replaces another keeps its
/// placeholder, unless a new one is asked for: sandboxes go on with it.
pub(crate) fn of_request(
    vault: &Vault,
    request: &SetCustom,
    scope: &Scope,
) -> Result<(String, Custom), Report> {
    let hosts = hosts(&request.hosts)?;
    let env = request.env.clone();
    if env.as_deref().is_some_and(|name| !is_variable(name)) {
        return Err(unusable(
            "the variable's name consists of letters, digits and '_', and begins with no digit",
        ));
    }
    let mut taken = Vec::new();
    let mut same = None;
    for shown in vault.all() {
        let Shown::Known(secret) = shown else {
            continue;
        };
        let Kind::Custom(custom) = &secret.kind else {
            continue;
        };
        taken.push(secret.key.name.clone());
        let is_same = match &env {
            Some(_) => custom.env == env,
            None => custom.env.is_none() && custom.hosts == hosts,
        };
        if is_same && secret.key.scope == *scope {
            same = Some((secret.key.name.clone(), custom.placeholder.clone()));
        }
    }
    let placeholder = match (&request.placeholder, &same) {
        (None, Some((_, placeholder))) => placeholder.clone(),
        (pattern, _) => placeholder(pattern.as_deref().unwrap_or(USUAL_PLACEHOLDER))?,
    };
    let name = match same {
        Some((name, _)) => name,
        None => free_name(env.as_deref().unwrap_or(&hosts[0]), &taken),
    };
    let custom = Custom {
        hosts,
        env,
        placeholder,
        in_body: request.in_body,
    };
    Ok((name, custom))
}

fn free_name(stem: &str, taken: &[String]) -> String {
    let mut name = format!("custom:{stem}");
    for number in 2.. {
        if !taken.contains(&name) {
            break;
        }
        name = format!("custom:{stem}-{number}");
    }
    name
}

/// At least one, in canonical form.
fn hosts(texts: &[String]) -> Result<Vec<String>, Report> {
    if texts.is_empty() || texts.len() > MAX_HOSTS {
        return Err(unusable(format!(
            "a secret is bound to between 1 and {MAX_HOSTS} hosts"
        )));
    }
    let mut hosts = Vec::new();
    for text in texts {
        let canonical = names(text).map_err(unusable)?.to_string();
        if !hosts.contains(&canonical) {
            hosts.push(canonical);
        }
    }
    Ok(hosts)
}

/// Names that a secret may be bound to; the error is a sentence.
pub(crate) fn names(text: &str) -> Result<ResourcePattern, String> {
    let shown: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_TEXT)
        .collect();
    let pattern =
        ResourcePattern::parse(text).map_err(|error| format!("{shown:?} is no host: {error}"))?;
    if !pattern.host.is_name() || pattern.host.to_string() == "**" {
        return Err(format!(
            "a secret is bound to names of hosts, such as api.example.com or **.example.com, and not to {shown:?}"
        ));
    }
    Ok(pattern)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_TEXT
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// A placeholder of this pattern. It has something random in it, so that nobody can make one up who was not given it.
fn placeholder(pattern: &str) -> Result<String, Report> {
    let printable = pattern.bytes().all(|byte| byte.is_ascii_graphic());
    if pattern.len() > MAX_TEXT || !printable || pattern.matches(RANDOM).count() != 1 {
        return Err(unusable(format!(
            "a placeholder is printable text without spaces and has {RANDOM} in it once, such as sk-{RANDOM}"
        )));
    }
    let text = shape::random(Alphabet::Base62, RANDOM_LENGTH, random::fill)?;
    Ok(pattern.replace(RANDOM, &text))
}

/// Reads a login: its host in canonical form, and what it is.
pub(crate) fn registry(request: &SetRegistry) -> Result<(String, Registry), Report> {
    let unusable = |why: String| Report::user("secret-unusable", why, "sbx secret set --help");
    let host = Target::parse_authority(&request.registry, Port::HTTPS)
        .map_err(|error| unusable(format!("{:?} is no registry: {error}", request.registry)))?;
    let host = authority(&host);
    let user = &request.username;
    let plain = user
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b':');
    if user.is_empty() || user.len() > MAX_TEXT || !plain {
        return Err(unusable(
            "the user's name is printable text without spaces and ':'".to_owned(),
        ));
    }
    if let Some(url) = &request.auth_endpoint
        && endpoint(url).is_none()
    {
        return Err(unusable(
            "the registry's authorisation endpoint is an https URL without user, query and fragment".to_owned(),
        ));
    }
    if request.all_sandboxes && request.sandbox.is_some() {
        return Err(unusable(
            "a login is for all sandboxes or for one".to_owned(),
        ));
    }
    let registry = Registry {
        username: user.clone(),
        auth_endpoint: request.auth_endpoint.clone(),
        all_sandboxes: request.all_sandboxes,
    };
    Ok((host, registry))
}

/// With the port, if that is not 443.
pub(crate) fn authority(target: &Target) -> String {
    match target.port {
        Port::HTTPS => target.host.to_string(),
        _ => target.to_string(),
    }
}

/// Where tokens of a registry are issued. `None`: it is no URL for that.
pub(crate) fn endpoint(url: &str) -> Option<Address> {
    let address: Address = url.parse().ok()?;
    let text = address.as_str();
    let plain = text.starts_with("https://") && !text.contains(['?', '#', '@']);
    (plain && url.len() <= MAX_TEXT).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_in_canonical_form() {
        let read = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|text| (*text).to_owned()).collect();
            hosts(&list).map_err(|report| report.message)
        };
        assert_eq!(
            read(&["API.test", "api.test", "**.x.test:8443"]).unwrap(),
            ["api.test", "**.x.test:8443"]
        );
        for bad in [
            "",
            "**",
            "**:443",
            "10.0.0.0/8",
            "localhost:80",
            "https://x.test",
            "a b",
        ] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
        assert!(read(&[]).is_err());
    }

    #[test]
    fn placeholders_have_the_form_asked_for_and_differ() {
        let (a, b) = (
            placeholder("sk-{rand}!").unwrap(),
            placeholder("sk-{rand}!").unwrap(),
        );
        assert!(
            a.starts_with("sk-") && a.ends_with('!') && a.len() == 36,
            "{a}"
        );
        assert_ne!(a, b);
        for bad in [
            "",
            "fixed-placeholder",
            "{rand}{rand}",
            "a b{rand}",
            "\u{e9}{rand}",
        ] {
            assert!(placeholder(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn endpoints_are_exact_https_urls() {
        assert!(endpoint("https://auth.test:8443/token").is_some());
        for bad in [
            "http://auth.test/token",
            "https://u@auth.test/token",
            "https://auth.test/token?x=1",
            "https://auth.test/#x",
            "https:///token",
            "https://auth.test/a b",
        ] {
            assert!(endpoint(bad).is_none(), "{bad}");
        }
    }
}
