//! In the place of QEMU, for `./dev soak kills`: the real one, held before its first instruction (`-S`), and in the place
//! of its guest a process that answers as a guest does. Everything around the machine is the real thing, and a start
//! takes no longer than QEMU's own.
//!
//! QEMU is what this process becomes. The guest is its child, with the guest channel's socket; it ends when QEMU does.
//! A second monitor tells it when the machine is told to go on, as a restored one is, and then it is stopped again.
#![forbid(unsafe_code)]

use sbx_e2e::kills::GUEST_FLAG;
use sbx_wire::frame::{self, Decoder};
use sbx_wire::guest::{ExitStatus, FromGuest, Preamble, ToGuest};
use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Where the real one is.
const FOLDERS: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];
const PROGRAM: &str = "qemu-system-x86_64";
/// How the guest channel begins on QEMU's command line.
const CHANNEL: &str = "socket,id=agent,path=";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [flag, socket] if flag == GUEST_FLAG => guest(Path::new(socket)),
        _ => machine(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _told = writeln!(io::stderr(), "sbx-held-machine: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Becomes QEMU.
fn machine(arguments: &[OsString]) -> io::Result<()> {
    let mut folders = FOLDERS.iter().map(|folder| Path::new(folder).join(PROGRAM));
    let real = folders.find(|path| path.is_file());
    let mut qemu = Command::new(real.ok_or(io::ErrorKind::NotFound)?);
    let channel = arguments.iter().find_map(channel);
    let Some(socket) = channel else {
        return Err(qemu.args(arguments).exec());
    };
    let (ours, theirs) = UnixStream::pair()?;
    Command::new("/proc/self/exe")
        .arg(GUEST_FLAG)
        .arg(&socket)
        .stdin(OwnedFd::from(ours))
        .stdout(Stdio::null())
        .spawn()?;
    rustix::io::fcntl_setfd(theirs.as_fd(), rustix::io::FdFlags::empty())?;
    let monitor = std::os::fd::AsRawFd::as_raw_fd(&theirs);
    for word in arguments {
        if self::channel(word).is_some() {
            qemu.arg("null,id=agent");
        } else {
            qemu.arg(word);
        }
    }
    qemu.arg("-S");
    qemu.arg("-chardev")
        .arg(format!("socket,id=held,fd={monitor}"));
    qemu.args(["-mon", "chardev=held,mode=control"]);
    Err(qemu.exec())
}

/// The socket in QEMU's option for the guest channel.
fn channel(word: &OsString) -> Option<PathBuf> {
    let rest = word.to_str()?.strip_prefix(CHANNEL)?;
    Some(rest.split(',').next()?.into())
}

/// Plays the guest until the channel or the machine ends.
fn guest(socket: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    let monitor = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let held = hold(&monitor)?;
    let (channel, _) = listener.accept()?;
    serve(channel, &monitor)?;
    // The channel is closed: the machine goes on without it, as with a guest whose program has ended.
    held.join()
        .map_err(|_| io::Error::other("the monitor's thread panicked"))
}

/// Keeps the machine stopped, whoever lets it go on, and ends this process with it.
#[expect(
    clippy::exit,
    reason = "no other thread looks whether the machine is there"
)]
fn hold(monitor: &UnixStream) -> io::Result<std::thread::JoinHandle<()>> {
    (&*monitor).write_all(b"{\"execute\": \"qmp_capabilities\"}\n")?;
    let listener = monitor.try_clone()?;
    Ok(std::thread::spawn(move || {
        let lines = BufReader::new(&listener).lines();
        for line in lines.map_while(Result::ok) {
            if line.contains("\"RESUME\"") {
                let _asked = (&listener).write_all(b"{\"execute\": \"stop\"}\n");
            }
        }
        // In QEMU's jail the kernel does not see to that.
        std::process::exit(0);
    }))
}

fn serve(mut channel: UnixStream, mut monitor: &UnixStream) -> io::Result<()> {
    let mut bytes = [0; Preamble::LEN];
    channel.read_exact(&mut bytes)?;
    let (host, _) = Preamble::find_host(&bytes).ok_or(io::ErrorKind::InvalidData)?;
    channel.write_all(&host.encode_guest())?;
    let mut decoder = Decoder::new(host.epoch);
    loop {
        while let Some(message) = decoder.next::<ToGuest>().map_err(io::Error::other)? {
            if matches!(message, ToGuest::Shutdown { .. }) {
                monitor.write_all(b"{\"execute\": \"quit\"}\n")?;
            }
            for answer in answers(&message) {
                let bytes = frame::encode(host.epoch, &answer).map_err(io::Error::other)?;
                channel.write_all(&bytes)?;
            }
        }
        let mut piece = [0; 4 << 10];
        match channel.read(&mut piece)? {
            0 => return Ok(()),
            count => decoder.push(&piece[..count]),
        }
    }
}

fn answers(message: &ToGuest) -> Vec<FromGuest> {
    match message {
        ToGuest::Personalise(_) => vec![
            FromGuest::Booted {
                kernel: "held".to_owned(),
                version: "0".to_owned(),
                uptime_ms: 0,
            },
            FromGuest::Personalised(Ok(())),
        ],
        ToGuest::Prepare(_) => vec![FromGuest::Prepared(Ok(()))],
        ToGuest::Ping { token } => vec![FromGuest::Pong { token: *token }],
        ToGuest::Exec { session, .. } => vec![
            FromGuest::Started {
                session: *session,
                pid: 1,
            },
            FromGuest::Exited {
                session: *session,
                status: ExitStatus::Code(0),
            },
        ],
        _ => Vec::new(),
    }
}
