//! Droid.

use crate::home;
use crate::row::{Body, Install, Layer, Package, Program, Row, Tried};

/// See the module.
pub(crate) static ROW: Row = Row {
    name: "droid",
    aliases: &[],
    title: "Droid",
    install: Install::Layer(Layer {
        packages: &[Package {
            name: "@factory/cli-linux-x64-baseline",
            platform: "",
            version: None,
            from: "package",
            to: "usr/local/lib/droid",
            keep: &["bin/droid", "package.json"],
            omit: &[],
            executable: &["bin/droid"],
        }],
        programs: &[Program {
            name: "droid",
            body: Body::Link("../lib/droid/bin/droid"),
        }],
        check: &["droid", "--version"],
        space_mib: 600,
    }),
    command: &["droid"],
    services: &["droid"],
    variables: &[("FACTORY_DROID_AUTO_UPDATE_ENABLED", "false")],
    network: &[".factory.ai"],
    project_file: Some("AGENTS.md"),
    note_file: Some(".factory/AGENTS.md"),
    files: home::none,
    placeholder_in_files: None,
    tried: Tried::Never,
};
