//! Folders, user and programs of an installation under test.

use crate::outcome::Outcome;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest that one command may take, in seconds; the first ones of a machine build the image and the small kernel,
/// which is 13 minutes of processor time.
const LIMIT_S: &str = "1320";

/// Programs that an installation consists of.
const PROGRAMS: &[&str] = &[
    "sbx",
    "sbx-daemon",
    "sbx-supervisor",
    "sbx-gateway",
    "sbx-share",
    "sbx-guest.static",
    "sbx-image-worker",
];

/// Whom commands run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
}

impl User {
    /// Looks a user up in `/etc/passwd`.
    pub fn named(name: &str) -> Option<Self> {
        let table = fs::read_to_string("/etc/passwd").ok()?;
        let line = table
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let fields: Vec<&str> = line.split(':').collect();
        Some(Self {
            name: name.to_owned(),
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
            home: PathBuf::from(fields.get(5)?),
        })
    }
}

/// An installation with folders of its own.
#[derive(Debug, Clone)]
pub struct Installation {
    bin: PathBuf,
    root: PathBuf,
    cache: PathBuf,
    user: Option<User>,
    first: Option<PathBuf>,
    /// Process whose user and mount namespaces commands run in.
    entered: Option<u32>,
}

impl Installation {
    /// State and configuration below `root`, images in `cache`, programs from the folder of the running
    /// program. `user`: whom commands run as, when that is somebody else than us.
    ///
    /// # Errors
    /// What could not be prepared.
    pub fn new(root: &Path, cache: &Path, user: Option<User>) -> Result<Self, String> {
        let built = built_programs()?;
        let missing: Vec<&str> = PROGRAMS
            .iter()
            .copied()
            .filter(|name| !built.join(name).is_file())
            .collect();
        if !missing.is_empty() {
            return Err(format!("{} not built: run ./dev setup", missing.join(", ")));
        }
        let mut this = Self {
            bin: built.clone(),
            root: root.into(),
            cache: cache.into(),
            user: None,
            first: None,
            entered: None,
        };
        for folder in [root, cache] {
            fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        if let Some(user) = user {
            // The checkout may lie where the other user cannot look.
            this.bin = copy_programs(&built)?;
            for folder in [root, cache] {
                chown(folder, Some(user.uid), Some(user.gid)).map_err(|e| e.to_string())?;
            }
            this.user = Some(user);
        }
        Ok(this)
    }

    /// Programs of the system are looked for in this folder first, by commands from now on.
    pub fn find_first(&mut self, folder: &Path) {
        self.first = Some(folder.into());
    }

    /// Commands run in the user and mount namespaces of this process from now on.
    pub(crate) fn enter(&mut self, pid: u32) {
        self.entered = Some(pid);
    }

    /// Commands run in our own namespaces again.
    pub fn leave(&mut self) {
        self.entered = None;
    }

    /// One of our programs.
    pub fn built(&self, program: &str) -> PathBuf {
        self.bin.join(program)
    }

    /// The same programs and user with other state.
    #[must_use]
    pub fn elsewhere(&self, root: &Path) -> Self {
        Self {
            root: root.into(),
            ..self.clone()
        }
    }

    /// The user that commands run as.
    pub fn uid(&self) -> u32 {
        self.user
            .as_ref()
            .map_or_else(|| rustix::process::getuid().as_raw(), |user| user.uid)
    }

    /// A folder below the root that belongs to the user.
    ///
    /// # Errors
    /// Why it could not be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        self.own(&path)?;
        Ok(path)
    }

    /// Writes a file that belongs to the user.
    ///
    /// # Errors
    /// Why it could not be written.
    pub fn write(&self, path: &Path, content: &[u8]) -> Result<(), String> {
        fs::write(path, content).map_err(|e| format!("{}: {e}", path.display()))?;
        self.own(path)
    }

