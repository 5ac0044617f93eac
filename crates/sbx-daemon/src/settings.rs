//! Settings: a table of keys, each with its check. A value is stored in canonical form or not at all.

mod guarding;
mod machine;
mod ssh;
mod times;
mod upstreams;

use crate::store::StoredSetting;
use sbx_wire::api::Setting;
use sbx_wire::gateway::Upstream;
use sbx_wire::keys::DetachKeys;
use sbx_wire::report::Report;
use std::collections::BTreeMap;

use guarding::{hidden, level, masked, mount_rules};
pub(crate) use guarding::{hide, masks, mounts, protect};
use machine::wanted_kernel;
pub(crate) use machine::{WantedKernel, confined, kernel};
pub(crate) use ssh::{KeyUse, Ssh, ssh};
use times::{AUTO_STOP_DEFAULT, START_DEFAULT, auto_stop, start_limit_of};
pub(crate) use times::{auto_stop_s, start_limit};
use upstreams::{extra_roots, overrides, resolvers};

pub(crate) const BROWSER: &str = "browser.open";
pub(crate) const OVERRIDES: &str = "upstream.overrides";
pub(crate) const EXTRA_ROOTS: &str = "upstream.extraRoots";
pub(crate) const RESOLVERS: &str = "upstream.resolvers";
pub(crate) const UDP_EGRESS: &str = "feature.udp-egress";
pub(crate) const CONFINE: &str = "machine.confine";
pub(crate) const KERNEL: &str = "machine.kernel";
pub(crate) const START_LIMIT: &str = "machine.startLimit";
pub(crate) const AUTO_STOP: &str = "sandbox.autoStop";
pub(crate) const DETACH_KEYS: &str = "session.detachKeys";
pub(crate) const DOCKER_VOLUME: &str = "sandbox.disk.dockerVolume";
pub(crate) const WARM_START: &str = "sandbox.warmStart";
pub(crate) const SECRET_STORE: &str = "secrets.store";
pub(crate) const SSH_AGENT: &str = "ssh.agentForwardingEnabled";
pub(crate) const SSH_SOCKET: &str = "ssh.agentSocketPath";
pub(crate) const SSH_KEYS: &str = "ssh.agentKeys";
pub(crate) const PROTECT: &str = "workspace.protect";
pub(crate) const HIDE: &str = "workspace.hide";
pub(crate) const MASK: &str = "workspace.mask";
pub(crate) const MOUNTS_ALLOW: &str = "workspace.mounts.allow";
pub(crate) const MOUNTS_DENY: &str = "workspace.mounts.deny";

/// Smallest and largest Docker volume, bytes.
const DOCKER_BYTES: std::ops::RangeInclusive<u64> = 512 << 20..=4 << 40;
/// Default of the Docker volume.
const DOCKER_DEFAULT: &str = "10g";

/// Default of the keys: one that is kept back from no program while it is unclear what it means.
const DETACH_DEFAULT: &str = "ctrl-\\";

type Check = fn(&str) -> Result<StoredSetting, String>;

struct Key {
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    example: &'static str,
    restart: bool,
    description: &'static str,
    check: Check,
}

