//! `sbx-logged-qemu`: in place of `qemu-system-x86_64`, the same with every write to one disk logged.
//!
//! Found as `qemu-system-x86_64` in a folder in front of the search path; there it reads `logged.json`. The disk that is
//! named there gets QEMU's `blklogwrites` on both sides of its qcow2 layer, and the file is copied as it was before.
//! Everything else is passed on, so what runs is the sandbox's own machine.
#![forbid(unsafe_code)]

use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// `logged.json`, beside the program.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    /// The real QEMU.
    qemu: PathBuf,
    /// Node name of the disk.
    disk: String,
    /// Folder for `above.log` (what the guest asked the disk for), `below.log` (what QEMU asked the file for) and
    /// `before.qcow2`.
    logs: PathBuf,
}

fn main() -> ExitCode {
    let error = match run() {
        Ok(error) | Err(error) => error,
    };
    let _ = writeln!(io::stderr(), "sbx-logged-qemu: {error}");
    ExitCode::FAILURE
}

/// Returns only when QEMU cannot be started.
fn run() -> io::Result<io::Error> {
    let here = std::env::current_exe()?;
    let plan = fs::read(here.with_file_name("logged.json"))?;
    let plan: Plan = serde_json::from_slice(&plan)?;
    let mut words = Vec::new();
    for word in std::env::args().skip(1) {
        words.push(match disk(&word, &plan.disk) {
            Some(node) => logged(node, &plan)?.to_string(),
            None => word,
        });
    }
    let mut command = Command::new(&plan.qemu);
    Ok(command.args(words).exec())
}

/// The disk's description, when this word is it.
fn disk(word: &str, name: &str) -> Option<Value> {
    let node: Value = serde_json::from_str(word).ok()?;
    (node.get("driver")? == "qcow2" && node.get("node-name")? == name).then_some(node)
}

fn logged(mut node: Value, plan: &Plan) -> io::Result<Value> {
    let file = node["file"].take();
    let path = file["filename"].as_str().unwrap_or_default();
    fs::copy(path, plan.logs.join("before.qcow2"))?;
    let log = |name: &str| -> io::Result<Value> {
        let path = plan.logs.join(name);
        File::create(&path)?;
        Ok(json!({"driver": "file", "filename": path}))
    };
    node["file"] = json!({"driver": "blklogwrites", "file": file, "log": log("below.log")?});
    if let Some(node) = node.as_object_mut() {
        node.remove("node-name");
    }
    Ok(
        json!({"driver": "blklogwrites", "node-name": plan.disk, "discard": "unmap",
              "file": node, "log": log("above.log")?}),
    )
}
