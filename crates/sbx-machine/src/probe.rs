//! Does hardware virtualisation really work here?
//!
//! `/dev/kvm` may exist and still be useless: no permission, a host that cannot set a register QEMU sets,
//! or nested virtualisation in which a stock kernel crawls and dies. So a tiny guest is booted with the real
//! kernel, with a time limit, and the verdict is remembered for this QEMU, this host kernel, this guest kernel.

use crate::args::{CPU_KVM, CPU_TCG};
use crate::probe_guest::{WORD, initramfs};
use crate::qemu::{self, QemuError, Version};
use sbx_wire::launch::Accel;
use sbx_wire::report::Report;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};

/// Time for the guest to say its word. Working hardware needs under a second.
pub const LIMIT: Duration = Duration::from_secs(10);
/// File name of the remembered verdict in the cache folder.
pub const FILE: &str = "accel.json";
/// Console output read at most.
const MAX_OUTPUT: usize = 256 << 10;
const SCHEMA: u32 = 2;
/// What a host says that is short of something at the moment: ENOMEM, EAGAIN, EBUSY.
const PASSING: [&str; 3] = [
    "Cannot allocate memory",
    "Resource temporarily unavailable",
    "Device or resource busy",
];
/// How long it is believed that hardware virtualisation does not work because the guest said nothing in time, for the second
/// time in a row and from the third one on. The first time may have been the load of the moment.
const BELIEVED: [Duration; 2] = [Duration::from_hours(1), Duration::from_hours(24)];

/// What to probe with.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// `qemu-system-x86_64`.
    pub qemu: &'a Path,
    /// The kernel that sandboxes will boot.
    pub kernel: &'a Path,
    /// A digest (or another identity) of that kernel's content.
    pub kernel_id: &'a str,
    /// Cache folder; the verdict lies there as [`FILE`].
    pub cache: &'a Path,
    /// The user's choice, which overrides everything.
    pub wanted: Option<Accel>,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What to use.
    pub accel: Accel,
    /// Why, for people: `hardware virtualisation works`, `no permission on /dev/kvm`, …
    pub reason: String,
    /// QEMU's version.
    pub qemu: Version,
    /// The verdict was remembered, nothing was booted.
    pub remembered: bool,
}

/// Why there is no verdict. A KVM that does not work is none of these: then emulation is used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// QEMU itself cannot be used.
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// The probe could not be prepared.
    #[error("the accelerator probe could not run: {0}")]
    Prepare(io::Error),
}

