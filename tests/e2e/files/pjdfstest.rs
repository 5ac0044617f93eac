//! The pjdfstest suite inside, on a workspace.

use crate::clients::installed;
use crate::setting::Setting;
use std::collections::BTreeSet;

/// Tests that do not pass, each with the reason.
const LISTED: &str = include_str!("pjdfstest.txt");
const CONFIGURATION: &str = include_str!("pjdfstest.toml");

/// How many tests pass at least: fewer were skipped, or lost.
const ROOT: usize = 289;
const AGENT: usize = 253;
const READ_ONLY: usize = 13;

/// The names that one run ended with.
#[derive(Debug, Default)]
struct Ended {
    passed: usize,
    failed: BTreeSet<String>,
    output: String,
    took: std::time::Duration,
}

#[test]
fn pjdfstest_passes_for_root_and_agent_but_for_what_is_listed() {
    let setting = super::quick();
    let workspace = setting.shell("posix");
    let put = |name: &str, content: &[u8]| {
        let path = workspace.join(name);
        setting.installation.write(&path, content).unwrap();
        path
    };
    let program = std::fs::read(installed().join("cargo/bin/pjdfstest")).unwrap();
    let program = put("pjdfstest", &program);
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(program, executable).unwrap();
    put("usual.toml", CONFIGURATION.as_bytes());
    let remount = CONFIGURATION.replace("allow_remount = false", "allow_remount = true");
    put("remount.toml", remount.as_bytes());
    setting.inside("posix", "sudo useradd --no-create-home tests");

    let (mut failing, mut sometimes) = (BTreeSet::new(), BTreeSet::new());
    for line in LISTED.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("sometimes ") {
            Some(name) => sometimes.insert(name.to_owned()),
            None => failing.insert(line.to_owned()),
        };
    }
    failing.remove("");
    for (who, line, least, listed) in [
        // First: what a failed test of the others leaves running keeps the mount busy.
        (
            "root, read-only",
            "sudo ./pjdfstest -c remount.toml erofs",
            READ_ONLY,
            &BTreeSet::new(),
        ),
        ("root", "sudo ./pjdfstest -c usual.toml", ROOT, &failing),
        (
            "agent",
            "./pjdfstest -c usual.toml",
            AGENT,
            &BTreeSet::new(),
        ),
    ] {
        let ended = run(&setting, line);
        println!(
            "{who}: {} passed, {} failed in {:.1} s",
            ended.passed,
            ended.failed.len(),
            ended.took.as_secs_f64()
        );
        let unlisted: Vec<_> = ended.failed.difference(listed).collect();
        let unlisted: Vec<_> = unlisted
            .into_iter()
            .filter(|name| !sometimes.contains(*name))
            .collect();
        let mended: Vec<_> = listed.difference(&ended.failed).collect();
        let output = &ended.output;
        assert!(unlisted.is_empty(), "{who}: {unlisted:#?}\n{output}");
        assert!(
            mended.is_empty(),
            "{who}: these pass, and have to leave the list: {mended:#?}"
        );
        assert!(ended.passed >= least, "{who}: {}\n{output}", ended.passed);
    }
}

/// In a folder of its own.
fn run(setting: &Setting, line: &str) -> Ended {
    let line = format!("mkdir -p here && {line} --path $PWD/here");
    let outcome = setting.installation.inside("posix", &line);
    let mut ended = Ended::default();
    for line in outcome.stdout.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some(_), Some("ok")) => ended.passed += 1,
            (Some(name), Some("FAILED")) => {
                ended.failed.insert(name.to_owned());
            }
            _ => {}
        }
    }
    ended.took = outcome.took;
    ended.output = format!("{}{}", outcome.stdout, outcome.stderr);
    ended
}
