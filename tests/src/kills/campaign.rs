//! Which kills, and what came of them.

use super::case::{self, At, Case, VERBS, Verb};
use super::place::{Machine, Place};
use super::role::Role;
use super::tracer::Seen;
use crate::chance::Chance;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One kill in so many comes at a random time.
const RANDOM: usize = 10;
/// Attempts to run a case whose process did not come as far as it did when its calls were counted, each at an earlier one.
const ATTEMPTS: u32 = 2;

/// Rounds in which as many kills are made as were asked for.
const ROUNDS: u64 = 4;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder with the images, as `XDG_CACHE_HOME`.
    pub cache: PathBuf,
    /// Kills without a guest, and with one.
    pub kills: [(Machine, usize); 2],
    /// Which of the calls are chosen, and the random times.
    pub seed: u64,
    /// At a time.
    pub jobs: usize,
    /// Only these.
    pub only: Vec<Case>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Kills that were made.
    pub kills: usize,
    /// Calls and kills by machine, verb and role.
    pub rows: BTreeMap<(Machine, Verb, Role), Row>,
    /// How to repeat what went wrong, and what that was.
    pub failures: Vec<(String, Vec<String>)>,
}

/// One line of the table.
#[derive(Debug, Default, Clone, Copy)]
pub struct Row {
    /// State-changing calls in a run without a kill.
    pub calls: usize,
    /// Kills.
    pub kills: usize,
    /// Cases in which the process did not come that far.
    pub missed: usize,
    /// Failures.
    pub failed: usize,
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:8} {:9} {:11} {:>6} {:>6} {:>7} {:>7}\n",
            "machine", "verb", "role", "calls", "kills", "missed", "failed"
        );
        for ((machine, verb, role), row) in &self.rows {
            let machine = match machine {
                Machine::Held => "held",
                Machine::Running => "running",
            };
            let _written = writeln!(
                text,
                "{machine:8} {verb:9} {role:11} {:>6} {:>6} {:>7} {:>7}",
                row.calls, row.kills, row.missed, row.failed
            );
        }
        text
    }

    fn made_with(&self, machine: Machine) -> usize {
        let rows = self.rows.iter().filter(|((with, ..), _)| *with == machine);
        rows.map(|(_, row)| row.kills).sum()
    }

    fn count(&mut self, case: &Case, verdict: &case::Verdict) {
        let row = self
            .rows
            .entry((case.machine, case.verb, case.role))
            .or_default();
        if verdict.killed_at.is_some() {
            row.kills += 1;
            self.kills += 1;
        } else {
            row.missed += 1;
        }
        if !verdict.findings.is_empty() {
            row.failed += 1;
            let at = verdict.killed_at.as_deref().unwrap_or("not reached");
            let case = format!("--only {case}  ({at}; the verb: {})", verdict.said);
            self.failures.push((case, verdict.findings.clone()));
        }
    }
}

/// Makes all kills. `tell` is given a line for each.
///
/// # Errors
/// Why the kills could not be made. What they brought to light is in the report.
pub fn run(options: &Options, tell: &(dyn Fn(&str) + Sync)) -> Result<Report, String> {
    let mut report = Report::default();
    for (machine, count) in options.kills {
        if !options.only.is_empty() {
            let only = options.only.iter().copied();
            let only = only.filter(|case| case.machine == machine).collect();
            all(options, machine, only, &mut report, tell)?;
        } else if count > 0 {
            let lengths = lengths(options, machine, &mut report, tell).or_else(|why| {
                tell(&format!("counted again: {why}"));
                lengths(options, machine, &mut report, tell)
            })?;
            // What was missed is made up for, at other calls.
            for round in 0..ROUNDS {
                let made = report.made_with(machine);
                if made >= count {
                    break;
                }
                let cases = choose(options.seed + round, machine, count - made, &lengths);
                all(options, machine, cases, &mut report, tell)?;
            }
        }
    }
    Ok(report)
}

/// A verb and a role, with its calls in a run without a kill, and how long that took.
type Length = (Verb, Role, usize, Duration);

