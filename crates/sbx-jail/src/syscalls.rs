//! The seccomp layer: one allow-list per profile.
//!
//! What is not listed fails with `EPERM`, so that a library which probes for a feature falls back instead of dying.
//! No profile lists `execve`, `execveat`, `ptrace`, `process_vm_*`, `mount`, `umount2`, `pivot_root`, `chroot`,
//! `unshare`, `setns`, `bpf`, `perf_event_open`, `userfaultfd`, `io_uring_*`, `keyctl`, `kexec_*`, `init_module`,
//! `open_by_handle_at`, `set*id`, `capset`, `fork` or `vfork`; `tests/it` has a jailed process try them.
//! Calls of another architecture (x32, i386) match no entry or are refused by the architecture check.

use std::collections::BTreeMap;
use std::fmt;

use libc::{c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::lists::lists;
use crate::{JailError, Profile, machine};

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// A compiled pair of filters, ready to be installed.
pub(crate) struct Filters {
    /// In their order: the second one may take `seccomp` away.
    filters: [BpfProgram; 2],
    syscalls: Syscalls,
}

/// How many system calls a filter knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syscalls {
    /// So many are let through, some of them only with certain arguments, and no others.
    Allowed(usize),
    /// So many are refused, some of them only with certain arguments.
    Refused(usize),
}

impl fmt::Display for Syscalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(count) => write!(f, "seccomp {count} syscalls"),
            Self::Refused(count) => write!(f, "seccomp all but {count} syscalls"),
        }
    }
}

impl Filters {
    /// Installs them on all threads.
    pub(crate) fn install(&self) -> Result<Syscalls, JailError> {
        for filter in &self.filters {
            seccompiler::apply_filter_all_threads(filter)?;
        }
        Ok(self.syscalls)
    }
}

/// Builds the filters of a profile.
pub(crate) fn compile(profile: Profile, inet: bool) -> Result<Filters, JailError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(seccompiler::Error::from)?;
    if profile == Profile::Machine {
        let (filters, count) = machine::filters(arch)?;
        return Ok(Filters {
            filters,
            syscalls: Syscalls::Refused(count),
        });
    }
    let mut rules = Rules::new();
    for list in lists(profile) {
        rules.extend(list.iter().map(|nr| (*nr, Vec::new())));
    }
    conditional(&mut rules, profile)?;
    sockets(&mut rules, profile, inet)?;
    let syscalls = rules.len();
    // Reaches the first filter, which answers ENOSYS: the arguments of clone3 lie in memory where a filter cannot
    // look, and glibc falls back to clone on this error only.
    rules.insert(libc::SYS_clone3, Vec::new());
    let allow = build(
        rules,
        SeccompAction::Errno(errno(libc::EPERM)),
        SeccompAction::Allow,
        arch,
    )?;
    let clone3 = build(
        Rules::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno(libc::ENOSYS)),
        arch,
    )?;
    Ok(Filters {
        filters: [clone3, allow],
        syscalls: Syscalls::Allowed(syscalls),
    })
}

/// See [`crate::seal_sockets`]. A filter of its own on top of the profile's: the stricter answer of the two holds.
pub(crate) fn seal_sockets() -> Result<(), JailError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(seccompiler::Error::from)?;
    let taken = [
        libc::SYS_socket,
        libc::SYS_socketpair,
        libc::SYS_connect,
        libc::SYS_seccomp,
    ];
    let filter = build(
        taken.into_iter().map(|nr| (nr, Vec::new())).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno(libc::EPERM)),
        arch,
    )?;
    Ok(seccompiler::apply_filter_all_threads(&filter)?)
}

/// System calls that are allowed with certain arguments only.
fn conditional(rules: &mut Rules, profile: Profile) -> Result<(), JailError> {
    // Never new code: no page that can be executed.
    for nr in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(nr, vec![all(&[masked(2, libc::PROT_EXEC, 0)?])?]);
    }
    // A thread of this process, never a process or a namespace.
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_PTRACE;
    let thread = libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND;
    rules.insert(
        libc::SYS_clone,
        vec![all(&[masked(0, thread | namespaces, thread)?])?],
    );
    // abort() and panics signal the process itself.
    let own = rustix::process::getpid().as_raw_nonzero().get();
    rules.insert(libc::SYS_tgkill, vec![all(&[equal(0, own)?])?]);
    if profile == Profile::Supervisor {
        rules.insert(libc::SYS_kill, vec![all(&[equal(0, own)?])?]);
    }
    // Thread names; everything else prctl can do is a privilege.
    let mut prctls = vec![all(&[equal(0, libc::PR_SET_NAME)?])?];
    if profile == Profile::Supervisor {
        // What `seal_sockets` does: one more filter, which can only take away.
        prctls.push(all(&[equal(0, libc::PR_SET_NO_NEW_PRIVS)?, equal(1, 1)?])?);
        let filter_on_all_threads = all(&[
            equal(0, SET_MODE_FILTER)?,
            condition(
                1,
                SeccompCmpArgLen::Qword,
                SeccompCmpOp::Eq,
                libc::SECCOMP_FILTER_FLAG_TSYNC,
            )?,
        ])?;
        rules.insert(libc::SYS_seccomp, vec![filter_on_all_threads]);
    }
    rules.insert(libc::SYS_prctl, prctls);
    // Limits may be read, of this process only.
    let read_own_limits = all(&[
        equal(0, 0)?,
        condition(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?,
    ])?;
    rules.insert(libc::SYS_prlimit64, vec![read_own_limits]);
    // Blocking mode, close-on-exec, bytes waiting, is-it-a-terminal.
    let ioctls = [libc::FIONBIO, libc::FIOCLEX, libc::FIONREAD, libc::TCGETS].map(u64::cast_signed);
    rules.insert(libc::SYS_ioctl, any_of(1, &ioctls.map(low_bits))?);
    rules.insert(libc::SYS_fcntl, any_of(1, FCNTLS)?);
    modes(rules, profile)
}

