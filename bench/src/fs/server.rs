//! The servers as processes. Peers are fetched and built once and kept in the cache folder.

use sbx_workspace::protect::{Level, standard};
use sbx_workspace::{Rules, hide};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sbx_testkit::virtio_fs::{Client, Error};

use crate::tool::{beside, cache, output};
use crate::tree::tree;

/// The peer in Rust, of the release whose transport the share uses.
const RUST: &str = "virtiofsd@1.14.0";
/// Debian's package with the peer in C, and the last version that has it.
const C_PACKAGE: &str = "qemu-system-common";
const C_VERSION: &str = "1:7.2";
/// A server has to listen after this.
const READY: Duration = Duration::from_secs(20);

/// A server that can be started.
pub(super) struct Kind {
    /// Name in the figures.
    pub(super) name: &'static str,
    program: PathBuf,
    arguments: fn(&Path, &Path) -> Vec<String>,
}

/// Ours and the peers that can be had here. A peer that cannot is said on standard error.
pub(super) fn available() -> Result<Vec<Kind>, String> {
    let mut kinds = vec![Kind {
        name: "sbx-share",
        program: beside("sbx-share")?,
        // Everything protected, and the usual secrets hidden.
        arguments: |socket, root| {
            let rules = Rules {
                protect: standard(Level::Block),
                hide: hide::one(hide::SECRETS).unwrap_or_default(),
                only: None,
                masks: Vec::new(),
                late_masks: Vec::new(),
                stand_ins: Vec::new(),
                stay: Vec::new(),
            };
            let rules = serde_json::to_string(&rules).unwrap_or_default();
            words(&[
                "--socket",
                &text(socket),
                "--root",
                &text(root),
                "--rules",
                &rules,
            ])
        },
    }];
    kinds.push(Kind {
        name: "virtiofsd",
        program: rust()?,
        // Its filter of system calls stays on, as ours does. Without a namespace of its own, which needs root.
        arguments: |socket, root| {
            let (socket, root) = (text(socket), text(root));
            words(&["--socket-path", &socket, "--shared-dir", &root])
                .into_iter()
                .chain(words(&["--cache", "auto", "--sandbox", "none"]))
                .chain(words(&["--thread-pool-size", "0", "--log-level", "error"]))
                .collect()
        },
    });
    match c() {
        Ok(program) => kinds.push(Kind {
            name: "virtiofsd-c",
            program,
            arguments: |socket, root| {
                let options = "cache=auto,no_writeback,no_xattr,no_posix_lock,no_flock";
                let options = format!("{options},sandbox=chroot,log_level=err");
                let (socket, source) = (text(socket), text(root));
                words(&["-f", "--thread-pool-size=0", "-o", &options])
                    .into_iter()
                    .chain([format!("--socket-path={socket}"), "-o".into()])
                    .chain([format!("source={source}")])
                    .collect()
            },
        }),
        Err(why) => eprintln!("note: without QEMU's virtiofsd in C: {why}"),
    }
    Ok(kinds)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The peer in Rust, built from its release.
fn rust() -> Result<PathBuf, String> {
    let folder = cache("sbx-bench-virtiofsd")?;
    let program = folder.join("bin/virtiofsd");
    if program.exists() {
        return Ok(program);
    }
    crate::tool::need_file("/usr/include/seccomp.h", &["libseccomp-dev"])?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let place = text(&folder);
    let built = text(&folder.join("target"));
    let install = ["install", "--quiet", "--locked", RUST, "--root", &place];
    output(&cargo, &[&install[..], &["--target-dir", &built]].concat())?;
    Ok(program)
}

/// The peer in C, out of a package that is unpacked and not installed: the machine's own QEMU is another.
fn c() -> Result<PathBuf, String> {
    if !rustix::process::getuid().is_root() {
        return Err("it runs as root only".to_owned());
    }
    let folder = cache("sbx-bench-virtiofsd-c")?;
    let program = folder.join("usr/lib/qemu/virtiofsd");
    if program.exists() {
        return Ok(program);
    }
    let known = output("apt-cache", &["madison", C_PACKAGE])?;
    let version = known
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .rfind(|version| version.starts_with(C_VERSION))
        .ok_or(format!("no package {C_PACKAGE} {C_VERSION} is to be had"))?;
    let place = text(&folder);
    let wanted = format!("{C_PACKAGE}={version}");
    // apt-get puts it where it is run.
    let fetch = r#"cd "$1" && apt-get download -q "$2" && dpkg-deb -x *.deb . && rm -f *.deb"#;
    output("sh", &["-c", fetch, "sh", &place, &wanted])?;
    if program.exists() {
        Ok(program)
    } else {
        Err(format!("{wanted} has no virtiofsd"))
    }
}

/// A server that runs, on one folder. It ends with the value.
pub(super) struct Server {
    child: Child,
    socket: PathBuf,
    said: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended with its client.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a server of the folder's `tree`.
    pub(super) fn start(kind: &Kind, folder: &Path) -> Result<Self, String> {
        let (socket, said) = (folder.join("s"), folder.join("said"));
        let file = std::fs::File::create(&said).map_err(|e| e.to_string())?;
        let more = file.try_clone().map_err(|e| e.to_string())?;
        let child = Command::new(&kind.program)
            .args((kind.arguments)(&socket, &folder.join("tree")))
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(more)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", kind.program.display()))?;
        Ok(Self {
            child,
            socket,
            said,
        })
    }

    /// Its socket, once the server listens.
    pub(super) fn listening(&self) -> Result<PathBuf, String> {
        let started = Instant::now();
        while !self.socket.exists() {
            if started.elapsed() > READY {
                let said = std::fs::read_to_string(&self.said).unwrap_or_default();
                return Err(format!("it does not listen: {said}"));
            }
            // Nothing announces it.
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(self.socket.clone())
    }

    /// Mounts, once the server listens.
    pub(super) fn connect(&self) -> Result<Client, String> {
        let started = Instant::now();
        loop {
            let error = match Client::connect(&self.socket) {
                Ok(client) => return Ok(client),
                Err(error) => error,
            };
            if !matches!(error, Error::Io(_)) || started.elapsed() > READY {
                let said = std::fs::read_to_string(&self.said).unwrap_or_default();
                return Err(format!("{error}: {said}"));
            }
            // Nothing announces that it listens.
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Seconds of processor time used so far, by all threads, to the nanosecond (Documentation/scheduler/sched-stats).
    pub(super) fn cpu_seconds(&self) -> f64 {
        let mut nanoseconds = 0;
        for pid in tree(self.child.id()) {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
            for task in tasks.into_iter().flatten().flatten() {
                let used = std::fs::read_to_string(task.path().join("schedstat"));
                let used = used.unwrap_or_default();
                let used = used.split_whitespace().next().and_then(|n| n.parse().ok());
                nanoseconds += used.unwrap_or(0_u64);
            }
        }
        Duration::from_nanos(nanoseconds).as_secs_f64()
    }
}
