//! From an [`ExecRequest`] to a running program.

use super::session::Running;
use crate::reaper::Reaper;
use crate::sys::{self, ChildSetup, Stage};
use crate::users::{Database, Identity};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Gid, Mode, Uid};
use rustix::pipe::PipeFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::{InputModes, OptionalActions, Winsize};
use sbx_wire::guest::{ExecError, ExecRequest, ExitStatus, TermSize};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Bytes kept of a text for the host, which may name what a request asked for: it has to fit a frame.
const TEXT: usize = 4 << 10;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What every program of the sandbox starts from.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Environment from `personalise`.
    pub env: Vec<(String, String)>,
    /// The primary workspace; may be empty.
    pub workdir: String,
    /// User when a request names none.
    pub default_uid: u32,
}

/// The kernel's form of a terminal size. A size of zero would make programs divide by it.
pub(super) fn winsize(size: TermSize) -> Winsize {
    let or = |value: u16, default| if value == 0 { default } else { value };
    Winsize {
        ws_row: or(size.rows, 24),
        ws_col: or(size.cols, 80),
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Starts a program; `on_exit` runs once it has ended.
///
/// # Errors
/// As the contract of [`ExecError`] says.
pub(super) fn start(
    request: &ExecRequest,
    around: &Surroundings,
    reaper: &Reaper,
    on_exit: impl FnOnce(ExitStatus) + Send + 'static,
) -> Result<Running, ExecError> {
    let identity = Database::read()
        .resolve(request.user.as_deref(), around.default_uid)
        .map_err(|error| bad(&error))?;
    let Some((program, args)) = request
        .argv
        .split_first()
        .filter(|(program, _)| !program.is_empty())
    else {
        return Err(bad(&"no program given"));
    };
    let env = environment(request, around, &identity)?;
    let workdir = workdir(request, around, &identity)?;

    let mut command = Command::new(OsStr::from_bytes(program));
    command.args(args.iter().map(|arg| OsStr::from_bytes(arg)));
    command.env_clear().envs(env);
    let streams = Streams::attach(&mut command, request, &identity).map_err(|error| bad(&error))?;
    let (failed, stage) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(|error| bad(&io::Error::from(error)))?;
    let setup = ChildSetup {
        terminal: request.terminal.is_some(),
        identity: switch(&identity),
        workdir: CString::new(workdir.as_str())
            .map_err(|_| bad(&"NUL in the working directory"))?,
        stage,
    };
    sys::prepare_child(&mut command, setup);
    match reaper.spawn(&mut command, on_exit) {
        Ok(child) => streams
            .take(child.id())
            .map_err(|error| bad(&format!("streams of the started program: {error}"))),
        Err(error) => Err(explain(&error, &failed, &workdir, &identity)),
    }
}

fn bad(error: &dyn std::fmt::Display) -> ExecError {
    let mut text = error.to_string();
    text.truncate(text.floor_char_boundary(TEXT));
    ExecError::BadRequest(text)
}

fn explain(error: &io::Error, failed: &OwnedFd, workdir: &str, identity: &Identity) -> ExecError {
    let mut byte = [0];
    let stage = match rustix::io::read(failed, &mut byte) {
        Ok(1) => Stage::from_byte(byte[0]),
        _ => None,
    };
    match stage {
        Some(Stage::Directory) => bad(&format!(
            "working directory {workdir:?} as {}: {error}",
            identity.name
        )),
        Some(Stage::Identity) => bad(&format!("become user {}: {error}", identity.name)),
        Some(Stage::Terminal) => bad(&format!("terminal: {error}")),
        None => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ExecError::NotFound,
            io::ErrorKind::InvalidInput => bad(&"NUL in the program, an argument or a variable"),
            _ => ExecError::NotExecutable(error.to_string()),
        },
    }
}

/// Identity to take on; `None` when there is nothing to change or (an ordinary process) no right to.
fn switch(identity: &Identity) -> Option<(Uid, Gid, Vec<Gid>)> {
    let me = rustix::process::geteuid();
    if !me.is_root() && me.as_raw() == identity.uid {
        return None;
    }
    let groups = identity
        .groups
        .iter()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    Some((
        Uid::from_raw(identity.uid),
        Gid::from_raw(identity.gid),
        groups,
    ))
}

/// Base, then the sandbox's, then the request's; later ones win.
fn environment(
    request: &ExecRequest,
    around: &Surroundings,
    identity: &Identity,
) -> Result<BTreeMap<OsString, OsString>, ExecError> {
    let base = [
        ("PATH", DEFAULT_PATH),
        ("LANG", "C.UTF-8"),
        ("HOME", &identity.home),
        ("USER", &identity.name),
        ("LOGNAME", &identity.name),
        ("SHELL", &identity.shell),
    ];
    let term = request.terminal.map(|_| ("TERM", "xterm-256color"));
    let mut env: BTreeMap<OsString, OsString> = BTreeMap::new();
    for (name, value) in base.into_iter().chain(term) {
        env.insert(name.into(), value.into());
    }
    for (name, value) in around.env.iter().chain(&request.env) {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(bad(&format!("variable name or value unusable: {name:?}")));
        }
        env.insert(name.into(), value.into());
    }
    Ok(env)
}