impl From<ProbeError> for Report {
    fn from(error: ProbeError) -> Self {
        match error {
            ProbeError::Qemu(error) => error.into(),
            ProbeError::Prepare(_) => Self::environment(
                "probe-failed",
                error.to_string(),
                "free space in the cache folder, or pass --accel tcg",
            ),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    schema: u32,
    qemu: String,
    host_kernel: String,
    guest_kernel: String,
    kvm: bool,
    reason: String,
    /// Boots in a row that took too long.
    timeouts: u32,
    /// When it was found out, seconds since the Unix epoch.
    unix_s: u64,
}

impl Remembered {
    /// Whether both are about the same QEMU and kernels.
    fn is_of(&self, other: &Self) -> bool {
        self.schema == other.schema
            && self.qemu == other.qemu
            && self.host_kernel == other.host_kernel
            && self.guest_kernel == other.guest_kernel
    }

    /// Whether it still counts at `unix_s`.
    fn counts(&self, unix_s: u64) -> bool {
        let believed = match self.timeouts {
            0 => return true,
            1 => Duration::ZERO,
            2 => BELIEVED[0],
            _ => BELIEVED[1],
        };
        let age = unix_s.checked_sub(self.unix_s);
        age.is_some_and(|age| age < believed.as_secs())
    }
}

/// Why the tiny guest did not come up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For people.
    pub why: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It will be the same next time.
    Lasting,
    /// It said nothing in time, perhaps because the machine is busy.
    Timeout,
    /// Of this moment.
    Passing,
}

/// Chooses the accelerator. What may be over in a moment is not remembered.
///
/// # Errors
/// See [`ProbeError`].
pub async fn choose(request: &Request<'_>) -> Result<Verdict, ProbeError> {
    choose_with(request, Path::new("/dev/kvm"), LIMIT).await
}

async fn choose_with(
    request: &Request<'_>,
    device: &Path,
    limit: Duration,
) -> Result<Verdict, ProbeError> {
    let qemu = qemu::version(request.qemu).await?;
    let verdict = |accel, reason: &str| Verdict {
        accel,
        reason: reason.to_owned(),
        qemu,
        remembered: false,
    };
    if let Some(accel) = request.wanted {
        return Ok(verdict(accel, "chosen by the user"));
    }
    // Permissions change without a reboot, so they are looked at each time.
    if let Some(reason) = unusable(device) {
        return Ok(verdict(Accel::Tcg, reason));
    }
    let file = request.cache.join(FILE);
    let host = rustix::system::uname();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let new = Remembered {
        schema: SCHEMA,
        qemu: qemu.to_string(),
        host_kernel: host.release().to_string_lossy().into_owned(),
        guest_kernel: request.kernel_id.to_owned(),
        kvm: true,
        reason: "hardware virtualisation works".to_owned(),
        timeouts: 0,
        unix_s: now.map_or(0, |now| now.as_secs()),
    };
    let known = recall::<Remembered>(&file).filter(|known| known.is_of(&new));
    if let Some(known) = known.as_ref().filter(|known| known.counts(new.unix_s)) {
        let accel = if known.kvm { Accel::Kvm } else { Accel::Tcg };
        return Ok(Verdict {
            remembered: true,
            ..verdict(accel, &known.reason)
        });
    }
    let outcome = boot_within(request.qemu, request.kernel, Accel::Kvm, limit)
        .await
        .map_err(ProbeError::Prepare)?;
    let earlier = known.map_or(0, |known| known.timeouts);
    let (found, keep) = judge(outcome, new, earlier);
    if keep {
        // A verdict that cannot be kept is still a verdict; the next start probes again.
        let _ = remember(&file, &found);
    }
    let accel = if found.kvm { Accel::Kvm } else { Accel::Tcg };
    Ok(verdict(accel, &found.reason))
}

/// What a boot says, and whether it is to be remembered. `works`: what there is to remember when it came up; `earlier`: how
/// many took too long in a row before it.
fn judge(
    outcome: Result<Duration, Failure>,
    works: Remembered,
    earlier: u32,
) -> (Remembered, bool) {
    let Err(failure) = outcome else {
        return (works, true);
    };
    let timeouts = match failure.kind {
        Kind::Timeout => earlier.saturating_add(1),
        Kind::Passing | Kind::Lasting => 0,
    };
    let found = Remembered {
        kvm: false,
        reason: format!("hardware virtualisation does not work: {}", failure.why),
        timeouts,
        ..works
    };
    (found, failure.kind != Kind::Passing)
}

/// Why the device cannot be used, as far as opening it tells.
fn unusable(device: &Path) -> Option<&'static str> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Some("hardware virtualisation is not probed on this platform");
    }
    match std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(device)
    {
        Ok(_) => None,
        Err(error) => Some(match error.kind() {
            io::ErrorKind::NotFound => "no /dev/kvm on this host",
            io::ErrorKind::PermissionDenied => "no permission on /dev/kvm",
            _ => "/dev/kvm does not open",
        }),
    }
}

