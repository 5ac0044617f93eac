//! Rounds of writing, each with a kill at a random moment.

use super::promised::{Promised, check_both, check_config, nothing_of_ours};
use super::writer::Writer;
use crate::Installation;
use crate::chance::Chance;
use crate::installation::run as run_command;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Who is killed, in turn: by the names of `sbx inspect`, the daemon, and all of them at once.
const VICTIMS: [&str; 5] = ["share0", "machine", "daemon", "supervisor", "all"];
/// All that a sandbox has.
const ROLES: [&str; 4] = ["supervisor", "machine", "share0", "gateway"];
/// Latest moment of a kill after the guest has begun to write, in milliseconds.
const LATEST: u64 = 2500;
/// Items that have to follow in the guest after its daemon was killed.
const GO_ON: u64 = 3;
/// Longest until a state is reached.
const PATIENCE: Duration = Duration::from_mins(1);

/// What was done.
#[derive(Debug, Default)]
pub struct Report {
    /// Kills by victim.
    pub kills: BTreeMap<&'static str, u64>,
    /// Records of guest and host that were said to be safe, each with four other changes.
    pub records: [u64; 2],
    /// Commits of the guest that succeeded.
    pub commits: usize,
    /// Times that the sandbox started again, and the slowest.
    pub starts: u64,
    /// Until the guest's program had looked at everything.
    pub slowest_start: Duration,
    /// In all.
    pub took: Duration,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: u64 = self.kills.values().sum();
        write!(f, "{all} kills in {} s (", self.took.as_secs())?;
        for (number, (name, count)) in self.kills.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{name} {count}")?;
        }
        let ([guest, host], commits) = (self.records, self.commits);
        let (starts, slowest) = (self.starts, self.slowest_start.as_secs_f64());
        write!(
            f,
            "): {guest} records of the guest, {host} of the host, {commits} commits; {starts} starts, the slowest {slowest:.1} s"
        )
    }
}

struct Campaign<'a> {
    installation: &'a Installation,
    sandbox: &'a str,
    workspace: &'a Path,
    /// Of guest and host.
    said: [Promised; 2],
    /// Its machine does not answer any more; it ends at the next start.
    hanging: Option<Writer>,
    report: Report,
}

/// Kills `count` times while host and guest write into `workspace` of a sandbox; `each` is told about every kill.
///
/// # Errors
/// The first thing that was lost, left or did not start again, with the seed.
pub fn run(
    installation: &Installation,
    (sandbox, workspace): (&str, &Path),
    (count, seed): (u64, u64),
    mut each: impl FnMut(&Report),
) -> Result<Report, String> {
    let start = Instant::now();
    let mut campaign = Campaign {
        installation,
        sandbox,
        workspace,
        said: [Promised::of("guest"), Promised::of("host")],
        hanging: None,
        report: Report::default(),
    };
    campaign.host("git init -q -b main repo && cd repo && touch file && git add file && git -c user.name=t -c user.email=t@t.example commit -q -m 0")?;
    let mut chance = Chance(seed);
    for number in 0..count {
        let turn = usize::try_from(number).unwrap_or_default() % VICTIMS.len();
        let (victim, moment) = (VICTIMS[turn], chance.below(LATEST + 1));
        let round = campaign.round(victim, Duration::from_millis(moment));
        round.map_err(|why| {
            format!("seed {seed}, kill {number} ({victim} after {moment} ms): {why}")
        })?;
        *campaign.report.kills.entry(victim).or_default() += 1;
        campaign.report.took = start.elapsed();
        each(&campaign.report);
    }
    for writer in campaign.begin()? {
        writer.finish()?;
    }
    campaign.check()?;
    campaign.report.took = start.elapsed();
    Ok(campaign.report)
}