const KEYS: &[Key] = &[
    Key {
        name: BROWSER,
        kind: "bool",
        default: "true",
        example: "false",
        restart: false,
        description: "Whether pages that the policy allows are opened in the host's browser when a program inside asks",
        check: |text| flag(text).map(|flag| plain(flag.to_string())),
    },
    Key {
        name: UDP_EGRESS,
        kind: "bool",
        default: "false",
        example: "true",
        restart: false,
        description: "Whether rules with --protocol udp open UDP; without it nothing but DNS to the gateway passes",
        check: |text| flag(text).map(|flag| plain(flag.to_string())),
    },
    Key {
        name: CONFINE,
        kind: "bool",
        default: "true",
        example: "false",
        restart: false,
        description: "Whether QEMU may open only what its sandbox has and connect to nothing; without it, a machine that was taken over can do what its user can. For a QEMU that does not start otherwise",
        check: |text| flag(text).map(|flag| plain(flag.to_string())),
    },
    Key {
        name: KERNEL,
        kind: "string",
        default: "auto",
        example: "stock",
        restart: false,
        description: "Kernel of machines started from now on: stock (Debian's), small (built from Debian's source), or auto: small once it was built and seen to start no later",
        check: |text| wanted_kernel(text).map(|_| plain(text.trim().to_ascii_lowercase())),
    },
    Key {
        name: START_LIMIT,
        kind: "string",
        default: START_DEFAULT,
        example: "5m",
        restart: false,
        description: "Time for a machine started from now on to take orders, 5s to 30m; one under emulation that does not is started once more",
        check: |text| start_limit_of(text).map(|_| plain(text.trim().to_ascii_lowercase())),
    },
    Key {
        name: AUTO_STOP,
        kind: "string",
        default: AUTO_STOP_DEFAULT,
        example: "30m",
        restart: true,
        description: "How long a sandbox runs on after its last session has ended: 90s, 15m, 8h, 0 (stops at once) or never",
        check: |text| auto_stop(text).map(|_| plain(text.trim().to_ascii_lowercase())),
    },
    Key {
        name: DOCKER_VOLUME,
        kind: "string",
        default: DOCKER_DEFAULT,
        example: "20g",
        restart: false,
        description: "Size of the Docker data disk of sandboxes made from now on, at least 512m",
        check: |text| docker_bytes(text).map(|_| plain(text.trim().to_ascii_lowercase())),
    },
    Key {
        name: WARM_START,
        kind: "bool",
        default: "true",
        example: "false",
        restart: false,
        description: "Whether new sandboxes begin from a snapshot of a booted machine, and such snapshots are made",
        check: |text| flag(text).map(|flag| plain(flag.to_string())),
    },
    Key {
        name: SECRET_STORE,
        kind: "string",
        default: "auto",
        example: "file",
        restart: false,
        description: "Where secrets stored from now on are kept: keychain, file (encrypted with a key beside it), or auto: the keychain if one answers when the first is stored, else the file",
        check: |text| wanted_store(text).map(|_| plain(text.trim().to_ascii_lowercase())),
    },
    Key {
        name: DETACH_KEYS,
        kind: "string",
        default: DETACH_DEFAULT,
        example: "ctrl-p,ctrl-q",
        restart: false,
        description: "Keys that leave an agent running: letters and ctrl- with a letter or @ [ \\ ] ^ _, with commas between, or none",
        check: |text| {
            let keys: DetachKeys = text.trim().parse()?;
            Ok(plain(keys.to_string()))
        },
    },
    Key {
        name: SSH_AGENT,
        kind: "bool",
        default: "false",
        example: "true",
        restart: false,
        description: "Whether programs inside may ask the host's SSH agent for its keys, and for signatures for logins and commits; sessions that begin from now on find it",
        check: |text| flag(text).map(|flag| plain(flag.to_string())),
    },
    Key {
        name: SSH_KEYS,
        kind: "json",
        default: "{}",
        example: r#"'{"SHA256:...": "confirm"}'"#,
        restart: false,
        description: "Which keys of the SSH agent may be used, by fingerprint as ssh-add -l prints it, or * for the others: allow, or confirm to be asked each time; none named: all of them, without a question",
        check: |text| {
            let raw: BTreeMap<String, String> =
                serde_json::from_str(text).map_err(|error| error.to_string())?;
            ssh::keys(text)?;
            serde_json::to_string(&raw)
                .map(plain)
                .map_err(|error| error.to_string())
        },
    },
    Key {
        name: SSH_SOCKET,
        kind: "path",
        default: "",
        example: "/run/user/1000/keyring/ssh",
        restart: false,
        description: "Socket of the SSH agent; none: SSH_AUTH_SOCK, as the command had it that started the daemon",
        check: |text| ssh::socket(text).map(|_| plain(text.to_owned())),
    },
    Key {
        name: EXTRA_ROOTS,
        kind: "path",
        default: "",
        example: "/etc/ssl/company.pem",
        restart: false,
        description: "PEM file with further roots that the gateways trust upstream; read when it is set",
        check: extra_roots,
    },
    Key {
        name: OVERRIDES,
        kind: "json",
        default: "{}",
        example: r#"'{"api.example.com:443": "127.0.0.1:8443"}'"#,
        restart: false,
        description: "Where connections to a host:port are really made; the policy still decides on the host",
        check: |text| {
            let map = overrides(text)?;
            serde_json::to_string(&map)
                .map(plain)
                .map_err(|error| error.to_string())
        },
    },
    Key {
        name: RESOLVERS,
        kind: "json",
        default: "[]",
        example: r#"'["192.0.2.53"]'"#,
        restart: false,
        description: "DNS servers that the gateways ask; none: those of the host",
        check: |text| {
            let list = resolvers(text)?;
            serde_json::to_string(&list)
                .map(plain)
                .map_err(|error| error.to_string())
        },
    },
    Key {
        name: HIDE,
        kind: "list",
        default: "",
        example: "@secrets,*.sqlite",
        restart: true,
        description: "Names in workspaces that read as absent, as in gitignore, with commas between; @secrets stands for those where secrets are commonly kept",
        check: |text| hidden(text).map(|_| plain(text.trim().to_owned())),
    },
    Key {
        name: MASK,
        kind: "list",
        default: "",
        example: "node_modules,target,.venv",
        restart: true,
        description: "Directories of workspaces that are on the sandbox's own disk: names, wherever they are or a manifest says they will be, or paths, with commas between",
        check: |text| masked(text).map(|_| plain(text.trim().to_owned())),
    },
    Key {
        name: MOUNTS_ALLOW,
        kind: "list",
        default: "",
        example: "~/.config/app:ro",
        restart: false,
        description: "Home and other sensitive directories that may be workspaces: paths, with /* or /** for those below, :ro for reading only, with commas between",
        check: |text| mount_rules(text).map(|_| plain(text.trim().to_owned())),
    },
    Key {
        name: MOUNTS_DENY,
        kind: "list",
        default: "",
        example: "/srv/private/**",
        restart: false,
        description: "Directories that may not be workspaces, whatever else is said; written like workspace.mounts.allow",
        check: |text| mount_rules(text).map(|_| plain(text.trim().to_owned())),
    },
    Key {
        name: PROTECT,
        kind: "string",
        default: "standard",
        example: "block",
        restart: true,
        description: "How files are protected that run on the host: off, report, standard (git's own are blocked, others are reported) or block",
        check: |text| level(text).map(|level| plain(level.to_string())),
    },
];

