//! The installation that an end-to-end test works with.

use sbx_e2e::{Installation, User};
use std::path::{Path, PathBuf};

/// User of the end-to-end tests when root started them; made by `./dev test`.
const TEST_USER: &str = "sbx-test";

/// Variable with the kernel that tests run with; none: `stock`.
const KERNEL: &str = "SBX_E2E_KERNEL";

/// An installation of one test; everything ends when it is dropped, also when the test fails.
pub(crate) struct Setting {
    pub(crate) installation: Installation,
    root: tempfile::TempDir,
}

impl Setting {
    /// As the ordinary user.
    pub(crate) fn ordinary(preset: &str) -> Self {
        let user = rustix::process::getuid().is_root().then(|| {
            User::named(TEST_USER).expect("root runs the end-to-end tests through ./dev test")
        });
        Self::with(user, &cache(), preset)
    }

    /// As root, with the images that the ordinary user has built. `None` when we are not root.
    pub(crate) fn as_root(preset: &str) -> Option<Self> {
        rustix::process::getuid().is_root().then(|| {
            let cache = PathBuf::from("/var/tmp/sbx-e2e-cache-root");
            link_images(&self::cache(), &cache);
            Self::with(None, &cache, preset)
        })
    }

    fn with(user: Option<User>, cache: &Path, preset: &str) -> Self {
        let root = tempfile::Builder::new()
            .prefix("sbx-e2e-")
            .tempdir_in("/var/tmp")
            .unwrap();
        std::fs::set_permissions(
            root.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let installation = Installation::new(root.path(), cache, user).unwrap();
        installation.own(root.path()).unwrap();
        let setting = Self { installation, root };
        setting.take_authority(&cache.join("sbx-e2e-authority"));
        if !preset.is_empty() {
            setting
                .installation
                .sbx(["policy", "init", preset])
                .success()
                .unwrap();
            setting.leave_authority(&cache.join("sbx-e2e-authority"));
        }
        setting.kernel(&std::env::var(KERNEL).unwrap_or_else(|_| "stock".to_owned()));
        setting
    }

    /// A snapshot trusts the certificate authority of its installation: with the same one, all tests use the same
    /// snapshots.
    fn take_authority(&self, kept: &Path) {
        if !kept.is_dir() {
            return;
        }
        let mut folder = self.installation.state();
        std::fs::create_dir_all(&folder).unwrap();
        for parent in [folder.parent().unwrap(), &folder] {
            self.installation.own(parent).unwrap();
        }
        folder.push("ca");
        copy_private(kept, &folder, &self.installation);
    }

    fn leave_authority(&self, kept: &Path) {
        let made = self.installation.state().join("ca");
        if !kept.exists() && made.is_dir() {
            copy_private(&made, kept, &self.installation);
        }
    }

    /// Folder of the test.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Machines that are started from now on have this kernel.
    pub(crate) fn kernel(&self, setting: &str) {
        self.installation
            .sbx(["settings", "set", "machine.kernel", setting])
            .success()
            .unwrap();
    }

    /// Waits for the snapshots that are being made, so that what follows is not disturbed.
    pub(crate) fn await_snapshots(&self) {
        self.wait("no snapshot is being made", 240, || {
            let status = self.installation.sbx(["daemon", "status", "--json"]);
            status.json().unwrap()["snapshots"]["pending"] == serde_json::json!([])
        });
    }

    /// A sandbox for shell commands with one workspace of this name; the workspace.
    pub(crate) fn shell(&self, name: &str) -> PathBuf {
        let workspace = self.installation.folder(&format!("work-{name}")).unwrap();
        let path = workspace.display().to_string();
        self.installation
            .sbx([
                "create", "shell", &path, "--name", name, "--memory", "1g", "--cpus", "2",
            ])
            .success()
            .unwrap();
        self.await_snapshots();
        workspace
    }

    /// Output of a shell line in a sandbox, which must succeed.
    pub(crate) fn inside(&self, name: &str, line: &str) -> String {
        self.installation.inside(name, line).success().unwrap()
    }

    /// The sandbox as `inspect --json` shows it.
    pub(crate) fn inspect(&self, name: &str) -> serde_json::Value {
        self.installation
            .sbx(["inspect", name, "--json"])
            .json()
            .unwrap()
    }

    /// Host process of a sandbox by role (`machine`, `gateway`, `share0`, `supervisor`).
    pub(crate) fn process(&self, name: &str, role: &str) -> u32 {
        let inspect = self.inspect(name);
        let pid = inspect["processes"][role].as_u64();
        u32::try_from(pid.unwrap_or_else(|| panic!("no {role} in {inspect:#}"))).unwrap()
    }

    /// Waits until a condition holds, looking again every 50 ms.
    pub(crate) fn wait(&self, what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
        while !condition() {
            assert!(
                std::time::Instant::now() < deadline,
                "not within {seconds} s: {what}\n{}",
                self.installation.logs()
            );
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The console and every log, in the output of the failed test.
            eprintln!("{}", self.installation.logs());
        }
        for outcome in self.installation.tear_down() {
            if !outcome.ok() && !std::thread::panicking() {
                eprintln!("clean-up: {outcome}");
            }
        }
    }
}

/// Images are built once per machine and user.
pub(crate) fn cache() -> PathBuf {
    if rustix::process::getuid().is_root() {
        return PathBuf::from("/var/tmp/sbx-e2e-cache");
    }
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    base.unwrap_or_else(|| home.join(".cache"))
}

/// Copies the files of a folder, for the installation's user alone.
fn copy_private(from: &Path, to: &Path, installation: &Installation) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir(to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).unwrap();
    installation.own(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = to.join(entry.as_ref().unwrap().file_name());
        std::fs::copy(entry.unwrap().path(), &path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        installation.own(&path).unwrap();
    }
}

/// Gives `to` the images of `from` as hard links, in a folder of the user who runs this: no other is taken for a cache.
fn link_images(from: &Path, to: &Path) {
    let (from, to) = (from.join("sbx"), to.join("sbx"));
    if !to.is_dir() {
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(&from).into_iter().flatten() {
            let done = std::process::Command::new("cp")
                .arg("-al")
                .arg(entry.unwrap().path())
                .arg(&to)
                .status();
            assert!(
                done.unwrap().success(),
                "cannot link {} to {}",
                from.display(),
                to.display()
            );
        }
    }
    let us = rustix::process::getuid().as_raw();
    std::os::unix::fs::chown(&to, Some(us), None).unwrap();
}

/// Whether a process exists (and is not a zombie).
pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .trim_start()
        .chars()
        .next();
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// SIGKILL.
pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
