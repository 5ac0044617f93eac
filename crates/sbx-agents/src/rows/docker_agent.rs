//! Docker Agent, once called cagent.

use crate::home;
use crate::row::{Install, Recipe, Row, Tried};

/// See the module.
pub(crate) static ROW: Row = Row {
    name: "docker-agent",
    aliases: &["cagent"],
    title: "Docker Agent",
    install: Install::Inside(Recipe {
        program: "docker-agent",
        script: "mkdir -p \"$HOME/.local/bin\"\n\
                 curl -fsSL -o \"$HOME/.local/bin/docker-agent.new\" \
                 https://github.com/docker/docker-agent/releases/latest/download/docker-agent-linux-amd64\n\
                 chmod 755 \"$HOME/.local/bin/docker-agent.new\"\n\
                 mv \"$HOME/.local/bin/docker-agent.new\" \"$HOME/.local/bin/docker-agent\"",
    }),
    command: &["docker-agent", "run", "--yolo"],
    services: &["openai", "anthropic", "google", "xai", "nebius", "mistral"],
    variables: &[("TELEMETRY_ENABLED", "false")],
    network: &["github.com", ".githubusercontent.com"],
    project_file: None,
    note_file: None,
    files: home::none,
    placeholder_in_files: None,
    tried: Tried::Never,
};
