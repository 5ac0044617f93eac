//! The server process: its socket, its jail, its end.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// Ends the server when a test fails before it did.
pub(crate) struct Server(pub(crate) Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sbx-share"));
    command
        .arg("--socket")
        .arg(folder.join("s"))
        .arg("--root")
        .arg(folder.join("root"));
    command
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("root")).unwrap();
    folder
}

/// Starts the server and waits for the line that says it is jailed and listening.
fn start(folder: &Path) -> (Server, String, impl std::io::Read + use<>) {
    start_with(&mut command(folder))
}

/// As [`start`], with arguments of its own.
pub(crate) fn start_with(command: &mut Command) -> (Server, String, impl std::io::Read + use<>) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    (Server(child), line, log)
}

fn refused(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    assert_eq!(status.code(), Some(1));
    String::from_utf8(stderr).unwrap()
}

#[test]
fn the_socket_is_the_users_only_and_the_server_ends_well_when_qemu_goes() {
    let folder = folder();
    let (mut server, line, mut log) = start(folder.path());
    assert!(line.contains("seccomp"), "{line}");
    let mode = std::fs::metadata(folder.path().join("s"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(UnixStream::connect(folder.path().join("s")).unwrap());
    assert!(server.0.wait().unwrap().success());
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("QEMU has gone"), "{rest}");
}

#[test]
fn a_log_on_a_full_disk_costs_the_log_and_not_the_share() {
    let folder = folder();
    let full = std::fs::File::options().write(true).open("/dev/full");
    let child = command(folder.path()).stderr(full.unwrap()).spawn();
    let mut server = Server(child.unwrap());
    // The line that says it listens cannot be written, and neither can the one about this client.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let qemu = loop {
        if let Ok(qemu) = UnixStream::connect(folder.path().join("s")) {
            break qemu;
        }
        assert_eq!(server.0.try_wait().unwrap(), None, "it ended");
        assert!(std::time::Instant::now() < deadline, "it does not listen");
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    };
    drop(qemu);
    assert!(server.0.wait().unwrap().success());
}

#[test]
fn a_socket_that_was_left_over_is_replaced() {
    let folder = folder();
    drop(UnixListener::bind(folder.path().join("s")).unwrap());
    let (mut server, _, _log) = start(folder.path());
    drop(UnixStream::connect(folder.path().join("s")).unwrap());
    assert!(server.0.wait().unwrap().success());
}

#[test]
fn a_second_client_is_refused() {
    let folder = folder();
    let (_server, _, mut log) = start(folder.path());
    let _first = UnixStream::connect(folder.path().join("s")).unwrap();
    let mut text = [0; 1];
    log.read_exact(&mut text).unwrap(); // "QEMU has connected" is written after the listener is closed
    assert!(UnixStream::connect(folder.path().join("s")).is_err());
}

#[test]
fn the_serving_process_is_jailed() {
    let folder = folder();
    let (server, line, _log) = start(folder.path());
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.0.id())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    let capabilities = u64::from_str_radix(&field("CapEff:"), 16).unwrap();
    let allowed = 1 << 1 | 1 << 3; // CAP_DAC_OVERRIDE, CAP_FOWNER
    assert_eq!(capabilities & !allowed, 0);
    assert!(
        line.contains("landlock abi") || line.contains("landlock NOT enforced"),
        "{line}"
    );
}

#[test]
fn what_cannot_be_served_is_said_with_a_next_step() {
    let folder = folder();
    let mut missing = Command::new(env!("CARGO_BIN_EXE_sbx-share"));
    missing
        .arg("--socket")
        .arg(folder.path().join("s"))
        .arg("--root")
        .arg(folder.path().join("nowhere"));
    let text = refused(&mut missing);
    assert!(text.contains("nowhere") && text.contains("try:"), "{text}");
    assert!(
        !folder.path().join("s").exists(),
        "a failed start leaves no socket"
    );

    std::fs::write(folder.path().join("file"), "").unwrap();
    let mut file = Command::new(env!("CARGO_BIN_EXE_sbx-share"));
    file.arg("--socket")
        .arg(folder.path().join("s"))
        .arg("--root")
        .arg(folder.path().join("file"));
    assert!(refused(&mut file).contains("try:"));

    std::fs::write(folder.path().join("s"), "not a socket").unwrap();
    assert!(refused(&mut command(folder.path())).contains("is not a socket"));
    assert_eq!(
        std::fs::read_to_string(folder.path().join("s")).unwrap(),
        "not a socket"
    );
}
