//! The role that stands in front of `runc` in the search path of the Docker Engine and of containerd: it
//! gives each container the machine's roots and becomes the real `runc` with the same arguments.
//!
//! A container trusts what its image trusts. Here the sandbox's roots are added to that in a file below
//! `/dev`, and variables point the usual programs to it. `/dev` is always a file system of its own, so the
//! mount point that `runc` makes there never lands in a layer of an image, and no file of the image is
//! hidden, which would make `update-ca-certificates` in a build step fail.
//!
//! Whatever is odd is passed on as it came: such a container runs without our roots, as it would without us.

mod call;
mod image;
mod spec;

use crate::mounts_table;
use crate::trust;
use call::{Call, Verb};
use sbx_wire::trust::{BUNDLE, JAVA_STORE};
use serde_json::Value;
use spec::Roots;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Largest document that is looked at, bytes; those of the Docker Engine have 10 to 100 KiB.
const MAX_DOCUMENT: u64 = 4 << 20;
/// Why a container was left alone.
const LOG: &str = "/run/sbx/runc.log";
/// Size at which the log begins anew, bytes.
const MAX_LOG: u64 = 64 << 10;
/// Where the real one may be when it is not in the search path.
const USUAL: [&str; 3] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin"];

/// Prepares the container that the arguments are about and becomes the real `runc`. Returns only when there
/// is none.
pub fn run(args: impl Iterator<Item = OsString>) -> io::Error {
    let args: Vec<OsString> = args.collect();
    if let Err(error) = prepare(&Call::parse(&args)) {
        log(&error);
    }
    match real() {
        Some(program) => Command::new(program).arg0("runc").args(args).exec(),
        None => io::Error::new(io::ErrorKind::NotFound, "there is no runc"),
    }
}

fn prepare(call: &Call) -> io::Result<()> {
    match &call.verb {
        Verb::Other => Ok(()),
        Verb::Create { bundle } => {
            let path = bundle.join("config.json");
            let mut config = read(&path)?;
            let rootfs = spec::rootfs(&config).map(|rootfs| bundle.join(rootfs));
            let follows = spec::follow_shares(&mut config, &mounts_table::of_kind("virtiofs"));
            let roots = roots(rootfs.as_deref(), &spec::binds(&config));
            let rooted = roots
                .as_ref()
                .is_ok_and(|roots| spec::add_roots(&mut config, roots));
            if follows || rooted {
                replace(&path, &config)?;
            }
            roots.map(drop)
        }
        Verb::Exec { process, id } => {
            // Only a container that was made with our roots has them to point to.
            let state = read(&call.root.join(id).join("state.json"))?;
            let Some(java) = spec::mounted(&state) else {
                return Ok(());
            };
            let mut document = read(process)?;
            if spec::add_variables(&mut document, java) {
                replace(process, &document)?;
            }
            Ok(())
        }
    }
}

/// The files for a container with this root file system and these binds: its own bundle with our roots, or the machine's.
fn roots(rootfs: Option<&Path>, binds: &[(PathBuf, PathBuf)]) -> io::Result<Roots> {
    let ours = fs::read(trust::ROOTS)?;
    let own = rootfs.and_then(|rootfs| image::bundle(rootfs, binds));
    let bundle = match own.map(|own| image::merged(&own, &ours)) {
        Some(Ok(path)) => path,
        Some(Err(error)) => {
            log(&error);
            BUNDLE.into()
        }
        None => BUNDLE.into(),
    };
    let java = Some(PathBuf::from(JAVA_STORE)).filter(|path| path.exists());
    Ok(Roots { bundle, java })
}

fn read(path: &Path) -> io::Result<Value> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(|error| crate::files::at(path, &error))?;
    let mut text = Vec::new();
    file.take(MAX_DOCUMENT + 1).read_to_end(&mut text)?;
    let too_long = u64::try_from(text.len()).is_ok_and(|length| length > MAX_DOCUMENT);
    let parsed = serde_json::from_slice(&text).ok().filter(|_| !too_long);
    parsed.ok_or_else(|| io::Error::other(format!("{}: not understood", path.display())))
}

/// Puts `document` in the place of a file in one step: on every way out there is a whole one.
fn replace(path: &Path, document: &Value) -> io::Result<()> {
    let old = fs::metadata(path)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".sbx-new");
    let new = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        serde_json::to_writer(io::BufWriter::new(&mut file), document)?;
        std::os::unix::fs::chown(&new, Some(old.uid()), Some(old.gid()))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(old.mode() & 0o7777))?;
        fs::rename(&new, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}

/// The `runc` behind us in the search path.
fn real() -> Option<PathBuf> {
    let own = fs::metadata("/proc/self/exe").ok()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(USUAL.iter().map(PathBuf::from));
    folders
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join("runc"))
        .find(|program| {
            fs::metadata(program).is_ok_and(|found| {
                let ours = (found.dev(), found.ino()) == (own.dev(), own.ino());
                found.is_file() && found.mode() & 0o111 != 0 && !ours
            })
        })
}

/// Standard error is the caller's: it is shown as the reason when a container does not start.
fn log(error: &io::Error) {
    let path = Path::new(LOG);
    let full = fs::metadata(path).is_ok_and(|file| file.len() > MAX_LOG);
    let file = fs::OpenOptions::new()
        .create(true)
        .append(!full)
        .write(true)
        .truncate(full)
        .open(path);
    // Nobody to report to: the container is what matters.
    let _ = file.and_then(|mut file| writeln!(file, "a container without our roots: {error}"));
}
