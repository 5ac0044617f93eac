//! What a jailed process tries. Every probe prints `name=outcome` lines; `facts` judges them.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use rustix::fs::{CWD, FileType, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use sbx_jail::{Jail, JailError, Profile};

/// Where the probe may write, handed over by the test.
pub(crate) const INSIDE: &str = "SBX_JAIL_INSIDE";
/// A directory beside it that it must not reach.
pub(crate) const OUTSIDE: &str = "SBX_JAIL_OUTSIDE";

pub(crate) fn run(name: &str) -> ExitCode {
    match probe(name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say("error", &error);
            ExitCode::FAILURE
        }
    }
}

fn probe(name: &str) -> Result<(), Box<dyn std::error::Error>> {
    match name {
        "share" => {
            common(jail(Profile::Share))?;
            say("unix_outside", &outcome(connect_outside()));
            say("unix_pair", &outcome(UnixStream::pair()));
            Ok(())
        }
        "supervisor" => {
            let listener = UnixListener::bind(inside().join("socket"))?;
            common(jail(Profile::Supervisor))?;
            say("unix_pair", &outcome(UnixStream::pair()));
            say("unix_datagram_pair", &outcome(UnixDatagram::pair()));
            seal(&listener)?;
            say(
                "tcp_socket",
                &outcome(std::net::TcpStream::connect("127.0.0.1:9")),
            );
            signals()
        }
        "supervisor_sockets" => {
            let socket = inside().join("socket");
            let listener = UnixListener::bind(&socket)?;
            Jail::new(Profile::Supervisor).remove_in(inside()).apply()?;
            say("unix_inside", &outcome(UnixStream::connect(&socket)));
            say("accept", &outcome(listener.accept()));
            say("new", &outcome(UnixListener::bind(inside().join("new"))));
            say("write", &outcome(fs::write(inside().join("new"), "x")));
            let renamed = fs::rename(&socket, inside().join("renamed"));
            say("rename", &outcome(renamed));
            say("unlink", &outcome(fs::remove_file(&socket)));
            Ok(())
        }
        "machine" => machine(),
        "gateway" => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            common(jail(Profile::Gateway).connect_tcp_any())?;
            gateway(&listener)
        }
        "gateway_without_tcp" => {
            jail(Profile::Gateway).no_tcp().apply()?;
            say("unix_outside", &outcome(connect_outside()));
            say(
                "tcp_socket",
                &outcome(std::net::TcpStream::connect("127.0.0.1:9")),
            );
            Ok(())
        }
        "read_only" => {
            Jail::new(Profile::Share).read_only(inside()).apply()?;
            say("read", &outcome(fs::read(inside().join("there"))));
            say("write", &outcome(fs::write(inside().join("there"), "x")));
            say("unlink", &outcome(fs::remove_file(inside().join("there"))));
            Ok(())
        }
        "threads_first" => {
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || stopped.recv());
            let refused = matches!(
                jail(Profile::Share).apply(),
                Err(JailError::ThreadsRunning(2))
            );
            drop(stop);
            let _ended = thread.join();
            say("refused", &refused);
            Ok(())
        }
        "missing_path" => {
            let result = Jail::new(Profile::Share)
                .read_only("/nowhere/at/all")
                .apply();
            say(
                "message",
                &result
                    .err()
                    .map(|error| error.to_string())
                    .unwrap_or_default(),
            );
            Ok(())
        }
        other => Err(format!("no probe {other}").into()),
    }
}

fn jail(profile: Profile) -> Jail {
    Jail::new(profile).read_write(inside())
}

fn inside() -> PathBuf {
    std::env::var_os(INSIDE)
        .map(PathBuf::from)
        .unwrap_or_default()
}

fn outside() -> PathBuf {
    std::env::var_os(OUTSIDE)
        .map(PathBuf::from)
        .unwrap_or_default()
}

fn say(name: &str, value: &dyn std::fmt::Display) {
    let line = format!("{name}={}\n", value.to_string().replace('\n', " "));
    io::stdout()
        .write_all(line.as_bytes())
        .expect("the test reads this pipe");
}

fn outcome<T, E: Into<io::Error>>(result: Result<T, E>) -> String {
    match result.map_err(Into::into) {
        Ok(_) => "ok".into(),
        Err(error) => match error.raw_os_error() {
            Some(code) => rustix::io::Errno::from_raw_os_error(code)
                .raw_os_error()
                .to_string(),
            None => error.to_string(),
        },
    }
}

