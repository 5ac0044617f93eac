//! `sbx-netns`: a sandbox's network without a machine. Programs run at native speed in a network namespace whose one
//! interface ends, as a machine's does, in a Unix socket that the gateway connects to. Needs no privileges.
//!
//! `hold` makes the namespaces and keeps them until its standard input ends; `enter` runs a program in them.

mod bridge;
mod sys;

use std::fs;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::process::{Pid, PidfdFlags, getegid, geteuid, pidfd_open};
use rustix::thread::{
    CapabilitySet, ThreadNameSpaceType, capabilities, configure_capability_in_ambient_set,
    move_into_thread_name_spaces, set_capabilities,
};

/// The programs' interface, named as in a machine.
const INTERFACE: &str = "eth0";
/// The other end of the pair, from which frames are read.
const FAR_END: &str = "far";
/// Bytes of frames that may wait to be read, as far as the system allows.
const WAITING: usize = 4 << 20;

/// A sandbox's network without a machine.
#[derive(Debug, Parser)]
enum Args {
    /// Makes the namespaces, says `ready`, and keeps them until standard input ends
    Hold(Hold),
    /// Runs a program in them
    Enter(Enter),
}

#[derive(Debug, clap::Args)]
struct Hold {
    /// Where to listen for the gateway
    #[arg(long)]
    frames: PathBuf,
    /// Address of the interface
    #[arg(long)]
    address: Ipv4Addr,
    /// Prefix length of its network
    #[arg(long)]
    prefix: u8,
    /// Further address with its prefix length; may be repeated
    #[arg(long)]
    more: Vec<String>,
    /// Default route
    #[arg(long)]
    gateway: Ipv4Addr,
    /// Its Ethernet address, with colons
    #[arg(long)]
    mac: String,
    /// Largest IP packet, in bytes
    #[arg(long)]
    mtu: u16,
    /// File that takes the place of another one, as SOURCE=PLACE; may be repeated
    #[arg(long = "file", value_parser = source_and_place)]
    files: Vec<(PathBuf, PathBuf)>,
}

#[derive(Debug, clap::Args)]
struct Enter {
    /// Process id of the holder
    holder: i32,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<std::ffi::OsString>,
}

fn source_and_place(text: &str) -> Result<(PathBuf, PathBuf), &'static str> {
    let (source, place) = text.split_once('=').ok_or("SOURCE=PLACE is needed")?;
    Ok((source.into(), place.into()))
}

fn main() -> ExitCode {
    let outcome = match Args::parse() {
        Args::Hold(hold) => hold.run(),
        Args::Enter(enter) => enter.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "sbx-netns: {error}");
            ExitCode::from(125)
        }
    }
}

impl Hold {
    fn run(self) -> Result<(), String> {
        // Outside, so that it lies where the gateway looks for it.
        let listener = UnixListener::bind(&self.frames)
            .map_err(|error| format!("cannot listen on {}: {error}", self.frames.display()))?;
        namespaces().map_err(|error| format!("cannot make namespaces: {error}"))?;
        self.place_files()?;
        self.configure()?;
        sys::without_offloads(INTERFACE)
            .map_err(|error| format!("cannot switch offloads off: {error}"))?;
        let packets = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )
        .and_then(|socket| rustix::net::netdevice::name_to_index(socket, FAR_END))
        .map_err(io::Error::from)
        .and_then(sys::packet_socket)
        .map_err(|error| format!("cannot read frames: {error}"))?;
        // Up to the system's bound, which the kernel applies by itself.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&packets, WAITING);
        std::thread::spawn(move || bridge::serve(&listener, packets.as_fd()));
        writeln!(io::stdout(), "ready").map_err(|error| error.to_string())?;
        // Programs that still run keep the namespaces, but are cut off.
        io::stdin()
            .read_to_end(&mut Vec::new())
            .map_err(|error| error.to_string())?;
        Ok(())
    }

    fn place_files(&self) -> Result<(), String> {
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .map_err(|error| format!("cannot make mounts private: {error}"))?;
        for (source, place) in &self.files {
            let failed = |error: io::Error| format!("cannot replace {}: {error}", place.display());
            // Where a link leads: one cannot be mounted upon.
            let real = fs::canonicalize(place).map_err(failed)?;
            mount_bind(source, &real).map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }

    /// Interface, addresses and route, by the system's own tool.
    fn configure(&self) -> Result<(), String> {
        let Self {
            address,
            prefix,
            gateway,
            mac,
            mtu,
            more,
            ..
        } = self;
        let mut lines = format!(
            "link set lo up\n\
             link add {INTERFACE} address {mac} mtu {mtu} type veth peer name {FAR_END} mtu 65535\n\
             link set {FAR_END} addrgenmode none arp off up\n\
             link set {INTERFACE} addrgenmode none up\n\
             address add {address}/{prefix} dev {INTERFACE}\n\
             route add default via {gateway} dev {INTERFACE} onlink\n"
        );
        for address in more {
            // Only IPv6 looks for duplicates, and then the address cannot be used at first.
            let nodad = if address.contains(':') { "nodad" } else { "" };
            lines.push_str(&format!("address add {address} dev {INTERFACE} {nodad}\n"));
        }
        let failed = |error: io::Error| format!("cannot run ip (package iproute2): {error}");
        let mut ip = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = ip.stdin.take() {
            stdin.write_all(lines.as_bytes()).map_err(failed)?;
        }
        let output = ip.wait_with_output().map_err(failed)?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!("cannot configure the network: {}", text.trim()));
        }
        Ok(())
    }
}

/// New namespaces, in which we are who we were and may configure the network.
fn namespaces() -> io::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    sys::new_namespaces()?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    // A program that somebody other than root starts has no capabilities, unless they are passed on.
    let mut sets = capabilities(None)?;
    sets.inheritable |= CapabilitySet::NET_ADMIN;
    set_capabilities(None, sets)?;
    configure_capability_in_ambient_set(CapabilitySet::NET_ADMIN, true)?;
    Ok(())
}

impl Enter {
    fn run(&self) -> Result<(), String> {
        let folder = std::env::current_dir().map_err(|error| error.to_string())?;
        enter_namespaces(self.holder, &folder)
            .map_err(|error| format!("cannot enter the namespaces of {}: {error}", self.holder))?;
        let (program, arguments) = self.program.split_first().ok_or("no program")?;
        let error = Command::new(program).args(arguments).exec();
        Err(format!(
            "cannot run {}: {error}",
            Path::new(program).display()
        ))
    }
}

fn enter_namespaces(holder: i32, folder: &Path) -> io::Result<()> {
    let holder = Pid::from_raw(holder).ok_or(io::ErrorKind::InvalidInput)?;
    let holder = pidfd_open(holder, PidfdFlags::empty())?;
    let all = ThreadNameSpaceType::USER | ThreadNameSpaceType::NETWORK | ThreadNameSpaceType::MOUNT;
    move_into_thread_name_spaces(holder.as_fd(), all)?;
    // Another mount namespace begins at its root.
    std::env::set_current_dir(folder)
}
