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
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStdout, Command};

/// Time for the guest to say its word. Working hardware needs under a second.
pub const LIMIT: Duration = Duration::from_secs(10);
/// File name of the remembered verdict in the cache folder.
pub const FILE: &str = "accel.json";
/// Console output read at most.
const MAX_OUTPUT: usize = 256 << 10;
const SCHEMA: u32 = 1;

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
}

/// Chooses the accelerator.
///
/// # Errors
/// See [`ProbeError`].
pub async fn choose(request: &Request<'_>) -> Result<Verdict, ProbeError> {
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
    if let Some(reason) = unusable(Path::new("/dev/kvm")) {
        return Ok(verdict(Accel::Tcg, reason));
    }
    let file = request.cache.join(FILE);
    let host_kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let key = |kvm, reason: &str| Remembered {
        schema: SCHEMA,
        qemu: qemu.to_string(),
        host_kernel: host_kernel.clone(),
        guest_kernel: request.kernel_id.to_owned(),
        kvm,
        reason: reason.to_owned(),
    };
    if let Some(known) = recall::<Remembered>(&file)
        && known == key(known.kvm, &known.reason)
    {
        let accel = if known.kvm { Accel::Kvm } else { Accel::Tcg };
        return Ok(Verdict {
            remembered: true,
            ..verdict(accel, &known.reason)
        });
    }
    let outcome = boot(request.qemu, request.kernel, Accel::Kvm)
        .await
        .map_err(ProbeError::Prepare)?;
    let (accel, reason) = match outcome {
        Ok(_) => (Accel::Kvm, "hardware virtualisation works".to_owned()),
        Err(why) => (
            Accel::Tcg,
            format!("hardware virtualisation does not work: {why}"),
        ),
    };
    // A verdict that cannot be kept is still a verdict; the next start probes again.
    let _ = remember(&file, &key(accel == Accel::Kvm, &reason));
    Ok(verdict(accel, &reason))
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
) -> io::Result<Result<Duration, String>> {
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
    let started = Instant::now();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut console = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let outcome = match tokio::time::timeout(LIMIT, wait_for_word(&mut console)).await {
        Ok(Ok(true)) => Ok(started.elapsed()),
        Ok(Ok(false)) => {
            Err(complaint(errors).unwrap_or_else(|| "QEMU ended before the guest spoke".to_owned()))
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!(
            "the probe guest said nothing in {} s",
            LIMIT.as_secs()
        )),
    };
    // It may have ended already.
    let _ = child.kill().await;
    Ok(outcome)
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
        let why = outcome.await.unwrap().unwrap_err();
        assert!(why.contains("/nonexistent"), "{why}");
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
