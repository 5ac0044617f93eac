//! The facts about the jail, each judged from what a probe process reports.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::{PROBE, probe};

type Fact = fn() -> Result<(), String>;

/// Every fact with its name.
pub(crate) const FACTS: &[(&str, Fact)] = &[
    ("share_keeps_its_files_and_nothing_else", share),
    (
        "supervisor_signals_only_itself_and_has_unix_sockets_until_it_is_sealed",
        supervisor,
    ),
    (
        "supervisor_removes_sockets_and_makes_and_renames_none",
        supervisor_sockets,
    ),
    ("machine_has_its_own_files_and_connects_to_nothing", machine),
    ("gateway_runs_a_threaded_runtime_and_connects", gateway),
    (
        "gateway_without_tcp_has_no_socket_for_it",
        gateway_without_tcp,
    ),
    ("read_only_grant_refuses_every_change", read_only),
    ("applying_after_threads_started_is_refused", threads_first),
    ("a_granted_path_that_is_missing_is_named", missing_path),
    ("a_profile_cannot_be_widened", beyond_profile),
];

const EPERM: &str = "1";
const EACCES: &str = "13";

/// What a probe printed, by name.
struct Report(BTreeMap<String, String>);

impl Report {
    fn of(name: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        for side in ["inside", "inside/dir", "outside"] {
            fs::create_dir(folder.path().join(side)).map_err(|error| error.to_string())?;
        }
        for side in ["inside", "outside"] {
            fs::write(folder.path().join(side).join("there"), "content")
                .map_err(|error| error.to_string())?;
        }
        // Landlock does not govern connections to it, whichever side of the grant it lies on.
        let _listener = UnixListener::bind(folder.path().join("outside/socket"))
            .map_err(|error| error.to_string())?;
        let output = Command::new(std::env::current_exe().map_err(|error| error.to_string())?)
            .env(PROBE, name)
            .env(probe::INSIDE, folder.path().join("inside"))
            .env(probe::OUTSIDE, folder.path().join("outside"))
            .output()
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(format!(
                "probe {name}: {}: {text}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Ok(Self(
            pairs
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        ))
    }

    fn expect(&self, wanted: &[(&str, &str)]) -> Result<(), String> {
        for (key, value) in wanted {
            let got = self.0.get(*key).map_or("(not reported)", String::as_str);
            if got != *value {
                return Err(format!(
                    "{key}: wanted {value}, got {got}; all: {:?}",
                    self.0
                ));
            }
        }
        Ok(())
    }

    /// Without Landlock what is not seccomp's is not refused; that is reported.
    fn has_landlock(&self) -> bool {
        let enforced = self.0.get("enforced").map_or("", String::as_str);
        !enforced.contains("NOT enforced")
    }

    /// So many calls at least were tried that may not be made, and all were refused.
    fn expect_forbidden(&self, least: usize) -> Result<(), String> {
        let tried = self.0.iter();
        let tried: Vec<_> = tried
            .filter(|(key, _)| key.starts_with("forbidden_"))
            .collect();
        if let Some((key, value)) = tried.iter().find(|(_, value)| *value != EPERM) {
            return Err(format!("{key}: wanted {EPERM}, got {value}"));
        }
        if tried.len() < least {
            return Err(format!("only {} forbidden calls were tried", tried.len()));
        }
        Ok(())
    }

    /// What holds in every profile of ours.
    fn expect_jail(&self) -> Result<(), String> {
        self.expect_forbidden(36)?;
        self.expect(&[
            ("no_new_privs", "1"),
            ("core_limit", "0"),
            ("exec", EPERM),
            ("write_inside", "ok"),
            ("read_inside", "ok"),
            ("mknod_device", EPERM),
            ("chmod_setuid", EPERM),
            ("raw_socket", EPERM),
            ("netlink", EPERM),
            ("thread", "42"),
        ])?;
        if !self.has_landlock() {
            return Ok(());
        }
        self.expect(&[
            ("read_outside", EACCES),
            ("read_etc", EACCES),
            ("read_proc_root", EACCES),
            ("write_outside", EACCES),
        ])
    }

    fn expect_rename(&self) -> Result<(), String> {
        let enforced = self.0.get("enforced").map_or("", String::as_str);
        if enforced.contains("landlock abi 1 ") {
            return Ok(());
        }
        self.expect(&[("rename_inside", "ok")])
    }
}

fn share() -> Result<(), String> {
    let report = Report::of("share")?;
    report.expect_jail()?;
    report.expect_rename()?;
    report.expect(&[("unix_outside", EPERM), ("unix_pair", EPERM)])
}

