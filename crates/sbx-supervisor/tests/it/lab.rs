//! A sandbox directory whose programs are stand-ins, and a client of its supervisor.

use sbx_wire::frame::{self, Decoder};
use sbx_wire::guest::{NetworkIdentity, Personalise};
use sbx_wire::launch::{
    Accel, FILE, Launch, MachineSpec, Origin, Programs, SCHEMA, ShareSpec, files, sockets,
};
use sbx_wire::session::{Phase, Reply, Request, Status};
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No test waits longer for something that must happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Polls until `condition` holds.
pub(crate) fn eventually(what: &str, condition: impl FnMut() -> bool) {
    within(LIMIT, what, condition);
}

/// As [`eventually`], with a limit of its own.
pub(crate) fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        let tick = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 5_000_000,
        };
        let _ = rustix::event::poll(&mut [], Some(&tick));
    }
}

/// A process that exists and is not a zombie.
pub(crate) fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim().starts_with('Z'))
}

pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// A sandbox with stand-ins for its programs.
pub(crate) struct Lab {
    root: TempDir,
    pub(crate) launch: Launch,
    supervisor: Option<Child>,
}

const SLEEPER: &str = "exec sleep 600";

impl Lab {
    /// `machine`: shell text that stands in for QEMU.
    pub(crate) fn new(machine: &str) -> Self {
        let root = tempfile::Builder::new().prefix("sbx").tempdir().unwrap();
        let place = root.path().canonicalize().unwrap();
        let (dir, runtime) = (place.join("d"), place.join("r"));
        for folder in [&dir, &runtime, &place.join("ws"), &dir.join("egress")] {
            fs::create_dir(folder).unwrap();
        }
        fs::set_permissions(&runtime, Permissions::from_mode(0o700)).unwrap();
        let program = |name: &str, text: &str| {
            let path = place.join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            path
        };
        let programs = Programs {
            qemu: program("qemu", machine),
            gateway: program("gateway", SLEEPER),
            share: program("share", SLEEPER),
        };
        let file = |name: &str| {
            fs::write(place.join(name), b"").unwrap();
            place.join(name)
        };
        let machine = MachineSpec {
            accel: Accel::Tcg,
            cpus: 1,
            memory_mib: 512,
            kernel: file("kernel"),
            initramfs: file("initramfs"),
            lowers: vec![file("lower")],
            upper: file("upper"),
            docker: file("docker"),
            bases: vec![file("base")],
        };
        let launch = Launch {
            schema: SCHEMA,
            id: "0123456789ab".into(),
            name: "lab".into(),
            dir,
            runtime,
            programs,
            machine,
            shares: Vec::new(),
            auto_stop_s: None,
            personalise: personalise(),
            origin: Origin::Boot,
            unconfined: false,
            start_limit_s: None,
        };
        Self {
            root,
            launch,
            supervisor: None,
        }
    }

    pub(crate) fn with_share(mut self) -> Self {
        let host = self.root.path().canonicalize().unwrap().join("ws");
        self.launch.shares.push(ShareSpec {
            tag: "ws".into(),
            host,
            read_only: false,
            rules: sbx_workspace::Rules::default(),
        });
        self
    }

    /// Starts the supervisor and waits for its socket.
    pub(crate) fn start(mut self) -> Self {
        let child = self.spawn();
        self.supervisor = Some(child);
        eventually("supervisor.sock", || self.connect().is_some());
        self
    }

    /// Starts a supervisor without waiting for anything.
    pub(crate) fn spawn(&self) -> Child {
        self.spawn_with(Stdio::piped())
    }

    /// As [`start`](Self::start), with a log and a standard error on which no byte finds room.
    pub(crate) fn start_without_room(mut self) -> Self {
        let full = Path::new("/dev/full");
        std::os::unix::fs::symlink(full, self.launch.dir.join(files::SUPERVISOR_LOG)).unwrap();
        let errors = fs::File::options().write(true).open(full).unwrap();
        self.supervisor = Some(self.spawn_with(errors.into()));
        eventually("supervisor.sock", || self.connect().is_some());
        self
    }

