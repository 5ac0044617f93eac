//! The command at its process boundary: the real `sbx`, the real daemon, no machine.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod bad_input;
mod care;
mod daemon;
mod escapes;
mod full_disk;
mod policy;
mod policy_log;
mod secret;
mod secret_aws;
mod session;
mod settings;
mod silent;
mod stranger;
mod terminal;
mod world;
