//! A machine is saved while it has a share mounted, and goes on with another QEMU and another process of the share: the
//! parts that do it, without the rest of a sandbox.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cpio::newc::{Builder, ModeFileType, trailer};
use sbx_machine::args::{Life, MEMORY_FD, Plan, STATE_FD, arguments, share_fd};
use sbx_machine::qmp::{Event, Qmp};
use sbx_machine::{disk, migration, snapshot};
use sbx_wire::launch::{Accel, MachineSpec};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::clients::installed;
use crate::setting::{Setting, cache};

const MEMORY_MIB: u32 = 512;
/// Everything in the machine has to happen within this.
const LIMIT: Duration = Duration::from_mins(4);

/// Keeps three files of the share open, appends to the first, and says what it sees of the others, through their descriptors
/// and by a name that it has looked up before.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc
exec >/dev/console 2>&1
mount -t virtiofs share /m || echo cannot mount
exec 3>>/m/log 4</m/kept 5</m/gone
size() { stat -L -c %s "$1" 2>&1 | sed 's/.*: //'; }
n=0
while :; do
    n=$((n + 1))
    echo "line $n" >&3 || echo cannot append
    echo "TURN $n kept: $(size /proc/self/fd/4), gone: $(size /proc/self/fd/5), named: $(cat /m/deep/er/named)."
    sleep 1
done
"#;

/// What stays from one life to the next.
struct Machine {
    folder: tempfile::TempDir,
    spec: MachineSpec,
    memory: File,
}

/// One life of it.
struct Running {
    share: Child,
    qemu: Child,
    qmp: Qmp,
    events: mpsc::Receiver<Event>,
    console: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in [&mut self.qemu, &mut self.share] {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Machine {
    async fn new(kernel: PathBuf, busybox: &Path) -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("initramfs"), initramfs(busybox)).unwrap();
        File::create(path("raw")).unwrap().set_len(1 << 20).unwrap();
        let raw = path("raw");
        for name in ["upper", "docker"] {
            let disk = path(name);
            let made = disk::create_overlay(Path::new("qemu-img"), &raw, &disk, None);
            made.await.unwrap();
        }
        std::fs::create_dir_all(path("tree/deep/er")).unwrap();
        for (name, content) in [
            ("kept", "12345678"),
            ("gone", "1234"),
            ("deep/er/named", "old"),
        ] {
            std::fs::write(path("tree").join(name), content).unwrap();
        }
        let spec = MachineSpec {
            accel: Accel::Tcg,
            cpus: 1,
            memory_mib: MEMORY_MIB,
            kernel,
            initramfs: path("initramfs"),
            lowers: Vec::new(),
            upper: path("upper"),
            docker: path("docker"),
            bases: Vec::new(),
        };
        Self {
            memory: snapshot::memory(u64::from(MEMORY_MIB) << 20).unwrap(),
            folder,
            spec,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a share and a QEMU: a boot, or with the state of one that has ended.
    async fn start(&self, programs: &Setting, number: u8, state: Option<OwnedFd>) -> Running {
        let name = |what: &str| self.path(&format!("{what}-{number}"));
        let socket = name("share");
        let share = Command::new(programs.installation.built("sbx-share"))
            .arg("--socket")
            .arg(&socket)
            .arg("--root")
            .arg(self.path("tree"))
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        wait("the share listens", || socket.exists());
        let life = if state.is_some() {
            Life::Restore
        } else {
            Life::Save
        };
        let (qmp, guest, frames) = (name("qmp"), name("guest"), name("frames"));
        let plan = Plan {
            label: "saved",
            spec: &self.spec,
            qmp: &qmp,
            guest: &guest,
            frames: &frames,
            shares: &["share"],
            life,
        };
        let mut inherited = vec![snapshot::inherit_as(self.memory.as_fd(), MEMORY_FD).unwrap()];
        let connection = UnixStream::connect(&socket).unwrap();
        inherited.push(snapshot::inherit_as(connection.as_fd(), share_fd(0)).unwrap());
        inherited.extend(state.map(|state| snapshot::inherit_as(state.as_fd(), STATE_FD).unwrap()));
        let console = name("console");
        let qemu = Command::new("qemu-system-x86_64")
            .args(arguments(&plan).unwrap())
            .stdin(Stdio::null())
            .stdout(File::create(&console).unwrap())
            .spawn()
            .unwrap();
        drop(inherited);
        wait("QEMU listens", || qmp.exists());
        let (qmp, events) = Qmp::connect(&qmp).await.unwrap();
        Running {
            share,
            qemu,
            qmp,
            events,
            console,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("tree/log")).unwrap()
    }
}

impl Running {
    fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap()).into_owned()
    }

