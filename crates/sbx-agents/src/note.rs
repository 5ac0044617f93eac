//! What an agent is told about where it is.
//!
//! The note goes to a file below the agent's home that it reads at every start ([`crate::Row::note_file`]): the
//! project's own instruction files stay as they are. It is written once, because agents and people add to such
//! files; so it only says what stays true, and names the file that is written anew at each start of the machine.

use crate::{Agent, Install, Seed, home, inside};
use sbx_wire::guest::GuestFile;
use std::fmt::Write as _;

/// The file with what may change, written anew at each start.
const STATE: &str = "/etc/sandbox/state.md";
/// Most rules listed there; a sandbox without rules of its own has about 200.
const MAX_RULES: usize = 1000;
/// Most bytes of each of its lists, and of a line of one. All files go to the guest in one frame, 1 MiB.
const MAX_LIST: usize = 64 << 10;
/// See [`MAX_LIST`].
const MAX_LINE: usize = 1 << 10;

/// What is true of a sandbox at the start of its machine.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Its name.
    pub sandbox: String,
    /// Its workspaces, and whether each can only be read.
    pub workspaces: Vec<(String, bool)>,
    /// Rules that concern it, one a line, as people see them.
    pub rules: Vec<String>,
    /// Services whose secret is written into requests.
    pub services: Vec<String>,
}

/// All files of a new sandbox, for the machine that is about to be it.
pub(crate) fn files(agent: Agent, seed: &Seed<'_>, facts: &Facts) -> Vec<GuestFile> {
    let mut files = (agent.files)(seed);
    files.extend(inside::launcher(agent));
    if let Some(name) = agent.note_file {
        files.push(home::file(name, note(facts)));
    }
    files.push(GuestFile {
        path: STATE.to_owned(),
        content: state(facts).into_bytes(),
        mode: 0o644,
        owner: 0,
        only_if_missing: false,
    });
    files
}

/// The note.
fn note(facts: &Facts) -> String {
    format!(
        "# You are in a sandbox\n\
         \n\
         This machine is a virtual machine made for you by sbx; its name is `{}`. You have `sudo` and a Docker\n\
         Engine of your own. Install and change what you like: only the workspace reaches the user's machine.\n\
         \n\
         - Files: the workspace is shared with the user, live, at the same path. Some files in it may be\n\
           protected or hidden on purpose (git hooks and settings above all): what is refused there is not a\n\
           fault to work around.\n\
         - Network: everything passes a gateway that enforces the user's rules. What is blocked gets HTTP 403\n\
           with a text that begins with `Blocked by network policy` and a header `x-sbx-reason`; names that no\n\
           rule allows may not resolve; raw TCP, UDP and ping do not leave. Do not retry, and do not look for\n\
           another way: tell the user which host you need and why. They can allow it with\n\
           `sbx policy allow network HOST`, at once.\n\
         - Secrets: keys that you find in variables are placeholders. The gateway puts the real ones into\n\
           requests to the hosts that they belong to, and nowhere else.\n\
         - The user's own machine is `host.docker.internal`; its ports are reached under the same rules.\n\
         \n\
         Workspaces, rules and services as they are now: `{STATE}`.\n",
        facts.sandbox
    )
}

/// What may change.
fn state(facts: &Facts) -> String {
    let mut text = format!(
        "# Sandbox `{}`\n\nAs it was when this machine started.\n\n## Workspaces\n\n",
        facts.sandbox
    );
    let workspaces = facts.workspaces.iter().map(|(path, read_only)| {
        let how = if *read_only { " (read-only)" } else { "" };
        format!("`{path}`{how}")
    });
    list(&mut text, workspaces);
    text.push_str("\n## Services with a secret\n\n");
    if facts.services.is_empty() {
        text.push_str("None.\n");
    }
    list(&mut text, facts.services.iter());
    text.push_str(
        "\n## Rules\n\nA deny stands above an allow; what no rule allows is blocked.\n\n",
    );
    list(&mut text, facts.rules.iter());
    text
}

/// The entries one a line, within the bounds; the number of those left out is named.
fn list<T: ToString>(text: &mut String, mut entries: impl ExactSizeIterator<Item = T>) {
    let (begin, most) = (text.len(), MAX_RULES.min(entries.len()));
    for _ in 0..most {
        if text.len() - begin + MAX_LINE > MAX_LIST {
            break;
        }
        let Some(entry) = entries.next() else { break };
        let entry = entry.to_string();
        let end = entry.floor_char_boundary(MAX_LINE);
        let cut = if end < entry.len() { "…" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "- {}{cut}", &entry[..end]);
    }
    if entries.len() > 0 {
        let _ = writeln!(text, "- … and {} more", entries.len());
    }
}

impl Agent {
    /// All files of a new sandbox: the agent's settings, the note about where it is, and what it is started with.
    pub fn home_files(self, seed: &Seed<'_>, facts: &Facts) -> Vec<GuestFile> {
        files(self, seed, facts)
    }

    /// Whether its program is part of an image of its own.
    pub fn has_layer(self) -> bool {
        matches!(self.install, Install::Layer(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            sandbox: "box".into(),
            workspaces: vec![("/p".into(), false), ("/q".into(), true)],
            rules: vec!["allow docs.example.com".into()],
            services: vec!["openai".into()],
        }
    }

    #[test]
    fn note_is_added_below_the_home_and_what_changes_is_written_anew() {
        let seed = Seed {
            workspaces: &["/p"],
            placeholder: &|_| String::new(),
            tokens: &|_| None,
        };
        for agent in Agent::all() {
            let files = agent.home_files(&seed, &facts());
            for file in &files {
                let ours = file.path.starts_with("/home/agent/") && file.only_if_missing;
                let anew = file.path == STATE || file.path.starts_with(inside::BIN);
                assert!(ours || (anew && !file.only_if_missing), "{}", file.path);
            }
            let note = agent.note_file.map(|name| format!("/home/agent/{name}"));
            let written = files.iter().find(|file| Some(&file.path) == note.as_ref());
            assert_eq!(written.is_some(), note.is_some(), "{agent}");
        }
    }

    #[test]
    fn state_names_workspaces_rules_and_services() {
        let text = state(&facts());
        for line in [
            "- `/p`\n",
            "- `/q` (read-only)",
            "- openai",
            "- allow docs.example.com",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn state_has_an_end_however_many_and_long_the_rules_are() {
        let of = |rules: Vec<String>| state(&Facts { rules, ..facts() });
        let text = of(vec!["allow a.example.com".into(); 1003]);
        assert!(text.ends_with("com\n- … and 3 more\n"), "{text}");
        // A rule with thousands of names is one line.
        let long = format!("allow {}", "ä.example.com, ".repeat(20_000));
        let text = of(vec![long.clone(), "allow last.example.com".into()]);
        assert!(text.contains("…\n- allow last.example.com\n"), "{text}");
        let text = of(vec![long; 1000]);
        assert!(text.len() < 66 << 10, "{}", text.len());
        let listed = text.matches("- allow ä").count();
        assert!(text.ends_with(&format!("- … and {} more\n", 1000 - listed)));
        assert!(listed > 50, "{listed}");
    }
}
