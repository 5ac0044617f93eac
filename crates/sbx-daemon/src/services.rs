//! Services as requests name them, and what may be stored for one.

use crate::random;
pub(crate) use sbx_credentials::services::{Binding, Scheme, Service, TABLE, bindings};
use sbx_wire::report::Report;

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

/// Whether the gateway can do anything with it. What is signed is not signed yet.
pub(crate) fn is_written(service: &Service) -> bool {
    let mut forms = service.forms.iter();
    forms.any(|form| form.scheme != Scheme::Sigv4)
}

/// Whether the value can stand in a header: the gateway would refuse everything else, and with it the
/// whole configuration.
pub(crate) fn accepts(name: &str, value: &str) -> Result<(), Report> {
    let Some(problem) = problem(value) else {
        return Ok(());
    };
    Err(Report::user(
        "secret-unusable",
        format!("the secret for {name} {problem}"),
        format!("printf %s \"$KEY\" | sbx secret set {name}"),
    ))
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
        for bad in ["", "a\nb", " a", "a\r\nx: y", "schl\u{fc}ssel"] {
            assert!(accepts("anthropic", bad).is_err(), "{bad:?} passed");
        }
        accepts("anthropic", "sk-ant-api03-x").unwrap();
    }
}
