//! The spawner process itself.

use super::{News, Order, Role, commands, shares, snapshot};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};
use sbx_wire::frame::{self, Decoder};
use sbx_wire::launch::{Launch, Origin, sockets};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;

/// Pause between two looks at a share's socket.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 3_000_000,
};

/// Before the path in a line of `/proc/net/unix`.
const FIELDS: usize = 7;

/// A running helper.
struct Helper {
    role: Role,
    child: Child,
    exit: OwnedFd,
    /// Its socket is not accepting connections yet.
    awaited: bool,
}

struct Spawner {
    launch: Launch,
    control: UnixStream,
    console: OwnedFd,
    helpers: Vec<Helper>,
    /// Memory of a machine that is to be saved.
    kept: Option<File>,
}

/// Runs the spawner for the sandbox in `dir`: standard input is the socket to the supervisor, standard output
/// the console pipe. Returns when the supervisor is gone and every helper has been reaped.
///
/// # Errors
/// When the launch document cannot be read or a system call fails that cannot fail.
pub fn run(dir: &Path) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let console = io::stdout().as_fd().try_clone_to_owned()?;
    let launch = crate::launch::load(dir).map_err(io::Error::other)?;
    if !matches!(launch.origin, Origin::Restore(_)) {
        // Measured now, while the shares start, not when the machine is waited for. A restored guest knows it.
        let _ = sbx_machine::tsc::khz();
    }
    let mut spawner = Spawner {
        launch,
        control,
        console,
        helpers: Vec::new(),
        kept: None,
    };
    let result = spawner.serve();
    spawner.end_all();
    result
}

impl Spawner {
    fn serve(&mut self) -> io::Result<()> {
        let mut decoder = Decoder::new(0);
        loop {
            let readable = self.wait()?;
            self.reap()?;
            self.look_for_sockets()?;
            if readable {
                let mut piece = vec![0; 64 << 10];
                let count = self.control.read(&mut piece)?;
                if count == 0 {
                    return Ok(());
                }
                decoder.push(&piece[..count]);
                while let Some(order) = decoder.next().map_err(io::Error::other)? {
                    self.obey(order)?;
                }
            }
        }
    }