/// `SECCOMP_SET_MODE_FILTER`, seccomp(2).
const SET_MODE_FILTER: c_int = 1;

/// No `F_SETOWN`, `F_SETSIG`, `F_NOTIFY`: they make the kernel send signals.
const FCNTLS: &[c_int] = &[
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_OFD_SETLKW,
    libc::F_ADD_SEALS,
    libc::F_GET_SEALS,
];

/// Calls that carry a file mode: without set-user-id and set-group-id, and no device nodes.
fn modes(rules: &mut Rules, profile: Profile) -> Result<(), JailError> {
    let special =
        c_int::try_from(libc::S_ISUID | libc::S_ISGID).expect("two bits of a 16-bit mode");
    for (nr, argument) in [
        (libc::SYS_fchmod, 1),
        (libc::SYS_fchmodat, 2),
        (libc::SYS_fchmodat2, 2),
        (libc::SYS_mkdirat, 2),
    ] {
        rules.insert(nr, vec![all(&[masked(argument, special, 0)?])?]);
    }
    #[cfg(target_arch = "x86_64")]
    if profile != Profile::Share {
        for nr in [libc::SYS_mkdir, libc::SYS_chmod] {
            rules.insert(nr, vec![all(&[masked(1, special, 0)?])?]);
        }
    }
    if profile == Profile::Share {
        let mut kinds = Vec::new();
        for kind in [libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK] {
            let kind = c_int::try_from(kind).expect("a file type fits 16 bits");
            let mask = c_int::try_from(libc::S_IFMT).expect("a file type fits 16 bits") | special;
            kinds.push(all(&[masked(2, mask, kind)?])?);
        }
        rules.insert(libc::SYS_mknodat, kinds);
    }
    Ok(())
}

/// `socket` by family and kind: never raw, never packet, never netlink, even as root. A family without an entry is
/// refused; so is the whole call when no family has one.
fn sockets(rules: &mut Rules, profile: Profile, inet: bool) -> Result<(), JailError> {
    if profile == Profile::Share {
        return Ok(());
    }
    // Event loops wake themselves through a pair. Streams only: one half of a datagram pair can be connected anew,
    // to any socket that has a path.
    let pair = all(&[
        equal(0, libc::AF_UNIX)?,
        masked(1, KIND, libc::SOCK_STREAM)?,
    ])?;
    rules.insert(libc::SYS_socketpair, vec![pair]);
    let mut families = Vec::new();
    if profile == Profile::Supervisor {
        families.push(libc::AF_UNIX);
    }
    if inet {
        families.extend([libc::AF_INET, libc::AF_INET6]);
    }
    let mut allowed = Vec::new();
    for family in families {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            allowed.push(all(&[equal(0, family)?, masked(1, KIND, kind)?])?);
        }
    }
    // An entry without conditions would allow the call with any arguments.
    if !allowed.is_empty() {
        rules.insert(libc::SYS_socket, allowed);
    }
    Ok(())
}

/// Where `socket` has the kind; the bits above are flags (close-on-exec, non-blocking).
pub(crate) const KIND: c_int = 0xf;

pub(crate) fn build(
    rules: Rules,
    otherwise: SeccompAction,
    listed: SeccompAction,
    arch: TargetArch,
) -> Result<BpfProgram, JailError> {
    let filter =
        SeccompFilter::new(rules, otherwise, listed, arch).map_err(seccompiler::Error::from)?;
    Ok(BpfProgram::try_from(filter).map_err(seccompiler::Error::from)?)
}

pub(crate) fn all(conditions: &[SeccompCondition]) -> Result<SeccompRule, JailError> {
    Ok(SeccompRule::new(conditions.to_vec()).map_err(seccompiler::Error::from)?)
}

pub(crate) fn any_of(argument: u8, values: &[c_int]) -> Result<Vec<SeccompRule>, JailError> {
    values
        .iter()
        .map(|value| all(&[equal(argument, *value)?]))
        .collect()
}

fn equal(argument: u8, value: c_int) -> Result<SeccompCondition, JailError> {
    condition(
        argument,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Eq,
        bits(value),
    )
}

pub(crate) fn masked(
    argument: u8,
    mask: c_int,
    value: c_int,
) -> Result<SeccompCondition, JailError> {
    condition(
        argument,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(bits(mask)),
        bits(value),
    )
}

pub(crate) fn condition(
    argument: u8,
    len: SeccompCmpArgLen,
    op: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, JailError> {
    Ok(SeccompCondition::new(argument, len, op, value).map_err(seccompiler::Error::from)?)
}

/// The 32 bits of an `int` argument as the filter compares them.
fn bits(value: c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

/// An ioctl number is 32 bits in a `long`.
fn low_bits(number: i64) -> c_int {
    let low = u32::try_from(number & 0xffff_ffff).expect("masked to 32 bits");
    low.cast_signed()
}

pub(crate) fn errno(value: c_int) -> u32 {
    value.cast_unsigned()
}
