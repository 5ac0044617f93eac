//! The hosts that a credential is bound to.

use std::collections::HashSet;

use sbx_policy::{Port, ResourcePattern, Target};

use crate::generation::ConfigError;

/// Single targets, and patterns of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    exact: HashSet<Target>,
    patterns: Vec<ResourcePattern>,
}

impl Hosts {
    /// From `host`, `host:port` or patterns of the network rules; without a port, 443. `what`: where they stand, for
    /// errors.
    pub fn parse(what: &'static str, texts: &[String]) -> Result<Self, ConfigError> {
        let mut hosts = Self::default();
        for text in texts {
            match Target::parse_authority(text, Port::HTTPS) {
                Ok(target) => {
                    hosts.exact.insert(target);
                }
                Err(source) => match pattern(text) {
                    Some(pattern) => hosts.patterns.push(pattern),
                    None => {
                        let text = text.clone();
                        return Err(ConfigError::Target { what, text, source });
                    }
                },
            }
        }
        Ok(hosts)
    }

    /// One more.
    pub fn add(&mut self, target: Target) {
        self.exact.insert(target);
    }

    /// Whether the target is one of them.
    pub fn contains(&self, target: &Target) -> bool {
        let covers = |pattern: &ResourcePattern| {
            pattern.host.matches(&target.host) && pattern.port.unwrap_or(Port::HTTPS) == target.port
        };
        self.exact.contains(target) || self.patterns.iter().any(covers)
    }
}

/// A pattern of names, but not of all of them.
fn pattern(text: &str) -> Option<ResourcePattern> {
    let pattern = ResourcePattern::parse(text).ok()?;
    let everything = text.split(':').next() == Some("**");
    (pattern.host.is_name() && !everything).then_some(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(texts: &[&str]) -> Result<Hosts, ConfigError> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Hosts::parse("credential host", &texts)
    }

    #[test]
    fn names_and_patterns_hold_for_their_port_alone() {
        let hosts = hosts(&["api.test", "b.test:8443", "**.c.test", ".d.test:80"]).unwrap();
        for (target, contained) in [
            ("api.test:443", true),
            ("api.test:80", false),
            ("x.api.test:443", false),
            ("b.test:8443", true),
            ("b.test:443", false),
            ("x.c.test:443", true),
            ("x.y.c.test:443", true),
            ("c.test:443", false),
            ("x.c.test:80", false),
            ("d.test:80", true),
            ("192.0.2.1:443", false),
        ] {
            let target = Target::parse_authority(target, Port::HTTPS).unwrap();
            assert_eq!(hosts.contains(&target), contained, "{target}");
        }
    }

    #[test]
    fn a_credential_for_everything_is_refused() {
        for bad in ["**", "**:443", "*", "10.0.0.0/8", "", "a b"] {
            assert!(hosts(&[bad]).is_err(), "{bad}");
        }
    }
}
