//! A policy of 10,000 host rules: reading it, asking it, putting it in force in a gateway that runs.

use std::time::Instant;

use sbx_policy::{Evaluator, Host, Intent, IntentKind, PolicyDocument, Port, Rule, Transport};

use super::ours::{self, Place, allow};
use super::stage::{HOST, Stage};
use crate::figure::Figure;

/// Rules of the policy.
const RULES: usize = 10_000;
/// How often each is done.
const RUNS: usize = 20;
/// Decisions between two looks at the clock: one alone is too short for it.
const BATCH: usize = 16;

fn host(number: usize) -> String {
    format!("host{number}.zone{}.example", number % 97)
}

fn document(generation: u64) -> Result<PolicyDocument, String> {
    let rules: Result<Vec<Rule>, String> = (0..RULES).map(|n| allow(n, &host(n))).collect();
    Ok(PolicyDocument::new(generation, rules?))
}

/// From the bytes on disk to an evaluator, and its decisions.
pub(crate) fn figures() -> Result<Vec<Figure>, String> {
    let bytes = serde_json::to_vec(&document(1)?).map_err(|e| e.to_string())?;
    let mut loads = Vec::new();
    let mut evaluator = None;
    for _ in 0..RUNS {
        let started = Instant::now();
        let document: PolicyDocument = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
        evaluator = Some(Evaluator::of(document));
        loads.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let evaluator = evaluator.ok_or("no evaluator")?;
    Ok(vec![
        Figure::alone("rules_10k_load_ms", "ms", &loads),
        Figure::alone("decision_p50_ns", "ns", &decisions(&evaluator)?),
    ])
}

/// Nanoseconds of a decision, about hosts of which every other one is allowed.
fn decisions(evaluator: &Evaluator) -> Result<Vec<f64>, String> {
    let mut intents = Vec::new();
    for number in 0..RULES {
        let name = match number % 2 {
            0 => host(number),
            _ => format!("other{number}.zone{}.example", number % 97),
        };
        let host = Host::parse(&name).map_err(|e| e.to_string())?;
        let kind = IntentKind::Tls;
        intents.push(Intent::new(
            "bench",
            Transport::Tcp,
            kind,
            host,
            Port::HTTPS,
        ));
    }
    let mut took = Vec::new();
    for batch in intents.chunks_exact(BATCH) {
        let started = Instant::now();
        let allowed = batch
            .iter()
            .filter(|intent| evaluator.decide(intent).is_allowed());
        let allowed = allowed.count();
        took.push(started.elapsed().as_secs_f64() * 1e9 / super::number(BATCH));
        if allowed != BATCH / 2 {
            return Err(format!("{allowed} of {BATCH} hosts were allowed"));
        }
    }
    Ok(took)
}

/// Milliseconds from sending a policy to a running gateway until it is in force. The first configuration is back
/// afterwards.
pub(crate) fn swaps(stage: &Stage, place: &Place) -> Result<Vec<f64>, String> {
    let mut took = Vec::new();
    for generation in 2..RUNS as u64 + 2 {
        let (mut file, mut credentials) = ours::config(stage, generation)?;
        file.policy = document(generation)?;
        file.upstream.overrides.clear();
        file.credential_hosts = vec![HOST.to_owned()];
        for credential in &mut credentials {
            credential.hosts = vec![HOST.to_owned()];
        }
        took.push(place.configure(stage, file, credentials)? * 1e3);
    }
    let (file, credentials) = ours::config(stage, RUNS as u64 + 2)?;
    place.configure(stage, file, credentials)?;
    Ok(took)
}