impl Campaign<'_> {
    fn round(&mut self, victim: &'static str, moment: Duration) -> Result<(), String> {
        let [mut guest, mut host] = self.begin()?;
        let processes = self.processes()?;
        let hit: Vec<u32> = processes
            .iter()
            .filter(|(role, _)| victim == "all" || *role == victim)
            .map(|(_, pid)| *pid)
            .collect();
        host.go()?;
        guest.go()?;
        let first = guest.next()?;
        self.said[0].hear(&[first]);
        std::thread::park_timeout(moment);
        for pid in hit {
            // With all of them, some may have ended with the first.
            if kill(pid).is_err() && victim != "all" {
                return Err(format!("{victim} had ended by itself"));
            }
        }
        self.after(victim, guest, &processes)?;
        let (rest, well) = host.finish()?;
        self.said[1].hear(&rest);
        if !well || rest.last().is_none_or(|line| line != "end") {
            return Err("the host's writer failed".to_owned());
        }
        self.check()
    }

    /// What has to follow from a kill.
    fn after(
        &mut self,
        victim: &str,
        mut guest: Writer,
        processes: &[(&'static str, u32)],
    ) -> Result<(), String> {
        if victim == "daemon" {
            let before = guest.so_far();
            self.said[0].hear(&before);
            let goal = self.said[0].records() + GO_ON;
            while self.said[0].records() < goal {
                let line = guest.next()?;
                self.said[0].hear(&[line]);
            }
            let (rest, well) = guest.finish()?;
            self.said[0].hear(&rest);
            return if well {
                Ok(())
            } else {
                Err("the guest's writer did not survive the daemon".to_owned())
            };
        }
        let wanted = if victim == "share0" {
            "unresponsive"
        } else {
            "stopped"
        };
        // A daemon that is killed may still take the request, and nobody answers it.
        self.wait(wanted, || {
            self.inspect()
                .is_ok_and(|inspect| inspect["state"].as_str() == Some(wanted))
        })?;
        if victim == "share0" {
            let before = guest.so_far();
            self.said[0].hear(&before);
            self.hanging = Some(guest);
            return Ok(());
        }
        let (rest, _) = guest.finish()?;
        self.said[0].hear(&rest);
        self.wait("its processes have ended", || {
            let mut sandbox = processes.iter().filter(|(role, _)| *role != "daemon");
            sandbox.all(|(_, pid)| !alive(*pid))
        })
    }

    /// A writer on each side, which have seen the same.
    fn begin(&mut self) -> Result<[Writer; 2], String> {
        let start = Instant::now();
        let mut guest = Writer::inside(self.installation, self.sandbox)?;
        let inside = guest.seen()?;
        self.report.starts += 1;
        self.report.slowest_start = self.report.slowest_start.max(start.elapsed());
        if let Some(hanging) = self.hanging.take() {
            let (rest, _) = hanging.finish()?;
            self.said[0].hear(&rest);
        }
        let mut host = Writer::outside(self.installation, self.workspace)?;
        let outside = host.seen()?;
        if inside != outside {
            return Err("guest and host see different files after the start".to_owned());
        }
        Ok([guest, host])
    }

    fn check(&mut self) -> Result<(), String> {
        for side in &self.said {
            side.check(self.workspace)?;
        }
        check_both(self.workspace, &self.said)?;
        check_config(self.workspace, &self.said[0])?;
        nothing_of_ours(self.workspace)?;
        let checked = self.host("git -C repo fsck --full --strict --no-dangling 2>&1")?;
        if !checked.is_empty() {
            return Err(format!("git fsck: {checked}"));
        }
        let there = self.host("git -C repo rev-list main")?;
        let commits = self.said[0].commits();
        if let Some(lost) = commits.iter().find(|commit| !there.contains(*commit)) {
            return Err(format!("commit {lost} is lost"));
        }
        self.report.commits = commits.len();
        self.report.records = self.said.each_ref().map(Promised::records);
        Ok(())
    }

    /// A shell line as the installation's user, in the workspace.
    fn host(&self, line: &str) -> Result<String, String> {
        let mut command = self.installation.program("/bin/bash", ["-c", line]);
        command.current_dir(self.workspace);
        let done = run_command(command, b"");
        done.success().map(|text| text.trim().to_owned())
    }

    fn inspect(&self) -> Result<serde_json::Value, String> {
        self.installation
            .sbx(["inspect", self.sandbox, "--json"])
            .json()
    }

    /// The daemon and the sandbox's own.
    fn processes(&self) -> Result<Vec<(&'static str, u32)>, String> {
        let pid = |value: &serde_json::Value| value.as_u64().and_then(|pid| pid.try_into().ok());
        let status = self
            .installation
            .sbx(["daemon", "status", "--json"])
            .json()?;
        let inspect = self.inspect()?;
        let daemon = [("daemon", pid(&status["pid"]))].into_iter();
        let own = ROLES.map(|role| (role, pid(&inspect["processes"][role])));
        daemon
            .chain(own)
            .map(|(role, pid)| Ok((role, pid.ok_or(format!("no {role} in {inspect:#}"))?)))
            .collect()
    }

    fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            if Instant::now() > deadline {
                let inspect = self.inspect()?;
                return Err(format!("not within {PATIENCE:?}: {what}: {inspect:#}"));
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }
}

fn kill(pid: u32) -> rustix::io::Result<()> {
    let pid = i32::try_from(pid).ok();
    let pid = pid.and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(rustix::io::Errno::SRCH)?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)
}

/// Whether a process exists (and is not a zombie).
fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim_start().chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}
