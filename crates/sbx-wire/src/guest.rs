//! The guest protocol: supervisor to `sbx-guest`, over one virtio-serial port.
//!
//! A port has no connections, so each side may hold bytes of an earlier life. The host opens with a
//! [`Preamble`] (magic, version, epoch, nonce). The guest, on every (re)open of the port, discards bytes
//! until it has read a whole preamble, and answers with the same preamble under its own magic; the host
//! discards everything in front of exactly that answer. After that both speak [`frame`](crate::frame)s
//! that carry the epoch; frames of another epoch are dropped.
//!
//! Flow control: each session stream may have [`WINDOW`] bytes on their way; the reader grants more with
//! `Credit` once it has passed bytes on. A peer that overruns its window is broken and is cut off.
//!
//! Compatibility: postcard names nothing, a variant is its place in the enum and a field its place in the struct. So
//! within a version variants are only appended; they are never moved or removed, and no field is added, moved or
//! removed anywhere: what needs another field is another variant. Anything else is another [`VERSION`]. The bytes of
//! version 1 are frozen in `tests/fixtures/guest-v1.txt`. A variant that the other side does not know breaks the
//! channel, so it is sent only to a peer whose preamble or first message says that it knows it.

use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Version of this protocol. A host accepts [`OLDEST_VERSION`]..=[`VERSION`].
pub const VERSION: u16 = 1;
/// Oldest guest that a host of this version still drives.
pub const OLDEST_VERSION: u16 = 1;
/// Name of the virtio-serial port inside the guest (`/sys/class/virtio-ports/*/name`).
pub const PORT_NAME: &str = "sbx.agent.0";
/// Bytes of one stream that may be unacknowledged.
pub const WINDOW: u32 = 256 << 10;
/// Most sessions at a time in one guest.
pub const MAX_SESSIONS: usize = 256;

const HOST_MAGIC: [u8; 8] = *b"\x00sbxHST\x01";
const GUEST_MAGIC: [u8; 8] = *b"\x00sbxGST\x01";

/// The fixed-size opening of a channel life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble {
    /// Protocol version of the sender.
    pub version: u16,
    /// Which life of the channel this is; strictly rising per machine.
    pub epoch: u32,
    /// Random per opening: no stale or guest-made bytes can equal it by accident or by plan.
    pub nonce: [u8; 16],
}

impl Preamble {
    /// Encoded size, in bytes.
    pub const LEN: usize = 8 + 2 + 4 + 16;

    /// What the host sends.
    pub fn encode_host(&self) -> [u8; Self::LEN] {
        self.encode(HOST_MAGIC)
    }

    /// What the guest answers.
    pub fn encode_guest(&self) -> [u8; Self::LEN] {
        self.encode(GUEST_MAGIC)
    }

    fn encode(&self, magic: [u8; 8]) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..8].copy_from_slice(&magic);
        out[8..10].copy_from_slice(&self.version.to_le_bytes());
        out[10..14].copy_from_slice(&self.epoch.to_le_bytes());
        out[14..].copy_from_slice(&self.nonce);
        out
    }

    /// Guest side: the first host preamble in `bytes` and the number of bytes up to its end.
    pub fn find_host(bytes: &[u8]) -> Option<(Self, usize)> {
        Self::find(bytes, HOST_MAGIC, |_| true)
    }

    /// Host side: the guest's answer to `self` (same epoch and nonce) and the number of bytes up to its
    /// end. The version in the answer is the guest's.
    pub fn find_answer(&self, bytes: &[u8]) -> Option<(Self, usize)> {
        Self::find(bytes, GUEST_MAGIC, |found| {
            found.epoch == self.epoch && found.nonce == self.nonce
        })
    }

    fn find(bytes: &[u8], magic: [u8; 8], accept: impl Fn(&Self) -> bool) -> Option<(Self, usize)> {
        bytes
            .windows(Self::LEN)
            .enumerate()
            .find_map(|(at, window)| {
                let (found, rest) = window.split_first_chunk::<8>()?;
                let (version, rest) = rest.split_first_chunk::<2>()?;
                let (epoch, nonce) = rest.split_first_chunk::<4>()?;
                let preamble = Self {
                    version: u16::from_le_bytes(*version),
                    epoch: u32::from_le_bytes(*epoch),
                    nonce: *nonce.first_chunk::<16>()?,
                };
                (*found == magic && accept(&preamble)).then_some((preamble, at + Self::LEN))
            })
    }
}

