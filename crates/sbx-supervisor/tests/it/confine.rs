//! QEMU itself, in its jail: its monitor is asked for what a supervisor that was taken over could ask for.

use crate::lab::Lab;
use sbx_supervisor::confine::FLAG;
use sbx_wire::launch::{FILE, sockets};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A machine with no part but its monitor.
const ARGUMENTS: [&str; 9] = [
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-machine",
    "none",
    "-S",
    "-qmp",
    "stdio",
];

struct Machine {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Machine {
    fn start(command: &mut Command) -> Self {
        let mut process = command
            .args(ARGUMENTS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut machine = Self {
            process,
            input,
            output,
        };
        machine.line();
        machine.ask("qmp_capabilities", &json!({})).unwrap();
        machine
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// `Err`: why it is not done.
    fn ask(&mut self, command: &str, arguments: &Value) -> Result<(), String> {
        let text = json!({"execute": command, "arguments": arguments});
        writeln!(self.input, "{text}").unwrap();
        loop {
            let answer = self.line();
            if answer.get("return").is_some() {
                return Ok(());
            }
            if let Some(why) = answer.pointer("/error/desc") {
                return Err(why.to_string());
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn qemu() -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap();
    let mut found = std::env::split_paths(&folders).map(|path| path.join("qemu-system-x86_64"));
    found.find(|path| path.is_file()).expect("QEMU")
}

/// A back end that talks to a file or socket.
fn backend(name: &str, kind: &str, data: &Value) -> (&'static str, Value) {
    let backend = json!({"type": kind, "data": data});
    ("chardev-add", json!({"id": name, "backend": backend}))
}

fn connect(name: &str, kind: &str, address: &Value) -> (&'static str, Value) {
    let address = json!({"type": kind, "data": address});
    backend(name, "socket", &json!({"addr": address, "server": false}))
}

fn listen(name: &str, kind: &str, address: &Value) -> (&'static str, Value) {
    let address = json!({"type": kind, "data": address});
    let data = json!({"addr": address, "server": true, "wait": false});
    backend(name, "socket", &data)
}

fn disk(name: &str, path: &Path, read_only: bool) -> (&'static str, Value) {
    (
        "blockdev-add",
        json!({"driver": "file", "node-name": name, "filename": path, "read-only": read_only}),
    )
}

#[test]
fn a_machine_reaches_its_own_files_and_nothing_else_whatever_its_monitor_is_asked() {
    let mut lab = Lab::new("");
    lab.launch.programs.qemu = qemu();
    let outside = lab.launch.dir.parent().unwrap().to_path_buf();
    fs::create_dir(lab.socket(sockets::MACHINE_DIR)).unwrap();
    fs::write(outside.join("secret"), [7; 512]).unwrap();
    for disk in [&lab.launch.machine.upper, &lab.launch.machine.lowers[0]] {
        fs::write(disk, [0; 512]).unwrap();
    }
    let document = serde_json::to_vec(&lab.launch).unwrap();
    fs::write(lab.launch.dir.join(FILE), document).unwrap();
    let daemon = UnixListener::bind(outside.join("daemon.sock")).unwrap();
    daemon.set_nonblocking(true).unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    let own = [
        disk("own", &lab.launch.machine.upper, false),
        disk("layer", &lab.launch.machine.lowers[0], true),
        listen("m", "unix", &json!({"path": lab.socket(sockets::QMP)})),
    ];
    let inet = |port: &str| json!({"host": "127.0.0.1", "port": port});
    // Files are Landlock's; where the kernel has none, that is said.
    let files = [
        disk("written", &lab.launch.machine.lowers[0], false),
        disk("read", &outside.join("secret"), true),
        disk("launch", &lab.launch.dir.join(FILE), true),
        backend("f", "file", &json!({"out": outside.join("new")})),
        listen("n", "unix", &json!({"path": outside.join("mine.sock")})),
    ];
    let sockets = [
        connect("u", "unix", &json!({"path": outside.join("daemon.sock")})),
        connect("i", "inet", &inet(&port)),
        listen("l", "inet", &inet("0")),
    ];
    let mut others = sockets.to_vec();
    if sbx_jail::landlock_abi().is_some() {
        others.extend(files);
    } else {
        eprintln!("no Landlock here: files are not looked at");
    }
    let mut confined = Command::new(env!("CARGO_BIN_EXE_sbx-supervisor"));
    confined.arg(FLAG).arg(&lab.launch.dir);
    let mut machine = Machine::start(&mut confined);
    for (command, arguments) in &own {
        let done = machine.ask(command, arguments);
        assert_eq!(done, Ok(()), "{arguments}");
    }
    for (command, arguments) in &others {
        let done = machine.ask(command, arguments);
        let refused = done.as_ref().is_err_and(|why| {
            why.contains("Permission denied") || why.contains("Operation not permitted")
        });
        assert!(refused, "{arguments}: {done:?}");
    }
    assert!(daemon.accept().is_err() && server.accept().is_err());
    assert!(!outside.join("new").exists() && !outside.join("mine.sock").exists());
    drop(machine);
    // None of that is refused by QEMU itself.
    let mut machine = Machine::start(&mut Command::new(qemu()));
    for (command, arguments) in &others {
        let done = machine.ask(command, arguments);
        assert_eq!(done, Ok(()), "{arguments}");
    }
}
