//! A share of `./dev soak kills`: every process, in every verb of the life cycle.

use crate::setting::cache;
use sbx_e2e::kills::{Machine, Options, run};

fn all_hold(machine: Machine, count: usize, jobs: usize) {
    let options = Options {
        cache: cache(),
        kills: [(machine, count), (machine, 0)],
        seed: 1,
        jobs,
        only: Vec::new(),
    };
    let report = run(&options, &|line| println!("{line}")).unwrap();
    println!("{}", report.table());
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    let missed: usize = report.rows.values().map(|row| row.missed).sum();
    assert!(report.kills + missed >= count, "{} kills", report.kills);
    // Calls differ a little from run to run; a count that is mostly wrong would be a test of nothing.
    assert!(
        missed * 5 <= count,
        "{missed} of {count} never came that far"
    );
}

#[test]
fn whatever_is_killed_at_whatever_call_every_sandbox_is_listed_and_starts_or_goes_without_a_trace()
{
    all_hold(Machine::Held, 60, 2);
}

#[test]
fn the_same_with_a_guest_that_runs() {
    all_hold(Machine::Running, 20, 1);
}
