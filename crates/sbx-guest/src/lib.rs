//! The guest side of a sandbox: [`agent`] speaks the guest protocol and runs programs, [`init`] is PID 1 of
//! the virtual machine and gives the agent its surroundings.
#![deny(unsafe_code)]

pub mod agent;
pub mod browser;
pub mod console;
pub mod files;
pub mod init;
pub mod mounts_table;
pub mod plain;
pub mod reaper;
pub mod runc;
mod ssh_agent;
#[expect(
    unsafe_code,
    reason = "the calls that rustix has no safe form for, each with its argument"
)]
pub mod sys;
mod trust;
pub mod users;
