//! The services whose secrets the gateway can write into requests. One row each.

use crate::random;
use sbx_wire::report::Report;

/// A service.
#[derive(Debug)]
pub(crate) struct Service {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// The variable that its clients read, also accepted as the name.
    pub(crate) variable: &'static str,
    /// Hosts that its secret is bound to.
    pub(crate) hosts: &'static [&'static str],
    /// Header that the gateway writes, lower case.
    pub(crate) header: &'static str,
    /// Header value; `%s` stands for the secret.
    pub(crate) format: &'static str,
    /// Beginning of every key; clients check it, so placeholders have it too.
    pub(crate) prefix: &'static str,
    /// Random characters behind the prefix of a placeholder.
    pub(crate) random: usize,
    /// End of every key.
    pub(crate) suffix: &'static str,
}

/// All of them.
pub(crate) const SERVICES: &[Service] = &[Service {
    name: "anthropic",
    variable: "ANTHROPIC_API_KEY",
    hosts: &["api.anthropic.com"],
    header: "x-api-key",
    format: "%s",
    prefix: "sk-ant-api03-",
    random: 93,
    suffix: "AA",
}];

/// Longest secret, bytes.
const MAX_SECRET: usize = 64 << 10;

impl Service {
    /// Finds a service by its name or its variable.
    pub(crate) fn find(name: &str) -> Result<&'static Self, Report> {
        SERVICES
            .iter()
            .find(|service| service.name == name || service.variable == name)
            .ok_or_else(|| {
                let known: Vec<&str> = SERVICES.iter().map(|service| service.name).collect();
                let shown: String = name.chars().take(60).collect();
                Report::user(
                    "service-unknown",
                    format!("there is no service {shown:?}"),
                    format!("sbx secret set {}", known.join("|")),
                )
            })
    }

    /// A new placeholder: random, and of the shape that clients accept.
    pub(crate) fn placeholder(&self) -> Result<String, Report> {
        Ok(format!(
            "{}{}{}",
            self.prefix,
            random::key_text(self.random)?,
            self.suffix
        ))
    }

    /// Whether the value can stand in a header: the gateway would refuse everything else, and with it the
    /// whole configuration.
    pub(crate) fn accepts(&self, value: &str) -> Result<(), Report> {
        let problem = if value.is_empty() {
            "is empty"
        } else if value.len() > MAX_SECRET {
            "is longer than 64 KiB"
        } else if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) || value.trim() != value
        {
            "has line ends, spaces around it or characters that cannot stand in a header"
        } else {
            return Ok(());
        };
        Err(Report::user(
            "secret-unusable",
            format!("the secret for {} {problem}", self.name),
            format!("printf %s \"$KEY\" | sbx secret set {}", self.name),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_by_name_and_by_variable() {
        assert_eq!(Service::find("anthropic").unwrap().name, "anthropic");
        assert_eq!(
            Service::find("ANTHROPIC_API_KEY").unwrap().name,
            "anthropic"
        );
        assert_eq!(Service::find("nope").unwrap_err().code, "service-unknown");
    }

    #[test]
    fn placeholder_has_the_shape_of_a_key_and_never_repeats() {
        let service = Service::find("anthropic").unwrap();
        let (a, b) = (
            service.placeholder().unwrap(),
            service.placeholder().unwrap(),
        );
        assert!(a.starts_with("sk-ant-api03-") && a.len() == 108, "{a}");
        assert_ne!(a, b);
    }

    #[test]
    fn value_that_would_break_a_header_is_refused() {
        let service = Service::find("anthropic").unwrap();
        for bad in ["", "a\nb", " a", "a\r\nx: y", "schl\u{fc}ssel"] {
            assert!(service.accepts(bad).is_err(), "{bad:?} passed");
        }
        service.accepts("sk-ant-api03-x").unwrap();
    }
}