    /// The turns that the guest has told of, from a first one on.
    fn turns(&self) -> Vec<String> {
        let said = self.said();
        let lines = said
            .lines()
            .filter(|line| line.starts_with("TURN") && line.contains('.'));
        lines.map(|line| line.trim().to_owned()).collect()
    }

    fn wait_for_turns(&self, count: usize) {
        wait_or(
            "the guest takes its turns",
            || self.turns().len() >= count,
            || self.said(),
        );
    }

    /// Ends both. The share ends by itself when QEMU has gone.
    async fn end(mut self) {
        let _ = self.qmp.execute("quit", Value::Null).await;
        assert!(self.qemu.wait().unwrap().success());
        assert!(self.share.wait().unwrap().success());
    }
}

/// The guest: one program with many names, and a script.
fn initramfs(busybox: &Path) -> Vec<u8> {
    let mut archive = Vec::new();
    for folder in ["bin", "dev", "proc", "m"] {
        let entry = Builder::new(folder)
            .mode(0o755)
            .set_mode_file_type(ModeFileType::Directory);
        archive = entry.write(archive, 0).finish().unwrap();
    }
    let program = std::fs::read(busybox).unwrap();
    for (name, content) in [
        ("bin/busybox", program.as_slice()),
        ("init", INIT.as_bytes()),
    ] {
        let entry = Builder::new(name)
            .mode(0o755)
            .set_mode_file_type(ModeFileType::Regular);
        let mut file = entry.write(archive, u32::try_from(content.len()).unwrap());
        file.write_all(content).unwrap();
        archive = file.finish().unwrap();
    }
    trailer(archive).unwrap()
}

fn wait(what: &str, is_so: impl FnMut() -> bool) {
    wait_or(what, is_so, String::new);
}

fn wait_or(what: &str, mut is_so: impl FnMut() -> bool, said: impl Fn() -> String) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < LIMIT, "{what}: never\n{}", said());
        // Nothing announces it.
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn busybox() -> PathBuf {
    let unpacked = installed().join("debian");
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| unpacked.join(place));
    let found = places.into_iter().find(|place| place.exists());
    found.expect("./dev test unpacks busybox")
}

/// The distribution's kernel, of the image that all tests share. The first sandbox on a machine has it built.
fn kernel(setting: &Setting) -> PathBuf {
    let find = || {
        let images = std::fs::read_dir(cache().join("sbx/images")).ok()?;
        let mut kernels = images.flatten().map(|image| image.path().join("vmlinux"));
        kernels.find(|kernel| kernel.exists())
    };
    find().unwrap_or_else(|| {
        setting.shell("first");
        find().expect("a sandbox has a kernel")
    })
}

#[test]
fn a_machine_that_is_saved_with_a_share_goes_on_with_its_open_files() {
    let setting = Setting::ordinary("deny-all");
    let kernel = kernel(&setting);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let machine = Machine::new(kernel, &busybox()).await;
        let first = machine.start(&setting, 1, None).await;
        first.wait_for_turns(3);
        let state = migration::save(&first.qmp).await.unwrap();
        let before = first.turns();
        let last = before.last().unwrap();
        assert!(last.ends_with("kept: 8, gone: 4, named: old."), "{last}");
        let appended = machine.log();
        first.end().await;

        // Meanwhile the host goes on: one of the open files has no name any more, another file is another one.
        std::fs::remove_file(machine.path("tree/gone")).unwrap();
        std::fs::write(machine.path("tree/new"), "new").unwrap();
        std::fs::rename(machine.path("tree/new"), machine.path("tree/deep/er/named")).unwrap();

        let file = machine.path("state");
        snapshot::save_state(&state, &file).unwrap();
        let pipe = snapshot::load_state(&file).unwrap();
        let mut second = machine.start(&setting, 2, Some(pipe)).await;
        migration::load(&second.qmp, &mut second.events)
            .await
            .unwrap();
        second.qmp.execute("cont", Value::Null).await.unwrap();
        second.wait_for_turns(4);
        let after = second.turns();
        let last = after.last().unwrap();
        assert!(
            last.ends_with("kept: 8, gone: Stale file handle, named: new."),
            "{last}\n{}",
            second.said()
        );
        assert!(!second.said().contains("cannot"), "{}", second.said());
        second.end().await;

        // Every line once, none lost and none written again.
        let log = machine.log();
        assert!(
            log.starts_with(&appended) && log.len() > appended.len(),
            "{log}"
        );
        let count = log.lines().count();
        let all = (1..=count).fold(String::new(), |mut all, number| {
            let _ = writeln!(all, "line {number}");
            all
        });
        assert_eq!(log, all);
    });
}
