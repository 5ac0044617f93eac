//! The part of the build that runs as root of a user namespace (or as root).

use super::sources::{self, SOURCE, fresh};
use super::{config, description};
use crate::elf::Elf;
use crate::request::AptSources;
use crate::run;
use crate::worker::{Event, Reporter, Step};
use crate::{ImageError, kernel, store};
use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::Command;

/// Folder inside the build's folder that holds the finished kernel.
pub(super) const OUT: &str = "out";
/// Folder inside the build's folder with all that is not part of it.
const WORK: &str = "work";

/// Fills `dir`/[`OUT`] with the kernel. Steps that an interrupted build finished are not done again.
pub(crate) fn build(
    dir: &Path,
    archive: &AptSources,
    log: &Path,
    reporter: &mut Reporter,
) -> Result<Event, ImageError> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut log = OpenOptions::new()
        .append(true)
        .open(log)
        .map_err(ImageError::io("open", log))?;
    let work = dir.join(WORK);
    fs::create_dir_all(&work).map_err(ImageError::io("create", &work))?;
    let tree = work.join("tree");
    once(&work.join("compiler.done"), || {
        fresh(&tree)?;
        sources::compiler(&tree, archive, &mut log, reporter).map(|()| String::new())
    })?;
    let source = once(&work.join("source.done"), || {
        sources::source(&tree, &work, &mut log, reporter)
    })?;
    devices(&tree)?;
    reporter.step(Step::SmallConfigure)?;
    configure(&tree, &mut log)?;
    reporter.step(Step::SmallCompile)?;
    compile(&tree, &mut log, reporter)?;
    reporter.step(Step::SmallWrite)?;
    let out = dir.join(OUT);
    fresh(&out)?;
    let version = install(&tree, &out)?;
    Ok(Event::SmallBuilt { version, source })
}

/// Does `work` unless `mark` says that it was done, and keeps what it returned there.
fn once(
    mark: &Path,
    work: impl FnOnce() -> Result<String, ImageError>,
) -> Result<String, ImageError> {
    if let Ok(text) = fs::read_to_string(mark) {
        return Ok(text);
    }
    let text = work()?;
    // A name of its own first: half a mark would be one.
    let new = mark.with_extension("new");
    let _ = fs::remove_file(&new);
    store::write_new(&new, text.as_bytes())?;
    fs::rename(&new, mark).map_err(ImageError::io("rename a file to", mark))?;
    Ok(text)
}

/// Gives the compiler `/dev/null` and `/proc`, in the mount namespace of this build.
fn devices(tree: &Path) -> Result<(), ImageError> {
    let dev = tree.join("dev");
    let mut mounts = [run::command("mount"), run::command("mount")];
    mounts[0]
        .args(["-t", "tmpfs", "-o", "size=1m,mode=755", "sbx-dev"])
        .arg(&dev);
    mounts[1]
        .args(["-t", "proc", "proc"])
        .arg(tree.join("proc"));
    for mount in &mut mounts {
        run::output(mount, "preparing to compile")?;
    }
    let null = dev.join("null");
    File::create(&null).map_err(ImageError::io("create", &null))?;
    let mut bind = run::command("mount");
    bind.args(["--bind", "/dev/null"]).arg(&null);
    run::output(&mut bind, "preparing to compile").map(drop)
}

/// `make` in the source, in the tree, with no network: nothing of what is run there has a use for one.
fn make(tree: &Path, jobs: usize) -> Command {
    let mut command = run::command("unshare");
    command
        .args(["--net", "--", "chroot"])
        .arg(tree)
        .args(["make", "-C", SOURCE, &format!("-j{jobs}")])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        // What would differ from machine to machine, or name this one, stays out of the kernel.
        .env("KBUILD_BUILD_USER", "sbx")
        .env("KBUILD_BUILD_HOST", "sbx")
        .env("KBUILD_BUILD_TIMESTAMP", "1970-01-01");
    command
}

fn configure(tree: &Path, log: &mut File) -> Result<(), ImageError> {
    let below = tree.join(SOURCE.trim_start_matches('/'));
    let wanted = below.join("sbx.config");
    fs::write(&wanted, config::TEXT).map_err(ImageError::io("write", &wanted))?;
    for target in [
        &["KCONFIG_ALLCONFIG=sbx.config", "allnoconfig"][..],
        &["olddefconfig"],
    ] {
        let mut command = make(tree, 1);
        command.arg("--silent").args(target);
        run::lines(
            &mut command,
            "configuring the small kernel",
            log,
            &mut |_| Ok(()),
        )?;
    }
    let result = below.join(".config");
    let text = fs::read_to_string(&result).map_err(ImageError::io("read", &result))?;
    let lost = config::lost(&text);
    if lost.is_empty() {
        return Ok(());
    }
    Err(ImageError::Unexpected {
        what: "the kernel's source does not take the small configuration",
        detail: lost.join(", "),
    })
}

fn compile(tree: &Path, log: &mut File, reporter: &mut Reporter) -> Result<(), ImageError> {
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut command = make(tree, jobs);
    command.arg("vmlinux");
    let mut count = 0_u32;
    run::lines(
        &mut command,
        "compiling the small kernel",
        log,
        &mut |line| {
            let mut words = line.split_whitespace();
            if let (Some("CC" | "AS"), Some(file)) = (words.next(), words.next()) {
                count += 1;
                reporter.detail(&format!("file {count}, {file}"))
            } else {
                // Also notices when nobody waits any more.
                reporter.detail(&format!("file {count}"))
            }
        },
    )
}

/// Copies the kernel without its symbols to `out`; returns its release.
fn install(tree: &Path, out: &Path) -> Result<String, ImageError> {
    let below = tree.join(SOURCE.trim_start_matches('/'));
    let mut strip = run::chroot(tree, "strip");
    strip
        .arg("--strip-all")
        .args(["-o", &format!("{SOURCE}/vmlinux.sbx")])
        .arg(format!("{SOURCE}/vmlinux"));
    run::output(&mut strip, "stripping the small kernel")?;
    let stripped = below.join("vmlinux.sbx");
    if !Elf::parse(&kernel::read(&stripped)?).is_some_and(|elf| elf.has_pvh_entry()) {
        return Err(ImageError::Unexpected {
            what: "the small kernel has no PVH entry",
            detail: stripped.display().to_string(),
        });
    }
    let path = out.join(description::KERNEL);
    fs::copy(&stripped, &path).map_err(ImageError::io("write", &path))?;
    let release = below.join("include/config/kernel.release");
    let version = fs::read_to_string(&release).map_err(ImageError::io("read", &release))?;
    Ok(version.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_step_is_not_done_again_and_a_failed_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("step.done");
        let fail = || Err(ImageError::WorkerDied(String::new()));
        assert!(once(&mark, fail).is_err());
        assert_eq!(once(&mark, || Ok("6.12".to_owned())).unwrap(), "6.12");
        assert_eq!(once(&mark, fail).unwrap(), "6.12");
    }
}
