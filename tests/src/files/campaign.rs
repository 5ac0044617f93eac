//! Random operations of host and guest in turn on one folder, compared with a model after every turn.

use super::Peer;
use super::model::{Model, Side, Step};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// After this time the guest sees what the host did. A guest's own work is on the host at once.
pub const VISIBLE: Duration = Duration::from_secs(1);
/// Most operations of one turn.
const TURN: u64 = 500;

/// What was done.
#[derive(Debug, Default)]
pub struct Report {
    /// Operations, by name.
    pub operations: BTreeMap<String, u64>,
    /// Times that the other side went on.
    pub turns: u64,
    /// In all.
    pub took: Duration,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: u64 = self.operations.values().sum();
        let (turns, seconds) = (self.turns, self.took.as_secs());
        write!(f, "{all} operations in {turns} turns and {seconds} s:")?;
        for (name, count) in &self.operations {
            write!(f, " {name} {count}")?;
        }
        Ok(())
    }
}

/// Has the two sides do `count` operations in all; after every turn both see exactly what the model says.
/// `each` is told about the turns.
///
/// # Errors
/// The first difference, with the seed.
pub fn run(
    inside: &mut Peer,
    outside: &mut Peer,
    (seed, count): (u64, u64),
    mut each: impl FnMut(&Report),
) -> Result<Report, String> {
    let start = Instant::now();
    let (mut model, mut report) = (Model::new(seed), Report::default());
    let mut done = 0;
    for directory in model.directories() {
        outside.ask(&format!("os.mkdir({directory:?})"))?;
    }
    let mut side = Side::Outside;
    while done < count {
        side = side.other();
        let length = model.turn(TURN).min(count - done);
        let steps: Vec<Step> = (0..length).map(|_| model.step(side)).collect();
        let wrong = |why: String| format!("seed {seed}, turn {} of {side:?}: {why}", report.turns);
        let (actor, watcher) = match side {
            Side::Inside => (&mut *inside, &mut *outside),
            Side::Outside => (&mut *outside, &mut *inside),
        };
        act(actor, &steps).map_err(wrong)?;
        look(actor, &model, side).map_err(wrong)?;
        if side == Side::Outside {
            std::thread::park_timeout(VISIBLE);
        }
        look(watcher, &model, side.other()).map_err(wrong)?;
        done += length;
        report.turns += 1;
        report.took = start.elapsed();
        for step in &steps {
            let name = step.wire[0].as_str().unwrap_or_default().to_owned();
            *report.operations.entry(name).or_default() += 1;
        }
        each(&report);
    }
    Ok(report)
}

fn act(actor: &mut Peer, steps: &[Step]) -> Result<(), String> {
    let wire: Vec<&Value> = steps.iter().map(|step| &step.wire).collect();
    let answers = actor.ask(&format!("batch({})", serde_json::json!(wire)))?;
    let answers = answers.as_array().ok_or("no list of answers")?;
    for (number, step) in steps.iter().enumerate() {
        let answer = answers.get(number).unwrap_or(&Value::Null);
        if *answer != step.answer {
            let before = &wire[number.saturating_sub(20)..=number];
            let expected = &step.answer;
            return Err(format!(
                "operation {number} answered {answer}, not {expected}; the latest: {before:?}"
            ));
        }
    }
    Ok(())
}

fn look(peer: &mut Peer, model: &Model, side: Side) -> Result<(), String> {
    let (seen, expected) = (peer.ask("everything()")?, model.expected(side));
    if seen == expected {
        return Ok(());
    }
    let mut wrong = String::new();
    for (part, what) in ["by name", "open"].iter().enumerate() {
        let empty = serde_json::Map::new();
        let get = |all: &Value| all[part].as_object().unwrap_or(&empty).clone();
        let (seen, expected) = (get(&seen), get(&expected));
        let keys: BTreeSet<_> = seen.keys().chain(expected.keys()).collect();
        for key in keys {
            if seen.get(key) != expected.get(key) {
                let (one, other) = (seen.get(key), expected.get(key));
                wrong.push_str(&format!("\n    {what} {key}: {one:?}, not {other:?}"));
            }
        }
    }
    Err(format!("{side:?} sees{wrong}"))
}