/// What holds in every profile.
fn common(jail: Jail) -> Result<(), Box<dyn std::error::Error>> {
    // Opened before, read after: the content is made when it is read.
    let mut status = fs::File::open("/proc/self/status")?;
    let enforced = jail.apply()?;
    say("enforced", &enforced);
    let mut text = String::new();
    status.read_to_string(&mut text)?;
    for (name, field) in [("no_new_privs", "NoNewPrivs:"), ("capabilities", "CapEff:")] {
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        say(name, &line.unwrap_or_default().trim());
    }
    say(
        "core_limit",
        &rustix::process::getrlimit(rustix::process::Resource::Core)
            .current
            .unwrap_or(u64::MAX),
    );
    say("exec", &outcome(Command::new("/bin/true").status()));
    for (name, nr) in FORBIDDEN {
        say(&format!("forbidden_{name}"), &raw(*nr));
    }
    for (name, nr, arguments) in FORBIDDEN_SO {
        say(&format!("forbidden_{name}"), &raw_with(*nr, *arguments));
    }
    say("read_outside", &outcome(fs::read(outside().join("there"))));
    say("read_etc", &outcome(fs::read("/etc/passwd")));
    say(
        "read_proc_root",
        &outcome(fs::read("/proc/self/root/etc/passwd")),
    );
    say(
        "write_outside",
        &outcome(rustix::fs::openat(
            CWD,
            outside().join("new"),
            rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
            Mode::RUSR,
        )),
    );
    say(
        "write_inside",
        &outcome(fs::write(inside().join("new"), "written")),
    );
    say("read_inside", &outcome(fs::read(inside().join("new"))));
    let moved = rustix::fs::renameat(CWD, inside().join("new"), CWD, inside().join("dir/moved"));
    say("rename_inside", &outcome(moved));
    let device = rustix::fs::mknodat(
        CWD,
        inside().join("null"),
        FileType::CharacterDevice,
        Mode::RUSR,
        0x103,
    );
    say("mknod_device", &outcome(device));
    let setuid = rustix::fs::chmodat(
        CWD,
        inside().join("dir/moved"),
        Mode::SUID | Mode::RWXU,
        rustix::fs::AtFlags::empty(),
    );
    say("chmod_setuid", &outcome(setuid));
    let raw = socket(AddressFamily::INET, SocketType::RAW, None);
    say("raw_socket", &outcome(raw));
    say(
        "netlink",
        &outcome(socket(AddressFamily::NETLINK, SocketType::RAW, None)),
    );
    let started = std::thread::Builder::new()
        .name("named".into())
        .spawn(|| 42)?
        .join();
    say("thread", &started.map_or(0, |value| value));
    Ok(())
}

/// A daemon, as far as a helper that was taken over is concerned.
fn connect_outside() -> io::Result<UnixStream> {
    UnixStream::connect(outside().join("socket"))
}

fn seal(listener: &UnixListener) -> Result<(), Box<dyn std::error::Error>> {
    say("unix_outside", &outcome(connect_outside()));
    let spare = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    let mut open = UnixStream::connect(inside().join("socket"))?;
    say(
        "sealed",
        &outcome(sbx_jail::seal_sockets().map_err(io::Error::other)),
    );
    say("sealed_unix_outside", &outcome(connect_outside()));
    say("sealed_unix_pair", &outcome(UnixStream::pair()));
    let address = SocketAddrUnix::new(outside().join("socket"))?;
    say(
        "sealed_unix_connect_of_an_open_socket",
        &outcome(connect(&spare, &address)),
    );
    let accepted = listener.accept();
    say(
        "sealed_accept",
        &outcome(
            accepted
                .as_ref()
                .map(|_| ())
                .map_err(|error| io::Error::from(error.kind())),
        ),
    );
    let (mut peer, _) = accepted?;
    peer.write_all(b"x")?;
    say(
        "sealed_open_connection",
        &outcome(open.read_exact(&mut [0])),
    );
    let again = sbx_jail::seal_sockets();
    say("sealed_again", &if again.is_ok() { "ok" } else { "not ok" });
    Ok(())
}

fn signals() -> Result<(), Box<dyn std::error::Error>> {
    let own = rustix::process::getpid();
    say(
        "test_kill_self",
        &outcome(rustix::process::test_kill_process(own)),
    );
    let parent = rustix::process::getppid().ok_or("no parent")?;
    say(
        "test_kill_parent",
        &outcome(rustix::process::test_kill_process(parent)),
    );
    Ok(())
}

