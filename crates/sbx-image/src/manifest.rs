//! `manifest.json`: what an image consists of. Written last; an image without a fitting one does not exist.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// File name inside an image's folder.
pub(crate) const FILE: &str = "manifest.json";
/// Version of the document; another one means that the image is built again.
pub(crate) const SCHEMA: u32 = 1;
/// A manifest larger than this is not one, bytes.
pub(crate) const MAX_BYTES: u64 = 1 << 20;

/// See the module. File names are relative to the image's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this document.
    pub schema: u32,
    /// `base`, or the agent that this is the layer of.
    pub template: String,
    /// Key, which is also the folder's name.
    pub key: String,
    /// Which build of this key it is: random. A key says what an image is to be made of, not what the archive had that
    /// day, so disks and snapshots belong to one build. Empty: of a version that noted none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub build: String,
    /// Key of the image below; `None` for a base image.
    pub base: Option<String>,
    /// Its [`Self::build`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub base_build: String,
    /// When it was complete, seconds since the Unix epoch.
    pub built_at_unix_s: u64,
    /// EROFS file.
    pub lower: String,
    /// Kernel; only a base image has one.
    pub kernel: Option<Kernel>,
    /// Modules for the initramfs, in the order in which they are to be loaded.
    pub modules: Vec<String>,
    /// Empty writable disk; only in a base image.
    pub upper: Option<Disk>,
    /// Empty Docker data disk; only in a base image.
    pub docker: Option<Disk>,
    /// Versions of what was asked for, by package.
    pub packages: BTreeMap<String, String>,
    /// `PATH` of the agent.
    pub path: String,
    /// Working directory when there is no workspace.
    pub workdir: String,
    /// The agent's command line with its default flags.
    pub agent_command: Vec<String>,
    /// What is left to be run inside a machine, because it is package code.
    pub finish: Vec<FinishStep>,
    /// Real sizes at the end of the build, bytes, by file.
    pub sizes: BTreeMap<String, u64>,
}

/// A kernel image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Release, as `uname -r` says.
    pub version: String,
    /// File: an ELF image with a PVH entry where one could be had, else a bzImage.
    pub file: String,
}

/// A preformatted disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// File: raw, sparse, ext4.
    pub file: String,
    /// Apparent size, bytes.
    pub bytes: u64,
}

/// One command to run inside a machine of the unfinished image. It must exit with 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishStep {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// User inside.
    pub user: String,
    /// Longest it may take under emulation, seconds.
    pub limit_s: u32,
}

impl Manifest {
    /// Reads a manifest; `None` for anything but a valid one of this version.
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(text)
            .ok()
            .filter(|manifest| manifest.schema == SCHEMA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let disk = |file: &str| {
            Some(Disk {
                file: file.into(),
                bytes: 1 << 30,
            })
        };
        Manifest {
            schema: SCHEMA,
            template: "base".into(),
            key: "base-00".into(),
            build: "b1".into(),
            base: None,
            base_build: String::new(),
            built_at_unix_s: 1_700_000_000,
            lower: "rootfs.erofs".into(),
            kernel: Some(Kernel {
                version: "6.12.1".into(),
                file: "vmlinux".into(),
            }),
            modules: vec!["modules/00-erofs.ko".into()],
            upper: disk("upper.ext4"),
            docker: disk("docker.ext4"),
            packages: BTreeMap::from([("git".into(), "1:2.47".into())]),
            path: "/usr/bin".into(),
            workdir: "/home/agent".into(),
            agent_command: vec!["bash".into(), "-l".into()],
            finish: vec![FinishStep {
                argv: vec!["true".into()],
                user: "agent".into(),
                limit_s: 9,
            }],
            sizes: BTreeMap::from([("rootfs.erofs".into(), 42)]),
        }
    }

    #[test]
    fn manifest_survives_being_written_and_read() {
        let text = serde_json::to_vec_pretty(&sample()).unwrap();
        assert_eq!(Manifest::parse(&text), Some(sample()));
    }

    #[test]
    fn manifest_of_a_version_that_noted_no_build_is_read() {
        let mut value = serde_json::to_value(sample()).unwrap();
        let fields = value.as_object_mut().unwrap();
        fields.remove("build").unwrap();
        let old = Manifest::parse(value.to_string().as_bytes()).unwrap();
        assert_eq!((old.build, old.base_build), (String::new(), String::new()));
    }

    #[test]
    fn another_version_an_unknown_field_and_half_a_file_are_no_manifest() {
        let other = serde_json::to_vec(&Manifest {
            schema: SCHEMA + 1,
            ..sample()
        })
        .unwrap();
        assert_eq!(Manifest::parse(&other), None);
        let text = serde_json::to_string(&sample()).unwrap();
        assert_eq!(
            Manifest::parse(text.replacen('{', "{\"new\":1,", 1).as_bytes()),
            None
        );
        assert_eq!(Manifest::parse(&text.as_bytes()[..text.len() / 2]), None);
    }
}
