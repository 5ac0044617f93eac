//! The message that makes a booted machine this sandbox and no other.

use crate::agents;
use crate::credentials;
use crate::daemon::Daemon;
use crate::git_identity;
use crate::image;
use crate::record::Record;
use crate::ssh_agent;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sbx_agents::{Facts, Seed};
use sbx_wire::api::Workspace;
use sbx_wire::gateway::PROXY_PORT;
use sbx_wire::guest::{GuestFile, Mount, NetworkIdentity, Personalise};
use sbx_wire::launch::ShareSpec;
use sbx_wire::report::Report;
use sbx_wire::trust;
use sbx_workspace::Rules;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The guest's side of its private network; every sandbox has the same one, none can see another's.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 2);
/// The gateway's side.
const GATEWAY: Ipv4Addr = sbx_policy::GATEWAY_ADDRESS;
const PREFIX: u8 = 24;
/// Largest frame of the network, bytes: emulated guests pay per packet.
const MTU: u16 = 65_520;
/// Sourced by every Bash start.
const PERSISTENT: &str = "/etc/sandbox-persistent.sh";
const PROXY_HOST: &str = "gateway.docker.internal";
/// Names under which the guest knows the gateway, and through it the host.
const GATEWAY_NAMES: [&str; 4] = [
    PROXY_HOST,
    "host.docker.internal",
    "gateway.sbx.internal",
    "host.sbx.internal",
];
const AGENT_UID: u32 = 1000;

/// The shares and their mounts, parents first.
pub(crate) fn shares(record: &Record) -> (Vec<ShareSpec>, Vec<Mount>) {
    let mut workspaces: Vec<_> = record.workspaces.iter().collect();
    workspaces.sort_by(|a, b| a.path.cmp(&b.path));
    let shares: Vec<ShareSpec> = workspaces
        .iter()
        .enumerate()
        .map(|(index, workspace)| share(index, workspace))
        .collect();
    let mounts = shares
        .iter()
        .zip(workspaces)
        .map(|(share, workspace)| Mount {
            tag: share.tag.clone(),
            // Checked to be text when the sandbox was made.
            path: workspace.path.to_string_lossy().into_owned(),
            read_only: share.read_only,
        })
        .collect();
    (shares, mounts)
}

/// Its rules are found at each start: the workspace's own list is a part of them.
fn share(index: usize, workspace: &Workspace) -> ShareSpec {
    let name = workspace.path.file_name().and_then(|name| name.to_str());
    let parent = workspace.path.parent();
    let (Some(parent), Some(name), true) = (parent, name, workspace.path.is_file()) else {
        return ShareSpec {
            tag: format!("workspace{index}"),
            host: workspace.path.clone(),
            read_only: workspace.read_only,
            rules: Rules::default(),
        };
    };
    ShareSpec {
        tag: format!("{}{index}", Mount::FILE),
        host: parent.to_path_buf(),
        // Whoever could write to it could put another file in its place.
        read_only: true,
        rules: Rules {
            only: Some(name.to_owned()),
            ..Rules::default()
        },
    }
}

/// The message. `path`: the image's `PATH`. Entropy and clock are the supervisor's to fill in. Git is asked for the user's
/// name, which takes what it takes: nobody else waits for that.
pub(crate) async fn personalise(
    daemon: &Arc<Daemon>,
    record: &Record,
    path: &str,
) -> Result<Personalise, Report> {
    let (daemon, record, path) = (daemon.clone(), record.clone(), path.to_owned());
    image::blocking(move || message(&daemon, &record, &path)).await
}

