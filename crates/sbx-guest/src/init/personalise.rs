//! Makes a booted machine this sandbox and no other. Everything here may run again: in a later life of the
//! channel, and at the next boot on the same upper disk.

use super::{masks, net, shims, uevent};
use crate::console;
use crate::files::{self, managed};
use crate::{mounts_table, sys, trust};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::time::{ClockId, Timespec};
use sbx_wire::guest::{GuestFile, Mount, NetworkIdentity, Personalise};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// For a share to be found by the kernel.
const SHARE_LIMIT: Duration = Duration::from_secs(15);
/// Directories of files that are shared alone.
const FILES: &str = "/run/sbx/files";

/// Applies all of it but the Docker Engine. `previous`: the network of the last time. Returns what a full disk had no
/// room for.
pub(super) fn apply(
    request: &Personalise,
    previous: Option<&NetworkIdentity>,
) -> io::Result<Vec<String>> {
    step("clock", set_clock(request.unix_ns))?;
    step("entropy", entropy(&request.entropy))?;
    step("identity", identity(request))?;
    console::debug("identity set");
    step("network", net::configure(&request.network, previous))?;
    console::debug("network up");
    step("gateway", shims::point_to(request.network.gateway))?;
    step("certificates", trust::install(&request.ca_pem))?;
    for wanted in &request.mounts {
        step("mount", mount_share(wanted))?;
    }
    for wanted in &request.mounts {
        if wanted.tag != Mount::MASK && !wanted.tag.starts_with(Mount::FILE) {
            masks::follow(Path::new(&wanted.path));
        }
    }
    console::debug("shares mounted");
    let mut left_out = Vec::new();
    for file in &request.files {
        left_out.extend(unless_full(step("file", write_file(file)))?);
    }
    console::debug("personalised");
    Ok(left_out)
}

/// What a full disk had no room for: without the file the sandbox is of use, and somebody can make room in it.
fn unless_full(result: io::Result<()>) -> io::Result<Option<String>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(Some(error.to_string())),
        other => other.map(|()| None),
    }
}

fn step(name: &str, result: io::Result<()>) -> io::Result<()> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
}

/// A difference of the wall clock that is left alone: a word from the host that it is later took about that long to come,
/// and each would set the clock back.
const CLOCK_TOLERANCE_NS: i128 = 200_000_000;

/// Sets the wall clock if it is off.
pub(super) fn correct_clock(unix_ns: u64) -> io::Result<()> {
    if is_off(rustix::time::clock_gettime(ClockId::Realtime), unix_ns) {
        set_clock(unix_ns)?;
    }
    Ok(())
}

fn is_off(now: Timespec, unix_ns: u64) -> bool {
    let now = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    (now - i128::from(unix_ns)).abs() >= CLOCK_TOLERANCE_NS
}

/// Sets the wall clock.
pub(super) fn set_clock(unix_ns: u64) -> io::Result<()> {
    let time = Timespec {
        tv_sec: i64::try_from(unix_ns / 1_000_000_000).map_err(io::Error::other)?,
        tv_nsec: i64::try_from(unix_ns % 1_000_000_000).map_err(io::Error::other)?,
    };
    Ok(rustix::time::clock_settime(ClockId::Realtime, time)?)
}

fn entropy(bytes: &[u8]) -> io::Result<()> {
    let random = fs::File::open("/dev/urandom")?;
    for piece in bytes.chunks(sys::ENTROPY_MAX) {
        sys::add_entropy(&random, piece)?;
    }
    // Without this the generators of a restored machine would go on as they were saved for up to a minute.
    sys::reseed(&random)?;
    Ok(())
}

/// Host name, machine id, `/etc/hosts`, `/etc/resolv.conf`.
fn identity(request: &Personalise) -> io::Result<()> {
    let name = request.hostname.as_str();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        return Err(io::Error::other(format!("host name {name:?} is unusable")));
    }
    let id = &request.machine_id;
    if id.len() != 32
        || !id
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Err(io::Error::other(format!(
            "machine id {id:?} is not 32 hex digits"
        )));
    }
    rustix::system::sethostname(name.as_bytes())?;
    files::write(
        Path::new("/etc/hostname"),
        format!("{name}\n").as_bytes(),
        0o644,
        0,
    )?;
    files::write(
        Path::new("/etc/machine-id"),
        format!("{id}\n").as_bytes(),
        0o444,
        0,
    )?;
    let hosts = Path::new("/etc/hosts");
    let old = fs::read(hosts).unwrap_or_default();
    let new = managed(&old, &hosts_block(name, &request.network));
    files::write(hosts, &new, 0o644, 0)?;
    let resolver = format!(
        "nameserver {}\noptions timeout:5 attempts:2\n",
        request.network.gateway
    );
    files::write(Path::new("/etc/resolv.conf"), resolver.as_bytes(), 0o644, 0)
}

