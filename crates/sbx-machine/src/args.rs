//! The one QEMU command line.
//!
//! Paths travel as JSON where QEMU takes it (`-blockdev`, `-device`, `-netdev`), because its older syntax
//! gives commas a meaning; `-chardev` knows only that syntax, so commas are doubled there.

use crate::tsc;
use sbx_wire::guest::PORT_NAME;
use sbx_wire::launch::{Accel, MAX_SHARES, MachineSpec};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Root ports kept free for hot-plug (a restored machine gets its shares this way).
pub const SPARE_PORTS: usize = 4;
/// Functions of one PCI slot.
const PORTS_PER_SLOT: usize = 8;
// The ports of two slots.
const _: () = assert!(MAX_SHARES + SPARE_PORTS <= 2 * PORTS_PER_SLOT);
/// PCI slot of the first root ports; the devices before it use lower ones.
const FIRST_PORT_SLOT: usize = 0x10;
/// Largest MTU that virtio-net and the gateway agree on.
pub const HOST_MTU: u16 = 65520;
/// The guest's address on a network of its own; the same in every sandbox.
pub const MAC: &str = "02:73:62:78:00:02";
/// Cache for translated code, MiB. Larger ones buy no start time, work that goes round in much code, and cost resident
/// memory: idle sandboxes are to stay below 500 MiB. Seen once each on 2 quiet cores, 1 GiB, small kernel, booted;
/// the work is three imports of an image and runs of it, and some Python:
///
/// | MiB | first program | `docker version` after it | work | resident then (PSS) | after the work |
/// |---|---|---|---|---|---|
/// | 32 | 1.6 s | 7.9 s | 26.3 s | 392 MiB | 477 MiB |
/// | 64 | 1.5 s | 5.6 s | 19.2 s | 425 MiB | 513 MiB |
/// | 128 | 1.5 s | 5.1 s | 13.9 s | 486 MiB | 586 MiB |
/// | 256 | 1.5 s | 4.9 s | 9.1 s | 563 MiB | 750 MiB |
/// | 512 | 1.5 s | 5.4 s | 9.1 s | 564 MiB | 789 MiB |
const TB_MIB: u32 = 128;

/// The processor under KVM. Without virtualisation of its own: a guest could drive the host kernel's code for machines in
/// machines, below everything that confines QEMU. Without the one feature that made QEMU abort at start on a host that
/// does not let it be set.
pub const CPU_KVM: &str = "max,-vmx,-svm,-arch-capabilities";
/// The same where it is emulated, for QEMU's own code for them.
pub const CPU_TCG: &str = "max,-vmx,-svm";

/// Why no command line can be built.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArgsError {
    /// QEMU's options are text.
    #[error("{0:?} is not UTF-8, QEMU cannot be told about it")]
    NotUtf8(PathBuf),
    /// More shares than ports.
    #[error("{0} host directories are shared, at most {MAX_SHARES} fit")]
    TooManyShares(usize),
}

/// What differs from machine to machine.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// Shown by `ps`; the guest does not see it.
    pub label: &'a str,
    /// The machine.
    pub spec: &'a MachineSpec,
    /// QEMU listens here for the monitor.
    pub qmp: &'a Path,
    /// QEMU listens here for the guest channel.
    pub guest: &'a Path,
    /// QEMU listens here for the gateway.
    pub frames: &'a Path,
    /// virtio-fs tags of the shares that are there from the start, in mount order; at most 36 bytes each. QEMU inherits
    /// a connection to each of them, see [`share_fd`]: it connects to nothing itself.
    pub shares: &'a [&'a str],
    /// Where memory and state come from.
    pub life: Life,
}

/// Where a machine's memory and state come from. The descriptors are inherited by QEMU, because nothing may be
/// opened for it by name or started by it under its own sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Memory of its own, and a boot.
    Boot,
    /// Memory in [`MEMORY_FD`], and a boot.
    Save,
    /// Memory in [`MEMORY_FD`], the state from [`STATE_FD`].
    Restore,
}

/// Descriptor of a file in memory, of the machine's size.
pub const MEMORY_FD: i32 = 60;
/// Descriptor of a pipe that the state waits in.
pub const STATE_FD: i32 = 61;
/// Descriptor of the connection to the first share.
const SHARE_FD: i32 = 62;

/// Descriptor of the connection to the share with this index.
pub fn share_fd(index: usize) -> i32 {
    SHARE_FD + i32::try_from(index).expect("shares are bounded by root ports")
}