/// [`personalise`], on a thread that may wait.
fn message(daemon: &Daemon, record: &Record, path: &str) -> Personalise {
    let (_, mounts) = shares(record);
    let placeholder = |service: &str| {
        record
            .placeholders
            .get(service)
            .cloned()
            .unwrap_or_default()
    };
    let paths: Vec<String> = record
        .workspaces
        .iter()
        .map(|w| w.path.to_string_lossy().into_owned())
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let mut files = vec![GuestFile {
        path: PERSISTENT.to_owned(),
        content: Vec::new(),
        mode: 0o644,
        owner: AGENT_UID,
        only_if_missing: true,
    }];
    let seed = Seed {
        workspaces: &paths,
        placeholder: &placeholder,
        tokens: &|service| credentials::tokens(&daemon.secrets(), record.name.as_str(), service),
    };
    files.extend(record.agent.home_files(&seed, &facts(daemon, record)));
    files.extend(git_identity::files(daemon));
    let ca_pem = daemon.root.certificate_pem().to_owned();
    Personalise {
        hostname: hostname(record.name.as_str()),
        machine_id: record.machine_id.clone(),
        entropy: Vec::new(),
        unix_ns: 0,
        network: NetworkIdentity {
            address: ADDRESS,
            prefix: PREFIX,
            gateway: GATEWAY,
            mtu: MTU,
            hosts: GATEWAY_NAMES
                .iter()
                .map(|name| (GATEWAY, (*name).to_owned()))
                .collect(),
        },
        mounts,
        env: environment(daemon, record, path, &ca_pem),
        ca_pem,
        files,
        workdir: record.workdir.clone(),
        docker: true,
    }
}

/// What the agent is told about its sandbox.
fn facts(daemon: &Daemon, record: &Record) -> Facts {
    let name = record.name.as_str();
    let workspaces = record
        .workspaces
        .iter()
        .map(|w| (w.path.to_string_lossy().into_owned(), w.read_only))
        .collect();
    let rules = daemon.store().policy().for_sandbox(Some(name));
    let services = credentials::names(&daemon.secrets(), name);
    agents::facts(name, workspaces, &rules, services)
}

fn environment(daemon: &Daemon, record: &Record, path: &str, ca: &str) -> Vec<(String, String)> {
    let proxy = format!("http://{PROXY_HOST}:{PROXY_PORT}");
    let direct = format!("localhost,127.0.0.1,::1,{PROXY_HOST}");
    let mut env: Vec<(String, String)> = [
        ("PATH", path),
        ("HTTP_PROXY", &proxy),
        ("HTTPS_PROXY", &proxy),
        ("http_proxy", &proxy),
        ("https_proxy", &proxy),
        ("NO_PROXY", &direct),
        ("no_proxy", &direct),
        ("NODE_USE_ENV_PROXY", "1"),
        ("PROXY_CA_CERT_B64", &STANDARD.encode(ca)),
        (trust::JAVA_OPTIONS, &trust::java_option(trust::JAVA_STORE)),
        ("SANDBOX_NAME", record.name.as_str()),
        ("SANDBOX_ID", &record.id),
        ("WORKSPACE_DIR", &record.workdir),
        ("IS_SANDBOX", "1"),
        ("BASH_ENV", PERSISTENT),
        ("BROWSER", "xdg-open"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    env.retain(|(_, value)| !value.is_empty());
    let roots = |name: &&str| ((*name).to_owned(), trust::BUNDLE.to_owned());
    env.extend(trust::BUNDLE_VARIABLES.iter().map(roots));
    env.extend(agents::variables(record.agent));
    // As they were at its start; the SSH agent may be switched off while it runs.
    env.extend(without_own(credentials::variables(daemon, record), record));
    env.extend(record.env.iter().cloned());
    env
}

/// Variables that are handed to each new session as they are now: those of the stored secrets, and where the SSH agent is.
pub(crate) fn session_variables(daemon: &Daemon, record: &Record) -> Vec<(String, String)> {
    let mut variables = credentials::variables(daemon, record);
    variables.extend(ssh_agent::variable(daemon));
    without_own(variables, record)
}

/// Those that the sandbox was made with stand above them.
fn without_own(mut variables: Vec<(String, String)>, record: &Record) -> Vec<(String, String)> {
    variables.retain(|(name, _)| !record.env.iter().any(|(own, _)| own == name));
    variables
}

/// A host name (RFC 1123, 2.1) made of a sandbox name: dots would make it a qualified one.
fn hostname(name: &str) -> String {
    let host: String = name
        .chars()
        .map(|c| {
            if c == '.' {
                '-'
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect();
    host.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_have_no_dots_and_no_hyphen_at_the_edge() {
        assert_eq!(hostname("Claude-my.app"), "claude-my-app");
        assert_eq!(hostname("a.b"), "a-b");
    }
}