/// The requested directory; without one the workspace, the home, or the root, whichever there is.
fn workdir(
    request: &ExecRequest,
    around: &Surroundings,
    identity: &Identity,
) -> Result<String, ExecError> {
    if let Some(wanted) = &request.workdir {
        if !wanted.starts_with('/') {
            return Err(bad(&format!(
                "working directory {wanted:?} is not absolute"
            )));
        }
        return Ok(wanted.clone());
    }
    let candidates = [around.workdir.as_str(), identity.home.as_str()];
    let exists = |path: &&str| path.starts_with('/') && Path::new(path).is_dir();
    Ok(candidates
        .into_iter()
        .find(exists)
        .unwrap_or("/")
        .to_owned())
}

/// Our side of a program's streams.
struct Streams {
    /// None for a program without input.
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    /// None with a terminal.
    stderr: Option<OwnedFd>,
    terminal: bool,
}

impl Streams {
    fn attach(
        command: &mut Command,
        request: &ExecRequest,
        identity: &Identity,
    ) -> io::Result<Self> {
        match request.terminal {
            Some(size) => Self::terminal(command, size, identity),
            None => Self::pipes(command, request.stdin, identity),
        }
    }

    fn terminal(command: &mut Command, size: TermSize, identity: &Identity) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        rustix::termios::tcsetwinsize(&master, winsize(size))?;
        let mut attributes = rustix::termios::tcgetattr(&slave)?;
        attributes.input_modes |= InputModes::IUTF8;
        rustix::termios::tcsetattr(&slave, OptionalActions::Now, &attributes)?;
        hand_over(&slave, identity)?;
        if rustix::process::geteuid().is_root() {
            rustix::fs::fchmod(&slave, Mode::from_raw_mode(0o620))?;
        }
        command
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave);
        Ok(Self {
            stdin: Some(master.try_clone()?),
            stdout: master,
            stderr: None,
            terminal: true,
        })
    }

    fn pipes(command: &mut Command, stdin: bool, identity: &Identity) -> io::Result<Self> {
        let pipe = || -> io::Result<(OwnedFd, OwnedFd)> {
            let (reader, writer) = io::pipe()?;
            hand_over(&reader, identity)?;
            Ok((reader.into(), writer.into()))
        };
        let stdin = stdin.then(pipe).transpose()?;
        let (stdout, their_stdout) = pipe()?;
        let (stderr, their_stderr) = pipe()?;
        let (their_stdin, stdin) = match stdin {
            Some((theirs, ours)) => (Stdio::from(theirs), Some(ours)),
            None => (Stdio::null(), None),
        };
        command
            .stdin(their_stdin)
            .stdout(their_stdout)
            .stderr(their_stderr);
        Ok(Self {
            stdin,
            stdout,
            stderr: Some(stderr),
            terminal: false,
        })
    }

    fn take(self, pid: u32) -> io::Result<Running> {
        let running = Running {
            pid,
            stdin: self.stdin,
            stdout: self.stdout,
            stderr: self.stderr,
            terminal: self.terminal,
        };
        let fds = [
            running.stdin.as_ref(),
            Some(&running.stdout),
            running.stderr.as_ref(),
        ];
        for fd in fds.into_iter().flatten() {
            rustix::io::ioctl_fionbio(fd.as_fd(), true)?;
        }
        Ok(running)
    }
}

/// Gives a stream to the program's user, so that the program may open it by name (`/dev/stdin`, its terminal).
fn hand_over(stream: impl AsFd, identity: &Identity) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        rustix::fs::fchown(stream, Some(Uid::from_raw(identity.uid)), None)?;
    }
    Ok(())
}
