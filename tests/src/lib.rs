//! One installation of sbx under test: the real programs, folders of its own, as an ordinary user.
//!
//! The demo, the end-to-end tests and the long suites all drive the real `sbx` command through
//! [`Installation`]; nothing here reaches behind it except to kill processes on purpose.
#![deny(unsafe_code)] // but for `ptrace(2)` in `kills`

pub mod agents;
pub mod canary;
mod chance;
pub mod claims;
mod claims_outside;
pub mod debian;
pub mod files;
pub mod fsynced;
pub mod installation;
pub mod kills;
pub mod nowhere;
pub mod outcome;
pub mod power;
pub mod project;
pub mod search;
pub mod small_state;
pub mod terminal;
pub mod trace;

pub use installation::{Installation, User};
pub use outcome::Outcome;
