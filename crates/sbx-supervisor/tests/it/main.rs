//! What the supervisor promises about processes, files and a hostile guest; machines boot in `/tests`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that panics has failed, with the log of its supervisor"
)]

mod chain;
mod confine;
mod full_disk;
mod hostile;
mod lab;
mod terminal;
