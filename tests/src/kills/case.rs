//! One kill, and what has to be true after it.

use super::api::LOST;
use super::place::{Machine, NAME, Place, pause};
use super::role::Role;
use super::tracer::{Aim, Seen};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Time for everything of a removed sandbox to be gone.
const GONE: Duration = Duration::from_secs(10);

/// A race of QEMU 10.0 (`system/physmem.c`) between a processor and a change of the memory map, which ends it. It is no
/// kill of ours, and takes a host that is slow in the right place: seen once, while every call of QEMU was traced.
const QEMU_RACE: &str = "iotlb_to_section";
/// Between two looks for a process that is to be killed.
const TICK: Duration = Duration::from_millis(1);

/// What is going on when a process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Making a sandbox that is booted.
    Create,
    /// Making a sandbox from a snapshot.
    Warm,
    /// Making a snapshot.
    Snapshot,
    /// Starting a stopped one, up to and with `personalise`.
    Start,
    /// Stopping a running one.
    Stop,
    /// Removing a running one.
    Rm,
}

/// All of them.
pub const VERBS: [Verb; 6] = [
    Verb::Create,
    Verb::Warm,
    Verb::Snapshot,
    Verb::Start,
    Verb::Stop,
    Verb::Rm,
];

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Warm => "warm",
            Self::Snapshot => "snapshot",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Rm => "rm",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Verb {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = VERBS.into_iter().find(|verb| verb.name() == text);
        found.ok_or_else(|| format!("there is no verb {text:?}"))
    }
}

/// When the process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// At the entry of this state-changing call of its role, counted from 1.
    Call(usize),
    /// This long after the verb began, ms.
    Time(u64),
}

/// One kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    /// With or without a guest.
    pub machine: Machine,
    /// During what.
    pub verb: Verb,
    /// Who.
    pub role: Role,
    /// When.
    pub at: At,
    /// Afterwards the sandbox is started, or else removed at once.
    pub then_start: bool,
}

impl fmt::Display for Case {
    /// As `--only` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = match self.machine {
            Machine::Held => "held",
            Machine::Running => "running",
        };
        write!(f, "{machine}/{}/{}/", self.verb, self.role)?;
        match self.at {
            At::Call(number) => write!(f, "{number}")?,
            At::Time(ms) => write!(f, "{ms}ms")?,
        }
        f.write_str(if self.then_start { "/start" } else { "/rm" })
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split('/').collect();
        let [machine, verb, role, at, then] = words.as_slice() else {
            return Err(format!(
                "{text:?} is not held|running/VERB/ROLE/CALL/start|rm"
            ));
        };
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
        Ok(Self {
            machine: match *machine {
                "held" => Machine::Held,
                "running" => Machine::Running,
                other => return Err(format!("{other:?} is neither held nor running")),
            },
            verb: verb.parse()?,
            role: role.parse()?,
            at: match at.strip_suffix("ms") {
                Some(ms) => At::Time(number(ms)?),
                None => At::Call(usize::try_from(number(at)?).map_err(|e| e.to_string())?),
            },
            then_start: *then == "start",
        })
    }
}

/// How a case went.
#[derive(Debug)]
pub(super) struct Verdict {
    /// The call at which the process was killed; `None`: it never came that far.
    pub(super) killed_at: Option<String>,
    /// What is wrong. Empty: nothing.
    pub(super) findings: Vec<String>,
    /// How the verb ended.
    pub(super) said: String,
}

/// Runs the verb once without a kill; returns each role's calls and the time it took.
pub(super) fn undisturbed(place: &mut Place, verb: Verb) -> Result<(Seen, Duration), String> {
    prepare(place, verb)?;
    aim(place, verb, None)?;
    let began = Instant::now();
    perform(place, verb)?;
    let took = began.elapsed();
    let seen = place.tracer.aim(None).map_err(|error| error.to_string())?;
    let mut findings = Vec::new();
    if let Err(why) = clear(place, true) {
        findings.push(why);
    }
    nothing_left(place, &mut findings);
    if findings.is_empty() {
        return Ok((seen, took));
    }
    Err(format!("{verb} without a kill: {}", findings.join("; ")))
}

/// Runs one case. An error: the place could not be brought into the state that the case begins from.
pub(super) fn run(place: &mut Place, case: &Case) -> Result<Verdict, String> {
    prepare(place, case.verb)?;
    let (outcome, killed_at) = match case.at {
        At::Call(number) => {
            aim(place, case.verb, Some((case.role, number)))?;
            let outcome = perform(place, case.verb);
            let seen = place.tracer.aim(None).map_err(|error| error.to_string())?;
            (outcome, seen.killed_at)
        }
        At::Time(ms) => at_time(place, case, Duration::from_millis(ms)),
    };
    let mut findings = Vec::new();
    if let Err(why) = &outcome
        && (why.contains("did not answer") || case.role != Role::Daemon && why == LOST)
    {
        findings.push(why.clone());
    }
    check(place, case, outcome.is_ok(), &mut findings);
    Ok(Verdict {
        killed_at,
        findings,
        said: outcome.err().unwrap_or_else(|| "done".to_owned()),
    })
}

