//! Peer `debian-vm`: a stock Debian with systemd, SSH and Docker Engine, under the same emulation.

use crate::tool::{need, output};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest that a boot may take.
const LIMIT: Duration = Duration::from_mins(4);

/// A disk with the system, and a root file system for the other peers.
#[derive(Debug)]
pub(crate) struct DebianVm {
    folder: PathBuf,
}

impl DebianVm {
    /// Builds the system below `folder` unless it is there.
    pub(crate) fn prepare(folder: &Path) -> Result<Self, String> {
        need("ssh", &["openssh-client"])?;
        let this = Self {
            folder: folder.to_path_buf(),
        };
        if folder.join("complete").exists() {
            return Ok(this);
        }
        fs::create_dir_all(folder).map_err(|e| e.to_string())?;
        // The system is made in a user namespace whose root is not us.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777))
            .map_err(|e| e.to_string())?;
        let key = this.path("key");
        for old in [key.clone(), format!("{key}.pub")] {
            // Left by a build that did not come to its end.
            let _absent = fs::remove_file(old);
        }
        output("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key])?;
        let public = fs::read_to_string(format!("{key}.pub")).map_err(|e| e.to_string())?;
        this.build(public.trim())?;
        fs::write(folder.join("complete"), "").map_err(|e| e.to_string())?;
        Ok(this)
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn build(&self, public_key: &str) -> Result<(), String> {
        let apt = sbx_image::apt::detect(Path::new("/etc/apt"))
            .ok_or("this machine's apt configuration names no Debian archive")?;
        let packages = "systemd-sysv,udev,dbus,openssh-server,iproute2,iptables,kmod,docker.io,docker-cli,\
                        ca-certificates,linux-image-cloud-amd64,initramfs-tools,zstd";
        let out = self.folder.display();
        let hooks = [
            format!("echo '{public_key}' | install -D -m 600 /dev/stdin \"$1/root/.ssh/authorized_keys\""),
            "printf '[Match]\\nName=en*\\n[Network]\\nDHCP=yes\\n' > \"$1/etc/systemd/network/a.network\""
                .to_owned(),
            "chroot \"$1\" systemctl enable systemd-networkd ssh docker".to_owned(),
            "echo /dev/vda / ext4 defaults 0 1 > \"$1/etc/fstab\"".to_owned(),
            format!("cp \"$1\"/boot/vmlinuz-* {out}/kernel; cp \"$1\"/boot/initrd.img-* {out}/initrd"),
            // Without the file systems that are mounted in it while it is made.
            format!(
                "d=$(mktemp -d) && tar --one-file-system -C \"$1\" -c . | tar -C $d -x && \
                 mke2fs -q -t ext4 -d $d {out}/disk.ext4 6G && rm -rf $d; \
                 chmod 666 {out}/disk.ext4 {out}/kernel {out}/initrd"
            ),
        ];
        let mut arguments = vec![
            "--variant=minbase".to_owned(),
            format!("--include={packages}"),
        ];
        arguments.extend(hooks.iter().map(|hook| format!("--customize-hook={hook}")));
        arguments.extend(["trixie".to_owned(), self.path("system.tar"), apt.main]);
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        output("mmdebstrap", &words).map(drop)?;
        output(
            "mmdebstrap",
            &[
                "--variant=minbase",
                "trixie",
                &self.path("rootfs.tar"),
                words[words.len() - 1],
            ],
        )
        .map(drop)
    }

    /// A minimal root file system of the same release.
    pub(crate) fn rootfs_tar(&self) -> PathBuf {
        self.folder.join("rootfs.tar")
    }

    /// Seconds from the start of QEMU until an SSH command, and until `docker version`, has answered.
    pub(crate) fn boot(&self) -> Result<(f64, f64), String> {
        let port = free_port()?;
        let overlay = self.path("overlay.qcow2");
        let disk = self.path("disk.ext4");
        output(
            "qemu-img",
            &[
                "create", "-q", "-f", "qcow2", "-b", &disk, "-F", "raw", &overlay,
            ],
        )?;
        let start = Instant::now();
        let mut vm = self.start(port, &overlay)?;
        let ssh = self.until(start, port, "true");
        let docker = ssh
            .clone()
            .and_then(|_| self.until(start, port, "docker version"));
        vm.kill()
            .and_then(|()| vm.wait())
            .map_err(|e| e.to_string())?;
        Ok((ssh?, docker?))
    }

    fn start(&self, port: u16, overlay: &str) -> Result<Child, String> {
        Command::new("qemu-system-x86_64")
            .args([
                "-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "2048",
            ])
            .args(["-nographic", "-no-reboot", "-kernel", &self.path("kernel")])
            .args(["-initrd", &self.path("initrd")])
            .args([
                "-append",
                "root=/dev/vda rw console=ttyS0 tsc=reliable nokaslr",
            ])
            .args(["-drive", &format!("file={overlay},if=virtio,format=qcow2")])
            .args([
                "-netdev",
                &format!("user,id=n,hostfwd=tcp:127.0.0.1:{port}-:22"),
            ])
            .args([
                "-device",
                "virtio-net-pci,netdev=n",
                "-device",
                "virtio-rng-pci",
            ])
            .stdin(Stdio::null())
            .stdout(fs::File::create(self.path("console.log")).map_err(|e| e.to_string())?)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start QEMU: {error}"))
    }

    fn until(&self, start: Instant, port: u16, line: &str) -> Result<f64, String> {
        let (port, key) = (port.to_string(), self.path("key"));
        let options = [
            "-i",
            &key,
            "-p",
            &port,
            "-oBatchMode=yes",
            "-oStrictHostKeyChecking=no",
            "-oUserKnownHostsFile=/dev/null",
            "-oConnectTimeout=20",
            "-oLogLevel=ERROR",
            "root@127.0.0.1",
            line,
        ];
        loop {
            match output("ssh", &options) {
                Ok(_) => return Ok(start.elapsed().as_secs_f64()),
                Err(why) if start.elapsed() > LIMIT => {
                    return Err(format!("the stock VM did not come up: {why}"));
                }
                Err(_) => std::thread::park_timeout(Duration::from_millis(50)),
            }
        }
    }
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    listener
        .local_addr()
        .map(|address| address.port())
        .map_err(|e| e.to_string())
}
