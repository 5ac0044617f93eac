//! The guards of the jail: what a process that was taken over is refused, and the tests that miss it.

use super::Guard;

const MACHINE: &str = "crates/sbx-jail/src/machine.rs";
const SYSCALLS: &str = "crates/sbx-jail/src/syscalls.rs";
const FILES: &str = "crates/sbx-jail/src/files.rs";
const JAIL: &str = "crates/sbx-jail/src/lib.rs";

const OF_MACHINE: &[&str] = &["machine_has_its_own_files_and_connects_to_nothing"];
const OF_SUPERVISOR: &[&str] =
    &["supervisor_signals_only_itself_and_has_unix_sockets_until_it_is_sealed"];
const OF_ITS_SOCKETS: &[&str] = &["supervisor_removes_sockets_and_makes_and_renames_none"];
const OF_GATEWAY: &[&str] = &["gateway_runs_a_threaded_runtime_and_connects"];
const OF_SHARE: &[&str] = &["share_keeps_its_files_and_nothing_else"];
const OF_EVERY_HELPER: &[&str] = &[
    "share_keeps_its_files_and_nothing_else",
    "supervisor_signals_only_itself_and_has_unix_sockets_until_it_is_sealed",
    "gateway_runs_a_threaded_runtime_and_connects",
];
const BEYOND: &[&str] = &["a_profile_cannot_be_widened"];

