//! `sbx exec` with a daemon and a supervisor that the test plays.

use crate::stranger::{self, Stranger};
use crate::terminal;
use crate::world::{self, World};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::termios::{LocalModes, tcgetattr};
use sbx_wire::frame::{CHUNK, Decoder, encode};
use sbx_wire::guest::Stream;
use sbx_wire::home::Home;
use sbx_wire::session::{FromClient, Request, ToClient};
use serde_json::json;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// No test waits longer for something that must happen.
const LIMIT: Duration = Duration::from_secs(20);

/// What the command takes for its daemon and the supervisor of its one sandbox, `box`.
struct Stage {
    world: World,
    supervisor: UnixListener,
}

impl Stage {
    fn new() -> Self {
        let mut world = World::new();
        let socket = world.root.path().join("supervisor.sock");
        let supervisor = UnixListener::bind(&socket).unwrap();
        play_daemon(&mut world, socket);
        Self { world, supervisor }
    }

    /// The next session: its socket, once its request has come.
    fn session(&self) -> Session {
        let (stream, _) = self.supervisor.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut session = Session {
            stream,
            decoder: Decoder::new(0),
        };
        let request = session.next::<Request>();
        assert!(
            matches!(request, Some(Request::Program { .. })),
            "{request:?}"
        );
        session
    }
}

/// Answers the commands of this world, until they stop the daemon. `socket`: of the supervisor.
fn play_daemon(world: &mut World, socket: PathBuf) {
    let runtime = world.folder("r");
    let variables = [
        ("SBX_HOME", world.home()),
        ("XDG_RUNTIME_DIR", runtime.clone()),
    ];
    world.runtime = Some(runtime);
    let lookup = |name: &str| {
        let found = variables.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| value.clone().into_os_string())
    };
    let home = Home::from_env(lookup, rustix::process::geteuid().as_raw()).unwrap();
    std::fs::create_dir_all(&home.runtime).unwrap();
    let daemon = UnixListener::bind(home.daemon_socket()).unwrap();
    std::thread::spawn(move || {
        let mut streams = daemon.incoming();
        while answer(streams.next().unwrap().unwrap(), &socket) != "/v1/shutdown" {}
    });
}

/// Answers one request of the command, as if it were a start of `box`, and returns its path.
fn answer(mut stream: UnixStream, socket: &std::path::Path) -> String {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).unwrap();
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    line.clear();
    while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
        let line = std::mem::take(&mut line).to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let _body = reader.read_exact(&mut vec![0; length]);
    let event = json!({"done": {
        "sandbox": {
            "name": "box", "id": "00000000000a", "agent": "shell", "status": "running", "workspaces": [],
            "created_at": "2026-01-01T00:00:00Z", "cpus": 1, "memory_mib": 512, "accel": "tcg", "image": "base-0",
            "dir": "/nowhere",
        },
        "socket": socket, "agent_command": ["bash"], "workdir": "/", "started": false,
    }});
    let body = format!("{event}\n");
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    // Whoever ended does not listen.
    let _gone = stream.write_all((head + &body).as_bytes());
    path
}

/// The supervisor's side of a session.
struct Session {
    stream: UnixStream,
    decoder: Decoder,
}

impl Session {
    fn send(&mut self, message: &ToClient) -> std::io::Result<()> {
        self.stream.write_all(&encode(0, message).unwrap())
    }