/// Counts the calls of each verb and role.
fn lengths(
    options: &Options,
    machine: Machine,
    report: &mut Report,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Vec<Length>, String> {
    let mut place = Place::new(&options.cache, machine)?;
    let mut lengths = Vec::new();
    for verb in verbs(machine) {
        let (seen, took) = case::undisturbed(&mut place, verb)?;
        tell(&counted(verb, &seen, took));
        for (role, calls) in seen
            .calls
            .into_iter()
            .filter(|(_, calls)| !calls.is_empty())
        {
            report.rows.entry((machine, verb, role)).or_default().calls = calls.len();
            lengths.push((verb, role, calls.len(), took));
        }
    }
    Ok(lengths)
}

/// With a guest, what ends in a cold boot is started once, not made and started.
fn verbs(machine: Machine) -> Vec<Verb> {
    let all = VERBS.into_iter();
    all.filter(|verb| machine == Machine::Held || !matches!(verb, Verb::Create | Verb::Snapshot))
        .collect()
}

fn counted(verb: Verb, seen: &Seen, took: Duration) -> String {
    let roles = seen.calls.iter();
    let roles: Vec<String> = roles
        .map(|(role, calls)| format!("{role} {}", calls.len()))
        .collect();
    format!("{verb}: {} ms; {}", took.as_millis(), roles.join(", "))
}

/// Every call once when there is room, else as many of each process in each verb, evenly over its calls.
fn choose(seed: u64, machine: Machine, count: usize, lengths: &[Length]) -> Vec<Case> {
    let random = count / RANDOM;
    let mut left = count - random;
    let mut quotas = vec![0; lengths.len()];
    while left > 0 {
        let open: Vec<usize> = (0..lengths.len())
            .filter(|at| quotas[*at] < lengths[*at].2)
            .collect();
        if open.is_empty() {
            break;
        }
        // The last ones are spread over all.
        let turn = left.min(open.len());
        for number in 0..turn {
            quotas[open[number * open.len() / turn]] += 1;
        }
        left -= turn;
    }
    let mut chance = Chance(seed);
    let mut cases = Vec::new();
    for (&(verb, role, calls, _), quota) in lengths.iter().zip(quotas) {
        // Another seed begins elsewhere within the first step.
        let start = chance.below(calls as u64 * 1000 / (quota.max(1) as u64));
        for number in 0..quota {
            let at = (number * calls * 1000 / quota + usize::try_from(start).unwrap_or(0)) / 1000;
            cases.push((verb, role, At::Call(at + 1)));
        }
    }
    // A guest that is killed before it has its channel is one that says nothing, which takes its time limit.
    let timed: Vec<_> = lengths
        .iter()
        .filter(|(_, role, ..)| *role != Role::Guest)
        .collect();
    for _ in 0..random {
        let pick = usize::try_from(chance.below(timed.len() as u64)).unwrap_or(0);
        let Some((verb, role, _, took)) = timed.get(pick) else {
            break;
        };
        let ms = u64::try_from(took.as_millis()).unwrap_or(1000);
        cases.push((*verb, *role, At::Time(chance.below(ms))));
    }
    let numbered = cases.into_iter().enumerate();
    numbered
        .map(|(number, (verb, role, at))| Case {
            machine,
            verb,
            role,
            at,
            then_start: number % 2 == 0,
        })
        .collect()
}

/// Runs the cases, several at a time.
fn all(
    options: &Options,
    machine: Machine,
    cases: Vec<Case>,
    report: &mut Report,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<(), String> {
    let total = cases.len();
    let queue = Mutex::new(cases.into_iter().enumerate().collect::<VecDeque<_>>());
    let results = Mutex::new(report);
    let workers = options.jobs.clamp(1, total.max(1));
    let failed: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    let mut place = None;
                    loop {
                        let next = queue
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .pop_front();
                        let Some((number, mut case)) = next else {
                            return Ok(());
                        };
                        let began = Instant::now();
                        let verdict = attempt(options, machine, &mut case, &mut place)?;
                        tell(&line((number + 1, total), &case, &verdict, began.elapsed()));
                        let mut report = results.lock().unwrap_or_else(PoisonError::into_inner);
                        report.count(&case, &verdict);
                    }
                })
            })
            .collect();
        let ended = workers.into_iter().map(|worker| {
            let panicked = |_| Err("a worker panicked".to_owned());
            worker.join().unwrap_or_else(panicked)
        });
        ended.filter_map(Result::err).collect()
    });
    match failed.first() {
        None => Ok(()),
        Some(why) => Err(why.clone()),
    }
}

/// Runs a case, in a new place when there is none or the last one was left in disorder.
fn attempt(
    options: &Options,
    machine: Machine,
    case: &mut Case,
    place: &mut Option<Place>,
) -> Result<case::Verdict, String> {
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        if let (1.., At::Call(number)) = (attempt, &mut case.at) {
            *number = (*number * 2).div_ceil(3);
        }
        let mut here = match place.take() {
            Some(here) => here,
            None => Place::new(&options.cache, machine)?,
        };
        let verdict = match case::run(&mut here, case) {
            Ok(verdict) => verdict,
            // In another place it may begin.
            Err(_) if attempt + 1 < ATTEMPTS => continue,
            Err(why) => return Err(format!("{case}: {why}")),
        };
        if verdict.findings.is_empty() {
            *place = Some(here);
        }
        let enough = verdict.killed_at.is_some() || !verdict.findings.is_empty();
        last = Some(verdict);
        if enough {
            break;
        }
    }
    last.ok_or_else(|| "no attempt was made".to_owned())
}

fn line(
    (number, total): (usize, usize),
    case: &Case,
    verdict: &case::Verdict,
    took: Duration,
) -> String {
    let at = verdict.killed_at.as_deref().unwrap_or("not reached");
    let mut text = format!(
        "{number}/{total} {:.2} s {case} at {at}",
        took.as_secs_f64()
    );
    for finding in &verdict.findings {
        let _written = write!(text, "\n    FAILED: {finding}");
    }
    text
}
