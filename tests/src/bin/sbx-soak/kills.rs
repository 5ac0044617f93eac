//! `./dev soak kills`: processes killed at their system calls over the life of a sandbox (`sbx_e2e::kills`).

use crate::cache;
use sbx_e2e::kills::{self, Machine, Options};
use std::time::Instant;

/// `words`: see the usage.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    let options = parse(words)?;
    let start = Instant::now();
    let report = kills::run(&options, &|line| println!("{line}"))?;
    println!("\n{}", report.table());
    for (case, findings) in &report.failures {
        println!("./dev soak kills {case}\n    {}", findings.join("\n    "));
    }
    println!(
        "{} kills in {} s (seed {}), {} failed",
        report.kills,
        start.elapsed().as_secs(),
        options.seed,
        report.failures.len()
    );
    if report.failures.is_empty() {
        return Ok(());
    }
    Err("see above for what was left, and how to repeat each".to_owned())
}

fn parse(words: &[&str]) -> Result<Options, String> {
    let mut options = Options {
        cache: cache()?,
        kills: [(Machine::Held, 1000), (Machine::Running, 50)],
        seed: 1,
        jobs: std::thread::available_parallelism().map_or(2, usize::from),
        only: Vec::new(),
    };
    let mut words = words.iter();
    while let Some(flag) = words.next() {
        let value = words
            .next()
            .ok_or_else(|| format!("{flag} wants a value"))?;
        let number = || value.parse().map_err(|_| format!("{value:?} is no number"));
        match *flag {
            "--held" => options.kills[0].1 = number()?,
            "--running" => options.kills[1].1 = number()?,
            "--jobs" => options.jobs = number()?,
            "--seed" => options.seed = number()? as u64,
            "--cache" => options.cache = value.into(),
            "--only" => options.only.push(value.parse()?),
            other => return Err(format!("there is no {other}")),
        }
    }
    Ok(options)
}
