//! What QEMU may not do: a program of somebody else's, so the list is of what is refused, and it stays when QEMU is
//! started. The rest is Landlock's, which lets it have its own files only.
//!
//! QEMU's own filter (`-sandbox`) refuses programs and other users besides. Neither lets a machine that was taken over
//! connect to anything: Landlock does not govern Unix sockets with a path.

use std::collections::BTreeMap;

use libc::{c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompRule, TargetArch, sock_filter,
};

use crate::JailError;
use crate::syscalls::{KIND, all, any_of, build, condition, errno, masked};

/// Refused with any arguments.
const REFUSED: &[c_long] = &[
    // What Landlock does not govern of files: who may use them, and before its ABI 3 how long they are.
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_utimensat,
    libc::SYS_truncate,
    libc::SYS_inotify_add_watch,
    // The lock that says that something of the sandbox still runs.
    libc::SYS_flock,
    // Other sockets. Its monitor, channel and frames are sockets that it listens on; its shares are connected already.
    libc::SYS_connect,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // What processes of a user share besides files.
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // Other places.
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // Another user.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Much of the kernel that a machine has no use for.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// As [`REFUSED`], where only this architecture has it.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[c_long] = &[
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[c_long] = &[];

/// The filters, in the order in which they are installed, and how many system calls the second one knows.
pub(crate) fn filters(arch: TargetArch) -> Result<([BpfProgram; 2], usize), JailError> {
    let mut rules = BTreeMap::new();
    for list in [REFUSED, REFUSED_HERE] {
        rules.extend(list.iter().map(|nr| (*nr, Vec::new())));
    }
    for nr in [libc::SYS_socket, libc::SYS_socketpair] {
        rules.insert(nr, all_but_unix_streams()?);
    }
    rules.extend(on_others()?);
    let count = rules.len();
    let refuse = SeccompAction::Errno(errno(libc::EPERM));
    let refused = build(rules, SeccompAction::Allow, refuse, arch)?;
    Ok(([without_x32(), refused], count))
}

/// Calls that are for oneself or for others: signals, limits, whom the kernel signals, and whose end one's own is.
fn on_others() -> Result<Vec<(c_long, Vec<SeccompRule>)>, JailError> {
    /// `include/uapi/asm-generic/fcntl.h`, and the `ioctl` numbers of the same (`include/uapi/asm-generic/sockios.h`).
    const F_SETSIG: c_int = 10;
    const F_SETOWN_EX: c_int = 15;
    const FIOSETOWN: c_int = 0x8901;
    const SIOCSPGRP: c_int = 0x8902;
    let dword = SeccompCmpArgLen::Dword;
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let others = |id: c_int| {
        let id = u64::from(id.cast_unsigned());
        all(&[condition(0, dword.clone(), SeccompCmpOp::Ne, id)?])
    };
    Ok(vec![
        // The process that QEMU becomes keeps its id.
        (libc::SYS_tgkill, vec![others(own)?]),
        (libc::SYS_prlimit64, vec![others(0)?]),
        (
            libc::SYS_fcntl,
            any_of(1, &[libc::F_SETOWN, F_SETSIG, F_SETOWN_EX])?,
        ),
        (libc::SYS_ioctl, any_of(1, &[FIOSETOWN, SIOCSPGRP])?),
        (libc::SYS_prctl, any_of(0, &[libc::PR_SET_PDEATHSIG])?),
    ])
}

/// A datagram needs no connection to reach somebody.
fn all_but_unix_streams() -> Result<Vec<SeccompRule>, JailError> {
    let unix = u64::from(libc::AF_UNIX.cast_unsigned());
    let other = condition(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, unix)?;
    let mut refused = vec![all(&[other])?];
    for kind in (0..=KIND).filter(|kind| *kind != libc::SOCK_STREAM) {
        refused.push(all(&[masked(1, KIND, kind)?])?);
    }
    Ok(refused)
}

/// Numbers of the x32 calls, of which no list knows: on x86-64, all of them are refused.
fn without_x32() -> BpfProgram {
    /// `__X32_SYSCALL_BIT` (`arch/x86/include/uapi/asm/unistd.h`).
    const X32: u32 = 0x4000_0000;
    let op = |code: u32, jt, jf, k| sock_filter {
        code: u16::try_from(code).expect("codes have 16 bits"),
        jt,
        jf,
        k,
    };
    let refuse = libc::SECCOMP_RET_ERRNO | errno(libc::EPERM);
    vec![
        // The number is the first field of `seccomp_data`.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}
