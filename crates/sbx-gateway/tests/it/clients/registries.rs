//! Package managers against the registries that this machine's own ones use, where those can be reached. Nothing here
//! knows their names: the clients' own configuration does.

use std::path::{Path, PathBuf};
use std::process::Command;

use sbx_policy::{HttpMatch, Methods, PathPattern};
use sbx_wire::gateway::ProxyKind;

use super::{Standin, Town, Way};
use crate::lab::{Setup, rule};

/// Variables by which a client finds its registry, and files for the same in their place.
const CONFIGURATION: &str = "
    if [ -f $OWN_HOME/.config/pip/pip.conf ]; then export PIP_CONFIG_FILE=$OWN_HOME/.config/pip/pip.conf; fi
    if [ -f $OWN_HOME/.npmrc ]; then cp $OWN_HOME/.npmrc .npmrc; fi
    export CARGO_HOME=$PWD/cargo
    mkdir cargo
    if [ -f $OWN_CARGO/config.toml ]; then cp $OWN_CARGO/config.toml cargo; fi
";

const PIP: &str = "$CLIENTS/python/bin/pip download --no-deps --no-cache-dir --disable-pip-version-check idna && ls idna*";
const NPM: &str = "npm install --no-fund --no-audit --no-update-notifier is-number && ls node_modules/is-number/package.json";
const CARGO: &str = "mkdir src && echo 'fn main() {}' > src/main.rs
    printf '[package]\\nname = \"job\"\\nedition = \"2021\"\\n[dependencies]\\ncfg-if = \"1\"\\n' > Cargo.toml
    cargo fetch && ls cargo/registry/src/*/cfg-if-1*/Cargo.toml";
const APT: &str = "apt-get -q -o APT::Sandbox::User= download libc6 && ls libc6*.deb";

/// The variables of this process that configure clients, as shell lines, and where their files are.
fn configuration() -> String {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let mut lines = format!(
        "OWN_HOME={}\nOWN_CARGO={}\n",
        quoted(&home.to_string_lossy()),
        quoted(&cargo.to_string_lossy())
    );
    for (name, value) in std::env::vars() {
        let plain = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let wanted = [
            "PIP_INDEX",
            "PIP_EXTRA",
            "npm_config_registry",
            "CARGO_REGISTR",
            "CARGO_SOURCE",
        ];
        if plain && wanted.iter().any(|start| name.starts_with(start)) {
            lines.push_str(&format!("export {name}={}\n", quoted(&value)));
        }
    }
    lines + CONFIGURATION
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[expect(clippy::print_stdout, reason = "whoever reads the tests' output")]
fn skipped(why: &str) {
    println!("skipped: {why}");
}

/// Whether the client gets what it wants without a gateway. Else it says so: there is nothing to test.
fn reachable(script: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args(["30", "bash", "-c", script])
        .current_dir(folder.path())
        .env("CLIENTS", super::installed())
        .output()
        .unwrap();
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = complaint.lines().last().unwrap_or_default();
        skipped(&format!(
            "the registry cannot be reached from here, {}: {last}",
            output.status
        ));
    }
    output.status.success()
}

/// Gets one package both ways, unread where the registry has TLS, and with every request read and judged.
fn gets_through(client: &str) {
    let script = format!("set -e\n{}{client}", configuration());
    if !reachable(&script) {
        return;
    }
    for opened in [false, true] {
        let mut setup = Setup::new(&["allow **"]);
        let host = std::fs::read_to_string("/etc/resolv.conf").unwrap();
        setup.file.upstream.resolvers = sbx_gateway::resolver::parse_resolv_conf(&host);
        if opened {
            let mut read = rule("allow **:443");
            read.http = Some(HttpMatch {
                methods: Methods::ANY,
                path: PathPattern::everything(),
            });
            setup.file.policy.rules = vec![read, rule("allow **:80")];
        }
        // A registry may be on a private address, and the machine's own clients go there.
        for block in ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"] {
            setup
                .file
                .policy
                .rules
                .push(rule(&format!("allow {block}")));
        }
        let nothing = Standin::program(([127, 0, 0, 1], 9).into(), String::new());
        let town = Town::start(setup, nothing);
        for way in [Way::Forward, Way::Transparent] {
            let outcome = town.run(way, &script, &[]);
            assert!(
                outcome.success,
                "{way:?}, opened: {opened}: {}",
                outcome.output
            );
            let passed = |kind| town.passed(kind);
            match way {
                Way::Forward => {
                    assert!(passed(ProxyKind::Forward) || passed(ProxyKind::ForwardBypass));
                }
                Way::Transparent => assert!(passed(ProxyKind::Transparent)),
            }
        }
    }
}

#[test]
fn pip_downloads_from_its_real_registry() {
    gets_through(PIP);
}

#[test]
fn npm_installs_from_its_real_registry() {
    gets_through(NPM);
}

#[test]
fn cargo_fetches_from_its_real_registry() {
    gets_through(CARGO);
}

#[test]
fn apt_downloads_from_its_real_archive() {
    if !Path::new("/var/lib/apt/lists")
        .read_dir()
        .is_ok_and(|lists| lists.count() > 3)
    {
        skipped("apt has no package lists");
        return;
    }
    gets_through(APT);
}