/// Every guard.
pub(super) const GUARDS: &[Guard] = &[
    Guard {
        what: "a machine connects to nothing",
        file: MACHINE,
        text: "    libc::SYS_connect,\n",
        instead: "",
        tests: OF_MACHINE,
    },
    Guard {
        what: "a machine has no sockets but Unix ones",
        file: MACHINE,
        text: "let mut refused = vec![all(&[other])?];",
        instead: "let mut refused = Vec::new(); drop(other);",
        tests: OF_MACHINE,
    },
    Guard {
        what: "a machine's sockets are streams, which reach nobody without a connection",
        file: MACHINE,
        text: "refused.push(all(&[masked(1, KIND, kind)?])?);",
        instead: "let _ = kind;",
        tests: OF_MACHINE,
    },
    Guard {
        what: "a machine looks into no other process",
        file: MACHINE,
        text: "    libc::SYS_process_vm_writev,\n    libc::SYS_process_madvise,\n    libc::SYS_process_mrelease,\n",
        instead: "",
        tests: OF_MACHINE,
    },
    Guard {
        what: "a machine gets nobody's descriptors",
        file: MACHINE,
        text: "    libc::SYS_pidfd_open,\n    libc::SYS_pidfd_getfd,\n",
        instead: "",
        tests: OF_MACHINE,
    },
    Guard {
        what: "a machine signals nobody",
        file: MACHINE,
        text: "    libc::SYS_kill,\n    libc::SYS_tkill,\n    libc::SYS_rt_sigqueueinfo,\n    libc::SYS_rt_tgsigqueueinfo,\n",
        instead: "",
        tests: OF_MACHINE,
    },
    Guard {
        what: "what a machine may do to itself it may not do to others",
        file: MACHINE,
        text: "rules.extend(on_others()?);",
        instead: "let _ = on_others()?;",
        tests: OF_MACHINE,
    },
    Guard {
        what: "a machine changes no file's mode or owner",
        file: MACHINE,
        text: "    libc::SYS_fchmod,\n    libc::SYS_fchmodat,\n    libc::SYS_fchmodat2,\n    libc::SYS_fchown,\n",
        instead: "",
        tests: OF_MACHINE,
    },
    Guard {
        what: "nor by the old calls",
        file: MACHINE,
        text: "    libc::SYS_chmod,\n    libc::SYS_chown,\n",
        instead: "",
        tests: OF_MACHINE,
    },
    Guard {
        what: "nor by those of another word size",
        file: MACHINE,
        text: "Ok(([without_x32(), refused], count))",
        instead: "let _ = without_x32; Ok(([refused.clone(), refused], count))",
        tests: OF_MACHINE,
    },
    Guard {
        what: "a machine does not take the lock that says that it runs",
        file: MACHINE,
        text: "    libc::SYS_flock,\n",
        instead: "",
        tests: OF_MACHINE,
    },
    Guard {
        what: "a machine goes to no other place",
        file: MACHINE,
        text: "    libc::SYS_unshare,\n    libc::SYS_setns,\n",
        instead: "",
        tests: OF_MACHINE,
    },
    Guard {
        what: "a machine has little of the kernel",
        file: MACHINE,
        text: "    libc::SYS_io_uring_setup,\n    libc::SYS_io_uring_enter,\n",
        instead: "",
        tests: OF_MACHINE,
    },
    Guard {
        what: "programs that a machine may start are not its to change",
        file: FILES,
        text: "Self::Execute => read | AccessFs::Execute,",
        instead: "Self::Execute => read | AccessFs::Execute | AccessFs::WriteFile,",
        tests: OF_MACHINE,
    },
    Guard {
        what: "where a machine makes its sockets it makes nothing else",
        file: FILES,
        text: "Self::Sockets => AccessFs::RemoveFile | AccessFs::MakeSock,",
        instead: "Self::Sockets => AccessFs::from_write(TRIED),",
        tests: OF_MACHINE,
    },
    Guard {
        what: "a supervisor removes sockets and makes none",
        file: FILES,
        text: "Self::Remove => AccessFs::RemoveFile | AccessFs::RemoveDir,",
        instead: "Self::Remove => AccessFs::from_write(TRIED),",
        tests: OF_ITS_SOCKETS,
    },
    Guard {
        what: "files that nobody named are out of reach",
        file: FILES,
        text: ".handle_access(AccessFs::from_all(TRIED))?\n        .handle_access(net)?",
        instead: ".handle_access(AccessFs::MakeBlock)?\n        .handle_access(net)?",
        tests: OF_EVERY_HELPER,
    },
    Guard {
        what: "no helper runs code that it was sent",
        file: SYSCALLS,
        text: "rules.insert(nr, vec![all(&[masked(2, libc::PROT_EXEC, 0)?])?]);",
        instead: "rules.insert(nr, Vec::new());",
        tests: OF_EVERY_HELPER,
    },
    Guard {
        what: "no helper makes a namespace with a thread",
        file: SYSCALLS,
        text: "vec![all(&[masked(0, thread | namespaces, thread)?])?],",
        instead: "{ let _ = namespaces; vec![all(&[masked(0, thread, thread)?])?] },",
        tests: OF_EVERY_HELPER,
    },
    Guard {
        what: "no helper makes a process",
        file: SYSCALLS,
        text: "vec![all(&[masked(0, thread | namespaces, thread)?])?],",
        instead: "vec![all(&[masked(0, namespaces, 0)?])?],",
        tests: OF_EVERY_HELPER,
    },
    Guard {
        what: "no helper can be made dumpable again",
        file: SYSCALLS,
        text: "let mut prctls = vec![all(&[equal(0, libc::PR_SET_NAME)?])?];",
        instead: "let mut prctls = vec![all(&[equal(0, libc::PR_SET_NAME)?])?, all(&[equal(0, libc::PR_SET_DUMPABLE)?])?];",
        tests: OF_EVERY_HELPER,
    },
    Guard {
        what: "no helper raises its limits",
        file: SYSCALLS,
        text: "rules.insert(libc::SYS_prlimit64, vec![read_own_limits]);",
        instead: "rules.insert(libc::SYS_prlimit64, Vec::new()); drop(read_own_limits);",
        tests: OF_EVERY_HELPER,
    },
    Guard {
        what: "no helper has the kernel send signals",
        file: SYSCALLS,
        text: "rules.insert(libc::SYS_fcntl, any_of(1, FCNTLS)?);",
        instead: "rules.insert(libc::SYS_fcntl, Vec::new()); any_of(1, FCNTLS)?;",
        tests: OF_EVERY_HELPER,
    },
    Guard {
        what: "no helper asks a device for more than it needs",
        file: SYSCALLS,
        text: "rules.insert(libc::SYS_ioctl, any_of(1, &ioctls.map(low_bits))?);",
        instead: "rules.insert(libc::SYS_ioctl, Vec::new()); any_of(1, &ioctls.map(low_bits))?;",
        tests: OF_EVERY_HELPER,
    },
    Guard {
        what: "no helper makes a file that changes its user",
        file: SYSCALLS,
        text: "rules.insert(nr, vec![all(&[masked(argument, special, 0)?])?]);",
        instead: "let _ = argument; rules.insert(nr, Vec::new());",
        tests: OF_EVERY_HELPER,
    },
    Guard {
        what: "the share makes no devices",
        file: SYSCALLS,
        text: "rules.insert(libc::SYS_mknodat, kinds);",
        instead: "drop(kinds); rules.insert(libc::SYS_mknodat, Vec::new());",
        tests: OF_SHARE,
    },
    Guard {
        what: "sockets are no raw ones",
        file: SYSCALLS,
        text: "allowed.push(all(&[equal(0, family)?, masked(1, KIND, kind)?])?);",
        instead: "let _ = kind; allowed.push(all(&[equal(0, family)?])?);",
        tests: OF_GATEWAY,
    },
    Guard {
        what: "half of a pair cannot be connected anew",
        file: SYSCALLS,
        text: "masked(1, KIND, libc::SOCK_STREAM)?,",
        instead: "",
        tests: &[
            "gateway_runs_a_threaded_runtime_and_connects",
            "supervisor_signals_only_itself_and_has_unix_sockets_until_it_is_sealed",
        ],
    },
    Guard {
        what: "a sealed supervisor connects to nobody",
        file: SYSCALLS,
        text: "        libc::SYS_connect,\n        libc::SYS_seccomp,",
        instead: "        libc::SYS_seccomp,",
        tests: OF_SUPERVISOR,
    },
    Guard {
        what: "a sealed supervisor makes no socket",
        file: SYSCALLS,
        text: "        libc::SYS_socket,\n        libc::SYS_socketpair,\n        libc::SYS_connect,",
        instead: "        libc::SYS_connect,",
        tests: OF_SUPERVISOR,
    },
    Guard {
        what: "a helper's memory is written to no file",
        file: JAIL,
        text: "                current: Some(0),\n",
        instead: "                current: None,\n",
        tests: OF_EVERY_HELPER,
    },
    Guard {
        what: "only a gateway connects to addresses",
        file: JAIL,
        text: "if self.tcp && self.profile != Profile::Gateway {",
        instead: "if false {",
        tests: BEYOND,
    },
    Guard {
        what: "only a machine starts programs",
        file: JAIL,
        text: "if machines && self.profile != Profile::Machine {",
        instead: "if false && machines {",
        tests: BEYOND,
    },
];
