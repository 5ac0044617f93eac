//! Facts about the policy: parsing, decisions, presets, explanations.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests that fails is a failed test"
)]

mod attacks;
mod attacks_address;
mod check;
mod datagrams;
mod decisions;
mod document;
mod generate;
mod grammar;
mod http_rules;
mod naive;
mod presets;
mod properties;
mod review;
mod support;
