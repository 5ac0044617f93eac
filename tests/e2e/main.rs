//! End to end: real machines, driven through the real command, as an ordinary user. Each test proves several
//! facts with few boots and prints every log of its sandboxes when it fails.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on says so by panicking, and prints what it saw"
)]

mod agent_job;
mod agents;

mod clients;
mod exhaustion;
mod files;
mod fsynced;
mod guard;
mod kernel;
mod kills;
mod late;
mod life;
mod neighbours;
mod network;
mod power;
mod saved;
mod secrets;
mod sessions;
mod setting;
mod ssh_agent;
mod trust;
mod warm;
mod workspaces;