    /// Gives a path to the user.
    ///
    /// # Errors
    /// Why not.
    pub fn own(&self, path: &Path) -> Result<(), String> {
        match &self.user {
            None => Ok(()),
            Some(user) => chown(path, Some(user.uid), Some(user.gid)).map_err(|e| e.to_string()),
        }
    }

    /// Gives a folder and everything below it to the user.
    ///
    /// # Errors
    /// Why not.
    pub fn own_all(&self, folder: &Path) -> Result<(), String> {
        self.own(folder)?;
        let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.own_all(&entry.path())?;
            } else if let Some(user) = &self.user {
                std::os::unix::fs::lchown(entry.path(), Some(user.uid), Some(user.gid))
                    .map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    /// Everything of it but the cache lies below.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Snapshots of machines, which installations share.
    pub fn snapshots(&self) -> PathBuf {
        self.cache.join("sbx/snapshots")
    }

    /// State folder.
    pub fn state(&self) -> PathBuf {
        self.root.join("state/sbx")
    }

    /// `sbx` with these arguments, not started yet.
    pub fn command<S: Into<OsString>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.program("sbx", arguments)
    }

    /// A program of the installation (or any other, by path), as the user, with nothing of our environment.
    pub fn program<S: Into<OsString>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let path = if program.starts_with('/') {
            program.into()
        } else {
            self.bin.join(program)
        };
        let mut command = Command::new("timeout");
        // In the foreground: in a process group of its own a program could not use our terminal.
        command.args(["--foreground", "--kill-after=10", LIMIT_S]);
        if let Some(user) = &self.user {
            command.arg("setpriv").args([
                &format!("--reuid={}", user.uid),
                &format!("--regid={}", user.gid),
                "--init-groups",
            ]);
        }
        if let Some(pid) = self.entered {
            command.args(["nsenter", "--user", "--mount", "--preserve-credentials"]);
            command.args([&format!("--target={pid}")]);
        }
        command
            .arg(path)
            .args(arguments.into_iter().map(Into::into));
        command
            .env_clear()
            .envs(self.environment())
            .current_dir(&self.root);
        command
    }

    /// Variables of its programs, with nothing else of our environment.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let names = ["PATH", "LANG", "TERM", "SUDO_USER", "npm_config_cache"];
        let kept = names.into_iter();
        let mut all: Vec<_> = kept
            .filter_map(|name| Some((name, std::env::var_os(name)?)))
            .collect();
        if let Some(first) = &self.first {
            let usual = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::iter::once(first.clone()).chain(std::env::split_paths(&usual));
            // A folder of ours, without a colon in its name.
            let path = std::env::join_paths(folders).unwrap_or(usual);
            all.retain(|(name, _)| *name != "PATH");
            all.push(("PATH", path));
        }
        let own = || std::env::var_os("HOME").unwrap_or_else(|| "/".into());
        let home = self
            .user
            .as_ref()
            .map_or_else(own, |user| user.home.clone().into());
        all.extend([
            ("HOME", home),
            ("XDG_STATE_HOME", self.root.join("state").into()),
            ("XDG_CONFIG_HOME", self.root.join("config").into()),
            ("XDG_CACHE_HOME", self.cache.clone().into()),
        ]);
        all
    }

    /// Runs `sbx` to its end without a terminal and without input.
    pub fn sbx<S: Into<OsString>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        self.sbx_in(&self.root, &[], arguments)
    }

    /// Runs `sbx` in a directory with input.
    pub fn sbx_in<S: Into<OsString>>(
        &self,
        directory: &Path,
        input: &[u8],
        arguments: impl IntoIterator<Item = S>,
    ) -> Outcome {
        let mut command = self.command(arguments);
        command.current_dir(directory);
        run(command, input)
    }

    /// A shell line inside a sandbox, as the agent.
    pub fn inside(&self, sandbox: &str, line: &str) -> Outcome {
        self.sbx(["exec", sandbox, "bash", "-c", line])
    }

    /// Removes every sandbox and ends the daemon.
    pub fn tear_down(&self) -> Vec<Outcome> {
        vec![
            self.sbx(["rm", "--all", "--force"]),
            self.sbx(["daemon", "stop"]),
        ]
    }

    /// Last lines of every log of a sandbox, for a failed test.
    pub fn logs(&self) -> String {
        let mut text = tail(&self.state().join("daemon.log"));
        let Ok(entries) = fs::read_dir(self.state().join("sandboxes")) else {
            return text;
        };
        for entry in entries.flatten() {
            for name in [
                "console.log",
                "supervisor.log",
                "egress/gateway.log",
                "share0.log",
                "last-exit",
            ] {
                text.push_str(&tail(&entry.path().join(name)));
            }
        }
        text
    }
}