/// The arguments for `qemu-system-x86_64`. Its standard output carries the serial console.
///
/// # Errors
/// See [`ArgsError`].
pub fn arguments(plan: &Plan<'_>) -> Result<Vec<String>, ArgsError> {
    if plan.shares.len() > MAX_SHARES {
        return Err(ArgsError::TooManyShares(plan.shares.len()));
    }
    let mut args = Args(Vec::new());
    base(&mut args, plan);
    channels(&mut args, plan)?;
    for (index, lower) in plan.spec.lowers.iter().enumerate() {
        args.lower(index, lower)?;
    }
    args.upper("upper", &plan.spec.upper)?;
    args.upper("docker", &plan.spec.docker)?;
    args.device(&json!({"driver": "virtio-rng-pci", "rng": "rng"}));
    ports(&mut args, plan.shares);
    shares(&mut args, plan.shares);
    boot(&mut args, plan)?;
    Ok(args.0)
}

fn base(args: &mut Args, plan: &Plan<'_>) {
    let spec = plan.spec;
    args.pair("-name", plan.label.replace(',', ",,"));
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        args.0.push(flag.into());
    }
    args.pair("-display", "none");
    args.pair(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    // What no Linux guest of ours needs is not there to be attacked, and not probed during boot.
    args.pair(
        "-machine",
        "q35,memory-backend=mem,hpet=off,smm=off,sata=off,smbus=off,vmport=off,usb=off,\
         graphics=off,dump-guest-core=off",
    );
    match spec.accel {
        Accel::Kvm => {
            args.pair("-accel", "kvm");
            args.pair("-cpu", CPU_KVM);
        }
        Accel::Tcg => {
            args.pair("-accel", format!("tcg,thread=multi,tb-size={TB_MIB}"));
            args.pair("-cpu", CPU_TCG);
        }
    }
    args.pair("-smp", spec.cpus.to_string());
    args.pair("-m", format!("{}M", spec.memory_mib));
    let size = spec.memory_mib;
    let memory = match plan.life {
        Life::Boot => format!("memory-backend-memfd,id=mem,size={size}M,share=on"),
        Life::Save | Life::Restore => format!(
            "memory-backend-file,id=mem,size={size}M,share=on,mem-path=/proc/self/fd/{MEMORY_FD}"
        ),
    };
    args.pair("-object", memory);
    args.pair("-object", "rng-builtin,id=rng");
    if plan.life == Life::Restore {
        // The monitor says when and how: not every property of a load can be given here.
        args.pair("-incoming", "defer");
    }
}

fn channels(args: &mut Args, plan: &Plan<'_>) -> Result<(), ArgsError> {
    args.pair("-chardev", "stdio,id=console,signal=off");
    args.pair("-serial", "chardev:console");
    args.listen("qmp", plan.qmp)?;
    args.pair("-mon", "chardev=qmp,mode=control");
    args.listen("agent", plan.guest)?;
    args.device(&json!({"driver": "virtio-serial-pci", "id": "serial", "max_ports": 2}));
    args.device(&json!({"driver": "virtserialport", "chardev": "agent", "name": PORT_NAME}));
    let frames = text(plan.frames)?;
    args.json(
        "-netdev",
        &json!({"type": "stream", "id": "net", "server": true,
                "addr": {"type": "unix", "path": frames}}),
    );
    args.device(
        &json!({"driver": "virtio-net-pci", "netdev": "net", "mac": MAC,
                        "host_mtu": HOST_MTU, "romfile": ""}),
    );
    Ok(())
}

/// One root port per share, and the spare ones, as functions of as few slots as possible.
fn ports(args: &mut Args, shares: &[&str]) {
    for index in 0..shares.len() + SPARE_PORTS {
        let slot = FIRST_PORT_SLOT + index / PORTS_PER_SLOT;
        let function = index % PORTS_PER_SLOT;
        args.device(
            &json!({"driver": "pcie-root-port", "id": port(index), "bus": "pcie.0",
                            "chassis": index + 1, "addr": format!("{slot:#x}.{function}"),
                            "multifunction": true}),
        );
    }
}

/// Name of a root port: shares come first, spare ones follow.
pub fn port(index: usize) -> String {
    format!("port{index}")
}