fn gateway(listener: &TcpListener) -> Result<(), Box<dyn std::error::Error>> {
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let answer: io::Result<Vec<u8>> = runtime.block_on(async {
        let client = tokio::spawn(async move {
            use tokio::io::AsyncReadExt as _;
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            io::Result::Ok(answer)
        });
        let (mut peer, _) = listener.accept()?;
        peer.write_all(b"hello")?;
        drop(peer);
        tokio::time::timeout(std::time::Duration::from_secs(20), client).await??
    });
    say(
        "tokio_tcp",
        &outcome(
            answer
                .as_ref()
                .map_err(|error| io::Error::from(error.kind())),
        ),
    );
    say(
        "tokio_answer",
        &String::from_utf8_lossy(&answer.unwrap_or_default()),
    );
    say(
        "tokio_file",
        &outcome(runtime.block_on(tokio::fs::write(inside().join("log"), "line"))),
    );
    let terminate = tokio::signal::unix::SignalKind::terminate();
    say(
        "tokio_signal",
        &outcome(runtime.block_on(async { tokio::signal::unix::signal(terminate) })),
    );
    say("udp", &outcome(std::net::UdpSocket::bind("127.0.0.1:0")));
    say("tcp_listen", &outcome(TcpListener::bind("127.0.0.1:0")));
    // It gets an address all the same, which is not asked for by bind(2).
    let unbound = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    let listens = rustix::net::listen(&unbound, 1);
    say("tcp_listen_anywhere", &outcome(listens));
    say("unix_pair", &outcome(UnixStream::pair()));
    say("unix_datagram_pair", &outcome(UnixDatagram::pair()));
    say("unix_outside", &outcome(connect_outside()));
    say("unlink", &outcome(fs::remove_file(inside().join("log"))));
    Ok(())
}

/// What QEMU may do; and then this process becomes another program, which says what it has.
fn machine() -> Result<(), Box<dyn std::error::Error>> {
    let (sockets, elsewhere) = (inside().join("dir"), outside().join("program"));
    fs::copy("/bin/true", &elsewhere)?;
    let status = fs::File::open("/proc/self/status")?;
    let enforced = Jail::new(Profile::Machine)
        .execute("/usr")
        .read_only("/etc/ld.so.cache")
        .read_write(inside().join("there"))
        .sockets_in(&sockets)
        .device("/dev/null")
        .apply()?;
    say("enforced", &enforced);
    for (name, nr) in FORBIDDEN {
        if !PROGRAMS.contains(name) {
            say(&format!("forbidden_{name}"), &raw(*nr));
        }
    }
    for nr in MACHINES {
        let refused = raw_with(*nr, [-1, 0, 0]);
        say(&format!("forbidden_number_{nr}"), &refused);
    }
    for (name, nr, arguments) in ON_OTHERS {
        say(&format!("forbidden_{name}"), &raw_with(*nr, *arguments));
    }
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    say("own_limits", &limits.current.is_some());
    // getpid(2) by its number for x32, whether the kernel knows that or not.
    #[cfg(target_arch = "x86_64")]
    say("forbidden_x32", &raw(0x4000_0000 | libc::SYS_getpid));
    let own = inside().join("there");
    say("read", &outcome(fs::read(&own)));
    say("write", &outcome(fs::write(&own, "x")));
    say("unlink", &outcome(fs::remove_file(&own)));
    say("read_outside", &outcome(fs::read(outside().join("there"))));
    say("read_etc", &outcome(fs::read("/etc/passwd")));
    let new = fs::write(outside().join("new"), "x");
    say("write_outside", &outcome(new));
    let program = fs::File::options().write(true).open("/usr/bin/env");
    say("write_program", &outcome(program));
    let beside = fs::write(sockets.join("file"), "x");
    say("write_beside_sockets", &outcome(beside));
    say("null", &outcome(fs::write("/dev/null", "x")));
    say("listen", &outcome(UnixListener::bind(sockets.join("s"))));
    let other = UnixListener::bind(inside().join("s"));
    say("listen_elsewhere", &outcome(other));
    let renamed = fs::rename(sockets.join("s"), inside().join("t"));
    say("rename", &outcome(renamed));
    say(
        "unlink_socket",
        &outcome(fs::remove_file(sockets.join("s"))),
    );
    say("unix_outside", &outcome(connect_outside()));
    say("unix_pair", &outcome(UnixStream::pair()));
    say("unix_datagram_pair", &outcome(UnixDatagram::pair()));
    say("unix_datagram", &outcome(UnixDatagram::unbound()));
    say("udp", &outcome(std::net::UdpSocket::bind("127.0.0.1:0")));
    // sendto(2) can connect such a one (MSG_FASTOPEN).
    let tcp = socket(AddressFamily::INET, SocketType::STREAM, None);
    say("tcp_socket", &outcome(tcp));
    say("exec", &outcome(Command::new("/bin/true").status()));
    let program = Command::new(&elsewhere).status();
    say("exec_elsewhere", &outcome(program));
    let mut last = Command::new("/usr/bin/sed");
    last.args([
        "-n",
        r"s/^\(CapEff\|CapPrm\|CapBnd\|NoNewPrivs\|Seccomp\):\t/\1=/p",
    ]);
    Err(last.stdin(status).exec().into())
}