/// What an earlier process remembered.
pub(crate) fn recall<T: DeserializeOwned>(file: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// Remembers for later processes.
pub(crate) fn remember<T: Serialize>(file: &Path, known: &T) -> io::Result<()> {
    let folder = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(&serde_json::to_vec_pretty(known)?)?;
    new.persist(file)?;
    Ok(())
}

/// Boots `kernel` up to its first program. The inner error says why that did not happen in [`LIMIT`].
///
/// # Errors
/// The outer error: the tiny guest could not be written.
pub async fn boot(
    qemu: &Path,
    kernel: &Path,
    accel: Accel,
) -> io::Result<Result<Duration, Failure>> {
    boot_within(qemu, kernel, accel, LIMIT).await
}

async fn boot_within(
    qemu: &Path,
    kernel: &Path,
    accel: Accel,
    limit: Duration,
) -> io::Result<Result<Duration, Failure>> {
    let mut initrd = tempfile::NamedTempFile::new()?;
    initrd.write_all(&initramfs()?)?;
    let errors = tempfile::tempfile()?;
    let mut command = Command::new(qemu);
    command.args(boot_arguments(kernel, initrd.path(), accel));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command.stderr(errors.try_clone()?);
    let failure = |why: String, kind| Ok(Err(Failure { why, kind }));
    let started = Instant::now();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return failure(error.to_string(), Kind::Passing),
    };
    let mut console = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let outcome = match tokio::time::timeout(limit, wait_for_word(&mut console)).await {
        Ok(Ok(true)) => Ok(Ok(started.elapsed())),
        Ok(Ok(false)) => {
            let why = complaint(errors);
            let passing = was_killed(&mut child).await
                || PASSING
                    .iter()
                    .any(|text| why.as_ref().is_some_and(|why| why.contains(text)));
            let kind = if passing {
                Kind::Passing
            } else {
                Kind::Lasting
            };
            let silent = || "QEMU ended before the guest spoke".to_owned();
            failure(why.unwrap_or_else(silent), kind)
        }
        Ok(Err(error)) => failure(error.to_string(), Kind::Passing),
        Err(_) => {
            let why = format!("the probe guest said nothing in {} s", limit.as_secs());
            failure(why, Kind::Timeout)
        }
    };
    // It may have ended already.
    let _ = child.kill().await;
    outcome
}

/// Whether somebody ended QEMU by force, e.g. the kernel when memory was short.
async fn was_killed(child: &mut Child) -> bool {
    let ended = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
    matches!(ended, Ok(Ok(status)) if status.signal() == Some(9))
}

fn boot_arguments(kernel: &Path, initrd: &Path, accel: Accel) -> Vec<std::ffi::OsString> {
    let accel_args = match accel {
        Accel::Kvm => ["-accel", "kvm", "-cpu", CPU_KVM],
        Accel::Tcg => ["-accel", "tcg", "-cpu", CPU_TCG],
    };
    let fixed = [
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-M",
        "q35",
        "-m",
        "512M",
        "-chardev",
        "stdio,id=console,signal=off",
        "-serial",
        "chardev:console",
    ];
    let line = crate::args::command_line(accel, crate::tsc::khz());
    let mut args: Vec<std::ffi::OsString> =
        fixed.iter().chain(&accel_args).map(Into::into).collect();
    args.extend([
        "-kernel".into(),
        kernel.into(),
        "-initrd".into(),
        initrd.into(),
    ]);
    args.extend(["-append".into(), line.into()]);
    args
}

/// Reads the console until the word, its end, or too much of it.
async fn wait_for_word(out: &mut ChildStdout) -> io::Result<bool> {
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = out.read(&mut piece).await?;
        seen.extend_from_slice(&piece[..count]);
        if seen
            .windows(WORD.len())
            .any(|window| window == WORD.as_bytes())
        {
            return Ok(true);
        }
        if count == 0 || seen.len() > MAX_OUTPUT {
            return Ok(false);
        }
    }
}

/// What QEMU complained about, one line.
fn complaint(mut file: std::fs::File) -> Option<String> {
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(4096).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(200).collect())
}