/// Runs a prepared command to its end.
pub fn run(mut command: Command, input: &[u8]) -> Outcome {
    let shown: Vec<String> = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let shown = shown
        .iter()
        .skip_while(|word| !word.ends_with("/sbx"))
        .skip(1);
    let shown = format!("sbx {}", shown.cloned().collect::<Vec<_>>().join(" "));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let start = Instant::now();
    let output = command.spawn().and_then(|mut child| {
        let mut stdin = child.stdin.take();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            // A program that does not read its input is none of our business.
            let _not_read = stdin.as_mut().map(|pipe| pipe.write_all(&input));
        });
        let output = child.wait_with_output();
        let _finished = writer.join();
        output
    });
    match output {
        Ok(output) => Outcome::new(shown, &output, start.elapsed()),
        Err(error) => Outcome {
            command: shown,
            code: -1,
            stdout: String::new(),
            stderr: error.to_string(),
            took: start.elapsed(),
        },
    }
}

fn tail(path: &Path) -> String {
    let Ok(bytes) = fs::read(path) else {
        return String::new();
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(40);
    format!("--- {}\n{}\n", path.display(), lines[from..].join("\n"))
}

/// `target/release`, from where we run: the folder of a program, or the parent of a test's.
pub(crate) fn built_programs() -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let folder = exe.parent().ok_or("this program has no folder")?;
    let folder = if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder)
    } else {
        folder
    };
    Ok(folder.to_path_buf())
}

/// How long copies of programs are kept: nobody runs tests of one build for so long.
const KEPT: Duration = Duration::from_hours(48);

/// Takes away what tests of earlier builds have left, some hundred megabytes each.
fn remove_old_programs() {
    let entries = fs::read_dir("/var/tmp").into_iter().flatten().flatten();
    for entry in entries {
        let made = entry.metadata().and_then(|meta| meta.modified());
        let age = made.ok().and_then(|time| time.elapsed().ok());
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("sbx-e2e-bin-") && age.is_some_and(|age| age > KEPT) {
            // Somebody else's is not ours to remove.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Copies the programs where every user can run them, once per build.
fn copy_programs(built: &Path) -> Result<PathBuf, String> {
    let mut newest = 0;
    for name in PROGRAMS {
        let meta = fs::metadata(built.join(name)).map_err(|e| format!("{name}: {e}"))?;
        newest = newest.max(meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000);
    }
    let place = PathBuf::from(format!("/var/tmp/sbx-e2e-bin-{newest}"));
    let new = PathBuf::from(format!("{}.{}", place.display(), std::process::id()));
    if place.is_dir() {
        return Ok(place);
    }
    remove_old_programs();
    fs::create_dir_all(&new).map_err(|e| format!("{}: {e}", new.display()))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    for name in PROGRAMS {
        fs::copy(built.join(name), new.join(name)).map_err(|e| format!("{name}: {e}"))?;
    }
    if fs::rename(&new, &place).is_err() {
        // Another test was quicker.
        fs::remove_dir_all(&new).map_err(|e| e.to_string())?;
    }
    Ok(place)
}