    /// `None`: the command has gone.
    fn next<T: serde::de::DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            if let Some(message) = self.decoder.next().unwrap() {
                return Some(message);
            }
            let mut piece = vec![0; CHUNK];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(count) => self.decoder.push(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn send_signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// The exit code of a command that has to end by itself.
fn end(child: &mut Child) -> Option<i32> {
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let limit = Timespec {
        tv_sec: LIMIT.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    let mut ended = [PollFd::new(&ended, PollFlags::IN)];
    if poll(&mut ended, Some(&limit)).unwrap() == 0 {
        child.kill().unwrap();
        panic!("it did not end");
    }
    child.wait().unwrap().code()
}

#[test]
fn a_command_whose_program_does_not_begin_ends_at_a_signal_and_leaves_the_terminal_as_it_was() {
    let stage = Stage::new();
    for (signal, code) in [
        (Signal::INT, 130),
        (Signal::TERM, 143),
        (Signal::HUP, 129),
        (Signal::QUIT, 131),
    ] {
        let terminal = terminal::Terminal::new();
        let before = format!("{:?}", tcgetattr(terminal.open()).unwrap());
        let mut child = terminal.spawn(stage.world.command(&["exec", "-it", "box", "cat"]));
        let mut session = stage.session();
        // It has no right to what is typed yet: Control-C has to end the command.
        assert_eq!(format!("{:?}", tcgetattr(terminal.open()).unwrap()), before);
        send_signal(&child, signal);
        assert_eq!(end(&mut child), Some(code), "{signal:?}");
        assert!(session.next::<FromClient>().is_none(), "it is still there");
        assert_eq!(format!("{:?}", tcgetattr(terminal.open()).unwrap()), before);
    }
}

#[test]
fn a_terminal_is_raw_while_the_program_runs_and_then_as_it_was() {
    let stage = Stage::new();
    let terminal = terminal::Terminal::new();
    let modes = || tcgetattr(terminal.open()).unwrap().local_modes;
    let before = modes();
    assert!(before.contains(LocalModes::ISIG));
    let mut child = terminal.spawn(stage.world.command(&["exec", "-it", "box", "cat"]));
    let mut session = stage.session();
    session.send(&ToClient::Started).unwrap();
    let start = Instant::now();
    while modes().contains(LocalModes::ISIG) {
        assert!(start.elapsed() < LIMIT, "it does not become raw");
    }
    (&terminal.master).write_all(b"\x03").unwrap();
    // Control-C is the program's, however often.
    let typed = session.next::<FromClient>();
    assert!(
        matches!(&typed, Some(FromClient::Stdin(keys)) if keys == b"\x03"),
        "{typed:?}"
    );
    for _ in 0..4 {
        send_signal(&child, Signal::INT);
        let sent = session.next::<FromClient>();
        assert!(matches!(sent, Some(FromClient::Signal(2))), "{sent:?}");
    }
    let status = sbx_wire::guest::ExitStatus::Code(7);
    session.send(&ToClient::Exited(status)).unwrap();
    assert_eq!(end(&mut child), Some(7));
    assert_eq!(modes(), before);
}

#[test]
fn a_program_gets_two_interrupts_and_the_third_one_ends_the_command() {
    let stage = Stage::new();
    let mut child = stage
        .world
        .command(&["exec", "box", "sleep"])
        .spawn()
        .unwrap();
    let mut session = stage.session();
    session.send(&ToClient::Started).unwrap();
    session
        .send(&ToClient::Output(Stream::Stdout, b"begun\n".to_vec()))
        .unwrap();
    // Then it has heard that the program runs.
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    for _ in 0..2 {
        send_signal(&child, Signal::INT);
        let sent = session.next::<FromClient>();
        assert!(matches!(sent, Some(FromClient::Signal(2))), "{sent:?}");
    }
    send_signal(&child, Signal::INT);
    assert_eq!(end(&mut child), Some(130));
    assert!(session.next::<FromClient>().is_none(), "it is still there");
}

#[test]
fn a_command_whose_output_nobody_reads_any_more_ends_and_hangs_its_program_up() {
    let stage = Stage::new();
    for broken in [Stream::Stdout, Stream::Stderr] {
        let mut command = stage.world.command(&["exec", "box", "yes"]);
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        let mut session = stage.session();
        session.send(&ToClient::Started).unwrap();
        let lines = b"y\n".repeat(CHUNK / 2);
        session
            .send(&ToClient::Output(broken, lines.clone()))
            .unwrap();
        let line = match broken {
            Stream::Stdout => first_line(child.stdout.take().unwrap()),
            Stream::Stderr => first_line(child.stderr.take().unwrap()),
        };
        assert_eq!(line, "y\n");
        let start = Instant::now();
        while session
            .send(&ToClient::Output(broken, lines.clone()))
            .is_ok()
        {
            assert!(start.elapsed() < LIMIT, "it takes and takes");
        }
        assert_eq!(end(&mut child), Some(141));
        let rest = world::finish(child);
        assert_eq!(rest.stderr, "", "a local program says nothing either");
    }
}

#[test]
fn output_that_finds_no_room_is_an_error_and_not_the_programs_exit_code() {
    let stage = Stage::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = stage.world.command(&["exec", "box", "cat", "big"]);
    let mut child = command.stdin(Stdio::null()).stdout(full).spawn().unwrap();
    let mut session = stage.session();
    session.send(&ToClient::Started).unwrap();
    let line = b"content\n".to_vec();
    session
        .send(&ToClient::Output(Stream::Stdout, line))
        .unwrap();
    assert!(session.next::<FromClient>().is_none(), "it is still there");
    assert_eq!(end(&mut child), Some(1));
    let said = world::finish(child).stderr;
    assert!(
        said.contains("'cat'") && said.contains("No space left"),
        "{said}"
    );
}

/// Reads one line and closes it, as `head -1` does.
fn first_line(stream: impl Read) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn a_supervisors_socket_at_which_another_user_listens_is_told_nothing() {
    if !stranger::possible() {
        return;
    }
    let mut world = World::new();
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(world.root.path(), open).unwrap();
    let socket = world.root.path().join("theirs/supervisor.sock");
    let stranger = Stranger::listen(socket.clone());
    play_daemon(&mut world, socket);
    world
        .sbx(&["exec", "-e", "KEY=value", "box", "true"])
        .refused("theirs belongs to another user (uid 65534)");
    assert_eq!(stranger.heard(), "");
}
