//! Turns a plain Debian tree into the inside of a sandbox. Runs inside the build's namespaces.

use crate::run::{self, chroot};
use crate::{ImageError, recipe};
use sbx_wire::trust::{BUNDLE_VARIABLES, JAVA_OPTIONS};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// User and group id of the agent.
const AGENT: u32 = 1000;

/// Variables that `sudo` keeps, so that a command run as root still finds the proxy; those that point to the
/// roots are kept as well.
const SUDO_KEEPS: [&str; 10] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SSL_CERT_DIR",
    "BASH_ENV",
];

/// For a containerd that is started beside the Docker Engine instead of by it, which makes the engine ready
/// about 1 s earlier under emulation: no plugins that a sandbox cannot use, data on the Docker disk.
const CONTAINERD: &str = r#"version = 2
root = "/var/lib/docker/containerd/daemon"
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.internal.v1.restart",
  "io.containerd.internal.v1.tracing",
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]
"#;

/// Files with their permission bits. The file of persistent variables belongs to the agent.
const FILES: &[(&str, u32, &str)] = &[
    ("etc/hostname", 0o644, "sandbox\n"),
    (
        "etc/hosts",
        0o644,
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    ),
    ("etc/resolv.conf", 0o644, ""),
    ("etc/machine-id", 0o444, ""),
    ("etc/sandbox-persistent.sh", 0o644, ""),
    (
        "etc/profile.d/sandbox-persistent.sh",
        0o644,
        "[ -r /etc/sandbox-persistent.sh ] && . /etc/sandbox-persistent.sh\n",
    ),
    ("etc/containerd/config.toml", 0o644, CONTAINERD),
];

/// Empty folders and their permission bits.
const FOLDERS: &[(&str, u32)] = &[
    ("etc/containerd", 0o755),
    ("etc/docker", 0o755),
    ("var/lib/docker", 0o710),
];

/// Where the modules are that the initramfs and the Docker Engine load: they are stored unpacked, because
/// unpacking xz under emulation at each start is slow. The others stay packed, which `modprobe` can read.
const UNPACKED: [&str; 8] = [
    "drivers/block",
    "drivers/char",
    "drivers/net",
    "drivers/virtio",
    "fs/erofs",
    "fs/overlayfs",
    "lib",
    "net",
];

/// Removed at the end, content and all; the folders come back empty.
const EMPTIED: &[&str] = &["boot", "var/lib/apt/lists", "var/cache/apt"];

/// What the agent may do as root, and with which variables.
fn sudoers() -> String {
    let roots = BUNDLE_VARIABLES.iter().chain([&JAVA_OPTIONS]);
    let kept: Vec<&str> = SUDO_KEEPS.iter().chain(roots).copied().collect();
    format!(
        "agent ALL=(ALL:ALL) NOPASSWD: ALL\nDefaults env_keep += \"{}\"\n",
        kept.join(" ")
    )
}

/// Every text that goes into the image: it is part of the image's key.
pub(crate) fn texts() -> String {
    let files = FILES
        .iter()
        .map(|(path, _, content)| format!("{path}\n{content}"));
    files.chain([sudoers()]).collect()
}

/// Applies all of it to `tree`, whose kernel modules are those of `kernel`.
pub(crate) fn customise(tree: &Path, kernel: &str) -> Result<(), ImageError> {
    users(tree)?;
    for (dir, mode) in FOLDERS {
        let dir = tree.join(dir);
        fs::create_dir_all(&dir).map_err(ImageError::io("create", &dir))?;
        set_mode(&dir, *mode)?;
    }
    for (file, mode, content) in FILES {
        write(&tree.join(file), content, *mode)?;
    }
    own(&tree.join("etc/sandbox-persistent.sh"))?;
    append(
        &tree.join("etc/bash.bashrc"),
        "\n[ -r /etc/sandbox-persistent.sh ] && . /etc/sandbox-persistent.sh\n",
    )?;
    // nf_tables would need nft_compat below it; the older tables start the engine 0.3 s earlier under emulation.
    for name in ["iptables", "ip6tables"] {
        let program = format!("/usr/sbin/{name}-legacy");
        let mut command = chroot(tree, "update-alternatives");
        run::output(command.args(["--set", name, &program]), "choosing iptables")?;
    }
    modules(tree, kernel)?;
    remove(&tree.join("etc/apt/apt.conf.d/99mmdebstrap"))?;
    EMPTIED.iter().try_for_each(|dir| empty(&tree.join(dir)))
}

