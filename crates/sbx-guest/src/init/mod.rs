//! PID 1 of the machine: brings it up, gives the agent its surroundings, takes it down.
//!
//! Order matters only where it has to. The agent answers the host while the disks are still being mounted;
//! personalisation waits for them; programs wait for personalisation; nothing waits for the Docker Engine.

mod activate;
mod disks;
mod docker;
mod engine_config;
mod machine;
mod masks;
mod mounts;
mod net;
mod personalise;
mod prepare;
mod shims;
mod shutdown;
mod uevent;

pub use activate::activate;

use crate::agent::{Agent, Inbox, Port};
use crate::console;
use crate::reaper::Reaper;
use machine::Machine;
use sbx_wire::guest::PORT_NAME;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The port is made by a control message some time after the kernel has found the device.
const PORT_LIMIT: Duration = Duration::from_secs(30);

/// Runs the machine. When nothing can be run it says why on the console and powers off: a PID 1 that
/// ends is a kernel panic that explains nothing.
pub fn run() -> ! {
    let outcome = catch_unwind(bring_up);
    match outcome {
        Ok(Ok(agent)) => supervise(agent),
        Ok(Err(error)) => console::say(&format!("cannot run: {error}")),
        Err(_) => console::say("cannot run: panicked while starting"),
    }
    shutdown::power_off()
}

/// Everything up to a served channel. A machine whose disks fail is served as well: it tells the host why.
fn bring_up() -> io::Result<std::thread::JoinHandle<()>> {
    mounts::early()?;
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    console::set_debug(
        command_line
            .split_whitespace()
            .any(|word| word == "sbx.debug"),
    );
    console::debug("init");
    let reaper = Reaper::start()?;
    let (mailbox, inbox) = Inbox::new()?;
    let machine = Arc::new(Machine::new(mailbox.clone(), reaper.clone()));
    let platform = Arc::clone(&machine);
    let agent = std::thread::Builder::new()
        .name("agent".into())
        .spawn(move || {
            let port = match open_port() {
                Ok(port) => port,
                Err(error) => return console::say(&format!("no channel to the host: {error}")),
            };
            console::debug("port open");
            serve(Agent::new(port, platform, reaper, mailbox, inbox));
        })?;
    machine.boot();
    Ok(agent)
}

/// Keeps the agent going: a panic costs the sessions of the moment, not the machine.
fn serve(mut agent: Agent) {
    loop {
        match catch_unwind(AssertUnwindSafe(|| agent.run())) {
            Ok(Ok(())) => console::say("the channel has ended"),
            Ok(Err(error)) => console::say(&format!("the channel failed: {error}")),
            Err(_) => console::say("the agent panicked; it starts over"),
        }
        agent.close();
        // What fails at once would fail again at once; a second keeps the console readable.
        std::thread::park_timeout(Duration::from_secs(1));
    }
}

/// The main thread has nothing left to do. Without an agent nobody can ever reach the machine again.
fn supervise(agent: std::thread::JoinHandle<()>) {
    let _ = agent.join();
    console::say("the agent has ended");
}

fn open_port() -> io::Result<Port> {
    let device = uevent::wait_for(PORT_LIMIT, find_port)?
        .ok_or_else(|| io::Error::other(format!("no virtio-serial port named {PORT_NAME}")))?;
    Port::open_virtio(&device)
}

fn find_port() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    ports.flatten().find_map(|port| {
        let name = fs::read_to_string(port.path().join("name")).ok()?;
        let device = Path::new("/dev").join(port.file_name());
        (name.trim() == PORT_NAME && device.exists()).then_some(device)
    })
}
