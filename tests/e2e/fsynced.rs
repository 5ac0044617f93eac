//! A share of `./dev soak fsynced`: what was said to be on the disk is there, whoever is killed.

use crate::setting::Setting;
use sbx_e2e::fsynced;

/// Kills and their seed.
const KILLS: u64 = 8;
const SEED: u64 = 1;

#[test]
fn nothing_fsynced_is_lost_when_machine_share_supervisor_or_daemon_is_killed() {
    let setting = Setting::ordinary("deny-all");
    setting.kernel("small");
    let workspace = setting.shell("fsynced");
    let place = ("fsynced", workspace.as_path());
    let report = fsynced::run(&setting.installation, place, (KILLS, SEED), |_| ()).unwrap();
    println!("{report}");
    assert!(
        report.records.iter().all(|count| *count > KILLS),
        "{report}"
    );
    assert!(report.commits > 0, "{report}");
}
