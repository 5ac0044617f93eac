//! A disk as a power cut left it.

use crate::chance::Chance;
use sbx_testkit::write_log::{Request, WriteLog};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Lines of `e2fsck -p` that stand for what a mount does as well: the journal is replayed, files that were open when
/// they were deleted go, and totals are counted anew.
const USUAL: &[&str] = &[
    "recovering journal",
    "Clearing orphaned inode",
    " blocks",
    ": clean,",
];

/// On which side of the qcow2 layer the log was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// What the guest asked its disk for.
    Guest,
    /// What QEMU asked the disk's file for.
    File,
}

/// A disk that is made again step by step.
#[derive(Debug)]
pub struct Replay {
    layer: Layer,
    log: WriteLog,
    disk: PathBuf,
    done: usize,
    /// For each request the latest item that had been begun when it was made.
    begun: Vec<Option<u64>>,
}

/// What a cut left, mounted and read.
#[derive(Debug)]
pub struct After {
    /// Copy of the folder in which the work was done.
    pub files: PathBuf,
    /// Latest item that the guest had been told is safe; `None`: not one.
    pub confirmed: Option<u64>,
}

/// A cut: the requests up to and including `done`, and of those up to the next flush a part that `torn` chooses
/// (`None`: nothing of them).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Requests that were done and made to last.
    pub done: usize,
    /// Where the choice begins; any number.
    pub torn: Option<u64>,
}

impl Replay {
    /// The log in this folder; the disk is made in it.
    ///
    /// # Errors
    /// What does not work.
    pub fn open(logs: &Path, layer: Layer) -> Result<Self, String> {
        let before = logs.join("before.qcow2");
        let name = match layer {
            Layer::Guest => "above",
            Layer::File => "below",
        };
        let disk = logs.join(format!("{name}.disk"));
        match layer {
            Layer::Guest => raw(&before, &disk)?,
            Layer::File => ok(&run("cp", &[&text(&before), &text(&disk)])?)?,
        }
        let log = logs.join(format!("{name}.log"));
        let log = WriteLog::open(&log).map_err(|e| e.to_string())?;
        let mut latest = None;
        let mut begun = Vec::with_capacity(log.requests().len());
        for request in log.requests() {
            let data = log.data(request).map_err(|e| e.to_string())?;
            latest = latest.max(super::promise::latest_mark(&data));
            begun.push(latest);
        }
        Ok(Self {
            layer,
            log,
            disk,
            done: 0,
            begun,
        })
    }

    /// Up to `count` cuts right after a flush, evenly from all after the work began and always the last; every other
    /// one torn.
    pub fn cuts(&self, count: usize) -> Vec<Cut> {
        let begun = |done: &usize| {
            self.begun
                .get(done.saturating_sub(1))
                .is_some_and(Option::is_some)
        };
        let all: Vec<usize> = self.log.cuts().into_iter().filter(begun).collect();
        let step = all.len().div_ceil(count.max(1)).max(1);
        let numbered = all.iter().rev().step_by(step).enumerate();
        let mut chosen: Vec<Cut> = numbered
            .map(|(number, done)| Cut {
                done: *done,
                torn: (number % 2 == 1).then_some(*done as u64),
            })
            .collect();
        chosen.reverse();
        chosen
    }

    /// How many flushes there are in all.
    pub fn flushes(&self) -> usize {
        self.log.cuts().len()
    }

    /// The files after a cut, in a new folder `to`. Cuts have to come in their order.
    ///
    /// # Errors
    /// What is wrong with the disk. A qcow2 file may have lost track of space, but nothing else.
    pub fn after(&mut self, cut: Cut, to: &Path) -> Result<After, String> {
        forward(&self.log, &self.disk, &mut self.done, cut.done)?;
        let mut disk = tear(&self.log, &self.disk, cut, to)?;
        if self.layer == Layer::File {
            check_qcow2(&disk)?;
            let content = to.with_extension("content");
            raw(&disk, &content)?;
            fs::remove_file(&disk).map_err(|e| e.to_string())?;
            disk = content;
        }
        read(&disk, to)?;
        fs::remove_file(&disk).map_err(|e| e.to_string())?;
        Ok(After {
            files: to.join("power"),
            confirmed: self.confirmed(cut),
        })
    }

