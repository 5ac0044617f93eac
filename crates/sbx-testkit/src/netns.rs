//! A sandbox's network without a machine: real programs at native speed, whose only interface ends in a Unix socket.
//!
//! A [`Namespace`] is a user, network and mount namespace with one interface that has the guest's addresses. Its
//! frames go to and come from a stream socket on which it listens as QEMU does (`-netdev stream`: four bytes of length,
//! big-endian, then the frame). A gateway that connects serves the programs inside; when it ends, the next one may
//! connect. It needs no privileges, only user namespaces.
//!
//! The work is done by the program `sbx-netns`, because namespaces are made by processes with one thread. It is looked
//! for in the folder of the running program (for a test: one up).

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Name of the program that does the work.
const HELPER: &str = "sbx-netns";

/// What the namespace looks like to its programs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen for the gateway; nothing may be there.
    pub frames: PathBuf,
    /// Address of `eth0`.
    pub address: Ipv4Addr,
    /// Prefix length of its network.
    pub prefix: u8,
    /// Further addresses of `eth0`, with their prefix lengths.
    pub more: Vec<(IpAddr, u8)>,
    /// The default route.
    pub gateway: Ipv4Addr,
    /// Ethernet address of `eth0`.
    pub mac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Files that programs inside see in the place of others that exist: `(source, place)`.
    pub files: Vec<(PathBuf, PathBuf)>,
}

/// Why there is no namespace.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The helper is not where it should be.
    #[error("{0} is not built: run ./dev setup, or cargo build --release -p sbx-testkit")]
    NotBuilt(PathBuf),
    /// The helper could not be run.
    #[error("cannot run {HELPER}: {0}")]
    Run(#[from] io::Error),
    /// The helper gave up, with its words.
    #[error("{0}")]
    Refused(String),
}

/// The namespaces. Dropping it cuts the programs inside off; it does not end them.
#[derive(Debug)]
pub struct Namespace {
    helper: PathBuf,
    holder: Child,
}

impl Namespace {
    /// Makes the namespaces; the socket listens once this returns.
    pub fn start(options: &Options) -> Result<Self, NamespaceError> {
        Self::start_by(Command::new(helper()?), options)
    }

    /// As [`Namespace::start`], with a given command for the helper, such as one that runs it as somebody else.
    pub fn start_by(mut command: Command, options: &Options) -> Result<Self, NamespaceError> {
        let mac = options.mac.map(|byte| format!("{byte:02x}")).join(":");
        command
            .arg("hold")
            .arg("--frames")
            .arg(&options.frames)
            .args(["--address", &options.address.to_string()])
            .args(["--prefix", &options.prefix.to_string()])
            .args(["--gateway", &options.gateway.to_string()])
            .args(["--mac", &mac])
            .args(["--mtu", &options.mtu.to_string()]);
        for (address, prefix) in &options.more {
            command.args(["--more", &format!("{address}/{prefix}")]);
        }
        for (source, place) in &options.files {
            let mut pair = source.clone().into_os_string();
            pair.push("=");
            pair.push(place);
            command.arg("--file").arg(pair);
        }
        let mut holder = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut word = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut word)?;
        }
        if word == "ready\n" {
            return Ok(Self {
                helper: helper()?,
                holder,
            });
        }
        let mut text = String::new();
        if let Some(mut stderr) = holder.stderr.take() {
            stderr.read_to_string(&mut text)?;
        }
        holder.wait()?;
        Err(NamespaceError::Refused(text.trim().to_owned()))
    }

    /// A program to be run inside, with this process's environment and folder unless they are changed.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.helper);
        command
            .arg("enter")
            .arg(self.holder.id().to_string())
            .arg("--")
            .arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Where the helper is.
pub fn helper() -> Result<PathBuf, NamespaceError> {
    let exe = std::env::current_exe()?;
    let folder = exe.parent().unwrap_or(Path::new("."));
    let folder = if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder)
    } else {
        folder
    };
    let helper = folder.join(HELPER);
    if helper.is_file() {
        Ok(helper)
    } else {
        Err(NamespaceError::NotBuilt(helper))
    }
}
