//! Which agent: a handle on its row that is copied and stored by name.

use crate::row::{Install, Row, Tried};
use crate::rows;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

/// One of the agents. Everything about it is in its [`Row`].
#[derive(Clone, Copy)]
pub struct Agent(&'static Row);

/// The name belongs to no agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownAgent;

impl Agent {
    /// The agent that is none: a login shell.
    pub const SHELL: Self = Self(&rows::SHELL);

    /// Everything about it.
    pub fn row(self) -> &'static Row {
        self.0
    }

    /// Every agent, sorted by name, the shell at the end.
    pub fn all() -> impl Iterator<Item = Self> {
        rows::ALL.iter().copied().map(Self)
    }

    /// Command line with the default flags, as a sandbox starts it.
    pub fn command_line(self) -> Vec<String> {
        self.command.iter().map(|word| (*word).to_owned()).collect()
    }

    /// What people should know before they rely on it, when there is something.
    pub fn warning(self) -> Option<String> {
        let title = self.title;
        match (self.tried, &self.install) {
            (Tried::Job, _) => None,
            (Tried::Started, _) => Some(format!(
                "{title} was started in our tests, but never did a job in them"
            )),
            (Tried::Never, Install::Inside(_)) => Some(format!(
                "the recipe for {title} was never run in our tests; its makers' installation runs inside the \
                 sandbox at the first start"
            )),
            (Tried::Never, _) => Some(format!("{title} was never run in our tests")),
        }
    }
}

impl Deref for Agent {
    type Target = Row;

    fn deref(&self) -> &Row {
        self.0
    }
}

impl PartialEq for Agent {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Agent {}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for Agent {
    type Err = UnknownAgent;

    /// Finds an agent by its name or an alias.
    fn from_str(name: &str) -> Result<Self, UnknownAgent> {
        Self::all()
            .find(|agent| agent.name == name || agent.aliases.contains(&name))
            .ok_or(UnknownAgent)
    }
}

impl fmt::Display for UnknownAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no agent of this name")
    }
}

impl std::error::Error for UnknownAgent {}

impl Serialize for Agent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for Agent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_agent_is_found_by_its_names_and_stored_by_the_first() {
        for agent in Agent::all() {
            for name in agent.aliases.iter().chain([&agent.name]) {
                assert_eq!(name.parse::<Agent>(), Ok(agent));
            }
            let stored = serde_json::to_string(&agent).unwrap();
            assert_eq!(stored, format!("\"{}\"", agent.name));
            assert_eq!(serde_json::from_str::<Agent>(&stored).unwrap(), agent);
        }
        assert_eq!("cagent".parse::<Agent>().unwrap().name, "docker-agent");
        assert_eq!("vim".parse::<Agent>(), Err(UnknownAgent));
    }

    #[test]
    fn names_are_unique_sorted_and_those_of_programs_of_no_other() {
        let names: Vec<&str> = Agent::all().map(|agent| agent.name).collect();
        let (last, rest) = names.split_last().unwrap();
        assert_eq!(*last, "shell");
        assert!(rest.is_sorted(), "{rest:?}");
        let mut all: Vec<&str> = Agent::all()
            .flat_map(|agent| agent.aliases.iter().copied().chain([agent.name]))
            .collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn what_was_not_tried_says_so_and_what_was_is_quiet() {
        let warned: Vec<&str> = Agent::all()
            .filter(|agent| agent.warning().is_some())
            .map(|agent| agent.name)
            .collect();
        assert_eq!(
            warned,
            ["cursor", "devin", "docker-agent", "droid", "kiro"],
            "LIMITS.md lists them"
        );
    }

    #[test]
    fn layers_put_every_program_that_their_agent_starts_into_the_path() {
        for agent in Agent::all() {
            let Install::Layer(layer) = &agent.install else {
                continue;
            };
            let names: Vec<&str> = layer.programs.iter().map(|program| program.name).collect();
            assert!(names.contains(&agent.command[0]), "{agent}: {names:?}");
            assert!(names.contains(&layer.check[0]), "{agent}: {names:?}");
            assert!(!layer.packages.is_empty(), "{agent}");
            for package in layer.packages {
                assert!(package.to.starts_with("usr/local/lib/"), "{agent}");
                assert!(!package.keep.is_empty(), "{agent}");
            }
        }
    }
}
