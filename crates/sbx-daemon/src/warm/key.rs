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
        bases: image.bases(),
    };
    let personalise = personalise(daemon, record, &image.path).await?;
    let socket = Path::new("/socket");
    let arguments = arguments(&Plan {
        label: "",
        spec: &machine,
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
        qemu: qemu::version(qemu).await?.to_string(),
        arguments: without_frequency(&arguments),
        image: &image.key,
        upper: &image.upper,
        docker: &image.docker,
        processor: processor(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        prepare: personalise.prepare(),
    };
    let text = serde_json::to_vec(&identity)
        .map_err(|error| Report::bug("json", format!("a snapshot's identity: {error}")))?;
    let digest = Sha256::digest(&text);
    Ok(Wanted {
        key: digest[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        template: record.agent.name.to_owned(),
        upper: image.upper.clone(),
        docker: image.docker.clone(),
        machine,
        personalise,
    })
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
