//! The starting rule sets, from data files.

use std::fmt;
use std::str::FromStr;

use crate::pattern::ResourcePattern;
use crate::pattern_error::PatternError;
use crate::rule::{CreatedVia, Decision, Protocols, Rule};
use crate::scope::Scope;
use crate::target::Port;

/// A starting rule set. Not a mode: its rules can be removed and others added afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// Everything on the public internet.
    AllowAll,
    /// What coding agents commonly need; everything else is denied.
    Balanced,
    /// Nothing.
    DenyAll,
}

/// No preset has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a preset: allow-all, balanced or deny-all")]
pub struct UnknownPreset(String);

impl Preset {
    /// All of them, in the order they are offered; [`Preset::Balanced`] is the one pre-selected.
    pub const ALL: [Self; 3] = [Self::AllowAll, Self::Balanced, Self::DenyAll];

    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowAll => "allow-all",
            Self::Balanced => "balanced",
            Self::DenyAll => "deny-all",
        }
    }

    /// The words for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::AllowAll => "Open",
            Self::Balanced => "Balanced",
            Self::DenyAll => "Locked Down",
        }
    }

    fn data(self) -> &'static str {
        match self {
            Self::AllowAll => include_str!("../presets/allow-all.txt"),
            Self::Balanced => include_str!("../presets/balanced.txt"),
            Self::DenyAll => include_str!("../presets/deny-all.txt"),
        }
    }
}

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(text: &str) -> Result<Self, UnknownPreset> {
        let found = Self::ALL.into_iter().find(|preset| preset.as_str() == text);
        found.ok_or_else(|| UnknownPreset(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The rules of a preset: global, for TCP, one per group of its file, with fixed ids.
pub fn preset(preset: Preset) -> Vec<Rule> {
    parse(preset.data()).expect("the files are part of the program and tests parse all of them")
}

/// Why a preset file cannot be read.
#[derive(Debug, thiserror::Error)]
enum PresetError {
    #[error("line {0}: a resource stands before the first group")]
    NoGroup(usize),
    #[error("line {0}: a group is written `[name] uuid`")]
    Group(usize),
    #[error("line {line}: {source}")]
    Resource { line: usize, source: PatternError },
}

/// Lines are `[group] uuid`, or a host with its ports (none: 443, `any`: every port); `#` comments.
fn parse(data: &str) -> Result<Vec<Rule>, PresetError> {
    let mut rules: Vec<Rule> = Vec::new();
    for (number, line) in data
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.trim()))
    {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(group) = line.strip_prefix('[') {
            let (name, id) = group.split_once("] ").ok_or(PresetError::Group(number))?;
            rules.push(group_rule(name, id));
            continue;
        }
        let rule = rules.last_mut().ok_or(PresetError::NoGroup(number))?;
        let mut words = line.split_whitespace();
        let host = words.next().unwrap_or("");
        let ports: Vec<&str> = words.collect();
        let parse = |text: &str| {
            let error = |source| PresetError::Resource {
                line: number,
                source,
            };
            ResourcePattern::parse(text).map_err(error)
        };
        match ports.as_slice() {
            [] => rule
                .resources
                .push(parse(&format!("{host}:{}", Port::HTTPS))?),
            ["any"] => rule.resources.push(parse(host)?),
            ports => {
                for port in ports {
                    rule.resources.push(parse(&format!("{host}:{port}"))?);
                }
            }
        }
    }
    Ok(rules)
}

fn group_rule(name: &str, id: &str) -> Rule {
    Rule {
        id: id.to_owned(),
        name: Some(name.to_owned()),
        scope: Scope::Global,
        decision: Decision::Allow,
        resources: Vec::new(),
        protocols: Protocols::TCP,
        created_via: CreatedVia::Default,
        http: None,
    }
}