fn plain(value: String) -> StoredSetting {
    StoredSetting {
        value,
        content: None,
    }
}

fn find(key: &str) -> Result<&'static Key, Report> {
    KEYS.iter().find(|known| known.name == key).ok_or_else(|| {
        let shown: String = key.chars().take(80).collect();
        Report::user(
            "setting-unknown",
            format!("there is no setting {shown:?}"),
            "sbx settings list",
        )
    })
}

/// Checks a value.
pub(crate) fn check(key: &str, value: &str) -> Result<StoredSetting, Report> {
    let known = find(key)?;
    (known.check)(value).map_err(|why| {
        Report::user(
            "setting-invalid",
            format!("{key}: {why}"),
            format!("sbx settings set {key} {}", known.example),
        )
    })
}

/// One setting as it is shown.
pub(crate) fn show(key: &str, stored: Option<&StoredSetting>) -> Result<Setting, Report> {
    let known = find(key)?;
    Ok(Setting {
        key: known.name.to_owned(),
        value: stored
            .map_or(known.default, |stored| &stored.value)
            .to_owned(),
        kind: known.kind.to_owned(),
        source: if stored.is_some() { "user" } else { "default" }.to_owned(),
        restart: known.restart,
        description: known.description.to_owned(),
        default: known.default.to_owned(),
    })
}

/// All settings, in order of key.
pub(crate) fn list(stored: &BTreeMap<String, StoredSetting>) -> Vec<Setting> {
    KEYS.iter()
        .filter_map(|known| show(known.name, stored.get(known.name)).ok())
        .collect()
}

/// What the gateways work from. Stored values passed [`check`]; one that a hand changed since counts as unset.
pub(crate) fn upstream(stored: &BTreeMap<String, StoredSetting>) -> Upstream {
    let value = |key| stored.get(key).map(|stored| stored.value.as_str());
    Upstream {
        overrides: value(OVERRIDES)
            .and_then(|text| overrides(text).ok())
            .unwrap_or_default(),
        extra_roots_pem: stored
            .get(EXTRA_ROOTS)
            .and_then(|s| s.content.clone())
            .into_iter()
            .collect(),
        resolvers: value(RESOLVERS)
            .and_then(|text| resolvers(text).ok())
            .unwrap_or_default(),
        udp_egress: opens_udp(stored),
    }
}

/// Whether rules may open UDP.
pub(crate) fn opens_udp(stored: &BTreeMap<String, StoredSetting>) -> bool {
    stored
        .get(UDP_EGRESS)
        .is_some_and(|stored| flag(&stored.value).unwrap_or_default())
}