/// Where the verdict for `cache` is remembered, for `diagnose` and tests.
pub fn file(cache: &Path) -> PathBuf {
    cache.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_device_means_emulation_with_the_reason() {
        assert!(unusable(Path::new("/nonexistent")).is_some());
    }

    #[tokio::test]
    async fn qemu_that_dies_at_start_gives_its_own_words_as_the_reason() {
        let outcome = boot(
            Path::new("qemu-system-x86_64"),
            Path::new("/nonexistent"),
            Accel::Tcg,
        );
        let failure = outcome.await.unwrap().unwrap_err();
        assert!(failure.why.contains("/nonexistent"), "{failure:?}");
        assert_eq!(failure.kind, Kind::Lasting);
    }

    /// A QEMU whose boots do what the next word of the file `next` says.
    struct Bench(tempfile::TempDir);

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = dir.path().display();
            let script = format!(
                "#!/bin/sh\n[ \"$1\" = --version ] && exec echo 'QEMU emulator version 10.0.0'\n\
                 echo boot >>{at}/boots\nread next <{at}/next\n\
                 case $next in works) echo {WORD};; hangs) exec sleep 60;; dies) kill -9 $$;; \
                 *) echo \"$next\" >&2; exit 1;; esac\n"
            );
            let qemu = dir.path().join("qemu");
            // By another process: a child that another test starts now would keep it open for writing, and it could not be run.
            let write = "printf '%s' \"$1\" >\"$0\" && chmod 755 \"$0\"";
            let mut shell = std::process::Command::new("sh");
            let shell = shell.args(["-c", write]).arg(&qemu).arg(script);
            assert!(shell.status().unwrap().success());
            std::fs::write(dir.path().join("kvm"), "").unwrap();
            Self(dir)
        }

        /// The verdict where a boot would do this, and how many there have been.
        async fn choose(&self, next: &str) -> (Verdict, usize) {
            let at = |name: &str| self.0.path().join(name);
            std::fs::write(at("next"), format!("{next}\n")).unwrap();
            let (qemu, kernel) = (at("qemu"), at("kernel"));
            let request = Request {
                qemu: &qemu,
                kernel: &kernel,
                kernel_id: "x",
                cache: self.0.path(),
                wanted: None,
            };
            let limit = Duration::from_secs(2);
            let verdict = choose_with(&request, &at("kvm"), limit).await.unwrap();
            let boots = std::fs::read_to_string(at("boots")).unwrap_or_default();
            (verdict, boots.lines().count())
        }

        /// Makes what is remembered older.
        fn age(&self, by: Duration) {
            let path = file(self.0.path());
            let mut known: Remembered = recall(&path).unwrap();
            known.unix_s -= by.as_secs();
            remember(&path, &known).unwrap();
        }
    }

    #[tokio::test]
    async fn what_may_be_over_in_a_moment_is_not_remembered() {
        let bench = Bench::new();
        for (index, next) in ["hangs", "dies", "ioctl: Cannot allocate memory"]
            .into_iter()
            .enumerate()
        {
            let (verdict, boots) = bench.choose(next).await;
            assert_eq!(
                (verdict.accel, boots),
                (Accel::Tcg, index + 1),
                "{verdict:?}"
            );
        }
        let (verdict, boots) = bench.choose("works").await;
        assert_eq!((verdict.accel, boots), (Accel::Kvm, 4), "{verdict:?}");
        let (verdict, boots) = bench.choose("hangs").await;
        assert_eq!((verdict.accel, boots), (Accel::Kvm, 4), "{verdict:?}");
        assert!(verdict.remembered);
    }

    #[tokio::test]
    async fn what_lasts_is_remembered_and_silence_for_a_time_when_it_comes_again() {
        let bench = Bench::new();
        for boots in [1, 2, 2] {
            assert_eq!(bench.choose("hangs").await.1, boots);
        }
        bench.age(BELIEVED[0]);
        for boots in [3, 3] {
            assert_eq!(bench.choose("hangs").await.1, boots);
        }
        bench.age(BELIEVED[0]);
        assert_eq!(bench.choose("works").await.1, 3);
        bench.age(BELIEVED[1]);
        assert_eq!(bench.choose("cannot set a register").await.1, 4);
        bench.age(BELIEVED[1] * 1000);
        let (verdict, boots) = bench.choose("works").await;
        assert_eq!((verdict.accel, boots), (Accel::Tcg, 4), "{verdict:?}");
    }

    #[tokio::test]
    async fn qemu_that_cannot_be_started_at_the_moment_is_no_verdict() {
        let outcome = boot(Path::new("/nonexistent"), Path::new("/x"), Accel::Kvm);
        let failure = outcome.await.unwrap().unwrap_err();
        assert_eq!(failure.kind, Kind::Passing);
    }

    #[tokio::test]
    async fn the_users_choice_is_taken_without_a_boot() {
        let dir = tempfile::tempdir().unwrap();
        let request = Request {
            qemu: Path::new("qemu-system-x86_64"),
            kernel: Path::new("/nonexistent"),
            kernel_id: "x",
            cache: dir.path(),
            wanted: Some(Accel::Kvm),
        };
        assert_eq!(choose(&request).await.unwrap().accel, Accel::Kvm);
        assert!(!file(dir.path()).exists());
    }
}