/// Supervisor to guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ToGuest {
    /// First message of a life, once. Nothing else is served before it.
    Personalise(Box<Personalise>),
    /// Start a program. `session` is chosen by the host and not reused in this epoch.
    Exec {
        /// Session number.
        session: u32,
        /// What to start.
        request: ExecRequest,
    },
    /// Bytes for standard input, at most [`CHUNK`](crate::frame::CHUNK).
    Stdin {
        /// Session number.
        session: u32,
        /// The bytes.
        data: Vec<u8>,
    },
    /// Standard input ends (a terminal gets its end-of-file character).
    StdinEof {
        /// Session number.
        session: u32,
    },
    /// The terminal has a new size.
    Resize {
        /// Session number.
        session: u32,
        /// New size.
        size: TermSize,
    },
    /// Deliver a signal to the session's process group.
    Signal {
        /// Session number.
        session: u32,
        /// Linux signal number, 1..=64.
        signal: i32,
    },
    /// The client of the session is gone: SIGHUP to its process group, then SIGKILL after 5 s;
    /// further output is discarded.
    Hangup {
        /// Session number.
        session: u32,
    },
    /// The host has passed on this many bytes of the stream.
    Credit {
        /// Session number.
        session: u32,
        /// Which stream.
        stream: Stream,
        /// Bytes to add to the window.
        bytes: u32,
    },
    /// Set the wall clock: nanoseconds since the Unix epoch.
    SetClock {
        /// Nanoseconds since the Unix epoch.
        unix_ns: u64,
    },
    /// Are you alive? Answered with [`FromGuest::Pong`].
    Ping {
        /// Echoed.
        token: u64,
    },
    /// End every process, sync and unmount the disks, power off.
    Shutdown {
        /// Time between SIGTERM and SIGKILL, in milliseconds.
        grace_ms: u32,
    },
    /// Get ready to be saved and to become any sandbox later: what is the same in all of them is done now.
    /// In the place of [`ToGuest::Personalise`]; the machine serves nothing else in this life.
    Prepare(Box<Prepare>),
}

/// Guest to supervisor. Every field is a claim by a hostile party.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FromGuest {
    /// First message after the preamble.
    Booted {
        /// Kernel release, as in `uname -r`.
        kernel: String,
        /// Version of `sbx-guest`.
        version: String,
        /// Milliseconds from kernel start to this message.
        uptime_ms: u64,
    },
    /// Answer to [`ToGuest::Personalise`]; on error the machine is not used.
    Personalised(Result<(), String>),
    /// The program runs.
    Started {
        /// Session number.
        session: u32,
        /// Process id inside the guest.
        pid: u32,
    },
    /// The program could not be started.
    ExecFailed {
        /// Session number.
        session: u32,
        /// Why.
        error: ExecError,
    },
    /// Output bytes, at most [`CHUNK`](crate::frame::CHUNK).
    Output {
        /// Session number.
        session: u32,
        /// Which stream. A terminal session uses only `Stdout`.
        stream: Stream,
        /// The bytes.
        data: Vec<u8>,
    },
    /// All output has been sent and the program has ended. Last message of a session.
    Exited {
        /// Session number.
        session: u32,
        /// How it ended.
        status: ExitStatus,
    },
    /// The guest has passed on this many bytes of standard input.
    StdinCredit {
        /// Session number.
        session: u32,
        /// Bytes to add to the window.
        bytes: u32,
    },
    /// Answer to [`ToGuest::Ping`].
    Pong {
        /// From the ping.
        token: u64,
    },
    /// State of the private Docker Engine changed.
    Docker(DockerState),
    /// A line for the sandbox's log (not the console).
    Log(String),
    /// Answer to [`ToGuest::Prepare`]: nothing is on its way to a disk, and nobody does anything.
    Prepared(Result<(), String>),
}

/// A stream of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// State of the private Docker Engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DockerState {
    /// Not answering yet; connections to its socket wait.
    Starting,
    /// Answers.
    Ready {
        /// Milliseconds from kernel start until it answered.
        uptime_ms: u64,
    },
    /// Gave up; connections to its socket are refused.
    Failed(String),
}

/// Size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

impl TermSize {
    /// Largest terminal whose screen a supervisor keeps.
    pub const MAX: Self = Self {
        rows: 300,
        cols: 600,
    };

    /// The size within 1 × 1 and [`Self::MAX`].
    #[must_use]
    pub fn bounded(self) -> Self {
        Self {
            rows: self.rows.clamp(1, Self::MAX.rows),
            cols: self.cols.clamp(1, Self::MAX.cols),
        }
    }
}

/// What to start inside the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Program and arguments, not empty. Without a `/`, the program is looked up in the `PATH` of the
    /// final environment.
    pub argv: Vec<Vec<u8>>,
    /// Variables on top of the sandbox's own environment, later ones win.
    pub env: Vec<(String, String)>,
    /// Working directory; `None`: the primary workspace, or the user's home.
    pub workdir: Option<String>,
    /// `name`, `uid`, `name:group`, `uid:gid`; `None`: the agent user (uid 1000).
    pub user: Option<String>,
    /// A terminal of this size instead of three pipes.
    pub terminal: Option<TermSize>,
    /// Whether standard input is forwarded; otherwise it is `/dev/null`.
    pub stdin: bool,
}

/// Why a program did not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecError {
    /// No such program: exit code 127.
    NotFound,
    /// Found, but cannot be executed: exit code 126.
    NotExecutable(String),
    /// Working directory, user or another part of the request is unusable: exit code 125.
    BadRequest(String),
}

