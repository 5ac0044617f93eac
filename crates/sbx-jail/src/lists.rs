//! Which system calls a profile may make with any arguments, by what they are for. Those that are allowed with certain
//! arguments only are in `syscalls`.

use libc::c_long;

use crate::Profile;

/// The lists of a profile.
pub(crate) fn lists(profile: Profile) -> Vec<&'static [c_long]> {
    let mut lists = vec![
        MEMORY,
        THREADS,
        ENVIRONMENT,
        DESCRIPTORS,
        FILES_READ,
        FILES_WRITE,
        LEGACY_READ,
    ];
    match profile {
        Profile::Share => lists.extend([RENAME, SHARE]),
        Profile::Gateway => lists.extend([RENAME, SOCKETS, EVENT_LOOP, REMOVE, LEGACY_RENAME]),
        Profile::Supervisor => lists.extend([SOCKETS, EVENT_LOOP, REMOVE, SUPERVISOR]),
        // It has a list of what is refused, in `machine`.
        Profile::Machine => lists.clear(),
    }
    lists
}

/// Memory: the allocator and thread stacks. `mmap` and `mprotect` come with a condition, see `syscalls`.
const MEMORY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
];

/// Threads, locks and signals of the process itself. `clone` and `tgkill` come with a condition.
const THREADS: &[c_long] = &[
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Reading what time it is, who runs, and randomness.
const ENVIRONMENT: &[c_long] = &[
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
];

/// Bytes through descriptors that are already open, and waiting for them.
const DESCRIPTORS: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fstat,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
];

/// Looking at files. What may be looked at is Landlock's business.
const FILES_READ: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
];

/// Changing files. Modes that carry set-user-id or set-group-id are refused by condition.
const FILES_WRITE: &[c_long] = &[
    libc::SYS_unlinkat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_umask,
];

/// Giving files other names. Not the supervisor: it could put a socket of its own in the place of its gateway's, to which
/// the daemon sends secrets.
const RENAME: &[c_long] = &[libc::SYS_renameat, libc::SYS_renameat2];

/// Only the share: the guest may make links, set times and copy ranges in its workspace, and QEMU's memory descriptors
/// and queue events come over a socket that was listening before the jail closed.
const SHARE: &[c_long] = &[
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_utimensat,
    libc::SYS_copy_file_range,
    libc::SYS_accept4,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_shutdown,
];

/// The gateway and the supervisor: sockets after creation. `socket` and `socketpair` come with a condition, and
/// `seal_sockets` takes them and `connect` away. Whatever is to listen does so before the jail closes: a TCP socket
/// that listens without an address gets one, whatever Landlock says of `bind`.
const SOCKETS: &[c_long] = &[
    libc::SYS_bind,
    libc::SYS_accept4,
    libc::SYS_accept,
    libc::SYS_connect,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_shutdown,
];

/// The gateway and the supervisor: timers, self-pipes and shared memory of an event loop.
const EVENT_LOOP: &[c_long] = &[
    libc::SYS_pipe2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_memfd_create,
    libc::SYS_rt_sigtimedwait,
];

/// Only the supervisor: learning that a child which was started before the jail closed has ended. It cannot signal
/// one; its spawner does.
const SUPERVISOR: &[c_long] = &[libc::SYS_wait4, libc::SYS_waitid, libc::SYS_pidfd_open];

/// What glibc calls on x86-64 where other architectures have the `*at` call only.
#[cfg(target_arch = "x86_64")]
const LEGACY_READ: &[c_long] = &[
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_time,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY_READ: &[c_long] = &[];

/// As [`LEGACY_READ`]: the standard library's `remove_file` and its kin.
#[cfg(target_arch = "x86_64")]
const REMOVE: &[c_long] = &[libc::SYS_unlink, libc::SYS_rmdir];
#[cfg(not(target_arch = "x86_64"))]
const REMOVE: &[c_long] = &[];

/// As [`LEGACY_READ`]: the standard library's `rename`.
#[cfg(target_arch = "x86_64")]
const LEGACY_RENAME: &[c_long] = &[libc::SYS_rename];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY_RENAME: &[c_long] = &[];