fn shares(args: &mut Args, shares: &[&str]) {
    for (index, tag) in shares.iter().enumerate() {
        let id = format!("share{index}");
        args.pair("-chardev", format!("socket,id={id},fd={}", share_fd(index)));
        args.device(
            &json!({"driver": "vhost-user-fs-pci", "id": format!("fs{index}"),
                            "chardev": id, "tag": tag, "bus": port(index)}),
        );
    }
}

fn boot(args: &mut Args, plan: &Plan<'_>) -> Result<(), ArgsError> {
    let spec = plan.spec;
    // The kernel of a restored machine has read its command line long ago.
    let khz = if plan.life == Life::Restore {
        None
    } else {
        tsc::khz()
    };
    args.pair("-kernel", text(&spec.kernel)?);
    args.pair("-initrd", text(&spec.initramfs)?);
    args.pair("-append", command_line(spec.accel, khz));
    Ok(())
}

/// Words for every kernel of ours, with what each saves of an emulated boot of about 2 s.
const COMMAND_LINE: &[&str] = &[
    "console=ttyS0",
    "quiet",
    // A panic resets, and `-no-reboot` makes that the end of QEMU.
    "panic=-1",
    "8250.nr_uarts=1",
    "random.trust_cpu=on",
    // The order of the address space is the same in every snapshot anyway; also kept boots from hanging.
    "nokaslr",
    // Self-tests of ciphers, 0.3 s, and of what only disk encryption and FIPS kernels use, 0.25 s.
    "cryptomgr.notests",
    // No device that nobody asked for, where its driver is built in.
    "dummy.numdummies=0",
    // The wait that old processors need before a second one starts, 10 ms for each.
    "cpu_init_udelay=0",
    "initcall_blacklist=init_encrypted,jent_mod_init,crypto_kdf108_init",
];

/// The kernel command line: the same for every sandbox on this host.
pub fn command_line(accel: Accel, tsc_khz: Option<u32>) -> String {
    let mut line = COMMAND_LINE.join(" ");
    if accel == Accel::Tcg {
        line.push_str(" no_timer_check");
        // A share writes into the guest's memory behind QEMU's back, which goes on executing what it once translated
        // from there: programs in a workspace crash at random. A page that the guest has made zero first is noticed.
        line.push_str(" init_on_alloc=1");
        if let Some(khz) = tsc_khz {
            // Without these about one boot in three hangs for ever on a loaded host.
            let words = format!(" tsc_early_khz={khz} tsc=reliable");
            line.push_str(&words);
        }
    }
    line
}

fn text(path: &Path) -> Result<&str, ArgsError> {
    path.to_str()
        .ok_or_else(|| ArgsError::NotUtf8(path.to_owned()))
}

fn commas(path: &Path) -> Result<String, ArgsError> {
    Ok(text(path)?.replace(',', ",,"))
}

struct Args(Vec<String>);

impl Args {
    fn pair(&mut self, option: &str, value: impl Into<String>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }

    fn json(&mut self, option: &str, value: &Value) {
        self.pair(option, value.to_string());
    }

    fn device(&mut self, value: &Value) {
        self.json("-device", value);
    }

    fn listen(&mut self, id: &str, path: &Path) -> Result<(), ArgsError> {
        let value = format!("socket,id={id},path={},server=on,wait=off", commas(path)?);
        self.pair("-chardev", value);
        Ok(())
    }

    /// A layer that all sandboxes of a template share: opened read-only, so that QEMU's lock is a shared one.
    fn lower(&mut self, index: usize, path: &Path) -> Result<(), ArgsError> {
        let name = format!("lower{index}");
        let file = json!({"driver": "file", "filename": text(path)?, "read-only": true});
        self.json(
            "-blockdev",
            &json!({"driver": "raw", "node-name": name, "read-only": true, "file": file}),
        );
        self.disk(&name);
        Ok(())
    }

    /// A disk of this sandbox. No `no-flush`: a guest's fsync becomes the host's.
    fn upper(&mut self, name: &str, path: &Path) -> Result<(), ArgsError> {
        let file = json!({"driver": "file", "filename": text(path)?, "discard": "unmap"});
        self.json(
            "-blockdev",
            &json!({"driver": "qcow2", "node-name": name, "discard": "unmap", "file": file}),
        );
        self.disk(name);
        Ok(())
    }