/// Kills the process this long after the verb began, or as soon as it is there then.
fn at_time(place: &Place, case: &Case, after: Duration) -> (Result<(), String>, Option<String>) {
    std::thread::scope(|scope| {
        let verb = case.verb;
        let began = Instant::now();
        let work = scope.spawn(move || perform(place, verb));
        let mut killed = None;
        while killed.is_none() && !work.is_finished() {
            std::thread::park_timeout(TICK);
            if began.elapsed() >= after {
                killed = place.kill(case.role, verb == Verb::Snapshot);
            }
        }
        let outcome = work.join();
        let outcome = outcome.unwrap_or_else(|_| Err("it panicked".to_owned()));
        (outcome, killed)
    })
}

fn aim(place: &Place, verb: Verb, kill: Option<(Role, usize)>) -> Result<(), String> {
    let snapshot = verb == Verb::Snapshot;
    let aim = Aim { snapshot, kill };
    let aimed = place.tracer.aim(Some(aim));
    aimed.map(drop).map_err(|error| error.to_string())
}

/// Brings the place into the state in which the verb begins.
fn prepare(place: &mut Place, verb: Verb) -> Result<(), String> {
    match verb {
        Verb::Create => place.begin_warm(false),
        Verb::Warm => {
            place.begin_warm(true)?;
            place.put_snapshot_back()
        }
        Verb::Snapshot => {
            place.begin_warm(true)?;
            place.forget_snapshots()
        }
        Verb::Start => {
            ready(place)?;
            place.stop().done().map(drop)
        }
        Verb::Stop | Verb::Rm => ready(place),
    }
}

/// A running sandbox, made in the quickest way.
fn ready(place: &mut Place) -> Result<(), String> {
    let warm = place.machine == Machine::Running;
    place.begin_warm(warm)?;
    if warm {
        place.put_snapshot_back()?;
    }
    place.create().done().map(drop)
}

/// Ok: it was said to be done.
fn perform(place: &Place, verb: Verb) -> Result<(), String> {
    match verb {
        Verb::Create | Verb::Warm => place.create().done().map(drop),
        Verb::Start => place.start().done().map(drop),
        Verb::Stop => place.stop().done().map(drop),
        Verb::Rm => place.remove().done().map(drop),
        Verb::Snapshot => {
            place.create().done()?;
            place.await_snapshot().map(drop)
        }
    }
}

/// The invariant. `done`: the verb was said to have been done.
fn check(place: &mut Place, case: &Case, done: bool, findings: &mut Vec<String>) {
    if let Err(why) = place.fresh_daemon() {
        findings.push(why);
        return;
    }
    let list = match place.list() {
        Ok(list) => list,
        Err(why) => {
            findings.push(format!("no list: {why}"));
            return;
        }
    };
    let must_be = match case.verb {
        // What is made of a sandbox afterwards, a snapshot, is no part of it.
        Verb::Create | Verb::Warm | Verb::Snapshot => done.then_some(true),
        Verb::Start | Verb::Stop => Some(true),
        Verb::Rm => done.then_some(false),
    };
    if must_be.is_some_and(|must_be| must_be == list.is_empty()) {
        findings.push(format!(
            "listed: {list:?}, although the verb was done: {done}"
        ));
    }
    for sandbox in &list {
        if sandbox["name"] != NAME || sandbox["status"] == "damaged" {
            findings.push(format!("listed as {sandbox}"));
        }
    }
    if let Err(why) = clear(place, case.then_start) {
        findings.push(why);
    }
    nothing_left(place, findings);
}

/// Starts the sandbox if there is one, and removes it.
fn clear(place: &Place, start: bool) -> Result<(), String> {
    if place.list()?.is_empty() {
        return Ok(());
    }
    if start {
        let mut started = place.start().done();
        if started.as_ref().is_err_and(|why| why.contains(QEMU_RACE)) {
            started = place.start().done();
        }
        started.map_err(|why| format!("it does not start: {why}"))?;
        if place.machine == Machine::Running {
            let inside = place.installation.inside(NAME, "true");
            inside
                .success()
                .map_err(|why| format!("nothing runs inside: {why}"))?;
        }
    }
    let removed = place.remove().done();
    removed.map_err(|why| format!("it is not removed: {why}"))?;
    match place.list()?.as_slice() {
        [] => Ok(()),
        left => Err(format!("still listed: {left:?}")),
    }
}

/// Waits for what ends by itself, and looks at the rest.
fn nothing_left(place: &Place, findings: &mut Vec<String>) {
    let deadline = Instant::now() + GONE;
    loop {
        let traces = place.traces().0;
        if traces.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            findings.extend(traces);
            break;
        }
        pause();
    }
    match place.ask("GET", "/v1/policy", &Value::Null).done() {
        Ok(policy) if policy["rules"].as_array().is_some_and(Vec::is_empty) => {}
        Ok(policy) => findings.push(format!("rules are left: {}", policy["rules"])),
        Err(why) => findings.push(format!("no policy: {why}")),
    }
    let report = place.installation.sbx(["diagnose", "--json"]);
    match serde_json::from_str::<Value>(&report.stdout) {
        Ok(diagnosis) => {
            let checks = diagnosis["checks"].as_array().into_iter().flatten();
            let failed = checks.filter(|check| check["status"] == "fail");
            findings.extend(failed.map(|check| format!("diagnose: {check}")));
        }
        Err(error) => findings.push(format!("diagnose says nothing: {error}: {report}")),
    }
}
