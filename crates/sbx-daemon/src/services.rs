//! Services as requests name them, and what may be stored for one.

use crate::{aws, random};
pub(crate) use sbx_credentials::services::{Binding, Scheme, Service, TABLE, bindings};
use sbx_wire::report::Report;
use sbx_wire::secret::SecretText;

/// Longest secret, bytes.
pub(crate) const MAX_SECRET: usize = 64 << 10;

/// Finds a service by its name or a variable of its.
pub(crate) fn find(name: &str) -> Result<&'static Service, Report> {
    Service::find(name).ok_or_else(|| {
        let known: Vec<&str> = TABLE.iter().map(|service| service.name).collect();
        let shown: String = name.chars().take(60).collect();
        Report::user(
            "service-unknown",
            format!("there is no service {shown:?}"),
            format!("sbx secret set {}", known.join("|")),
        )
    })
}

/// A new placeholder: random, and of the shape that clients accept.
pub(crate) fn placeholder(service: &Service) -> Result<String, Report> {
    service.placeholder(random::fill)
}

/// Whether requests are signed with what is stored under this name.
pub(crate) fn signs(name: &str) -> bool {
    let mut table = TABLE.iter();
    table.any(|service| service.name == name && service.signs())
}

/// The value as the gateway takes it: it can stand in a header, or is a key to sign with. The gateway would refuse
/// everything else, and with it the whole configuration. `name`: of the secret. The error: what is wrong with it, without
/// its subject.
pub(crate) fn usable(name: &str, value: &SecretText) -> Result<SecretText, String> {
    if signs(name) {
        return aws::key(value);
    }
    match problem(value.expose()) {
        None => Ok(value.clone()),
        Some(problem) => Err(problem.to_owned()),
    }
}

/// The same for a value that is to be stored, with what to do instead. `fetched`: by the recipe that is to be stored.
pub(crate) fn accepted(
    name: &str,
    value: &SecretText,
    fetched: bool,
) -> Result<SecretText, Report> {
    usable(name, value).map_err(|problem| {
        let hint = match (signs(name), fetched) {
            (true, true) => format!(
                "sbx secret set {name} --command \"aws configure export-credentials\""
            ),
            (true, false) => format!(
                "printf %s \"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY\" | sbx secret set {name}, or sbx secret import {name}"
            ),
            _ => format!("printf %s \"$KEY\" | sbx secret set {name}"),
        };
        let what = if fetched { "what came" } else { "the secret" };
        Report::user(
            "secret-unusable",
            format!("{what} for {name} {problem}"),
            hint,
        )
    })
}

/// What is wrong with a value.
pub(crate) fn problem(value: &str) -> Option<&'static str> {
    if value.is_empty() {
        Some("is empty")
    } else if value.len() > MAX_SECRET {
        Some("is longer than 64 KiB")
    } else if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) || value.trim() != value {
        Some("has line ends, spaces around it or characters that cannot stand in a header")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_by_name_and_by_variable() {
        assert_eq!(find("anthropic").unwrap().name, "anthropic");
        assert_eq!(find("GITHUB_TOKEN").unwrap().name, "github");
        assert_eq!(find("nope").unwrap_err().code, "service-unknown");
    }

    #[test]
    fn placeholder_has_the_shape_of_a_key_and_never_repeats() {
        let service = find("anthropic").unwrap();
        let (a, b) = (placeholder(service).unwrap(), placeholder(service).unwrap());
        assert!(a.starts_with("sk-ant-api03-") && a.len() == 108, "{a}");
        assert_ne!(a, b);
    }

    #[test]
    fn value_that_would_break_a_header_is_refused() {
        let accepted = |text: &str| accepted("anthropic", &SecretText::new(text.into()), false);
        for bad in ["", "a\nb", " a", "a\r\nx: y", "schl\u{fc}ssel"] {
            assert!(accepted(bad).is_err(), "{bad:?} passed");
        }
        accepted("sk-ant-api03-x").unwrap();
    }
}