    fn disk(&mut self, name: &str) {
        self.device(
            &json!({"driver": "virtio-blk-pci", "drive": name, "serial": name,
                            "num-queues": 1}),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> MachineSpec {
        MachineSpec {
            accel: Accel::Tcg,
            cpus: 2,
            memory_mib: 2048,
            kernel: "/i/vmlinux".into(),
            initramfs: "/i/initramfs".into(),
            lowers: vec!["/i/a,b.erofs".into(), "/i/c.erofs".into()],
            upper: "/s/up\"per.qcow2".into(),
            docker: "/s/docker.qcow2".into(),
            bases: Vec::new(),
        }
    }

    fn build(spec: &MachineSpec, shares: &[&str]) -> Result<Vec<String>, ArgsError> {
        let (qmp, guest, frames) = (
            Path::new("/r/qmp,x"),
            Path::new("/r/guest"),
            Path::new("/r/frames"),
        );
        arguments(&Plan {
            label: "sbx-1",
            spec,
            qmp,
            guest,
            frames,
            shares,
            life: Life::Boot,
        })
    }

    fn values<'a>(args: &'a [String], option: &str) -> Vec<&'a str> {
        args.windows(2)
            .filter(|pair| pair[0] == option)
            .map(|pair| pair[1].as_str())
            .collect()
    }

    #[test]
    fn paths_with_commas_and_quotes_stay_one_value() {
        let args = build(&spec(), &[]).unwrap();
        let disks: Vec<Value> = values(&args, "-blockdev")
            .iter()
            .map(|text| serde_json::from_str(text).unwrap())
            .collect();
        assert_eq!(disks[0]["file"]["filename"], "/i/a,b.erofs");
        assert_eq!(disks[2]["file"]["filename"], "/s/up\"per.qcow2");
        assert!(args.contains(&"socket,id=qmp,path=/r/qmp,,x,server=on,wait=off".to_owned()));
    }

    #[test]
    fn shared_layers_are_read_only_and_own_disks_flush() {
        let args = build(&spec(), &[]).unwrap();
        for text in values(&args, "-blockdev") {
            let disk: Value = serde_json::from_str(text).unwrap();
            let lower = disk["node-name"].as_str().unwrap().starts_with("lower");
            assert_eq!(disk["read-only"] == true, lower, "{text}");
            assert!(!text.contains("no-flush"), "{text}");
        }
    }

    #[test]
    fn nothing_about_the_sandbox_is_on_the_kernel_command_line() {
        let (a, mut other) = (spec(), spec());
        other.upper = "/s/other.qcow2".into();
        other.memory_mib = 512;
        other.lowers.clear();
        let shares = ["ws"];
        let line = |spec, shares: &[&str]| {
            let args = build(spec, shares).unwrap();
            values(&args, "-append")
                .first()
                .map(|line| (*line).to_owned())
        };
        assert_eq!(line(&a, &[]), line(&other, &shares));
    }

    #[test]
    fn four_ports_stay_free_however_many_shares_there_are() {
        for count in [0, 1, MAX_SHARES] {
            let shares = vec!["t"; count];
            let args = build(&spec(), &shares).unwrap();
            let devices = values(&args, "-device").join("\n");
            let ports = devices.matches("pcie-root-port").count();
            assert_eq!(
                ports - devices.matches("vhost-user-fs-pci").count(),
                SPARE_PORTS
            );
        }
        let many = ["t"; MAX_SHARES + 1];
        assert_eq!(
            build(&spec(), &many),
            Err(ArgsError::TooManyShares(MAX_SHARES + 1))
        );
    }

    #[test]
    fn no_guest_has_virtualisation_of_its_own() {
        for accel in [Accel::Kvm, Accel::Tcg] {
            let args = build(&MachineSpec { accel, ..spec() }, &[]).unwrap();
            let [processor] = values(&args, "-cpu")[..] else {
                panic!("{args:?}")
            };
            let without: Vec<_> = processor.split(',').skip(1).collect();
            assert!(without.contains(&"-vmx") && without.contains(&"-svm"));
        }
    }

    #[test]
    fn emulated_boots_are_told_the_counter_frequency() {
        assert!(command_line(Accel::Tcg, Some(2_596_142)).contains("tsc_early_khz=2596142"));
        assert!(!command_line(Accel::Kvm, Some(2_596_142)).contains("tsc_early_khz"));
    }

    #[test]
    fn emulated_guests_make_pages_zero_before_a_share_fills_them() {
        let zero = |accel| {
            let line = command_line(accel, None);
            line.split(' ').any(|word| word == "init_on_alloc=1")
        };
        assert!(zero(Accel::Tcg) && !zero(Accel::Kvm));
    }
}