/// What QEMU may do as any program may, or that has no meaning for one that is about to be started.
const PROGRAMS: &[&str] = &[
    "execve",
    "execveat",
    "seccomp",
    "personality",
    "clone_process",
];

/// Calls that QEMU may not make, besides those that nobody may. With -1 for the first argument, which is no descriptor and
/// no address, none of them does anything, jailed or not.
const MACHINES: &[libc::c_long] = &[
    libc::SYS_connect,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_ioprio_set,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semop,
    libc::SYS_semctl,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_unlink,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_request_key,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kexec_file_load,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_flock,
    libc::SYS_truncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchown,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_utimensat,
    libc::SYS_setpriority,
    libc::SYS_shmget,
    libc::SYS_semget,
    libc::SYS_msgget,
    libc::SYS_mq_open,
    libc::SYS_inotify_add_watch,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
];

/// What QEMU may do to itself and to nobody else.
const ON_OTHERS: &[(&str, libc::c_long, [libc::c_long; 3])] = &[
    ("limits_of_others", libc::SYS_prlimit64, [1, 0, 0]),
    ("signal_to_others", libc::SYS_tgkill, [1, 0, 0]),
    (
        "outliving",
        libc::SYS_prctl,
        [libc::PR_SET_PDEATHSIG as _, 0, 0],
    ),
    (
        "signals_to_others",
        libc::SYS_fcntl,
        [0, libc::F_SETOWN as _, 0],
    ),
    ("signals_by_device", libc::SYS_ioctl, [0, 0x8901, 0]),
];

/// What no helper may do with these arguments. Without the jail each of them succeeds, or fails for another reason.
const FORBIDDEN_SO: &[(&str, libc::c_long, [libc::c_long; 3])] = &[
    ("new_code", libc::SYS_mprotect, [0, 0, libc::PROT_EXEC as _]),
    (
        "namespace",
        libc::SYS_clone,
        [(THREAD | libc::CLONE_NEWUSER) as _, 0, 0],
    ),
    ("prctl", libc::SYS_prctl, [libc::PR_SET_DUMPABLE as _, 0, 0]),
    ("own_limits", libc::SYS_prlimit64, [0, 0, 1]),
    ("ioctl", libc::SYS_ioctl, [0, 0x8901, 0]),
    (
        "owner_of_signals",
        libc::SYS_fcntl,
        [0, libc::F_SETOWN as _, 0],
    ),
];

/// What makes a thread.
const THREAD: libc::c_int = libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND;

/// Calls that no profile may make. With zeros for arguments none of them does anything, jailed or not.
const FORBIDDEN: &[(&str, libc::c_long)] = &[
    ("execve", libc::SYS_execve),
    ("execveat", libc::SYS_execveat),
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("pivot_root", libc::SYS_pivot_root),
    ("chroot", libc::SYS_chroot),
    ("unshare", libc::SYS_unshare),
    ("setns", libc::SYS_setns),
    ("bpf", libc::SYS_bpf),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("keyctl", libc::SYS_keyctl),
    ("add_key", libc::SYS_add_key),
    ("kexec_load", libc::SYS_kexec_load),
    ("init_module", libc::SYS_init_module),
    ("finit_module", libc::SYS_finit_module),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("setuid", libc::SYS_setuid),
    ("setgid", libc::SYS_setgid),
    ("setgroups", libc::SYS_setgroups),
    ("capset", libc::SYS_capset),
    ("seccomp", libc::SYS_seccomp),
    ("personality", libc::SYS_personality),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("clone_process", libc::SYS_clone),
    ("fchownat", libc::SYS_fchownat),
    ("setxattr", libc::SYS_setxattr),
];

/// The error number of a call with zeros for arguments, 0 if it succeeded.
fn raw(number: libc::c_long) -> i32 {
    raw_with(number, [0; 3])
}

/// The same with these first arguments.
#[expect(unsafe_code, reason = "system calls that no safe wrapper offers")]
fn raw_with(number: libc::c_long, [a, b, c]: [libc::c_long; 3]) -> i32 {
    // SAFETY: every argument that the kernel takes for a pointer is null, 1 or -1, where nothing is mapped: it can neither
    // read nor write memory of this process. A range of no bytes changes no page; the one clone has no stack and flags
    // that the kernel refuses together.
    let result = unsafe { libc::syscall(number, a, b, c, 0, 0, 0) };
    if result == -1 {
        io::Error::last_os_error().raw_os_error().unwrap_or(-1)
    } else {
        0
    }
}