fn supervisor() -> Result<(), String> {
    let report = Report::of("supervisor")?;
    report.expect_jail()?;
    report.expect(&[
        ("rename_inside", EPERM),
        ("unix_pair", "ok"),
        ("unix_datagram_pair", EPERM),
        ("unix_outside", "ok"),
        ("sealed", "ok"),
        ("sealed_unix_outside", EPERM),
        ("sealed_unix_pair", EPERM),
        ("sealed_unix_connect_of_an_open_socket", EPERM),
        ("sealed_accept", "ok"),
        ("sealed_open_connection", "ok"),
        ("sealed_again", "not ok"),
        ("tcp_socket", EPERM),
        ("test_kill_self", "ok"),
        ("test_kill_parent", EPERM),
    ])
}

fn supervisor_sockets() -> Result<(), String> {
    let report = Report::of("supervisor_sockets")?;
    report.expect(&[
        ("unix_inside", "ok"),
        ("accept", "ok"),
        ("rename", EPERM),
        ("unlink", "ok"),
    ])?;
    if report.has_landlock() {
        report.expect(&[("new", EACCES), ("write", EACCES)])?;
    }
    Ok(())
}

fn machine() -> Result<(), String> {
    let report = Report::of("machine")?;
    report.expect_forbidden(95)?;
    report.expect(&[
        ("read", "ok"),
        ("write", "ok"),
        ("null", "ok"),
        ("listen", "ok"),
        ("unlink_socket", "ok"),
        ("unix_outside", EPERM),
        ("unix_pair", "ok"),
        ("unix_datagram_pair", EPERM),
        ("unix_datagram", EPERM),
        ("udp", EPERM),
        ("tcp_socket", EPERM),
        ("exec", "ok"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ])?;
    // Of a program that was started in it: root has got back nothing but reading (CAP_DAC_READ_SEARCH).
    for set in ["CapEff", "CapPrm"] {
        let found = report.0.get(set).map_or("", String::as_str);
        if !["0000000000000000", "0000000000000004"].contains(&found) {
            return Err(format!("{set}: {found}"));
        }
    }
    if !report.has_landlock() {
        return Ok(());
    }
    report.expect(&[
        ("unlink", EACCES),
        ("read_outside", EACCES),
        ("read_etc", EACCES),
        ("write_outside", EACCES),
        ("write_program", EACCES),
        ("write_beside_sockets", EACCES),
        ("listen_elsewhere", EACCES),
        ("rename", EACCES),
        ("exec_elsewhere", EACCES),
    ])
}

fn gateway() -> Result<(), String> {
    let report = Report::of("gateway")?;
    report.expect_jail()?;
    report.expect_rename()?;
    report.expect(&[
        ("tcp_listen_anywhere", EPERM),
        ("capabilities", "0000000000000000"),
        ("tokio_tcp", "ok"),
        ("tokio_answer", "hello"),
        ("tokio_file", "ok"),
        ("tokio_signal", "ok"),
        ("udp", "ok"),
        ("unix_pair", "ok"),
        ("unix_datagram_pair", EPERM),
        ("unix_outside", EPERM),
        ("unlink", "ok"),
    ])?;
    let knows_tcp = report
        .0
        .get("enforced")
        .is_some_and(|line| line.contains("fully enforced"));
    if knows_tcp {
        report.expect(&[("tcp_listen", EACCES)])
    } else {
        Ok(())
    }
}

fn gateway_without_tcp() -> Result<(), String> {
    Report::of("gateway_without_tcp")?.expect(&[("tcp_socket", EPERM), ("unix_outside", EPERM)])
}

fn read_only() -> Result<(), String> {
    Report::of("read_only")?.expect(&[("read", "ok"), ("write", EACCES), ("unlink", EPERM)])
}

fn threads_first() -> Result<(), String> {
    Report::of("threads_first")?.expect(&[("refused", "true")])
}

fn missing_path() -> Result<(), String> {
    let report = Report::of("missing_path")?;
    let message = report.0.get("message").cloned().unwrap_or_default();
    if message.contains("/nowhere/at/all") {
        Ok(())
    } else {
        Err(format!("message: {message}"))
    }
}

fn beyond_profile() -> Result<(), String> {
    use sbx_jail::{Jail, JailError, Profile};
    let tries = [
        Jail::new(Profile::Share).connect_tcp_any(),
        Jail::new(Profile::Supervisor).connect_tcp_any(),
        Jail::new(Profile::Machine).connect_tcp_any(),
        Jail::new(Profile::Supervisor).sockets_in("/"),
        Jail::new(Profile::Gateway).execute("/"),
        Jail::new(Profile::Share).device("/dev/null"),
    ];
    for jail in tries {
        let result = jail.apply();
        if !matches!(result, Err(JailError::BeyondProfile { .. })) {
            return Err(format!("{result:?}"));
        }
    }
    Ok(())
}
