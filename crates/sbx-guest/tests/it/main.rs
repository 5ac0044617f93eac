//! The agent as an ordinary process, driven over the real protocol.
#![expect(
    clippy::unwrap_used,
    reason = "tests: helpers beside the test functions fail them just as well"
)]

mod channel;
mod client;
mod exec;
mod runc;
mod terminal;

use client::{Client, plain};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};

/// A running agent and the host's end of its channel.
struct Agent {
    child: Child,
    client: Client,
}

impl Agent {
    /// Starts an agent; the channel is not opened yet.
    fn spawn() -> (Child, UnixStream) {
        let (host, guest) = UnixStream::pair().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_sbx-guest"))
            .arg("agent")
            .stdin(OwnedFd::from(guest))
            .spawn()
            .unwrap();
        // A test that waits for something that never comes fails instead of hanging.
        host.set_read_timeout(Some(std::time::Duration::from_mins(1)))
            .unwrap();
        (child, host)
    }

    /// An agent that has been personalised.
    fn start() -> Self {
        let (child, host) = Self::spawn();
        let mut client = Client::open(host, 1).unwrap();
        client.personalise(plain()).unwrap().unwrap();
        Self { child, client }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
