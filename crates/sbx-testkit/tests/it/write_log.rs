//! The log of a disk's writes, by the program that writes it in earnest.

use sbx_testkit::write_log::{Request, WriteLog};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

/// Has QEMU do these commands to a raw disk of 1 MiB, logged.
fn logged(folder: &Path, commands: &[&str]) -> WriteLog {
    let (disk, log) = (folder.join("disk"), folder.join("log"));
    File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    File::create(&log).unwrap();
    let options = format!(
        "driver=blklogwrites,file.driver=file,file.filename={},log.driver=file,log.filename={}",
        disk.display(),
        log.display()
    );
    let mut command = Command::new("qemu-io");
    command.args(["--image-opts", &options]);
    for one in commands {
        command.args(["-c", one]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    WriteLog::open(&log).unwrap()
}

#[test]
fn what_qemu_logged_makes_the_same_disk_again() {
    let folder = tempfile::tempdir().unwrap();
    let commands = [
        "write -P 0x61 0 8k",
        "flush",
        "write -P 0x62 4k 4k",
        "write -z 64k 4k",
        "discard 0 4k",
        "flush",
    ];
    let log = logged(folder.path(), &commands);
    let replayed = File::create_new(folder.path().join("replayed")).unwrap();
    replayed.set_len(1 << 20).unwrap();
    for request in log.requests() {
        log.apply(request, &replayed).unwrap();
    }
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let (mut disk, again) = (read("disk"), read("replayed"));
    // What was discarded reads as anything.
    disk[..4096].fill(0);
    assert!(disk == again && disk[4096] == 0x62);
    // QEMU has flushes of its own between them.
    let kinds: Vec<&str> = log.requests().iter().map(kind).collect();
    assert_eq!(kinds[..2], ["write", "flush"]);
    let changes: Vec<&str> = kinds.into_iter().filter(|kind| *kind != "flush").collect();
    assert_eq!(changes, ["write", "write", "write", "discard"]);
    assert_eq!(log.cuts()[0], 2);
}

#[test]
fn a_power_cut_keeps_what_was_flushed_and_any_part_of_what_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let commands = [
        "write -P 0x61 0 4k",
        "flush",
        "write -P 0x62 4k 4k",
        "write -P 0x63 8k 4k",
        "flush",
        "write -P 0x64 12k 4k",
        "flush",
    ];
    let log = logged(folder.path(), &commands);
    let after = |choices: &[bool]| {
        let disk = tempfile::tempfile_in(folder.path()).unwrap();
        disk.set_len(16 << 10).unwrap();
        let cut = log.cuts()[0];
        for request in &log.requests()[..cut] {
            log.apply(request, &disk).unwrap();
        }
        let mut choices = choices.iter();
        log.apply_some(cut, &disk, || *choices.next().unwrap())
            .unwrap();
        [0, 4096, 8192, 12_288].map(|at| {
            let mut byte = [0];
            disk.read_exact_at(&mut byte, at).unwrap();
            byte[0]
        })
    };
    assert_eq!(after(&[true, true]), [0x61, 0x62, 0x63, 0]);
    assert_eq!(after(&[false, true]), [0x61, 0, 0x63, 0]);
    assert_eq!(after(&[false, false]), [0x61, 0, 0, 0]);
}

#[test]
fn a_log_that_was_cut_off_ends_early_and_something_else_is_none() {
    let folder = tempfile::tempdir().unwrap();
    logged(
        folder.path(),
        &["write -P 0x61 0 8k", "flush", "write -P 0x62 0 8k", "flush"],
    );
    let path = folder.path().join("log");
    let whole = std::fs::read(&path).unwrap();
    let requests = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        WriteLog::open(&path).map(|log| log.requests().len())
    };
    let all = requests(&whole).unwrap();
    // The superblock, a description with 8 KiB, a flush, and half of the next.
    assert_eq!(
        requests(&whole[..512 + 512 + 8192 + 512 + 4096]).unwrap(),
        2
    );
    assert!(all >= 4);
    // A hole where a description should be, as a killed writer leaves it.
    let mut holed = whole.clone();
    holed[512 + 512 + 8192..512 + 512 + 8192 + 512].fill(0);
    assert_eq!(requests(&holed).unwrap(), 1);
    assert!(requests(&[0; 4096]).is_err() && requests(b"short").is_err());
    let mut huge = whole;
    huge[512 + 8..512 + 16].fill(0xff);
    assert!(requests(&huge).is_err());
}

fn kind(request: &Request) -> &'static str {
    match request {
        Request::Write { .. } => "write",
        Request::Discard { .. } => "discard",
        Request::Flush => "flush",
    }
}
