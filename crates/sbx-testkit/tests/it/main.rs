//! The stand-ins at their process boundary, with clients that know nothing of them: curl, sockets, hyper.
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions only, and helpers of tests fail the same way"
)]

mod anthropic;
mod authorisation;
mod client;
mod dns;
mod model;
mod netns;
mod programs;
mod registry;
mod upstream;
mod write_log;
