//! Power loss: what a guest was told is safe, is safe on the host.

use crate::setting::Setting;
use sbx_e2e::power::{self, run};
use sbx_e2e::trace::{Call, Trace};
use std::path::PathBuf;

/// Seconds that each flush of the host is held up.
const DELAY_S: u32 = 3;
/// Items that the guest confirms before its power is cut, and cuts that are looked at on each side.
const ITEMS: u64 = 12;
const CUTS: usize = 6;

/// A place inside, and the file on the host that holds it.
struct Place {
    what: &'static str,
    /// Process that writes the file.
    role: &'static str,
    /// Path inside, in a shell.
    inside: &'static str,
    file: PathBuf,
}

#[test]
fn a_guest_fsync_returns_when_the_hosts_has_and_not_before() {
    let setting = Setting::ordinary("deny-all");
    let workspace = setting.shell("synced");
    let dir = PathBuf::from(setting.inspect("synced")["directory"].as_str().unwrap());
    setting.inside("synced", "docker volume create kept");
    let places = [
        Place {
            what: "root disk",
            role: "machine",
            inside: "/home/agent/marked",
            file: dir.join("upper.qcow2"),
        },
        Place {
            what: "Docker volume",
            role: "machine",
            inside: "/var/lib/docker/volumes/kept/_data/marked",
            file: dir.join("docker.qcow2"),
        },
        Place {
            what: "workspace",
            role: "share0",
            inside: "$PWD/marked",
            file: workspace.join("marked"),
        },
    ];
    for (number, place) in places.iter().enumerate() {
        // What waits from before goes first, so that the flushes below are those of this file.
        setting.inside("synced", "sync");
        let log = setting.root().join(format!("trace-{number}"));
        let trace = Trace::attach(
            setting.process("synced", place.role),
            &["fsync", "fdatasync"],
            DELAY_S,
            &log,
        );
        let trace = trace.unwrap();
        let mark = format!("sbx-mark-{number}");
        let [without, with] = times(&setting, &mark, place.inside);
        let calls = trace.end().unwrap();
        println!(
            "{}: written in {without:.2} s, written and synced in {with:.2} s with every flush of the host held up for {DELAY_S} s",
            place.what
        );
        flushed_behind(&calls, place, &mark);
        assert!(
            without < f64::from(DELAY_S),
            "{}: a write alone took {without} s: it says nothing about fsync",
            place.what
        );
        assert!(
            with >= f64::from(DELAY_S),
            "{}: fsync returned after {with} s, before the host's",
            place.what
        );
    }
    let text = std::fs::read_to_string(workspace.join("marked")).unwrap();
    assert!(text.starts_with("sbx-mark-2"), "{text:.40}");
}

/// Seconds for 64 KiB of marks without and with an fsync at the end, by the guest's clock.
fn times(setting: &Setting, mark: &str, path: &str) -> [f64; 2] {
    let line = format!(
        "one() {{ a=$(date +%s%N); yes {mark} | sudo dd of={path} bs=4k count=16 iflag=fullblock status=none $1; \
         b=$(date +%s%N); echo $((b - a)); }}; one; one conv=fsync"
    );
    let seen = setting.inside("synced", &line);
    let nanoseconds: Vec<f64> = seen.lines().map(|line| line.parse().unwrap()).collect();
    nanoseconds
        .try_into()
        .map(|both: [f64; 2]| both.map(|n| n / 1e9))
        .unwrap()
}

/// The host wrote the marks into that file, and flushed the file after that.
fn flushed_behind(calls: &[Call], place: &Place, mark: &str) {
    let on_file = || calls.iter().filter(|call| call.is_on(&place.file));
    let shown = || -> Vec<&Call> { on_file().collect() };
    let is_flush = |call: &&Call| matches!(call.name.as_str(), "fsync" | "fdatasync");
    let written = on_file()
        .filter(|call| !is_flush(call) && call.arguments.contains(mark))
        .filter_map(|call| call.ended)
        .max()
        .unwrap_or_else(|| panic!("{}: no write of {mark} in {:#?}", place.what, shown()));
    let flush = on_file().filter(is_flush).find(|call| call.begun > written);
    assert!(
        flush.is_some_and(|call| call.result == Some(0)),
        "{}: no flush of {} after the write at {written}: {:#?}",
        place.what,
        place.file.display(),
        shown()
    );
}

#[test]
fn after_a_power_cut_at_any_flush_everything_that_was_confirmed_is_there() {
    let mut setting = Setting::ordinary("deny-all");
    let root = setting.root().to_owned();
    let logs = run::prepare(&mut setting.installation, &root).unwrap();
    let workspace = setting.shell("cut");
    let logged = run::work(&setting.installation, ("cut", &workspace), ITEMS, &logs).unwrap();
    let report = power::check(&logged, &setting.installation, CUTS, |line| {
        println!("{line}");
    })
    .unwrap();
    println!("{report}");
}