fn users(tree: &Path) -> Result<(), ImageError> {
    let id = AGENT.to_string();
    let steps: [(&str, &[&str]); 2] = [
        ("groupadd", &["-g", &id, "agent"]),
        (
            "useradd",
            &[
                "-m",
                "-u",
                &id,
                "-g",
                &id,
                "-G",
                "sudo,docker",
                "-s",
                "/bin/bash",
                "agent",
            ],
        ),
    ];
    for (program, args) in steps {
        run::output(
            chroot(tree, program).args(args),
            "creating the agent's user",
        )?;
    }
    write(&tree.join("etc/sudoers.d/agent"), &sudoers(), 0o440)?;
    let home = tree.join("home/agent");
    set_mode(&home, 0o755)?;
    let workspace = tree.join(recipe::WORKDIR.trim_start_matches('/'));
    for dir in [home.join(".local"), home.join(".local/bin"), workspace] {
        fs::create_dir(&dir).map_err(ImageError::io("create", &dir))?;
        own(&dir)?;
    }
    Ok(())
}

/// Unpacks modules and writes their dependencies.
fn modules(tree: &Path, kernel: &str) -> Result<(), ImageError> {
    let below = format!("usr/lib/modules/{kernel}");
    let mut packed = Vec::new();
    for part in UNPACKED {
        let dir = format!("{below}/kernel/{part}");
        if tree.join(&dir).is_dir() {
            find_packed(
                &tree.join(&dir),
                Path::new("/").join(&dir).as_path(),
                &mut packed,
            )?;
        }
    }
    // Hundreds of paths of a hundred bytes: well below the limit of an argument list (2 MiB).
    if !packed.is_empty() {
        let mut command = chroot(tree, "xz");
        run::output(command.arg("-d").args(&packed), "unpacking modules")?;
    }
    run::output(
        chroot(tree, "depmod").args(["-a", kernel]),
        "listing modules",
    )
    .map(drop)
}

fn find_packed(dir: &Path, inside: &Path, found: &mut Vec<PathBuf>) -> Result<(), ImageError> {
    for entry in fs::read_dir(dir)
        .map_err(ImageError::io("read", dir))?
        .flatten()
    {
        let (path, inside) = (entry.path(), inside.join(entry.file_name()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_packed(&path, &inside, found)?;
        } else if path.to_string_lossy().ends_with(".ko.xz") {
            found.push(inside);
        }
    }
    Ok(())
}

/// The tree is a stranger's: a file is replaced, never written through a link.
fn write(path: &Path, content: &str, mode: u32) -> Result<(), ImageError> {
    remove(path)?;
    fs::write(path, content).map_err(ImageError::io("write", path))?;
    set_mode(path, mode)
}

fn append(path: &Path, content: &str) -> Result<(), ImageError> {
    let text = fs::read_to_string(path).map_err(ImageError::io("read", path))?;
    write(path, &(text + content), 0o644)
}

fn remove(path: &Path) -> Result<(), ImageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ImageError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn empty(dir: &Path) -> Result<(), ImageError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(ImageError::io("remove", dir)(error));
        }
        _ => {}
    }
    fs::create_dir(dir).map_err(ImageError::io("create", dir))?;
    set_mode(dir, 0o755)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), ImageError> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(ImageError::io("set the permissions of", path))
}

fn own(path: &Path) -> Result<(), ImageError> {
    chown(path, Some(AGENT), Some(AGENT)).map_err(ImageError::io("give away", path))
}
