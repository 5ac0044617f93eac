//! Sandboxes run on during an upgrade, with gateways of the version that they were started by. Those refuse a configuration as
//! a whole that has something in it that they do not know, and would go on with an old policy.

use sbx_wire::gateway::{Credential, GatewayConfig};

/// What a gateway of the first version understands of a configuration, and whether nothing is missing that it could do anything
/// with. `None`: it understands all of it.
pub(crate) fn understood(config: &GatewayConfig) -> Option<(GatewayConfig, bool)> {
    let is_first = |credential: &Credential| {
        credential.basic_user.is_none()
            && credential.replace.is_none()
            && credential.unavailable.is_none()
            && !credential.on_demand
            && !credential.hosts.iter().any(|host| is_pattern(host))
    };
    let complete = config.credentials.iter().all(is_first);
    let plain = config.credentials.iter().all(|one| !one.conversation);
    let patterns = config
        .file
        .credential_hosts
        .iter()
        .any(|host| is_pattern(host));
    if complete && plain && !patterns && config.withdrawn.is_empty() && config.issuers.is_empty() {
        return None;
    }
    let mut older = config.clone();
    // It stopped no placeholder of what is not stored, made nothing unreadable, and let issuers be.
    older.withdrawn.clear();
    older.issuers.clear();
    older.credentials.retain(is_first);
    for credential in &mut older.credentials {
        credential.conversation = false;
    }
    older.file.credential_hosts.retain(|host| !is_pattern(host));
    Some((older, complete && !patterns))
}

fn is_pattern(host: &str) -> bool {
    host.starts_with('.') || host.contains(['*', '?', '['])
}