    fn spawn_with(&self, errors: Stdio) -> Child {
        let text = serde_json::to_vec(&self.launch).unwrap();
        fs::write(self.launch.dir.join(FILE), text).unwrap();
        Command::new(env!("CARGO_BIN_EXE_sbx-supervisor"))
            .arg(&self.launch.dir)
            .stdin(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap()
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.launch.runtime.join(name)
    }

    pub(crate) fn connect(&self) -> Option<Client> {
        Client::connect(&self.socket(sockets::SUPERVISOR))
    }

    pub(crate) fn ask(&self, request: &Request) -> Client {
        let mut client = self.connect().expect("the supervisor listens");
        client.send(request);
        client
    }

    pub(crate) fn status(&self) -> Status {
        match self.ask(&Request::Status).next() {
            Some(Reply::Status(status)) => status,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the phase and returns the status.
    pub(crate) fn until(&self, what: &str, mut is: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.status();
        eventually(what, || {
            status = self.status();
            is(&status)
        });
        status
    }

    /// Waits for the machine of a supervisor that [`spawn`](Self::spawn) started.
    pub(crate) fn until_started(&self) -> Status {
        eventually("supervisor.sock", || self.connect().is_some());
        self.until("the machine", |status| status.processes.machine.is_some())
    }

    pub(crate) fn until_unresponsive(&self) -> String {
        let status = self.until("unresponsive", |status| {
            matches!(status.phase, Phase::Unresponsive(_))
        });
        let Phase::Unresponsive(why) = status.phase else {
            unreachable!()
        };
        why
    }

    pub(crate) fn pid(&self) -> u32 {
        self.supervisor.as_ref().unwrap().id()
    }

    /// Waits for the supervisor's end; returns whether it was a success, and `last-exit`.
    pub(crate) fn ended(&mut self) -> (bool, String) {
        self.ended_within(LIMIT)
    }

    /// As [`ended`](Self::ended), where the supervisor waits before it ends.
    pub(crate) fn ended_within(&mut self, limit: Duration) -> (bool, String) {
        // Ours to end until it has.
        let child = self.supervisor.as_mut().unwrap();
        let mut status = None;
        within(limit, "the supervisor's end", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        self.supervisor = None;
        (status.unwrap().success(), self.last_exit())
    }

    pub(crate) fn last_exit(&self) -> String {
        fs::read_to_string(self.launch.dir.join(files::LAST_EXIT)).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut child) = self.supervisor.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.launch.dir.join(files::SUPERVISOR_LOG);
            eprintln!("{}", fs::read_to_string(log).unwrap_or_default());
        }
    }
}

fn personalise() -> Personalise {
    Personalise {
        hostname: "lab".into(),
        machine_id: "0".repeat(32),
        entropy: Vec::new(),
        unix_ns: 0,
        network: NetworkIdentity {
            address: Ipv4Addr::new(192, 0, 2, 2),
            prefix: 24,
            gateway: Ipv4Addr::new(192, 0, 2, 1),
            mtu: 65520,
            hosts: Vec::new(),
        },
        ca_pem: String::new(),
        mounts: Vec::new(),
        env: Vec::new(),
        files: Vec::new(),
        workdir: "/".into(),
        docker: false,
    }
}

/// A frame-speaking end of a Unix socket.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    decoder: Decoder,
    epoch: u32,
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Option<Self> {
        Some(Self::new(UnixStream::connect(path).ok()?, 0))
    }

    pub(crate) fn new(stream: UnixStream, epoch: u32) -> Self {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self {
            stream,
            decoder: Decoder::new(epoch),
            epoch,
        }
    }

    pub(crate) fn send(&mut self, message: &impl serde::Serialize) {
        self.stream
            .write_all(&frame::encode(self.epoch, message).unwrap())
            .unwrap();
    }

    /// The next message; `None`: the other side has closed.
    pub(crate) fn next<T: serde::de::DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            if let Some(message) = self.decoder.next().unwrap() {
                return Some(message);
            }
            let mut piece = vec![0; 64 << 10];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(count) => self.decoder.push(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }
}