/// Whether pages are opened in the host's browser.
pub(crate) fn opens_browser(stored: &BTreeMap<String, StoredSetting>) -> bool {
    stored
        .get(BROWSER)
        .is_none_or(|stored| stored.value == "true")
}

/// Whether new sandboxes begin from snapshots.
pub(crate) fn starts_warm(stored: &BTreeMap<String, StoredSetting>) -> bool {
    stored
        .get(WARM_START)
        .is_none_or(|stored| stored.value == "true")
}

/// Where secrets are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum WantedStore {
    /// In the keychain, if one was found.
    #[default]
    Auto,
    /// In the keychain.
    Keychain,
    /// In the encrypted file.
    File,
}

/// Where secrets stored from now on are kept.
///
/// # Errors
/// As [`hide`]: a value that was to go to the keychain must not go to a file.
pub(crate) fn secret_store(
    stored: &BTreeMap<String, StoredSetting>,
) -> Result<WantedStore, Report> {
    restricting(stored, SECRET_STORE, wanted_store)
}

fn wanted_store(text: &str) -> Result<WantedStore, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "auto" => Ok(WantedStore::Auto),
        "keychain" => Ok(WantedStore::Keychain),
        "file" => Ok(WantedStore::File),
        _ => Err("it is auto, keychain or file".to_owned()),
    }
}

/// What restricts: a value that a hand changed since is neither an empty list nor the default.
fn restricting<T: Default>(
    stored: &BTreeMap<String, StoredSetting>,
    key: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<T, Report> {
    let Some(stored) = stored.get(key) else {
        return Ok(T::default());
    };
    read(&stored.value).map_err(|why| {
        let message = format!("the setting {key} cannot be read: {why}");
        Report::user(
            "setting-invalid",
            message,
            format!("sbx settings unset {key}"),
        )
    })
}

/// Size of a new sandbox's Docker data disk, bytes; `None`: the image's own.
pub(crate) fn docker_volume(stored: &BTreeMap<String, StoredSetting>) -> Option<u64> {
    docker_bytes(&stored.get(DOCKER_VOLUME)?.value).ok()
}

/// Keys that detach a terminal.
pub(crate) fn detach_keys(stored: &BTreeMap<String, StoredSetting>) -> String {
    stored
        .get(DETACH_KEYS)
        .map_or(DETACH_DEFAULT, |stored| &stored.value)
        .to_owned()
}

fn flag(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "on" | "1" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

fn docker_bytes(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.trim_end_matches("ib").trim_end_matches('b');
    let (number, shift) = match lower.chars().last() {
        Some('k') => (&lower[..lower.len() - 1], 10),
        Some('m') => (&lower[..lower.len() - 1], 20),
        Some('g') => (&lower[..lower.len() - 1], 30),
        Some('t') => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    let bytes = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift));
    bytes
        .filter(|bytes| DOCKER_BYTES.contains(bytes))
        .ok_or_else(|| format!("{text:?} is not a size from 512m to 4t"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_are_stored_canonically_and_bad_ones_refused() {
        let stored = check(OVERRIDES, r#"{"API.example.com": "127.0.0.1:8443"}"#).unwrap();
        assert_eq!(stored.value, r#"{"api.example.com:443":"127.0.0.1:8443"}"#);
        for bad in [
            "",
            "[]",
            r#"{"a b": "1.2.3.4:5"}"#,
            r#"{"a.example": "there:1"}"#,
            r#"{"a.example":"1.2.3.4:0"}"#,
        ] {
            let error = check(OVERRIDES, bad).unwrap_err();
            assert_eq!(error.code, "setting-invalid", "{bad}");
            assert!(error.hint.is_some());
        }
    }

    #[test]
    fn one_key_detaches_unless_others_are_set() {
        let keys: Result<DetachKeys, _> = detach_keys(&BTreeMap::new()).parse();
        assert_eq!(keys.unwrap().keys().len(), 1);
    }

    #[test]
    fn sizes_and_resolvers_are_bounded_and_read() {
        assert_eq!(docker_bytes("10g"), Ok(10 << 30));
        assert_eq!(docker_bytes("512MiB"), Ok(512 << 20));
        for bad in ["", "g", "1g5", "100m", "-1g", "99999999t", "5t"] {
            assert!(docker_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(
            resolvers(r#"["192.0.2.1","[2001:db8::1]:5353"]"#).unwrap()[0].port(),
            53
        );
        assert!(resolvers(r#"["dns.example"]"#).is_err());
    }
}
