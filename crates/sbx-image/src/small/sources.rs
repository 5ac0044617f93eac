//! The compiler and the kernel's source, both from the Debian archive. Runs inside the build's namespaces.

use crate::request::AptSources;
use crate::run::{self, chroot};
use crate::worker::{Reporter, Step};
use crate::{ImageError, debian, kernel};
use std::fs::{self, File};
use std::path::Path;

/// What compiling a kernel takes besides `minbase`; `libelf-dev` is for the kernel's own `objtool`.
pub(crate) const COMPILER: [&str; 8] = [
    "bc",
    "bison",
    "flex",
    "gcc",
    "libc6-dev",
    "libelf-dev",
    "make",
    "xz-utils",
];
/// Package whose dependency is the source to use, and how that one's name begins.
const META: &str = "linux-source";
const PREFIX: &str = "linux-source-";
/// Where the source lies in the tree.
pub(super) const SOURCE: &str = "/usr/src/linux";
/// Parts of the source, as patterns of tar(1), that the configuration never reaches: three quarters of it. The
/// descriptions of their options stay, because every one of them is read.
const LEFT_OUT: [&str; 19] = [
    "*/Documentation/*.rst",
    "*/Documentation/*.svg",
    "*/Documentation/*.yaml",
    "*/arch/[!x]*/*.[chS]",
    "*/arch/[!x]*/*.dts*",
    "*/drivers/accel/*.[ch]",
    "*/drivers/clk/*.[ch]",
    "*/drivers/gpu/*.[ch]",
    "*/drivers/iio/*.[ch]",
    "*/drivers/infiniband/*.[ch]",
    "*/drivers/media/*.[ch]",
    "*/drivers/net/ethernet/*.[ch]",
    "*/drivers/net/wireless/*.[ch]",
    "*/drivers/scsi/*.[ch]",
    "*/drivers/staging/*.[ch]",
    "*/drivers/usb/*.[ch]",
    "*/sound/*.[ch]",
    "*/tools/perf/*",
    "*/tools/testing/*",
];
/// How often tar says that it is still at it, records of 10 KiB.
const CHECKPOINT: u32 = 2000;

/// Installs the compiler into `tree` and leaves apt's package lists there.
pub(super) fn compiler(
    tree: &Path,
    archive: &AptSources,
    log: &mut File,
    reporter: &mut Reporter,
) -> Result<(), ImageError> {
    reporter.step(Step::SmallCompiler)?;
    debian::bootstrap(tree, &COMPILER, archive, log, &mut |line| {
        debian::detail(line).map_or(Ok(()), |detail| reporter.detail(&detail))
    })?;
    let packages = tree.join("var/cache/apt/archives");
    fs::remove_dir_all(&packages).map_err(ImageError::io("remove", &packages))?;
    Ok(())
}

/// Downloads the source and unpacks it to [`SOURCE`] in `tree`; `work` is for what is needed meanwhile. Returns
/// the version of the package.
pub(super) fn source(
    tree: &Path,
    work: &Path,
    log: &mut File,
    reporter: &mut Reporter,
) -> Result<String, ImageError> {
    reporter.step(Step::SmallSource)?;
    let apt_config = work.join("apt.conf");
    fs::write(&apt_config, debian::apt_config(tree)?)
        .map_err(ImageError::io("write", &apt_config))?;
    let dir = work.join("package");
    fresh(&dir)?;
    let deb = kernel::download(&apt_config, META, PREFIX, &dir)?;
    let mut field = run::command("dpkg-deb");
    field.arg("--field").arg(&deb).arg("Version");
    let version = run::output(&mut field, "looking at the kernel's source")?;

    reporter.step(Step::SmallUnpack)?;
    let inside = tree.join("source-package");
    fresh(&inside)?;
    let mut unpack = run::command("dpkg-deb");
    unpack.arg("-x").arg(&deb).arg(&inside);
    run::output(&mut unpack, "unpacking the kernel's source")?;
    fs::remove_dir_all(&dir).map_err(ImageError::io("remove", &dir))?;
    let packed = kernel::only_entry_with(&inside.join("usr/src"), ".tar.xz")?;
    let name = packed.file_name().unwrap_or_default().to_string_lossy();
    fresh(&tree.join(SOURCE.trim_start_matches('/')))?;
    let mut tar = chroot(tree, "tar");
    tar.args(["-C", SOURCE, "--strip-components=1", "--no-same-owner"])
        .args(["--wildcards", "--wildcards-match-slash"])
        .args(LEFT_OUT.map(|pattern| format!("--exclude={pattern}")))
        .arg(format!("--checkpoint={CHECKPOINT}"))
        .arg("--checkpoint-action=echo=unpacking")
        .args(["-xJf", &format!("/source-package/usr/src/{name}")]);
    run::lines(&mut tar, "unpacking the kernel's source", log, &mut |_| {
        reporter.detail("")
    })?;
    fs::remove_dir_all(&inside).map_err(ImageError::io("remove", &inside))?;
    Ok(version.trim().to_owned())
}

/// An empty folder, whatever an interrupted build left.
pub(super) fn fresh(dir: &Path) -> Result<(), ImageError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(ImageError::io("remove", dir)(error));
        }
        _ => {}
    }
    fs::create_dir_all(dir).map_err(ImageError::io("create", dir))
}
