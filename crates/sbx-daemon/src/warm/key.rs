//! Which machines are the same before they become a sandbox. Everything that QEMU or the guest was told, or that
//! they depend on, is part of a snapshot's name; so nothing has to be compared later, and nothing can be forgotten
//! that is on QEMU's command line.

use crate::daemon::Daemon;
use crate::personalise::personalise;
use crate::record::Record;
use sbx_image::Image;
use sbx_machine::args::{Life, Plan, arguments};
use sbx_machine::qemu;
use sbx_wire::guest::{Personalise, Prepare};
use sbx_wire::launch::MachineSpec;
use sbx_wire::report::Report;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rises with every change to what a snapshot holds or how it is made.
const FORMAT: u32 = 1;

/// A machine that a snapshot is wanted of.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// 32 hex digits.
    pub(super) key: String,
    /// For people.
    pub(super) template: String,
    /// Key of the image that it boots from.
    pub(super) image: String,
    /// The machine; its own disks are placeholders.
    pub(super) machine: MachineSpec,
    /// Templates of the disks.
    pub(super) upper: PathBuf,
    pub(super) docker: PathBuf,
    /// A sandbox of this kind: what all of them have in common is taken from it.
    pub(super) personalise: Personalise,
}

#[derive(Serialize)]
struct Identity<'a> {
    format: u32,
    guest: u16,
    qemu: String,
    arguments: Vec<String>,
    image: &'a str,
    /// Which build of it: its files have the same names in all.
    #[serde(skip_serializing_if = "str::is_empty")]
    build: &'a str,
    upper: &'a Path,
    docker: &'a Path,
    processor: String,
    prepare: Prepare,
}

/// What a snapshot for this sandbox would be of.
pub(super) async fn wanted(
    daemon: &Arc<Daemon>,
    record: &Record,
    image: &Image,
    (kernel, initramfs): (PathBuf, PathBuf),
    qemu: &Path,
) -> Result<Wanted, Report> {
    let machine = MachineSpec {
        accel: record.accel,
        cpus: record.cpus,
        memory_mib: record.memory_mib,
        kernel,
        initramfs,
        lowers: image.lowers.clone(),
        upper: "/upper".into(),
        docker: "/docker".into(),
        bases: vec![image.upper.clone(), image.docker.clone()],
    };
    let personalise = personalise(daemon, record, &image.path).await?;
    let version = qemu::version(qemu).await?.to_string();
    Ok(Wanted {
        key: key(image, &machine, version, personalise.prepare())?,
        template: record.agent.name.to_owned(),
        image: image.key.clone(),
        upper: image.upper.clone(),
        docker: image.docker.clone(),
        machine,
        personalise,
    })
}

/// The name of the snapshot of a `machine` of this `image`.
fn key(
    image: &Image,
    machine: &MachineSpec,
    qemu: String,
    prepare: Prepare,
) -> Result<String, Report> {
    let socket = Path::new("/socket");
    let arguments = arguments(&Plan {
        label: "",
        spec: machine,
        qmp: socket,
        guest: socket,
        frames: socket,
        shares: &[],
        life: Life::Save,
    });
    let arguments = arguments.map_err(|error| Report::bug("arguments", error.to_string()))?;
    let identity = Identity {
        format: FORMAT,
        guest: sbx_wire::guest::VERSION,
        qemu,
        arguments: without_frequency(&arguments),
        image: &image.key,
        build: &image.manifest.build,
        upper: &image.upper,
        docker: &image.docker,
        processor: processor(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        prepare,
    };
    let text = serde_json::to_vec(&identity)
        .map_err(|error| Report::bug("json", format!("a snapshot's identity: {error}")))?;
    let digest = Sha256::digest(&text);
    let bytes = digest[..16].iter();
    Ok(bytes.map(|byte| format!("{byte:02x}")).collect())
}

/// The counter's frequency is measured anew by every process, and differs in the last digits; it is compared with
/// a tolerance when a snapshot is used.
fn without_frequency(arguments: &[String]) -> Vec<String> {
    let words = |text: &String| {
        let kept = text.split(' ').filter(|w| !w.starts_with("tsc_early_khz="));
        kept.collect::<Vec<_>>().join(" ")
    };
    arguments.iter().map(words).collect()
}

/// What the guest may have found out about the processor: the first one's name and features.
fn processor(cpuinfo: &str) -> String {
    let first = cpuinfo.split("\n\n").next().unwrap_or_default();
    let telling = [
        "vendor_id",
        "cpu family",
        "model",
        "model name",
        "stepping",
        "flags",
        "Features",
    ];
    let lines = first.lines().filter(|line| {
        let name = line.split(':').next().unwrap_or_default().trim();
        telling.contains(&name)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sbx_image::Manifest;
    use sbx_wire::launch::Accel;
    use serde_json::json;

    fn image(build: &str) -> Image {
        let manifest = json!({
            "schema": 1, "template": "base", "key": "base-0", "build": build, "base": null,
            "built_at_unix_s": 0, "lower": "rootfs.erofs", "kernel": null, "modules": [],
            "upper": null, "docker": null, "packages": {}, "path": "/usr/bin", "workdir": "/",
            "agent_command": [], "finish": [], "sizes": {},
        });
        Image {
            key: "base-0".into(),
            dir: "/i".into(),
            kernel: "/i/vmlinux".into(),
            kernel_version: "6.12.0".into(),
            modules: Vec::new(),
            lowers: vec!["/i/rootfs.erofs".into()],
            upper: "/i/upper.ext4".into(),
            docker: "/i/docker.ext4".into(),
            agent_command: Vec::new(),
            path: "/usr/bin".into(),
            workdir: "/".into(),
            manifest: Manifest::parse(manifest.to_string().as_bytes()).unwrap(),
        }
    }

    #[test]
    fn snapshot_of_an_image_is_not_found_for_another_build_of_it() {
        let key_of = |build: &str| {
            let image = image(build);
            let machine = MachineSpec {
                accel: Accel::Tcg,
                cpus: 1,
                memory_mib: 512,
                kernel: image.kernel.clone(),
                initramfs: "/c/initramfs".into(),
                lowers: image.lowers.clone(),
                upper: "/upper".into(),
                docker: "/docker".into(),
                bases: Vec::new(),
            };
            let prepare = Prepare {
                ca_pem: String::new(),
                mtu: 1500,
                env: Vec::new(),
                unix_ns: 0,
            };
            key(&image, &machine, "10.0.0".into(), prepare).unwrap()
        };
        assert_eq!(key_of("one"), key_of("one"));
        assert_ne!(key_of("one"), key_of("two"));
        assert_ne!(key_of("one"), key_of(""));
    }

    #[test]
    fn what_changes_by_the_minute_is_no_part_of_a_processor() {
        let info = |mhz| {
            format!(
                "processor\t: 0\nmodel name\t: X\ncpu MHz\t\t: {mhz}\nflags\t\t: a b\n\nprocessor\t: 1\n"
            )
        };
        assert_eq!(processor(&info(1)), processor(&info(2)));
        assert_eq!(processor(&info(1)), "model name\t: X\nflags\t\t: a b");
    }

    #[test]
    fn a_frequency_measured_anew_makes_no_other_machine() {
        let line = |khz| {
            vec![
                "-append".to_owned(),
                format!("quiet tsc_early_khz={khz} tsc=reliable"),
            ]
        };
        assert_eq!(without_frequency(&line(1)), without_frequency(&line(2)));
        assert_eq!(without_frequency(&line(1))[1], "quiet tsc=reliable");
    }
}
