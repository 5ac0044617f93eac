//! Machines that do not come up when they are started first.

use crate::setting::{Setting, cache};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Memory of no other machines, so that there is no snapshot of such a one.
fn memory_mib() -> u64 {
    1100 + u64::from(std::process::id() % 100)
}

/// In place of QEMU: the first machine of a sandbox never executes an instruction, the first for a snapshot ends at once.
const STAND_IN: &str = r#"#!/bin/sh
here=$(dirname "$0")
case "$*" in
*"-name sbx-"*memory-backend-file*) mkdir "$here/marks/saved" 2>/dev/null && exit 1 ;;
*"-name sbx-"*) mkdir "$here/marks/booted" 2>/dev/null && set -- "$@" -S ;;
esac
exec QEMU "$@"
"#;

#[test]
fn a_machine_that_does_not_come_up_is_started_once_more() {
    let mut setting = Setting::ordinary("deny-all");
    let marks = stand_in(&mut setting);
    let set = |key: &str, value: &str| {
        let set = ["settings", "set", key, value];
        setting.installation.sbx(set).success().unwrap();
    };
    let memory = format!("{}m", memory_mib());
    let create = |name: &str| {
        let words = [
            "create", "shell", "--name", name, "--memory", &memory, "--cpus", "2",
        ];
        setting.installation.sbx(words)
    };
    let start = |name: &str| {
        create(name).success().unwrap();
        setting.inspect(name)["start"].as_str().unwrap().to_owned()
    };
    // A script is no program that a confined process becomes.
    set("machine.confine", "off");
    set("sandbox.warmStart", "off");
    set("machine.startLimit", "25s");
    let created = create("first");
    assert!(
        created.stderr.contains("not ready after 25 s")
            && created.stderr.contains("starting it once more"),
        "{created}"
    );
    created.success().unwrap();
    assert!(marks.join("booted").is_dir());
    assert_eq!(setting.inside("first", "echo up"), "up\n");
    // What the machine did is written down: nobody sees it again.
    let logs = setting.installation.state().join("sandboxes");
    let id = setting.inspect("first")["id"].as_str().unwrap().to_owned();
    let log = fs::read_to_string(logs.join(id).join("supervisor.log")).unwrap();
    assert!(
        log.contains("info registers -a: EIP=0000fff0"),
        "where its first processor is: {log}"
    );
    assert!(log.contains("info lapic 1: "), "{log}");

    // The same for the machine that is to be a snapshot: it is made all the same, while nobody asks for it again.
    set("machine.startLimit", "2m");
    set("sandbox.warmStart", "on");
    assert_eq!(start("second"), "cold");
    setting.await_snapshots();
    assert!(marks.join("saved").is_dir());
    assert_eq!(start("third"), "warm");
    remove_snapshots();
}

/// Puts the stand-in in front of QEMU. Returns where it notes what it has done.
fn stand_in(setting: &mut Setting) -> PathBuf {
    let real = std::env::var_os("PATH").unwrap();
    let mut found = std::env::split_paths(&real).map(|folder| folder.join("qemu-system-x86_64"));
    let qemu = found.find(|path| path.is_file()).unwrap();
    let folder = setting.root().join("stand-in");
    let marks = folder.join("marks");
    fs::create_dir_all(&marks).unwrap();
    let program = folder.join("qemu-system-x86_64");
    let script = STAND_IN.replace("QEMU", qemu.to_str().unwrap());
    fs::write(&program, script).unwrap();
    for path in [&folder, &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    setting.installation.own(&marks).unwrap();
    // Started anew, the daemon looks there too.
    setting.installation.find_first(&folder);
    let stop = ["daemon", "stop"];
    setting.installation.sbx(stop).success().unwrap();
    marks
}

/// Removes the snapshots of this test's machines.
fn remove_snapshots() {
    let folders = fs::read_dir(cache().join("sbx/snapshots"));
    for folder in folders.into_iter().flatten().flatten() {
        if memory(&folder.path()) == Some(memory_mib()) {
            fs::remove_dir_all(folder.path()).unwrap();
        }
    }
}

fn memory(snapshot: &Path) -> Option<u64> {
    let manifest = fs::read(snapshot.join("snapshot.json")).ok()?;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).ok()?;
    manifest["memory_mib"].as_u64()
}