fn hosts_block(name: &str, network: &NetworkIdentity) -> String {
    let mut block = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\t{name}\n",
        network.address
    );
    for (address, name) in &network.hosts {
        // A line end in a name would be a line of its own.
        if !name.contains(['\n', '\r']) {
            block.push_str(&format!("{address}\t{name}\n"));
        }
    }
    block
}

fn mount_share(wanted: &Mount) -> io::Result<()> {
    if wanted.tag == Mount::MASK {
        return masks::mount(&wanted.path);
    }
    if wanted.tag.starts_with(Mount::FILE) {
        return mount_file(wanted);
    }
    mount_at(wanted, Path::new(&wanted.path))
}

/// A file that is shared alone: its directory goes where nobody looks, the file to its place.
fn mount_file(wanted: &Mount) -> io::Result<()> {
    if mounted(&wanted.path, &wanted.tag) {
        return Ok(());
    }
    let path = Path::new(&wanted.path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other(format!("{:?} is no file", wanted.path)));
    };
    let aside = Path::new(FILES).join(&wanted.tag);
    mount_at(wanted, &aside)?;
    files::scaffold(parent, None)?;
    if fs::symlink_metadata(path).is_err() {
        files::write(path, b"", 0o644, 0)?;
    }
    rustix::mount::mount_bind(aside.join(name), path).map_err(|error| {
        io::Error::other(format!(
            "share {:?} at {}: {error}",
            wanted.tag, wanted.path
        ))
    })
}

fn mount_at(wanted: &Mount, path: &Path) -> io::Result<()> {
    files::scaffold(path, None)?;
    let shown = path.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    if mounted(shown, &wanted.tag) {
        return Ok(());
    }
    let mut flags = MountFlags::NODEV | MountFlags::NOSUID;
    flags.set(MountFlags::RDONLY, wanted.read_only);
    // A share that is plugged into a running machine takes a moment to be found; until then its tag is unknown.
    let mounted = uevent::wait_for(SHARE_LIMIT, || {
        match mount(wanted.tag.as_str(), path, "virtiofs", flags, c"") {
            Err(Errno::INVAL | Errno::NODEV) => None,
            other => Some(other),
        }
    })?;
    let mounted = mounted.unwrap_or(Err(Errno::NODEV));
    // What is mounted in it later reaches containers that have it already.
    let shared = mounted.and_then(|()| mount_change(path, MountPropagationFlags::SHARED));
    shared.map_err(|error| {
        io::Error::other(format!(
            "share {:?} at {}: {error}",
            wanted.tag, wanted.path
        ))
    })
}

/// Whether this share is on top of this mount point already (an earlier life of the channel).
fn mounted(path: &str, tag: &str) -> bool {
    let on_top = mounts_table::on_top(Path::new(path));
    on_top.is_some_and(|mount| mount.source == tag && mount.kind == "virtiofs")
}

fn write_file(file: &GuestFile) -> io::Result<()> {
    let path = Path::new(&file.path);
    if file.only_if_missing && fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        files::scaffold(parent, Some(file.owner))?;
    }
    files::write(path, &file.content, file.mode & 0o7777, file.owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_by_the_time_a_message_takes_is_left_alone() {
        let now = Timespec {
            tv_sec: 1_800_000_000,
            tv_nsec: 100_000_000,
        };
        let at = |ms: u64| 1_800_000_000_000_000_000 + ms * 1_000_000;
        assert!(!is_off(now, at(100)));
        assert!(!is_off(now, at(1)), "back by what the message took");
        assert!(!is_off(now, at(299)));
        assert!(is_off(now, at(300)));
        assert!(is_off(now, at(0) - 100_000_000));
        assert!(is_off(now, 0) && is_off(now, u64::MAX));
    }

    #[test]
    fn a_file_for_which_a_full_disk_has_no_room_is_left_out_and_other_faults_count() {
        let fails = |errno: Errno| {
            let error = files::at(Path::new("/etc/x"), &errno.into());
            unless_full(step("file", Err(error)))
        };
        let left_out = fails(Errno::NOSPC).unwrap().unwrap();
        assert!(left_out.starts_with("file: /etc/x: "), "{left_out}");
        assert!(fails(Errno::ROFS).is_err());
        assert_eq!(unless_full(Ok(())).unwrap(), None);
    }
}
