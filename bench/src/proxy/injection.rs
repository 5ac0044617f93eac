//! `bench credentials`: what it costs to write a credential and to look for it in the answer, beside a gateway that only
//! opens the connection, for a rule that looks at paths. Both are ours and run at the same time; they are measured in
//! turns, and each turn gives one ratio.

use sbx_policy::{HttpMatch, Methods, PathPattern};

use super::generator::Generator;
use super::load::{Job, Set};
use super::ours;
use super::process::Proxy;
use super::stage::{SECRET, Stage};
use super::upstream::{LARGE, SMALL};
use super::{PLACEHOLDER, number, open, requests};
use crate::figure::{Figure, median};

/// Alternations.
const TURNS: usize = 20;
/// Connections, and seconds of each half of a turn.
const CONNECTIONS: usize = 8;
const SECONDS: f64 = 1.0;

/// A gateway with clients that carry what it wants.
struct Side {
    proxy: Proxy,
    generator: Generator,
}

impl Side {
    fn start(stage: &Stage, name: &str, config: ours::Config, held: &str) -> Result<Self, String> {
        let (proxy, _) = ours::start_tcp(stage, name, config)?;
        let set = Set {
            held: held.to_owned(),
            ..super::set(stage)
        };
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        let generator = Generator::start(std::process::Command::new(own), &set)?;
        Ok(Self { proxy, generator })
    }

    /// Processor time of one request, in µs.
    fn cost(&mut self, path: &str, length: usize) -> Result<f64, String> {
        open(&mut self.generator, Some(self.proxy.address), CONNECTIONS)?;
        let before = self.proxy.cpu_seconds();
        let outcome = self.generator.run(&requests(path, length, SECONDS))?;
        let used = self.proxy.cpu_seconds() - before;
        self.generator.run(&Job::Close)?;
        Ok(used / number(outcome.count) * 1e6)
    }
}

/// Runs it.
pub(crate) fn run() -> Result<Vec<Figure>, String> {
    let stage = Stage::new()?;
    let injecting = ours::config(&stage, 1)?;
    let (mut file, _) = ours::config(&stage, 1)?;
    file.credential_hosts.clear();
    for rule in &mut file.policy.rules {
        rule.http = Some(HttpMatch {
            methods: Methods::ANY,
            path: PathPattern::everything(),
        });
    }
    let mut injecting = Side::start(&stage, "injecting", injecting, PLACEHOLDER)?;
    let mut opening = Side::start(&stage, "opening", (file, Vec::new()), SECRET)?;
    let mut figures = Vec::new();
    for (metric, path, length) in [
        ("injection_cost_ratio", "/small", SMALL),
        ("injection_cost_ratio_large", "/large", LARGE),
    ] {
        let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 0..TURNS {
            let (a, b) = if turn % 2 == 0 {
                let with = injecting.cost(path, length)?;
                (with, opening.cost(path, length)?)
            } else {
                let without = opening.cost(path, length)?;
                (injecting.cost(path, length)?, without)
            };
            with.push(a);
            without.push(b);
            ratios.push(a / b);
        }
        figures.push(Figure::alone(metric, "", &ratios));
        let name = format!("{metric}_cpu_us");
        figures.push(Figure::new(
            name,
            "us",
            &with,
            &without,
            "plain interception",
        ));
        let (low, high) = (quantile(&ratios, 0.25), quantile(&ratios, 0.75));
        figures.push(Figure::alone(format!("{metric}_q1"), "", &[low]));
        figures.push(Figure::alone(format!("{metric}_q3"), "", &[high]));
    }
    Ok(figures)
}

/// The value below which this part of the values is.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place among few values"
    )]
    let at = (sorted.len() as f64 * part) as usize;
    sorted.get(at).copied().unwrap_or_else(|| median(values))
}