    /// Waits for an order, an exit, or the time to look at sockets again. Returns whether there is an order.
    fn wait(&self) -> io::Result<bool> {
        let timeout = self
            .helpers
            .iter()
            .any(|helper| helper.awaited)
            .then_some(LOOK);
        let mut fds = vec![PollFd::new(&self.control, PollFlags::IN)];
        fds.extend(
            self.helpers
                .iter()
                .map(|helper| PollFd::new(&helper.exit, PollFlags::IN)),
        );
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => Ok(!fds[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn obey(&mut self, order: Order) -> io::Result<()> {
        match order {
            Order::Start(role) => {
                let news = match self.start(role) {
                    Ok(pid) => News::Started { role, pid },
                    Err(error) => News::Failed {
                        role,
                        reason: error.to_string(),
                    },
                };
                self.tell(&news)
            }
            Order::End { role, force } => {
                let signal = if force { Signal::KILL } else { Signal::TERM };
                for helper in self.helpers.iter().filter(|helper| helper.role == role) {
                    // Not reaped yet, so the id is still its own.
                    let _ = rustix::process::kill_process(Pid::from_child(&helper.child), signal);
                }
                Ok(())
            }
            Order::Keep { state } => {
                let kept = snapshot::keep(&self.launch, self.kept.take(), &state);
                self.tell(&News::Kept(kept.map_err(|error| error.to_string())))
            }
        }
    }

    fn start(&mut self, role: Role) -> io::Result<u32> {
        if self.helpers.iter().any(|helper| helper.role == role) {
            return Err(io::Error::other("it is running already"));
        }
        let mut command = commands::build(&self.launch, role, &self.console)?;
        let program = command.get_program().to_owned();
        let inherited = if role == Role::Machine {
            let prepared = snapshot::prepare(&self.launch)?;
            self.kept = prepared.kept;
            let mut inherited = prepared.inherited;
            if self.launch.origin.is_boot() {
                inherited.extend(shares::inherited(&self.launch)?);
            }
            inherited
        } else {
            Vec::new()
        };
        let child = command.spawn().map_err(|error| {
            io::Error::other(format!("{}: {error}", Path::new(&program).display()))
        })?;
        drop(inherited);
        let pid = child.id();
        let exit = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let awaited = matches!(role, Role::Share(_));
        self.helpers.push(Helper {
            role,
            child,
            exit,
            awaited,
        });
        self.helpers.sort_by_key(|helper| helper.role);
        Ok(pid)
    }

    fn reap(&mut self) -> io::Result<()> {
        let mut news = Vec::new();
        let mut failure = None;
        self.helpers
            .retain_mut(|helper| match helper.child.try_wait() {
                Ok(None) => true,
                Ok(Some(status)) => {
                    let (role, how) = (helper.role, status.to_string());
                    news.push(News::Ended {
                        role,
                        how,
                        success: status.success(),
                    });
                    false
                }
                Err(error) => {
                    failure = Some(error);
                    true
                }
            });
        news.iter().try_for_each(|news| self.tell(news))?;
        failure.map_or(Ok(()), Err)
    }

    /// Tells which shares' sockets accept connections by now. The kernel's list is asked, because a trial
    /// connection would be the one that the share takes for QEMU's.
    fn look_for_sockets(&mut self) -> io::Result<()> {
        if !self.helpers.iter().any(|helper| helper.awaited) {
            return Ok(());
        }
        let list = std::fs::read_to_string("/proc/net/unix")?;
        let mut news = Vec::new();
        for helper in &mut self.helpers {
            if let Role::Share(index) = helper.role
                && helper.awaited
                && listens(
                    &list,
                    &self.launch.runtime.join(sockets::share(index.into())),
                )
            {
                helper.awaited = false;
                news.push(News::Listening(helper.role));
            }
        }
        news.iter().try_for_each(|news| self.tell(news))
    }

    fn tell(&self, news: &News) -> io::Result<()> {
        let bytes = frame::encode(0, news).map_err(io::Error::other)?;
        (&self.control).write_all(&bytes)
    }

    fn end_all(&mut self) {
        for helper in &mut self.helpers {
            // Errors mean that it has ended.
            let _ = helper.child.kill();
            let _ = helper.child.wait();
        }
    }
}

/// Whether a line of `/proc/net/unix` (`proc(5)`: Num RefCount Protocol Flags Type St Inode Path) shows a
/// socket at `path` that accepts connections (`__SO_ACCEPTCON`, 0x10000). Everybody's are in the list, also those without
/// a file (`@name`): the whole path counts. A name with a line's end in it looks like two lines, so the socket has to be
/// there as well.
fn listens(list: &str, path: &Path) -> bool {
    let made = path.symlink_metadata();
    if !made.is_ok_and(|meta| meta.file_type().is_socket()) {
        return false;
    }
    list.lines().any(|line| {
        let mut rest = line;
        let fields: [&str; FIELDS] = std::array::from_fn(|_| {
            let (field, more) = rest.trim_start().split_once(' ').unwrap_or((rest, ""));
            rest = more;
            field
        });
        // The rest is the path as it is, blanks and all.
        fields[3] == "00010000" && path.to_str() == Some(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};

    #[test]
    fn listening_sockets_are_told_from_bound_and_connected_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("with  two blanks.sock");
        let list = || std::fs::read_to_string("/proc/net/unix").unwrap();
        assert!(!listens(&list(), &path));
        let elsewhere = |name: String| {
            let name = SocketAddr::from_abstract_name(name).unwrap();
            UnixListener::bind_addr(&name).unwrap()
        };
        let forged = format!("\n0: 2 0 00010000 1 1 1 {}", path.display());
        let looks_like_two = elsewhere(forged);
        assert!(!listens(&list(), &path), "there is nothing");
        drop(looks_like_two);
        let _ends_in_it = elsewhere(format!("x {}", path.display()));
        let bound = rustix::net::socket(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            None,
        )
        .unwrap();
        let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
        rustix::net::bind(&bound, &address).unwrap();
        assert!(!listens(&list(), &path), "bound is not listening");
        rustix::net::listen(&bound, 1).unwrap();
        assert!(listens(&list(), &path));
    }
}
