//! What crosses a process boundary keeps its encoding: an upgrade happens while sandboxes run, so processes of two
//! versions talk to each other.
//!
//! `tests/fixtures/` holds the bytes of every message of version 1, one a line: a name and the encoding. A line never
//! changes and never goes; a new message is a new variant at the end of its enum and a new line. A test that finds no
//! line for a message of its table prints the one to add.
#![expect(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod frozen;
mod gateway;
mod guest;
mod launch;
mod session;
mod ssh_agent;
