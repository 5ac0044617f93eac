//! The agent as an ordinary process: the protocol over a socket on standard input, and nothing of the
//! machine is touched. This is how its tests run it.

use crate::agent::{Agent, Inbox, Platform, Port};
use crate::reaper::Reaper;
use rustix::fd::AsFd;
use sbx_wire::guest::{Personalise, Prepare};
use std::io;
use std::sync::Arc;
use std::time::Duration;

struct Nothing;

impl Platform for Nothing {
    fn personalise(&self, _: &Personalise) -> Result<(), String> {
        Ok(())
    }

    fn prepare(&self, _: &Prepare) -> Result<(), String> {
        Ok(())
    }

    fn set_clock(&self, unix_ns: u64) -> Result<(), String> {
        Err(format!("clock left alone, would be {unix_ns}"))
    }

    fn shutdown(&self, _: Duration) {}

    fn default_uid(&self) -> u32 {
        rustix::process::geteuid().as_raw()
    }
}

/// Serves the stream socket that is standard input until its other end is closed.
///
/// # Errors
/// When standard input is unusable or a system resource is exhausted.
pub fn run() -> io::Result<()> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin().as_fd(), 3)?;
    let port = Port::from_socket(socket)?;
    let (mailbox, inbox) = Inbox::new()?;
    Agent::new(port, Arc::new(Nothing), Reaper::start()?, mailbox, inbox).run()
}