    /// What the guest had been told is safe when the last of the requests of this cut was made.
    fn confirmed(&self, cut: Cut) -> Option<u64> {
        let rest = self.log.requests().get(cut.done..).unwrap_or_default();
        let torn = rest
            .iter()
            .take_while(|request| **request != Request::Flush);
        let torn = if cut.torn.is_some() { torn.count() } else { 0 };
        let last = (cut.done + torn).checked_sub(1)?;
        // An item that has begun came after everything before it.
        (*self.begun.get(last)?)?.checked_sub(1)
    }
}

/// Clusters that belong to nothing cost space; anything else is broken.
fn check_qcow2(file: &Path) -> Result<(), String> {
    let words = ["check", "-f", "qcow2", "--output=json", &text(file)];
    let check = run("qemu-img", &words)?;
    let report: serde_json::Value = serde_json::from_slice(&check.stdout)
        .map_err(|error| format!("qemu-img check: {error}: {check:?}"))?;
    let errors = ["corruptions", "check-errors"].map(|key| report[key].as_u64().unwrap_or(0));
    // 3: leaked clusters and nothing else.
    if errors == [0, 0] && matches!(check.status.code(), Some(0 | 3)) {
        Ok(())
    } else {
        Err(format!("the qcow2 file is broken: {report:#}"))
    }
}

fn forward(log: &WriteLog, disk: &Path, done: &mut usize, to: usize) -> Result<(), String> {
    let file = File::options()
        .write(true)
        .read(true)
        .open(disk)
        .map_err(|e| e.to_string())?;
    let missing = log.requests().get(*done..to).ok_or("cuts go forwards")?;
    for request in missing {
        log.apply(request, &file).map_err(|e| e.to_string())?;
    }
    *done = to;
    Ok(())
}

/// A copy of the disk beside `to`, with a part of what nothing had made to last.
fn tear(log: &WriteLog, disk: &Path, cut: Cut, to: &Path) -> Result<PathBuf, String> {
    let copy = to.with_extension("disk");
    let words = ["--sparse=always", &text(disk), &text(&copy)];
    ok(&run("cp", &words)?)?;
    if let Some(seed) = cut.torn {
        let file = File::options()
            .write(true)
            .read(true)
            .open(&copy)
            .map_err(|e| e.to_string())?;
        let mut chance = Chance(seed);
        log.apply_some(cut.done, &file, || chance.below(2) == 1)
            .map_err(|e| e.to_string())?;
    }
    Ok(copy)
}

/// Checks the file system as a mount would find it, and copies the folder of the work out of it.
fn read(disk: &Path, to: &Path) -> Result<(), String> {
    let checked = run("e2fsck", &["-f", "-p", &text(disk)])?;
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    let usual = |line: &str| USUAL.iter().any(|known| line.contains(known));
    if !matches!(checked.status.code(), Some(0 | 1)) || !said.lines().all(usual) {
        return Err(format!(
            "the file system needs more than its journal: {checked:?}"
        ));
    }
    fs::create_dir_all(to).map_err(|e| e.to_string())?;
    let copy = format!("rdump /power {}", to.display());
    ok(&run("debugfs", &["-R", &copy, &text(disk)])?)
}

/// The content of a qcow2 disk as a raw one.
fn raw(from: &Path, to: &Path) -> Result<(), String> {
    let words = [
        "convert",
        "-f",
        "qcow2",
        "-O",
        "raw",
        &text(from),
        &text(to),
    ];
    ok(&run("qemu-img", &words)?)
}

fn run(program: &str, words: &[&str]) -> Result<Output, String> {
    let output = Command::new(program).args(words).output();
    output.map_err(|error| format!("{program}: {error}"))
}

fn ok(output: &Output) -> Result<(), String> {
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{output:?}"))
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