impl ExecError {
    /// The exit code that a client reports, as shells do (POSIX shell, 2.8.2).
    pub fn code(&self) -> u8 {
        match self {
            Self::NotFound => 127,
            Self::NotExecutable(_) => 126,
            Self::BadRequest(_) => 125,
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// Exit code, 0..=255.
    Code(u8),
    /// Killed by this signal.
    Signal(u8),
}

impl ExitStatus {
    /// The exit code that a client reports: 128 + signal number for a killed program.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128u8.saturating_add(signal),
        }
    }
}

/// What every sandbox of a snapshot has in common. It holds nothing that one of them could be told from another
/// by, and no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// As in [`Personalise::ca_pem`].
    pub ca_pem: String,
    /// MTU of the networks that the Docker Engine makes, bytes.
    pub mtu: u16,
    /// Variables of the Docker Engine, of those that it takes over from [`Personalise::env`]
    /// ([`ENGINE_VARIABLES`]).
    pub env: Vec<(String, String)>,
    /// Wall clock, nanoseconds since the Unix epoch.
    pub unix_ns: u64,
}

/// Variables of a sandbox that its Docker Engine gets as well, in any case of letters: what it pulls goes through
/// the sandbox's proxy and trusts its roots.
pub const ENGINE_VARIABLES: [&str; 5] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SSL_CERT_FILE",
];

impl Personalise {
    /// What a snapshot that is to become this sandbox has to be prepared with. Without the time.
    pub fn prepare(&self) -> Prepare {
        Prepare {
            ca_pem: self.ca_pem.clone(),
            mtu: self.network.mtu,
            env: engine_variables(&self.env),
            unix_ns: 0,
        }
    }
}

/// Those of a sandbox's variables that its Docker Engine gets.
pub fn engine_variables(sandbox: &[(String, String)]) -> Vec<(String, String)> {
    let wanted = |name: &str| {
        ENGINE_VARIABLES
            .iter()
            .any(|wanted| wanted.eq_ignore_ascii_case(name))
    };
    let chosen = sandbox.iter().filter(|(name, _)| wanted(name));
    chosen.cloned().collect()
}

/// Everything that makes a booted (or restored) machine this sandbox and no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Personalise {
    /// Host name, also in `/etc/hosts`.
    pub hostname: String,
    /// For `/etc/machine-id`: 32 lower-case hex digits.
    pub machine_id: String,
    /// Mixed into the kernel's pool and credited; 64 random bytes from the host.
    pub entropy: Vec<u8>,
    /// Wall clock, nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// The guest's one network interface.
    pub network: NetworkIdentity,
    /// Root certificates (PEM) to trust in addition to the image's.
    pub ca_pem: String,
    /// File systems to mount, parents first.
    pub mounts: Vec<Mount>,
    /// Environment of every program that is started, e.g. proxy variables and placeholders.
    pub env: Vec<(String, String)>,
    /// Files to write, in order, e.g. an agent's settings.
    pub files: Vec<GuestFile>,
    /// Working directory when a request names none: the primary workspace.
    pub workdir: String,
    /// Whether the private Docker Engine is started.
    pub docker: bool,
}

/// Addresses of the guest's interface `eth0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkIdentity {
    /// Guest address.
    pub address: Ipv4Addr,
    /// Prefix length, 0..=32.
    pub prefix: u8,
    /// The gateway: default route, DNS server, proxy.
    pub gateway: Ipv4Addr,
    /// MTU of the interface, bytes.
    pub mtu: u16,
    /// Further lines of `/etc/hosts`.
    pub hosts: Vec<(Ipv4Addr, String)>,
}

/// A virtio-fs mount at the same absolute path as on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// virtio-fs tag.
    pub tag: String,
    /// Absolute path in the guest; missing parents become empty directories.
    pub path: String,
    /// Mounted read-only (the share refuses writes as well).
    pub read_only: bool,
}

impl Mount {
    /// Tags that begin so are of files: the share's root holds the one that is called as `path` ends, and that file
    /// alone goes to `path`.
    pub const FILE: &str = "file";
    /// The tag of directories that are on the guest's own disk; they come after the shares that they are in.
    pub const MASK: &str = "mask";
}

/// A file that `personalise` writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestFile {
    /// Absolute path; missing parents are made, owned like the file.
    pub path: String,
    /// Content.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group, both this id.
    pub owner: u32,
    /// Leave an existing file alone.
    pub only_if_missing: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preamble_is_found_behind_stale_bytes_and_only_with_its_own_nonce() {
        let ours = Preamble {
            version: 1,
            epoch: 9,
            nonce: [7; 16],
        };
        let stale = Preamble {
            version: 1,
            epoch: 8,
            nonce: [6; 16],
        };
        let mut bytes = b"garbage\x00sbx".to_vec();
        bytes.extend(stale.encode_guest());
        bytes.extend(ours.encode_guest());
        bytes.extend(b"rest");
        let (found, end) = ours.find_answer(&bytes).unwrap();
        assert_eq!(found, ours);
        assert_eq!(&bytes[end..], b"rest");
        assert_eq!(Preamble::find_host(&bytes), None);
    }
}
